"""Many clients at once: nothing lost, nothing mixed up, nobody made to wait for another."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
import pathlib

import pytest

from backend import Answer
from swarm import swarm
from world import chat, eventually, two_way


@pytest.fixture
def echo():
    """The URL of a quick echo in its own process."""
    script = pathlib.Path(__file__).parent / "echo.py"
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/echo"
        process.kill()


def test_2000_clients_with_20_messages_each_get_their_own_answers(livegate, echo):
    gateway = livegate(routes={"echo": two_way(echo)})

    async def story():
        members = await swarm(gateway, 2000)
        assert gateway.metric("livegate_connections_open") == 2000
        wrong = []

        async def talk(name, member):
            asked = {f'{{"action":"echo","client":{name},"number":{number}}}' for number in range(20)}
            for text in asked:
                member.send(text)
            heard = [await member.hears() for _ in asked]
            if sorted(heard) != sorted(asked):
                wrong.append((name, heard))
            member.leave()
        await asyncio.gather(*(talk(name, member) for name, member in enumerate(members)))
        assert wrong == []
    asyncio.run(asyncio.wait_for(story(), 60))
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)
    assert gateway.metric("livegate_messages_total", direction="in") == 40_000
    assert gateway.metric("livegate_messages_total", direction="out") == 40_000


def test_drain_with_500_sockets_and_messages_in_flight(livegate, backend):
    gateway = livegate(routes={"send": two_way(backend.at("/send")), "$disconnect": backend.at("/disconnect")})
    backend.answers("/send", lambda request: Answer(body=f"answer to {request.json['name']}"))

    async def story():
        members = await swarm(gateway, 500)
        with backend.holding("/send") as hold:
            for name, member in enumerate(members):
                member.send(json.dumps({"action": "send", "name": name}))
            await asyncio.to_thread(backend.wait_for, "/send", 500)
            gateway.signal(signal.SIGTERM)
            await asyncio.to_thread(eventually, lambda: gateway.admin("/readyz").status == 503)
            hold.release()
            answers = await asyncio.gather(*(member.hears() for member in members))
            assert answers == [f"answer to {name}" for name in range(500)]
            codes = await asyncio.gather(*(member.ended() for member in members))
            assert set(codes) == {1001}
            for member in members:
                member.leave()
    asyncio.run(asyncio.wait_for(story(), 40))
    assert gateway.exit_code() == 0
    told = backend.wait_for("/disconnect", 500)
    assert len({request.connection_id for request in told}) == 500
    assert {request.header("X-Livegate-Disconnect-Code") for request in told} == {"1001"}
    assert not re.search(r"\blost\b", gateway.logs())


def test_reload_under_traffic_loses_no_message(livegate, backend, another_backend):
    for one in (backend, another_backend):
        one.answers("/echo", lambda request: Answer(body=request.body))
    texts = [chat(routes={"echo": two_way(one.at("/echo"))}) for one in (backend, another_backend)]
    gateway = livegate(texts[0])

    async def story():
        members, over = await swarm(gateway, 20), asyncio.Event()

        async def talk(name, member):
            number = 0
            while not over.is_set():
                text = json.dumps({"action": "echo", "client": name, "number": number})
                member.send(text)
                assert await asyncio.wait_for(member.hears(), 10) == text
                number += 1
            member.leave()
            return number
        talking = [asyncio.create_task(talk(name, member)) for name, member in enumerate(members)]
        for turn in range(1, 9):
            await asyncio.to_thread(gateway.reload, texts[turn % 2])
            # The new backend is asked before the next reload.
            current, seen = ((backend, another_backend)[turn % 2], len((backend, another_backend)[turn % 2].seen("/echo")))
            await asyncio.to_thread(current.wait_for, "/echo", seen + 50)
        over.set()
        return sum(await asyncio.gather(*talking))
    answered = asyncio.run(asyncio.wait_for(story(), 60))
    assert answered == len(backend.seen("/echo")) + len(another_backend.seen("/echo"))
    assert gateway.metric("livegate_reloads_total", outcome="problems") == 0


def test_a_backend_killed_and_revived_mid_traffic(livegate, backend):
    backend.answers("/echo", lambda request: Answer(body=request.body))
    gateway = livegate(routes={"echo": two_way(backend.at("/echo"))})

    async def story():
        members, over = await swarm(gateway, 20), asyncio.Event()
        answers = {"echoed": 0, "refused": 0}

        async def talk(name, member):
            number = 0
            while not over.is_set():
                text = json.dumps({"action": "echo", "client": name, "number": number})
                member.send(text)
                heard = await asyncio.wait_for(member.hears(), 10)
                assert heard == text or heard.startswith('{"message": "Internal server error"'), heard
                answers["echoed" if heard == text else "refused"] += 1
                number += 1
            member.leave()
        talking = asyncio.gather(*(talk(name, member) for name, member in enumerate(members)))
        for _ in range(3):
            await until(lambda: answers["echoed"] > 200)
            await asyncio.to_thread(backend.kill)
            answers["refused"] = 0
            await until(lambda: answers["refused"] > 200)
            await asyncio.to_thread(backend.revive)
            answers["echoed"] = 0
        await until(lambda: answers["echoed"] > 200)
        over.set()
        await talking
    asyncio.run(asyncio.wait_for(story(), 60))
    assert gateway.is_well()


async def until(look):
    while not look():
        await asyncio.sleep(0.005)


def test_a_slow_reader_among_fast_ones_delays_nobody(livegate, echo):
    gateway = livegate(routes={"echo": two_way(echo)}, stage={"slow_consumer_timeout": "60s"})
    with gateway.open(receive_buffer=4096) as deaf:
        deaf.says(action="whoami")
        mine, stop, statuses = deaf.message(), threading.Event(), []

        def push():
            while not stop.is_set():
                statuses.append(gateway.push(mine, "x" * 60_000).status)
        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            eventually(lambda: 429 in statuses, "a full outbox")
            slowest = asyncio.run(asyncio.wait_for(echo_round_trips(gateway), 40))
        finally:
            stop.set()
            pushing.join()
        assert set(statuses) == {200, 429}
        # A stuck neighbour would cost seconds; two busy cores cost less than one.
        assert slowest < 1.0
        assert gateway.metric("livegate_outbox_bytes") <= 1_048_576 + 65_536


async def echo_round_trips(gateway):
    """The slowest of 50 × 20 round trips."""
    members = await swarm(gateway, 50)

    async def talk(name, member):
        slowest = 0.0
        for number in range(20):
            text, began = json.dumps({"action": "echo", "client": name, "number": number}), time.monotonic()
            member.send(text)
            assert await member.hears() == text
            slowest = max(slowest, time.monotonic() - began)
        member.leave()
        return slowest
    return max(await asyncio.gather(*(talk(name, member) for name, member in enumerate(members))))


def test_pushes_from_many_backends_keep_each_ones_order(livegate):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()

        def push(who):
            for number in range(100):
                assert gateway.push(mine, f"{who} {number}").status == 200
        pushing = [threading.Thread(target=push, args=(who,)) for who in range(5)]
        for one in pushing:
            one.start()
        heard = [client.hears().split() for _ in range(500)]
        for one in pushing:
            one.join()
    for who in range(5):
        assert [int(number) for name, number in heard if name == str(who)] == list(range(100))


def test_a_thousand_sockets_come_and_go_without_a_trace(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect"), "$disconnect": backend.at("/disconnect")})

    async def story():
        for _ in range(5):
            for member in await swarm(gateway, 200):
                member.leave()
    asyncio.run(asyncio.wait_for(story(), 40))
    connected = {request.connection_id for request in backend.wait_for("/connect", 1000)}
    told = [request.connection_id for request in backend.wait_for("/disconnect", 1000)]
    assert len(connected) == len(told) == 1000 and set(told) == connected
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)
