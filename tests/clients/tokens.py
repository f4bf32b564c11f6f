"""Authorizers of type `jwt`: tokens of real issuers and forged ones, at handshakes, requests and messages
(contract/websocket.md sections 1 and 7, contract/http-api.md sections 2 and 9)."""

import base64
import hashlib
import hmac
import json
import re
import time

import boto3
import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer
from websockets.exceptions import ConnectionClosed

from demo import chromium  # noqa: F401 (a fixture)
from http_apis import ask, checked, http_api, is_error, lines_of, pets, proxy, refused, says
from http_peers import Door, StreamSocket, Task, http_2
from issuers import Key, an_issuer, claims_of, compact, key, part
from messages import error_frame
from wire import close_frame
from world import chat, eventually, mock, run, to, two_way

UNAUTHORIZED = '{"message":"Unauthorized"}'
FORBIDDEN = '{"message":"Forbidden"}'
# What a socket's end may come later than its token's.
SLACK = 3.0


@pytest.fixture
def issuer():
    with an_issuer() as issuer:
        yield issuer


@pytest.fixture
def attacker():
    """An issuer that nobody trusts."""
    with an_issuer(key(kid="evil")) as attacker:
        yield attacker


@pytest.fixture
def doors(livegate, backend):
    """Starts a gateway whose `$connect` and whose `GET /pets` want a token of this authorizer."""
    def serve(authorizer, **parts):
        gateway = livegate(guarded(backend, authorizer, **parts))
        gateway.backend = backend
        return gateway
    return serve


@pytest.fixture
def gateway(doors, issuer):
    return doors(issuer.authorizer())


def guarded(backend, authorizer, routes=None, connect=None, route=None, requests=None, **parts):
    """A file with a WebSocket API at `/prod` and an HTTP API at `/shop`."""
    asks = {"authorizer": "tokens"}
    of_pets = {"GET /pets": {"integration": backend.at("/pets"), **asks, **(route or {})}, **(requests or {})}
    return chat(
        routes={"$connect": {"integration": backend.at("/connect"), **asks, **(connect or {})}, **(routes or {})},
        apis={"pets": pets(of_pets, base_path="/shop")},
        authorizers={"tokens": {"type": "jwt", **authorizer}}, **parts)


def bearer(token):
    return [("Authorization", f"Bearer {token}")]


def knocks(gateway, headers=(), query=""):
    """The answers to a handshake and to a request that show the same."""
    return gateway.knock("/prod" + query, headers), ask(gateway, "GET", "/shop/pets" + query, headers)


def lets_in(gateway, token, headers=None, query=""):
    """Both doors open; gives back what the backend got."""
    answers = knocks(gateway, bearer(token) if headers is None else headers, query)
    assert [answer.status for answer in answers] == [101, 200], answers
    return gateway.backend.next("/connect"), gateway.backend.next("/pets")


def turns_away(gateway, token=None, challenge=None, headers=None, query="", status=401):
    """Both doors stay shut, for the same reason, and no backend hears of it."""
    if headers is None:
        headers = bearer(token) if token is not None else []
    before = len(gateway.backend.seen_anywhere())
    socket, route = knocks(gateway, headers, query)
    body, kind = (UNAUTHORIZED, "UnauthorizedException") if status == 401 else (FORBIDDEN, "ForbiddenException")
    assert socket.error == (status, kind, body)
    assert is_error(route, status, json.loads(body)["message"])
    shown = [lines_of(answer, "WWW-Authenticate") for answer in (socket, route)]
    assert shown[0] == shown[1] and len(shown[0]) == 1, shown
    if challenge is not None:
        assert shown[0] == [challenge]
    assert len(gateway.backend.seen_anywhere()) == before
    return shown[0][0]


def invalid(description):
    return f'Bearer scope="" error="invalid_token" error_description="{description}"'


def soon(seconds):
    return time.time() + seconds


def connected(gateway, token):
    return gateway.connect(headers=dict(bearer(token)))


# Cognito, as moto has it


class Pool:
    """A user pool with one app and one user who has signed in."""

    def __init__(self, server_url):
        api = boto3.client("cognito-idp", endpoint_url=server_url, region_name="us-east-1",
                           aws_access_key_id="any", aws_secret_access_key="any")
        self.id = api.create_user_pool(PoolName="people")["UserPool"]["Id"]
        app = api.create_user_pool_client(UserPoolId=self.id, ClientName="app", ExplicitAuthFlows=[
            "ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"])
        self.app = app["UserPoolClient"]["ClientId"]
        api.admin_create_user(UserPoolId=self.id, Username="ann", MessageAction="SUPPRESS")
        api.admin_set_user_password(UserPoolId=self.id, Username="ann", Password="Correct-Horse-1", Permanent=True)
        signed_in = api.initiate_auth(ClientId=self.app, AuthFlow="USER_PASSWORD_AUTH",
                                      AuthParameters={"USERNAME": "ann", "PASSWORD": "Correct-Horse-1"})
        self.tokens = {kind: signed_in["AuthenticationResult"][f"{kind}Token"] for kind in ("Access", "Id")}
        self._keys = f"{server_url}/{self.id}/.well-known/jwks.json"

    def authorizer(self, **settings):
        # Its tokens and its discovery document name AWS's own host, which is out of reach.
        issuer = f"https://cognito-idp.us-east-1.amazonaws.com/{self.id}"
        return {"type": "jwt", "issuer": issuer, "jwks_uri": self._keys, "audience": [self.app], **settings}


@pytest.fixture(scope="module")
def pool():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Pool(f"http://{host}:{port}")
    server.stop()


@pytest.mark.parametrize("kind", ["Access", "Id"])
def test_tokens_of_a_user_pool_open(doors, pool, kind):
    connect, request = lets_in(doors(pool.authorizer()), pool.tokens[kind])
    for got in (connect, request):
        assert got.header("X-Livegate-Authorizer-Sub") == claims_of(pool.tokens[kind])["sub"]
        assert got.header("X-Livegate-Authorizer-Token_use") == kind.lower()


def test_an_access_token_is_for_its_client_id(doors, pool):
    """It has no `aud`; `client_id` stands in for it."""
    assert "aud" not in claims_of(pool.tokens["Access"]) and claims_of(pool.tokens["Access"])["client_id"] == pool.app
    lets_in(doors(pool.authorizer(audience=["other", pool.app])), pool.tokens["Access"])


@pytest.mark.parametrize("kind", ["Access", "Id"])
def test_tokens_of_a_user_pool_for_another_app_are_refused(doors, pool, kind):
    gateway = doors(pool.authorizer(audience=["another app"]))
    turns_away(gateway, pool.tokens[kind], invalid("the token does not have a valid audience"))


def test_the_scopes_of_an_access_token_open_a_route(doors, pool):
    wanted = {"authorization_scopes": ["aws.cognito.signin.user.admin"]}
    gateway = doors(pool.authorizer(), connect=wanted, route=wanted)
    lets_in(gateway, pool.tokens["Access"])
    turns_away(gateway, pool.tokens["Id"], 'Bearer scope="aws.cognito.signin.user.admin" error="insufficient_scope"',
               status=403)


# Issuers of our own, and static keys

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_keys_of_an_issuer_are_found_by_discovery(doors, algorithm):
    with an_issuer(key(algorithm)) as issuer:
        connect, request = lets_in(doors(issuer.authorizer()), issuer.token())
        assert connect.header("X-Livegate-Authorizer-Sub") == request.header("X-Livegate-Authorizer-Sub") == "ann"
        assert issuer.fetches == 1


def test_the_keys_of_all_kinds_are_told_apart_by_their_names(doors, issuer):
    keys = [key(algorithm, f"of {algorithm}") for algorithm in ("RS256", "PS256", "ES256", "ES384", "EdDSA")]
    issuer.publishes(*keys)
    gateway = doors(issuer.authorizer())
    for one in keys:
        lets_in(gateway, issuer.token(one))
    assert issuer.fetches == 1


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
@pytest.mark.parametrize("form", ["PEM text", "PEM file", "JWK text", "JWK file", "JWKS file"])
def test_a_public_key_in_the_file(doors, tmp_path, algorithm, form):
    one, kind = key(algorithm), form.split()[0]
    text = {"PEM": one.pem, "JWK": json.dumps(one.jwk), "JWKS": json.dumps({"keys": [one.jwk]})}[kind]
    (tmp_path / "key").write_text(text)
    gateway = doors({"public_key": text if form.endswith("text") else str(tmp_path / "key")})
    lets_in(gateway, one.signs({"sub": "ann", "exp": soon(60)}))
    turns_away(gateway, Key(algorithm, one.kid).signs({"sub": "ann", "exp": soon(60)}), invalid("invalid signature"))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_shared_secret(doors, algorithm):
    secret = "thirty-two bytes are enough, and more are better, so here are 64+"
    gateway = doors({"secret": secret})
    lets_in(gateway, jwt.encode({"exp": soon(60)}, secret, algorithm))
    turns_away(gateway, jwt.encode({"exp": soon(60)}, secret + "!", algorithm), invalid("invalid signature"))


def test_a_secret_from_the_environment(livegate, backend):
    secret = "a secret that stands in no file whatsoever, but in the environment"
    gateway = livegate(guarded(backend, {"secret": "${env.TOKEN_SECRET}"}), env={"TOKEN_SECRET": secret})
    gateway.backend = backend
    lets_in(gateway, jwt.encode({"exp": soon(60)}, secret, "HS256"))


# Where the token is


@pytest.mark.parametrize("value", ["{}", "Bearer {}", "bearer {}", "BEARER {}", "bEaReR {}", "Bearer   {}  "])
def test_bearer_in_front_of_a_token_is_no_part_of_it(gateway, issuer, value):
    lets_in(gateway, None, [("Authorization", value.format(issuer.token()))])


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "bearer    "])
def test_nothing_after_bearer_is_no_token(gateway, value):
    challenge = turns_away(gateway, headers=[("Authorization", value)])
    # `Bearer` alone may also be read as a token that is none.
    assert challenge in ("Bearer", invalid("token contains an invalid number of segments"))


def test_two_tokens_are_none(gateway, issuer):
    turns_away(gateway, headers=bearer(issuer.token()) + bearer(issuer.token(sub="eve")))


@pytest.mark.parametrize("source, headers, query", [
    ("$request.header.X-Token", [("x-token", "{}")], ""),
    ("route.request.header.X-Token", [("X-TOKEN", "Bearer {}")], ""),
    ("$request.querystring.token", [], "?a=1&token={}"),
    ("route.request.querystring.token", [], "?token={}&token2=x"),
])
def test_a_token_may_be_elsewhere(doors, issuer, source, headers, query):
    gateway, token = doors(issuer.authorizer(identity_source=[source])), issuer.token()
    lets_in(gateway, None, [(name, value.format(token)) for name, value in headers], query.format(token))
    turns_away(gateway, token, "Bearer")


def test_the_first_source_that_is_there_counts(doors, issuer):
    gateway = doors(issuer.authorizer(identity_source=["$request.header.Authorization", "$request.querystring.token"]))
    lets_in(gateway, issuer.token())
    lets_in(gateway, None, [], f"?token={issuer.token()}")
    turns_away(gateway, headers=bearer("garbage"), query=f"?token={issuer.token()}")


SUBPROTOCOL = {"identity_source": ["$request.header.Sec-WebSocket-Protocol"]}


@pytest.mark.parametrize("offered, chosen", [
    ("chat, {}", "chat"), ("{}, chat", "chat"), ("chat.v2, chat.v1, {}", "chat.v2"), ("{}", "{}"),
])
def test_a_token_among_the_subprotocols(doors, issuer, offered, chosen):
    gateway, token = doors(issuer.authorizer(**SUBPROTOCOL)), issuer.token()
    answer = gateway.knock(headers=[("Sec-WebSocket-Protocol", offered.format(token))])
    assert (answer.status, answer.header("Sec-WebSocket-Protocol")) == (101, chosen.format(token))


def test_the_backend_may_choose_another_subprotocol(doors, issuer, backend):
    gateway = doors(issuer.authorizer(**SUBPROTOCOL))
    backend.answer("/connect", headers={"Sec-WebSocket-Protocol": "chat.v1"})
    answer = gateway.knock(headers=[("Sec-WebSocket-Protocol", f"chat.v2, chat.v1, {issuer.token()}")])
    assert answer.header("Sec-WebSocket-Protocol") == "chat.v1"


@pytest.mark.parametrize("offered", [["chat", "{}"], ["{}", "chat"], ["{}, chat"], ["a, b", "c", "{}"]])
def test_subprotocols_may_come_in_several_lines(doors, issuer, offered):
    """RFC 6455 section 11.3.4."""
    gateway = doors(issuer.authorizer(**SUBPROTOCOL))
    lines = [("Sec-WebSocket-Protocol", line.format(issuer.token())) for line in offered]
    answer = gateway.knock(headers=lines)
    assert (answer.status, answer.header("Sec-WebSocket-Protocol")) == (101, "a" if "a, b" in offered else "chat")


@pytest.mark.parametrize("offered", [None, "chat", "chat.v1.0", "a.b.c"])
def test_subprotocols_without_a_token(doors, issuer, offered):
    gateway = doors(issuer.authorizer(**SUBPROTOCOL))
    answer = gateway.knock(headers=[("Sec-WebSocket-Protocol", offered)] if offered else [])
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, "Bearer")


OPENS = """([url, offered]) => new Promise((resolve) => {
    const socket = new WebSocket(url, offered);
    socket.onopen = () => resolve(["open", socket.protocol]);
    socket.onclose = (event) => resolve(["closed", event.code]);
})"""


def test_a_browser_shows_its_token_as_a_subprotocol(doors, issuer, chromium):  # noqa: F811
    gateway = doors(issuer.authorizer(**SUBPROTOCOL), requests={"GET /page": says("a page")})
    page = chromium.new_page()
    page.goto(f"{gateway.http_url}/shop/page")
    url = f"{gateway.ws_url}/prod"
    assert page.evaluate(OPENS, [url, ["chat", issuer.token()]]) == ["open", "chat"]
    assert page.evaluate(OPENS, [url, [issuer.token()]])[0] == "open"
    assert page.evaluate(OPENS, [url, ["chat", issuer.token(aud="other")]]) == ["closed", 1006]
    assert page.evaluate(OPENS, [url, ["chat"]]) == ["closed", 1006]
    page.close()


# What becomes of the claims

MORE = {"email": "ann@mail.example", "email_verified": True, "level": 7, "ratio": 0.5, "groups": ["admin", "ops"],
        "cognito:groups": ["a"], "name": "Zoë", "scope": "chat:read chat:write"}
TEXTS = {"sub": "ann", "aud": "app", "email": "ann@mail.example", "email_verified": "true", "level": "7",
         "ratio": "0.5", "groups": "[admin ops]", "cognito:groups": "[a]", "name": "Zoë",
         "scope": "chat:read chat:write"}


def texts(issuer, token):
    """The claims as they stand in events."""
    claims = claims_of(token)
    return {**TEXTS, "iss": issuer.url, "iat": str(claims["iat"]), "exp": str(claims["exp"])}


def test_backends_get_a_header_for_each_claim(doors, issuer):
    wanted = {"iss": issuer.url, "sub": "ann", "aud": "app", "email": "ann@mail.example", "email_verified": "true",
              "level": "7", "ratio": "0.5", "groups": '["admin","ops"]', "cognito-groups": '["a"]',
              "name": "Zo%C3%AB", "scope": "chat:read chat:write", "principalid": "ann"}
    token = issuer.token(**MORE)
    for got in lets_in(doors(issuer.authorizer()), token):
        shown = {name.lower().removeprefix("x-livegate-authorizer-"): value for name, value in got.headers
                 if name.lower().startswith("x-livegate-authorizer-")}
        assert shown == {**wanted, "iat": str(claims_of(token)["iat"]), "exp": str(claims_of(token)["exp"])}


def test_the_headers_go_with_every_message_and_the_disconnect(doors, issuer, backend):
    gateway = doors(issuer.authorizer(), routes={"send": backend.at("/send"), "$disconnect": backend.at("/disconnect")})
    with connected(gateway, issuer.token(plan="gold")) as client:
        client.says(action="send")
        assert backend.next("/send").header("X-Livegate-Authorizer-Plan") == "gold"
    assert backend.next("/disconnect").header("X-Livegate-Authorizer-Plan") == "gold"


FORGED = [("X-Livegate-Authorizer-Sub", "root"), ("x-livegate-authorizer-admin", "true"),
          ("X_Livegate_Authorizer_Sub", "root"), ("X-LIVEGATE_AUTHORIZER-sub", "root")]


def test_a_client_cannot_forge_claims(gateway, issuer):
    for got in lets_in(gateway, None, bearer(issuer.token()) + FORGED):
        assert got.header("X-Livegate-Authorizer-Sub") == "ann"
        assert "root" not in str(got.headers) and "x-livegate-authorizer-admin" not in got.names


def test_a_client_cannot_forge_claims_in_events(doors, issuer, backend):
    event = {"integration": {"type": "http_proxy", "uri": backend.at("/event"), "payload": "event"}}
    gateway = doors(issuer.authorizer(), connect=event, route=event)
    assert [one.status for one in knocks(gateway, bearer(issuer.token()) + FORGED)] == [101, 200]
    for request in backend.wait_for("/event", 2):
        assert "root" not in str(request.headers) and "root" not in request.text


def test_claims_that_are_no_headers_do_no_harm(gateway, issuer):
    token = issuer.token(**{"": "empty", "a\r\nX-Evil: 1": "x\r\nX-Evil: 2", "naïve": "ö", "nested": {"a": [1]}})
    for got in lets_in(gateway, token):
        assert "x-evil" not in got.names and got.header("X-Livegate-Authorizer-Nested") == '{"a":[1]}'


def test_the_events_of_a_connection_carry_the_claims(doors, issuer, backend):
    gateway = doors(
        issuer.authorizer(),
        connect={**to(backend.at("/connect"), payload="event"), "authorization_scopes": ["chat:write", "chat:admin"]},
        routes={"send": to(backend.at("/send"), payload="event"),
                "$disconnect": to(backend.at("/disconnect"), payload="event")})
    token = issuer.token(**MORE)
    with connected(gateway, token) as client:
        client.says(action="send")
        backend.wait_for("/send")
    for path in ("/connect", "/send", "/disconnect"):
        assert backend.next(path).json["requestContext"]["authorizer"] == {
            "principalId": "ann", "claims": texts(issuer, token), "scopes": ["chat:write"]}, path


def test_the_scopes_of_a_connection_that_none_were_asked_of_are_null(doors, issuer, backend):
    gateway = doors(issuer.authorizer(), connect=to(backend.at("/connect"), payload="event"))
    gateway.open(headers=bearer(issuer.token(scope="chat:read")))
    assert backend.next("/connect").json["requestContext"]["authorizer"]["scopes"] is None


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("wanted, scopes", [([], None), (["chat:write", "chat:read", "x"], ["chat:write", "chat:read"])])
def test_the_event_of_a_request_carries_the_claims(doors, issuer, backend, version, wanted, scopes):
    gateway = doors(issuer.authorizer(), route={
        **proxy(backend.at("/function"), payload="event", payload_format=version), "authorization_scopes": wanted})
    backend.answer("/function", body='{"statusCode":200}')
    token = issuer.token(**MORE)
    assert ask(gateway, "GET", "/shop/pets", bearer(token)).status == 200
    authorizer = backend.next("/function").json["requestContext"]["authorizer"]
    if version == "2.0":
        assert set(authorizer) == {"jwt"}
        authorizer = authorizer["jwt"]
    assert authorizer["claims"] == texts(issuer, token)
    # A set to us: which of the two orders is meant is nobody's promise.
    assert sorted(authorizer.pop("scopes") or []) == sorted(scopes or []) and set(authorizer) == {"claims"}


@pytest.mark.parametrize("expression, text", [
    ("${context.authorizer.claims.sub}", "ann"), ("${context.authorizer.principalId}", "ann"),
    ("${context.authorizer.claims.groups}", "[admin ops]"), ("${context.authorizer.claims.nope}", ""),
    ("${context.authorizer.claims.email_verified}", "true"), ("${context.authorizer.claims.cognito:groups}", "[a]"),
])
def test_mocks_can_tell_the_claims(doors, issuer, expression, text):
    gateway = doors(issuer.authorizer(), routes={"who": mock(f"<{expression}>")}, route=says(f"<{expression}>"))
    token = issuer.token(**MORE)
    assert ask(gateway, "GET", "/shop/pets", bearer(token)).body.decode() == f"<{text}>"
    with connected(gateway, token) as client:
        assert client.asks(action="who") == f"<{text}>"


def test_claims_can_be_mapped_into_headers(doors, issuer, backend):
    gateway = doors(issuer.authorizer(), route=proxy(
        backend.at("/pets"), request_parameters={"overwrite:header.X-Who": "$context.authorizer.claims.sub"}))
    assert ask(gateway, "GET", "/shop/pets", bearer(issuer.token())).status == 200
    assert backend.next("/pets").header("X-Who") == "ann"


# What the refused are told


def test_who_shows_no_token_is_told_the_scheme(gateway):
    turns_away(gateway, challenge="Bearer")


@pytest.mark.parametrize("token, description", [
    ("garbage", "token contains an invalid number of segments"),
    ("a.b", "token contains an invalid number of segments"),
    ("a.b.c.d", "token contains an invalid number of segments"),
    ("a.b.c.d.e", "token contains an invalid number of segments"),
    ("a.b.c", "token header cannot be decoded"),
    ("..", "token header cannot be decoded"),
])
def test_what_is_no_token(gateway, issuer, token, description):
    turns_away(gateway, token, invalid(description))
    assert issuer.fetches == 0


@pytest.mark.parametrize("claims, description", [
    ({"aud": "other"}, "the token does not have a valid audience"),
    ({"aud": None}, "the token does not have a valid audience"),
    ({"aud": []}, "the token does not have a valid audience"),
    ({"aud": ["other", "App", "app "]}, "the token does not have a valid audience"),
    ({"aud": {"app": "app"}}, "the token does not have a valid audience"),
    ({"aud": "other", "client_id": "app"}, "the token does not have a valid audience"),
    ({"aud": None, "client_id": "other"}, "the token does not have a valid audience"),
    ({"aud": None, "client_id": ["app"]}, "the token does not have a valid audience"),
    ({"iss": "https://elsewhere.example"}, "issuer does not match"),
    ({"iss": None}, "issuer does not match"),
    ({"iss": ["{issuer}"]}, "issuer does not match"),
    ({"iss": "{issuer}/"}, "issuer does not match"),
    ({"exp": 1_000_000_000}, "the token has expired"),
    ({"exp": 0}, "the token has expired"),
    ({"exp": -1}, "the token has expired"),
    ({"exp": None}, "the token has no expiration time"),
    ({"exp": "9999999999"}, "the token has a time that is not a number"),
    ({"exp": True}, "the token has a time that is not a number"),
    ({"exp": [9_999_999_999]}, "the token has a time that is not a number"),
    ({"nbf": 9_999_999_999}, "the token is not valid yet"),
    ({"nbf": "0"}, "the token has a time that is not a number"),
    ({"iat": 9_999_999_999}, "the token was issued in the future"),
])
def test_what_a_token_must_say(gateway, issuer, claims, description):
    spelled = json.loads(json.dumps(claims).replace("{issuer}", issuer.url))
    turns_away(gateway, issuer.token(**spelled), invalid(description))


@pytest.mark.parametrize("claims", [
    {"aud": ["other", "app"]}, {"aud": None, "client_id": "app"}, {"nbf": 0}, {"iat": None}, {"sub": None},
    {"exp": 1e300}, {"exp": 99_999_999_999_999_999_999},
])
def test_what_a_token_need_not_say(gateway, issuer, claims):
    lets_in(gateway, issuer.token(**claims))


def test_a_fraction_of_a_second_is_a_time(gateway, issuer):
    lets_in(gateway, issuer.token(exp=soon(60.5), nbf=soon(-0.5), iat=soon(-0.25)))
    turns_away(gateway, issuer.token(exp=soon(-0.01)), invalid("the token has expired"))


def test_without_an_audience_every_token_of_the_issuer_will_do(doors, issuer):
    lets_in(doors(issuer.authorizer(audience=[])), issuer.token(aud="whoever"))


def test_a_bad_signature(gateway, issuer):
    message, _, signature = issuer.token().rpartition(".")
    of_another = issuer.token(sub="bob").rpartition(".")[2]
    for bad in (of_another, signature[:-4], signature[::-1], signature + "AAAA", "", "A" * len(signature)):
        turns_away(gateway, f"{message}.{bad}", invalid("invalid signature"))
    lets_in(gateway, f"{message}.{signature}")


def test_changed_claims_are_a_bad_signature(gateway, issuer):
    header, claims, signature = issuer.token().split(".")
    forged = part(json.dumps(issuer.claims(sub="root")).encode())
    turns_away(gateway, f"{header}.{forged}.{signature}", invalid("invalid signature"))


def test_a_key_that_nobody_has(gateway, issuer):
    turns_away(gateway, issuer.token(key(kid="second")), invalid("invalid signature"))


def test_an_issuer_that_nobody_reaches(doors, issuer):
    issuer.server.kill()
    turns_away(doors(issuer.authorizer()), issuer.token(), invalid("OIDC discovery endpoint communication error"))


@pytest.mark.parametrize("path, status, body", [
    ("/.well-known/openid-configuration", 500, "{}"), ("/.well-known/openid-configuration", 200, "no JSON"),
    ("/.well-known/openid-configuration", 200, '{"issuer":"https://elsewhere.example","jwks_uri":"{url}/keys"}'),
    ("/.well-known/openid-configuration", 200, '{"issuer":"{url}","jwks_uri":"file:///etc/passwd"}'),
    ("/keys", 404, ""), ("/keys", 200, "no JSON"), ("/keys", 200, '{"keys":[]}'), ("/keys", 200, "x" * 150_001),
])
def test_an_issuer_whose_documents_are_of_no_use(doors, issuer, path, status, body):
    issuer.server.answer(path, status, body.replace("{url}", issuer.url))
    turns_away(doors(issuer.authorizer()), issuer.token(), invalid("OIDC discovery endpoint communication error"))


def test_redirects_of_an_issuer_are_not_followed(doors, issuer, attacker):
    issuer.server.answer("/keys", 302, headers={"Location": attacker.url + "/keys"})
    turns_away(doors(issuer.authorizer()), attacker.token(iss=issuer.url),
               invalid("OIDC discovery endpoint communication error"))
    assert attacker.server.seen_anywhere() == []


@pytest.mark.parametrize("had", [{}, {"scope": "pets:read"}, {"scope": ""}, {"scp": ["pets"]}, {"scope": "PETS:WRITE"},
                                 {"scope": "pets:write:own"}, {"scopes": "pets:write"}])
def test_a_token_without_the_scope(doors, issuer, had):
    wanted = {"authorization_scopes": ["pets:write", "pets:admin"]}
    gateway = doors(issuer.authorizer(), connect=wanted, route=wanted)
    turns_away(gateway, issuer.token(**had), 'Bearer scope="pets:write pets:admin" error="insufficient_scope"', status=403)


@pytest.mark.parametrize("had", [{"scope": "pets:read pets:write"}, {"scope": "pets:admin"}, {"scp": ["pets:write"]},
                                 {"scp": "a pets:write"}, {"scope": ["a", "pets:admin"]}])
def test_one_of_the_scopes_is_enough(doors, issuer, had):
    wanted = {"authorization_scopes": ["pets:write", "pets:admin"]}
    lets_in(doors(issuer.authorizer(), connect=wanted, route=wanted), issuer.token(**had))


def test_each_route_has_its_own_scopes(livegate, issuer):
    asks = {"authorizer": "tokens"}
    gateway = livegate(http_api({
        "GET /pets": {**says("all"), **asks}, "POST /pets": {**says("made"), **asks, "authorization_scopes": ["pets:write"]},
        "GET /open": says("open")}, authorizers={"tokens": issuer.authorizer()}))
    token = issuer.token(scope="pets:read")
    answers = [ask(gateway, method, path, headers).status for method, path, headers in [
        ("GET", "/pets", bearer(token)), ("POST", "/pets", bearer(token)), ("GET", "/pets", ()), ("POST", "/pets", ()),
        ("GET", "/open", ()), ("POST", "/pets", bearer(issuer.token(scope="pets:write")))]]
    assert answers == [200, 403, 401, 401, 200, 200]


@pytest.mark.parametrize("claim, seconds", [("exp", -30), ("nbf", 30), ("iat", 30)])
def test_leeway_is_for_clocks_that_differ(doors, issuer, claim, seconds):
    token = issuer.token(**{claim: int(soon(seconds))})
    lets_in(doors(issuer.authorizer(leeway="1m")), token)
    turns_away(doors(issuer.authorizer(leeway="5s")), token)


def test_algorithms_narrows_what_the_key_allows(doors, issuer):
    gateway = doors(issuer.authorizer(algorithms=["PS256", "RS512"]))
    # The same numbers, not bound to one algorithm.
    issuer.server.answer("/keys", body=json.dumps({"keys": [
        {name: value for name, value in issuer.keys[0].jwk.items() if name != "alg"}]}))
    turns_away(gateway, issuer.token(), invalid("token is signed with an algorithm that is not accepted"))
    for algorithm in ("PS256", "RS512"):
        signer = jwt.get_algorithm_by_name(algorithm)
        lets_in(gateway, compact({"alg": algorithm, "kid": "first"}, issuer.claims(),
                                 lambda message: signer.sign(message, issuer.keys[0].private)))


def test_a_refusal_carries_the_cors_headers(livegate, issuer):
    gateway = livegate(http_api({"GET /pets": {**says("x"), "authorizer": "tokens"}},
                                api={"cors": {"allow_origins": ["https://app.example.com"]}},
                                authorizers={"tokens": issuer.authorizer()}))
    origin = ("Origin", "https://app.example.com")
    answer = ask(gateway, "GET", "/pets", [origin])
    assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (401, origin[1])
    assert ask(gateway, "OPTIONS", "/pets", [origin, ("Access-Control-Request-Method", "GET")]).status == 204


def test_over_http_2(doors, issuer):
    gateway = doors(issuer.authorizer())
    with http_2(gateway) as client:
        answers = [client.answered(client.asks("GET", "/shop/pets", headers)) for headers in (
            [("authorization", f"Bearer {issuer.token()}")], [], [("authorization", "Bearer garbage")])]
    assert [dict(answer.headers)[":status"] for answer in answers] == ["200", "401", "401"]
    assert dict(answers[1].headers)["www-authenticate"] == "Bearer"


# Sockets and their tokens' ends


@pytest.fixture
def expiring(world, issuer):
    """Starts a gateway that tells of disconnects; a route shows the caller's role, another takes fresh tokens."""
    def serve(connect=None, **settings):
        says_role = mock("${context.authorizer.claims.role}")
        return world.gateway(
            routes={"$connect": {"integration": {"type": "mock", "status": 200}, "authorizer": "tokens", **(connect or {})},
                    "role": says_role, "refresh": {**says_role, "refreshes_authorization": True}},
            authorizers={"tokens": issuer.authorizer(**settings)})
    serve.told = world.told
    return serve


def ends(client, at, code=4401, reason="Token expired"):
    """The socket is closed, at this time and for this reason."""
    assert client.closed() == (code, reason)
    assert at - 0.01 <= time.time() < at + SLACK
    return True


def test_a_socket_is_closed_when_its_token_expires(expiring, issuer):
    gateway, until = expiring(), int(soon(3))
    with connected(gateway, issuer.token(exp=until)) as client:
        assert client.whoami() and ends(client, until)
    assert expiring.told() == (4401, "Token expired")


def test_the_close_code_can_be_chosen(expiring, issuer):
    gateway, until = expiring(expired_close_code=4999), soon(2)
    with connected(gateway, issuer.token(exp=until)) as client:
        assert ends(client, until, 4999)
    assert expiring.told()[0] == 4999


def test_leeway_is_given_to_sockets_too(expiring, issuer):
    gateway, until = expiring(leeway="3s"), soon(-1)
    with connected(gateway, issuer.token(exp=until)) as client:
        assert client.whoami() and ends(client, until + 3)


def test_a_fresh_token_lets_a_socket_live_on(expiring, issuer):
    gateway, first, second = expiring(), soon(2), soon(4)
    with connected(gateway, issuer.token(exp=first, role="guest")) as client:
        assert client.asks(action="role") == "guest"
        assert client.asks(action="refresh", token=issuer.token(exp=second, role="host")) == "host"
        assert client.asks(action="role") == "host"
        assert ends(client, second)
    assert expiring.told() == (4401, "Token expired")


def test_a_fresh_token_may_end_sooner(expiring, issuer):
    gateway, until = expiring(), soon(2)
    with connected(gateway, issuer.token(role="guest")) as client:
        assert client.asks(action="refresh", token=issuer.token(exp=until, role="host")) == "host"
        assert ends(client, until)


def test_the_claims_of_a_fresh_token_reach_backends(doors, issuer, backend):
    routes = {key: {**two_way(backend.at(f"/{key}"), payload=payload), "refreshes_authorization": key == "refresh"}
              for key, payload in [("refresh", "event"), ("event", "event"), ("raw", "raw")]}
    gateway = doors(issuer.authorizer(), routes={**routes, "$disconnect": backend.at("/disconnect")})
    with connected(gateway, issuer.token(role="guest")) as client:
        for action, token in [("refresh", issuer.token(role="host")), ("event", ""), ("raw", "")]:
            client.says(action=action, token=token)
            backend.wait_for(f"/{action}")
    for path in ("/refresh", "/event"):
        assert backend.next(path).json["requestContext"]["authorizer"]["claims"]["role"] == "host"
    for path in ("/raw", "/disconnect"):
        assert backend.next(path).header("X-Livegate-Authorizer-Role") == "host"
    assert backend.next("/connect").header("X-Livegate-Authorizer-Role") == "guest"


NOT_FRESH = {
    "expired": lambda issuer: issuer.token(exp=soon(-1)),
    "of another subject": lambda issuer: issuer.token(sub="bob"),
    "of no subject": lambda issuer: issuer.token(sub=None),
    "for another audience": lambda issuer: issuer.token(aud="other"),
    "of another issuer": lambda issuer: issuer.token(iss="https://elsewhere.example"),
    "badly signed": lambda issuer: issuer.token(Key("RS256", "first")),
    "unsigned": lambda issuer: compact({"alg": "none"}, issuer.claims()),
    "overlong": lambda issuer: issuer.token(pad="x" * 20_000),
    "garbage": lambda issuer: "garbage",
    "empty": lambda issuer: "",
    "absent": lambda issuer: None,
    "no text": lambda issuer: {"token": issuer.token()},
}


@pytest.mark.parametrize("what", NOT_FRESH)
def test_what_does_not_refresh(doors, issuer, backend, what):
    gateway = doors(issuer.authorizer(), routes={
        "refresh": {**two_way(backend.at("/refresh")), "refreshes_authorization": True},
        "role": mock("${context.authorizer.claims.role}")})
    with connected(gateway, issuer.token(role="guest")) as client:
        answer = client.asks(action="refresh", token=NOT_FRESH[what](issuer))
        assert re.fullmatch(error_frame("Unauthorized"), answer)
        assert client.asks(action="role") == "guest"
    assert backend.seen("/refresh") == []


def test_a_socket_that_was_not_refreshed_is_closed_at_its_old_end(expiring, issuer):
    gateway, until = expiring(), soon(2)
    with connected(gateway, issuer.token(exp=until, role="guest")) as client:
        for what in ("expired", "of another subject", "garbage"):
            assert "Unauthorized" in client.asks(action="refresh", token=NOT_FRESH[what](issuer))
        assert client.asks(action="role", token=issuer.token(role="host")) == "guest"
        assert ends(client, until)
    assert expiring.told() == (4401, "Token expired")


def test_a_fresh_token_has_to_pass_the_policies_too(expiring, issuer):
    gateway = expiring(connect={"resource_policy": [{"effect": "deny", "authorizer": {"role": "banned"}}]})
    with connected(gateway, issuer.token(role="guest")) as client:
        refusal = client.asks(action="refresh", token=issuer.token(role="banned"))
        assert re.fullmatch(error_frame("Forbidden"), refusal)
        assert client.asks(action="role") == "guest"


def test_a_fresh_token_needs_the_scopes_too(expiring, issuer):
    gateway, until = expiring(connect={"authorization_scopes": ["chat"]}), soon(2)
    with connected(gateway, issuer.token(exp=until, scope="chat", role="guest")) as client:
        refusal = client.asks(action="refresh", token=issuer.token(scope="other", role="host"))
        assert re.fullmatch(error_frame("(Forbidden|Unauthorized)"), refusal)
        assert client.asks(action="role") == "guest"
        assert ends(client, until)


def test_the_fresh_token_may_be_elsewhere(expiring, issuer):
    gateway = expiring(refresh_source=["$request.body.auth.fresh", "$request.body.token"])
    with connected(gateway, issuer.token(role="guest")) as client:
        assert client.asks(action="refresh", auth={"fresh": issuer.token(role="host")}) == "host"
        assert client.asks(action="refresh", token=issuer.token(role="guest")) == "guest"


def test_a_reload_keeps_a_socket_its_claims_and_its_end(doors, issuer, backend):
    role = {"role": mock("${context.authorizer.claims.role}")}
    gateway, until = doors(issuer.authorizer(), routes=role), soon(3)
    with connected(gateway, issuer.token(exp=until, role="guest")) as client:
        gateway.reload(guarded(backend, issuer.authorizer(audience=["another"]), routes=role))
        assert client.asks(action="role") == "guest"
        turns_away(gateway, issuer.token(), invalid("the token does not have a valid audience"))
        assert ends(client, until)


def test_a_socket_outlives_no_token_when_a_reload_takes_the_authorizer_away(doors, issuer, backend):
    gateway, until = doors(issuer.authorizer()), soon(2)
    with connected(gateway, issuer.token(exp=until)) as client:
        gateway.reload(chat(routes={"$connect": backend.at("/connect")}))
        assert client.whoami() and ends(client, until)


def test_a_socket_on_a_stream_of_http_2_ends_with_its_token(doors, issuer):
    gateway, until = doors(issuer.authorizer()), soon(2)
    with http_2(gateway) as client:
        garbage = StreamSocket(client, "/prod", [("authorization", "Bearer garbage")]).stream
        assert garbage.status == 401
        assert dict(garbage.headers)["www-authenticate"] == invalid("token contains an invalid number of segments")
        socket = StreamSocket(client, "/prod", [("authorization", f"Bearer {issuer.token(exp=until)}")])
        assert socket.frame().close == (4401, "Token expired")
    assert until - 0.01 <= time.time() < until + SLACK


def test_a_crowd_whose_tokens_end_together(doors, issuer, backend):
    gateway = doors(issuer.authorizer(), routes={"$disconnect": backend.at("/disconnect")})
    until = soon(5)
    crowd = [connected(gateway, issuer.token(exp=until)) for _ in range(100)]
    assert {client.closed() for client in crowd} == {(4401, "Token expired")}
    codes = {told.header("X-Livegate-Disconnect-Code") for told in backend.wait_for("/disconnect", 100)}
    assert codes == {"4401"} and gateway.metric("livegate_connections_closed_total", code="4401") == 100


def test_a_busy_socket_is_closed_all_the_same(expiring, issuer):
    gateway, until = expiring(), soon(2)
    with connected(gateway, issuer.token(exp=until, role="guest")) as client:
        with pytest.raises(ConnectionClosed):
            while True:
                client.asks(action="role")
        assert ends(client, until)


def test_a_client_that_leaves_first_is_told_of_by_its_own_code(expiring, issuer):
    gateway = expiring()
    with gateway.open(headers=bearer(issuer.token(exp=soon(60)))) as wire:
        wire.send(close_frame(3001, "bye"))
        assert wire.frame().close[0] == 3001
    assert expiring.told() == (3001, "bye")


def test_an_upgraded_connection_ends_with_its_token(livegate, issuer):
    with Door() as door:
        gateway = livegate(http_api(
            {"GET /ws": {"integration": door.at("/ws"), "upgrade": True, "authorizer": "tokens"}},
            authorizers={"tokens": issuer.authorizer()}))
        assert gateway.knock("/ws").status == 401
        until = soon(2)
        with gateway.wire() as client:
            upgrading = Task(client.upgrade, "/ws", bearer(issuer.token(exp=until)))
            caller = door.caller()
            assert caller.request().header("X-Livegate-Authorizer-Sub") == "ann"
            caller.lines("HTTP/1.1 101 Switching Protocols", [
                ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")])
            upgrading.outcome().send(b"any bytes")
            assert caller.takes(9) == b"any bytes"
            assert client.ended() and caller.rest() == b""
            assert until - 0.01 <= time.time() < until + SLACK


# Keys that change, and issuers that fail


def test_a_rotated_key_is_good_at_once_and_fetched_once(doors, issuer):
    gateway = doors(issuer.authorizer())
    lets_in(gateway, issuer.token())
    issuer.publishes(key(kid="second"), key(kid="first"))
    token = issuer.token()
    with issuer.holding_keys() as hold:
        callers = [Task(knocks, gateway, bearer(token)) for _ in range(20)]
        issuer.server.wait_for("/keys", 2)
        hold.release()
        answers = [[answer.status for answer in caller.outcome()] for caller in callers]
    assert answers == [[101, 200]] * 20 and issuer.fetches == 2
    lets_in(gateway, issuer.token(key(kid="first")))


def test_a_crowd_at_the_start_fetches_once(doors, issuer):
    gateway, token = doors(issuer.authorizer()), issuer.token()
    with issuer.holding_keys() as hold:
        callers = [Task(knocks, gateway, bearer(token)) for _ in range(20)]
        issuer.server.wait_for("/keys")
        hold.release()
        answers = [[answer.status for answer in caller.outcome()] for caller in callers]
    assert answers == [[101, 200]] * 20 and issuer.fetches == 1


def test_a_caller_that_leaves_takes_no_keys_away(doors, issuer):
    gateway = doors(issuer.authorizer())
    with issuer.holding_keys() as hold:
        with gateway.wire() as leaving:
            leaving.send(f"GET /shop/pets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {issuer.token()}\r\n\r\n".encode())
            issuer.server.wait_for("/keys")
        staying = Task(knocks, gateway, bearer(issuer.token()))
        hold.release()
        assert [answer.status for answer in staying.outcome()] == [101, 200]
    assert issuer.fetches == 1


def test_an_issuer_that_died_leaves_its_keys_behind(doors, issuer):
    gateway = doors(issuer.authorizer())
    lets_in(gateway, issuer.token())
    issuer.server.kill()
    lets_in(gateway, issuer.token(sub="bob"))
    turns_away(gateway, issuer.token(key(kid="second")), invalid("invalid signature"))
    lets_in(gateway, issuer.token(sub="cyd"))


def test_an_issuer_that_was_down_at_the_start(doors, issuer):
    issuer.server.kill()
    gateway = doors(issuer.authorizer())
    turns_away(gateway, issuer.token(), invalid("OIDC discovery endpoint communication error"))
    issuer.server.revive()
    eventually(lambda: gateway.knock(headers=bearer(issuer.token())).status == 101, "the issuer to be asked again")
    lets_in(gateway, issuer.token())


def test_a_dead_issuer_is_not_asked_for_every_caller(doors, issuer):
    issuer.server.answer("/.well-known/openid-configuration", 503)
    gateway, began = doors(issuer.authorizer()), time.monotonic()
    for _ in range(50):
        turns_away(gateway, issuer.token())
    # Pauses of 1, 2, 4 … s between tries.
    asked = len(issuer.server.seen("/.well-known/openid-configuration"))
    assert 1 <= asked <= 2 + (time.monotonic() - began)


def test_a_storm_of_unknown_keys_asks_seldom(doors, issuer):
    gateway, began = doors(issuer.authorizer()), time.monotonic()
    for number in range(100):
        turns_away(gateway, issuer.token(header={"kid": f"made up {number}"}), invalid("invalid signature"))
    assert issuer.fetches <= 1 + 3 + (time.monotonic() - began) / 10
    lets_in(gateway, issuer.token())


def test_keys_outlive_a_reload(doors, issuer):
    gateway = doors(issuer.authorizer())
    lets_in(gateway, issuer.token())
    gateway.reload()
    issuer.server.kill()
    lets_in(gateway, issuer.token())


@pytest.mark.parametrize("jwk", [
    {"use": "enc"}, {"key_ops": ["encrypt"]}, {"alg": "RSA-OAEP"}, {"alg": "RS512"}, {"kty": "oct", "k": part(b"k" * 32)},
])
def test_a_published_key_that_is_for_something_else(doors, issuer, jwk):
    issuer.server.answer("/keys", body=json.dumps({"keys": [{**issuer.keys[0].jwk, **jwk}, key("ES256", "other").jwk]}))
    turns_away(doors(issuer.authorizer()), issuer.token())


def test_a_published_key_that_is_too_weak(doors, issuer):
    weak = Key("RS256", "weak", bits=1024)
    issuer.publishes(weak, key())
    gateway = doors(issuer.authorizer())
    turns_away(gateway, weak.signs(issuer.claims()))
    lets_in(gateway, issuer.token(key()))


def test_each_authorizer_has_its_own_issuer(livegate, issuer, attacker):
    gateway = livegate(http_api({"GET /ours": {**says("ours"), "authorizer": "ours"},
                                 "GET /theirs": {**says("theirs"), "authorizer": "theirs"}},
                                authorizers={"ours": issuer.authorizer(), "theirs": attacker.authorizer()}))
    for path, token, status in [("/ours", issuer.token(), 200), ("/theirs", attacker.token(), 200),
                                ("/ours", attacker.token(), 401), ("/theirs", issuer.token(), 401),
                                ("/ours", attacker.token(iss=issuer.url), 401)]:
        assert ask(gateway, "GET", path, bearer(token)).status == status


def test_authorizers_of_one_issuer_share_its_keys(livegate, issuer):
    gateway = livegate(http_api({"GET /app": {**says("app"), "authorizer": "app"},
                                 "GET /other": {**says("other"), "authorizer": "other"}},
                                authorizers={"app": issuer.authorizer(), "other": issuer.authorizer(audience=["other"])}))
    for path, audience, status in [("/app", "app", 200), ("/other", "other", 200), ("/app", "other", 401)]:
        assert ask(gateway, "GET", path, bearer(issuer.token(aud=audience))).status == status
    assert issuer.fetches == 1


def test_operators_see_what_was_refused_and_fetched(doors, issuer):
    gateway = doors(issuer.authorizer(), connect={"authorization_scopes": ["chat"]})
    knocks(gateway)
    knocks(gateway, bearer(issuer.token()))
    assert gateway.metric("livegate_refusals_total", api="chat", cause="unauthorized") == 1
    assert gateway.metric("livegate_refusals_total", api="chat", cause="denied") == 1
    assert gateway.metric("livegate_refusals_total", api="pets", cause="unauthorized") == 1
    assert gateway.metric("livegate_authorizer_key_fetches_total", authorizer="tokens", outcome="ok") == 1
    issuer.server.kill()
    turns_away(gateway, issuer.token(header={"kid": "new"}))
    assert gateway.metric("livegate_authorizer_key_fetches_total", authorizer="tokens", outcome="failed") == 1


# Forgeries


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", " none", "none "])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_the_algorithm_none(gateway, issuer, name, signature):
    for kid in ({}, {"kid": "first"}):
        turns_away(gateway, compact({"alg": name, "typ": "JWT", **kid}, issuer.claims()) + signature)


def forged_secrets(public):
    """What an attacker knows of a public key, in every form that it might be taken for a secret in."""
    spki, pkcs1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    texts = [public.public_bytes(encoding, form) for encoding in (pem, der) for form in (spki, pkcs1)]
    modulus = public.public_numbers().n
    return [*texts, texts[0].rstrip(), texts[0].replace(b"\n", b"\r\n"), modulus.to_bytes(256, "big"), b""]


@pytest.mark.parametrize("where", ["PEM", "JWK", "issuer"])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_secret(doors, issuer, where, algorithm):
    one = issuer.keys[0]
    settings = {"PEM": {"public_key": one.pem}, "JWK": {"public_key": json.dumps(one.jwk)}, "issuer": issuer.authorizer()}
    gateway = doors(settings[where])
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    for secret in [*forged_secrets(one.private.public_key()), json.dumps(one.jwk).encode(), one.jwk["n"].encode()]:
        for kid in ({}, {"kid": "first"}):
            turns_away(gateway, compact({"alg": algorithm, **kid}, issuer.claims(),
                                        lambda message, secret=secret: hmac.new(secret, message, digest).digest()))


def test_a_secret_is_no_public_key(doors):
    gateway = doors({"secret": key().pem})
    turns_away(gateway, key().signs({"exp": soon(60)}))


KIDS = ["second", "evil", "", "FIRST", "first ", "../first", "../../../../dev/null", "' OR 1=1 --", "x" * 2000, 0, True,
        ["first"], {"kid": "first"}]


@pytest.mark.parametrize("kid", KIDS)
def test_another_kid(gateway, issuer, kid):
    lets_in(gateway, issuer.token())
    issuer.publishes(key(), key("ES256", "second"))
    turns_away(gateway, issuer.token(header={"kid": kid}))


def test_a_strangers_key_under_our_kid(gateway, issuer, attacker):
    turns_away(gateway, Key("RS256", "first").signs(issuer.claims()), invalid("invalid signature"))
    turns_away(gateway, Key("ES256", "first").signs(issuer.claims()))


def embedded(attacker):
    one = attacker.keys[0]
    url = attacker.url + "/keys"
    return {
        "jwk": {"jwk": one.jwk}, "jwk of our kid": {"jwk": {**one.jwk, "kid": "first"}, "kid": "first"},
        "jku": {"jku": url}, "jku of our kid": {"jku": url, "kid": "first"}, "x5u": {"x5u": url},
        "no kid": {"jku": url, "kid": None},
        "x5c": {"x5c": [base64.b64encode(one.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).decode()]},
        "kid that is a URL": {"kid": url},
    }


@pytest.mark.parametrize("how", ["jwk", "jwk of our kid", "jku", "jku of our kid", "x5u", "x5c", "no kid", "kid that is a URL"])
def test_a_key_that_a_token_brings_along_is_not_looked_at(gateway, issuer, attacker, how):
    lets_in(gateway, issuer.token())
    turns_away(gateway, attacker.keys[0].signs(issuer.claims(), **embedded(attacker)[how]), invalid("invalid signature"))
    assert attacker.server.seen_anywhere() == []


def test_the_issuer_that_a_token_names_is_not_asked(gateway, attacker):
    turns_away(gateway, attacker.token())
    assert attacker.server.seen_anywhere() == []


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["https://example.com/own"], [], "exp", None])
def test_critical_headers_are_not_understood(gateway, issuer, crit):
    header = {"alg": "RS256", "kid": "first", "crit": crit, "b64": True, "https://example.com/own": 1}
    signer = jwt.get_algorithm_by_name("RS256")
    token = compact(header, issuer.claims(), lambda message: signer.sign(message, issuer.keys[0].private))
    turns_away(gateway, token, invalid("token has critical headers that are not understood"))


def test_an_overlong_token(gateway, issuer):
    turns_away(gateway, "x" * 9_000)
    # Beyond what a head may hold.
    answers = knocks(gateway, bearer(issuer.token(pad="x" * 12_000)))
    assert [answer.status for answer in answers] == [431, 431]
    assert gateway.backend.seen_anywhere() == []


@pytest.mark.parametrize("signature", [bytes(64), b"\x30\x06\x02\x01\x00\x02\x01\x00", bytes(96), b""])
def test_a_signature_of_nothing(doors, signature):
    with an_issuer(key("ES256")) as issuer:
        turns_away(doors(issuer.authorizer()), compact({"alg": "ES256", "kid": "first"}, issuer.claims(), lambda _: signature))


def test_a_signature_in_another_form(doors):
    """ECDSA in DER, as X.509 has it: JOSE wants the two numbers."""
    with an_issuer(key("ES256")) as issuer:
        der = compact({"alg": "ES256", "kid": "first"}, issuer.claims(),
                      lambda message: issuer.keys[0].private.sign(message, ec.ECDSA(hashes.SHA256())))
        turns_away(doors(issuer.authorizer()), der, invalid("invalid signature"))


@pytest.mark.parametrize("change", [
    lambda token: token + "=", lambda token: token.replace(".", "=.", 1), lambda token: token.replace(".", ". "),
    lambda token: token + ".", lambda token: "." + token, lambda token: token[:40] + "\t" + token[40:],
    lambda token: token.replace(".", "%2E"), lambda token: f'"{token}"', lambda token: f"Bearer {token}",
    lambda token: token + "," + token,
])
def test_a_token_in_another_spelling(gateway, issuer, change):
    turns_away(gateway, change(issuer.token()))


@pytest.mark.parametrize("claims", [b"", b"no JSON", b"[]", b'"x"', b"null", b"\xff\xfe", b"{}" * 2])
def test_a_well_signed_payload_that_is_no_object(gateway, issuer, claims):
    turns_away(gateway, issuer.keys[0].signs(claims), invalid("token payload is not a JSON object"))


# What must stay secret


@pytest.fixture
def talkative(livegate, backend, issuer):
    """A gateway that logs all that it can."""
    text = guarded(backend, issuer.authorizer(identity_source=[
        "$request.header.Authorization", "$request.querystring.token", "$request.header.Sec-WebSocket-Protocol"]),
        routes={"refresh": {**two_way(backend.at("/refresh")), "refreshes_authorization": True}})
    # The log lies in the watched folder, and `notify` would log that the log has grown.
    return livegate(text, env={"RUST_LOG": "trace,notify=off"})


def is_shown_nowhere(gateway, *tokens):
    """Neither a token nor what it says is in anything that operators look at."""
    metrics = gateway.admin("/metrics").body.decode()
    gateway.terminate()
    said = [run(verb, cwd=gateway.folder) for verb in ("check", "routes")]
    places = {"log": gateway.logs(), "metrics": metrics, "reports": "".join(one.stdout + one.stderr for one in said)}
    assert "TRACE" in places["log"]
    for name, text in places.items():
        for secret in ["mail.example", *(piece for token in tokens for piece in token.split(".")[1:])]:
            at = text.find(secret)
            assert at < 0, f"the {name} shows it: {text[max(0, at - 200):at + 20]}"
    return True


def test_no_token_of_a_request_is_shown_to_operators(talkative, issuer):
    good = issuer.token(email="ann@mail.example")
    bad, unknown = issuer.token(aud="other", email="ann@mail.example"), issuer.token(key(kid="second"))
    for token, status in [(good, 200), (bad, 401), (unknown, 401)]:
        offered = [("Sec-WebSocket-Protocol", f"chat, {token}")]
        for headers, query in [(bearer(token), ""), ([], f"?token={token}"), (offered, "")]:
            assert knocks(talkative, headers, query)[1].status == status
    with http_2(talkative) as client:
        for token in (good, bad):
            client.answered(client.asks("GET", "/shop/pets", [("authorization", f"Bearer {token}")]))
            client.answered(client.asks("GET", f"/shop/pets?token={token}"))
    assert is_shown_nowhere(talkative, good, bad, unknown)


def test_no_token_of_a_message_is_shown_to_operators(talkative, issuer, backend):
    good, bad = issuer.token(email="ann@mail.example"), issuer.token(aud="other", email="ann@mail.example")
    with connected(talkative, issuer.token()) as client:
        for token in (good, bad):
            client.says(action="refresh", token=token)
        assert re.fullmatch(error_frame("Unauthorized"), client.hears())
    assert len(backend.wait_for("/refresh")) == 1
    assert is_shown_nowhere(talkative, good, bad)


def reports(folder, text):
    """All that `check` and `routes` say of a file."""
    (folder / "routes.toml").write_text(text)
    (folder / "routes.toml").chmod(0o600)
    said = [run(verb, cwd=folder) for verb in ("check", "routes")]
    return "".join(one.stdout + one.stderr for one in said)


@pytest.mark.parametrize("quotes", ['"', "'", '"""', "'''"])
@pytest.mark.parametrize("settings", [
    {"secret": "short, secret"}, {"secret": "a long secret that nobody may see", "public_key": key().pem},
    {"secret": "a long secret that nobody may see", "algorithms": ["RS256"]},
])
def test_no_secret_is_in_a_report(tmp_path, backend, settings, quotes):
    text = guarded(backend, settings)
    quoted = json.dumps(settings["secret"])
    report = reports(tmp_path, text.replace(quoted, quotes + settings["secret"] + quotes))
    assert "authorizers.tokens" in report and settings["secret"] not in report


@pytest.mark.parametrize("form", ["PEM", "JWK"])
def test_a_private_key_is_refused_and_not_shown(tmp_path, backend, form):
    private = key("EdDSA").private_pem
    secret = private.splitlines()[1]
    text = {"PEM": private, "JWK": json.dumps({**key("EdDSA").jwk, "d": secret})}[form]
    report = reports(tmp_path, guarded(backend, {"public_key": text}))
    assert "private key" in report and secret not in report


# What `livegate check` says

ISSUER = {"type": "jwt", "issuer": "https://id.example.com"}
SEND = {"integration": "http://127.0.0.1:3000/send"}


def written(tokens=ISSUER, connect=None, send=None):
    """A file with one socket API, and one thing wrong with it."""
    return chat(routes={"$connect": {**SEND, "authorizer": "tokens", **(connect or {})}, "send": {**SEND, **(send or {})}},
                authorizers={"tokens": tokens})


def test_a_good_file_has_no_problems(tmp_path):
    assert checked(tmp_path, written(send={"refreshes_authorization": True}))[0] == 0


@pytest.mark.parametrize("text, words", [
    (written(send={"authorizer": "tokens"}), ["`authorizer`", "$connect"]),
    (written(send={"authorization_scopes": ["a"]}), ["`authorization_scopes`", "$connect"]),
    (written(connect={"authorizer": "token"}), ["there is no authorizer `token`", "did you mean `tokens`?"]),
    (written(connect={"refreshes_authorization": True}), ["refreshes_authorization"]),
    (written(connect={"authorizer": "aws_iam"}, send={"refreshes_authorization": True}), ["refreshes_authorization"]),
    (chat(routes={"send": {**SEND, "refreshes_authorization": True}}), ["refreshes_authorization"]),
    (chat(routes={"$connect": {**SEND, "authorization_scopes": ["a"]}}), ["no authorizer"]),
    (http_api({"GET /": {**SEND, "authorizer": "tokens", "refreshes_authorization": True}}, authorizers={"tokens": ISSUER}),
     ["refreshes_authorization"]),
    (written({"type": "jwt"}), ["which keys"]),
    (written({"type": "jwt", "jwks_uri": "https://id.example.com/keys", "secret": "x" * 32}), ["`jwks_uri` and `secret`"]),
    (written({"type": "jwt", "public_key": key().pem, "algorithms": ["HS256"]}), ["none of these algorithms"]),
    (written({"type": "jwt", "public_key": "nowhere.pem"}), ["neither a key nor the path of a file"]),
    (written({**ISSUER, "algorithms": ["none"]}), ["`none` is no algorithm"]),
    (written({**ISSUER, "issuer": "id.example.com"}), ["`id.example.com` is no URL"]),
    (written({**ISSUER, "expired_close_code": 1008}), ["4000 to 4999"]),
    (written({**ISSUER, "identity_source": ["$request.body.token"]}), ["may not stand here"]),
    (written({**ISSUER, "identity_source": []}), ["names no place for the token"]),
    (written({**ISSUER, "identity_source": ["$stageVariables.token"]}), ["stage variable `token`"]),
    (written({**ISSUER, "type": "lambda"}), ["`lambda` is not in this version"]),
])
def test_bad_files_are_refused(tmp_path, text, words):
    refused(tmp_path, text, "routes.toml:", *words)


def test_an_authorizer_that_cannot_be_read_is_one_problem(tmp_path):
    report = refused(tmp_path, written({**ISSUER, "type": "JWT"}), "did you mean `jwt`?")
    assert "there is no authorizer" not in report
