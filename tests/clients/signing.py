"""AWS clients and signatures made with botocore itself."""

import datetime
import hashlib

import boto3
import botocore.auth
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

KEY_ID, SECRET = "AKIDLOCAL", "a secret of ours"

# `[credentials.*]` that may do everything.
BACKEND = {"backend": {"access_key_id": KEY_ID, "secret_access_key": SECRET, "allow": ["execute-api:ManageConnections chat/*"]}}

_session = boto3.Session(region_name="us-east-1")


def management(endpoint, key_id=KEY_ID, secret=SECRET, token=None, attempts=1, region="us-east-1"):
    """boto3's client of the @connections API, without retries unless a test wants them."""
    return _session.client(
        "apigatewaymanagementapi", endpoint_url=endpoint, region_name=region,
        aws_access_key_id=key_id, aws_secret_access_key=secret, aws_session_token=token,
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, proxies={}))


def signed(method, url, body=b"", *, key_id=KEY_ID, secret=SECRET, token=None, service="execute-api", region="us-east-1",
           at=None, headers=None):
    """The headers that sign a request in botocore's way."""
    request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
    with clock(at):
        SigV4Auth(Credentials(key_id, secret, token), service, region).add_auth(request)
    return dict(request.headers)


class _QueryAuth(SigV4QueryAuth):
    """botocore moves a body into the query when it presigns; this one only hashes it."""

    def __init__(self, body, expires, credentials, service, region):
        super().__init__(credentials, service, region, expires=expires)
        self._body_hash = hashlib.sha256(body).hexdigest()

    def payload(self, request):
        return self._body_hash


def presigned(method, url, body=b"", *, key_id=KEY_ID, secret=SECRET, token=None, service="execute-api",
              region="us-east-1", expires=60, at=None):
    """A URL that carries its own signature."""
    request = AWSRequest(method=method, url=url)
    with clock(at):
        _QueryAuth(body, expires, Credentials(key_id, secret, token), service, region).add_auth(request)
    return request.url


class clock:
    """Lets botocore sign at another time than now: `at` is a number of seconds from now."""

    def __init__(self, at):
        self._at = at

    def __enter__(self):
        self._real = botocore.auth.get_current_datetime
        if self._at is not None:
            botocore.auth.get_current_datetime = lambda *_, **__: self._real() + datetime.timedelta(seconds=self._at)

    def __exit__(self, *_):
        botocore.auth.get_current_datetime = self._real
