"""The authorizer `aws_iam`: requests and handshakes that botocore signs, and others (contract/http-api.md sections 2 and
9, contract/websocket.md sections 1 and 7)."""

import itertools
import json
import re
import urllib.parse

import httpx
import pytest

from http_apis import ask, checked, http_api, is_error, pets, proxy, refused, says
from http_peers import StreamSocket, http_2
from signing import KEY_ID, SECRET, presigned, signed
from world import chat, eventually, mock, run, to

ACCOUNT = "123456789012"
FORBIDDEN = (403, "ForbiddenException", '{"message":"Forbidden"}')
EVERYTHING = ["execute-api:Invoke chat/*", "execute-api:Invoke pets/*"]


def guarded(backend, connect=None, route=None, routes=None, allow=EVERYTHING, deny=None, credential=None, gateway=None,
            **parts):
    """A file with a WebSocket API at `/prod` and an HTTP API at `/shop`, both for callers who sign."""
    asks = {"authorizer": "aws_iam"}
    caller = {"access_key_id": KEY_ID, "secret_access_key": SECRET, "allow": allow, "deny": deny or [], **(credential or {})}
    return chat(
        gateway={"account_id": ACCOUNT, **(gateway or {})},
        routes={"$connect": {"integration": backend.at("/connect"), **asks, **(connect or {})}, **(routes or {})},
        apis={"pets": pets({"$default": {"integration": backend.at(""), **asks, **(route or {})}}, base_path="/shop")},
        credentials={"caller": caller}, **parts)


@pytest.fixture
def gateway(livegate, backend):
    return livegate(guarded(backend))


def shows(gateway, how, method, target, body=b"", **signing):
    """The target and the headers of a request that is signed `how`: in headers, or in its URL."""
    url = gateway.http_url + target
    if how == "in its URL":
        return presigned(method, url, body, **signing).removeprefix(gateway.http_url), []
    return target, list(signed(method, url, body, **signing).items())


def calls(gateway, method="GET", target="/shop/pets", body=b"", how="in headers", **signing):
    target, headers = shows(gateway, how, method, target, body, **signing)
    return ask(gateway, method, target, headers, body)


def knocks(gateway, target="/prod", how="in headers", **signing):
    return gateway.knock(*shows(gateway, how, "GET", target, **signing))


def stays_shut(backend, socket=None, route=None):
    """Who was turned away is told no more than that."""
    if socket is not None:
        assert socket.error == FORBIDDEN
    if route is not None:
        assert is_error(route, 403, "Forbidden") and route.header("WWW-Authenticate") is None
    assert backend.seen_anywhere() == []
    return True


HOW = pytest.mark.parametrize("how", ["in headers", "in its URL"])


# What is signed well


@HOW
def test_a_signed_caller_is_let_in(gateway, backend, how):
    assert knocks(gateway, how=how).status == 101 and calls(gateway, how=how).status == 200
    assert [request.path for request in backend.seen_anywhere()] == ["/connect", "/pets"]


def test_a_websockets_client_signs_its_handshake(gateway, backend):
    with gateway.connect(headers=signed("GET", f"{gateway.http_url}/prod")) as client:
        assert client.whoami() == backend.next("/connect").connection_id
    with gateway.connect(shows(gateway, "in its URL", "GET", "/prod?room=blue")[0]) as client:
        assert client.whoami() == backend.next("/connect").connection_id


@HOW
@pytest.mark.parametrize("method, body", [
    ("POST", b'{"name":"Rex"}'), ("PUT", bytes(range(256)) * 300), ("PATCH", b"x"), ("POST", b""), ("DELETE", b""),
    ("DELETE", b"why"), ("HEAD", b""), ("OPTIONS", b""),
])
def test_a_signature_covers_the_body(gateway, backend, how, method, body):
    assert calls(gateway, method, body=body, how=how).status == 200
    got = backend.next("/pets")
    assert (got.method, got.body) == (method, body)


def test_a_body_that_comes_in_chunks(gateway, backend):
    headers = signed("POST", f"{gateway.http_url}/shop/pets", b"one two three")
    sent = httpx.post(f"{gateway.http_url}/shop/pets", headers=headers, content=iter([b"one ", b"two ", b"three"]))
    assert (sent.status_code, backend.next("/pets").body) == (200, b"one two three")


def test_a_signed_body_has_the_bound_of_every_body(gateway, backend):
    url, body = f"{gateway.http_url}/shop/pets", b"x" * (10 * 1024 * 1024 + 1)
    sent = httpx.post(url, headers=signed("POST", url, body), content=body)
    assert (sent.status_code, sent.text) == (413, '{"message":"Request Entity Too Large"}')
    assert backend.seen_anywhere() == []


QUERIES = ["?a=1&b=2", "?b=2&a=1", "?a=", "?a=x%20y", "?q=h%C3%A9", "?a=%2B%26%3D", "?a=%2F%3A%40", "?A=1&a=2",
           "?a=-_.~", "?key%20with=x"]


@HOW
@pytest.mark.parametrize("query", QUERIES)
def test_a_signature_covers_the_query(gateway, backend, how, query):
    assert knocks(gateway, "/prod" + query, how).status == 101
    assert calls(gateway, target="/shop/pets" + query, how=how).status == 200
    for got in (backend.next("/connect"), backend.next("/pets")):
        mine = [pair for pair in urllib.parse.parse_qsl(got.query, keep_blank_values=True) if not pair[0].startswith("X-Amz-")]
        assert sorted(mine) == sorted(urllib.parse.parse_qsl(query[1:], keep_blank_values=True))


def test_a_signature_covers_parameters_that_come_twice(gateway, backend):
    """In headers: botocore presigns one value of each."""
    for query in ("?a=2&a=1", "?a=1&a=1"):
        assert calls(gateway, target="/shop/pets" + query).status == 200
        assert "?" + backend.next("/pets").query == query


PATHS = ["/a%20b", "/%C3%A9t%C3%A9", "/a%2Fb", "/a~b", "/a:b", "/a@b", "/a=b", "/a+b", "/a,b;c", "/(a)", "/a*b", "/a'b", "/a$b",
         "/a&b", "/a!b", "/%61", "/a/", "/a%25b", "/@x", "/"]


@HOW
@pytest.mark.parametrize("path", PATHS)
def test_a_signature_covers_the_path_and_its_escapes(gateway, backend, how, path):
    assert calls(gateway, target=f"/shop{path}", how=how).status == 200
    assert backend.seen_anywhere()[0].path == path


@HOW
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "local"])
def test_any_region_will_do(gateway, how, region):
    assert knocks(gateway, how=how, region=region).status == 101
    assert calls(gateway, how=how, region=region).status == 200


@HOW
@pytest.mark.parametrize("has, shown, status", [
    ("tok", "tok", 200), ("tok", "another", 403), ("tok", None, 403), (None, "tok", 200),
])
def test_a_session_token_must_match(livegate, backend, how, has, shown, status):
    gateway = livegate(guarded(backend, credential={"session_token": has} if has else {}))
    assert calls(gateway, how=how, token=shown).status == status
    assert knocks(gateway, how=how, token=shown).status == {200: 101}.get(status, status)


@HOW
def test_http_2_signs_as_http_1_does(gateway, backend, how):
    target, headers = shows(gateway, how, "POST", "/shop/pets?a=1", b"body")
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.post(gateway.http_url + target, headers=headers, content=b"body")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        assert client.post(gateway.http_url + target, headers=headers, content=b"other").status_code == 403
    assert [request.body for request in backend.seen_anywhere()] == [b"body"]


@HOW
def test_a_socket_on_a_stream_of_http_2_is_signed_as_a_get(gateway, how):
    target, headers = shows(gateway, how, "GET", "/prod")
    headers = [(name.lower(), value) for name, value in headers]
    with http_2(gateway) as client:
        assert StreamSocket(client, target, headers, authority=gateway.host).stream.status == 200
        assert StreamSocket(client, "/prod", authority=gateway.host).stream.status == 403


def test_more_signed_headers_than_must_be(gateway):
    headers = {"X-Mine": "two   spaces", "Content-Type": "application/json", "X-Empty": ""}
    assert calls(gateway, "POST", body=b"{}", headers=headers).status == 200


def test_an_authorizer_table_is_the_same(livegate, backend):
    gateway = livegate(guarded(backend, connect={"authorizer": "callers"}, route={"authorizer": "callers"},
                               authorizers={"callers": {"type": "aws_iam"}}))
    assert knocks(gateway).status == 101 and calls(gateway).status == 200
    assert gateway.knock().status == 403 and ask(gateway, "GET", "/shop/pets").status == 403


def test_a_socket_is_asked_once(gateway):
    """Messages are not signed (contract/websocket.md section 7)."""
    with gateway.connect(headers=signed("GET", f"{gateway.http_url}/prod")) as client:
        assert client.whoami() == client.whoami()


def test_an_upgraded_route_is_signed_too(livegate, backend):
    backend.answer("/ws", raw=b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                              b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    gateway = livegate(guarded(backend, route={"upgrade": True}))
    stays_shut(backend, route=gateway.knock("/shop/ws"))
    assert knocks(gateway, "/shop/ws").status == 101
    assert "authorization" not in backend.next("/ws").names


# What is not


def test_an_unsigned_caller(gateway, backend):
    stays_shut(backend, gateway.knock(), ask(gateway, "GET", "/shop/pets"))


@pytest.mark.parametrize("authorization", [
    "", "Bearer token", f"Basic {KEY_ID}", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a", f"AWS {KEY_ID}:signature",
    f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/execute-api/aws4_request, SignedHeaders=host, Signature=",
])
def test_what_is_no_signature(gateway, backend, authorization):
    headers = [("Authorization", authorization)]
    stays_shut(backend, gateway.knock(headers=headers), ask(gateway, "GET", "/shop/pets", headers))


WRONG = {
    "another secret": {"secret": "another secret"}, "no such key": {"key_id": "AKIDNOBODY"},
    "another spelling of the key": {"key_id": KEY_ID.lower()}, "another service": {"service": "lambda"},
    "signed an hour ago": {"at": -3600}, "signed in an hour": {"at": 3600},
}


@HOW
@pytest.mark.parametrize("what", WRONG)
def test_a_signature_that_does_not_count(gateway, backend, how, what):
    stays_shut(backend, knocks(gateway, how=how, **WRONG[what]), calls(gateway, how=how, **WRONG[what]))


def test_a_presigned_url_expires(gateway, backend):
    assert calls(gateway, how="in its URL", expires=3600, at=-3590).status == 200
    assert knocks(gateway, how="in its URL", expires=3600, at=-3590).status == 101
    before = len(backend.seen_anywhere())
    for late in ({"expires": 1, "at": -3}, {"expires": 3600, "at": -3601}):
        assert calls(gateway, how="in its URL", **late).status == 403
        assert knocks(gateway, how="in its URL", **late).error == FORBIDDEN
    assert len(backend.seen_anywhere()) == before


def test_no_presigned_url_is_good_for_longer_than_a_week(gateway, backend):
    stays_shut(backend, route=calls(gateway, how="in its URL", expires=7 * 24 * 3600 + 1))


@HOW
def test_another_body_than_the_signed(gateway, backend, how):
    target, headers = shows(gateway, how, "POST", "/shop/pets", b'{"sum":1}')
    for body in (b'{"sum":9}', b"", b'{"sum":1} '):
        stays_shut(backend, route=ask(gateway, "POST", target, headers, body))


@HOW
@pytest.mark.parametrize("change", [
    lambda method, target: ("DELETE", target), lambda method, target: (method, target.replace("/pets", "/admin")),
    lambda method, target: (method, target.replace("a=1", "a=2")), lambda method, target: (method, target + "&b=1"),
    lambda method, target: (method, target.replace("a=1", "")),
    lambda method, target: (method, target.replace("/pets", "/pets/")),
    lambda method, target: (method, target.replace("/pets", "/%70ets")),
])
def test_another_request_than_the_signed(gateway, backend, how, change):
    target, headers = shows(gateway, how, "GET", "/shop/pets?a=1")
    method, target = change("GET", target)
    stays_shut(backend, route=ask(gateway, method, target, headers))


def test_another_host_than_the_signed(livegate, backend):
    gateway = livegate(guarded(backend, api={"domains": ["a.example.com"]}))
    headers = list(signed("GET", "http://a.example.com/prod").items())
    assert gateway.knock(headers=[("Host", "a.example.com"), *headers]).status == 101
    assert gateway.knock(headers=[("Host", "b.example.com"), *headers]).status == 403


def test_a_signature_for_a_route_is_none_for_a_socket(gateway, backend):
    _, headers = shows(gateway, "in headers", "GET", "/shop/pets")
    stays_shut(backend, gateway.knock(headers=headers))


@pytest.mark.parametrize("stated", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "0" * 64, ""])
def test_a_payload_that_is_not_signed(gateway, backend, stated):
    """Or whoever sees one request could send another body with its signature."""
    headers = signed("POST", f"{gateway.http_url}/shop/pets", b"x", headers={"X-Amz-Content-SHA256": stated})
    stays_shut(backend, route=ask(gateway, "POST", "/shop/pets", list(headers.items()), b"x"))


def test_two_signatures_are_none(gateway, backend):
    target, _ = shows(gateway, "in its URL", "GET", "/shop/pets")
    _, headers = shows(gateway, "in headers", "GET", target)
    stays_shut(backend, route=ask(gateway, "GET", target, headers))
    _, headers = shows(gateway, "in headers", "GET", "/shop/pets")
    twice = headers + [("Authorization", value) for name, value in headers if name == "Authorization"]
    stays_shut(backend, route=ask(gateway, "GET", "/shop/pets", twice))


def test_a_header_that_was_signed_must_not_change(gateway, backend):
    headers = signed("GET", f"{gateway.http_url}/shop/pets", headers={"X-Tenant": "acme"})
    stays_shut(backend, route=ask(gateway, "GET", "/shop/pets", list({**headers, "X-Tenant": "evil"}.items())))
    headers.pop("X-Tenant")
    stays_shut(backend, route=ask(gateway, "GET", "/shop/pets", list(headers.items())))


def test_operators_see_why(livegate, backend):
    gateway = livegate(guarded(backend, allow=["execute-api:Invoke pets/*/GET/open"]), env={"RUST_LOG": "debug"})
    ask(gateway, "GET", "/shop/pets")
    calls(gateway)
    calls(gateway, secret="another")
    assert gateway.metric("livegate_refusals_total", api="pets", cause="unauthorized") == 2
    assert gateway.metric("livegate_refusals_total", api="pets", cause="denied") == 1
    eventually(lambda: "execute-api:Invoke" in gateway.logs() and "pets/$default/GET/pets" in gateway.logs())


# What a credential may do

CALLS = {"GET /pets": ("GET", "/shop/pets"), "POST /pets": ("POST", "/shop/pets"), "GET /pets/7": ("GET", "/shop/pets/7"),
         "GET /admin": ("GET", "/shop/admin")}


def may(gateway):
    """What it may, of the four requests and the handshake."""
    allowed = {name for name, (method, target) in CALLS.items() if calls(gateway, method, target).status == 200}
    return allowed | ({"$connect"} if knocks(gateway).status == 101 else set())


ALL = {*CALLS, "$connect"}


@pytest.mark.parametrize("allow, deny, allowed", [
    (["execute-api:Invoke *"], [], ALL),
    (["execute-api:* *"], [], ALL),
    (["* *"], [], ALL),
    ([], [], set()),
    (["execute-api:Invoke pets/$default/GET/pets"], [], {"GET /pets"}),
    (["execute-api:Invoke pets/$default/GET/pets/*"], [], {"GET /pets/7"}),
    (["execute-api:Invoke pets/$default/GET/pets*"], [], {"GET /pets", "GET /pets/7"}),
    (["execute-api:Invoke pets/*/POST/*"], [], {"POST /pets"}),
    (["execute-api:Invoke pets/other/*"], [], set()),
    (["execute-api:Invoke chat/prod/$connect"], [], {"$connect"}),
    (["execute-api:Invoke chat/*"], [], {"$connect"}),
    (["execute-api:Invoke */$connect", "execute-api:Invoke */admin"], [], {"$connect", "GET /admin"}),
    (["execute-api:ManageConnections *"], [], set()),
    (["execute-api:invoke *"], [], set()),
    (["execute-api:Invoke pets/$default/get/pets"], [], set()),
    (["execute-api:Invoke pets/$default/GET/PETS"], [], set()),
    (["execute-api:Invoke *"], ["execute-api:Invoke pets/*/GET/admin"], ALL - {"GET /admin"}),
    (["execute-api:Invoke *"], ["execute-api:Invoke chat/*"], ALL - {"$connect"}),
    (["execute-api:Invoke *"], ["execute-api:* */POST/*"], ALL - {"POST /pets"}),
    (["execute-api:Invoke *"], ["* *"], set()),
    (["execute-api:Invoke *"], ["execute-api:ManageConnections *"], ALL),
    (["execute-api:Invoke pets/$default/GET/admin"], ["execute-api:Invoke pets/$default/GET/admin"], set()),
    ([], ["execute-api:Invoke pets/$default/GET/admin"], set()),
])
def test_allow_and_deny(livegate, backend, allow, deny, allowed):
    assert may(livegate(guarded(backend, allow=allow, deny=deny))) == allowed


def test_who_may_not_is_told_no_more_than_who_did_not_sign(livegate, backend):
    gateway = livegate(guarded(backend, allow=[]))
    stays_shut(backend, knocks(gateway), calls(gateway))


@pytest.mark.parametrize("key_id, secret, statuses", [
    ("AKIDREADER", "r", [200, 403]), ("AKIDWRITER", "w", [403, 200]), ("AKIDREADER", "w", [403, 403]),
])
def test_each_key_has_its_own_rights(livegate, backend, key_id, secret, statuses):
    reader = {"access_key_id": "AKIDREADER", "secret_access_key": "r", "allow": ["execute-api:Invoke pets/*/GET/*"]}
    writer = {"access_key_id": "AKIDWRITER", "secret_access_key": "w", "allow": ["execute-api:Invoke pets/*/POST/*"]}
    gateway = livegate(http_api({"$default": {"integration": backend.at(""), "authorizer": "aws_iam"}},
                                credentials={"reader": reader, "writer": writer}))
    answers = [calls(gateway, method, "/pets", key_id=key_id, secret=secret) for method in ("GET", "POST")]
    assert [answer.status for answer in answers] == statuses


def test_a_key_of_pushes_is_none_of_routes(livegate, backend):
    gateway = livegate(guarded(backend, allow=["execute-api:ManageConnections chat/*"],
                               connections_api={"authorization": "aws_iam"}))
    stays_shut(backend, knocks(gateway), calls(gateway))
    target = "/prod/@connections/zeYsWoCdtIv4VN8%3D"
    assert gateway.request("GET", target, headers=signed("GET", gateway.http_url + target)).status == 410


@pytest.mark.parametrize("spelling", ["/admin", "/%61dmin", "/%61%64%6D%69%6E", "/%61%64%6d%69%6e", "/admi%6E", "/admin?x=1"])
def test_a_deny_holds_for_every_spelling_of_a_path(livegate, backend, spelling):
    gateway = livegate(guarded(backend, deny=["execute-api:Invoke pets/*/GET/admin"]))
    stays_shut(backend, route=calls(gateway, target=f"/shop{spelling}"))


@pytest.mark.parametrize("spelling", ["/pets", "/%70ets", "/pet%73"])
def test_an_allow_holds_for_every_spelling_of_a_path(livegate, backend, spelling):
    gateway = livegate(guarded(backend, allow=["execute-api:Invoke pets/*/GET/pets"]))
    assert calls(gateway, target=f"/shop{spelling}").status == 200


@pytest.mark.parametrize("spelling", ["/admin%2Fusers", "/admin%2fusers", "/%61dmin%2Fusers"])
def test_a_deny_holds_for_the_path_that_an_event_shows(livegate, backend, spelling):
    """Events show paths decoded: what stands in one as `/admin/users` is denied with `/admin/*`."""
    gateway = livegate(guarded(backend, deny=["execute-api:Invoke pets/*/GET/admin/*"],
                               route=proxy(backend.at("/function"), payload="event")))
    stays_shut(backend, route=calls(gateway, target=f"/shop{spelling}"))


@pytest.mark.parametrize("spelling", ["/open/../admin", "/open/%2e%2e/admin", "/open/.%2E/admin", "/./admin", "/%2e/admin",
                                      "/open/..", "/open/."])
def test_dot_segments_lead_nowhere(gateway, backend, spelling):
    """Signers resolve them and backends may, each in its own way, so no policy is asked about them."""
    assert calls(gateway, target=f"/shop{spelling}").status in (400, 404)
    assert backend.seen_anywhere() == []


@pytest.mark.parametrize("spelling", ["/admin/", "/Admin", "/admin%20", "/%2561dmin", "/admin;x"])
def test_what_is_another_path_stays_one(livegate, backend, spelling):
    """Paths are not tidied (contract/http-api.md section 1): what passes reaches the backend as it was judged."""
    gateway = livegate(guarded(backend, deny=["execute-api:Invoke pets/*/GET/admin"]))
    assert calls(gateway, target=f"/shop{spelling}").status == 200
    assert [request.path for request in backend.seen_anywhere()] == [spelling]


def test_what_a_backend_may_read_as_another_path_has_to_pass_as_both(livegate, backend):
    gateway = livegate(guarded(backend, deny=["execute-api:Invoke pets/*/GET/admin"]))
    assert [calls(gateway, target=f"/shop{spelling}").status for spelling in ("//admin", "//open")] == [403, 200]
    assert [request.path for request in backend.seen_anywhere()] == ["//open"]


# What backends are told

USER_ARN = f"arn:aws:iam::{ACCOUNT}:user/caller"


def test_the_events_of_a_connection_name_the_signer(livegate, backend):
    gateway = livegate(guarded(backend, connect=to(backend.at("/connect"), payload="event"), routes={
        "send": to(backend.at("/send"), payload="event"), "$disconnect": to(backend.at("/disconnect"), payload="event")}))
    headers = signed("GET", f"{gateway.http_url}/prod")
    with gateway.connect(headers=headers, user_agent_header="mine/1") as client:
        client.says(action="send")
        backend.wait_for("/send")
    for path in ("/connect", "/send", "/disconnect"):
        context = backend.next(path).json["requestContext"]
        assert context["identity"] == {
            "accessKey": KEY_ID, "accountId": ACCOUNT, "caller": "caller", "user": "caller", "userArn": USER_ARN,
            "sourceIp": "127.0.0.1", "userAgent": "mine/1"}, path
        assert "authorizer" not in context


def event_of(livegate, backend, version, how="in headers"):
    backend.answer("/function", body='{"statusCode":200}')
    gateway = livegate(guarded(backend, route=proxy(backend.at("/function"), payload="event", payload_format=version)))
    assert calls(gateway, how=how).status == 200
    return backend.next("/function").json


@HOW
def test_the_event_in_format_2_0_names_the_signer(livegate, backend, how):
    context = event_of(livegate, backend, "2.0", how)["requestContext"]
    assert context["accountId"] == ACCOUNT
    assert context["authorizer"] == {"iam": {
        "accessKey": KEY_ID, "accountId": ACCOUNT, "callerId": "caller", "cognitoIdentity": None, "principalOrgId": None,
        "userArn": USER_ARN, "userId": "caller"}}


@HOW
def test_the_event_in_format_1_0_names_the_signer(livegate, backend, how):
    context = event_of(livegate, backend, "1.0", how)["requestContext"]
    assert context["accountId"] == ACCOUNT and "authorizer" not in context
    told = {name: value for name, value in context["identity"].items() if value is not None}
    told.pop("userAgent")
    assert told == {"accessKey": KEY_ID, "accountId": ACCOUNT, "caller": "caller", "user": "caller", "userArn": USER_ARN,
                    "sourceIp": "127.0.0.1"}


@pytest.mark.parametrize("name, text", [
    ("userArn", USER_ARN), ("user", "caller"), ("caller", "caller"), ("accountId", ACCOUNT), ("sourceIp", "127.0.0.1"),
])
def test_mocks_can_name_the_signer(livegate, backend, name, text):
    expression = "${context.identity." + name + "}"
    gateway = livegate(guarded(backend, routes={"who": mock(expression)}, route=says(expression)))
    assert calls(gateway).body.decode() == text
    with gateway.connect(headers=signed("GET", f"{gateway.http_url}/prod")) as client:
        assert client.asks(action="who") == text


def test_who_did_not_sign_has_no_name(livegate, backend):
    gateway = livegate(http_api({"GET /pets": says("<${context.identity.userArn}>")}))
    assert ask(gateway, "GET", "/pets").body.decode() == "<>"


def test_a_signature_is_not_for_the_backend_of_a_route(livegate, backend):
    gateway = livegate(guarded(backend))
    assert calls(gateway).status == 200
    assert "authorization" not in backend.next("/pets").names
    for version in ("1.0", "2.0"):
        event = event_of(livegate, backend, version)
        assert "authorization" not in {name.lower() for name in event["headers"]} and "Signature=" not in json.dumps(event)


@pytest.mark.parametrize("payload", ["raw", "event"])
def test_a_signature_is_not_for_the_backend_of_a_connection(livegate, backend, payload):
    gateway = livegate(guarded(backend, connect=to(backend.at("/connect"), payload=payload)))
    assert knocks(gateway).status == 101
    got = backend.next("/connect")
    assert "authorization" not in got.names and "Signature=" not in got.text


def test_a_backend_of_a_route_without_an_authorizer_gets_the_header(livegate, backend):
    gateway = livegate(http_api({"GET /pets": backend.at("/pets")}))
    _, headers = shows(gateway, "in headers", "GET", "/pets")
    assert ask(gateway, "GET", "/pets", headers).status == 200
    assert backend.next("/pets").header("Authorization").startswith("AWS4-HMAC-SHA256")


# Region and account

ASKED = {"region": "eu-central-1", "account_id": "210987654321"}


@pytest.mark.parametrize("gateway_settings, region, account", [
    (ASKED, "eu-central-1", "210987654321"), ({}, "us-east-1", "000000000000"),
])
def test_region_and_account_are_in_the_arns_of_routes(livegate, backend, gateway_settings, region, account):
    allowed = {"principalId": "ann", "policyDocument": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"arn:aws:execute-api:{region}:{account}:*"}]}}
    backend.answer("/authorizer", body=json.dumps(allowed))
    asks = {"authorizer": "asked"}
    gateway = livegate(chat(
        gateway=gateway_settings, routes={"$connect": {"integration": backend.at("/connect"), **asks}},
        apis={"pets": pets({"GET /pets/{id}": {"integration": backend.at("/pets"), **asks}}, base_path="/shop")},
        authorizers={"asked": {"type": "http", "uri": backend.at("/authorizer")}}))
    assert gateway.knock().status == 101 and ask(gateway, "GET", "/shop/pets/7").status == 200
    socket, route = (request.json for request in backend.seen("/authorizer"))
    start = f"arn:aws:execute-api:{region}:{account}"
    assert (socket["methodArn"], route["routeArn"]) == (f"{start}:chat/prod/$connect", f"{start}:pets/$default/GET/pets/7")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_account_is_in_the_events_of_routes(livegate, backend, version):
    backend.answer("/function", body='{"statusCode":200}')
    function = proxy(backend.at("/function"), payload="event", payload_format=version)
    gateway = livegate(http_api({"GET /pets": function}, gateway=ASKED))
    assert ask(gateway, "GET", "/pets").status == 200
    assert backend.next("/function").json["requestContext"]["accountId"] == "210987654321"


# What must stay secret


def test_neither_secret_nor_signature_is_shown_to_operators(livegate, backend):
    token = "a session's token"
    # The log lies in the watched folder, and `notify` would log that the log has grown.
    gateway = livegate(guarded(backend, credential={"session_token": token}), env={"RUST_LOG": "trace,notify=off"})
    secrets = {SECRET, "another secret", token, urllib.parse.quote(token)}
    for secret, how in itertools.product((SECRET, "another secret"), ("in headers", "in its URL")):
        target, headers = shows(gateway, how, "GET", "/shop/pets", token=token, secret=secret)
        assert ask(gateway, "GET", target, headers).status == (200 if secret == SECRET else 403)
        knocks(gateway, how=how, token=token, secret=secret)
        secrets.update(re.findall(r"Signature=([0-9a-f]{64})", target + str(headers)))
    metrics = gateway.admin("/metrics").body.decode()
    gateway.terminate()
    said = [run(verb, cwd=gateway.folder) for verb in ("check", "routes")]
    shown = gateway.logs() + metrics + "".join(one.stdout + one.stderr for one in said)
    assert "TRACE" in shown and len(secrets) == 8 and [secret for secret in secrets if secret in shown] == []


# What `livegate check` says


@pytest.mark.parametrize("text, words", [
    (http_api({"GET /": {**says("x"), "authorizer": "aws_iam", "authorization_scopes": ["a"]}}), ["`authorization_scopes`"]),
    (http_api({"GET /": {**says("x"), "authorizer": "AWS_IAM"}}), ["there is no authorizer `AWS_IAM`"]),
    (http_api({"GET /": says("x")}, gateway={"account_id": "one two"}), ["`one two` is no account id"]),
    (http_api({"GET /": says("x")}, gateway={"region": ""}), ["is no region"]),
    (http_api({"GET /": says("x")}, credentials={"a": {"access_key_id": "A", "secret_access_key": "s", "deny": ["pets/*"]}}),
     ["is not an action and a resource"]),
    (http_api({"GET /": says("x")}, credentials={"a": {"access_key_id": "A", "secret_access_key": "s", "deny": [
        "execute-api:Invoke arn:aws:execute-api:*"]}}), ["is an ARN"]),
])
def test_bad_files_are_refused(tmp_path, text, words):
    refused(tmp_path, text, "routes.toml:", *words)


def test_a_pattern_that_covers_nothing_is_warned_of(tmp_path, backend):
    code, report = checked(tmp_path, guarded(backend, deny=["execute-api:Invoke shop/*"]))
    assert code == 0 and "`execute-api:Invoke shop/*` covers no connection and no route" in report
