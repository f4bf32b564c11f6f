"""How connections end: what the client sees, and what `$disconnect` tells (contract section 6, ROUTES.md section 4)."""

import contextlib
import re
import struct
import time

import pytest

from backend import Answer
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, fragments, frame
from world import ID, eventually, two_way

GOING_AWAY = (1001, "Going away")


@pytest.fixture
def gateway(world):
    return world.gateway()


def id_of(wire):
    wire.says(action="whoami")
    return wire.message()


# By the client


def test_a_close_without_a_status(world, gateway):
    with gateway.open() as wire:
        wire.send(frame(CLOSE))
        assert wire.frame().close == (1005, "")
        assert wire.ended()
    assert world.told() == (1005, "Client-side close frame status not set")


@pytest.mark.parametrize("code, reason", [
    (1000, ""), (1000, "bye"), (1001, ""), (1003, ""), (1007, ""), (1011, ""), (1012, ""), (1013, ""), (3000, "mine"), (4999, "h\u00e9 100%\n"),
    (1000, "x" * 123),
])
def test_a_close_with_a_code_is_echoed_and_told(world, gateway, code, reason):
    with gateway.open() as wire:
        wire.send(close_frame(code, reason))
        assert wire.frame().close[0] == code
        assert wire.ended()
    assert world.told() == (code, reason)


def test_a_websockets_client_that_closes(world, gateway):
    with gateway.connect() as client:
        client.close(3456, "enough")
        assert (client.close_code, client.protocol.close_rcvd.code) == (3456, 3456)
    assert world.told() == (3456, "enough")


@pytest.mark.parametrize("how", ["reset", "end of stream"])
def test_a_lost_socket_is_1006(world, gateway, how):
    with gateway.open() as wire:
        id_of(wire)
        if how == "reset":
            wire.reset()
        else:
            wire.socket.close()
    assert world.told() == (1006, "Connection Closed Abnormally")
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)


def test_a_client_that_only_stops_sending_is_gone_too(world, gateway):
    with gateway.open() as wire:
        id_of(wire)
        wire.socket.shutdown(1)
        assert wire.ended()
        assert world.told() == (1006, "Connection Closed Abnormally")


# By the backend


def test_delete_is_1000(world, gateway):
    with gateway.open() as wire:
        assert gateway.delete(id_of(wire)).status == 204
        assert wire.frame().close[0] == 1000
        wire.send(close_frame(1000))
        assert wire.ended()
    assert world.told() == (1000, "Connection Closed Normally")


def test_pushes_before_a_delete_arrive_before_the_close(world, gateway):
    with gateway.open() as wire:
        mine = id_of(wire)
        for number in range(50):
            gateway.push(mine, str(number))
        gateway.delete(mine)
        assert [wire.message() for _ in range(50)] == [str(number) for number in range(50)]
        assert wire.frame().close[0] == 1000


# By the clock


def test_an_idle_connection_is_going_away(world):
    gateway = world.gateway(stage={"idle_timeout": "1s"})
    with gateway.connect() as client:
        assert client.closed() == GOING_AWAY
    assert world.told() == GOING_AWAY


def test_an_old_connection_is_going_away_however_busy_it_is(world):
    gateway = world.gateway(stage={"max_duration": "1s"})
    with gateway.open() as wire:
        stopped = talk(wire, lambda: wire.says(action="whoami"), seconds=8)
        assert stopped == GOING_AWAY
    assert world.told() == GOING_AWAY


def test_pings_do_not_keep_a_connection_alive(world):
    gateway = world.gateway(stage={"idle_timeout": "1s"})
    with gateway.open() as wire:
        assert talk(wire, lambda: wire.send(frame(PING, b"still here")), seconds=8) == GOING_AWAY
    assert world.told() == GOING_AWAY


def test_pings_keep_it_alive_where_idle_counts_pings(livegate):
    gateway = livegate(stage={"idle_timeout": "1s", "idle_counts_pings": True})
    with gateway.open() as wire:
        assert talk(wire, lambda: wire.send(frame(PING, b"still here")), seconds=3.5) is None


def test_messages_keep_a_connection_alive(livegate):
    gateway = livegate(stage={"idle_timeout": "1s"})
    with gateway.open() as wire:
        assert talk(wire, lambda: wire.says(action="whoami"), seconds=3.5) is None


def test_pushes_keep_a_connection_alive(livegate):
    gateway = livegate(stage={"idle_timeout": "1s"})
    with gateway.open() as wire:
        mine = id_of(wire)
        assert talk(wire, lambda: gateway.push(mine, "hi"), seconds=3.5) is None


def talk(wire, say, seconds):
    """Says something four times a second; the close that ended it, or None if nothing did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            say()
        turn = time.monotonic() + 0.25
        while (left := turn - time.monotonic()) > 0:
            wire.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                got = wire.frame()
                if got.opcode == CLOSE:
                    return got.close
    return None


def test_a_client_that_answers_no_ping_is_going_away(world):
    gateway = world.gateway(stage={"ping_interval": "200ms", "pong_timeout": "300ms"})
    with gateway.open() as wire:
        assert wire.frame().opcode == PING
        while (got := wire.frame()).opcode == PING:
            pass
        assert got.close[0] == 1001
    assert world.told()[0] == 1001


def test_a_client_that_answers_its_pings_stays(livegate):
    gateway = livegate(stage={"ping_interval": "200ms", "pong_timeout": "300ms"})
    with gateway.open() as wire:
        for _ in range(6):
            ping = wire.frame()
            assert ping.opcode == PING
            wire.send(frame(PONG, ping.payload))
        assert re.fullmatch(ID, id_of(wire))


def test_the_gateway_never_pings_by_default(livegate):
    gateway = livegate(stage={"idle_timeout": "1s"})
    with gateway.open() as wire:
        assert wire.frame().close == GOING_AWAY


# What is not allowed


def closes(world, gateway, code, *data):
    """Sends `data`; the gateway closes with `code` and tells the backend so."""
    with gateway.open() as wire:
        for one in data:
            wire.send(one)
        got = wire.frame()
        assert got.close[0] == code
        # It stops writing after its Close, and a client that says nothing more is let go soon.
        assert wire.ended()
    assert world.told()[0] == code


def test_a_binary_message_is_1003(world, gateway):
    closes(world, gateway, 1003, frame(BINARY, b"\x00\x01"))


def test_1003_comes_after_the_whole_binary_message(world, gateway):
    with gateway.open() as wire:
        first, second = fragments(BINARY, b"one", b"two")
        wire.send(first + frame(PING, b"?"))
        assert wire.frame().opcode == PONG
        wire.send(second)
        assert wire.frame().close[0] == 1003
    assert world.told()[0] == 1003


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_above_32_kib_is_1009(world, gateway, opcode):
    closes(world, gateway, 1009, frame(opcode, b"x" * 32_769))


def test_a_frame_is_too_big_as_soon_as_it_says_so(world, gateway):
    closes(world, gateway, 1009, frame(TEXT, b"x" * 32_769)[:20])


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63 - 1])
def test_a_frame_that_claims_the_moon_is_1009(world, gateway, size):
    closes(world, gateway, 1009, b"\x81\xff" + struct.pack("!Q", size) + b"mask")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_above_128_kib_is_1009(world, gateway, opcode):
    closes(world, gateway, 1009, *fragments(opcode, *[b"x" * 32_768] * 4, b"x"))


def test_32_kib_frames_and_128_kib_messages_are_fine(livegate, backend):
    backend.answers("/echo", lambda request: Answer(body=str(len(request.body))))
    gateway = livegate(routes={"$default": two_way(backend.at("/echo"))})
    with gateway.open() as wire:
        wire.send(frame(TEXT, b"x" * 32_768))
        assert wire.message() == "32768"
        wire.send(b"".join(fragments(TEXT, *[b"x" * 32_768] * 4)))
        assert wire.message() == "131072"


def test_sizes_are_the_stages(livegate, backend):
    gateway = livegate(stage={"max_frame": "1KiB", "max_message": "2KiB"}, routes={"$default": two_way(backend.at("/echo"))})
    for data in (frame(TEXT, b"x" * 1025), b"".join(fragments(TEXT, b"x" * 1024, b"x" * 1024, b"x"))):
        with gateway.open() as wire:
            wire.send(data)
            assert wire.frame().close[0] == 1009


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_code_that_may_not_be_sent_is_1002(world, gateway, code):
    closes(world, gateway, 1002, close_frame(code))


def test_a_close_of_one_byte_is_1002(world, gateway):
    closes(world, gateway, 1002, frame(CLOSE, b"\x03"))


def test_a_close_reason_that_is_not_utf8_is_1007(world, gateway):
    closes(world, gateway, 1007, frame(CLOSE, b"\x03\xe8\xff\xfe"))


@pytest.mark.parametrize("data", [
    frame(TEXT, b"hi", masked=False),
    frame(TEXT, b"hi", reserved=1), frame(TEXT, b"hi", reserved=2), frame(TEXT, b"hi", reserved=4),
    frame(0x3, b""), frame(0x7, b""), frame(0xB, b""), frame(0xF, b""),
    frame(CONTINUATION, b"of nothing"),
    frame(TEXT, b"one", fin=False) + frame(TEXT, b"two"),
    frame(TEXT, b"one", fin=False) + frame(BINARY, b"two"),
    frame(PING, b"x", fin=False),
    frame(PING, b"x" * 126),
    frame(CLOSE, b"\x03\xe8" + b"x" * 124),
], ids=["unmasked", "rsv3", "rsv2", "rsv1", "opcode 3", "opcode 7", "opcode 11", "opcode 15", "continuation of nothing",
        "text in text", "binary in text", "fragmented ping", "long ping", "long close"])
def test_a_protocol_error_is_1002(world, gateway, data):
    closes(world, gateway, 1002, data)


@pytest.mark.parametrize("data", [
    frame(TEXT, b"\xff"), frame(TEXT, b"h\xc3"), frame(TEXT, b"\xed\xa0\x80"), frame(TEXT, b"\xf4\x90\x80\x80"), frame(TEXT, b"\xc0\xaf"),
    b"".join(fragments(TEXT, b"h\xc3", b"(")),
], ids=["0xff", "cut", "surrogate", "beyond", "overlong", "over two frames"])
def test_text_that_is_not_utf8_is_1007(world, gateway, data):
    closes(world, gateway, 1007, data)


def test_a_character_may_be_split_over_frames(livegate, backend):
    backend.answers("/echo", lambda request: Answer(body=request.body))
    gateway = livegate(routes={"$default": two_way(backend.at("/echo"))})
    with gateway.open() as wire:
        wire.send(b"".join(fragments(TEXT, b"h\xc3", b"\xa9 \xf0", b"\x9f\x98", b"\x80")))
        assert wire.message() == "h\u00e9 \U0001F600"


def test_what_follows_the_gateways_close_is_thrown_away(world, gateway):
    with gateway.open() as wire:
        wire.send(frame(BINARY, b"no") + frame(TEXT, '{"action":"echo"}') + close_frame(4000, "mine"))
        assert wire.frame().close[0] == 1003
        assert wire.ended()
    assert world.told()[0] == 1003
    assert world.backend.seen("/echo") == []


def test_what_follows_a_clients_close_is_thrown_away(world, gateway):
    with gateway.open() as wire:
        wire.send(close_frame(1000) + frame(TEXT, '{"action":"echo"}'))
        assert wire.frame().close[0] == 1000
        assert wire.ended()
    assert world.told()[0] == 1000
    assert world.backend.seen("/echo") == []


def test_a_close_arrives_although_the_client_is_still_sending(world, gateway):
    with gateway.open() as wire:
        # More than socket buffers hold, behind the mistake: a careless close would reset the connection.
        with contextlib.suppress(ConnectionError):
            wire.send(frame(BINARY, b"no") + frame(TEXT, b"x" * 30_000) * 20)
        assert wire.frame().close[0] == 1003
    assert world.told()[0] == 1003


def test_a_slow_consumer_is_1008(world):
    gateway = world.gateway(stage={"outbox": {"bytes": "64KiB", "messages": 1024}, "slow_consumer_timeout": "500ms"})
    with gateway.open(receive_buffer=4096) as deaf:
        mine = id_of(deaf)
        eventually(lambda: gateway.push(mine, "x" * 60_000).status == 429, "a full outbox")
        assert world.told()[0] == 1008
        eventually(lambda: gateway.push(mine, "x").status == 410)
        assert deaf.ended()
    eventually(lambda: gateway.metric("livegate_outbox_bytes") == 0)
