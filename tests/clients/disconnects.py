"""`$disconnect`: what it carries, that there is one for every connection, and that it is delivered."""

import contextlib
import threading

import pytest

from backend import Answer
from closing import id_of
from wire import BINARY, close_frame, frame, handshake
from world import chat, eventually


@pytest.fixture
def gateway(world):
    return world.gateway()


def test_the_headers_of_disconnect(livegate, backend):
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")})
    with gateway.open(headers=[("X-Mine", "yes")]) as wire:
        mine = id_of(wire)
        wire.send(close_frame(3000, "why"))
        assert wire.ended()
    told = backend.next("/disconnect")
    assert (told.method, told.body) == ("POST", b"")
    assert set(told.names) - {"host", "connection", "content-length", "content-type", "accept"} == {
        "user-agent", "x-amzn-apigateway-api-id", "x-amzn-trace-id", "x-livegate-api", "x-livegate-callback-url",
        "x-livegate-connection-id", "x-livegate-disconnect-code", "x-livegate-disconnect-reason", "x-livegate-event-type",
        "x-livegate-request-id", "x-livegate-route-key", "x-livegate-stage"}
    assert (told.connection_id, told.header("X-Livegate-Route-Key")) == (mine, "$disconnect")


def test_one_disconnect_for_each_connection_however_it_ends(livegate, backend):
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")})
    ids = []
    for _ in range(30):
        with gateway.open() as wire:
            mine = id_of(wire)
            ids.append(mine)
            # Both sides and a protocol error at once.
            deleting = threading.Thread(target=gateway.delete, args=(mine,))
            deleting.start()
            with contextlib.suppress(ConnectionError):
                wire.send(frame(BINARY, b"no") + close_frame(1000))
                wire.reset()
            deleting.join()
    backend.wait_for("/disconnect", 30)
    with gateway.connect() as last:
        ids.append(last.whoami())
    told = [request.connection_id for request in backend.wait_for("/disconnect", 31)]
    assert sorted(told) == sorted(ids)


@pytest.mark.parametrize("answer", [Answer(403, "no"), Answer(500, "no"), Answer(302), Answer(raw=b"")])
def test_no_disconnect_after_a_refused_handshake(livegate, backend, answer):
    backend.answers("/connect", answer, Answer(200))
    gateway = livegate(routes={"$connect": backend.at("/connect"), "$disconnect": backend.at("/disconnect")})
    assert gateway.knock().status != 101
    with gateway.connect() as client:
        mine = client.whoami()
    assert [request.connection_id for request in backend.wait_for("/disconnect")] == [mine]


def test_a_client_that_leaves_during_connect_is_told_of_if_the_backend_let_it_in(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect"), "$disconnect": backend.at("/disconnect")})
    with gateway.wire() as wire, backend.holding("/connect") as hold:
        wire.send(handshake("/prod", gateway.host))
        left = backend.next("/connect").connection_id
        wire.reset()
        hold.release()
    # Registered before the 101, and the 101 could not be written: 1006 (ROUTES.md section 4).
    told = backend.next("/disconnect")
    assert (told.connection_id, told.header("X-Livegate-Disconnect-Code")) == (left, "1006")


def test_a_disconnect_that_gets_5xx_is_repeated_with_its_request_id(world):
    world.backend.answers("/disconnect", Answer(503), Answer(500), Answer(200))
    gateway = world.gateway()
    with gateway.connect():
        pass
    told = world.backend.wait_for("/disconnect", 3)
    assert len({request.request_id for request in told}) == 1 and len({request.body for request in told}) == 1
    assert gateway.metric("livegate_disconnects_lost_total") == 0


def test_a_disconnect_waits_for_its_backend_to_come_back(world):
    gateway = world.gateway()
    with gateway.connect() as client:
        mine = client.whoami()
        world.backend.kill()
    eventually(lambda: gateway.metric("livegate_disconnect_retries_total") > 0)
    world.backend.revive()
    if world.payload == "raw":
        assert world.backend.wait_for("/disconnect")[0].connection_id == mine
    assert world.told() == (1000, "")


def test_a_4xx_to_a_disconnect_is_not_repeated(world):
    world.backend.answers("/disconnect", Answer(400), Answer(200))
    gateway = world.gateway()
    with gateway.connect():
        pass
    world.backend.wait_for("/disconnect")
    with gateway.connect():
        pass
    assert len({request.request_id for request in world.backend.wait_for("/disconnect", 2)}) == 2


def test_a_disconnect_that_cannot_be_delivered_is_counted_as_lost(livegate, backend):
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")}, stage={"disconnect_retry": "1s"})
    with gateway.connect():
        backend.kill()
    eventually(lambda: gateway.metric("livegate_disconnects_lost_total", api="chat", stage="prod") == 1)
    eventually(lambda: "disconnect" in gateway.logs())


def test_closes_are_counted_by_code(world, gateway):
    with gateway.open() as wire:
        wire.send(frame(BINARY, b"no"))
        assert wire.frame().close[0] == 1003
    world.told()
    eventually(lambda: gateway.metric("livegate_connections_closed_total", code="1003") == 1)
    assert gateway.metric("livegate_connections_open") == 0


def test_a_reload_that_puts_messages_in_order_loses_no_disconnect(livegate, backend):
    def parts(**stage):
        return chat(stage=stage, routes={"ask": backend.at("/ask"), "$disconnect": backend.at("/gone")})

    gateway = livegate(parts())
    with backend.holding("/ask") as hold:
        with gateway.connect() as client:
            client.says(action="ask")
            backend.next("/ask")
            gateway.reload(parts(ordering="connection"))
        # The client has left; what it had said is answered first, by a task that was begun without order.
        hold.release()
        backend.next("/gone")
