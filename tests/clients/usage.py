"""API keys, usage plans and quotas: whose key opens what, what is counted, what outlives the gateway, and
`livegate usage` (contract/rest-api.md section 8)."""

import asyncio
import csv
import datetime
import hashlib
import io
import json
import random
import re
import signal
import sqlite3
import stat
import threading
import time

import pytest

from authorizers import ALLOW, DENY, policy, statement
from backend import Answer
from http_apis import ask, http_api, is_error, pets, proxy, refused, says
from messages import error_frame
from servers import free_port
from wire import close_frame
from world import Gateway, Livegate, chat, eventually, mock, run, to

ACME, OTHER, OFF, DEV, BARE = (f"the-key-of-{name}-0123456789" for name in ("acme", "other", "off", "dev", "bare"))
FORBIDDEN = (403, "ForbiddenException", '{"message":"Forbidden"}')


def plan(limit=None, period="month", **more):
    return {**({"quota": {"limit": limit, "period": period}} if limit else {}), **more}


def keys(*names, of="gold"):
    return {name: {"value": f"the-key-of-{name}-0123456789", "usage_plan": of} for name in names}


def metered(gold=None, route=None, api_keys=None, api=None, **tables):
    """An HTTP API whose route `GET /pets` wants a key of the plan `gold`."""
    route = {**says("in"), "api_key_required": True, **(route or {})}
    return http_api({"GET /pets": route, "GET /open": says("open")}, api=api, usage_plans={"gold": gold or {}},
                    api_keys=api_keys or keys("acme", "other"), **tables)


def metered_chat(gold=None, routes=None, api_keys=None, **parts):
    """A WebSocket API whose `$connect` wants a key of the plan `gold`."""
    connect = {"integration": {"type": "mock"}, "api_key_required": True}
    return chat(routes={"$connect": connect, **(routes or {})}, usage_plans={"gold": gold or {}},
                api_keys=api_keys or keys("acme", "other"), **parts)


def with_key(key):
    return [("x-api-key", key)]


def calls(gateway, count=1, key=ACME, path="/pets"):
    return [ask(gateway, "GET", path, with_key(key)).status for _ in range(count)]


# Whose key opens what


ALL = {"acme": {"value": ACME, "usage_plan": "gold"}, "off": {"value": OFF, "usage_plan": "gold", "enabled": False},
       "dev": {"value": DEV, "usage_plan": "dev"}, "bare": {"value": BARE}}
SHOWN = [
    (ACME, True), (None, False), ("", False), ("the-key-of-nobody-0123456789", False), (ACME.upper(), False),
    (ACME[:-1], False), (ACME + "0", False), ("acme", False), (OFF, False), (DEV, False), (BARE, False),
    (f"{ACME}, {ACME}", False), (f"Bearer {ACME}", False),
]


@pytest.mark.parametrize("shown, is_good", SHOWN)
def test_a_key_opens_a_route_or_is_forbidden(livegate, backend, shown, is_good):
    gateway = livegate(http_api(
        {"GET /pets": {**proxy(backend.at("/pets")), "api_key_required": True}}, stages={"prod": {}, "dev": {}},
        usage_plans={"gold": {"stages": ["pets/prod"]}, "dev": {"stages": ["pets/dev"]}}, api_keys=ALL))
    answer = ask(gateway, "GET", "/prod/pets", with_key(shown) if shown is not None else [])
    assert answer.status == 200 if is_good else is_error(answer, 403, "Forbidden")
    assert len(backend.seen("/pets")) == is_good
    assert gateway.metric("livegate_refusals_total", cause="api_key", stage="prod") == (not is_good)


@pytest.mark.parametrize("shown, is_good", SHOWN)
def test_a_key_opens_a_connection_or_is_forbidden(livegate, backend, shown, is_good):
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "api_key_required": True}}, stages={"prod": {}, "dev": {}},
        usage_plans={"gold": {"stages": ["chat/prod"]}, "dev": {"stages": ["chat/dev"]}}, api_keys=ALL)
    answer = gateway.knock(headers=with_key(shown) if shown is not None else [])
    assert answer.status == 101 if is_good else answer.error == FORBIDDEN
    assert len(backend.seen("/connect")) == is_good


@pytest.mark.parametrize("expression, headers, query, is_good", [
    ("$request.header.x-api-key", [("X-API-Key", ACME)], "", True),
    ("$request.header.X-Key", [("x-key", ACME)], "", True), ("$request.header.X-Key", [("x-api-key", ACME)], "", False),
    ("$request.querystring.key", [], f"?key={ACME}", True), ("$request.querystring.key", [], f"?a=1&key={ACME}", True),
    ("$request.querystring.key", [], f"?KEY={ACME}", False), ("$request.querystring.key", [], "?key=", False),
    ("$request.querystring.key", [("x-api-key", ACME), ("key", ACME)], "", False),
    ("${request.header.X-Key}", [("X-Key", ACME)], "", None), ("$request.body.key", [], "", None),
    ("$context.stage", [], "", None), ("$request.header", [], "", None), ("static", [], "", None),
])
def test_a_key_is_where_the_api_says(livegate, tmp_path, expression, headers, query, is_good):
    text = metered(api={"api_key_selection_expression": expression})
    if is_good is None:
        refused(tmp_path, text, "routes.toml:", "api_key_selection_expression", "$request.header.x-api-key")
        return
    answer = ask(livegate(text), "GET", "/pets" + query, headers)
    assert answer.status == 200 if is_good else is_error(answer, 403, "Forbidden")


def test_a_key_in_the_query_of_a_handshake(livegate):
    gateway = livegate(metered_chat(api={"api_key_selection_expression": "$request.querystring.key"}))
    assert gateway.knock(f"/prod?key={ACME}").status == 101
    assert gateway.knock(headers=with_key(ACME)).error == FORBIDDEN


@pytest.mark.parametrize("more, is_good", [
    ({"usageIdentifierKey": ACME}, True), ({"usageIdentifierKey": "unknown"}, False), ({"usageIdentifierKey": ""}, False),
    ({"usageIdentifierKey": None}, False), ({}, False), ({"context": {"usageIdentifierKey": ACME}}, False),
])
def test_a_key_that_the_authorizer_names(livegate, backend, more, is_good):
    backend.answer("/authorize", 200, policy(statement(), **more))
    source = {"api_key_selection_expression": "$context.authorizer.usageIdentifierKey"}
    authorizers = {"mine": {"type": "http", "uri": backend.at("/authorize")}}
    gateway = livegate(metered(route={"authorizer": "mine"}, api=source, authorizers=authorizers))
    answer = ask(gateway, "GET", "/pets", with_key(ACME))
    assert answer.status == 200 if is_good else is_error(answer, 403, "Forbidden")
    connect = {"integration": {"type": "mock"}, "api_key_required": True, "authorizer": "mine"}
    chatty = livegate(metered_chat(routes={"$connect": connect}, api=source, authorizers=authorizers))
    answer = chatty.knock(headers=with_key(ACME))
    assert answer.status == 101 if is_good else answer.error == FORBIDDEN


def test_a_key_may_stand_in_the_file_as_its_digest(livegate):
    digest = hashlib.sha256(ACME.encode()).hexdigest()
    gateway = livegate(metered(api_keys={"acme": {"sha256": digest.upper(), "usage_plan": "gold"}}))
    assert calls(gateway) == [200] and calls(gateway, key=digest) == calls(gateway, key=digest.upper()) == [403]


def test_a_key_from_the_environment(livegate):
    text = metered(api_keys={"acme": {"value": "${env.LIVEGATE_TEST_KEY}", "usage_plan": "gold"}})
    assert calls(livegate(text, env={"LIVEGATE_TEST_KEY": ACME})) == [200]


def test_without_a_key_nobody_is_asked(livegate, backend):
    """The key comes before the authorizer, and an authorizer's no before the count."""
    backend.answers("/authorize", Answer(body=DENY), Answer(body=ALLOW))
    gateway = livegate(metered(plan(1), route={"authorizer": "mine"},
                               authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}}))
    assert calls(gateway, key="nobody's") == [403] and backend.seen("/authorize") == []
    assert calls(gateway, 3) == [403, 200, 429]


def test_a_route_without_api_key_required_asks_nobody_and_counts_nothing(livegate):
    gateway = livegate(metered(plan(1)))
    assert calls(gateway, 3, path="/open") == [200, 200, 200] and calls(gateway, 2) == [200, 429]


def test_events_of_a_connection_say_whose_key_it_was(livegate, backend):
    event = {"payload": "event"}
    gateway = livegate(metered_chat(routes={
        "$connect": {**to(backend.at("/connect"), **event), "api_key_required": True},
        "send": to(backend.at("/send"), **event), "$disconnect": to(backend.at("/disconnect"), **event)}))
    with gateway.open(headers=with_key(ACME)) as wire:
        wire.says(action="send")
        backend.wait_for("/send")
        wire.send(close_frame(1000))
        wire.ended()
    for path in ("/connect", "/send", "/disconnect"):
        identity = backend.next(path).json["requestContext"]["identity"]
        assert identity == {"sourceIp": "127.0.0.1", "apiKey": ACME, "apiKeyId": "acme"}, path


def test_the_event_of_a_request_says_whose_key_it_was(livegate, backend):
    backend.answer("/pets", 200, '{"statusCode":200}')
    route = proxy(backend.at("/pets"), payload="event", payload_format="1.0")
    calls(livegate(metered(route=route)))
    identity = backend.next("/pets").json["requestContext"]["identity"]
    assert (identity["apiKey"], identity["apiKeyId"]) == (ACME, "acme")


def test_expressions_know_the_key_and_its_name(livegate):
    text = "${context.identity.apiKeyId} ${context.identity.apiKey}"
    gateway = livegate(metered(route=says(text)))
    assert ask(gateway, "GET", "/pets", with_key(ACME)).body.decode() == f"acme {ACME}"
    gateway = livegate(metered_chat(routes={"who": mock(text)}))
    with gateway.connect(headers=dict(with_key(ACME))) as client:
        assert client.asks(action="who") == f"acme {ACME}"


# Quotas


def until_next(period):
    """Seconds until the next period begins: midnight, Sunday or the first, all of UTC."""
    now = datetime.datetime.now(datetime.timezone.utc)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        begins = today + datetime.timedelta(days=1)
    elif period == "week":
        begins = today + datetime.timedelta(days=7 - (today.weekday() + 1) % 7)
    else:
        begins = (today.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
    return (begins - now).total_seconds()


def says_until_next(answer, period):
    return abs(int(answer.header("Retry-After")) - until_next(period)) < 10


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_quota_of_requests_is_used_up(livegate, period):
    gateway = livegate(metered(plan(3, period)))
    assert calls(gateway, 3) == [200, 200, 200]
    answer = ask(gateway, "GET", "/pets", with_key(ACME))
    assert is_error(answer, 429, "Limit Exceeded") and says_until_next(answer, period)
    assert calls(gateway, 3, OTHER) == [200, 200, 200]
    assert gateway.metric("livegate_refusals_total", cause="quota") == 1


def test_who_has_used_up_the_quota_is_not_told_to_come_back_in_a_second(livegate):
    gateway = livegate(metered(plan(2, rate=1, burst=2)))
    answers = [ask(gateway, "GET", "/pets", with_key(ACME)) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert all(is_error(answer, 429, "Limit Exceeded") and says_until_next(answer, "month") for answer in answers[2:])


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_handshakes_and_messages_use_up_the_quota_of_their_key(livegate, backend, period):
    gateway = livegate(metered_chat(plan(3, period), {"send": backend.at("/send")}))
    with gateway.connect(headers=dict(with_key(ACME))) as client:
        mine = client.whoami()
        client.says(action="send")
        backend.next("/send")
        for action in ("send", "whoami"):
            found = re.fullmatch(error_frame("Limit Exceeded"), client.asks(action=action))
            assert found and found.group(1) == mine
        refusal = gateway.knock(headers=with_key(ACME))
        assert refusal.error == (429, "LimitExceededException", '{"message":"Limit Exceeded"}')
        assert says_until_next(refusal, period)
        # The connection is still there.
        assert gateway.push(mine, "hi").status == 200 and client.hears() == "hi"
    assert len(backend.seen("/send")) == 1


def test_a_key_counts_wherever_it_is_shown(livegate):
    text = metered_chat(plan(4), apis={"pets": pets({"GET /pets": {**says("in"), "api_key_required": True}})})
    gateway = livegate(text)
    with gateway.connect(headers=dict(with_key(ACME))) as client:
        assert calls(gateway, 2) == [200, 200]
        assert re.fullmatch(r".{16}", client.whoami())
        assert "Limit Exceeded" in client.whoami() and calls(gateway) == [429]


def test_disconnects_and_pushes_use_up_nothing(livegate, backend):
    gateway = livegate(metered_chat(plan(3), {"$disconnect": backend.at("/bye")}))
    with gateway.connect(headers=dict(with_key(ACME))) as client:
        mine = client.whoami()
        for _ in range(3):
            assert gateway.push(mine, "x").status == 200 and client.hears() == "x"
    backend.next("/bye")
    assert gateway.knock(headers=with_key(ACME)).status == 101


def test_what_is_refused_uses_up_nothing(livegate):
    gateway = livegate(metered(plan(2, rate=0.001, burst=1), stage={"limits": {"requests_per_address": {
        "rate": 0.001, "burst": 3}}}))
    # One is let through; two are too fast for the plan, and the rest is too much for one address.
    assert calls(gateway, 6) == [200, 429, 429, 429, 429, 429]
    assert counted(gateway, used=1, throttled=2, over_quota=0, remaining=1)


def test_of_200_at_once_the_quota_comes_through(livegate):
    gateway = livegate(metered(plan(50)))

    async def one():
        reader, writer = await asyncio.open_connection(*gateway.address)
        writer.write(f"GET /pets HTTP/1.1\r\nHost: {gateway.host}\r\nx-api-key: {ACME}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1])

    async def story():
        return await asyncio.gather(*(one() for _ in range(200)))
    answers = asyncio.run(asyncio.wait_for(story(), 60))
    assert (answers.count(200), answers.count(429)) == (50, 150)
    assert counted(gateway, used=50, over_quota=150, remaining=0)


def test_a_429_of_a_quota_has_its_cors_headers(livegate):
    origin = "https://app.example.com"
    gateway = livegate(metered(plan(1), api={"cors": {"allow_origins": [origin], "allow_headers": ["x-api-key"]}}))
    answers = [ask(gateway, "GET", "/pets", [("Origin", origin), *with_key(key)]) for key in (ACME, ACME, "unknown")]
    assert [answer.status for answer in answers] == [200, 429, 403]
    assert {answer.header("Access-Control-Allow-Origin") for answer in answers} == {origin}


# Reloads


@pytest.mark.parametrize("kind", ["requests", "messages"])
def test_a_reload_keeps_what_was_counted(livegate, kind):
    if kind == "requests":
        gateway = livegate(metered(plan(3)))
        assert calls(gateway, 2) == [200, 200]
        gateway.reload(metered(plan(3), apis={"more": pets({"GET /": says("x")}, base_path="/more")}))
        assert calls(gateway, 2) == [200, 429]
    else:
        gateway = livegate(metered_chat(plan(3)))
        with gateway.connect(headers=dict(with_key(ACME))) as client:
            client.whoami()
            gateway.reload(metered_chat(plan(3), {"more": mock("x")}))
            assert client.asks(action="more") == "x" and "Limit Exceeded" in client.asks(action="more")


def test_a_reload_changes_a_quota(livegate):
    gateway = livegate(metered(plan(2)))
    assert calls(gateway, 3) == [200, 200, 429]
    gateway.reload(metered(plan(4)))
    assert calls(gateway, 3) == [200, 200, 429]
    gateway.reload(metered(plan(5, "month")))
    assert calls(gateway, 2) == [200, 429]
    gateway.reload(metered())
    assert calls(gateway, 2) == [200, 200]
    gateway.reload(metered(plan(6)))
    assert calls(gateway) == [429]


def test_a_reload_turns_a_key_away_and_its_open_connections_as_well(livegate):
    gateway = livegate(metered_chat(api_keys=keys("acme", "other")))
    with gateway.connect(headers=dict(with_key(ACME))) as client, gateway.connect(headers=dict(with_key(OTHER))) as other:
        mine = client.whoami()
        gateway.reload(metered_chat(api_keys={**keys("acme", "other"), "acme": {**keys("acme")["acme"], "enabled": False}}))
        found = re.fullmatch(error_frame("Forbidden"), client.whoami())
        assert found and found.group(1) == mine and len(other.whoami()) == 16
        assert gateway.knock(headers=with_key(ACME)).error == FORBIDDEN
        gateway.reload(metered_chat(api_keys=keys("acme")))
        assert client.whoami() == mine and "Forbidden" in other.whoami()


def test_a_key_that_comes_with_a_reload_brings_what_it_had_used(processes):
    folder = processes.folder()
    first = processes(Gateway, metered(plan(3)), folder)
    assert calls(first, 2) == [200, 200] and first.terminate() == 0
    gateway = processes(Gateway, metered(plan(3), api_keys=keys("other")), folder)
    assert calls(gateway) == [403]
    gateway.reload(metered(plan(3)))
    assert calls(gateway, 2) == [200, 429]


# What outlives the gateway


def report(gateway, *arguments, fmt="json"):
    """What `livegate usage` prints."""
    done = run("usage", "--config", str(gateway.file), "--format", fmt, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if fmt == "json" else done.stdout


def counted(gateway, key="acme", **counts):
    """Waits until the report has these counts of today; they are written once a second."""
    def look():
        lines = [line for line in report(gateway, "--key", key)]
        return lines and counts.items() <= lines[-1].items() and lines[-1]
    return eventually(look, f"the report to say {counts}")


def test_a_restart_gives_nobody_a_new_quota(processes):
    folder = processes.folder()
    for passed in ([200, 200], [200, 200], [200, 429], [429, 429]):
        gateway = processes(Gateway, metered(plan(5, "month")), folder)
        assert calls(gateway, 2) == passed
        assert gateway.terminate() == 0
    assert counted(gateway, used=5, over_quota=3, remaining=0)


def test_what_was_counted_a_second_ago_survives_a_kill(processes):
    folder = processes.folder()
    gateway = processes(Gateway, metered(plan(5)), folder)
    assert calls(gateway, 3) == [200, 200, 200] and counted(gateway, used=3)
    gateway.signal(signal.SIGKILL)
    gateway.process.wait()
    assert report(gateway)[0]["used"] == 3
    assert calls(processes(Gateway, metered(plan(5)), folder), 4) == [200, 200, 429, 429]


class Callers:
    """Several clients that ask without a pause, and when each of their calls was let in."""

    def __init__(self, count=4):
        self.count = count
        self.passed, self.refused = [], 0
        self._lock = threading.Lock()

    def run(self, gateway):
        self._stop = False
        self._threads = [threading.Thread(target=self._ask, args=(gateway, ), daemon=True) for _ in range(self.count)]
        for thread in self._threads:
            thread.start()

    def rest(self):
        self._stop = True
        for thread in self._threads:
            thread.join()

    def _ask(self, gateway):
        while not self._stop:
            try:
                status = ask(gateway, "GET", "/pets", with_key(ACME)).status
            except (EOFError, OSError):
                # The gateway is gone.
                return
            with self._lock:
                if status == 200:
                    self.passed.append(time.monotonic())
                else:
                    assert status == 429
                    self.refused += 1


def test_a_gateway_that_is_killed_loses_its_last_second_at_most(processes):
    """Killed at random moments, it lets through the quota and what it forgot, and never less than the quota."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chance, folder, callers, quota = random.Random(seed), processes.folder(), Callers(), 5000
    may_be_lost, kills = 0, 6
    for _ in range(kills):
        gateway = processes(Gateway, metered(plan(quota)), folder)
        callers.run(gateway)
        time.sleep(chance.uniform(0, 2))
        killed = time.monotonic()
        gateway.signal(signal.SIGKILL)
        gateway.process.wait()
        callers.rest()
        may_be_lost += sum(moment > killed - 1.5 for moment in callers.passed)
    callers.refused = 0
    last = processes(Gateway, metered(plan(quota)), folder)
    callers.run(last)
    eventually(lambda: callers.refused, "the quota to be used up")
    callers.rest()
    assert last.terminate() == 0
    # Of a call in flight when the gateway was killed nobody knows the answer.
    assert quota - kills * callers.count <= len(callers.passed) <= quota + may_be_lost
    assert report(last)[0]["used"] == quota


def test_counts_are_for_the_gateways_user_alone_and_show_no_key(processes):
    folder = processes.folder()
    gateway = processes(Gateway, metered(plan(5)), folder)
    assert calls(gateway) == [200] and counted(gateway, used=1)
    data = folder / "livegate-data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for file in data.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert ACME.encode() not in file.read_bytes()


def test_another_data_dir(processes, tmp_path):
    for number, written in enumerate(["counts", "deep/er", str(tmp_path / "absolute")]):
        folder = processes.folder()
        text = metered(plan(2), gateway={"data_dir": written})
        gateway = processes(Gateway, text, folder)
        assert calls(gateway, 3) == [200, 200, 429] and gateway.terminate() == 0
        assert list((folder / written).iterdir()) and not (folder / "livegate-data").exists()
        assert report(gateway)[0]["used"] == 2
        assert calls(processes(Gateway, text, folder)) == [429]


def fails(text, tmp_path):
    """What a gateway says that does not start."""
    (tmp_path / "routes.toml").write_text(text)
    served = run("serve", cwd=tmp_path)
    assert served.returncode == 1 and "listening on" not in served.stdout
    return served.stdout + served.stderr


@pytest.mark.parametrize("written", ["a-file", "a-file/below", "/proc/nowhere", "/dev/null"])
def test_a_data_dir_that_cannot_be_written_is_an_error(tmp_path, written):
    (tmp_path / "a-file").write_text("precious")
    said = fails(metered(plan(2), gateway={"data_dir": written}), tmp_path)
    assert written in said and "cannot" in said and "panicked" not in said
    assert (tmp_path / "a-file").read_text() == "precious"


def test_a_file_that_is_not_ours_is_an_error(tmp_path):
    (tmp_path / "livegate-data").mkdir()
    (tmp_path / "livegate-data" / "usage.db").write_text("no database, however one looks at it" * 100)
    assert "usage.db" in fails(metered(plan(2)), tmp_path)
    assert (tmp_path / "livegate-data" / "usage.db").read_text().startswith("no database")


def test_a_file_of_a_later_version_is_an_error(tmp_path):
    with sqlite3.connect(new_database(tmp_path)) as database:
        database.execute("PRAGMA user_version = 99")
    assert "99" in fails(metered(plan(2)), tmp_path)
    done = run("usage", cwd=tmp_path)
    assert done.returncode == 1 and "99" in done.stdout + done.stderr


def test_without_keys_no_folder_is_needed(livegate):
    gateway = livegate(http_api({"GET /": says("in")}, gateway={"data_dir": "/proc/nowhere"}))
    assert ask(gateway, "GET", "/").status == 200


def test_a_reload_with_a_data_dir_that_cannot_be_written_changes_nothing(livegate):
    gateway = livegate(metered(plan(2)))
    assert calls(gateway) == [200]
    gateway.reload(metered(plan(9), gateway={"data_dir": "/proc/nowhere"}))
    assert gateway.metric("livegate_reloads_total", outcome="problems") >= 1
    assert calls(gateway, 2) == [200, 429]
    eventually(lambda: "/proc/nowhere" in gateway.logs())


def test_a_file_that_another_has_locked_makes_nobody_wait_and_loses_nothing(processes):
    folder = processes.folder()
    gateway = processes(Gateway, metered(plan(1000)), folder)
    with sqlite3.connect(folder / "livegate-data" / "usage.db", isolation_level=None) as database:
        database.execute("BEGIN IMMEDIATE")
        began, passed = time.monotonic(), 0
        while "cannot be written" not in gateway.logs():
            asked = time.monotonic()
            assert calls(gateway) == [200] and time.monotonic() - asked < 2
            passed += 1
            assert time.monotonic() - began < 30 and passed < 1000
            time.sleep(0.05)
        database.execute("COMMIT")
    assert counted(gateway, used=passed)
    eventually(lambda: "is written again" in gateway.logs())


def test_two_gateways_count_into_one_file(processes, tmp_path):
    port = free_port()
    shared = {"listen": f"127.0.0.1:{port}", "reuse_port": True, "data_dir": str(tmp_path / "shared")}
    gateways = [processes(Gateway, metered(gateway=shared), processes.folder()) for _ in range(2)]
    for gateway in gateways:
        gateway.address = ("127.0.0.1", port)
    eventually(lambda: all(served(gateway) for gateway in gateways) or not calls(gateways[0], 10))
    total = sum(served(gateway) for gateway in gateways)
    assert counted(gateways[0], used=total) and counted(gateways[1], used=total)
    assert [gateway.terminate() for gateway in gateways] == [0, 0]
    assert report(gateways[0])[0]["used"] == total


def served(gateway):
    return int(gateway.metric("livegate_requests_total", status="2xx"))


# `livegate usage`


TODAY = datetime.datetime.now(datetime.timezone.utc).date()


def new_database(folder):
    """The file as a gateway makes it."""
    (folder / "routes.toml").write_text(metered(plan(10)))
    process = Livegate("serve", "--config", str(folder / "routes.toml"), logs=folder / "made.log", cwd=folder)
    try:
        process.url_after("listening on")
        assert process.terminate() == 0
    finally:
        process.kill()
    return folder / "livegate-data" / "usage.db"


DAYS = [
    # Two Saturdays and the Sunday between, across the end of a month.
    ("2026-01-31", "gold", "acme", 4, 1, 0), ("2026-02-01", "gold", "acme", 3, 0, 0), ("2026-02-01", "gold", "other", 9, 0, 2),
    ("2026-02-07", "gold", "acme", 2, 0, 0), ("2026-02-08", "free", "acme", 100, 0, 0),
]


@pytest.fixture
def days(tmp_path):
    """Days that are over, as gateways of then left them."""
    with sqlite3.connect(new_database(tmp_path)) as database:
        database.executemany("INSERT INTO usage (day, usage_plan, api_key, used, throttled, over_quota)"
                             " VALUES (?, ?, ?, ?, ?, ?)", DAYS)

    def usage(*arguments, period="week", limit=10):
        plans = {"gold": plan(limit, period), "free": {}}
        (tmp_path / "routes.toml").write_text(http_api(
            {"GET /pets": {**says("in"), "api_key_required": True}}, usage_plans=plans, api_keys=keys("acme", "other")))
        return run("usage", *arguments, cwd=tmp_path)
    return usage


def lines(done):
    assert done.returncode == 0, done.stderr
    return [(line["day"], line["usage_plan"], line["api_key"], line["used"], line["throttled"], line["over_quota"])
            for line in json.loads(done.stdout)]


@pytest.mark.parametrize("arguments, expected", [
    ([], DAYS), (["--plan", "free"], DAYS[4:]), (["--key", "other"], DAYS[2:3]),
    (["--key", "acme", "--plan", "gold"], [DAYS[0], DAYS[1], DAYS[3]]), (["--from", "2026-02-01"], DAYS[1:]),
    (["--to", "2026-02-01"], DAYS[:3]), (["--from", "2026-02-01", "--to", "2026-02-01", "--key", "acme"], DAYS[1:2]),
    (["--from", "2026-02-09"], []), (["--plan", "nope"], []), (["--key", "the-key-of-acme-0123456789"], []),
    (["--from", "2026-02-08", "--to", "2026-02-01"], []),
])
def test_a_report_is_about_the_days_keys_and_plans_that_are_asked_for(days, arguments, expected):
    done = days(*arguments, "--format", "json")
    assert sorted(lines(done)) == sorted(expected)


@pytest.mark.parametrize("period, remaining", [
    ("day", {"2026-01-31": 6, "2026-02-01": 7, "2026-02-07": 8}),
    ("week", {"2026-01-31": 6, "2026-02-01": 7, "2026-02-07": 5}),
    ("month", {"2026-01-31": 6, "2026-02-01": 7, "2026-02-07": 5}),
])
def test_a_report_says_what_remains_of_a_period(days, period, remaining):
    for arguments in ([], ["--from", "2026-02-07"]):
        done = json.loads(days("--format", "json", "--key", "acme", "--plan", "gold", *arguments, period=period).stdout)
        shown = {line["day"]: line["remaining"] for line in done}
        assert shown == {day: remaining[day] for day in shown} and "2026-02-07" in shown


def test_a_report_as_a_table(days):
    printed = days().stdout.splitlines()
    assert re.split(r"  +", printed[0]) == ["DAY", "API KEY", "USAGE PLAN", "USED", "THROTTLED", "OVER QUOTA", "REMAINING"]
    rows = [re.split(r"  +", line) for line in printed[1:]]
    assert ["2026-02-01", "other", "gold", "9", "0", "2", "1"] in rows
    assert ["2026-02-08", "acme", "free", "100", "0", "0", "-"] in rows
    assert rows[-1] == ["TOTAL", "118", "1", "2"]


def test_a_report_as_csv(days):
    rows = list(csv.DictReader(io.StringIO(days("--format", "csv").stdout)))
    assert list(rows[0]) == ["day", "api_key", "usage_plan", "used", "throttled", "over_quota", "remaining"]
    of_free = next(row for row in rows if row["usage_plan"] == "free")
    assert of_free == {"day": "2026-02-08", "api_key": "acme", "usage_plan": "free", "used": "100", "throttled": "0",
                       "over_quota": "0", "remaining": ""}
    assert len(rows) == len(DAYS)


@pytest.mark.parametrize("fmt, empty", [
    ("json", "[]\n"), ("csv", "day,api_key,usage_plan,used,throttled,over_quota,remaining\n"),
])
def test_where_nothing_was_counted_the_report_is_empty_and_nothing_is_made(tmp_path, fmt, empty):
    (tmp_path / "routes.toml").write_text(metered(plan(2)))
    done = run("usage", "--format", fmt, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, empty)
    table = run("usage", cwd=tmp_path)
    assert table.returncode == 0 and table.stdout.splitlines()[1].split() == ["TOTAL", "0", "0", "0"]
    assert not (tmp_path / "livegate-data").exists()


@pytest.mark.parametrize("arguments, code", [
    (["--from", "yesterday"], 2), (["--to", "2026-02-30"], 2), (["--format", "xml"], 2), (["--nope"], 2),
    (["--config", "none.toml"], 1),
])
def test_a_report_that_is_asked_for_wrongly(tmp_path, arguments, code):
    (tmp_path / "routes.toml").write_text(metered(plan(2)))
    assert run("usage", *arguments, cwd=tmp_path).returncode == code


def test_a_report_needs_no_secrets_and_shows_none(processes):
    folder = processes.folder()
    text = metered(plan(3), api_keys={"acme": {"value": "${env.LIVEGATE_TEST_KEY}", "usage_plan": "gold"}})
    gateway = processes(Gateway, text, folder, env={"LIVEGATE_TEST_KEY": ACME})
    assert calls(gateway) == [200] and counted(gateway, used=1, remaining=2)
    assert all(ACME not in report(gateway, fmt=fmt) for fmt in ("table", "csv"))


def test_a_report_of_a_bad_file_says_what_is_wrong(tmp_path):
    (tmp_path / "routes.toml").write_text(metered(plan(2), api_keys=keys("acme", of="golf")))
    done = run("usage", cwd=tmp_path)
    assert done.returncode == 1 and "did you mean `gold`?" in done.stdout + done.stderr


def test_a_running_gateway_and_its_report_do_not_get_in_each_others_way(livegate):
    gateway = livegate(metered(plan(100_000)))
    callers = Callers()
    callers.run(gateway)
    for _ in range(20):
        report(gateway)
    callers.rest()
    assert counted(gateway, used=len(callers.passed), over_quota=0)


@pytest.mark.parametrize("period, days_ago", [("week", (TODAY.weekday() + 1) % 7), ("month", TODAY.day - 1)])
def test_days_of_this_period_count_and_those_of_the_last_do_not(processes, tmp_path, period, days_ago):
    first, before = TODAY - datetime.timedelta(days=days_ago), TODAY - datetime.timedelta(days=days_ago + 1)
    with sqlite3.connect(new_database(tmp_path)) as database:
        database.executemany("INSERT INTO usage VALUES (?, 'gold', 'acme', ?, 0, 0)", [(str(first), 7), (str(before), 100)])
    gateway = processes(Gateway, metered(plan(10, period)), tmp_path)
    assert calls(gateway, 4) == [200, 200, 200, 429]
