"""What happens in a gateway, told while it happens: /api/tail, and `livegate tail` in a terminal."""

import asyncio
import contextlib
import http.client
import json
import re
import signal
import subprocess
import urllib.parse

import pytest

from authorizers import policy, statement
from backend import PATIENCE
from http_apis import ask, pets, says
from servers import free_port
from status import TOKEN, is_near, message_of, shows, with_users
from swarm import swarm
from world import ID, LIVEGATE, Livegate, eventually, http_request, mock, run, two_way

FIELDS = {
    "at", "kind", "api", "stage", "route", "connection", "request", "user", "address", "outcome", "status", "latency_ms",
    "integration_ms", "direction", "bytes", "error", "cause", "authorizer", "payload",
}


class Watching:
    """Somebody who reads /api/tail."""

    def __init__(self, gateway, query="", headers=None):
        parts = urllib.parse.urlsplit(gateway.admin_url)
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)
        self._connection.request("GET", f"/api/tail?{query}", headers=headers or {})
        self.answer = self._connection.getresponse()

    def __enter__(self):
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.getheader("Content-Type") == "application/x-ndjson"
        assert self.line() == {"note": "watching"}
        return self

    def __exit__(self, *_):
        self.answer.close()
        self._connection.close()

    def line(self):
        """The next line that says something; None at the end."""
        while line := self.answer.readline():
            if line.strip():
                assert line.endswith(b"\n"), line
                return json.loads(line)
        return None

    def next(self, **wanted):
        """The next event, which must have these values."""
        event = self.line()
        assert set(event) == FIELDS, event
        assert {name: event[name] for name in wanted} == wanted, event
        return event

    def is_over(self):
        assert self.line() is None
        return True


def watching(gateway, headers=None, **query):
    return Watching(gateway, urllib.parse.urlencode(query), headers)


# What is told


def test_a_connection_from_its_beginning_to_its_end(livegate, backend):
    gateway = with_users(livegate, backend, {"send": two_way(backend.at("/send")), "$disconnect": backend.at("/disconnect")})
    backend.answer("/send", 200, "sent")
    kinds = "connect,message,push,disconnect"
    with watching(gateway, kind=kinds) as tail:
        with gateway.connect(headers={"X-User": "ann"}) as client:
            opened = tail.next(kind="connect", route="$connect", outcome="ok", user="ann")
            mine = opened["connection"]
            client.asks(action="send")
            sent = tail.next(kind="message", route="send", outcome="ok", status=200)
            assert gateway.push(mine, "hello").status == 200 and client.hears() == "hello"
            pushed = tail.next(kind="push", outcome="ok", status=200, direction="out", bytes=5)
            assert client.whoami() == mine
            mocked = tail.next(kind="message", route="whoami", outcome="ok")
        left = tail.next(kind="disconnect", route="$disconnect", user="ann")
    assert left["cause"].startswith("1000")
    for event in (opened, sent, pushed, mocked, {**left, "cause": None}):
        assert (event["api"], event["stage"], event["connection"]) == ("chat", "prod", mine)
        assert (event["address"], event["cause"], event["payload"]) == ("127.0.0.1", None, None)
        assert re.fullmatch(ID, event["request"]) and is_near(event["at"], 10)
        assert 0 <= event["latency_ms"] < 5000
    assert (sent["direction"], sent["bytes"]) == ("in", len('{"action":"send"}'))
    assert 0 < sent["integration_ms"] <= sent["latency_ms"]
    assert sent["request"] == backend.next("/send").request_id


def test_a_message_that_is_refused_and_one_that_fails(livegate, dead_backend, backend):
    gateway = livegate(routes={
        "few": {**mock("few"), "throttle": {"rate": 0.001, "burst": 1}}, "dead": two_way(dead_backend.at("/dead")),
        "ill": two_way(backend.at("/ill")),
    })
    backend.answer("/ill", 500, "ill")
    with gateway.connect() as client, watching(gateway, kind="message") as tail:
        for action in ("few", "few", "dead", "ill"):
            client.asks(action=action)
        tail.next(route="few", outcome="ok", error=None, cause=None)
        refused = tail.next(route="few", outcome="refused", status=429, cause="route_throttle")
        failed = tail.next(route="dead", outcome="failed", status=500, cause=None)
        tail.next(route="ill", outcome="failed", status=500)
        assert "THROTTLED" in refused["error"] and failed["error"]


def test_a_handshake_that_is_refused(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect")})
    backend.answer("/connect", 403)
    with watching(gateway) as tail:
        assert gateway.knock().status == 403
        tail.next(kind="connect", outcome="refused", status=403)


def test_a_push_to_nobody(livegate):
    gateway = livegate()
    with watching(gateway, kind="push") as tail:
        assert gateway.push("zeYsWoCdtIv4VN8=", "x").status == 410
        tail.next(kind="push", outcome="refused", status=410, connection="zeYsWoCdtIv4VN8=")


def test_requests_of_an_http_api(livegate):
    gateway = livegate(apis={"pets": pets({"GET /pets/{id}": says("in")})})
    with watching(gateway, api="pets") as tail:
        assert ask(gateway, "GET", "/pets/7").status == 200
        tail.next(kind="request", route="GET /pets/{id}", outcome="ok", status=200, api="pets", connection=None, error=None)
        assert ask(gateway, "GET", "/nothing").status == 404
        tail.next(kind="request", outcome="refused", status=404)


def test_what_an_authorizer_said(livegate, backend):
    gateway = with_users(livegate, backend)
    with watching(gateway, kind="authorizer") as tail:
        with gateway.connect(headers={"X-User": "ann"}):
            event = tail.next(kind="authorizer", outcome="ok", authorizer="users", route="$connect")
            assert event["latency_ms"] > 0
        backend.answer("/authorize", 200, policy(statement("Deny")))
        assert gateway.knock(headers=[("X-User", "bob")]).status == 403
        tail.next(kind="authorizer", outcome="refused", authorizer="users")


def test_frames_are_told_with_their_bytes(livegate):
    gateway = livegate(routes={"say": mock("héllo")})
    with gateway.connect() as client, watching(gateway, kind="frame") as tail:
        asked = '{"action":"say"}'
        client.send(asked)
        assert client.hears() == "héllo"
        came = tail.next(kind="frame", direction="in", bytes=len(asked), payload=None)
        left = tail.next(kind="frame", direction="out", bytes=6, payload=None)
        assert came["connection"] == left["connection"]


@pytest.mark.parametrize("stage, query, is_shown", [
    ({"data_trace": True}, {"payload": "true"}, True), ({"data_trace": True}, {}, False),
    ({"data_trace": True}, {"payload": "false"}, False), ({}, {"payload": "true"}, False),
])
def test_payloads_are_shown_where_both_sides_say_so(livegate, stage, query, is_shown):
    gateway = livegate(stage=stage, routes={"say": mock("answered")})
    with gateway.connect() as client, watching(gateway, kind="message,frame", **query) as tail:
        client.asks(action="say")
        payloads = [tail.next()["payload"] for _ in range(3)]
        assert set(payloads) == ({'{"action":"say"}', "answered"} if is_shown else {None})


def test_a_long_payload_is_cut_and_a_binary_one_is_base64(livegate):
    gateway = livegate(stage={"data_trace": True, "binary": True}, routes={"$default": mock("")})
    with gateway.connect() as client, watching(gateway, kind="frame", payload="true") as tail:
        client.send("\U0001f375" * 2000)
        event = tail.next(direction="in", bytes=8000)
        assert len(event["payload"].encode()) <= 4096 and set(event["payload"][:-1]) == {"\U0001f375"}
        client.send(b"\xff\x00")
        assert tail.next(direction="in", bytes=2)["payload"] == "base64:/wA="


# Filters


@pytest.mark.parametrize("query, found", [
    ({"user": "ann"}, ["ann"]), ({"user": "bob"}, ["bob", "bob"]), ({"user": "an"}, []), ({"route": "send"}, ["ann"]),
    ({"route": "few"}, ["bob", "bob"]), ({"outcome": "refused"}, ["bob"]), ({"outcome": "ok,failed"}, ["ann", "bob"]),
    ({"api": "chat", "stage": "prod"}, ["ann", "bob", "bob"]), ({"api": "pets"}, []), ({"stage": "dev"}, []),
    ({"user": "", "outcome": "", "sample": "1"}, ["ann", "bob", "bob"]),
])
def test_only_what_is_asked_for_is_told(livegate, backend, query, found):
    routes = {"send": mock("sent"), "few": {**mock("few"), "throttle": {"rate": 0.001, "burst": 1}}}
    gateway = with_users(livegate, backend, routes)
    with gateway.connect(headers={"X-User": "ann"}) as ann, gateway.connect(headers={"X-User": "bob"}) as bob:
        mine = bob.whoami()
        with watching(gateway, kind="message", **query) as tail, watching(gateway, kind="message", connection=mine) as of_bob:
            ann.asks(action="send")
            bob.asks(action="few")
            bob.asks(action="few")
            assert [of_bob.next(connection=mine)["route"] for _ in range(2)] == ["few", "few"]
            assert [tail.next()["user"] for _ in found] == found
            # Had there been more, it would be here before the end.
            gateway.kill()
            with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                assert tail.is_over()


@pytest.mark.parametrize("query, words", [
    ("conection=x", ["`conection`", "`connection`"]), ("shoe=7", ["`shoe`", "outcome"]), ("outcome=fine", ["`fine`", "refused"]),
    ("kind=mesage", ["`mesage`", "`message`"]), ("sample=2", ["`2`"]), ("sample=0", ["`0`"]), ("payload=yes", ["`yes`", "`true`"]),
])
def test_a_filter_that_is_none_is_400_and_says_what_would_do(livegate, query, words):
    text = message_of(http_request(livegate().admin_url, "GET", f"/api/tail?{query}"), 400)
    for word in words:
        assert word in text


def test_a_sample_is_a_share_of_what_happens(livegate):
    gateway = livegate()
    with gateway.connect() as client, gateway.connect() as last, watching(gateway, kind="message", sample=0.2) as tail:
        for _ in range(400):
            client.whoami()
        # Of so many at least one is told, and what was told before it is all there was.
        for _ in range(200):
            mine = last.whoami()
        told = 0
        while tail.next()["connection"] != mine:
            told += 1
    assert 30 < told < 140


# Too much


def test_what_is_too_much_for_a_reader_is_counted(livegate):
    gateway = livegate()

    async def story():
        members = await swarm(gateway, 20)
        for member in members:
            for _ in range(200):
                member.send('{"action":"whoami"}')
        for member in members:
            for _ in range(200):
                await member.hears()
            member.leave()
    with watching(gateway, kind="message") as tail:
        asyncio.run(asyncio.wait_for(story(), 60))
        told = dropped = 0
        while told + dropped < 4000:
            line = tail.line()
            dropped += line.get("dropped", 0)
            told += "kind" in line
        assert told + dropped == 4000 and dropped > 0 and told > 0
    assert gateway.is_well()


def test_a_reader_that_does_not_read_delays_nobody(livegate):
    gateway = livegate(stage={"data_trace": True}, routes={"long": mock("x" * 4000)})
    with watching(gateway, payload="true"), gateway.connect() as client:
        for _ in range(2000):
            assert len(client.asks(action="long")) == 4000
        assert gateway.is_well()


def test_there_may_be_sixteen_watchers(livegate):
    gateway = livegate()
    with contextlib.ExitStack() as tails:
        first = tails.enter_context(watching(gateway))
        for _ in range(15):
            tails.enter_context(watching(gateway))
        assert gateway.metric("livegate_tail_watchers") == 16
        message_of(http_request(gateway.admin_url, "GET", "/api/tail"), 503)
        with gateway.connect() as client:
            client.whoami()
        first.__exit__()

        # Whoever left is noticed when there is something to tell.
        def has_room():
            gateway.knock()
            return gateway.metric("livegate_tail_watchers") == 15
        eventually(has_room)
        tails.enter_context(watching(gateway))

    def all_are_gone():
        gateway.knock()
        return gateway.metric("livegate_tail_watchers") == 0
    eventually(all_are_gone)


def test_watchers_do_not_keep_a_gateway_from_ending(livegate):
    gateway = livegate(gateway={"drain_timeout": "2s"})
    with gateway.connect() as client, watching(gateway, kind="connect,disconnect") as tail:
        client.whoami()
        gateway.signal(signal.SIGTERM)
        assert client.closed()[0] == 1001
        tail.next(kind="disconnect")
        assert tail.is_over()
        assert gateway.exit_code() == 0


def test_a_token_is_asked_for_here_too(livegate):
    gateway = livegate(gateway={"admin_token": TOKEN})
    message_of(http_request(gateway.admin_url, "GET", "/api/tail"), 401)
    with watching(gateway, headers=shows(TOKEN)) as tail, gateway.connect() as client:
        tail.next(kind="connect", connection=client.whoami())


# `livegate tail`


@pytest.fixture
def tail(processes):
    """Starts `livegate tail` and waits until it watches."""
    def start(gateway, *arguments, watches=True, env=None):
        folder = processes.folder()
        folder.mkdir(parents=True)
        process = processes(Livegate, "tail", "--admin", gateway.admin_url, *arguments, logs=folder / "stderr.log", env=env)
        if watches:
            assert process.line() == ('{"note":"watching"}' if "--json" in arguments else "-- watching")
        return process
    return start


def test_tail_in_a_terminal(livegate, backend, tail):
    gateway = with_users(livegate, backend, {"send": mock("sent"), "few": {**mock("few"), "throttle": {"rate": 0.001, "burst": 1}}})
    with gateway.connect(headers={"X-User": "ann"}) as client:
        shown = tail(gateway, "--kind", "message")
        mine = client.whoami()
        line = shown.line().split()
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z", line[0])
        assert line[1:7] == ["message", "ok", "whoami", mine, "ann", "200"] and line[8:] == ["ms"]
        for _ in range(2):
            client.asks(action="few")
        shown.line()
        line = shown.line()
        assert "refused" in line and " 429 " in line and "THROTTLED" in line and "\x1b" not in line


def test_tail_as_json_prints_the_lines_as_they_are(livegate, tail):
    gateway = livegate()
    shown = tail(gateway, "--json", "--kind", "connect,message")
    with gateway.connect() as client:
        mine = client.whoami()
    events = [json.loads(shown.line()) for _ in range(2)]
    assert [event["kind"] for event in events] == ["connect", "message"]
    for event in events:
        assert set(event) == FIELDS and event["connection"] == mine


@pytest.mark.parametrize("arguments, found", [
    (["--route", "two words"], ["two words"]), (["--outcome", "refused"], ["few"]), (["--api", "pets"], []),
    (["--stage", "prod", "--kind", "message"], ["two words", "few", "few", "whoami"]),
])
def test_tail_passes_its_filters_on(livegate, tail, arguments, found):
    routes = {"two words": mock("2"), "few": {**mock("few"), "throttle": {"rate": 0.001, "burst": 1}}}
    gateway = livegate(routes=routes)
    shown = tail(gateway, "--json", *arguments)
    with gateway.connect() as client:
        for action in ("two words", "few", "few", "whoami"):
            client.asks(action=action)
    assert gateway.terminate() == 0
    told = [json.loads(line)["route"] for line in shown.rest()[1:] if '"kind"' in line]
    assert [route for route in told if route in ("two words", "few", "whoami")] == found


def test_tail_of_one_connection(livegate, tail):
    gateway = livegate()
    with gateway.connect() as one, gateway.connect() as other:
        mine = one.whoami()
        # An id may begin with a dash; then it is written behind `=`, or as it is.
        for arguments in (["--connection", mine], [f"--connection={mine}"]):
            shown = tail(gateway, "--json", "--kind", "message", *arguments)
            other.whoami()
            one.whoami()
            assert json.loads(shown.line())["connection"] == mine


@pytest.mark.parametrize("payload", ["\x1b[31mred\x1b[0m", "\x9b2J\x07", "a\r\nb\u202ec"])
def test_nothing_that_clients_write_reaches_the_terminal_as_a_command(livegate, tail, payload):
    gateway = livegate(stage={"data_trace": True}, routes={"$default": mock("x")})
    shown = tail(gateway, "--payload", "--kind", "frame")
    with gateway.connect() as client:
        client.send(payload)
        client.hears()
    lines = [shown.line() for _ in range(4)]
    assert "frame in" in lines[0] and "frame out" in lines[2] and lines[3].strip() == "x"
    # A line feed and nothing else ends a line.
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", "".join(lines)), lines


@pytest.mark.parametrize("arguments, words", [
    (["--kind", "mesage"], ["`mesage`", "`message`"]), (["--outcome", "fine"], ["`fine`", "failed"]),
    (["--sample", "7"], ["`7`"]), (["--nope"], ["--nope"]), (["--kind"], ["--kind"]),
])
def test_wrong_usage_of_tail_is_2(arguments, words):
    asked = run("tail", "--admin", "127.0.0.1:1", *arguments)
    assert asked.returncode == 2, asked
    for word in words:
        assert word in asked.stderr


def test_an_interrupt_ends_tail_well(livegate, tail):
    shown = tail(livegate())
    shown.signal(signal.SIGINT)
    assert shown.exit_code() == 0 and shown.logs() == ""


def test_tail_ends_with_1_when_the_gateway_goes_away(livegate, tail):
    for end in (lambda gateway: gateway.kill(), lambda gateway: gateway.signal(signal.SIGTERM)):
        gateway = livegate(gateway={"drain_timeout": "1s"})
        shown = tail(gateway)
        end(gateway)
        assert shown.exit_code() == 1
        assert gateway.admin_url in shown.logs() and "went away" in shown.logs()


def test_where_no_gateway_is_tail_is_1_and_says_where_it_looked(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    asked = run("tail", "--admin", address)
    assert (asked.returncode, asked.stdout) == (1, "") and address in asked.stderr


def test_tail_shows_a_token(livegate, tail):
    gateway = livegate(gateway={"admin_token": TOKEN})
    without = tail(gateway, watches=False)
    assert without.exit_code() == 1 and "LIVEGATE_ADMIN_TOKEN" in without.logs()
    tail(gateway, "--token", TOKEN)
    tail(gateway, env={"LIVEGATE_ADMIN_TOKEN": TOKEN})


def test_tail_says_when_there_are_too_many(livegate, tail):
    gateway = livegate()
    with contextlib.ExitStack() as tails:
        for _ in range(16):
            tails.enter_context(watching(gateway))
        late = tail(gateway, watches=False)
        assert late.exit_code() == 1 and "503" in late.logs()


def test_whoever_has_seen_enough_gets_no_complaint(livegate):
    gateway = livegate()
    process = subprocess.Popen(
        [LIVEGATE, "tail", "--admin", gateway.admin_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "-- watching\n"
    process.stdout.close()

    def has_ended():
        with gateway.connect() as client:
            client.whoami()
        return process.poll() is not None
    eventually(has_ended)
    assert (process.returncode, process.stderr.read()) == (0, "")
    process.stderr.close()


def test_tail_says_what_it_did_not_show(livegate, tail):
    gateway = livegate()
    shown = tail(gateway, "--kind", "message")

    async def story():
        members = await swarm(gateway, 20)
        for member in members:
            for _ in range(200):
                member.send('{"action":"whoami"}')
        for member in members:
            for _ in range(200):
                await member.hears()
            member.leave()
    asyncio.run(asyncio.wait_for(story(), 60))
    told = dropped = 0
    while told + dropped < 4000:
        line = shown.line()
        if missing := re.match(r"-- (\d+) events? (?:is|are) missing", line):
            dropped += int(missing.group(1))
        else:
            told += 1
    assert told + dropped == 4000 and dropped > 0
