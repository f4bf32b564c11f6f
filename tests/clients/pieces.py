"""However the bytes of a request come, it is answered alike.

One that comes as a whole takes the gateway's own way; in pieces, or with another behind it, it takes hyper's. Nobody outside
may be able to tell.
"""

import pytest

from backend import Answer
from wire import KEY
from world import chat

# What differs from one answer to the next, whichever way it took.
OWN = {"date", "apigw-requestid", "x-amzn-requestid", "x-amz-apigw-id"}

# An id that could be one.
NOBODY = "AAAAAAAAAAAAAAA%3D"

UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"

REQUESTS = {
    "a route": "GET /http/pets?a=b&c HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=b\r\n",
    "a route with a body": "POST /http/pets HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    "an empty body": "PUT /http/pets HTTP/1.1\r\nContent-Length: 0\r\n",
    "no body": "DELETE /http/pets HTTP/1.1\r\n",
    "what belongs to one hop": "GET /http/pets HTTP/1.1\r\nConnection: X-B, keep-alive\r\nX-B: 1\r\nKeep-Alive: 5\r\n",
    "what a stranger says of its way": "GET /http/pets HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\nVia: 1.0 x\r\n",
    "a trace": "GET /http/pets HTTP/1.1\r\nX-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678\r\n",
    "an answer in chunks": "GET /http/long HTTP/1.1\r\n",
    "an answer with trailers": "GET /http/long HTTP/1.1\r\nTE: trailers\r\n",
    "an answer without a body": "GET /http/nothing HTTP/1.1\r\n",
    "only the head": "HEAD /http/pets HTTP/1.1\r\n",
    "no route": "GET /http/none HTTP/1.1\r\n",
    "no stage": "GET /none HTTP/1.1\r\n",
    "a socket's path": "GET /prod HTTP/1.1\r\n",
    "a handshake without a key": "GET /prod HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "a handshake of another version": "GET /prod HTTP/1.1\r\n" + UPGRADE.replace("13", "8"),
    "a push to nobody": f"POST /prod/@connections/{NOBODY} HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
    "a push to no id": "POST /prod/@connections/x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
    "an unknown method": "PURGE /http/pets HTTP/1.1\r\n",
}


@pytest.fixture
def gateway(livegate, backend):
    backend.answers("/pets", Answer(body="pets", headers={"X-C": "1", "Set-Cookie": "a=b"}))
    backend.answers("/long", Answer(body=b"x" * 70_000, chunked=True))
    backend.answers("/nothing", Answer(status=204))
    api = {
        "protocol": "http",
        "routes": {f"ANY /{name}": {"integration": backend.at(f"/{name}")} for name in ("pets", "long", "nothing")},
        "stages": {"http": {}},
    }
    return livegate(chat(apis={"web": api}))


def whole(request, host, last=False):
    """The bytes of one request."""
    head, _, body = request.partition("\r\n\r\n")
    line, _, rest = head.partition("\r\n")
    lines = [line, f"Host: {host}", *rest.split("\r\n"), "Connection: close" if last else ""]
    return ("\r\n".join(line for line in lines if line) + "\r\n\r\n" + body).encode()


def shown(answer):
    return answer.status, [line for line in answer.headers if line[0].lower() not in OWN], answer.body


@pytest.mark.parametrize("request_text", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_alone_is_answered_as_one_of_two(gateway, request_text):
    to = request_text.split(" ", 1)[0]
    request = whole(request_text, gateway.host)
    with gateway.wire() as alone, gateway.wire() as together:
        together.send(request + request)
        both = [shown(together.response(to)) for _ in range(2)]
        for _ in range(2):
            alone.send(request)
            assert [shown(alone.response(to))] * 2 == both


@pytest.mark.parametrize("request_text", [text for text in REQUESTS.values() if "Connection:" not in text],
                         ids=[name for name, text in REQUESTS.items() if "Connection:" not in text])
def test_the_last_request_ends_the_connection(gateway, request_text):
    to = request_text.split(" ", 1)[0]
    with gateway.wire() as wire:
        wire.send(whole(request_text, gateway.host, last=True))
        assert wire.response(to).header("Connection") == "close"
        assert wire.rest() == b""


@pytest.mark.parametrize("name", ["a route", "a route with a body", "what belongs to one hop", "what a stranger says of its way", "a trace"])
def test_the_backend_gets_a_request_alone_as_one_of_two(gateway, backend, name):
    request = whole(REQUESTS[name], gateway.host)
    with gateway.wire() as alone, gateway.wire() as together:
        alone.send(request)
        alone.response()
        together.send(request + request)
        together.response()
        together.response()
        seen = [backend.next("/pets") for _ in range(3)]
    generated = {"x-amzn-trace-id"} if name != "a trace" else set()
    ours = [
        (one.method, one.target, sorted(line for line in one.headers if line[0].lower() not in generated), one.body) for one in seen
    ]
    assert ours[0] == ours[1] == ours[2]


def test_a_request_in_two_packets_is_answered_like_any_other(gateway):
    request = whole(REQUESTS["a route with a body"], gateway.host)
    with gateway.wire() as wire:
        for cut in range(1, len(request), 7):
            wire.send(request[:cut])
            wire.send(request[cut:])
            assert wire.response().body == b"pets"


def test_what_comes_before_the_answer_is_answered_behind_it(gateway, backend):
    request = whole(REQUESTS["a route"], gateway.host)
    with gateway.wire() as wire, backend.holding("/pets") as hold:
        wire.send(request)
        backend.next("/pets")
        wire.send(request * 3)
        hold.release()
        for _ in range(4):
            assert wire.response().body == b"pets"
        # And it goes on from there.
        wire.send(request)
        assert wire.response().body == b"pets"


def test_what_is_refused_unread_counts_alike_however_it_comes(livegate, backend):
    backend.answers("/pets", Answer(body="four"))
    api = {
        "protocol": "http",
        "routes": {
            "POST /pets": {"integration": backend.at("/pets")},
            "POST /mocked": {"integration": {"type": "mock", "status": 200}},
            "POST /throttled": {"integration": backend.at("/pets"), "throttle": {"rate": 0.001, "burst": 1}},
        },
        "stages": {"http": {}},
    }
    gateway = livegate(chat(apis={"web": api}))

    def counted(path, in_two):
        request = whole(f"POST /http{path} HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", gateway.host)
        before = gateway.metric("livegate_data_processed_bytes_total", api="web")
        with gateway.wire() as wire:
            if in_two:
                # Behind another request, so that the pieces surely are pieces.
                wire.send(whole("GET /http/none HTTP/1.1\r\n", gateway.host) + request[:-5])
                none = wire.response().body
                before += len(none)
            wire.send(request[-5:] if in_two else request)
            answer = wire.response()
        return answer.status, gateway.metric("livegate_data_processed_bytes_total", api="web") - before - len(answer.body)

    assert counted("/throttled", False) == (200, 5)
    for path, wanted in [("/throttled", (429, 0)), ("/mocked", (200, 0)), ("/pets", (200, 5))]:
        assert [counted(path, in_two) for in_two in (False, True)] == [wanted, wanted], path


def test_a_connection_stays_behind_an_answer_that_hyper_writes(livegate, backend):
    backend.answers("/trailer", Answer(body="some", headers={"Trailer": "x-sum"}))
    api = {"protocol": "http", "routes": {"GET /trailer": {"integration": backend.at("/trailer")}},
           "stages": {"http": {"handshake_timeout": "500ms"}}}
    gateway = livegate(chat(stage={"handshake_timeout": "500ms"}, apis={"web": api}))
    request = whole("GET /http/trailer HTTP/1.1\r\n", gateway.host)
    with gateway.wire() as wire, gateway.wire() as clock:
        wire.send(request)
        assert wire.response().body == b"some"
        # A head that was begun later has had its time.
        clock.send(b"GET")
        clock.rest()
        wire.send(request)
        assert wire.response().body == b"some"


def test_a_request_without_a_host_does_not_speak_for_others(gateway):
    old = b"GET /http/pets HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with gateway.wire() as wire, gateway.wire() as other:
        wire.send(old)
        assert wire.response().status == 200
        for one in (wire, other):
            one.send(b"GET /http/pets HTTP/1.1\r\nHost:\r\n\r\n")
            assert one.response().status == 400


def test_a_protocol_is_agreed_on_whatever_is_said_of_trailers(livegate, backend):
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTrailer: x-sum\r\n\r\nhi"
    backend.answer("/ws", raw=agreed)
    api = {"protocol": "http", "routes": {"GET /ws": {"integration": backend.at("/ws"), "upgrade": True}}, "stages": {"http": {}}}
    gateway = livegate(chat(apis={"web": api}))
    with gateway.wire() as wire:
        wire.send(whole("GET /http/ws HTTP/1.1\r\n" + UPGRADE, gateway.host))
        assert wire.response().status == 101
        assert wire.rest() == b"hi"
