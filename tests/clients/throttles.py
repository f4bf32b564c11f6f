"""Throttles and limits: how much may come through the gateway, to a stage, to a route, to `@connections`, from one
address and from one connection (contract/websocket.md section 9, contract/http-api.md section 10)."""

import asyncio
import json
import re
import time

import pytest

from backend import Answer
from connections_api import UNKNOWN, code_and_status
from http_apis import ask, http_api, is_error, pets, proxy, says, says_its_key
from messages import error_frame
from signing import BACKEND, management
from wire import BINARY, PING, PONG, TEXT, close_frame, frame, handshake
from world import ID, chat, eventually, mock, to, two_way

TOO_MANY = (429, "TooManyRequestsException", '{"message":"Too Many Requests"}')


def bucket(burst, rate=0.001):
    """So many at once, and the next one in a quarter of an hour."""
    return {"rate": rate, "burst": burst}


def statuses(gateway, target, count, method="GET", headers=()):
    return [ask(gateway, method, target, headers).status for _ in range(count)]


def knocks(gateway, count, path="/prod", headers=()):
    return [gateway.knock(path, headers).status for _ in range(count)]


def is_throttled(answer, at_most=1000):
    """A 429 of an HTTP API, that says when to come back."""
    assert is_error(answer, 429, "Too Many Requests")
    assert re.fullmatch(r"[1-9][0-9]*", answer.header("Retry-After")) and int(answer.header("Retry-After")) <= at_most
    return True


def is_frame(text, connection_id, message="Too Many Requests"):
    """The frame of a message that was not let through, byte for byte."""
    found = re.fullmatch(error_frame(message), text)
    assert found and found.group(1) == connection_id, text
    return True


def refusals(gateway, **labels):
    return gateway.metric("livegate_refusals_total", **labels)


# Where throttles stand


def test_the_gateway_has_one_bucket_for_all_kinds_of_calls(livegate):
    gateway = livegate(gateway={"throttle": bucket(5)}, apis={"pets": pets(says_its_key("GET /pets"))})
    with gateway.connect() as client:
        mine = client.whoami()
        assert ask(gateway, "GET", "/pets").status == 200
        assert gateway.push(mine, "hi").status == 200 and client.hears() == "hi"
        assert ask(gateway, "GET", "/pets").status == 200
        # Now it is empty for everybody.
        assert is_frame(client.whoami(), mine)
        assert is_throttled(ask(gateway, "GET", "/pets"))
        assert gateway.knock().error == TOO_MANY
        assert gateway.push(mine).error == (429, "LimitExceededException", "")
    assert refusals(gateway, cause="gateway_throttle") == 4


def test_a_stages_throttle_is_a_bucket_for_each_route(livegate):
    gateway = livegate(http_api(says_its_key("GET /a", "POST /a", "$default"), stages={"one": {"throttle": bucket(2)},
                                                                                       "two": {"throttle": bucket(1)}}))
    assert statuses(gateway, "/one/a", 4) == [200, 200, 429, 429]
    assert statuses(gateway, "/one/a", 3, "POST") == [200, 200, 429]
    assert [statuses(gateway, f"/one/{path}", 1) for path in "xyz"] == [[200], [200], [429]], "one route, `$default`"
    assert statuses(gateway, "/two/a", 2) == [200, 429]
    assert refusals(gateway, cause="route_throttle", stage="one") == 4


def test_a_stages_throttle_is_about_handshakes_and_routes_of_messages(livegate):
    gateway = livegate(stage={"throttle": bucket(2)}, routes={"a": mock("a"), "b": mock("b"), "$default": mock("rest")})
    assert knocks(gateway, 1) == [101]
    with gateway.connect() as client:
        mine = client.whoami()
        assert [client.asks(action="a") for _ in range(2)] == ["a", "a"]
        assert [client.asks(action="b") for _ in range(2)] == ["b", "b"]
        assert [client.asks(action=action) for action in ("x", "y")] == ["rest", "rest"]
        for action in ("a", "b", "z"):
            assert is_frame(client.asks(action=action), mine)
        assert client.whoami() == mine
    assert gateway.knock().error == TOO_MANY


def test_a_routes_throttle_stands_in_place_of_the_stages(livegate):
    gateway = livegate(http_api({"GET /more": {**says("in"), "throttle": bucket(4)}, "GET /less": {
        **says("in"), "throttle": bucket(1)}, "GET /usual": says("in")}, stage={"throttle": bucket(2)}))
    assert statuses(gateway, "/more", 5) == [200] * 4 + [429]
    assert statuses(gateway, "/less", 2) == [200, 429]
    assert statuses(gateway, "/usual", 3) == [200, 200, 429]


def test_a_route_may_be_lifted_out_of_its_stages_throttle(livegate):
    gateway = livegate(http_api({"GET /free": {**says("in"), "throttle": "none"}, "GET /usual": says("in")},
                                stage={"throttle": bucket(1)}))
    assert statuses(gateway, "/free", 5) == [200] * 5 and statuses(gateway, "/usual", 2) == [200, 429]
    without = livegate(stage={"throttle": "none"}, gateway={"throttle": "none"})
    assert knocks(without, 3) == [101, 101, 101]


def test_a_connect_routes_throttle_stands_in_place_of_the_stages(livegate, backend):
    gateway = livegate(routes={"$connect": {**to(backend.at("/connect")), "throttle": bucket(3)}},
                       stage={"throttle": bucket(1)})
    assert knocks(gateway, 5) == [101, 101, 101, 429, 429]
    assert len(backend.seen("/connect")) == 3


def test_without_a_connect_route_handshakes_are_throttled_too(livegate):
    assert knocks(livegate(stage={"throttle": bucket(1)}), 3) == [101, 429, 429]


def test_a_refused_handshake_has_everything_that_aws_sends(livegate):
    gateway = livegate(stage={"throttle": bucket(1)})
    gateway.knock()
    refused = gateway.knock()
    assert refused.error == TOO_MANY and refused.header("Content-Type") == "application/json"
    assert 1 <= int(refused.header("Retry-After")) <= 1000
    assert re.fullmatch(ID, refused.header("x-amzn-RequestId")) and re.fullmatch(ID, refused.header("x-amz-apigw-id"))
    assert gateway.metric("livegate_connects_total", outcome="refused") == 1
    assert refusals(gateway, cause="route_throttle", api="chat", stage="prod") == 1


def test_what_is_throttled_reaches_nobody(livegate, backend):
    gateway = livegate(
        routes={"$connect": backend.at("/connect"), "send": {**two_way(backend.at("/send")), "throttle": bucket(1)}},
        apis={"pets": pets({"POST /pets": {**proxy(backend.at("/pets")), "throttle": bucket(1)}})})
    with gateway.connect() as client:
        client.says(action="send", number=1)
        backend.next("/send")
        assert re.fullmatch(error_frame("Too Many Requests"), client.asks(action="send", number=2))
    assert [ask(gateway, "POST", "/pets", body=body).status for body in ("one", "two")] == [200, 429]
    assert [request.json["number"] for request in backend.seen("/send")] == [1]
    assert [request.text for request in backend.seen("/pets")] == ["one"]


def test_a_one_way_route_is_told_as_well_and_its_connection_stays(livegate, backend):
    gateway = livegate(routes={"send": {**to(backend.at("/send")), "throttle": bucket(1)}})
    with gateway.connect() as client:
        mine = client.whoami()
        client.says(action="send")
        client.says(action="send")
        assert is_frame(client.hears(), mine)
        assert client.whoami() == mine
        assert gateway.metric("livegate_connections_open") == 1
    assert len(backend.wait_for("/send")) == 1


def test_a_disconnect_is_never_throttled(livegate, backend):
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "throttle": bucket(10)}, "$disconnect": backend.at("/bye")},
        stage={"throttle": bucket(1)})
    for _ in range(3):
        gateway.open().reset()
    assert len({request.connection_id for request in backend.wait_for("/bye", 3)}) == 3


def test_a_route_that_carries_sockets_on_is_throttled(livegate, backend):
    backend.answer("/ws", raw=b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    gateway = livegate(http_api({"GET /ws": {**proxy(backend.at("/ws")), "upgrade": True, "throttle": bucket(1)}}))
    assert knocks(gateway, 2, "/ws") == [101, 429]
    assert len(backend.seen("/ws")) == 1


# Rates


@pytest.mark.parametrize("throttle, passed", [
    ({"rate": 0, "burst": 5}, 0), ({"rate": 0}, 0), ({"rate": 0.0001, "burst": 5}, 5), ({"rate": 0.0001}, 1),
    ({"rate": 1e-9, "burst": 3}, 3),
])
def test_a_rate_of_next_to_nothing_lets_its_burst_through_and_no_more(livegate, throttle, passed):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": throttle}}))
    assert statuses(gateway, "/", 8) == [200] * passed + [429] * (8 - passed)


def test_a_rate_of_zero_does_not_say_when_to_come_back(livegate):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": {"rate": 0, "burst": 5}}}))
    answer = ask(gateway, "GET", "/")
    assert is_error(answer, 429, "Too Many Requests") and answer.header("Retry-After") is None


def test_without_a_burst_as_many_come_at_once_as_in_a_second(livegate):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": {"rate": 7}}}))
    began = time.monotonic()
    passed = statuses(gateway, "/", 12).count(200)
    assert 7 <= passed <= 7 + 7 * (time.monotonic() - began) + 1


@pytest.mark.parametrize("rate, burst", [(1, 1), (0.5, 2), (4, 1)])
def test_who_comes_back_when_told_is_let_in(livegate, rate, burst):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": {"rate": rate, "burst": burst}}}))
    assert statuses(gateway, "/", burst) == [200] * burst
    refused = ask(gateway, "GET", "/")
    assert is_throttled(refused, at_most=max(1, round(1 / rate)))
    # Not a moment more than it was told.
    time.sleep(int(refused.header("Retry-After")))
    assert ask(gateway, "GET", "/").status == 200


def test_a_handshake_and_a_push_come_back_when_told(livegate):
    once = {"rate": 1, "burst": 1}
    gateway = livegate(stage={"throttle": once}, connections_api={"authorization": "none", "throttle": once})
    for knock in (gateway.knock, lambda: gateway.push(UNKNOWN)):
        assert knock().status in (101, 410)
        refused = knock()
        assert refused.status == 429
        time.sleep(int(refused.header("Retry-After")))
        assert knock().status in (101, 410)


def test_no_more_comes_through_than_burst_and_rate_allow(livegate):
    rate, burst = 50, 20
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": {"rate": rate, "burst": burst}}}))
    began, passed = time.monotonic(), 0
    while time.monotonic() - began < 1:
        passed += ask(gateway, "GET", "/").status == 200
    elapsed = time.monotonic() - began
    assert burst + rate * 0.7 <= passed <= burst + rate * elapsed + 1


def test_of_300_at_once_the_burst_comes_through(livegate):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": bucket(50)}}))

    async def one():
        reader, writer = await asyncio.open_connection(*gateway.address)
        writer.write(f"GET / HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1])

    async def story():
        return await asyncio.gather(*(one() for _ in range(300)))
    answers = asyncio.run(asyncio.wait_for(story(), 60))
    assert (answers.count(200), answers.count(429)) == (50, 250)
    assert refusals(gateway, cause="route_throttle") == 250


# Pushes


def test_pushes_beyond_their_throttle_are_a_limit_exceeded_exception(livegate):
    gateway = livegate(connections_api={"authorization": "aws_iam", "throttle": bucket(2)}, credentials=BACKEND)
    api = management(f"{gateway.http_url}/prod")
    with gateway.connect() as client:
        mine = client.whoami()
        api.post_to_connection(ConnectionId=mine, Data=b"one")
        assert client.hears() == "one"
        api.get_connection(ConnectionId=mine)
        for call in (lambda: api.post_to_connection(ConnectionId=mine, Data=b"x"),
                     lambda: api.get_connection(ConnectionId=mine), lambda: api.delete_connection(ConnectionId=mine)):
            with pytest.raises(api.exceptions.LimitExceededException) as failed:
                call()
            assert code_and_status(failed) == ("LimitExceededException", 429)
        assert client.whoami() == mine
    assert gateway.metric("livegate_pushes_total", outcome="throttled") == 3
    assert refusals(gateway, cause="push_throttle") == 3


def test_a_refused_push_on_the_wire(livegate):
    gateway = livegate(connections_api={"authorization": "none", "throttle": bucket(1)})
    assert gateway.push(UNKNOWN).status == 410
    refused = gateway.push(UNKNOWN)
    assert refused.error == (429, "LimitExceededException", "")
    assert 1 <= int(refused.header("Retry-After")) <= 1000 and re.fullmatch(ID, refused.header("x-amzn-RequestId"))


def test_who_may_not_push_uses_up_nothing(livegate):
    gateway = livegate(connections_api={"authorization": "aws_iam", "throttle": bucket(1)}, credentials=BACKEND)
    assert [gateway.push(UNKNOWN).status for _ in range(3)] == [403, 403, 403]
    api = management(f"{gateway.http_url}/prod")
    with pytest.raises(api.exceptions.GoneException):
        api.post_to_connection(ConnectionId=UNKNOWN, Data=b"x")


def test_each_stage_has_its_own_bucket_of_pushes(livegate):
    gateway = livegate(stages={"one": {}, "two": {}}, connections_api={"authorization": "none", "throttle": bucket(1)})
    assert [gateway.push(UNKNOWN, stage=stage).status for stage in ("one", "one", "two", "two")] == [410, 429, 410, 429]


# API keys


KEYS = {"usage_plans": {"gold": bucket(2)},
        "api_keys": {name: {"value": f"the-key-of-{name}-0123456789", "usage_plan": "gold"} for name in ("ann", "bob")}}


def key(name):
    return [("x-api-key", f"the-key-of-{name}-0123456789")]


def test_each_key_of_a_plan_has_its_own_bucket_for_all_routes(livegate):
    gateway = livegate(http_api({"GET /a": {**says("in"), "api_key_required": True}, "GET /b": {
        **says("in"), "api_key_required": True}, "GET /open": says("in")}, **KEYS))
    assert [ask(gateway, "GET", path, key("ann")).status for path in ("/a", "/b", "/a", "/b")] == [200, 200, 429, 429]
    assert is_throttled(ask(gateway, "GET", "/a", key("ann")))
    assert statuses(gateway, "/b", 3, headers=key("bob")) == [200, 200, 429]
    assert statuses(gateway, "/open", 3, headers=key("ann")) == [200, 200, 200]
    assert refusals(gateway, cause="usage_plan_throttle") == 4


def test_the_messages_of_a_connection_count_on_its_key(livegate, backend):
    gateway = livegate(routes={"$connect": {**to(backend.at("/connect")), "api_key_required": True}}, **KEYS)
    with gateway.connect(headers=dict(key("ann"))) as client:
        mine = client.whoami()
        assert is_frame(client.whoami(), mine)
        refused = gateway.knock(headers=key("ann"))
        assert refused.error == TOO_MANY and int(refused.header("Retry-After")) >= 1
        assert gateway.knock(headers=key("bob")).status == 101
    assert len(backend.seen("/connect")) == 2


def test_a_preflight_needs_no_key_and_uses_up_nothing(livegate):
    origin = "https://app.example.com"
    gateway = livegate(http_api(
        {"GET /a": {**says("in"), "api_key_required": True, "throttle": bucket(2)}},
        api={"cors": {"allow_origins": [origin], "allow_headers": ["x-api-key"]}}, **KEYS))
    asked = [("Origin", origin), ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "x-api-key")]
    assert [ask(gateway, "OPTIONS", "/a", [*asked, *key("ann")]).status for _ in range(5)] == [204] * 5
    assert statuses(gateway, "/a", 3, headers=key("ann")) == [200, 200, 429]
    assert ask(gateway, "OPTIONS", "/a", asked).status == 204


def test_preflights_and_what_is_not_there_count_for_address_and_gateway(livegate):
    origin = "https://app.example.com"
    asked = [("Origin", origin), ("Access-Control-Request-Method", "GET")]
    for tables in ({"gateway": {"throttle": bucket(2)}}, {"stage": {"limits": {"requests_per_address": bucket(2)}}}):
        gateway = livegate(http_api({"GET /a": says("in")}, api={"cors": {"allow_origins": [origin]}}, **tables))
        assert [ask(gateway, "OPTIONS", "/a", asked).status for _ in range(3)] == [204, 204, 429]
        gateway = livegate(http_api({"GET /a": says("in")}, **tables))
        assert [ask(gateway, "GET", "/nope").status for _ in range(3)] == [404, 404, 429]


def test_a_429_has_its_cors_headers(livegate):
    gateway = livegate(http_api({"GET /a": {**says("in"), "throttle": bucket(1)}},
                                api={"cors": {"allow_origins": ["https://app.example.com"], "allow_credentials": True}}))
    answers = [ask(gateway, "GET", "/a", [("Origin", "https://app.example.com")]) for _ in range(2)]
    assert answers[0].status == 200 and is_throttled(answers[1])
    for answer in answers:
        assert answer.header("Access-Control-Allow-Origin") == "https://app.example.com"
        assert answer.header("Access-Control-Allow-Credentials") == "true"
    assert is_throttled(ask(gateway, "GET", "/a", [("Origin", "https://evil.example")]))


# Limits by address


def test_an_address_may_have_so_many_connections_open(livegate):
    gateway = livegate(stage={"limits": {"connections_per_address": 2}})
    one, _two = gateway.open(), gateway.open()
    refused = gateway.knock()
    assert refused.error == TOO_MANY and int(refused.header("Retry-After")) >= 1
    others = gateway.seen_from("127.0.0.2")
    mine = [others.open(), others.open()]
    assert others.knock().status == 429
    one.reset()
    eventually(lambda: gateway.knock().status == 101, "the place of the connection that is gone")
    for wire in mine:
        wire.reset()
    assert refusals(gateway, cause="address_connections") >= 2


def opened(gateway):
    """A WebSocket, unless the gateway is full."""
    wire = gateway.wire()
    wire.send(handshake("/prod", gateway.host))
    answer = wire.response()
    assert answer.status == 101 or answer.error == TOO_MANY
    return wire if answer.status == 101 else wire.socket.close()


@pytest.mark.parametrize("end", [
    lambda gateway, wire, mine: wire.send(close_frame(1000)), lambda gateway, wire, mine: wire.send(frame(BINARY, b"x")),
    lambda gateway, wire, mine: wire.send(frame(TEXT, "x", reserved=7)), lambda gateway, wire, mine: gateway.delete(mine),
    lambda gateway, wire, mine: wire.reset(),
])
def test_every_end_of_a_connection_gives_its_place_back(livegate, end):
    gateway = livegate(stage={"limits": {"connections_per_address": 1}})
    for _ in range(3):
        with eventually(lambda: opened(gateway), "the place of the one before") as wire:
            wire.says(action="whoami")
            mine = wire.message()
            assert opened(gateway) is None
            end(gateway, wire, mine)


def test_a_handshake_takes_a_place_only_for_as_long_as_it_lasts(livegate, backend):
    backend.answers("/connect", Answer(403), Answer(500), Answer(raw=b""), Answer(200))
    gateway = livegate(routes={"$connect": backend.at("/connect")}, stage={"limits": {"connections_per_address": 1}})
    assert knocks(gateway, 3) == [403, 500, 500]
    with backend.holding("/connect") as hold, gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host))
        backend.wait_for("/connect", 4)
        assert gateway.knock().status == 429
        hold.release()
        assert wire.response().status == 101


def test_each_stage_counts_its_own_connections(livegate):
    gateway = livegate(stages={name: {"limits": {"connections_per_address": 1}} for name in ("one", "two")})
    with gateway.open("/one"), gateway.open("/two"):
        assert [gateway.knock(path).status for path in ("/one", "/two")] == [429, 429]


def test_an_address_may_connect_so_often(livegate):
    gateway = livegate(stage={"limits": {"connects_per_address": bucket(2)}})
    assert knocks(gateway, 4) == [101, 101, 429, 429]
    assert knocks(gateway.seen_from("127.0.0.2"), 3) == [101, 101, 429]
    refused = gateway.knock()
    assert refused.error == TOO_MANY and 1 <= int(refused.header("Retry-After")) <= 1000
    assert refusals(gateway, cause="address_connects") == 4


def test_an_address_may_ask_so_often(livegate):
    gateway = livegate(http_api(says_its_key("GET /a", "GET /b"), stages={
        "one": {"limits": {"requests_per_address": bucket(2)}}, "two": {"limits": {"requests_per_address": bucket(1)}}}))
    assert [ask(gateway, "GET", f"/one/{path}").status for path in "abab"] == [200, 200, 429, 429]
    assert is_throttled(ask(gateway, "GET", "/one/a"))
    assert statuses(gateway.seen_from("127.0.0.2"), "/one/a", 3) == [200, 200, 429]
    assert statuses(gateway, "/two/a", 2) == [200, 429]
    assert refusals(gateway, cause="address_requests") == 5


def test_one_flooding_address_costs_the_others_nothing(livegate):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": bucket(3)}}, gateway={"throttle": bucket(4)},
                                stage={"limits": {"requests_per_address": bucket(1)}}))
    assert statuses(gateway, "/", 20) == [200] + [429] * 19
    assert [ask(gateway.seen_from(f"127.0.0.{number}"), "GET", "/").status for number in (2, 3, 4)] == [200, 200, 429]


PROXIED = {"trusted_proxies": ["127.0.0.1/32"]}


@pytest.mark.parametrize("said, statuses_of", [
    (["203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"], [200, 429, 200, 429]),
    (["6.6.6.6, 203.0.113.1", "7.7.7.7, 203.0.113.1"], [200, 429]),
    (["203.0.113.1", "::ffff:203.0.113.1"], [200, 429]),
    (["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"], [200, 429, 200]),
])
def test_behind_a_proxy_the_address_is_the_clients(livegate, said, statuses_of):
    gateway = livegate(http_api(says_its_key("GET /"), gateway=PROXIED,
                                stage={"limits": {"requests_per_address": bucket(1)}}))
    assert [ask(gateway, "GET", "/", [("X-Forwarded-For", value)]).status for value in said] == statuses_of


def test_a_strangers_forwarded_for_is_no_way_around_a_limit(livegate):
    gateway = livegate(http_api(says_its_key("GET /"), gateway=PROXIED,
                                stage={"limits": {"requests_per_address": bucket(1)}})).seen_from("127.0.0.9")
    assert [ask(gateway, "GET", "/", [("X-Forwarded-For", f"203.0.113.{number}")]).status
            for number in range(3)] == [200, 429, 429]


def test_connections_behind_a_proxy_are_counted_by_client(livegate):
    gateway = livegate(gateway=PROXIED, connections_api={"authorization": "aws_iam"},
                       stage={"limits": {"connections_per_address": 1}})
    ann, bob = [("X-Forwarded-For", "203.0.113.1")], [("X-Forwarded-For", "2001:db8::1")]
    with gateway.open(headers=ann), gateway.open(headers=bob):
        assert gateway.knock(headers=ann).status == 429
        assert gateway.knock(headers=[("X-Forwarded-For", "2001:db8::2")]).status == 429, "the same /64"
        assert gateway.knock(headers=[("X-Forwarded-For", "2001:db8:1::1")]).status == 101


def test_clients_that_speak_ipv6_are_limited_as_well(livegate):
    gateway = livegate(http_api(says_its_key("GET /"), gateway={"listen": "[::1]:0"},
                                stage={"limits": {"requests_per_address": bucket(2)}}))
    gateway.address = ("::1", gateway.port)
    assert statuses(gateway, "/", 3) == [200, 200, 429]


# Limits of a connection


def test_a_connection_may_send_so_many_messages(livegate, backend):
    gateway = livegate(routes={"send": backend.at("/send")}, stage={"limits": {"messages_per_connection": bucket(3)}})
    with gateway.connect() as one, gateway.connect() as other:
        mine, _ = one.whoami(), one.whoami()
        one.says(action="send")
        backend.next("/send")
        for action in ("send", "whoami", "nope"):
            assert is_frame(one.asks(action=action), mine)
        assert re.fullmatch(ID, other.whoami())
        assert gateway.push(mine, "still here").status == 200 and one.hears() == "still here"
    assert len(backend.seen("/send")) == 1
    assert refusals(gateway, cause="connection_messages") == 3


def test_a_connection_may_send_so_many_bytes(livegate, backend):
    gateway = livegate(routes={"send": {**two_way(backend.at("/send"))}},
                       stage={"limits": {"bytes_per_connection": bucket(1000)}})
    backend.answers("/send", lambda request: Answer(body=str(len(request.body))))

    def message(size):
        empty = json.dumps({"action": "send", "pad": ""})
        return json.dumps({"action": "send", "pad": "x" * (size - len(empty))})
    with gateway.connect() as client:
        heard = []
        for size in (600, 401, 399, 2, 5000):
            client.send(message(max(size, 40)) if size > 40 else "{}")
            heard.append(client.hears())
    # 600 and 399 fit; the last byte is too little for `{}`, and 5,000 would never fit.
    assert [text if text.isdigit() else re.fullmatch(error_frame("Too Many Requests"), text) is not None
            for text in heard] == ["600", True, "399", True, True]
    assert refusals(gateway, cause="connection_bytes") == 3


def test_pieces_of_a_message_count_once(livegate):
    gateway = livegate(stage={"limits": {"messages_per_connection": bucket(1)}})
    with gateway.open() as wire:
        whole = b'{"action":"whoami"}'
        wire.send(frame(TEXT, whole[:5], fin=False) + frame(0, whole[5:9], fin=False) + frame(0, whole[9:]))
        assert re.fullmatch(ID, wire.message())
        wire.send(frame(TEXT, whole))
        assert re.fullmatch(error_frame("Too Many Requests"), wire.message())


def test_pings_are_no_messages(livegate):
    gateway = livegate(stage={"limits": {"messages_per_connection": bucket(1), "bytes_per_connection": bucket(100)}})
    with gateway.open() as wire:
        for _ in range(20):
            wire.send(frame(PING, b"x" * 100))
            assert wire.frame().opcode == PONG
        wire.says(action="whoami")
        assert re.fullmatch(ID, wire.message())


def test_a_connection_fills_up_again(livegate):
    gateway = livegate(stage={"limits": {"messages_per_connection": {"rate": 2, "burst": 1}}})
    with gateway.connect() as client:
        mine = client.whoami()
        assert is_frame(client.whoami(), mine)
        eventually(lambda: client.whoami() == mine, "a message to be let through again")


def test_a_flood_of_messages_harms_nobody(livegate):
    gateway = livegate(stage={"limits": {"messages_per_connection": bucket(10)}})
    with gateway.open() as flood, gateway.connect() as other:
        flood.send(frame(TEXT, '{"action":"whoami"}') * 1000)
        heard = [flood.message() for _ in range(1000)]
        assert re.fullmatch(ID, other.whoami())
    assert len([text for text in heard if "Too Many Requests" in text]) == 990


# Reloads


def test_a_reload_changes_the_limits_of_open_sockets(livegate):
    gateway = livegate()
    with gateway.connect() as client:
        mine = client.whoami()
        gateway.reload(chat(stage={"limits": {"messages_per_connection": bucket(1)}}))
        assert client.whoami() == mine
        assert is_frame(client.whoami(), mine)
        gateway.reload(chat(stage={"limits": {"bytes_per_connection": bucket(5)}}))
        assert is_frame(client.whoami(), mine)
        gateway.reload(chat())
        assert client.whoami() == mine


def test_a_reload_counts_the_connections_that_are_open(livegate):
    gateway = livegate()
    with gateway.open(), gateway.open():
        gateway.reload(chat(stage={"limits": {"connections_per_address": 2}}))
        assert gateway.knock().status == 429
        gateway.reload(chat(stage={"limits": {"connections_per_address": 3}}))
        assert gateway.knock().status == 101


def api_with(what, number):
    """An HTTP API in which `what` lets two calls through; its only other route tells one file from another."""
    routes = {"GET /": says("in"), f"GET /other-{number}": says("other")}
    tables = {"stage": {}, "gateway": {}}
    if what == "gateway":
        tables["gateway"] = {"throttle": bucket(2)}
    elif what == "stage":
        tables["stage"] = {"throttle": bucket(2)}
    elif what == "route":
        routes["GET /"]["throttle"] = bucket(2)
    elif what == "address":
        tables["stage"] = {"limits": {"requests_per_address": bucket(2)}}
    else:
        routes["GET /"]["api_key_required"] = True
        tables |= KEYS
    return http_api(routes, **tables)


@pytest.mark.parametrize("what", ["gateway", "stage", "route", "address", "key"])
def test_a_reload_keeps_a_half_empty_bucket(livegate, what):
    gateway = livegate(api_with(what, 1))
    assert ask(gateway, "GET", "/", key("ann")).status == 200
    gateway.reload(api_with(what, 2))
    assert statuses(gateway, "/", 2, headers=key("ann")) == [200, 429]
    gateway.reload(api_with(what, 3))
    assert ask(gateway, "GET", "/", key("ann")).status == 429


def test_a_reload_keeps_the_half_empty_bucket_of_a_connection(livegate):
    gateway = livegate(stage={"limits": {"messages_per_connection": bucket(3)}})
    with gateway.connect() as client:
        mine = client.whoami()
        gateway.reload(chat(stage={"limits": {"messages_per_connection": bucket(3)}}, routes={"other": mock("x")}))
        assert [client.whoami(), client.whoami()] == [mine, mine]
        assert is_frame(client.whoami(), mine)


def test_a_reload_with_another_rate_begins_with_a_full_bucket(livegate):
    def text(burst):
        return http_api({"GET /": {**says("in"), "throttle": bucket(burst)}})
    gateway = livegate(text(2))
    assert statuses(gateway, "/", 3) == [200, 200, 429]
    gateway.reload(text(3))
    assert statuses(gateway, "/", 4) == [200, 200, 200, 429]


def test_a_file_that_is_refused_fills_no_bucket(livegate):
    gateway = livegate(http_api({"GET /": {**says("in"), "throttle": bucket(1)}}))
    assert statuses(gateway, "/", 2) == [200, 429]
    gateway.reload(http_api({"GET /": {**says("in"), "throttle": bucket(5), "authorizer": "nobody"}}))
    assert gateway.metric("livegate_reloads_total", outcome="problems") >= 1
    assert ask(gateway, "GET", "/").status == 429
    gateway.reload(http_api({"GET /": {**says("in"), "throttle": bucket(1)}, "GET /other": says("x")}))
    assert ask(gateway, "GET", "/").status == 429


def test_a_throttle_that_comes_with_a_reload_holds_for_open_sockets(livegate):
    gateway = livegate(routes={"say": mock("hi")})
    with gateway.connect() as client:
        mine = client.whoami()
        gateway.reload(chat(routes={"say": {**mock("hi"), "throttle": bucket(1)}}))
        assert client.asks(action="say") == "hi"
        assert is_frame(client.asks(action="say"), mine)
