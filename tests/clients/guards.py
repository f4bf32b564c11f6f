"""What stands around an API besides its authorizers: resource policies, allowed origins, secrets that stay secret, and
what `livegate check` and `livegate routes` say of all of it."""

import json
import re
import subprocess
import time

import jwt
import pytest
from h2.settings import SettingCodes

from authority import Authority
from authorizers import policy, statement
from backend import Answer
from demo import chromium  # noqa: F401 (a fixture)
from http_apis import ask, checked, http_api, is_error, pets, proxy, refused, says
from http_peers import http_2
from messages import error_frame
from signing import KEY_ID, presigned, signed
from world import LIVEGATE, Gateway, chat, eventually, mock, run, to, two_way

FORBIDDEN = (403, "ForbiddenException", '{"message":"Forbidden"}')


class Sockets:
    """A WebSocket API with policies at any level."""

    def __init__(self, livegate, backend):
        self._livegate, self._backend = livegate, backend

    def gateway(self, api=None, stage=None, route=None, gateway=None, **more):
        connect = {**to(self._backend.at("/in")), **at(route), **more.pop("more", {})}
        return self._livegate(
            routes={"$connect": connect}, api=at(api), stage=at(stage), gateway=gateway,
            connections_api={"authorization": "aws_iam"}, **more)

    def knock(self, gateway, *headers):
        return gateway.knock(headers=list(headers))

    def is_in(self, answer):
        return answer.status == 101

    def is_refused(self, answer):
        return answer.error == FORBIDDEN


class Requests:
    """An HTTP API with policies at any level."""

    def __init__(self, livegate, backend):
        self._livegate, self._backend = livegate, backend

    def gateway(self, api=None, stage=None, route=None, gateway=None, **more):
        route = {**proxy(self._backend.at("/in")), **at(route), **more.pop("more", {})}
        return self._livegate(http_api({"GET /pets": route}, api=at(api), stage=at(stage), gateway=gateway, **more))

    def knock(self, gateway, *headers):
        return ask(gateway, "GET", "/pets", headers)

    def is_in(self, answer):
        return answer.status == 200

    def is_refused(self, answer):
        return is_error(answer, 403, "Forbidden")


def at(statements):
    return {"resource_policy": statements} if statements else {}


def allow(**conditions):
    return {"effect": "allow", **conditions}


def deny(**conditions):
    return {"effect": "deny", **conditions}


@pytest.fixture(params=[Sockets, Requests])
def door(request, livegate, backend):
    return request.param(livegate, backend)


# Resource policies

ANN, BOB, NOBODY = ("127.0.0.2", []), ("127.0.0.3", []), ("127.0.0.4", [])


def with_headers(*headers, source="127.0.0.1"):
    return source, list(headers)


@pytest.mark.parametrize("level", ["api", "stage", "route"])
@pytest.mark.parametrize("statements, caller, is_in", [
    ([allow(source_ip=["127.0.0.2"])], ANN, True), ([allow(source_ip=["127.0.0.2"])], BOB, False),
    ([allow(source_ip="127.0.0.2/31")], BOB, True), ([allow(source_ip="127.0.0.2/31")], NOBODY, False),
    ([allow(source_ip=["10.0.0.0/8", "127.0.0.3/32", "2001:db8::/32"])], BOB, True),
    ([deny(source_ip=["127.0.0.2"])], ANN, False), ([deny(source_ip=["127.0.0.2"])], BOB, True),
    ([allow(source_ip="127.0.0.0/8"), deny(source_ip="127.0.0.2")], ANN, False),
    ([deny(source_ip="127.0.0.2"), allow(source_ip="127.0.0.0/8")], ANN, False),
    ([deny(source_ip="127.0.0.2"), allow(source_ip="127.0.0.0/8")], BOB, True),
    ([allow(source_ip="127.0.0.2"), allow(source_ip="127.0.0.3")], BOB, True),
    ([allow()], BOB, True), ([deny()], BOB, False), ([allow(), deny()], BOB, False),
    ([allow(headers={"X-A": ["one"]})], with_headers(("x-a", "one")), True),
    ([allow(headers={"X-A": ["one"]})], with_headers(("X-A", "One")), False),
    ([allow(headers={"X-A": ["one"]})], with_headers(), False),
    ([allow(headers={"x-a": ["one", "tw*"]})], with_headers(("X-A", "twenty")), True),
    ([allow(headers={"X-A": "*"})], with_headers(("X-A", "anything")), True),
    ([allow(headers={"X-A": "*"})], with_headers(), False),
    ([allow(headers={"X-A": "o?e*"})], with_headers(("X-A", "one more")), True),
    ([allow(headers={"X-A": "o?e"})], with_headers(("X-A", "one more")), False),
    ([allow(headers={"X-A": ["one"]})], with_headers(("X-A", "two"), ("X-A", "one")), True),
    ([deny(headers={"X-A": ["one"]})], with_headers(("X-A", "two"), ("X-A", "one")), False),
    ([deny(headers={"User-Agent": ["*bot*"]})], with_headers(("User-Agent", "a robot")), False),
    ([deny(headers={"User-Agent": ["*bot*"]})], with_headers(), True),
    ([allow(headers={"X-A": "a", "X-B": "b"})], with_headers(("X-A", "a"), ("X-B", "b")), True),
    ([allow(headers={"X-A": "a", "X-B": "b"})], with_headers(("X-A", "a"), ("X-B", "a")), False),
    ([allow(source_ip="127.0.0.2", headers={"X-A": "a"})], with_headers(("X-A", "a"), source="127.0.0.2"), True),
    ([allow(source_ip="127.0.0.2", headers={"X-A": "a"})], with_headers(("X-A", "a"), source="127.0.0.3"), False),
    ([allow(source_ip="127.0.0.2", headers={"X-A": "a"})], ANN, False),
])
def test_a_policy_lets_in_or_turns_away(door, backend, level, statements, caller, is_in):
    source, headers = caller
    gateway = door.gateway(**{level: statements}).seen_from(source)
    answer = door.knock(gateway, *headers)
    assert door.is_in(answer) if is_in else door.is_refused(answer)
    assert len(backend.seen("/in")) == is_in
    assert gateway.metric("livegate_refusals_total", cause="resource_policy") == (not is_in)


@pytest.mark.parametrize("levels, source, is_in", [
    ({"api": [allow(source_ip="127.0.0.0/8")], "stage": [allow(source_ip="127.0.0.2/31")],
      "route": [deny(source_ip="127.0.0.3")]}, "127.0.0.2", True),
    ({"api": [allow(source_ip="127.0.0.0/8")], "stage": [allow(source_ip="127.0.0.2/31")],
      "route": [deny(source_ip="127.0.0.3")]}, "127.0.0.3", False),
    ({"api": [allow(source_ip="127.0.0.0/8")], "stage": [allow(source_ip="127.0.0.2/31")]}, "127.0.0.4", False),
    ({"api": [deny(source_ip="127.0.0.2")], "route": [allow(source_ip="127.0.0.2")]}, "127.0.0.2", False),
    ({"stage": [allow(source_ip="127.0.0.2")], "route": [allow(source_ip="127.0.0.3")]}, "127.0.0.3", False),
])
def test_every_level_has_to_let_in(door, levels, source, is_in):
    answer = door.knock(door.gateway(**levels).seen_from(source))
    assert door.is_in(answer) if is_in else door.is_refused(answer)


def test_a_policy_is_the_levels_own(livegate):
    gateway = livegate(http_api(
        {"GET /open": says("open"), "GET /closed": {**says("closed"), **at([deny()])}}, stages={
            "one": {}, "two": at([deny()])}, apis={"more": pets({"GET /open": says("more")}, base_path="/more")}))
    assert [ask(gateway, "GET", path).status for path in ("/one/open", "/one/closed", "/two/open", "/more/open")] == [
        200, 403, 403, 200]


def test_policies_stand_at_the_door_of_an_api_without_a_connect_route(livegate):
    gateway = livegate(api=at([deny(source_ip="127.0.0.2")]), stage=at([deny(source_ip="127.0.0.3")]))
    assert [gateway.seen_from(f"127.0.0.{number}").knock().status for number in (1, 2, 3)] == [101, 403, 403]


def test_behind_a_proxy_the_address_is_the_clients(door):
    gateway = door.gateway([allow(source_ip=["203.0.113.0/24", "2001:db8::/32"])], gateway={
        "trusted_proxies": ["127.0.0.1/32"]})
    for client, is_in in (("203.0.113.7", True), ("::ffff:203.0.113.7", True), ("2001:db8::7", True),
                          ("6.6.6.6", False), ("203.0.113.7, 6.6.6.6", False), ("6.6.6.6, 203.0.113.7", True)):
        answer = door.knock(gateway, ("X-Forwarded-For", client))
        assert door.is_in(answer) if is_in else door.is_refused(answer), client
    assert door.is_refused(door.knock(gateway.seen_from("127.0.0.2"), ("X-Forwarded-For", "203.0.113.7")))
    assert door.is_refused(door.knock(gateway))


def test_addresses_of_ipv6(livegate):
    gateway = livegate(http_api({"GET /": says("in"), "GET /no": {**says("no"), **at([deny(source_ip="::1")])}},
                                api=at([allow(source_ip=["::1/128"])]), gateway={"listen": "[::1]:0"}))
    gateway.address = ("::1", gateway.port)
    assert [ask(gateway, "GET", path).status for path in ("/", "/no")] == [200, 403]


def over_http_2(gateway, path, *headers):
    """The status of a request of curl's."""
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge", gateway.http_url + path]
    written = [part for name, value in headers for part in ("-H", f"{name}: {value}")]
    return int(subprocess.run([*command, *written], capture_output=True, check=True).stdout)


def test_a_policy_holds_over_http_2(livegate):
    """There the host is no header, and it is the host all the same."""
    gateway = livegate(http_api({
        "GET /address": {**says("in"), **at([deny(source_ip="127.0.0.1")])},
        "GET /header": {**says("in"), **at([deny(headers={"X-A": "a*"})])},
        "GET /not-from": {**says("in"), **at([deny(headers={"Host": "127.0.0.1*"})])},
        "GET /from": {**says("in"), **at([allow(headers={"Host": "127.0.0.1*"})])}}))
    for path, status in (("/address", 403), ("/header", 403), ("/not-from", 403), ("/from", 200)):
        assert ask(gateway, "GET", path, [("X-A", "abc")]).status == status, path
        assert over_http_2(gateway, path, ("X-A", "abc")) == status, path


def test_what_names_another_protocol_is_no_request_of_a_route(livegate, backend):
    """RFC 8441: as a CONNECT it would come by every rule about GET."""
    gateway = livegate(http_api({"GET /": {**proxy(backend.at("/in")), **at([deny(source_ip="127.0.0.1")])},
                                 "ANY /{all+}": proxy(backend.at("/in"))}))
    with http_2(gateway) as client:
        client.until(lambda: client.settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1)
        for path in ("/", "/a"):
            stream = client.asks("CONNECT", path, [(":protocol", "foo")], end=False)
            client.until(lambda: stream.headers or stream.reset is not None)
            assert stream.reset is not None or stream.status >= 400, path
    assert backend.seen("/in") == []


FOUND = {"tenant": "acme", "level": 3, "beta": True, "user": {"team": "red"}}


def decided(backend, context, **more):
    backend.answer("/authorize", 200, policy(statement(), context=context))
    return {"more": {"authorizer": "mine"}, "authorizers": {"mine": {"type": "http", "uri": backend.at("/authorize")}},
            **more}


@pytest.mark.parametrize("statements, context, is_in", [
    ([allow(authorizer={"tenant": ["acme"]})], {"tenant": "acme"}, True),
    ([allow(authorizer={"tenant": ["acme"]})], {"tenant": "other"}, False),
    ([allow(authorizer={"tenant": ["acme"]})], {}, False), ([allow(authorizer={"tenant": "a*"})], {"tenant": "acme"}, True),
    ([allow(authorizer={"level": ["3"], "beta": "true"})], {"level": 3, "beta": True}, True),
    ([allow(authorizer={"principalId": "user-4?"})], {}, True),
    ([deny(authorizer={"tenant": "acme"})], {"tenant": "acme"}, False),
    ([deny(authorizer={"tenant": "acme"})], {"tenant": "b"}, True), ([deny(authorizer={"tenant": "*"})], {}, True),
    ([allow(authorizer={"tenant": "acme"}, source_ip="127.0.0.1")], {"tenant": "acme"}, True),
    ([allow(authorizer={"tenant": "acme"}, source_ip="10.0.0.0/8")], {"tenant": "acme"}, False),
    ([allow(source_ip="127.0.0.1"), deny(authorizer={"tenant": "acme"})], {"tenant": "acme"}, False),
])
def test_a_policy_asks_what_the_authorizer_found_out(door, backend, statements, context, is_in):
    for level in ("api", "stage", "route"):
        answer = door.knock(door.gateway(**{level: statements}, **decided(backend, context)))
        assert door.is_in(answer) if is_in else door.is_refused(answer), level


def test_of_a_list_of_groups_any_one_will_do(livegate):
    gateway = livegate(http_api(
        {"GET /": {**says("in"), "authorizer": "tokens", **at([deny(authorizer={"groups": "banned"})])},
         "GET /rule": {**says("in"), "authorizer": "tokens", **at([allow(authorizer={"groups": "admin"})])}},
        authorizers={"tokens": {"type": "jwt", "secret": SECRETS["jwt"]}}))
    for groups, status, rule in ((["user"], 200, 403), (["user", "banned"], 403, 403), (["user", "admin"], 200, 200),
                                 ("banned", 403, 403), ([], 200, 403)):
        shown = [("Authorization", f"Bearer {token(groups=groups)}")]
        assert [ask(gateway, "GET", path, shown).status for path in ("/", "/rule")] == [status, rule], groups


def test_a_policy_reaches_into_a_nested_context(livegate, backend):
    door = Requests(livegate, backend)
    for team, is_in in (("red", True), ("blue", False)):
        answer = door.knock(door.gateway([allow(authorizer={"user.team": team})], **decided(backend, FOUND)))
        assert door.is_in(answer) if is_in else door.is_refused(answer)


@pytest.mark.parametrize("statements, is_asked", [
    ([deny(source_ip="127.0.0.1")], False), ([allow(source_ip="10.0.0.0/8")], False), ([deny(headers={"X-A": "*"})], False),
    ([deny(source_ip="127.0.0.1"), allow(authorizer={"tenant": "acme"})], False),
    ([deny(authorizer={"tenant": "acme"}, source_ip="10.0.0.0/8"), deny()], False),
    ([allow(authorizer={"tenant": "acme"}, source_ip="10.0.0.0/8")], False), ([deny(authorizer={"tenant": "acme"})], True),
    ([allow(authorizer={"tenant": "b"})], True),
])
def test_who_is_refused_in_any_case_costs_no_call_of_the_authorizer(door, backend, statements, is_asked):
    gateway = door.gateway(stage=statements, **decided(backend, FOUND if isinstance(door, Requests) else {"tenant": "acme"}))
    assert door.is_refused(door.knock(gateway, ("X-A", "1")))
    assert len(backend.seen("/authorize")) == is_asked and backend.seen("/in") == []


def test_a_policy_comes_before_the_api_key_is_counted(livegate):
    gateway = livegate(http_api(
        {"GET /": {**says("in"), "api_key_required": True, **at([deny(source_ip="127.0.0.2")])}},
        usage_plans={"gold": {"quota": {"limit": 1, "period": "month"}}},
        api_keys={"acme": {"value": "the-key-of-acme-0123456789", "usage_plan": "gold"}}))
    key = [("x-api-key", "the-key-of-acme-0123456789")]
    assert [ask(gateway.seen_from("127.0.0.2"), "GET", "/", key).status for _ in range(3)] == [403, 403, 403]
    assert [ask(gateway, "GET", "/", key).status for _ in range(2)] == [200, 429]


def test_a_message_route_has_a_policy_of_its_own(livegate, backend):
    gateway = livegate(routes={
        "all": mock("all"), "ann": {**two_way(backend.at("/ann")), **at([allow(source_ip="127.0.0.2")])},
        "others": {**mock("others"), **at([deny(source_ip="127.0.0.2")])}})
    with gateway.seen_from("127.0.0.2").open() as ann, gateway.open() as other:
        for wire, allowed, not_allowed in ((ann, ["all"], "others"), (other, ["all", "others"], "ann")):
            wire.says(action="whoami")
            mine = wire.message()
            for action in allowed:
                wire.says(action=action)
                assert wire.message() == action
            wire.says(action=not_allowed)
            found = re.fullmatch(error_frame("Forbidden"), wire.message())
            assert found and found.group(1) == mine
    assert backend.seen("/ann") == []
    assert gateway.metric("livegate_refusals_total", cause="resource_policy", api="chat") == 2


def test_a_message_route_asks_what_the_authorizer_of_connect_found_out(livegate, backend):
    backend.answers("/authorize", *(Answer(body=policy(statement(), context={"role": role})) for role in ("admin", "guest")))
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"},
                "rule": {**mock("ruled"), **at([allow(authorizer={"role": "admin"})])}},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    with gateway.connect() as admin, gateway.connect() as guest:
        assert admin.asks(action="rule") == "ruled"
        assert re.fullmatch(error_frame("Forbidden"), guest.asks(action="rule"))
        assert re.fullmatch(r".{16}", guest.whoami())


def test_policies_of_api_and_stage_are_asked_once_for_a_connection(livegate):
    """Messages have no headers that could be asked about."""
    gateway = livegate(api=at([allow(headers={"X-A": "a"})]), stage=at([deny(headers={"X-B": "b"})]))
    with gateway.connect(headers={"X-A": "a"}) as client:
        assert re.fullmatch(r".{16}", client.whoami())
    assert gateway.knock().status == 403


def test_a_reload_changes_policies_also_for_open_sockets(livegate):
    gateway = livegate(routes={"say": mock("hi")})
    with gateway.connect() as client:
        assert client.asks(action="say") == "hi"
        gateway.reload(chat(routes={"say": {**mock("hi"), **at([deny()])}}, stage=at([deny(source_ip="127.0.0.0/8")])))
        assert re.fullmatch(error_frame("Forbidden"), client.asks(action="say"))
        assert re.fullmatch(r".{16}", client.whoami())
        assert gateway.knock().error == FORBIDDEN


def test_a_refusal_of_a_policy_has_its_cors_headers_and_preflights_are_answered(livegate):
    origin = "https://app.example.com"
    gateway = livegate(http_api({"GET /": {**says("in"), **at([deny()])}}, api={"cors": {
        "allow_origins": [origin], "allow_methods": ["GET"]}}))
    refusal = ask(gateway, "GET", "/", [("Origin", origin)])
    assert refusal.status == 403 and refusal.header("Access-Control-Allow-Origin") == origin
    asked = ask(gateway, "OPTIONS", "/", [("Origin", origin), ("Access-Control-Request-Method", "GET")])
    assert asked.status == 204


# Origins

APP, EVIL, COOKIE = "https://app.example.com", "https://evil.example", ("Cookie", "sid=1")


@pytest.mark.parametrize("allowed, origin, is_in", [
    ([APP], APP, True), ([APP], APP + ":443", True), ([APP], EVIL, False), ([APP], "http://app.example.com", False),
    ([APP], APP + ":8443", False), ([APP], "https://app.example.com.evil.example", False), ([APP], "null", False),
    ([APP], "", False), ([APP], "HTTPS://App.Example.com", True), ([APP, EVIL], EVIL, True), ([APP], None, True),
    (["https://*.example.com"], APP, True), (["https://*.example.com"], "https://a.b.example.com", True),
    (["https://*.example.com"], "https://example.com", False), (["https://*.example.com"], "https://evilexample.com", False),
    (["http://localhost:*"], "http://localhost:5173", True), (["http://localhost:*"], "https://localhost", False),
    (["*"], EVIL, True), (["*"], "null", True), ([], APP, False), ([], None, True),
])
def test_a_list_of_origins_lets_in_whom_it_names(livegate, backend, allowed, origin, is_in):
    gateway = livegate(routes={"$connect": backend.at("/connect")}, stage={"allowed_origins": allowed})
    for cookies in ([], [COOKIE]):
        answer = gateway.knock(headers=[("Origin", origin)] * (origin is not None) + cookies)
        assert answer.status == (101 if is_in else 403)
        assert is_in or answer.error[:2] == (403, "ForbiddenException")
    assert len(backend.seen("/connect")) == 2 * is_in
    assert gateway.metric("livegate_refusals_total", cause="origin") == (0 if is_in else 2)


def test_the_gateways_own_pages_need_no_place_in_the_list_without_one(livegate):
    gateway = livegate()
    own, other_port = f"http://{gateway.host}", "http://127.0.0.1:1"
    for headers, status in [
        ([], 101), ([COOKIE], 101), ([("Origin", EVIL)], 101), ([("Origin", "null")], 101),
        ([("Origin", own), COOKIE], 101), ([("Origin", EVIL), COOKIE], 403), ([("Origin", "null"), COOKIE], 403),
        ([("Origin", other_port), COOKIE], 403), ([("Origin", ""), COOKIE], 403), ([("Origin", own + ".evil"), COOKIE], 403),
        ([("Origin", own), ("Origin", EVIL)], 403),
    ]:
        assert gateway.knock(headers=headers).status == status, headers


@pytest.mark.parametrize("trusted, status", [(["127.0.0.0/8"], 101), ([], 403)])
def test_behind_a_proxy_the_host_is_the_one_that_the_browser_asked_for(livegate, trusted, status):
    gateway = livegate(gateway={"trusted_proxies": trusted}, connections_api={"authorization": "aws_iam"})
    headers = [("Origin", APP), COOKIE, ("X-Forwarded-Host", "app.example.com"), ("X-Forwarded-For", "203.0.113.9")]
    assert gateway.knock(headers=headers).status == status


def test_the_text_of_a_refusal_says_what_would_do(livegate):
    listed, usual = livegate(stage={"allowed_origins": [APP]}), livegate()
    for gateway, headers, text in [
        (listed, [("Origin", EVIL)],
         f"origin `{EVIL}` is not one of the stage's; add it to allowed_origins of the stage"),
        (listed, [("Origin", "null")],
         "origin `null` is not one of the stage's; only `*` in allowed_origins of the stage lets it pass"),
        (usual, [("Origin", EVIL), COOKIE],
         f"origin `{EVIL}` is another site than `{usual.host}`, and the request speaks for its user "
         "(cookies, a login or a certificate); add it to allowed_origins of"
         " the stage"),
        (usual, [("Origin", EVIL), ("Origin", APP)], "the request has several Origin headers; send one"),
    ]:
        answer = gateway.knock(headers=headers)
        assert answer.json == {"message": text} and answer.header("x-amzn-ErrorType") == "ForbiddenException"
        assert answer.header("x-amzn-RequestId") and answer.header("Content-Type") == "application/json"


def test_a_strange_origin_is_shown_harmlessly(livegate):
    answer = livegate(stage={"allowed_origins": [APP]}).knock(headers=[("Origin", 'https://a"\\<b>é' + "x" * 500)])
    assert answer.status == 403 and len(answer.json["message"]) < 400
    assert answer.json["message"].startswith(r"origin `https://a\"\\<b>\xe9x")


def test_origins_come_before_everything_else(livegate, backend):
    gateway = livegate(routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"}},
                       stage={"allowed_origins": [APP], "throttle": {"rate": 0.001, "burst": 1}},
                       authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    backend.answer("/authorize", 200, policy(statement()))
    assert [gateway.knock(headers=[("Origin", origin)]).status for origin in (EVIL, EVIL, APP, APP)] == [403, 403, 101, 429]
    assert len(backend.seen("/authorize")) == 1


def test_a_reload_changes_the_origins(livegate):
    gateway = livegate(stage={"allowed_origins": [APP]})
    gateway.reload(chat(stage={"allowed_origins": [EVIL]}))
    assert [gateway.knock(headers=[("Origin", origin)]).status for origin in (APP, EVIL)] == [403, 101]


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_origins_hold_for_sockets_that_are_carried_on(livegate, backend):
    backend.answer("/ws", raw=SWITCH)
    gateway = livegate(http_api({"GET /ws": {**proxy(backend.at("/ws")), "upgrade": True}, "GET /pets": says("pets")},
                                stage={"allowed_origins": [APP]}))
    answer = gateway.knock("/ws", [("Origin", EVIL)])
    assert answer.status == 403 and answer.header("apigw-requestid")
    assert answer.json == {"message": f"origin `{EVIL}` is not one of the stage's; add it to allowed_origins of the stage"}
    assert backend.seen("/ws") == []
    assert [gateway.knock("/ws", [("Origin", origin)]).status for origin in (APP, )] == [101]
    # Of requests that answer, CORS speaks.
    assert ask(gateway, "GET", "/pets", [("Origin", EVIL)]).status == 200


def test_sockets_that_are_carried_on_are_asked_about_cookies_as_well(livegate, backend):
    backend.answer("/ws", raw=SWITCH)
    gateway = livegate(http_api({"GET /ws": {**proxy(backend.at("/ws")), "upgrade": True}}))
    for headers, status in [([("Origin", EVIL), COOKIE], 403), ([("Origin", EVIL)], 101),
                            ([("Origin", f"http://{gateway.host}"), COOKIE], 101), ([COOKIE], 101)]:
        assert gateway.knock("/ws", headers).status == status, headers


OPENS = """url => new Promise(done => {
    const socket = new WebSocket(url)
    socket.onopen = () => { socket.close(); done("opened") }
    socket.onerror = () => done("refused")
})"""


@pytest.fixture
def page(chromium, backend):  # noqa: F811
    """A page of another origin than the gateway's, in a browser profile of its own."""
    backend.answer("/page", 200, "<!doctype html><title>elsewhere</title>", {"Content-Type": "text/html"})
    context = chromium.new_context()
    page = context.new_page()
    page.goto(backend.at("/page"))
    yield page
    context.close()


@pytest.mark.parametrize("allowed, has_cookie, outcome", [
    (None, False, "opened"), (None, True, "refused"), (["the page's"], True, "opened"), (["the page's"], False, "opened"),
    ([APP], False, "refused"), (["http://127.0.0.1:*"], True, "opened"), (["http://localhost:*"], True, "refused"),
    (["*"], True, "opened"),
])
def test_a_browsers_page_of_another_origin(livegate, backend, page, allowed, has_cookie, outcome):
    written = [f"http://{backend.authority}" if one == "the page's" else one for one in allowed or []]
    gateway = livegate(stage={"allowed_origins": written} if allowed else {})
    if has_cookie:
        page.context.add_cookies([{"name": "sid", "value": "1", "url": "http://127.0.0.1/"}])
    assert page.evaluate(OPENS, f"{gateway.ws_url}/prod") == outcome
    assert gateway.metric("livegate_refusals_total", cause="origin") == (outcome == "refused")


def test_a_browsers_page_of_the_gateway_itself(livegate, backend, page):
    gateway = livegate(apis={"pages": pets({"GET /page": backend.at("/page")})})
    page.context.add_cookies([{"name": "sid", "value": "1", "url": "http://127.0.0.1/"}])
    page.goto(f"{gateway.http_url}/page")
    assert page.evaluate(OPENS, f"{gateway.ws_url}/prod") == "opened"


# Secrets

SECRETS = {name: f"SECRET-{name}-of-the-file-0123456789-abcdefgh" for name in ("signing", "session", "bearer", "jwt", "key")}


def full_of_secrets(backend):
    """A file with every kind of secret in it."""
    at_connect = {**to(backend.at("/connect")), "api_key_required": True, "authorizer": "tokens"}
    asked = {**proxy(backend.at("/in")), "api_key_required": True, "authorizer": "asks"}
    return chat(
        routes={"$connect": at_connect, "send": backend.at("/send"), "renew": {**mock("new"), "refreshes_authorization": True}},
        connections_api={"authorization": "bearer"},
        apis={"pets": pets({
            "GET /token": {**proxy(backend.at("/in")), "authorizer": "tokens"}, "GET /asks": asked,
            "GET /signed": {**proxy(backend.at("/in")), "authorizer": "aws_iam"}, "POST /event": proxy(
                backend.at("/event"), payload="event"), "GET /dead": proxy("http://127.0.0.1:9/"),
        })},
        authorizers={
            "tokens": {"type": "jwt", "secret": SECRETS["jwt"], "identity_source": [
                "$request.header.Authorization", "$request.querystring.token"]},
            "asks": {"type": "http", "uri": backend.at("/authorize"), "ttl": "5m",
                     "identity_source": ["$request.header.Authorization"]},
        },
        usage_plans={"gold": {"quota": {"limit": 5, "period": "month"}}},
        api_keys={"acme": {"value": SECRETS["key"], "usage_plan": "gold"}},
        credentials={
            "signs": {"access_key_id": KEY_ID, "secret_access_key": SECRETS["signing"], "session_token": SECRETS["session"],
                      "allow": ["execute-api:Invoke pets/*"]},
            "shows": {"bearer_token": SECRETS["bearer"], "allow": ["execute-api:ManageConnections chat/*"]},
        })


def token(secret=SECRETS["jwt"], **claims):
    return jwt.encode({"sub": "SECRET-subject", "exp": int(time.time()) + 600, **claims}, secret, "HS256")


def a_days_work(gateway, backend):
    """Calls of all kinds, good and bad; gives back all that was answered, and the secrets that callers showed."""
    good, bad, expired = token(), token("another secret, as long as it has to be"), token(exp=5)
    shown = [good, bad, expired, "SECRET-header", "SECRET-query", "SECRET-cookie", "SECRET-unknown-key", "SECRET-body",
             "SECRET-bearer-of-nobody", "SECRET-context"]
    backend.answer("/authorize", 200, policy(statement(), context={"a": "SECRET-context"}))
    backend.answer("/event", 200, '{"statusCode":200,"body":5}')
    answers = []
    for key in (SECRETS["key"], "SECRET-unknown-key"):
        for bearer in (good, bad, expired):
            headers = [("Authorization", f"Bearer {bearer}"), ("x-api-key", key), ("Cookie", "sid=SECRET-cookie")]
            answers += [gateway.knock("/prod?q=SECRET-query", headers), ask(gateway, "GET", "/token?q=SECRET-query", headers)]
            answers.append(ask(gateway, "GET", f"/token?token={bearer}", headers[1:]))
        for header in ("SECRET-header", ""):
            answers.append(ask(gateway, "GET", "/asks", [("Authorization", header), ("x-api-key", key)]))
    url = f"{gateway.http_url}/signed"
    for secret in (SECRETS["signing"], "another"):
        headers = signed("GET", url, secret=secret, headers={"X-Amz-Security-Token": SECRETS["session"]})
        shown.append(headers["Authorization"].rsplit("Signature=")[1])
        answers.append(ask(gateway, "GET", "/signed", headers.items()))
    answers.append(ask(gateway, "GET", presigned("GET", url).removeprefix(gateway.http_url)))
    for path in ("/event?q=SECRET-query", "/nowhere?q=SECRET-query"):
        answers.append(ask(gateway, "POST", path, [("Cookie", "sid=SECRET-cookie")], "SECRET-body"))
    answers.append(ask(gateway, "GET", "/dead?q=SECRET-query", [("Authorization", "SECRET-header")]))
    for bearer in (SECRETS["bearer"], "SECRET-bearer-of-nobody"):
        pushing = {"Authorization": f"Bearer {bearer}"}
        answers.append(gateway.request("POST", "/prod/@connections/zeYsWoCdtIv4VN8=", b"x", pushing))
    curl = ["curl", "-s", "--http2-prior-knowledge", "-H", f"authorization: Bearer {bad}", "-H", f"x-api-key: {SECRETS['key']}"]
    answers.append(subprocess.run([*curl, f"{gateway.http_url}/asks?q=SECRET-query"], capture_output=True, check=True).stdout)
    return answers, shown


def is_clean(text, *more):
    for secret in [*SECRETS.values(), *more]:
        at = text.find(secret)
        assert at < 0, text[max(0, at - 300):at + 100]
    return True


@pytest.fixture(params=["text", "json"])
def talkative(request, processes, tmp_path, backend):
    """A gateway full of secrets that logs all it can; its log lies apart from the folder that it watches."""
    (tmp_path / "logs").mkdir()
    return processes(Gateway, full_of_secrets(backend), tmp_path / "served" / "here", logs=tmp_path / "logs" / "log",
                     command=(LIVEGATE, "--log", "trace", "--log-format", request.param))


def test_no_log_metric_or_answer_shows_a_secret(talkative, backend):
    answers, shown = a_days_work(talkative, backend)
    talkative.reload(full_of_secrets(backend).replace("[usage_plans]", "[usage_planz]"))
    metrics = talkative.admin("/metrics").body.decode()
    assert talkative.terminate() == 0
    assert {401, 403, 404, 500, 503} <= {answer.status for answer in answers if not isinstance(answer, bytes)}
    assert len(talkative.logs()) > 20_000, "it did log"
    assert is_clean(talkative.logs(), *shown) and is_clean(metrics, *shown, "SECRET")
    assert is_clean(str(answers), *shown, "SECRET")


def test_no_log_shows_what_a_message_or_a_push_says(talkative):
    fresh, stale = token(), token(exp=5)
    headers = {"Authorization": f"Bearer {token()}", "x-api-key": SECRETS["key"]}
    with talkative.connect(headers=headers) as client:
        mine = client.whoami()
        client.says(action="send", text="SECRET-message")
        assert client.asks(action="renew", token=fresh) == "new"
        assert re.fullmatch(error_frame("Unauthorized"), client.asks(action="renew", token=stale))
        pushing = {"Authorization": f"Bearer {SECRETS['bearer']}"}
        pushed = talkative.request("POST", f"/prod/@connections/{mine}", b"SECRET-push", pushing)
        assert pushed.status == 200 and client.hears() == "SECRET-push"
    assert talkative.terminate() == 0
    assert is_clean(talkative.logs(), fresh, stale, "SECRET-message", "SECRET-push")


@pytest.mark.parametrize("answer", [
    '"SECRET-answer"', '{"principalId":["SECRET-answer"]}',
    policy(statement(), usageIdentifierKey=["SECRET-answer"]), policy(statement(), usageIdentifierKey=4711004711),
    policy(statement(), context="SECRET-answer"), policy(statement(), context={"a": ["SECRET-answer"]}),
    policy(statement(), principal={"name": "SECRET-answer"}), "SECRET-answer",
])
def test_no_log_shows_what_an_authorizer_or_a_backend_answered(livegate, backend, answer):
    """A failed call is worth a warning, and its text is the gateway's own."""
    backend.answer("/authorize", 200, answer)
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"}},
        apis={"pets": pets({"GET /pets": {**says("in"), "authorizer": "mine"}})},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    assert gateway.knock().status == 500
    eventually(lambda: "AUTHORIZER_FAILURE" in gateway.logs())
    assert is_clean(gateway.logs(), "SECRET", "4711004711")


@pytest.mark.parametrize("answer", ['{"statusCode":"SECRET-answer"}', '{"statusCode":200,"headers":"SECRET-answer"}',
                                    '{"statusCode":200,"headers":{"X-A":"SECRET-answer\\n"}}'])
def test_no_log_shows_what_a_function_answered(livegate, backend, answer):
    backend.answer("/function", 200, answer)
    gateway = livegate(http_api({"GET /pets": proxy(backend.at("/function"), payload="event")}))
    assert ask(gateway, "GET", "/pets").status == 500
    eventually(lambda: "INTEGRATION_FAILURE" in gateway.logs())
    assert is_clean(gateway.logs(), "SECRET")


def test_a_log_beside_the_file_does_not_feed_on_itself(processes):
    """The folder is watched for changes of the file, and a log in it changes with every line."""
    try:
        # Beyond this size the process is ended, before the disk is full.
        gateway = processes(Gateway, http_api({"GET /": says("in")}), processes.folder(),
                            command=("prlimit", "--fsize=3000000", LIVEGATE, "--log", "trace"))
    except AssertionError as ended:
        raise AssertionError(str(ended)[:200]) from None
    assert [ask(gateway, "GET", "/").status for _ in range(30)] == [200] * 30
    gateway.reload(http_api({"GET /": says("in"), "GET /other": says("other")}))
    assert gateway.terminate() == 0


def test_no_command_shows_a_secret(tmp_path, backend):
    (tmp_path / "routes.toml").write_text(full_of_secrets(backend))
    for command in (["check"], ["routes"], ["usage"], ["usage", "--format", "json"], ["schema"]):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0 and is_clean(done.stdout + done.stderr), command


S = "SECRETSECRETSECRET"


@pytest.mark.parametrize("written", [
    f'[api_keys.a]\nvalue = "{S}"\nusage_plan = 3', f'[api_keys]\na = {{ value = "{S}", usage_plan = "nope", x = 1 }}',
    f'[api_keys.a]\nvalue = ["{S}"]', f'[api_keys.a]\nvalue = "{S}', f"[api_keys.a]\nvalue = '{S}\n",
    f'[api_keys.a]\nvalue = "{S}"\nvalue = "{S}"', f'[api_keys.a]\nvalue = "{S}"\n[api_keys.b]\nvalue = "{S}"',
    f'[api_keys.a]\nvalue = "{S}" garbage', f'[api_keys.a]\nvalue = "{S}"\nsha256 = "aa"',
    f'api_keys.a.value = "{S}"\napi_keys.a.nope = 1', f'[credentials.a]\nsecret_access_key = "{S}"',
    f'[credentials.a]\nsecret_acces_key = "{S}"', f'[credentials.a]\nbearer_token = "{S} {S}"\nnope = 1',
    f'[authorizers.a]\ntype = "jwt"\nsecret = "{S}"', f'[authorizers.a]\ntype = "http"\nuri = "http://x/"\nsecret = "{S}"',
    # A slip in the key's name, a table left out, quotes left out, the key in place of its digest, several lines.
    f'[api_keys.a]\nvale = "{S}"', f'[credentials.a]\nsecrt_access_key = "{S}"', f'[api_keys]\na = "{S}"',
    f'[credentials]\na = "{S}"', f"[api_keys.a]\nvalue = {S}", f'[api_keys.a]\nsha256 = "{S}"',
    f'[api_keys.a]\nvalue = """\n{S}\\q"""', f'[api_keys.a]\nvalue = """{S}',
    f'[authorizers.a]\ntype = "jwt"\npublic_key = "-----BEGIN PRIVATE KEY-----{S}"',
    f'[gateway.tls.acme]\ndomains = ["a.example"]\nagree_to_terms = true\neab_key_id = "x"\neab_hmac_key = "{S}!"',
])
def test_no_report_shows_a_secret(tmp_path, written):
    text = '[apis.pets]\nprotocol = "http"\nroutes."GET /".integration = { type = "mock", response = "hi" }\n' + written
    code, report = checked(tmp_path, text + "\n")
    assert "routes.toml:" in report and S not in report, report


# Files that everybody can read

OPEN_TO_ALL = "everybody on this machine can read"


@pytest.mark.parametrize("tables", [
    {"api_keys": {"a": {"value": S, "usage_plan": "gold"}}},
    {"credentials": {"a": {"access_key_id": "A", "secret_access_key": S, "allow": ["execute-api:Invoke pets/*"]}}},
    {"credentials": {"a": {"bearer_token": S * 3, "allow": ["execute-api:Invoke pets/*"]}}},
    {"authorizers": {"a": {"type": "jwt", "secret": S * 3}}},
])
def test_a_file_with_secrets_that_everybody_can_read_is_warned_about(tmp_path, tables):
    route = {**says("in"), "api_key_required": True, **({"authorizer": "a"} if "authorizers" in tables else {})}
    text = http_api({"GET /": route}, usage_plans={"gold": {}} if "api_keys" in tables else {}, **tables)
    file = tmp_path / "routes.toml"
    for mode, content, is_warned in [
        (0o644, text, True), (0o604, text, True), (0o600, text, False), (0o640, text, False),
        (0o644, re.sub(f'"({S})+"', '"${env.LIVEGATE_TEST_SECRET}"', text), False),
    ]:
        file.write_text(content)
        file.chmod(mode)
        done = run("check", cwd=tmp_path, env={"LIVEGATE_TEST_SECRET": S * 3})
        assert done.returncode == 0, done.stdout
        assert (f"{OPEN_TO_ALL} the secrets in this file" in done.stdout) == is_warned, (oct(mode), done.stdout)
        assert not is_warned or "chmod o-rwx" in done.stdout and "${env.NAME}" in done.stdout


def test_a_file_without_secrets_may_be_read_by_everybody(tmp_path):
    text = http_api({"GET /": {**says("in"), "api_key_required": True}}, usage_plans={"gold": {}},
                    api_keys={"a": {"sha256": "ab" * 32, "usage_plan": "gold"}})
    code, report = checked(tmp_path, text)
    (tmp_path / "routes.toml").chmod(0o644)
    done = run("check", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "routes.toml: no problems"), report


def test_a_private_key_that_everybody_can_read_is_warned_about(tmp_path):
    file = Authority(tmp_path).issue("localhost")
    (tmp_path / "routes.toml").write_text(chat(gateway={"tls": {"certificates": [{"cert": file.name, "key": file.name}]}}))
    for mode, is_warned in ((0o644, True), (0o640, False), (0o600, False)):
        file.chmod(mode)
        done = run("check", cwd=tmp_path)
        assert done.returncode == 0
        assert (f"{OPEN_TO_ALL} the private key in `{file.name}`" in done.stdout) == is_warned, (oct(mode), done.stdout)


def test_a_gateway_that_reads_its_file_warns_as_well(livegate):
    gateway = livegate(http_api({"GET /": {**says("in"), "api_key_required": True}}, usage_plans={"gold": {}},
                                api_keys={"a": {"value": S, "usage_plan": "gold"}}))
    gateway.file.chmod(0o644)
    gateway.reload(gateway.file.read_text() + "\n# changed\n")
    eventually(lambda: f"{OPEN_TO_ALL} the secrets in this file" in gateway.logs())
    assert S not in gateway.logs()


# `livegate check`

X = "http://127.0.0.1:3000/x"
HTTP, JWT = {"type": "http", "uri": X}, {"type": "jwt", "secret": "x" * 40}
KEY = {"value": "the-key-of-acme-0123456789", "usage_plan": "gold"}


def one(**route):
    return {"GET /": {**says("in"), **route}}


def keyed(plans=None, keys=None, **more):
    return http_api(one(api_key_required=True), usage_plans=plans or {"gold": {}}, api_keys=keys or {"acme": KEY}, **more)


@pytest.mark.parametrize("text, words", [
    (http_api(one(authorizer="mnie"), authorizers={"mine": HTTP}), ["no authorizer `mnie`", "did you mean `mine`?"]),
    (http_api(one(authorizer="aws_iamm")), ["no authorizer `aws_iamm`", "did you mean `aws_iam`?"]),
    (http_api(one(authorizer="other")), ["no authorizer `other`", "[authorizers.other]"]),
    (chat(routes={"send": {**mock("x"), "authorizer": "mine"}}, authorizers={"mine": HTTP}),
     ["`authorizer` stands at `$connect`", "move it there"]),
    (chat(routes={"$disconnect": {**to(X), "authorizer": "mine"}}, authorizers={"mine": HTTP}), ["`authorizer` stands at"]),
    (chat(routes={"send": {**mock("x"), "api_key_required": True}}), ["`api_key_required` stands at `$connect`"]),
    (chat(routes={"send": {**mock("x"), "authorization_scopes": ["a"]}}), ["`authorization_scopes` stands at `$connect`"]),
    (http_api(one(authorization_scopes=["a"])), ["no authorizer", "add `authorizer`"]),
    (http_api(one(authorizer="mine", authorization_scopes=["a"]), authorizers={"mine": HTTP}), ["`jwt`"]),
    (keyed(keys={"acme": {**KEY, "usage_plan": "gld"}}), ["no usage plan `gld`", "did you mean `gold`?"]),
    (keyed(keys={"acme": KEY, "other": KEY}), ["`acme` and `other` have the same value"]),
    (keyed(keys={"acme": {"usage_plan": "gold"}}), ["no value", "sha256"]),
    (keyed(keys={"acme": {**KEY, "sha256": "ab" * 32}}), ["`value` and `sha256`"]),
    (keyed(keys={"acme": {"sha256": "ab", "usage_plan": "gold"}}), ["no SHA-256"]),
    (keyed(keys={"acme": {"value": "", "usage_plan": "gold"}}), ["empty"]),
    (keyed({"gold": {"stages": ["pets/prod"]}}), ["no stage `pets/prod`"]),
    (keyed({"gold": {"stages": ["pets/$defualt"]}}), ["did you mean `pets/$default`?"]),
    (keyed({"gold": {"burst": 3}}), ["`burst` stands alone", "rate"]),
    (keyed({"gold": {"quota": {"limit": 0, "period": "day"}}}), ["`0` is out of bounds"]),
    (keyed({"gold": {"quota": {"limit": 5, "period": "year"}}}), ["`day` or `week` or `month`"]),
    (keyed({"gold": {"quota": {"limit": 5}}}), ["`period` is missing"]),
    (keyed(api={"api_key_selection_expression": "$context.authorizer.usageIdentifierKey"}), ["this route has none"]),
    (http_api(one(throttle={"rate": -1})), ["`-1` is no rate"]), (http_api(one(throttle={"burst": 1})), ["`rate` is missing"]),
    (http_api(one(throttle={"rate": 1, "burst": 0})), ["out of bounds"]), (http_api(one(throttle={"rate": "10/s"})), ["no rate"]),
    (http_api(one(throttle={"rate": 1e10})), ["no rate"]), (http_api(one(throttle={"rates": 1})), ["did you mean `rate`?"]),
    (http_api(one(throttle={"rate": 1e-12, "burst": 4_000_000_000})), ["a hundred years"]),
    (http_api(one(), gateway={"throttle": {"rate": -1}}), ["no rate"]),
    (http_api(one(), stage={"throttle": {"rate": -1}}), ["no rate"]),
    (chat(connections_api={"authorization": "none", "throttle": {"rate": -1}}), ["no rate"]),
    (chat(stage={"limits": {"connections_per_address": 0}}), ["out of bounds"]),
    (chat(stage={"limits": {"requests_per_address": {"rate": 1}}}), ["belongs to stages of HTTP APIs"]),
    (http_api(one(), stage={"limits": {"connections_per_address": 1}}), ["belongs to stages of WebSocket APIs"]),
    (http_api(one(), stage={"limits": {"messages_per_connection": {"rate": 1}}}), ["belongs to stages of WebSocket APIs"]),
    (chat(routes={"$disconnect": {**to(X), "throttle": {"rate": 1}}}), ["has ended", "throttle"]),
    (chat(stage={"allowed_origins": ["app.example.com"]}), ["no origin", "like `https://app.example.com`"]),
    (chat(stage={"allowed_origins": ["wss://a.example"]}), ["write `https://a.example`"]),
    (chat(stage={"allowed_origins": ["https://a.example/path"]}), ["write `https://a.example`"]),
    (chat(stage={"allowed_origins": ["https://a.*.example"]}), ["`*` stands alone"]),
    (http_api(one(resource_policy=[allow(source_ip=["10.0.0.0/33"])])), ["`10.0.0.0/33` is no network"]),
    (http_api(one(), stage=at([deny(source_ip=["localhost"])])), ["`localhost` is no network"]),
    (http_api(one(), api=at([allow(source_ip=[])])), ["this list is empty"]),
    (http_api(one(resource_policy=[{"effect": "Allow"}])), ["did you mean `allow`?"]),
    (http_api(one(resource_policy=[{"source_ip": "::1"}])), ["`effect` is missing"]),
    (http_api(one(resource_policy=[allow(headers={"X A": "a"})])), ["`X A` cannot name a header"]),
    (http_api(one(resource_policy=[allow(sourceip="::1")])), ["did you mean `source_ip`?"]),
    (chat(routes={"send": {**mock("x"), **at([deny(headers={"X-A": "a"})])}}), ["messages have no headers", "$connect"]),
    (chat(routes={"$disconnect": {**to(X), **at([deny()])}}), ["has ended"]),
    (chat(routes={"renew": {**mock("x"), "refreshes_authorization": True}}), ["no token to refresh", "`jwt`"]),
    (chat(routes={"$connect": {**to(X), "authorizer": "mine"}, "renew": {**mock("x"), "refreshes_authorization": True}},
          authorizers={"mine": HTTP}), ["no token to refresh", "`jwt`"]),
    (chat(routes={"$connect": {**to(X), "authorizer": "mine", "refreshes_authorization": True}}, authorizers={"mine": JWT}),
     ["a fresh token comes with a message"]),
    (http_api(one(refreshes_authorization=True)), ["brings its token every time"]),
    (http_api(one(authorizer="mine"), authorizers={"mine": {**HTTP, "ttl": "5m"}}), ["`ttl`", "`identity_source`"]),
    (chat(connections_api={"authorization": "aws_iam"}, credentials={"a": {
        "access_key_id": "A", "secret_access_key": "s", "allow": ["execute-api:Invoke chat/*"], "deny": ["all"]}}),
     ["`all` is not an action and a resource"]),
    (http_api(one(), gateway={"account_id": 123456789012}), ["in quotes"]),
    (http_api(one(), gateway={"region": "us east"}), ["no region"]),
])
def test_what_is_wrong_is_said_with_its_line_and_what_would_do(tmp_path, text, words):
    refused(tmp_path, text, "routes.toml:", "problem", *words)


@pytest.mark.parametrize("text, words", [
    (http_api(one(), authorizers={"mine": HTTP}), ["no route names the authorizer `mine`", 'authorizer = "mine"']),
    (http_api(one(), usage_plans={"gold": {}}), ["no API key is on the usage plan `gold`"]),
    (http_api(one(), usage_plans={"gold": {}}, api_keys={"acme": KEY}), ["no route asks for an API key"]),
    (keyed(keys={"acme": KEY, "bare": {"value": "the-key-of-bare-0123456789"}}), ["`bare` opens nothing"]),
    (http_api(one(resource_policy=[allow(authorizer={"tenant": "a"})])), ["this route has none", "add `authorizer`"]),
    (chat(routes={"send": {**mock("x"), **at([allow(authorizer={"tenant": "a"})])}}), ["authorizer"]),
    (chat(stage={"limits": {"bytes_per_connection": {"rate": 10, "burst": 10}}}), ["never get through", "131072"]),
    (http_api(one(resource_policy=[allow(source_ip="10.0.0.1/8")])), ["taken for `10.0.0.0/8`"]),
    (http_api(one(authorizer="mine"), authorizers={"mine": {"type": "jwt", "secret": "short"}}), ["32 bytes"]),
    (chat(connections_api={"authorization": "aws_iam"}, credentials={"a": {
        "access_key_id": "A", "secret_access_key": "s", "allow": ["execute-api:Invoke nope/*"]}}), ["covers no connection"]),
])
def test_what_is_odd_is_a_warning(tmp_path, text, words):
    code, report = checked(tmp_path, text)
    assert code == 0 and "warning" in report, report
    for word in words:
        assert word in report, f"{word!r} is not in\n{report}"


def test_a_file_with_everything_has_no_problem(tmp_path, backend):
    (tmp_path / "routes.toml").write_text(full_of_secrets(backend))
    (tmp_path / "routes.toml").chmod(0o600)
    done = run("check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "routes.toml: no problems\n"), done.stdout


# `livegate routes` and `livegate schema`


def test_routes_shows_who_decides_and_how_much(tmp_path):
    rate = {"rate": 100, "burst": 20}
    (tmp_path / "routes.toml").write_text(chat(
        routes={"$connect": {**to(X), "authorizer": "mine"}, "send": {**mock("x"), "throttle": {"rate": 0.5, "burst": 3}},
                "free": {**mock("x"), "throttle": "none"}},
        stage={"throttle": rate}, connections_api={"authorization": "aws_iam", "throttle": {"rate": 7, "burst": 9}},
        apis={"pets": pets({
            "GET /open": says("x"), "GET /mine": {**says("x"), "authorizer": "mine", "api_key_required": True},
            "GET /key": {**says("x"), "api_key_required": True, "throttle": rate},
            "GET /iam": {**says("x"), "authorizer": "aws_iam"}})},
        authorizers={"mine": HTTP}, usage_plans={"gold": {}}, api_keys={"acme": KEY}))
    printed = run("routes", cwd=tmp_path)
    assert printed.returncode == 0, printed.stdout
    head, *rows = [re.split(r"  +", line) for line in printed.stdout.splitlines()]
    assert head[-2:] == ["AUTHORIZER", "THROTTLE"]
    assert {row[3]: tuple(row[5:]) for row in rows} == {
        "$connect": ("mine", "100/s, 20"), "send": ("-", "0.5/s, 3"), "free": ("-", "-"), "whoami": ("-", "100/s, 20"),
        "POST GET DELETE": ("aws_iam", "7/s, 9"), "GET /open": ("-", "-"), "GET /mine": ("mine + API key", "-"),
        "GET /key": ("API key", "100/s, 20"), "GET /iam": ("aws_iam", "-")}


def test_the_schema_knows_who_may_call_and_how_much():
    schema = json.loads(run("schema").stdout)
    assert {"authorizers", "usage_plans", "api_keys", "credentials"} <= set(schema["properties"])
    text = json.dumps(schema)
    for key in ("resource_policy", "allowed_origins", "connections_per_address", "requests_per_address", "throttle",
                "api_key_selection_expression", "authorization_scopes", "refreshes_authorization", "identity_source", "quota"):
        assert f'"{key}"' in text, key
