"""Bytes in every wrong size and order: each is answered or closed as the RFCs say, and the gateway stays well."""

import contextlib
import random
import re
import socket
import time

import pytest

from backend import Answer
from wire import CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, fragments, frame, handshake
from world import ID, eventually, two_way

PLAIN = b"GET /prod HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def gateway(livegate, backend):
    backend.answers("/echo", lambda request: Answer(body=request.body))
    gateway = livegate(routes={"$connect": backend.at("/connect"), "$disconnect": backend.at("/disconnect"),
                               "$default": two_way(backend.at("/echo"))}, stage={"ordering": "connection"})
    yield gateway
    assert gateway.is_well()


# Split at every byte


def test_a_message_in_two_pieces_wherever_it_is_cut(gateway):
    data = frame(TEXT, '{"action":"echo","text":"h\u00e9llo \U0001F600"}')
    wires = [gateway.open() for _ in range(1, len(data))]
    for cut, wire in enumerate(wires, 1):
        wire.send(data[:cut])
    # By now every first half has been read: this answer came later.
    assert gateway.is_well()
    for cut, wire in enumerate(wires, 1):
        with wire:
            wire.send(data[cut:])
            assert wire.message() == '{"action":"echo","text":"h\u00e9llo \U0001F600"}'


@pytest.mark.parametrize("size", [0, 125, 126, 127, 300, 32_768])
def test_messages_of_every_header_size_byte_by_byte(gateway, size):
    data = frame(TEXT, b"x" * size)
    pieces = [data[at:at + 1] for at in range(min(len(data), 20))] + ([data[20:]] if len(data) > 20 else [])
    with gateway.open() as wire:
        for piece in pieces:
            wire.send(piece)
        wire.send(frame(PING, b"read"))
        if size:
            # An empty message is echoed as nothing at all.
            frames = [wire.frame(), wire.frame()]
            assert sorted((one.opcode, len(one.payload)) for one in frames) == sorted([(TEXT, size), (PONG, 4)])
        else:
            assert wire.frame().opcode == PONG


def test_a_handshake_in_two_pieces_wherever_it_is_cut(gateway):
    data = handshake("/prod?room=blue", gateway.host)
    wires = [gateway.wire() for _ in range(1, len(data))]
    for cut, wire in enumerate(wires, 1):
        wire.send(data[:cut])
    assert gateway.is_well()
    for cut, wire in enumerate(wires, 1):
        with wire:
            wire.send(data[cut:])
            assert wire.response().status == 101


def test_a_handshake_byte_by_byte(gateway):
    with gateway.wire() as wire:
        for byte in handshake("/prod", gateway.host):
            wire.send(bytes([byte]))
        assert wire.response().status == 101


def test_a_message_in_many_fragments_with_pings_in_between(gateway):
    parts = [b"%d," % number for number in range(300)]
    with gateway.open() as wire:
        for one in fragments(TEXT, *parts):
            wire.send(one + frame(PING, b"?"))
        pongs, text = 0, None
        while pongs < 300 or text is None:
            got = wire.frame()
            if got.opcode == PONG:
                pongs += 1
            else:
                text = got.payload
        assert text == b"".join(parts)


def test_empty_fragments_are_fine(gateway):
    with gateway.open() as wire:
        wire.send(b"".join(fragments(TEXT, b"", b"hi", b"", b"")))
        assert wire.message() == "hi"


def test_a_thousand_messages_in_one_segment(gateway):
    with gateway.open() as wire:
        wire.send(b"".join(frame(TEXT, str(number)) for number in range(1000)))
        assert [wire.message() for _ in range(1000)] == [str(number) for number in range(1000)]


def test_a_flood_of_pings_is_answered_or_the_latest_is(gateway):
    # RFC 6455 5.5.3: whoever gets several pings may answer the latest only.
    with gateway.open() as wire:
        wire.send(b"".join(frame(PING, b"%d" % number) for number in range(2000)))
        while (got := wire.frame()).payload != b"1999":
            assert got.opcode == PONG


def test_a_flood_of_pings_from_a_client_that_does_not_read_costs_no_memory(gateway):
    with gateway.open(receive_buffer=4096) as wire:
        wire.socket.settimeout(0.5)
        flood = frame(PING, b"x" * 125) * 1000
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 64 << 20:
                sent += wire.socket.send(flood)
        assert resident(gateway) < 200 << 20


def resident(gateway):
    """Bytes of memory that the gateway's process holds."""
    with open(f"/proc/{gateway.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_unasked_pongs_are_ignored(gateway):
    with gateway.open() as wire:
        wire.send(frame(PONG, b"nobody asked") + frame(PONG) + frame(TEXT, "hi"))
        assert wire.message() == "hi"


@pytest.mark.parametrize("data", [
    frame(PING, b"x" * 126), frame(PONG, b"x" * 70_000), frame(CLOSE, b"x" * 126), frame(PING, b"x", fin=False), frame(CLOSE, b"\x03\xe8", fin=False),
    frame(CONTINUATION, b"x"), frame(CONTINUATION, b"x", fin=False), frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), b"\xff" * 20, b"\x00" * 64,
    b"GET / HTTP/1.1\r\n\r\n",
], ids=["long ping", "very long pong", "long close", "fragmented ping", "fragmented close", "continuation of nothing", "its beginning",
        "text in text", "all ones", "all zeros", "http"])
def test_broken_framing_is_1002(gateway, data):
    with gateway.open() as wire:
        wire.send(data)
        assert wire.frame().close[0] in (1002, 1009)
        assert wire.ended()


def test_random_bytes_never_hurt(gateway):
    dice = random.Random(2025)
    for _ in range(200):
        with gateway.open() as wire:
            with contextlib.suppress(ConnectionError):
                wire.send(dice.randbytes(dice.randrange(1, 400)))
                wire.socket.shutdown(socket.SHUT_WR)
            assert wire.ended()
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)


# Behind the handshake


def test_frames_in_the_segment_of_the_handshake_wait_for_connect(gateway, backend):
    with gateway.wire() as wire, backend.holding("/connect") as hold:
        wire.send(handshake("/prod", gateway.host) + frame(TEXT, "first") + frame(TEXT, "second"))
        backend.next("/connect")
        with gateway.wire() as other:
            other.send(PLAIN)
            assert other.response().status == 426
        assert backend.seen("/echo") == []
        hold.release()
        assert wire.response().status == 101
        assert [wire.message(), wire.message()] == ["first", "second"]


def test_a_lot_behind_the_handshake(gateway):
    many = [frame(TEXT, b"%04d" % number + b"x" * 10_000) for number in range(100)]
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host) + b"".join(many[:50]))
        assert wire.response().status == 101
        wire.send(b"".join(many[50:]))
        assert [int(wire.message()[:4]) for _ in range(100)] == list(range(100))


def test_half_a_frame_behind_the_handshake(gateway):
    data = frame(TEXT, "whole")
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host) + data[:3])
        assert wire.response().status == 101
        wire.send(data[3:])
        assert wire.message() == "whole"


def test_garbage_behind_the_handshake_is_a_protocol_error(gateway):
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host) + b"\xff" * 20)
        assert wire.response().status == 101
        assert wire.frame().close[0] == 1002


def test_a_close_behind_the_handshake(gateway, backend):
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host) + close_frame(1000, "never mind"))
        assert wire.response().status == 101
        assert wire.frame().close[0] == 1000
    assert backend.next("/disconnect").header("X-Livegate-Disconnect-Reason") == "never mind"


def test_frames_behind_a_refused_handshake_go_nowhere(gateway, backend):
    backend.answer("/connect", 403, "no")
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host) + frame(TEXT, "hi"))
        assert wire.response().status == 403
    backend.answer("/connect", 200)
    assert gateway.is_well() and backend.seen("/echo") == []


# Half-open


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_handshake_that_breaks_off_at_any_byte_leaves_nothing(gateway, backend, end):
    data = handshake("/prod", gateway.host)
    for cut in range(len(data)):
        wire = gateway.wire()
        wire.send(data[:cut])
        wire.reset() if end == "reset" else wire.socket.close()
    assert gateway.is_well()
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)
    assert len(backend.seen("/connect")) == 1


def test_a_message_that_breaks_off_at_any_byte_goes_nowhere(gateway, backend):
    data = frame(TEXT, "whole")
    for cut in range(len(data)):
        with gateway.open() as wire:
            wire.send(data[:cut])
    assert len(backend.wait_for("/disconnect", len(data))) == len(data)
    assert {request.header("X-Livegate-Disconnect-Code") for request in backend.seen("/disconnect")} == {"1006"}
    assert backend.seen("/echo") == []


def test_a_peer_that_says_nothing_after_the_handshake_costs_nobody(gateway):
    silent = [gateway.open() for _ in range(100)]
    assert gateway.is_well()
    for wire in silent:
        wire.socket.close()
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)


def test_a_client_that_never_answers_a_close_is_let_go(gateway):
    with gateway.open() as wire:
        wire.send(frame(2, b"no"))
        began = time.monotonic()
        assert wire.frame().close[0] == 1003
        eventually(lambda: gateway.metric("livegate_connections_open") == 0)
        assert time.monotonic() - began < 5


# HTTP


@pytest.mark.parametrize("request_bytes", [
    b"\r\n\r\n\r\n\x00\x00", b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1 more\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 32, b"G\x00T /prod HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /pr\x00d HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /prod HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    b"GET /prod HTTP/1.1\r\nHost: x\r\nX\x00A: b\r\n\r\n", b"GET /prod HTTP/1.1\r\nHost: x\r\nX-A: a\rX-B: b\r\n\r\n",
    b"GET /prod HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n", b"GET /prod HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n",
    b"GET /prod HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", b"GET /prod HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    b"POST /prod/@connections/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /prod/@connections/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    b"POST /prod/@connections/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /prod/@connections/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
], ids=lambda data: repr(data[:60]))
def test_what_is_no_http_is_a_4xx_or_closed(gateway, backend, request_bytes):
    with gateway.wire() as wire:
        wire.send(request_bytes)
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.rest()
    assert answer == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d ", answer), answer
    assert backend.seen_anywhere() == []


@pytest.mark.parametrize("name, value", [("X-A", "a\x00b"), ("X-A", "a\rb"), ("X-A", "a\r\n b"), ("X A", "b"), ("X-A\x00", "b")])
def test_a_handshake_with_a_broken_header_is_a_bad_request(gateway, backend, name, value):
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host, [(name, value)]))
        answer = wire.response()
    assert 400 <= answer.status < 500 and backend.seen("/connect") == []


def test_both_lengths_of_a_body_do_not_smuggle_a_request(gateway, backend):
    smuggled = handshake("/prod", gateway.host)
    with gateway.wire() as wire:
        wire.send(b"POST /prod/@connections/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s"
                  % (5 + len(smuggled), smuggled))
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.rest()
    assert b" 101 " not in answer and backend.seen("/connect") == []


def test_pipelined_requests_are_answered_one_by_one(gateway):
    with gateway.wire() as wire:
        wire.send(PLAIN * 5 + handshake("/prod", gateway.host) + frame(TEXT, "hi"))
        assert [wire.response().status for _ in range(6)] == [426] * 5 + [101]
        assert wire.message() == "hi"


def test_junk_behind_a_request_ends_the_connection(gateway):
    with gateway.wire() as wire:
        wire.send(PLAIN + b"junk\r\n\r\n" + PLAIN)
        assert wire.response().status == 426
        rest = wire.rest()
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400")


def test_an_upgrade_in_http_1_0_is_refused(gateway, backend):
    assert 400 <= gateway.knock(version="HTTP/1.0").status < 500
    assert backend.seen("/connect") == []


def test_a_body_before_the_upgrade_is_refused_or_ignored(gateway):
    with gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host, [("Content-Length", "2")]) + b"hi" + frame(TEXT, "real"))
        answer = wire.response()
        assert answer.status == 400 or (answer.status == 101 and wire.message() == "real")


def test_a_very_long_path_is_refused(gateway):
    assert gateway.knock("/prod?" + "x" * 5000).status in (403, 414, 431)


def test_two_hosts_are_refused_or_one_is_taken_but_none_is_believed(gateway, backend):
    with gateway.wire() as wire:
        wire.send(handshake("/prod", "evil.example", [("X-A", "b")]).replace(b"X-A: b", b"Host: more.evil.example"))
        answer = wire.response()
    if answer.status == 101:
        assert backend.next("/connect").header("X-Livegate-Callback-Url").startswith(gateway.http_url)
    else:
        assert answer.status == 400


def test_well_after_all_of_it(gateway):
    with gateway.connect() as client:
        assert re.fullmatch(ID, client.whoami())
