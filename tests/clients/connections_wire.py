"""The @connections API as bytes: paths, order of checks, presigned URLs, bearer tokens, and the SDK for Node."""

import hashlib
import json
import subprocess
import urllib.parse

import pytest

from signing import BACKEND, KEY_ID, SECRET, presigned, signed
from world import REPOSITORY, http_request

UNKNOWN = "zeYsWoCdtIv4VN8="
FORBIDDEN = (403, "ForbiddenException", '{"message":"Forbidden"}')
MISSING = (403, "MissingAuthenticationTokenException", '{"message":"Missing Authentication Token"}')


@pytest.fixture
def gateway(livegate):
    return livegate(connections_api={"authorization": "aws_iam"}, credentials=BACKEND)


@pytest.fixture
def client(gateway):
    with gateway.connect() as client:
        yield client


def ask(gateway, method, path, body=b"", **how):
    return gateway.request(method, path, body, signed(method, gateway.http_url + path, body, **how))


# Paths


@pytest.mark.parametrize("path", [
    "/prod/@connections/{encoded}", "/prod/%40connections/{encoded}", "/prod/@connections/{plain}", "/prod//@connections/{encoded}",
    "//prod/@connections/{encoded}", "/prod/@connections//{encoded}", "/prod/%40connections/{plain}",
])
def test_every_spelling_of_the_path_that_sdks_use(gateway, client, path):
    mine = client.whoami()
    answer = ask(gateway, "POST", path.format(encoded=mine.replace("=", "%3D"), plain=mine), b"hello")
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "0")
    assert answer.header("x-amzn-RequestId") and answer.header("x-amzn-ErrorType") is None
    assert client.hears() == "hello"


def test_delete_has_no_body(gateway, client):
    answer = ask(gateway, "DELETE", f"/prod/@connections/{client.whoami()}")
    assert (answer.status, answer.body) == (204, b"") and answer.header("x-amzn-RequestId")


def test_gone_has_an_empty_body(gateway):
    gone = ask(gateway, "POST", "/prod/@connections/zeYsWoCdtIv4VN8%3D", b"x")
    assert gone.error == (410, "GoneException", "") and gone.header("Content-Length") == "0"
    assert gone.header("x-amzn-RequestId")


@pytest.mark.parametrize("name", ["nope", "zeYsWoCdtIv4VN8", "zeYsWoCdtIv4VN8==", "zeYsWoCdtIv4+N8="])
def test_a_malformed_id_is_a_bad_request(gateway, name):
    refused = ask(gateway, "POST", f"/prod/@connections/{urllib.parse.quote(name, safe='')}", b"x")
    assert refused.error[:2] == (400, "BadRequestException")
    assert refused.json == {"message": f"Invalid connectionId: {name}"}


def test_too_large_says_so(gateway, client):
    refused = ask(gateway, "POST", f"/prod/@connections/{client.whoami()}", b"x" * 131_073)
    assert refused.error[:2] == (413, "PayloadTooLargeException") and "message" in refused.json


@pytest.mark.parametrize("path", ["/@connections/zeYsWoCdtIv4VN8%3D", "/nope/@connections/zeYsWoCdtIv4VN8%3D"])
def test_a_wrong_or_missing_stage_is_forbidden(gateway, path):
    assert ask(gateway, "POST", path, b"x").error == FORBIDDEN


def test_an_endpoint_that_has_the_segment_already_fails(gateway, client):
    mine = client.whoami().replace("=", "%3D")
    assert ask(gateway, "POST", f"/prod/@connections/@connections/{mine}", b"x").status in (400, 403, 404)


# The order of checks


def test_the_bound_comes_before_the_signature_and_needs_no_body(gateway):
    with gateway.wire() as wire:
        wire.send(b"POST /prod/@connections/nope HTTP/1.1\r\nHost: x\r\nContent-Length: 131073\r\n\r\n")
        assert wire.response().error[:2] == (413, "PayloadTooLargeException")


def test_one_byte_too_many_in_chunks_is_too_large(gateway):
    with gateway.wire() as wire:
        wire.send(b"POST /prod/@connections/nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send(b"20001\r\n" + b"x" * 131_073)
        assert wire.response().error[:2] == (413, "PayloadTooLargeException")


@pytest.mark.parametrize("name", ["nope", "zeYsWoCdtIv4VN8%3D"])
def test_the_signature_comes_before_the_id(gateway, name):
    assert gateway.request("POST", f"/prod/@connections/{name}", b"x").error == MISSING


def test_allow_comes_before_the_id(livegate):
    credentials = {"backend": {"access_key_id": KEY_ID, "secret_access_key": SECRET}}
    gateway = livegate(connections_api={"authorization": "aws_iam"}, credentials=credentials)
    assert ask(gateway, "POST", "/prod/@connections/nope", b"x").error == FORBIDDEN


# Signatures


def test_another_body_than_the_signed_one_is_refused(gateway, client):
    path = f"/prod/@connections/{client.whoami()}"
    headers = signed("POST", gateway.http_url + path, b"hello")
    refused = gateway.request("POST", path, b"hellO", headers)
    assert refused.error[:2] == (403, "InvalidSignatureException")
    assert refused.json["message"].startswith("The request signature we calculated does not match the signature you provided.")


def test_a_claimed_hash_that_is_not_the_bodys_is_refused(gateway, client):
    path = f"/prod/@connections/{client.whoami()}"
    claimed = {"x-amz-content-sha256": hashlib.sha256(b"hello").hexdigest()}
    headers = signed("POST", gateway.http_url + path, b"hello", headers=claimed)
    assert gateway.request("POST", path, b"hellO", headers).status == 403


def test_another_path_or_method_than_the_signed_one_is_refused(gateway, client):
    path = f"/prod/@connections/{client.whoami()}"
    headers = signed("GET", gateway.http_url + path)
    assert gateway.request("DELETE", path, None, headers).status == 403
    assert gateway.request("GET", "/prod/@connections/zeYsWoCdtIv4VN8%3D", None, headers).status == 403
    assert gateway.request("GET", path, None, headers).status == 200


@pytest.mark.parametrize("at, status", [(-240, 200), (240, 200), (-360, 403), (360, 403)])
def test_clocks_may_differ_by_five_minutes(gateway, client, at, status):
    assert ask(gateway, "GET", f"/prod/@connections/{client.whoami()}", at=at).status == status


def test_another_service_is_refused(gateway, client):
    assert ask(gateway, "GET", f"/prod/@connections/{client.whoami()}", service="lambda").status == 403


@pytest.mark.parametrize("header", ["", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=x", "Bearer x", "AWS4-HMAC-SHA256 Credential=AKIDLOCAL/20250101/us-east-1/execute-api/aws4_request, SignedHeaders=host, Signature=zz", "Basic !!"])
def test_nonsense_for_a_signature_is_refused(gateway, client, header):
    refused = gateway.request("GET", f"/prod/@connections/{client.whoami()}", None, {"Authorization": header})
    assert refused.status == 403 and refused.header("x-amzn-ErrorType")


# Presigned


@pytest.mark.parametrize("method, body, status", [("POST", b"hello", 200), ("GET", b"", 200), ("DELETE", b"", 204)])
def test_a_presigned_url_needs_no_header(gateway, client, method, body, status):
    url = presigned(method, f"{gateway.http_url}/prod/@connections/{client.whoami().replace('=', '%3D')}", body)
    assert http_request(gateway.http_url, method, url.removeprefix(gateway.http_url), body).status == status


def test_a_presigned_url_is_for_one_method(gateway, client):
    url = presigned("GET", f"{gateway.http_url}/prod/@connections/{client.whoami().replace('=', '%3D')}")
    assert gateway.request("DELETE", url.removeprefix(gateway.http_url)).status == 403


@pytest.mark.parametrize("expires, at, status", [(60, -30, 200), (60, -90, 403), (604_800, -600_000, 200), (604_801, 0, 403), (60, 360, 403), (0, -10, 403), (-1, 0, 403)])
def test_a_presigned_url_expires(gateway, client, expires, at, status):
    url = presigned("GET", f"{gateway.http_url}/prod/@connections/{client.whoami().replace('=', '%3D')}", expires=expires, at=at)
    assert gateway.request("GET", url.removeprefix(gateway.http_url)).status == status


def test_a_presigned_url_that_was_changed_is_refused(gateway, client):
    url = presigned("GET", f"{gateway.http_url}/prod/@connections/{client.whoami().replace('=', '%3D')}", expires=60)
    path = url.removeprefix(gateway.http_url)
    assert gateway.request("GET", path.replace("X-Amz-Expires=60", "X-Amz-Expires=600")).status == 403
    assert gateway.request("GET", path + "&more=1").status == 403
    assert gateway.request("GET", path).status == 200


# Bearer tokens and none


@pytest.mark.parametrize("header, status", [("Bearer t0ken", 200), ("bearer t0ken", 200), ("Bearer t0ke", 403), ("Bearer t0kenn", 403),
                                            ("Bearer ", 403), ("Basic t0ken", 403), ("t0ken", 403)])
def test_a_bearer_token_is_compared_whole(livegate, header, status):
    credentials = {"pusher": {"bearer_token": "t0ken", "allow": ["execute-api:ManageConnections chat/*"]}}
    gateway = livegate(connections_api={"authorization": "bearer"}, credentials=credentials)
    with gateway.connect() as client:
        answer = gateway.request("POST", f"/prod/@connections/{client.whoami()}", b"hi", {"Authorization": header})
        assert answer.status == status
        assert status != 200 or client.hears() == "hi"


def test_without_a_bearer_token_it_is_missing(livegate):
    credentials = {"pusher": {"bearer_token": "t0ken", "allow": ["execute-api:ManageConnections chat/*"]}}
    gateway = livegate(connections_api={"authorization": "bearer"}, credentials=credentials)
    assert gateway.push(UNKNOWN, "x").error == MISSING


def test_a_bearer_tokens_allow_counts(livegate):
    credentials = {"pusher": {"bearer_token": "t0ken", "allow": ["execute-api:ManageConnections chat/prod/GET/*"]}}
    gateway = livegate(connections_api={"authorization": "bearer"}, credentials=credentials)
    with gateway.connect() as client:
        path = f"/prod/@connections/{client.whoami()}"
        assert gateway.request("GET", path, None, {"Authorization": "Bearer t0ken"}).status == 200
        assert gateway.request("POST", path, b"hi", {"Authorization": "Bearer t0ken"}).error == FORBIDDEN


def test_without_authorization_anybody_on_this_machine_may_push(livegate):
    gateway = livegate(connections_api={"authorization": "none"})
    with gateway.connect() as client:
        assert gateway.push(client.whoami(), "hi").status == 200
        assert client.hears() == "hi"


# The SDK for JavaScript


def node(script, *arguments):
    """Runs one of `node/*.mjs`; each line it prints is JSON."""
    done = subprocess.run(["node", str(REPOSITORY / "tests" / "clients" / "node" / script), *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_node_sdk_posts_describes_and_closes(gateway, client, slash):
    mine = client.whoami()
    posted, described, deleted, gone = node("operations.mjs", f"{gateway.http_url}/prod{slash}", KEY_ID, SECRET, mine, "from node: héllo")
    assert client.hears() == "from node: héllo"
    assert client.closed()[0] == 1000
    assert posted["status"] == 200 and posted["requestId"]
    assert described["status"] == 200 and described["identity"]["SourceIp"] == "127.0.0.1"
    assert deleted["status"] == 204
    assert gone == {"name": "GoneException", "status": 410}


def test_the_node_sdk_names_its_errors(gateway, client):
    too_large, wrong_secret, gone = node("errors.mjs", f"{gateway.http_url}/prod", KEY_ID, SECRET, client.whoami())
    assert too_large == {"name": "PayloadTooLargeException", "status": 413}
    assert wrong_secret == {"name": "InvalidSignatureException", "status": 403}
    assert gone == {"name": "GoneException", "status": 410}
