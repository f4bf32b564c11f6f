"""What operators ask a running gateway: is it ready, how is it doing, which connections are open, and who may ask all that.
By HTTP on the admin listener, and by `livegate status` in a terminal."""

import asyncio
import contextlib
import datetime
import json
import os
import pty
import re
import signal
import subprocess
import time
import unicodedata
import urllib.parse

import pytest

from authorizers import policy, statement
from backend import Answer
from connections_api import UNKNOWN
from http_apis import ask, pets, says
from pools import pool
from servers import free_port
from swarm import swarm
from wire import Wire
from world import ID, LIVEGATE, Livegate, chat, eventually, http_request, mock, run, to, two_way

TOKEN = "a-token-of-operators-0123456789"
PROBLEMS = '[apis.chat]\nprotocol = "websocket"\nrout_selection = "x"\n'


def look(gateway, path, headers=None, status=200):
    """What the admin listener says, as JSON."""
    answer = http_request(gateway.admin_url, "GET", path, headers=headers)
    assert answer.status == status, (path, answer)
    assert answer.header("Content-Type") == "application/json"
    return answer.json


def act(gateway, path, body, headers=None):
    """An action of an operator."""
    body = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return http_request(gateway.admin_url, "POST", path, body, {"Content-Type": "application/json", **(headers or {})})


def message_of(answer, status):
    """The text of an error."""
    assert answer.status == status, answer
    assert list(answer.json) == ["message"] and answer.json["message"]
    return answer.json["message"]


def path_of(connection_id, action=""):
    return f"/api/connections/{urllib.parse.quote(connection_id, safe='')}{action}"


def with_users(livegate, backend, routes=None, **parts):
    """A gateway whose authorizer believes everybody who they say they are."""
    def believed(request):
        shown = {name.lower(): value for name, value in request.json["headers"].items()}
        return Answer(body=policy(statement(), principal=shown["x-user"]))
    backend.answers("/authorize", believed)
    users = {"type": "http", "uri": backend.at("/authorize"), "identity_source": ["$request.header.X-User"]}
    connect = {**to(backend.at("/connect")), "authorizer": "users"}
    return livegate(routes={"$connect": connect, **(routes or {})}, authorizers={"users": users}, **parts)


def is_near(milliseconds, seconds=60):
    return abs(milliseconds / 1000 - time.time()) < seconds


# Health


def test_a_gateway_says_that_it_is_well(livegate):
    gateway = livegate()
    assert look(gateway, "/healthz") == {"status": "ok"}
    assert look(gateway, "/readyz") == {"status": "ready", "reasons": [], "warnings": []}


def test_a_gateway_that_stops_says_why_it_is_not_ready(livegate):
    gateway = livegate(gateway={"drain_delay": "3s", "drain_timeout": "2s"})
    gateway.signal(signal.SIGTERM)
    eventually(lambda: gateway.admin("/readyz").status == 503)
    told = look(gateway, "/readyz", status=503)
    assert told["status"] == "not_ready" and told["warnings"] == []
    assert [reason["code"] for reason in told["reasons"]] == ["draining"] and told["reasons"][0]["message"]
    assert look(gateway, "/healthz") == {"status": "ok"}
    status = look(gateway, "/api/status")
    assert (status["status"], status["reasons"]) == ("not_ready", told["reasons"])
    assert gateway.exit_code() == 0


def test_after_a_reload_with_problems_it_is_ready_and_warns(livegate):
    gateway = livegate()
    good = gateway.file.read_text()
    gateway.reload(PROBLEMS)
    told = look(gateway, "/readyz")
    assert told["status"] == "ready" and [warning["code"] for warning in told["warnings"]] == ["reload_failed"]
    status = look(gateway, "/api/status")
    assert status["warnings"] == told["warnings"] and status["reload"]["outcome"] == "problems"
    assert "rout_selection" in status["reload"]["report"] and "routes.toml:3:1" in status["reload"]["report"]
    assert status["reload"]["last_good_at"] < status["reload"]["last_attempt_at"]
    gateway.write(good)
    eventually(lambda: look(gateway, "/readyz")["warnings"] == [])
    reload = look(gateway, "/api/status")["reload"]
    assert (reload["outcome"], reload["report"]) == ("ok", None)


# Status


def test_status_has_every_fact(livegate):
    gateway = livegate()
    status = look(gateway, "/api/status")
    assert {
        "version", "status", "reasons", "warnings", "now", "started_at", "read_only", "reload", "listeners",
        "connections", "rates", "latency", "process", "backends", "access_logs", "tracing",
    } <= set(status)
    assert (status["status"], status["read_only"], status["connections"]) == ("ready", False, 0)
    assert status["listeners"] == [gateway.http_url] and status["tracing"] is None
    assert re.fullmatch(r"\d+\.\d+\.\d+", status["version"])
    assert is_near(status["now"], 5) and is_near(status["started_at"]) and status["started_at"] <= status["now"]
    reload = status["reload"]
    assert set(reload) == {"count", "last_good_at", "last_attempt_at", "outcome", "file", "report"}
    assert (reload["outcome"], reload["file"], reload["report"]) == ("ok", "routes.toml", None)
    assert is_near(reload["last_good_at"])
    assert set(status["rates"]) == {"messages_in", "messages_out", "pushes", "requests", "errors"}
    process = status["process"]
    assert set(process) == {
        "cpu_seconds", "cpu_percent", "resident_bytes", "open_files", "max_open_files", "threads", "uptime_seconds",
    }
    assert process["resident_bytes"] > 1 << 20 and process["threads"] > 0 and process["uptime_seconds"] < 60
    assert 0 < process["open_files"] < process["max_open_files"]


def test_status_says_what_happened_in_the_last_seconds(livegate, backend):
    gateway = livegate(routes={"send": two_way(backend.at("/send")), "fail": two_way(backend.at("/fail"))})
    backend.answer("/send", 200, "sent")
    backend.answer("/fail", 500, "failed")
    with gateway.connect() as client:
        mine = client.whoami()

        def busy():
            client.asks(action="send")
            client.asks(action="fail")
            gateway.push(mine, "x")
            client.hears()
            status = look(gateway, "/api/status")
            return all(status["rates"][name] > 0 for name in ("messages_in", "messages_out", "pushes", "errors")) and status
        status = eventually(busy)
        assert status["connections"] == 1 and status["rates"]["requests"] == 0
        latency = status["latency"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] < 5
    assert set(look(gateway, "/api/status")["latency"]) == {"p50", "p95", "p99"}


def test_status_of_backends_and_of_access_logs(livegate, backend, dead_backend, tmp_path):
    parts = pool(backend.authority, dead_backend.authority, health={"path": "/health", "interval": "100ms"})
    log = {"destination": str(tmp_path / "access.log")}
    gateway = livegate(stage={"access_log": log}, **parts)

    def servers():
        found = [one for one in look(gateway, "/api/status")["backends"] if one["name"] == "animals"]
        assert set(found[0]) >= {"name", "servers", "busy", "idle", "waiting"} and found[0]["waiting"] == 0
        return {server["address"]: server["state"] for server in found[0]["servers"]}
    wanted = {backend.authority: "healthy", dead_backend.authority: "ejected"}
    eventually(lambda: servers() == wanted)
    with gateway.connect() as client:
        client.whoami()

    def written():
        logs = look(gateway, "/api/status")["access_logs"]
        assert len(logs) == 1 and "access.log" in logs[0]["destination"]
        assert (logs[0]["dropped"], logs[0]["failed"]) == (0, 0)
        return logs[0]["written"] >= 2
    eventually(written)


# Overview

RANGES = {"5m": (1, 300), "15m": (None, 900), "1h": (None, 3600), "6h": (None, 21_600), "24h": (None, 86_400)}
ERRORS = {"throttled", "denied", "client", "integration", "unreachable", "timeout", "bad_answer", "authorizer", "internal"}


@pytest.mark.parametrize("range", RANGES)
def test_an_overview_has_a_point_for_every_step(livegate, range):
    gateway = livegate()
    overview = look(gateway, f"/api/overview?range={range}")
    step, seconds = RANGES[range]
    assert overview["step"] == (step or overview["step"])
    series = overview["series"]
    assert set(series) == {
        "time", "connections", "messages_in", "messages_out", "pushes", "requests", "p50", "p95", "p99", "errors",
    }
    assert set(series["errors"]) == ERRORS
    times = series["time"]
    assert len(times) * overview["step"] == seconds and 100 <= len(times) <= 1500
    assert all(later - earlier == overview["step"] for earlier, later in zip(times, times[1:]))
    assert times[0] == overview["from"] // 1000 and is_near(times[-1] * 1000, 2 * overview["step"] + 5)
    columns = [*series.values(), *series["errors"].values()]
    assert {len(column) for column in columns if isinstance(column, list)} == {len(times)}
    # It has not run for so long.
    assert series["messages_in"][0] is None and series["connections"][0] is None


def test_an_overview_of_another_range_says_which_there_are(livegate):
    text = message_of(http_request(livegate().admin_url, "GET", "/api/overview?range=7m"), 400)
    assert "`7m`" in text and "24h" in text


def test_an_overview_shows_what_happened(livegate, backend, dead_backend):
    routes = {
        "send": two_way(backend.at("/send")), "few": {**mock("few"), "throttle": {"rate": 0.001, "burst": 1}},
        "dead": two_way(dead_backend.at("/dead")), "ill": two_way(backend.at("/ill")),
    }
    gateway = livegate(routes=routes, apis={"pets": pets({"GET /pets": says("in")})})
    backend.answer("/send", 200, "sent")
    backend.answer("/ill", 500, "ill")
    with gateway.connect() as client:
        mine = client.whoami()
        for action in ("send", "few", "few", "dead", "ill"):
            client.asks(action=action)
        assert gateway.push(mine, "x").status == 200 and client.hears() == "x"
        assert ask(gateway, "GET", "/pets").status == 200

        def happened(series):
            """How much there was in all: a rate for each second of it."""
            return round(sum(rate or 0 for rate in series), 1)

        def all_of_it():
            series = look(gateway, "/api/overview?range=5m")["series"]
            counts = {name: happened(series[name]) for name in ("messages_in", "messages_out", "pushes", "requests")}
            errors = {name: happened(column) for name, column in series["errors"].items() if happened(column)}
            seen = (counts, errors, series["connections"][-1])
            wanted = ({"messages_in": 6, "messages_out": 7, "pushes": 1, "requests": 1},
                      {"throttled": 1, "unreachable": 1, "integration": 1}, 1)
            return series if is_about(seen, wanted) else None
        series = eventually(all_of_it)
        assert any(series["p50"]) and any(series["p99"])
        minutes = look(gateway, "/api/overview?range=24h")["series"]
        assert any(minutes["messages_in"]), "the minute that is running is shown"


def is_about(found, wanted):
    """Rates are of steps that are a little longer or shorter than a second."""
    if isinstance(wanted, dict):
        return set(found) == set(wanted) and all(is_about(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(map(is_about, found, wanted))
    return found is not None and abs(found - wanted) <= 0.3 * wanted


# Routes


def test_routes_have_their_settings_and_their_figures(livegate, backend):
    routes = {
        "send": {**two_way(backend.at("/send")), "throttle": {"rate": 10, "burst": 3}},
        "ill": two_way(backend.at("/ill")), "idle": mock("idle"),
    }
    gateway = with_users(livegate, backend, routes, apis={"pets": pets({"GET /pets/{id}": says("in")})})
    backend.answer("/send", 200, "sent")
    backend.answer("/ill", 500, "ill")
    with gateway.connect(headers={"X-User": "ann"}) as client:
        for action in ("send", "send", "send", "send", "ill"):
            client.asks(action=action)
        assert ask(gateway, "GET", "/pets/7").status == 200
        apis = {api["name"]: api for api in look(gateway, "/api/routes")["apis"]}
        assert {name: api["protocol"] for name, api in apis.items()} == {"chat": "websocket", "pets": "http"}
        [stage] = apis["chat"]["stages"]
        assert (stage["name"], stage["addresses"], stage["connections"], stage["opens"]) == ("prod", ["/prod"], 1, 1)
        assert (stage["closes"], stage["detailed_metrics"]) == ({}, False)
        rows = {route["key"]: route for route in stage["routes"]}
        assert {"$connect", "send", "ill", "idle", "whoami"} <= set(rows)
        assert {
            "key", "integration", "authorizer", "throttle", "calls", "rate", "client_errors", "integration_errors",
            "execution_errors", "throttled", "error_rate", "throttled_rate", "p50", "p95", "p99",
        } <= set(rows["send"])
        send, ill, idle, connect = (rows[key] for key in ("send", "ill", "idle", "$connect"))
        assert (send["calls"], send["throttled"], send["throttle"]) == (4, 1, "10/s, 3")
        assert (ill["calls"], ill["integration_errors"], ill["throttle"]) == (1, 1, None)
        assert (idle["calls"], idle["p50"]) == (0, None)
        assert (connect["calls"], connect["authorizer"]) == (1, "users")
        assert backend.at("/send") in send["integration"] and send["authorizer"] is None
        assert 0 < send["p50"] <= send["p95"] <= send["p99"] < 5
        assert ill["error_rate"] > 0 and send["throttled_rate"] > 0 and send["rate"] > 0
        [pet] = [route for stage in apis["pets"]["stages"] for route in stage["routes"] if route["key"] == "GET /pets/{id}"]
        assert (pet["calls"], pet["client_errors"]) == (1, 0)
    eventually(lambda: closes(gateway) == {"1000": 1})


def closes(gateway):
    return look(gateway, "/api/routes")["apis"][0]["stages"][0]["closes"]


def test_the_figures_of_a_route_outlive_a_reload(livegate):
    gateway = livegate(routes={"say": mock("old")})
    with gateway.connect() as client:
        assert client.asks(action="say") == "old"
        gateway.reload(chat(routes={"say": mock("new")}))
        assert client.asks(action="say") == "new"
    [stage] = look(gateway, "/api/routes")["apis"][0]["stages"]
    assert [route["calls"] for route in stage["routes"] if route["key"] == "say"] == [2]


# Connections

FACTS = {
    "id", "api", "stage", "user", "address", "connected_at", "last_active_at", "last_route", "messages_in", "messages_out",
    "bytes_in", "bytes_out", "outbox_messages", "outbox_bytes", "in_flight", "last_error",
}


def listed(gateway, **query):
    return look(gateway, "/api/connections?" + urllib.parse.urlencode(query))


def ids(page):
    return [one["id"] for one in page["connections"]]


def test_a_connection_as_it_is_listed(livegate, backend):
    gateway = with_users(livegate, backend, {"send": two_way(backend.at("/send"))})
    backend.answer("/send", 200, "answered")
    assert listed(gateway) == {"connections": [], "next": None, "total": 0, "matched": 0}
    with gateway.connect(headers={"X-User": "ann"}) as client:
        mine, asked = client.whoami(), '{"action":"send"}'
        client.send(asked)
        client.hears()
        eventually(lambda: listed(gateway)["connections"][0]["messages_out"] == 2)
        page = listed(gateway)
        assert (page["total"], page["next"], ids(page)) == (1, None, [mine])
        [one] = page["connections"]
        assert FACTS <= set(one) and re.fullmatch(ID, one["id"])
        assert (one["api"], one["stage"], one["user"], one["address"]) == ("chat", "prod", "ann", "127.0.0.1")
        assert is_near(one["connected_at"], 10) and one["connected_at"] <= one["last_active_at"]
        assert (one["last_route"], one["last_error"]) == ("send", None)
        assert (one["messages_in"], one["messages_out"]) == (2, 2)
        assert one["bytes_in"] == len('{"action":"whoami"}') + len(asked)
        assert one["bytes_out"] == len(mine) + len("answered")
        assert (one["outbox_messages"], one["outbox_bytes"], one["in_flight"]) == (0, 0, 0)
    eventually(lambda: listed(gateway)["total"] == 0)


def test_a_connection_remembers_its_last_error_and_what_is_in_flight(livegate, backend, dead_backend):
    gateway = livegate(routes={"dead": two_way(dead_backend.at("/dead")), "send": two_way(backend.at("/send"))})
    with gateway.connect() as client, backend.holding("/send") as hold:
        client.asks(action="dead")
        [one] = listed(gateway)["connections"]
        assert is_near(one["last_error"]["at"], 10) and one["last_error"]["text"]
        client.says(action="send")
        backend.next("/send")
        assert listed(gateway)["connections"][0]["in_flight"] == 1
        hold.release()


def test_a_connection_in_detail(livegate, backend):
    stage = {"outbox": {"bytes": "64KiB", "messages": 77}, "idle_timeout": "90s", "max_duration": "none"}
    gateway = with_users(livegate, backend, stage=stage)
    with gateway.connect(headers={"X-User": "ann"}, user_agent_header="mine/1") as client:
        mine = client.whoami()
        one = look(gateway, path_of(mine))
        assert FACTS | {"user_agent", "domain_name", "callback_url", "identity", "limits"} <= set(one)
        assert (one["id"], one["user"], one["user_agent"]) == (mine, "ann", "mine/1")
        assert one["domain_name"] == gateway.host and gateway.http_url in one["callback_url"]
        assert one["identity"]["authorizer"] and one["identity"]["api_key_id"] is None
        assert one["limits"] == {
            "outbox_bytes": 65_536, "outbox_messages": 77, "idle_timeout_seconds": 90, "max_duration_seconds": None,
        }
    eventually(lambda: http_request(gateway.admin_url, "GET", path_of(mine)).status == 404)


@pytest.mark.parametrize("connection_id", [UNKNOWN, "nope", "%20", "a%2Fb"])
def test_a_connection_that_is_not_there_is_404(livegate, connection_id):
    gateway = livegate()
    path = f"/api/connections/{connection_id}"
    assert message_of(http_request(gateway.admin_url, "GET", path), 404)
    assert message_of(act(gateway, f"{path}/send", {"text": "x"}), 404)
    assert message_of(act(gateway, f"{path}/close", {"code": 1000, "reason": ""}), 404)


@pytest.fixture
def crowd(livegate, backend):
    """A gateway with three users, of whom one came from elsewhere; and their ids."""
    gateway = with_users(livegate, backend, {"send": mock("sent"), "sing": mock("sung")})
    with contextlib.ExitStack() as sockets:
        def join(user, action, source=None):
            socket = sockets.enter_context(gateway.connect(
                headers={"X-User": user}, **({"source_address": (source, 0)} if source else {})))
            mine = socket.whoami()
            socket.asks(action=action)
            return mine
        yield gateway, {"ann": join("ann", "send"), "bob": join("bob", "sing", "127.0.0.2"), "hanna": join("hanna", "sing")}


@pytest.mark.parametrize("query, found", [
    ({}, ["hanna", "bob", "ann"]),
    ({"search": "", "field": "any"}, ["hanna", "bob", "ann"]),
    ({"search": "hanna"}, ["hanna"]), ({"search": "ANN", "field": "user"}, ["hanna", "ann"]),
    ({"search": "bob", "field": "user"}, ["bob"]), ({"search": "bob", "field": "route"}, []),
    ({"search": "127.0.0.2"}, ["bob"]), ({"search": "127.0.0.1", "field": "address"}, ["hanna", "ann"]),
    ({"search": "sing", "field": "route"}, ["hanna", "bob"]), ({"search": "nobody"}, []),
])
def test_connections_are_found_by_what_they_are(crowd, query, found):
    gateway, members = crowd
    page = listed(gateway, **query)
    assert ids(page) == [members[name] for name in found]
    assert page["total"] == 3 and page["matched"] in (len(found), None)


def test_a_connection_is_found_by_its_id_and_by_a_part_of_it(crowd):
    gateway, members = crowd
    assert ids(listed(gateway, search=members["bob"], field="id")) == [members["bob"]]
    assert ids(listed(gateway, search=members["bob"][2:14])) == [members["bob"]]


@pytest.mark.parametrize("query", [
    {"field": "shoe"}, {"limit": "0"}, {"limit": "-1"}, {"limit": "many"}, {"after": "x"}, {"after": "1.x"},
])
def test_a_search_that_makes_no_sense_is_400(livegate, query):
    message_of(http_request(livegate().admin_url, "GET", "/api/connections?" + urllib.parse.urlencode(query)), 400)


def test_hundreds_of_connections_page_by_page(livegate):
    gateway = livegate()

    async def story():
        members = await swarm(gateway, 330)
        for member in members:
            member.send('{"action":"whoami"}')
        mine = [await member.hears() for member in members]
        assert await asyncio.to_thread(page_through, gateway, 50) == set(mine)
        assert await asyncio.to_thread(page_through, gateway, 7) == set(mine)
        for member in members:
            member.leave()
    asyncio.run(asyncio.wait_for(story(), 60))
    eventually(lambda: listed(gateway)["total"] == 0)


def page_through(gateway, limit):
    """Every connection on exactly one page, the newest first, though others come and go meanwhile."""
    found, after, pages = [], {}, 0
    with contextlib.ExitStack() as late:
        while after is not None:
            page = listed(gateway, limit=limit, **after)
            assert page["matched"] in (page["total"], None) and page["total"] == 330 + pages
            assert len(page["connections"]) == limit or page["next"] is None
            found += page["connections"]
            after = {"after": page["next"]} if page["next"] else None
            late.enter_context(gateway.connect()).whoami()
            pages += 1
    eventually(lambda: listed(gateway)["total"] == 330)
    assert [one["connected_at"] for one in found] == sorted((one["connected_at"] for one in found), reverse=True)
    assert len({one["id"] for one in found}) == len(found) == 330
    return {one["id"] for one in found}


# Actions


def test_an_operator_sends_text_and_binary(livegate):
    gateway = livegate(stage={"binary": True})
    with gateway.connect() as client:
        mine = client.whoami()
        sent = act(gateway, path_of(mine, "/send"), {"text": "héllo"})
        assert (sent.status, sent.json) == (200, {}) and client.hears() == "héllo"
        assert act(gateway, path_of(mine, "/send"), {"base64": "AP8="}).status == 200 and client.hears() == b"\x00\xff"


@pytest.mark.parametrize("body", [
    {}, [], {"text": 7}, {"base64": "?"}, {"text": "a", "base64": "AA=="}, "", "text", b"\xff",
])
def test_what_cannot_be_sent_is_400(livegate, body):
    gateway = livegate(stage={"binary": True})
    with gateway.connect() as client:
        mine = client.whoami()
        message_of(act(gateway, path_of(mine, "/send"), body), 400)
        assert client.whoami() == mine, "it has heard nothing else"


def test_a_full_outbox_is_429_for_operators_too(livegate):
    gateway = livegate(stage={"outbox": {"bytes": "64MiB", "messages": 10}, "slow_consumer_timeout": "60s"})
    with gateway.open(receive_buffer=4096) as deaf:
        deaf.says(action="whoami")
        mine = deaf.message()
        path, body = path_of(mine, "/send"), {"text": "x" * 100_000}
        eventually(lambda: act(gateway, path, body).status == 429)
        message_of(act(gateway, path, body), 429)
        one = look(gateway, path_of(mine))
        assert one["outbox_messages"] >= 9 and one["outbox_bytes"] > 800_000


@pytest.mark.parametrize("asked, closed", [
    ({"code": 1000, "reason": ""}, (1000, "")), ({"code": 1008, "reason": "please go"}, (1008, "please go")),
    ({"code": 3000, "reason": "ü" * 61}, (3000, "ü" * 61)), ({"code": 4999, "reason": "x" * 123}, (4999, "x" * 123)),
])
def test_an_operator_closes_with_a_code_and_a_reason(livegate, backend, asked, closed):
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")})
    with gateway.connect() as client:
        mine = client.whoami()
        answer = act(gateway, path_of(mine, "/close"), asked)
        assert (answer.status, answer.json) == (200, {})
        assert client.closed() == closed
    assert backend.next("/disconnect").header("X-Livegate-Disconnect-Code") == str(closed[0])


@pytest.mark.parametrize("asked", [
    {"code": 999}, {"code": 1005}, {"code": 1006}, {"code": 1015}, {"code": 2000}, {"code": 5000}, {"code": "1000"},
    {"code": 1000, "reason": "x" * 124}, {"code": 1000, "reason": 7},
])
def test_a_close_that_may_not_be_sent_is_400(livegate, asked):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()
        message_of(act(gateway, path_of(mine, "/close"), asked), 400)
        assert client.whoami() == mine


def test_what_operators_do_is_logged(livegate):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()
        act(gateway, path_of(mine, "/send"), {"text": "a secret"})
        act(gateway, path_of(mine, "/close"), {"code": 4000, "reason": "enough"})
        assert client.closed() == (4000, "enough")
    eventually(lambda: len([line for line in gateway.logs().splitlines() if mine in line and "operator" in line]) == 2)
    assert "a secret" not in gateway.logs()


# Who may

READS = ["/api/status", "/api/overview?range=5m", "/api/routes", "/api/connections", "/api/tail"]
OPEN = ["/healthz", "/readyz"]


def asked(gateway, path, headers=None, method="GET"):
    """The status of an answer, whose body may go on for ever."""
    parts = urllib.parse.urlsplit(gateway.admin_url)
    with Wire((parts.hostname, parts.port)) as wire:
        lines = {"Host": parts.netloc, "Connection": "close", **(headers or {})}
        body = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        wire.send(f"{method} {path} HTTP/1.1\r\n{body}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += wire.socket.recv(4096)
        return int(head.split()[1])


def shows(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", [*READS, "/metrics", path_of(UNKNOWN)])
def test_with_a_token_everything_but_health_and_the_page_asks_for_it(livegate, path):
    gateway = livegate(gateway={"admin_token": TOKEN})
    for headers in ({}, shows("another"), shows(""), shows(TOKEN + "x"), shows(TOKEN[:-1]), {"Authorization": TOKEN},
                    {"Authorization": f"Basic {TOKEN}"}, {"Cookie": f"token={TOKEN}"}):
        assert asked(gateway, path, headers) == 401, headers
    assert asked(gateway, f"{path}{'&' if '?' in path else '?'}token={TOKEN}") == 401
    assert asked(gateway, path, shows(TOKEN)) in (200, 404)
    assert asked(gateway, path, {**shows(TOKEN), "Host": "gateway.example.com"}) in (200, 404)
    for open_path in (*OPEN, "/"):
        assert asked(gateway, open_path) == 200


def test_a_401_says_how_to_show_the_token(livegate):
    gateway = livegate(gateway={"admin_token": TOKEN})
    answer = http_request(gateway.admin_url, "GET", "/api/status")
    assert "admin_token" in message_of(answer, 401) and TOKEN not in answer.body.decode()
    assert message_of(act(gateway, path_of(UNKNOWN, "/send"), {"text": "x"}), 401)
    assert act(gateway, path_of(UNKNOWN, "/send"), {"text": "x"}, shows(TOKEN)).status == 404


def test_the_token_comes_and_goes_with_the_file(livegate):
    gateway = livegate(gateway={"admin_token": "${env.LIVEGATE_TEST_TOKEN}"}, env={"LIVEGATE_TEST_TOKEN": TOKEN})
    assert asked(gateway, "/api/status", shows(TOKEN)) == 200 and asked(gateway, "/api/status") == 401
    gateway.write(chat())
    eventually(lambda: asked(gateway, "/api/status") == 200)
    assert TOKEN not in gateway.logs()


@pytest.mark.parametrize("path", [*READS, "/"])
@pytest.mark.parametrize("host", ["gateway.example.com", "gateway.example.com:80", "127.0.0.1.example.com", "localhost.evil", None, ""])
def test_without_a_token_only_names_of_this_machine_are_answered_to(livegate, path, host):
    # A name that somebody lets point to 127.0.0.1 makes a page of theirs one of ours.
    assert asked(livegate(), path, {"Host": host}) in (400, 403)


def test_names_of_this_machine(livegate):
    gateway = livegate()
    port = urllib.parse.urlsplit(gateway.admin_url).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", f"[::1]:{port}"):
        for path in READS:
            assert asked(gateway, path, {"Host": host}) == 200, (host, path)
    for path in (*OPEN, "/metrics"):
        assert asked(gateway, path, {"Host": "gateway.example.com"}) == 200


def test_pages_of_other_sites_get_nothing(livegate):
    for gateway, headers in ((livegate(), {}), (livegate(gateway={"admin_token": TOKEN}), shows(TOKEN))):
        host = urllib.parse.urlsplit(gateway.admin_url).netloc
        for path in READS:
            for site in ("cross-site", "same-site"):
                assert asked(gateway, path, {**headers, "Sec-Fetch-Site": site}) == 403, (path, site)
            for site in ("same-origin", "none"):
                assert asked(gateway, path, {**headers, "Sec-Fetch-Site": site}) == 200, (path, site)
            for origin in ("http://evil.example.com", "null", f"http://{host}.evil.example.com", gateway.http_url):
                assert asked(gateway, path, {**headers, "Origin": origin}) == 403, (path, origin)
            assert asked(gateway, path, {**headers, "Origin": f"http://{host}"}) == 200
        for bad in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example.com"}):
            message_of(act(gateway, path_of(UNKNOWN, "/send"), {"text": "x"}, {**headers, **bad}), 403)
        assert act(gateway, path_of(UNKNOWN, "/send"), {"text": "x"}, {**headers, "Origin": f"http://{host}"}).status == 404


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonp"])
def test_no_form_of_a_page_is_an_action(livegate, kind):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()
        answer = act(gateway, path_of(mine, "/send"), {"text": "x"}, {"Content-Type": kind})
        assert answer.status in (403, 415) and answer.json["message"]
        assert client.whoami() == mine


def test_a_charset_makes_no_difference(livegate):
    gateway = livegate()
    with gateway.connect() as client:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        assert act(gateway, path_of(client.whoami(), "/send"), {"text": "x"}, kind).status == 200
        assert client.hears() == "x"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_actions_are_posts(livegate, method):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()
        for action in ("/send", "/close"):
            answer = http_request(gateway.admin_url, method, path_of(mine, action), "{}", {"Content-Type": "application/json"})
            assert answer.status == 405, answer
        assert client.whoami() == mine
    assert http_request(gateway.admin_url, "POST", "/api/status", "{}", {"Content-Type": "application/json"}).status == 405


def test_who_may_only_look_changes_nothing(livegate):
    gateway = livegate(gateway={"admin_read_only": True})
    assert look(gateway, "/api/status")["read_only"] is True
    with gateway.connect() as client:
        mine = client.whoami()
        for action, body in (("/send", {"text": "x"}), ("/close", {"code": 1000, "reason": ""})):
            assert "read-only" in message_of(act(gateway, path_of(mine, action), body), 403)
        assert look(gateway, path_of(mine))["id"] == mine
        assert client.whoami() == mine


def test_no_answer_can_be_framed_scripted_or_kept(livegate):
    gateway = livegate()
    for path in ("/", "/api/status", "/api/nothing", "/nothing"):
        answer = http_request(gateway.admin_url, "GET", path)
        rules = dict(rule.split(" ", 1) for rule in answer.header("Content-Security-Policy").split("; "))
        assert rules == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
            "font-src": "'self'", "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.header("X-Content-Type-Options") == "nosniff" and answer.header("Set-Cookie") is None
        assert answer.header("Access-Control-Allow-Origin") is None
    assert "no-store" in http_request(gateway.admin_url, "GET", "/api/status").header("Cache-Control")


@pytest.mark.parametrize("path", ["/api/nothing", "/api/", "/nothing", "/api/connections/a/b/c"])
def test_what_is_not_there_is_404(livegate, path):
    message_of(http_request(livegate().admin_url, "GET", path), 404)


@pytest.mark.parametrize("path", [*READS, path_of(UNKNOWN, "/send")])
def test_clients_reach_nothing_of_it(livegate, path):
    assert livegate().request("GET", path).status == 404


# `livegate status`


def status_of(gateway, *arguments, **settings):
    return run("status", "--admin", gateway.admin_url, *arguments, **settings)


def columns(line):
    """How wide a line is in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def test_status_in_a_terminal(livegate, backend):
    gateway = livegate(**pool(backend.authority))
    with gateway.connect() as client:
        client.whoami()
        printed = status_of(gateway)
    assert (printed.returncode, printed.stderr) == (0, "")
    first = printed.stdout.splitlines()[0]
    assert first.startswith(f"livegate {look(gateway, '/api/status')['version']}") and first.endswith("ready")
    for words in ("connections", gateway.http_url, "animals", backend.authority, "routes.toml", "messages in", "memory"):
        assert words in printed.stdout, printed.stdout
    assert re.search(r"connections +1$", printed.stdout, re.MULTILINE)
    assert max(map(columns, printed.stdout.splitlines())) <= 80 and "\x1b" not in printed.stdout
    assert not re.search(r" $", printed.stdout, re.MULTILINE)


def test_status_as_json_is_the_answer_of_the_gateway(livegate):
    gateway = livegate()
    printed = status_of(gateway, "--json")
    assert printed.returncode == 0 and printed.stdout.endswith("\n")
    told, seen = json.loads(printed.stdout), look(gateway, "/api/status")
    assert set(told) == set(seen) and told["started_at"] == seen["started_at"]


def test_status_of_a_gateway_that_stops_is_1_with_the_reason(livegate):
    gateway = livegate(gateway={"drain_delay": "4s", "drain_timeout": "2s"})
    gateway.signal(signal.SIGTERM)
    eventually(lambda: gateway.admin("/readyz").status == 503)
    printed = status_of(gateway)
    assert printed.returncode == 1 and "not ready" in printed.stdout and "draining" in printed.stdout, printed
    as_json = status_of(gateway, "--json")
    assert as_json.returncode == 1 and json.loads(as_json.stdout)["status"] == "not_ready"
    assert gateway.exit_code() == 0


def test_status_shows_the_report_of_a_reload_with_problems(livegate):
    gateway = livegate()
    gateway.reload(PROBLEMS)
    printed = status_of(gateway)
    assert printed.returncode == 0, "it serves what it served before"
    for words in ("reload_failed", "routes.toml:3:1", "rout_selection"):
        assert words in printed.stdout, printed.stdout


def test_where_no_gateway_is_status_is_1_and_says_where_it_looked(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    asked = run("status", "--admin", address)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert address in asked.stderr and "admin_listen" in asked.stderr and "refused" in asked.stderr
    assert run("status", "--admin", f"unix:{tmp_path}/none.sock").returncode == 1
    without = run("status", cwd=tmp_path)
    assert without.returncode == 1 and "routes.toml" in without.stderr


def test_the_side_of_the_clients_is_no_admin_listener(livegate):
    asked = run("status", "--admin", livegate().http_url)
    assert asked.returncode == 1 and "404" in asked.stderr and "admin_listen" in asked.stderr


@pytest.mark.parametrize("arguments", [["--nope"], ["--admin"], ["more"]])
def test_wrong_usage_of_status_is_2(arguments):
    assert run("status", *arguments).returncode == 2


@pytest.mark.parametrize("address", ["ftp://127.0.0.1", "http://", "127.0.0.1:0"])
def test_an_address_that_is_none_is_said(address):
    asked = run("status", "--admin", address)
    assert asked.returncode != 0 and f"`{address}`" in asked.stderr


def test_status_finds_the_gateway_of_a_file(livegate):
    address = f"127.0.0.1:{free_port()}"
    gateway = livegate(gateway={"admin_listen": address, "admin_token": TOKEN})
    # In its folder, or by the file's name; with the token of the file, as whoever may read it may.
    assert run("status", cwd=gateway.folder).returncode == 0
    assert run("status", "--config", str(gateway.file)).returncode == 0
    gateway.kill()
    asked = run("status", cwd=gateway.folder)
    assert asked.returncode == 1 and address in asked.stderr


def test_status_shows_a_token(livegate):
    gateway = livegate(gateway={"admin_token": TOKEN})
    without = status_of(gateway)
    assert without.returncode == 1 and "LIVEGATE_ADMIN_TOKEN" in without.stderr and "--token" in without.stderr
    wrong = status_of(gateway, "--token", "another")
    assert wrong.returncode == 1 and "admin_token" in wrong.stderr and "another" not in wrong.stderr
    assert status_of(gateway, "--token", TOKEN).returncode == 0
    assert status_of(gateway, env={"LIVEGATE_ADMIN_TOKEN": TOKEN}).returncode == 0
    assert TOKEN not in run("status", "--help", env={"LIVEGATE_ADMIN_TOKEN": TOKEN}).stdout


def test_status_over_a_unix_socket(processes, tmp_path):
    path = tmp_path / "admin.sock"
    (tmp_path / "routes.toml").write_text(chat(gateway={"admin_listen": f"unix:{path}"}))
    gateway = processes(Livegate, "serve", cwd=tmp_path, logs=tmp_path / "stderr.log")
    while gateway.line() != f"admin listening on unix:{path}":
        pass
    for arguments in ([], ["--admin", f"unix:{path}"], ["--admin", str(path)]):
        printed = run("status", *arguments, cwd=tmp_path)
        assert printed.returncode == 0, printed
    assert gateway.terminate() == 0
    asked = run("status", cwd=tmp_path)
    assert asked.returncode == 1 and str(path) in asked.stderr


def on_a_terminal(*arguments, **env):
    """What a command prints to a terminal."""
    ours, theirs = pty.openpty()
    settings = {name: value for name, value in {**os.environ, "NO_COLOR": None, **env}.items() if value is not None}
    process = subprocess.Popen([LIVEGATE, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=settings)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 4096):
            printed += piece
    os.close(ours)
    assert process.wait(timeout=30) == 0, printed
    return printed.decode()


def test_colours_are_for_terminals_whose_owner_wants_them(livegate):
    gateway = livegate()
    asked = ["status", "--admin", gateway.admin_url]
    assert "\x1b[32mready\x1b[0m" in on_a_terminal(*asked)
    assert "\x1b[32m" in on_a_terminal(*asked, NO_COLOR="")
    assert "\x1b" not in on_a_terminal(*asked, NO_COLOR="1")


def test_whoever_reads_the_first_line_only_gets_no_complaint(livegate):
    gateway = livegate()
    process = subprocess.Popen([LIVEGATE, "status", "--admin", gateway.admin_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    complaint = process.stderr.read()
    assert (process.wait(timeout=30), complaint) == (0, b"")
    process.stderr.close()


def test_times_are_those_of_the_gateway(livegate):
    gateway = livegate()
    printed = status_of(gateway).stdout
    year = datetime.datetime.now(datetime.timezone.utc).year
    assert re.search(rf"^up \d+ s, since ({year - 1}|{year})-\d\d-\d\d \d\d:\d\d:\d\d UTC$", printed, re.MULTILINE), printed
