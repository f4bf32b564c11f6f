"""The handshake and `$connect`: contract/websocket.md section 1, ROUTES.md sections 3 and 4."""

import base64
import re

import pytest
from websockets.exceptions import InvalidStatus

from backend import query_of
from wire import handshake
from world import ID, to

INTERNAL = (500, "InternalServerErrorException", '{"message":"Internal server error"}')
FORBIDDEN = (403, "ForbiddenException", '{"message":"Forbidden"}')


@pytest.fixture
def gateway(livegate, backend):
    """`$connect` is the backend's to decide."""
    return livegate(routes={"$connect": backend.at("/connect")})


# What the backend's answer becomes


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_opens(gateway, backend, status):
    backend.answer("/connect", status)
    with gateway.connect() as client:
        assert client.whoami() == backend.next("/connect").connection_id


def test_the_body_of_a_2xx_is_no_frame(gateway, backend):
    backend.answer("/connect", 200, "welcome")
    with gateway.connect() as client:
        assert re.fullmatch(ID, client.whoami())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 503])
def test_any_other_status_is_passed_on_with_body_and_content_type(gateway, backend, status):
    backend.answer("/connect", status, '{"why":"closed"}', {"Content-Type": "application/problem+json"})
    refused = gateway.knock()
    assert (refused.status, refused.body) == (status, b'{"why":"closed"}')
    assert refused.header("Content-Type") == "application/problem+json"


def test_other_headers_of_a_refusal_stay_with_the_backend(gateway, backend):
    backend.answer("/connect", 403, "no", {"Set-Cookie": "a=1", "X-Secret": "s"})
    refused = gateway.knock()
    assert refused.header("Set-Cookie") is None and refused.header("X-Secret") is None


def test_a_refusal_shows_at_most_64_kib(gateway, backend):
    backend.answer("/connect", 403, b"x" * 70_000)
    refused = gateway.knock()
    assert refused.status == 403 and len(refused.body) <= 65_536


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 308])
def test_a_redirect_is_a_bad_gateway(gateway, backend, status):
    backend.answer("/connect", status, headers={"Location": backend.at("/elsewhere")})
    assert gateway.knock().error == (502, *INTERNAL[1:])
    assert backend.seen("/elsewhere") == []


def test_a_switch_of_protocols_by_the_backend_is_a_bad_gateway(gateway, backend):
    backend.answer("/connect", 101, headers={"Connection": "upgrade", "Upgrade": "websocket"})
    assert gateway.knock().status == 502


def test_a_dead_backend_is_500(livegate, dead_backend):
    gateway = livegate(routes={"$connect": dead_backend.at("/connect")})
    assert gateway.knock().error == INTERNAL


def test_a_slow_backend_is_504(livegate, backend):
    gateway = livegate(routes={"$connect": to(backend.at("/connect"), timeout="200ms")})
    with backend.holding("/connect"):
        refused = gateway.knock()
    assert (refused.status, refused.body) == (504, b'{"message":"Endpoint request timed out"}')


def test_without_a_connect_route_everybody_is_let_in(livegate, backend):
    gateway = livegate(routes={"other": backend.at("/other")})
    with gateway.connect() as client:
        assert re.fullmatch(ID, client.whoami())


def test_a_mock_may_refuse(livegate):
    gateway = livegate(routes={"$connect": {"integration": {"type": "mock", "status": 403}}})
    assert gateway.knock().status == 403


def test_a_mock_may_accept(livegate):
    gateway = livegate(routes={"$connect": {"integration": {"type": "mock", "status": 200}}})
    assert gateway.is_well()


def test_a_websockets_client_sees_the_refusal(gateway, backend):
    backend.answer("/connect", 401, "who?")
    with pytest.raises(InvalidStatus) as refused:
        gateway.connect()
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"who?")


def test_nothing_is_sent_to_the_client_before_the_backend_answered(gateway, backend):
    with gateway.wire() as wire, backend.holding("/connect") as hold:
        wire.send(handshake("/prod", gateway.host))
        backend.next("/connect")
        assert gateway.metric("livegate_connections_open") == 0
        hold.release()
        assert wire.response().status == 101


def test_ids_do_not_repeat_nor_resemble_each_other(gateway, backend):
    ids = []
    for _ in range(50):
        with gateway.open():
            ids.append(backend.next("/connect").connection_id)
    assert all(re.fullmatch(ID, one) for one in ids) and len(set(ids)) == 50
    # A few bits may name the node; the rest is chance.
    by_position = zip(*(base64.urlsafe_b64decode(one) for one in ids))
    assert sum(len(set(values)) > 25 for values in by_position) >= 8


# Subprotocols and extensions


def test_the_backend_chooses_the_subprotocol(gateway, backend):
    backend.answer("/connect", headers={"sec-websocket-protocol": "chat.v1"})
    with gateway.connect(subprotocols=["chat.v2", "chat.v1"]) as client:
        assert client.subprotocol == "chat.v1"
    assert re.fullmatch("chat.v2, ?chat.v1", backend.next("/connect").header("Sec-WebSocket-Protocol"))


def test_no_subprotocol_when_the_backend_chooses_none(gateway):
    answer = gateway.open(headers=[("Sec-WebSocket-Protocol", "chat.v2, chat.v1")]).answer
    assert answer.header("Sec-WebSocket-Protocol") is None


def test_no_subprotocol_without_a_connect_route(livegate):
    answer = livegate().open(headers=[("Sec-WebSocket-Protocol", "chat.v2")]).answer
    assert answer.header("Sec-WebSocket-Protocol") is None


def test_no_extension_is_negotiated(gateway):
    answer = gateway.open(headers=[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]).answer
    assert answer.header("Sec-WebSocket-Extensions") is None


def test_nothing_else_of_the_backends_headers_is_in_the_101(gateway, backend):
    backend.answer("/connect", headers={"Set-Cookie": "a=1", "Sec-WebSocket-Extensions": "permessage-deflate", "X-Own": "x"})
    answer = gateway.open().answer
    names = {name.lower() for name, _ in answer.headers}
    assert not names & {"set-cookie", "sec-websocket-extensions", "x-own"}


# Paths


@pytest.mark.parametrize("path", ["/nope", "/", "/prod/extra", "/PROD", "/prod/extra/", "/pro", "/prod2"])
def test_any_path_besides_the_stage_is_forbidden(gateway, backend, path):
    refused = gateway.knock(path)
    assert refused.error == FORBIDDEN
    assert refused.header("x-amzn-RequestId")
    assert backend.seen("/connect") == []


@pytest.mark.parametrize("path", ["/prod", "/prod/", "/prod?room=blue", "/prod/?room=blue"])
def test_the_stage_is_found_with_and_without_a_slash(gateway, path):
    assert gateway.knock(path).status == 101


def test_the_query_string_reaches_the_backend(gateway, backend):
    gateway.open("/prod?room=blue&tag=a&tag=b&text=h%C3%A9%20llo")
    assert query_of(backend.next("/connect")) == {"room": ["blue"], "tag": ["a", "b"], "text": ["hé llo"]}


def test_the_query_string_is_added_to_that_of_the_uri(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect?key=1")})
    gateway.open("/prod?room=blue")
    assert query_of(backend.next("/connect")) == {"key": ["1"], "room": ["blue"]}


def test_a_stage_named_default_has_no_segment(livegate):
    gateway = livegate(stages={"$default": {}})
    assert gateway.knock("/").status == 101


def test_a_base_path_stands_before_the_stage(livegate):
    gateway = livegate(api={"base_path": "/chat"})
    assert gateway.knock("/chat/prod").status == 101
    assert gateway.knock("/prod").error == FORBIDDEN


# What is no handshake


def test_a_plain_get_on_a_stage_needs_an_upgrade(gateway):
    assert gateway.request("GET", "/prod").status == 426


def test_a_plain_get_elsewhere_is_not_found(gateway):
    assert gateway.request("GET", "/nope").status == 404


@pytest.mark.parametrize("version", ["8", "12", "14", "x", ""])
def test_another_version_is_told_which_one_would_do(gateway, backend, version):
    refused = gateway.knock(headers=[("Sec-WebSocket-Version", version)])
    assert (refused.status, refused.header("Sec-WebSocket-Version")) == (426, "13")
    assert backend.seen("/connect") == []


@pytest.mark.parametrize("key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "!!!!!!!!!!!!!!!!!!!!!!=="])
def test_a_bad_key_is_a_bad_request(gateway, backend, key):
    assert gateway.knock(headers=[("Sec-WebSocket-Key", key)]).status == 400
    assert backend.seen("/connect") == []


def test_a_missing_key_is_a_bad_request(gateway):
    assert gateway.knock(without=["Sec-WebSocket-Key"]).status == 400


def test_another_method_is_a_bad_request(gateway):
    assert gateway.knock(method="POST", headers=[("Content-Length", "0")]).status == 400


@pytest.mark.parametrize("headers", [
    [("Connection", "keep-alive, Upgrade")],
    [("Upgrade", "WebSocket")],
    [("Connection", "UPGRADE"), ("Upgrade", "WEBSOCKET")],
])
def test_upgrade_and_connection_are_read_as_the_rfc_says(gateway, headers):
    assert gateway.knock(headers=headers).status == 101


def test_10_100_bytes_of_headers_are_fine(gateway, backend):
    size = 10_100 - len(handshake("/prod", gateway.host, [("X-Pad", "")]))
    assert gateway.knock(headers=[("X-Pad", "x" * size)]).status == 101
    assert backend.next("/connect").header("X-Pad") == "x" * size


def test_more_than_10_240_bytes_of_headers_are_431(gateway, backend):
    size = 10_400 - len(handshake("/prod", gateway.host, [("X-Pad", "")]))
    refused = gateway.knock(headers=[("X-Pad", "x" * size)])
    assert (refused.status, refused.body) == (431, b"")
    assert backend.seen("/connect") == []


def test_headers_that_never_end_are_431(gateway):
    with gateway.wire() as wire:
        wire.send(b"GET /prod HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"x" * 20_000)
        assert wire.response().status == 431
    assert gateway.is_well()


# What the backend gets


def test_the_headers_of_connect(gateway, backend):
    gateway.open(headers=[("X-Mine", "yes"), ("Cookie", "a=1"), ("Origin", gateway.http_url), ("User-Agent", "mine/1")])
    connect = backend.next("/connect")
    assert (connect.method, connect.body) == ("POST", b"")
    assert connect.header("X-Mine") == "yes" and connect.header("Cookie") == "a=1"
    assert connect.header("Origin") == gateway.http_url
    assert connect.header("User-Agent") == "AmazonAPIGateway_chat"
    assert connect.header("x-amzn-apigateway-api-id") == "chat"
    assert connect.header("X-Forwarded-For") == "127.0.0.1"
    assert connect.header("X-Forwarded-Proto") == "http"
    assert connect.header("X-Forwarded-Port") == str(gateway.port)
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", connect.header("X-Amzn-Trace-Id"))
    assert "upgrade" not in connect.names
    assert "upgrade" not in (connect.header("Connection") or "").lower()


def test_the_gateways_own_headers_of_connect(gateway, backend):
    gateway.open()
    connect = backend.next("/connect")
    own = {name.lower(): value for name, value in connect.headers if name.lower().startswith("x-livegate-")}
    encoded = connect.connection_id.replace("=", "%3D")
    assert own == {
        "x-livegate-connection-id": connect.connection_id,
        "x-livegate-event-type": "CONNECT",
        "x-livegate-route-key": "$connect",
        "x-livegate-api": "chat",
        "x-livegate-stage": "prod",
        "x-livegate-request-id": connect.request_id,
        "x-livegate-callback-url": f"{gateway.http_url}/prod/@connections/{encoded}",
    }
    assert re.fullmatch(ID, connect.connection_id) and re.fullmatch(ID, connect.request_id)


def test_a_clients_own_x_livegate_headers_are_removed(gateway, backend):
    gateway.open(headers=[("X-Livegate-Connection-Id", "forged"), ("x-livegate-authorizer-admin", "true"), ("X-LIVEGATE-X", "y")])
    connect = backend.next("/connect")
    assert re.fullmatch(ID, connect.header("X-Livegate-Connection-Id"))
    assert not {"x-livegate-authorizer-admin", "x-livegate-x"} & set(connect.names)


def test_key_version_and_extensions_of_the_handshake_are_not_forwarded(gateway, backend):
    gateway.open(headers=[("Sec-WebSocket-Extensions", "permessage-deflate"), ("Sec-WebSocket-Protocol", "chat.v2")])
    connect = backend.next("/connect")
    assert [name for name in connect.names if name.startswith("sec-websocket")] == ["sec-websocket-protocol"]


def test_a_strangers_forwarded_headers_are_not_believed(gateway, backend):
    gateway.open(headers=[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")])
    connect = backend.next("/connect")
    assert connect.header("X-Forwarded-For") == "127.0.0.1" and connect.header("X-Forwarded-Proto") == "http"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_strangers_host_is_not_where_backends_push_to(gateway, backend, host):
    gateway.open(headers=[("Host", host)])
    assert backend.next("/connect").header("X-Livegate-Callback-Url").startswith(gateway.http_url)


@pytest.mark.parametrize("host", ["[2001:db8::1]/.example.com", "evil/.example.com", "u@.example.com", "a.example.com:99999"])
def test_what_is_no_host_is_refused_whatever_domain_it_ends_in(livegate, host):
    gateway = livegate(api={"domains": ["*.example.com"]})
    assert gateway.knock(headers=[("Host", host)]).status == 400
    assert gateway.knock(headers=[("Host", "a.example.com")]).status == 101


@pytest.mark.parametrize("name", ["X-Livegate-Connection-Id", "X_Livegate_Connection_Id", "X_Forwarded_For"])
def test_a_forged_header_reaches_no_backend_in_either_spelling(gateway, backend, name):
    gateway.open(headers=[(name, "forged")])
    assert "forged" not in str(backend.next("/connect").headers)


def test_the_callback_url_works_as_it_is(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect")})
    with gateway.connect() as client:
        callback = backend.next("/connect").header("X-Livegate-Callback-Url")
        assert gateway.request("POST", callback.removeprefix(gateway.http_url), b"hi").status == 200
        assert client.hears() == "hi"


def test_the_callback_url_can_be_set(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect")}, gateway={"callback_url": "http://127.0.0.1:1234"})
    gateway.open(headers=[("Host", "evil.example")])
    assert backend.next("/connect").header("X-Livegate-Callback-Url").startswith("http://127.0.0.1:1234/prod/@connections/")


# Slow clients


def test_a_handshake_that_dribbles_is_cut(livegate):
    gateway = livegate(stage={"handshake_timeout": "500ms"})
    with gateway.wire() as slow:
        slow.send(handshake("/prod", gateway.host)[:-2])
        assert slow.ended()
    assert gateway.is_well()


def test_a_slow_backend_does_not_count_against_the_client(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect")}, stage={"handshake_timeout": "500ms"})
    with gateway.wire() as patient, gateway.wire() as slow, backend.holding("/connect") as hold:
        patient.send(handshake("/prod", gateway.host))
        backend.next("/connect")
        slow.send(b"GET /prod HT")
        # Its end is our clock: the timeout has passed for both.
        assert slow.ended()
        hold.release()
        assert patient.response().status == 101


def test_an_idle_keep_alive_connection_is_not_cut_by_the_handshake_timeout(livegate):
    gateway = livegate(stage={"handshake_timeout": "500ms"})
    with gateway.wire() as idle, gateway.wire() as slow:
        plain = b"GET /prod HTTP/1.1\r\nHost: x\r\n\r\n"
        idle.send(plain)
        assert idle.response().status == 426
        slow.send(plain[:-2])
        assert slow.ended()
        idle.send(plain)
        assert idle.response().status == 426


def test_a_second_request_that_dribbles_is_cut_as_the_first(livegate):
    gateway = livegate(stage={"handshake_timeout": "500ms"})
    with gateway.wire() as wire:
        wire.send(b"GET /prod HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.response().status == 426
        wire.send(b"GET /prod HTTP/1.1\r\nHo")
        assert wire.ended()
