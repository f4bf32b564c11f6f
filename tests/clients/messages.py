"""Messages: routing, the frames the gateway sends itself, one-way and two-way routes, order and bounds."""

import json
import re
import socket

import pytest

from backend import Answer
from wire import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame
from world import ID, mock, to, two_way

IN_ORDER = {"ordering": "connection"}


def error_frame(message):
    return re.escape('{"message": "') + message + rf'", "connectionId":"({ID})", "requestId":"({ID})"\}}'


# Routing


def test_the_selected_route_gets_the_message_as_it_came(livegate, backend):
    gateway = livegate(routes={"send": backend.at("/send"), "$default": backend.at("/default")})
    text = '{ "action":"send",\n "text":"h\u00e9llo \U0001F600", "n": 1.0 }'
    with gateway.connect() as client:
        client.send(text)
        sent = backend.next("/send")
    assert (sent.method, sent.text) == ("POST", text)
    assert backend.seen("/default") == []


@pytest.mark.parametrize("text", [
    '{"action":"nope"}', "ping", "", "[1,2]", '"send"', "{}", '{"action":null}', '{"action":"Send"}', '{"action":"send "}',
    '{"action":{"send":1}}', '{"action":"$connect"}', '{"action":"$disconnect"}', "{\"action\":\"send\"",
])
def test_what_selects_no_route_goes_to_default(livegate, backend, text):
    gateway = livegate(routes={"send": backend.at("/send"), "$connect": backend.at("/connect"),
                               "$disconnect": backend.at("/disconnect"), "$default": backend.at("/default")})
    with gateway.connect() as client:
        client.send(text)
        sent = backend.next("/default")
        assert (sent.text, sent.header("X-Livegate-Route-Key")) == (text, "$default")
        assert len(backend.seen("/connect")) == 1 and backend.seen("/send") == backend.seen("/disconnect") == []


@pytest.mark.parametrize("text, key", [
    ('{"action":"7"}', "7"), ('{"action":7}', "7"), ('{"action":true}', "true"), ('{"action":1.5}', "1.5"),
])
def test_numbers_and_booleans_select_as_json_spells_them(livegate, text, key):
    gateway = livegate(routes={key: mock("here")})
    with gateway.connect() as client:
        client.send(text)
        assert client.hears() == "here"


@pytest.mark.parametrize("expression, text, key", [
    ("$request.body.message.kind", '{"message":{"kind":"a"}}', "a"),
    ("${request.body.action}", '{"action":"a"}', "a"),
    ("${request.body.service}-${request.body.action}", '{"service":"chat","action":"join"}', "chat-join"),
    ("${request.body.action}-${request.body.nope}", '{"action":"join"}', "join-"),
    ("$request.body.actions[0]", '{"actions":["first","second"]}', "first"),
    ("always", '{"action":"nope"}', "always"),
    (r"\$default", '{"action":"nope"}', "$default"),
])
def test_selection_expressions(livegate, expression, text, key):
    gateway = livegate(api={"route_selection_expression": expression}, routes={"$default": mock("default"), key: mock("here")})
    with gateway.connect() as client:
        client.send(text)
        assert client.hears() == "here"


# The gateway's own frames, byte for byte


@pytest.mark.parametrize("text", ['{"action":"nope"}', "hi", '{"action":"$connect"}'])
def test_no_route_and_no_default_is_forbidden(livegate, text):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()
        client.send(text)
        found = re.fullmatch(error_frame("Forbidden"), client.hears())
        assert found and found.group(1) == mine and found.group(2) != mine
        assert client.whoami() == mine


@pytest.mark.parametrize("kind", [to, two_way])
def test_an_unreachable_backend_is_an_internal_server_error(livegate, dead_backend, kind):
    gateway = livegate(routes={"send": kind(dead_backend.at("/send"))})
    with gateway.connect() as client:
        found = re.fullmatch(error_frame("Internal server error"), client.asks(action="send"))
        assert found and found.group(1) == client.whoami()


@pytest.mark.parametrize("kind", [to, two_way])
def test_a_backend_that_hangs_up_is_an_internal_server_error(livegate, backend, kind):
    backend.answer("/send", raw=b"")
    gateway = livegate(routes={"send": kind(backend.at("/send"))})
    with gateway.connect() as client:
        assert re.fullmatch(error_frame("Internal server error"), client.asks(action="send"))


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 9 OK\r\n\r\n"])
def test_a_backend_that_speaks_no_http_is_an_internal_server_error(livegate, backend, raw):
    backend.answer("/send", raw=raw)
    gateway = livegate(routes={"send": two_way(backend.at("/send"))})
    with gateway.connect() as client:
        assert re.fullmatch(error_frame("Internal server error"), client.asks(action="send"))


@pytest.mark.parametrize("kind", [to, two_way])
def test_a_slow_backend_is_a_timeout(livegate, backend, kind):
    gateway = livegate(routes={"send": kind(backend.at("/send"), timeout="200ms")})
    with gateway.connect() as client, backend.holding("/send"):
        found = re.fullmatch(error_frame("Endpoint request timed out"), client.asks(action="send"))
        assert found and found.group(1) == client.whoami()


def test_a_late_answer_is_thrown_away(livegate, backend):
    backend.answer("/send", 200, "late")
    gateway = livegate(stage=IN_ORDER, routes={"send": two_way(backend.at("/send"), timeout="200ms")})
    with gateway.connect() as client:
        with backend.holding("/send"):
            assert "timed out" in client.asks(action="send")
        assert re.fullmatch(ID, client.whoami())


# One-way and two-way


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 500, 503])
def test_a_one_way_route_sends_nothing_whatever_the_backend_answers(livegate, backend, status):
    backend.answer("/send", status, "secret")
    gateway = livegate(stage=IN_ORDER, routes={"send": backend.at("/send")})
    with gateway.connect() as client:
        client.says(action="send")
        # In order: this answer would come after anything that `send` had to say.
        assert re.fullmatch(ID, client.whoami())
        assert len(backend.seen("/send")) == 1


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 500, 503])
def test_a_two_way_route_sends_the_body_whatever_the_status(livegate, backend, status):
    backend.answer("/send", status, "the body")
    gateway = livegate(routes={"send": two_way(backend.at("/send"))})
    with gateway.connect() as client:
        assert client.asks(action="send") == "the body"


def test_an_answer_in_chunks_is_one_frame(livegate, backend):
    backend.answer("/send", 200, "first half, second half", chunked=True)
    gateway = livegate(routes={"send": two_way(backend.at("/send"))})
    with gateway.connect() as client:
        assert client.asks(action="send") == "first half, second half"


@pytest.mark.parametrize("status", [200, 204, 500])
def test_an_empty_body_is_no_frame(livegate, backend, status):
    backend.answer("/send", status)
    gateway = livegate(stage=IN_ORDER, routes={"send": two_way(backend.at("/send"))})
    with gateway.connect() as client:
        client.says(action="send")
        assert re.fullmatch(ID, client.whoami())


def test_an_answer_of_128_kib_arrives_whole(livegate, backend):
    backend.answer("/send", 200, "x" * 131_072)
    gateway = livegate(routes={"send": two_way(backend.at("/send"))})
    with gateway.connect() as client:
        assert client.asks(action="send") == "x" * 131_072


@pytest.mark.parametrize("body", [b"x" * 131_073, b"\xff\xfe"])
def test_an_answer_too_large_or_not_utf8_is_an_internal_server_error(livegate, backend, body):
    backend.answer("/send", 200, body)
    gateway = livegate(routes={"send": two_way(backend.at("/send"))})
    with gateway.connect() as client:
        assert re.fullmatch(error_frame("Internal server error"), client.asks(action="send"))
        assert re.fullmatch(ID, client.whoami())


# What the backend gets


def test_the_headers_of_a_message(livegate, backend):
    gateway = livegate(routes={"send": backend.at("/send")})
    with gateway.connect(headers={"X-Mine": "yes", "Cookie": "a=1"}) as client:
        mine = client.whoami()
        client.says(action="send")
        sent = backend.next("/send")
    assert set(sent.names) - {"host", "connection"} == {
        "accept", "content-length", "content-type", "user-agent", "x-amzn-apigateway-api-id", "x-amzn-trace-id",
        "x-livegate-api", "x-livegate-callback-url", "x-livegate-connection-id", "x-livegate-event-type",
        "x-livegate-request-id", "x-livegate-route-key", "x-livegate-stage"}
    assert sent.header("Content-Type") == sent.header("Accept") == "application/json"
    assert sent.header("User-Agent") == "AmazonAPIGateway_chat"
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", sent.header("X-Amzn-Trace-Id"))
    assert (sent.connection_id, sent.header("X-Livegate-Event-Type"), sent.header("X-Livegate-Route-Key")) == (mine, "MESSAGE", "send")
    assert (sent.header("X-Livegate-Api"), sent.header("X-Livegate-Stage")) == ("chat", "prod")
    assert re.fullmatch(ID, sent.request_id)


def test_every_message_has_a_request_id_of_its_own(livegate, backend):
    gateway = livegate(routes={"send": backend.at("/send")})
    with gateway.connect() as client:
        for _ in range(20):
            client.says(action="send")
        assert len({request.request_id for request in backend.wait_for("/send", 20)}) == 20


# Order and bounds


def test_messages_of_a_connection_run_side_by_side_by_default(livegate, backend):
    gateway = livegate(routes={"slow": two_way(backend.at("/slow")), "quick": two_way(backend.at("/quick"))})
    backend.answer("/slow", 200, "slow")
    backend.answer("/quick", 200, "quick")
    with gateway.connect() as client, backend.holding("/slow") as hold:
        client.says(action="slow")
        assert client.asks(action="quick") == "quick"
        hold.release()
        assert client.hears() == "slow"


def test_with_ordering_connection_one_runs_and_the_rest_wait(livegate, backend):
    gateway = livegate(stage=IN_ORDER, routes={"send": two_way(backend.at("/send"))})
    backend.answers("/send", lambda request: Answer(body=request.body))
    with gateway.connect() as client, gateway.connect() as other:
        with backend.holding("/send") as hold:
            for number in range(20):
                client.says(action="send", number=number)
            backend.next("/send")
            assert re.fullmatch(ID, other.whoami())
            assert len(backend.seen("/send")) == 1
            hold.release()
        assert [json.loads(client.hears())["number"] for _ in range(20)] == list(range(20))
    assert [request.json["number"] for request in backend.seen("/send")] == list(range(20))
    assert backend.most_at_once["/send"] == 1


@pytest.mark.parametrize("ordering", ["none", "connection"])
def test_a_full_connection_is_not_read_and_loses_nothing(livegate, backend, ordering):
    gateway = livegate(stage={"max_in_flight": 2, "ordering": ordering}, routes={"send": backend.at("/send")})
    at_once = 2 if ordering == "none" else 1
    with gateway.open() as wire, backend.holding("/send") as hold:
        wire.says(action="whoami")
        mine, sent = wire.message(), 0
        # TCP pushes back: at some point the socket takes no more.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        wire.socket.settimeout(1.0)
        rest = b""
        while sent < 4000 and not rest:
            rest = send_until_blocked(wire.socket, frame(TEXT, json.dumps({"action": "send", "number": sent, "pad": "x" * 30_000})))
            sent += 1
        assert rest, "4,000 messages of 30 KB were taken although two were being answered"
        assert len(backend.seen("/send")) == at_once
        # Pushes still go out.
        wire.socket.settimeout(10.0)
        assert gateway.push(mine, "pushed").status == 200
        assert wire.message() == "pushed"
        hold.release()
        wire.send(rest)
        numbers = [request.json["number"] for request in backend.wait_for("/send", sent)]
        assert sorted(numbers) == list(range(sent)) and (ordering == "none" or numbers == sorted(numbers))
        assert backend.most_at_once["/send"] == at_once


def send_until_blocked(peer, data):
    """Sends what the socket takes; what it did not take within its timeout."""
    view = memoryview(data)
    try:
        while view:
            view = view[peer.send(view):]
    except TimeoutError:
        pass
    return bytes(view)


def test_the_bound_is_one_connections_own(livegate, backend):
    gateway = livegate(stage={"max_in_flight": 1}, routes={"send": backend.at("/send")})
    with gateway.connect() as full, gateway.connect() as other, backend.holding("/send"):
        full.says(action="send")
        full.says(action="send")
        backend.next("/send")
        assert re.fullmatch(ID, other.whoami())


def test_pings_are_answered_while_a_backend_takes_its_time(livegate, backend):
    gateway = livegate(routes={"send": backend.at("/send")})
    with gateway.open() as wire, backend.holding("/send"):
        wire.says(action="send")
        backend.next("/send")
        wire.send(frame(PING, b"are you there"))
        pong = wire.frame()
        assert (pong.opcode, pong.payload) == (PONG, b"are you there")


def test_answers_that_fill_the_outbox_at_once_do_not_end_the_reading(livegate):
    # A mock answers before the next message is looked at, so that reading stops for want of room, not of messages.
    gateway = livegate(stage={"outbox": {"messages": 1}})
    with gateway.open() as wire:
        wire.send(b"".join(frame(TEXT, '{"action":"whoami"}') for _ in range(200)))
        assert len({wire.message() for _ in range(200)}) == 1


def test_a_close_is_noticed_while_a_backend_takes_its_time(livegate, backend):
    gateway = livegate(routes={"send": backend.at("/send"), "$disconnect": backend.at("/disconnect")})
    with gateway.open() as wire, backend.holding("/send"):
        wire.says(action="send")
        backend.next("/send")
        wire.send(close_frame(1000, "bye"))
        assert wire.frame().close[0] == 1000
        assert wire.ended()
        assert backend.next("/disconnect").header("X-Livegate-Disconnect-Code") == "1000"


# Binary


def test_with_binary_frames_are_messages(livegate, backend):
    backend.answers("/default", lambda request: Answer(body=request.body, headers={"Content-Type": "application/octet-stream"}))
    gateway = livegate(stage={"binary": True}, routes={"$default": two_way(backend.at("/default"))})
    with gateway.open() as wire:
        wire.send(frame(BINARY, b"\x00\xff\x80raw"))
        got = wire.frame()
        assert (got.opcode, got.payload) == (BINARY, b"\x00\xff\x80raw")
    sent = backend.next("/default")
    assert (sent.body, sent.header("Content-Type")) == (b"\x00\xff\x80raw", "application/octet-stream")


def test_binary_json_is_routed_like_text(livegate, backend):
    backend.answer("/send", 200, "text back")
    gateway = livegate(stage={"binary": True}, routes={"send": two_way(backend.at("/send")), "$default": mock("default")})
    with gateway.open() as wire:
        wire.send(frame(BINARY, '{"action":"send"}'))
        got = wire.frame()
        assert (got.opcode, got.payload) == (TEXT, b"text back")


def test_with_binary_an_answer_that_is_not_utf8_is_a_binary_frame(livegate, backend):
    backend.answer("/send", 200, b"\xff\xfe", {"Content-Type": "text/plain"})
    gateway = livegate(stage={"binary": True}, routes={"send": two_way(backend.at("/send"))})
    with gateway.open() as wire:
        wire.says(action="send")
        got = wire.frame()
        assert (got.opcode, got.payload) == (BINARY, b"\xff\xfe")


def test_without_binary_the_content_type_of_an_answer_does_not_matter(livegate, backend):
    backend.answer("/send", 200, "plain", {"Content-Type": "application/octet-stream"})
    gateway = livegate(routes={"send": two_way(backend.at("/send"))})
    with gateway.open() as wire:
        wire.says(action="send")
        got = wire.frame()
        assert got.payload == b"plain" and got.opcode != CLOSE
