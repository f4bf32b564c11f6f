"""Authorizers of `type = "http"`: the events that they are asked with, what becomes of their answers, and what is
remembered of them (contract/websocket.md section 7, contract/http-api.md section 9)."""

import asyncio
import json
import re
import subprocess
import threading

import pytest

from backend import PATIENCE, Answer
from events import CONTEXT, check_context
from http_apis import ask, http_api, is_error, pets, proxy, refused, says
from http_events import TRACE_ID, check_time
from wire import KEY, close_frame, handshake
from world import ID, eventually, mock, to

ACCOUNT = "arn:aws:execute-api:us-east-1:000000000000"


def statement(effect="Allow", resource="*", action="execute-api:Invoke", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def policy(*statements, principal="user-42", **more):
    """The answer of a Lambda authorizer."""
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return json.dumps({"principalId": principal, "policyDocument": document, **more})


ALLOW, DENY = policy(statement()), policy(statement("Deny"))


def shows(headers, name="Authorization"):
    return next((value for key, value in headers if key.lower() == name.lower()), None)


class Sockets:
    """An authorizer at `$connect`."""

    arn = f"{ACCOUNT}:chat/prod/$connect"

    def __init__(self, livegate, backend):
        self._livegate, self._backend = livegate, backend

    def gateway(self, stage=None, gateway=None, uri=None, route=None, **settings):
        authorizer = {"type": "http", "uri": uri or self._backend.at("/authorize"), **settings}
        connect = {**to(self._backend.at("/in")), "authorizer": "mine", **(route or {})}
        return self._livegate(
            routes={"$connect": connect}, stage=stage, gateway=gateway, authorizers={"mine": authorizer})

    def knock(self, gateway, *headers, query=""):
        return gateway.knock("/prod" + query, list(headers))

    def is_in(self, answer):
        return answer.status == 101

    def is_refused(self, answer, why):
        assert answer.error == {
            "unauthorized": (401, "UnauthorizedException", '{"message":"Unauthorized"}'),
            "not allowed": (403, "AccessDeniedException",
                            '{"Message":"User is not authorized to access this resource"}'),
            "denied": (403, "AccessDeniedException",
                       '{"Message":"User is not authorized to access this resource with an explicit deny"}'),
            "failed": (500, "AuthorizerConfigurationException", '{"message":null}'),
        }[why]
        assert answer.header("Content-Type") == "application/json"
        assert re.fullmatch(ID, answer.header("x-amzn-RequestId")) and re.fullmatch(ID, answer.header("x-amz-apigw-id"))
        return True


class Requests:
    """An authorizer at a route of an HTTP API."""

    arn = f"{ACCOUNT}:pets/$default/GET/pets"

    def __init__(self, livegate, backend):
        self._livegate, self._backend = livegate, backend

    def gateway(self, stage=None, gateway=None, uri=None, route=None, **settings):
        authorizer = {"type": "http", "uri": uri or self._backend.at("/authorize"), **settings}
        route = {**proxy(self._backend.at("/in")), "authorizer": "mine", **(route or {})}
        return self._livegate(
            http_api({"GET /pets": route}, stage=stage, gateway=gateway, authorizers={"mine": authorizer}))

    def knock(self, gateway, *headers, query=""):
        return ask(gateway, "GET", "/pets" + query, headers)

    def is_in(self, answer):
        return answer.status == 200

    def is_refused(self, answer, why):
        return is_error(answer, *{
            "unauthorized": (401, "Unauthorized"), "not allowed": (403, "Forbidden"), "denied": (403, "Forbidden"),
            "failed": (500, "Internal Server Error"),
        }[why])


@pytest.fixture(params=[Sockets, Requests])
def door(request, livegate, backend):
    """Either kind of API behind an authorizer."""
    return request.param(livegate, backend)


@pytest.fixture
def sockets(livegate, backend):
    return Sockets(livegate, backend)


@pytest.fixture
def requests(livegate, backend):
    return Requests(livegate, backend)


# The events


def test_the_event_of_a_handshake(sockets, backend):
    gateway = sockets.gateway(stage={"stage_variables": {"table": "rooms"}})
    sockets.knock(gateway, ("User-Agent", "mine/1"), ("x-mine", "one"), ("X-Mine", "two"),
                  ("X-Livegate-Api", "forged"), query="?room=blue&tag=a&tag=b")
    request = backend.next("/authorize")
    event = request.json
    assert request.method == "POST" and request.header("Content-Type") == "application/json"
    headers, multi, context = event.pop("headers"), event.pop("multiValueHeaders"), event.pop("requestContext")
    assert event == {
        "type": "REQUEST", "methodArn": sockets.arn, "queryStringParameters": {"room": "blue", "tag": "b"},
        "multiValueQueryStringParameters": {"room": ["blue"], "tag": ["a", "b"]},
        # The contract has it empty, whatever the stage has.
        "stageVariables": {},
    }
    assert list(headers) == sorted(headers, key=str.lower)
    assert multi == {**{name: [value] for name, value in headers.items()}, "X-Mine": ["one", "two"]}
    assert re.fullmatch(TRACE_ID, headers.pop("X-Amzn-Trace-Id"))
    assert headers == {
        "Connection": "upgrade", "Upgrade": "websocket", "content-length": "0", "Host": gateway.host,
        "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13", "User-Agent": "mine/1",
        "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Port": str(gateway.port), "X-Forwarded-Proto": "http",
        "X-Mine": "two",
    }
    assert set(context) == CONTEXT
    assert context["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "mine/1"}
    check_context(gateway, context, "$connect", "CONNECT")


def test_the_smallest_event_of_a_handshake(sockets, backend):
    sockets.knock(sockets.gateway())
    event = backend.next("/authorize").json
    assert set(event) == {"type", "methodArn", "headers", "multiValueHeaders", "queryStringParameters",
                          "multiValueQueryStringParameters", "stageVariables", "requestContext"}
    assert event["queryStringParameters"] == event["multiValueQueryStringParameters"] == {}
    assert event["requestContext"]["identity"] == {"sourceIp": "127.0.0.1"}


def test_authorizer_and_connect_are_told_of_the_same_connection(sockets, backend):
    backend.answer("/authorize", 200, ALLOW)
    sockets.knock(sockets.gateway())
    asked, told = backend.next("/authorize").json["requestContext"], backend.next("/in")
    assert (asked["connectionId"], asked["requestId"]) == (told.connection_id, told.request_id)


SENT = [("Authorization", "Bearer abc"), ("Cookie", "sid=1; lang=de"), ("User-Agent", "mine/1"), ("X-Multi", "one"),
        ("x-multi", "two"), ("X-Livegate-Api", "forged")]


def orders(livegate, backend, method="GET", stage=None, stages=None, **settings):
    settings = {"type": "http", "uri": backend.at("/authorize"),
                "identity_source": ["$request.header.Authorization", "$request.querystring.tag"], **settings}
    route = {**proxy(backend.at("/in")), "authorizer": "mine"}
    return livegate(http_api({f"{method} /orders/{{orderId}}": route}, stage=stage, stages=stages,
                             authorizers={"mine": settings}, gateway={"account_id": "123456789012",
                                                                      "region": "eu-west-1"}))


def test_the_event_of_a_request_in_format_2_0(livegate, backend):
    gateway = orders(livegate, backend, stage={"stage_variables": {"table": "rooms"}})
    answer = ask(gateway, "GET", "/orders/42%20b?tag=red&tag=blue", SENT)
    event = backend.next("/authorize").json
    headers, context = event.pop("headers"), event.pop("requestContext")
    assert event == {
        "version": "2.0", "type": "REQUEST", "identitySource": ["Bearer abc", "red,blue"],
        "routeArn": "arn:aws:execute-api:eu-west-1:123456789012:pets/$default/GET/orders/42%20b",
        "routeKey": "GET /orders/{orderId}", "rawPath": "/orders/42 b", "rawQueryString": "tag=red&tag=blue",
        "cookies": ["sid=1", "lang=de"], "queryStringParameters": {"tag": "red,blue"},
        "pathParameters": {"orderId": "42 b"}, "stageVariables": {"table": "rooms"},
    }
    assert re.fullmatch(TRACE_ID, headers.pop("x-amzn-trace-id"))
    assert headers == {
        "authorization": "Bearer abc", "host": gateway.host, "user-agent": "mine/1", "x-forwarded-for": "127.0.0.1",
        "x-forwarded-port": str(gateway.port), "x-forwarded-proto": "http", "x-multi": "one,two",
    }
    check_time(context.pop("time"), context.pop("timeEpoch"))
    assert context.pop("requestId") == answer.header("apigw-requestid")
    assert context == {
        "accountId": "123456789012", "apiId": "pets", "domainName": gateway.host,
        "domainPrefix": gateway.host.split(".")[0], "routeKey": "GET /orders/{orderId}", "stage": "$default",
        "http": {"method": "GET", "path": "/orders/42 b", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
                 "userAgent": "mine/1"},
    }


def test_the_smallest_event_in_format_2_0_has_nothing_empty_but_its_identity(requests, backend):
    requests.knock(requests.gateway())
    event = backend.next("/authorize").json
    assert set(event) == {"version", "type", "routeArn", "identitySource", "routeKey", "rawPath", "rawQueryString",
                          "headers", "requestContext"}
    assert (event["identitySource"], event["routeArn"], event["rawQueryString"]) == (None, requests.arn, "")


def test_the_event_of_a_request_in_format_1_0(livegate, backend):
    gateway = orders(livegate, backend, payload_format="1.0", stages={"prod": {}})
    answer = ask(gateway, "GET", "/prod/orders/42?tag=red&tag=blue", SENT)
    event = backend.next("/authorize").json
    headers, context = event.pop("headers"), event.pop("requestContext")
    assert event == {
        "version": "1.0", "type": "REQUEST", "identitySource": "Bearer abc,red,blue",
        "authorizationToken": "Bearer abc,red,blue",
        "methodArn": "arn:aws:execute-api:eu-west-1:123456789012:pets/prod/GET/orders/42",
        "resource": "/orders/{orderId}", "path": "/prod/orders/42", "httpMethod": "GET",
        "queryStringParameters": {"tag": "blue"}, "pathParameters": {"orderId": "42"}, "stageVariables": {},
    }
    assert re.fullmatch(TRACE_ID, headers.pop("X-Amzn-Trace-Id"))
    assert headers == {
        "Authorization": "Bearer abc", "Cookie": "sid=1; lang=de", "Host": gateway.host, "User-Agent": "mine/1",
        "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Port": str(gateway.port), "X-Forwarded-Proto": "http",
        "X-Multi": "two",
    }
    check_time(context.pop("requestTime"), context.pop("requestTimeEpoch"))
    assert context.pop("requestId") == context.pop("extendedRequestId") == answer.header("apigw-requestid")
    assert context.pop("domainPrefix") == gateway.host.split(".")[0]
    nobody = ["accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
              "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "user", "userArn"]
    assert context == {
        "accountId": "123456789012", "apiId": "pets", "domainName": gateway.host, "httpMethod": "GET",
        "path": "/prod/orders/42", "protocol": "HTTP/1.1", "resourceId": "GET /orders/{orderId}",
        "resourcePath": "/orders/{orderId}", "stage": "prod",
        "identity": {**dict.fromkeys(nobody), "sourceIp": "127.0.0.1", "userAgent": "mine/1"},
    }


def test_the_smallest_event_in_format_1_0(requests, backend):
    requests.knock(requests.gateway(payload_format="1.0"))
    event = backend.next("/authorize").json
    assert (event["identitySource"], event["authorizationToken"]) == (None, None)
    assert event["queryStringParameters"] == event["pathParameters"] == event["stageVariables"] == {}
    assert not {"body", "isBase64Encoded", "multiValueHeaders", "multiValueQueryStringParameters"} & set(event)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_authorizer_is_told_the_length_of_a_body_and_not_the_body(livegate, backend, version):
    backend.answer("/authorize", 200, ALLOW)
    gateway = orders(livegate, backend, "POST", payload_format=version)
    assert ask(gateway, "POST", "/orders/1?tag=x", SENT, "a body").status == 200
    asked = backend.next("/authorize")
    lower = {name.lower(): value for name, value in asked.json["headers"].items()}
    assert lower["content-length"] == "6" and "a body" not in asked.text
    assert backend.next("/in").text == "a body"


def test_the_event_with_a_token_alone(requests, backend):
    gateway = requests.gateway(event="TOKEN", identity_source=["$request.header.Authorization"])
    requests.knock(gateway, ("Authorization", "Bearer abc"), query="?x=1")
    assert backend.next("/authorize").json == {
        "type": "TOKEN", "authorizationToken": "Bearer abc", "methodArn": requests.arn}


@pytest.mark.parametrize("target, tail", [
    ("/", "/"), ("/a/b/", "/a/b/"), ("/a%2Fb", "/a%2Fb"), ("/%61dmin", "/admin"), ("/a%20b?x=1", "/a%20b"),
])
def test_an_arn_ends_in_the_path(livegate, backend, target, tail):
    gateway = livegate(http_api({"$default": {**proxy(backend.at("/in")), "authorizer": "mine"}},
                                authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}}))
    ask(gateway, "PATCH", target)
    assert backend.next("/authorize").json["routeArn"] == f"{ACCOUNT}:pets/$default/PATCH{tail}"


# Policies

IP, LOOPBACK = "aws:SourceIp", {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}
ELSEWHERE = {"IpAddress": {IP: ["10.0.0.0/8", "192.168.0.0/16"]}}
THE_ARN = "the ARN"


@pytest.mark.parametrize("statements, outcome", [
    ([statement()], "in"), ([statement(resource=THE_ARN)], "in"), ([statement(resource=["nothing", THE_ARN])], "in"),
    ([statement(resource="arn:aws:execute-api:*:*:*/*")], "in"),
    ([statement(resource="arn:aws:execute-api:us-east-?:????????????:*")], "in"),
    ([statement(resource=f"{ACCOUNT}:*/GET/*"), statement(resource=f"{ACCOUNT}:chat/prod/*")], "in"),
    ([statement(action="execute-api:*")], "in"), ([statement(action="*")], "in"),
    ([statement(action=["execute-api:ManageConnections", "execute-api:Invoke"])], "in"),
    ([statement(action="EXECUTE-API:invoke")], "in"),
    ([statement("Deny", "arn:aws:execute-api:*:*:other/*"), statement()], "in"),
    ([statement(action="execute-api:ManageConnections")], "not allowed"),
    ([statement(resource="arn:aws:execute-api:eu-west-1:*")], "not allowed"),
    ([statement(resource="arn:aws:execute-api:us-east-1:123456789012:*")], "not allowed"),
    ([statement(resource=f"{ACCOUNT}:other/*")], "not allowed"), ([statement(resource="*/nowhere")], "not allowed"),
    ([statement(resource=f"{ACCOUNT}:CHAT/*"), statement(resource=f"{ACCOUNT}:PETS/*")], "not allowed"),
    ([statement("Deny")], "denied"), ([statement("Deny"), statement()], "denied"),
    ([statement(), statement("Deny", THE_ARN)], "denied"),
    ([statement(Condition=LOOPBACK)], "in"), ([statement(Condition=ELSEWHERE)], "not allowed"),
    ([statement(), statement("Deny", Condition=LOOPBACK)], "denied"),
    ([statement(), statement("Deny", Condition=ELSEWHERE)], "in"),
    ([statement(), statement("Deny", Condition={"NotIpAddress": {IP: "127.0.0.1"}})], "in"),
    ([statement(Condition={"IpAddress": {IP: "127.0.0.1/32"}, "Bool": {"aws:SecureTransport": "true"}})],
     "not allowed"),
    ([statement(Condition={"DateGreaterThan": {"aws:CurrentTime": "2024-01-01T00:00:00Z"}})], "in"),
    ([statement(Condition={"StringLike": {"aws:UserAgent": "mine/*"}})], "in"),
    ([statement(Condition={"StringEquals": {"aws:PrincipalTag/team": "a"}})], "not allowed"),
])
def test_a_policy_decides(door, backend, statements, outcome):
    written = json.loads(json.dumps(statements).replace(THE_ARN, door.arn))
    backend.answer("/authorize", 200, policy(*written))
    answer = door.knock(door.gateway(), ("User-Agent", "mine/1"))
    assert door.is_in(answer) if outcome == "in" else door.is_refused(answer, outcome)
    assert len(backend.seen("/in")) == (outcome == "in")


def test_a_condition_is_about_the_callers_address(door, backend):
    backend.answer("/authorize", 200, policy(statement(Condition={"IpAddress": {IP: "127.0.0.2"}})))
    gateway = door.gateway()
    assert door.is_in(door.knock(gateway.seen_from("127.0.0.2")))
    assert door.is_refused(door.knock(gateway.seen_from("127.0.0.3")), "not allowed")


def test_a_lone_statement_needs_no_list(door, backend):
    backend.answer("/authorize", 200, json.dumps(
        {"principalId": 7, "policyDocument": {"Version": "2012-10-17", "Statement": statement()}}))
    assert door.is_in(door.knock(door.gateway()))


def test_escapes_get_nobody_around_a_policy(livegate, backend):
    """A deny about `/admin` is about `/%61dmin` as well."""
    backend.answer("/authorize", 200, policy(statement(), statement("Deny", "*/GET/admin*")))
    gateway = livegate(http_api({"$default": {**proxy(backend.at("/in")), "authorizer": "mine"}},
                                authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}}))
    for target in ("/admin", "/%61dmin", "/admin/x", "/%61%64min?x=1"):
        assert is_error(ask(gateway, "GET", target), 403, "Forbidden"), target
    assert ask(gateway, "GET", "/other").status == 200


# Simple answers


@pytest.mark.parametrize("answer, outcome", [
    ({"isAuthorized": True}, "in"), ({"isAuthorized": True, "context": {}}, "in"),
    ({"isAuthorized": True, "context": None}, "in"), ({"isAuthorized": False}, "not allowed"),
    ({"isAuthorized": False, "context": {"a": 1}}, "not allowed"), ({"isAuthorized": "true"}, "failed"),
    ({"isAuthorized": 1}, "failed"), ({"isAuthorized": None}, "failed"), ({}, "failed"), ([], "failed"),
    ({"isAuthorized": True, "context": []}, "failed"), (json.loads(ALLOW), "failed"),
])
def test_a_simple_answer_decides(requests, backend, answer, outcome):
    backend.answer("/authorize", 200, json.dumps(answer))
    got = requests.knock(requests.gateway(simple_responses=True))
    assert requests.is_in(got) if outcome == "in" else requests.is_refused(got, outcome)


def test_a_simple_answer_is_no_policy(door, backend):
    backend.answer("/authorize", 200, '{"isAuthorized":true}')
    assert door.is_refused(door.knock(door.gateway()), "failed")


# What identifies a caller

BOTH = ["$request.header.Authorization", "$request.querystring.room"]
VARIABLES = {"stage_variables": {"tenant": "acme"}}


@pytest.mark.parametrize("sources, headers, query", [
    (BOTH, [("Authorization", "x")], "?room=a"), (BOTH, [("authorization", "x")], "?other=1&room=a"),
    (["route.request.header.X-Token"], [("x-token", "x")], ""),
    (["method.request.header.X-Token"], [("X-TOKEN", "x")], ""),
    (["route.request.querystring.room", "context.identity.sourceIp"], [], "?room=%20"),
    (["$context.routeKey", "$stageVariables.tenant"], [], ""), (["context.stage", "stageVariables.tenant"], [], ""),
])
def test_who_has_every_identity_source_is_asked_about(door, backend, sources, headers, query):
    backend.answer("/authorize", 200, ALLOW)
    gateway = door.gateway(identity_source=sources, stage=VARIABLES)
    assert door.is_in(door.knock(gateway, *headers, query=query))
    assert len(backend.seen("/authorize")) == 1


@pytest.mark.parametrize("sources, headers, query", [
    (BOTH, [], ""), (BOTH, [("Authorization", "x")], ""), (BOTH, [], "?room=a"),
    (BOTH, [("Authorization", "")], "?room=a"), (BOTH, [("Authorization", "x")], "?room="),
    (BOTH, [("Authorization", "x")], "?room"), (BOTH, [("Authorization", "x")], "?Room=a"),
    (["$request.header.X-Token"], [("X-Tokens", "x")], "?X-Token=x"),
    (["context.identity.userAgent"], [], ""),
])
def test_who_lacks_an_identity_source_is_unauthorized_without_a_call(door, backend, sources, headers, query):
    gateway = door.gateway(identity_source=sources)
    assert door.is_refused(door.knock(gateway, *headers, query=query), "unauthorized")
    assert backend.seen_anywhere() == []
    assert gateway.metric("livegate_refusals_total", cause="unauthorized") == 1


def test_the_host_identifies_over_http_2_as_well(requests, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(identity_source=["$request.header.Host"])
    curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge", f"{gateway.http_url}/pets"]
    assert requests.is_in(requests.knock(gateway))
    assert subprocess.run(curl, capture_output=True, check=True).stdout == b"200"
    assert [request.json["identitySource"] for request in backend.seen("/authorize")] == [[gateway.host]] * 2


@pytest.mark.parametrize("expression, token, is_asked", [
    ("Bearer [a-z]+", "Bearer abc", True), ("^Bearer [a-z]+$", "Bearer abc", True), (".*", "anything", True),
    ("a|ab", "ab", True), ("Bearer [a-z]+", "Bearer abc1", False), ("Bearer [a-z]+", "xBearer abc", False),
    ("Bearer [a-z]+", "bearer abc", False), ("a|b", "ax", False), ("(?m)^a$", "a b", False),
])
def test_a_token_that_does_not_look_like_one_is_unauthorized_without_a_call(requests, backend, expression, token,
                                                                            is_asked):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(event="TOKEN", identity_source=["$request.header.Authorization"],
                               identity_validation_expression=expression)
    answer = requests.knock(gateway, ("Authorization", token))
    assert requests.is_in(answer) if is_asked else requests.is_refused(answer, "unauthorized")
    assert len(backend.seen("/authorize")) == is_asked


# Authorizers that fail


@pytest.mark.parametrize("status, body", [
    (401, ""), (401, "who?"), (200, '"Unauthorized"'), (200, '{"errorMessage":"Unauthorized"}'),
    (500, '{"errorMessage":"Unauthorized","errorType":"Error"}'),
])
def test_unauthorized_is_said_on(door, backend, status, body):
    backend.answer("/authorize", status, body)
    assert door.is_refused(door.knock(door.gateway()), "unauthorized")
    assert backend.seen("/in") == []


GARBAGE = [
    "", "null", "true", "[]", "{}", "not json", '"unauthorized"', '{"errorMessage":"unauthorized"}',
    '{"errorMessage":"Unauthorized: no"}', '{"message":"Unauthorized"}', '{"principalId":"u"}',
    policy(statement(), principal=""), policy(statement(), principal=None),
    json.dumps({"policyDocument": {"Version": "2012-10-17", "Statement": statement()}}),
    '{"principalId":"u","policyDocument":{}}', '{"principalId":"u","policyDocument":"allow"}',
    policy(), policy({"Effect": "Allow", "Action": "*"}), policy({"Action": "*", "Resource": "*"}), policy(statement("allow")),
    policy(statement(Condition={"IpAddres": {IP: "127.0.0.1"}})), policy(statement(), context=["a"]),
    policy(statement(), context="a"), ALLOW[:-1], ALLOW + "x",
]


@pytest.mark.parametrize("body", GARBAGE)
def test_an_answer_that_is_none_is_a_failure(door, backend, body):
    backend.answer("/authorize", 200, body)
    gateway = door.gateway()
    assert door.is_refused(door.knock(gateway), "failed")
    assert backend.seen("/in") == []
    assert gateway.metric("livegate_refusals_total", cause="authorizer_failure") == 1
    assert gateway.metric("livegate_execution_errors_total", reason="authorizer") == 1


@pytest.mark.parametrize("status", [204, 302, 400, 403, 404, 500, 502, 503])
def test_another_status_than_200_is_a_failure(door, backend, status):
    backend.answer("/authorize", status, ALLOW, {"Location": backend.at("/elsewhere")})
    assert door.is_refused(door.knock(door.gateway()), "failed")
    assert backend.seen("/elsewhere") == backend.seen("/in") == []


@pytest.mark.parametrize("raw", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + ALLOW.encode()])
def test_what_is_no_http_or_breaks_off_is_a_failure(door, backend, raw):
    backend.answer("/authorize", raw=raw)
    assert door.is_refused(door.knock(door.gateway()), "failed")


def test_an_answer_of_8_kib_is_the_largest(door, backend):
    room = 8 * 1024 - len(policy(statement(), context={"pad": ""}))
    backend.answers("/authorize", *(Answer(body=policy(statement(), context={"pad": "x" * size})) for size in (room, room + 1)))
    gateway = door.gateway()
    assert door.is_in(door.knock(gateway))
    assert door.is_refused(door.knock(gateway), "failed")


def test_an_answer_in_pieces_is_as_good(door, backend):
    backend.answer("/authorize", 200, ALLOW, chunked=True)
    assert door.is_in(door.knock(door.gateway()))


def test_an_authorizer_that_is_not_there_is_a_failure(door, dead_backend):
    gateway = door.gateway(uri=dead_backend.at("/authorize"))
    assert door.is_refused(door.knock(gateway), "failed")
    dead_backend.revive()
    dead_backend.answer("/authorize", 200, ALLOW)
    assert door.is_in(door.knock(gateway))


def test_an_authorizer_that_takes_too_long_is_a_failure(door, backend):
    gateway = door.gateway(timeout="200ms")
    with backend.holding("/authorize"):
        assert door.is_refused(door.knock(gateway), "failed")
    assert backend.seen("/in") == []


# What an authorizer found out

FOUND = {"tenant": "acme", "plan": 2, "rate": 1.5, "beta": True, "text": "hé \"there\"", "gone": None}
FLAT = {"tenant": "acme", "plan": "2", "rate": "1.5", "beta": "true", "text": "hé \"there\"", "principalId": "user-42"}
NESTED = {"roles": ["a", "b"], "user": {"name": "Ada", "level": 3}}


def of_authorizer(request):
    prefix = "x-livegate-authorizer-"
    return {name.lower().removeprefix(prefix): value for name, value in request.headers if name.lower().startswith(prefix)}


def test_backends_of_a_connection_get_headers_of_its_authorizer(livegate, backend):
    backend.answer("/authorize", 200, policy(statement(), context=FOUND))
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"}, "send": to(backend.at("/send")),
                "$disconnect": to(backend.at("/disconnect"))},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    with gateway.connect(headers={"X-Livegate-Authorizer-Admin": "true"}) as client:
        client.says(action="send")
        backend.next("/send")
    for path in ("/connect", "/send", "/disconnect"):
        assert of_authorizer(backend.wait_for(path)[0]) == {
            "tenant": "acme", "plan": "2", "rate": "1.5", "beta": "true", "text": "h%C3%A9 \"there\"",
            "principalid": "user-42"}, path


def test_events_of_a_connection_carry_its_authorizer(livegate, backend):
    backend.answer("/authorize", 200, policy(statement(), context=FOUND))
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect"), payload="event"), "authorizer": "mine"},
                "send": to(backend.at("/send"), payload="event"),
                "$disconnect": to(backend.at("/disconnect"), payload="event")},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    with gateway.open() as wire:
        wire.says(action="send")
        sent = backend.next("/send").json["requestContext"]
        wire.send(close_frame(1000))
        wire.ended()
    connect, disconnect = (backend.next(path).json["requestContext"] for path in ("/connect", "/disconnect"))
    latency = connect["authorizer"].pop("integrationLatency")
    assert isinstance(latency, int) and 0 <= latency < 10_000
    assert connect["authorizer"] == sent["authorizer"] == disconnect["authorizer"] == FLAT
    assert set(connect) == CONTEXT | {"authorizer"} and set(sent) == CONTEXT | {"authorizer", "messageId"}


def test_events_in_format_2_0_keep_the_types_of_a_context(requests, backend):
    backend.answer("/authorize", 200, policy(statement(), context={**FOUND, **NESTED}))
    backend.answer("/in", 200, '{"statusCode":200}')
    requests.knock(requests.gateway(route=proxy(backend.at("/in"), payload="event")))
    shown = {name: value for name, value in {**FOUND, **NESTED}.items() if value is not None}
    assert backend.next("/in").json["requestContext"]["authorizer"] == {"lambda": shown}


def test_events_in_format_1_0_have_a_flat_map(requests, backend):
    backend.answer("/authorize", 200, policy(statement(), context=FOUND))
    backend.answer("/in", 200, '{"statusCode":200}')
    requests.knock(requests.gateway(route=proxy(backend.at("/in"), payload="event", payload_format="1.0")))
    authorizer = backend.next("/in").json["requestContext"]["authorizer"]
    assert isinstance(authorizer.pop("integrationLatency"), int)
    assert authorizer == {"tenant": "acme", "plan": 2, "rate": 1.5, "beta": True, "text": "hé \"there\"",
                          "principalId": "user-42"}


def test_a_simple_answer_has_a_context_too(requests, backend):
    backend.answer("/authorize", 200, json.dumps({"isAuthorized": True, "context": NESTED}))
    backend.answer("/in", 200, '{"statusCode":200}')
    requests.knock(requests.gateway(simple_responses=True, route=proxy(backend.at("/in"), payload="event")))
    assert backend.next("/in").json["requestContext"]["authorizer"] == {"lambda": NESTED}


def test_backends_of_requests_get_headers_of_the_authorizer(requests, backend):
    backend.answer("/authorize", 200, policy(statement(), context={**FOUND, **NESTED}))
    requests.knock(requests.gateway(), ("X-Livegate-Authorizer-Admin", "true"), ("x_livegate_authorizer_tenant", "evil"))
    request = backend.next("/in")
    assert of_authorizer(request) == {
        "tenant": "acme", "plan": "2", "rate": "1.5", "beta": "true", "text": "h%C3%A9 \"there\"",
        "roles": '["a","b"]', "user": '{"level":3,"name":"Ada"}', "principalid": "user-42"}
    assert "evil" not in str(request.headers)


def test_the_name_of_a_context_key_makes_no_header_of_another_kind(requests, backend):
    context = {"a b": "1", "x:\r\ny": "2", "ü": "3", "": "4", "value": "a\r\nX-Evil: 1"}
    backend.answer("/authorize", 200, policy(statement(), context=context))
    assert requests.is_in(requests.knock(requests.gateway()))
    request = backend.next("/in")
    assert request.header("X-Evil") is None and of_authorizer(request)["value"] == "a%0D%0AX-Evil: 1"


def test_expressions_see_what_the_authorizer_found_out(livegate, backend):
    backend.answer("/authorize", 200, policy(statement(), context={**FOUND, "gone": "x"}))
    text = "${context.authorizer.principalId} ${context.authorizer.tenant} ${context.authorizer.plan} " \
           "${context.authorizer.beta} [${context.authorizer.nope}]"
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"}, "say": mock(text)},
        apis={"pets": pets({"GET /pets": {**says(text), "authorizer": "mine"}})},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    with gateway.connect() as client:
        assert client.asks(action="say") == "user-42 acme 2 true []"
    assert ask(gateway, "GET", "/pets").body == b"user-42 acme 2 true []"


def test_expressions_reach_into_a_nested_context(requests, backend):
    backend.answer("/authorize", 200, policy(statement(), context=NESTED))
    gateway = requests.gateway(route=says("${context.authorizer.user.name} ${context.authorizer.roles}"))
    assert requests.knock(gateway).body == b'Ada ["a","b"]'


def test_parameters_are_mapped_from_what_the_authorizer_found_out(requests, backend):
    backend.answer("/authorize", 200, policy(statement(), context=FOUND))
    mapped = {"overwrite:header.X-Tenant": "$context.authorizer.tenant",
              "append:querystring.plan": "$context.authorizer.plan"}
    requests.knock(requests.gateway(route=proxy(backend.at("/in"), request_parameters=mapped)))
    request = backend.next("/in")
    assert (request.header("X-Tenant"), request.query) == ("acme", "plan=2")


@pytest.mark.parametrize("context", [{"roles": ["a"]}, {"user": {}}, {"a": "fine", "b": []}])
def test_a_nested_context_is_a_failure_where_contexts_are_flat(livegate, backend, context):
    backend.answer("/authorize", 200, policy(statement(), context=context))
    for kind, settings in ((Sockets, {}), (Requests, {"payload_format": "1.0"}),
                           (Requests, {"event": "TOKEN", "identity_source": ["$request.header.Host"]})):
        door = kind(livegate, backend)
        assert door.is_refused(door.knock(door.gateway(**settings)), "failed"), (kind, settings)
    assert backend.seen("/in") == []


def test_without_an_authorizer_there_is_nothing_of_one(livegate, backend):
    backend.answer("/in", 200, '{"statusCode":200}')
    gateway = livegate(http_api({"GET /pets": proxy(backend.at("/in"), payload="event")}))
    ask(gateway, "GET", "/pets", [("X-Livegate-Authorizer-Admin", "true")])
    event = backend.next("/in").json
    assert "authorizer" not in event["requestContext"] and "true" not in event["headers"].values()


# What is remembered

TOKEN = ["$request.header.Authorization"]


def test_nothing_is_remembered_by_default(door, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = door.gateway(identity_source=TOKEN)
    for _ in range(3):
        assert door.is_in(door.knock(gateway, ("Authorization", "a")))
    assert len(backend.seen("/authorize")) == 3


def test_an_answer_is_remembered_by_the_callers_identity(requests, backend):
    backend.answers("/authorize", lambda request: Answer(
        body=policy(statement("Allow" if shows(request.json["headers"].items()) != "mallory" else "Deny"))))
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m")
    for _ in range(3):
        for name in ("alice", "bob"):
            assert requests.is_in(requests.knock(gateway, ("Authorization", name)))
        assert requests.is_refused(requests.knock(gateway, ("Authorization", "mallory")), "denied")
    assert len(backend.seen("/authorize")) == 3


def test_what_was_said_of_a_caller_to_one_stage_is_no_word_about_another(livegate, backend):
    backend.answers("/authorize", lambda request: Answer(
        body=policy(statement("Allow" if "/open/" in request.json["routeArn"] else "Deny"))))
    gateway = livegate(http_api({"GET /": {**says("in"), "authorizer": "mine"}}, stages={"open": {}, "shut": {}},
                                authorizers={"mine": {"type": "http", "uri": backend.at("/authorize"),
                                                      "identity_source": TOKEN, "ttl": "10m"}}))
    statuses = [ask(gateway, "GET", f"/{stage}/", [("Authorization", "a")]).status for stage in ("open", "shut") * 2]
    assert statuses == [200, 403] * 2
    assert len(backend.seen("/authorize")) == 2


def test_the_values_of_an_identity_are_not_run_together(requests, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(identity_source=["$request.header.A", "$request.header.B"], ttl="10m")
    for a, b in (("x,y", "z"), ("x", "y,z"), ("z", "x,y")):
        requests.knock(gateway, ("A", a), ("B", b))
    assert len(backend.seen("/authorize")) == 3


def routes_of(backend, *keys):
    return {key: {**says("in"), "authorizer": "mine"} for key in keys}


def test_an_answer_is_good_for_all_routes_of_the_authorizer(livegate, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = livegate(http_api(
        routes_of(backend, "GET /a", "POST /b"), apis={"other": pets(routes_of(backend, "GET /c"), base_path="/other")},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize"), "identity_source": TOKEN, "ttl": "10m"}}))
    for method, path in (("GET", "/a"), ("POST", "/b"), ("GET", "/other/c")):
        assert ask(gateway, method, path, [("Authorization", "a")]).status == 200
    assert len(backend.seen("/authorize")) == 2, "one for each API"


def test_with_the_route_key_as_a_source_each_route_has_its_own(livegate, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = livegate(http_api(routes_of(backend, "GET /a", "GET /b"), authorizers={
        "mine": {"type": "http", "uri": backend.at("/authorize"), "ttl": "10m",
                 "identity_source": [*TOKEN, "$context.routeKey"]}}))
    for path in ("/a", "/b", "/a", "/b"):
        assert ask(gateway, "GET", path, [("Authorization", "a")]).status == 200
    asked = [request.json["identitySource"] for request in backend.seen("/authorize")]
    assert asked == [["a", "GET /a"], ["a", "GET /b"]]


def test_a_remembered_policy_is_asked_anew_for_each_call(livegate, backend):
    """A narrow `Resource` opens its own path and no other, also from memory."""
    backend.answer("/authorize", 200, policy(statement(resource="*/GET/pets/7")))
    gateway = livegate(http_api(routes_of(backend, "ANY /pets/{id}"), authorizers={
        "mine": {"type": "http", "uri": backend.at("/authorize"), "identity_source": TOKEN, "ttl": "10m"}}))

    def status(method, path, source="127.0.0.1"):
        return ask(gateway.seen_from(source), method, path, [("Authorization", "a")]).status
    assert (status("GET", "/pets/7"), status("GET", "/pets/8"), status("DELETE", "/pets/7")) == (200, 403, 403)
    assert status("GET", "/pets/7") == 200
    assert len(backend.seen("/authorize")) == 1


def test_a_remembered_condition_is_about_the_caller_of_now(requests, backend):
    backend.answer("/authorize", 200, policy(statement(Condition={"IpAddress": {IP: "127.0.0.2"}})))
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m")
    assert requests.is_in(requests.knock(gateway.seen_from("127.0.0.2"), ("Authorization", "a")))
    assert requests.is_refused(requests.knock(gateway.seen_from("127.0.0.3"), ("Authorization", "a")), "not allowed")
    assert len(backend.seen("/authorize")) == 1


def test_a_remembered_answer_keeps_its_context(requests, backend):
    backend.answers("/authorize", Answer(body=policy(statement(), context={"number": 1})),
                    Answer(body=policy(statement(), context={"number": 2})))
    gateway = requests.gateway(route=says("${context.authorizer.number}"), identity_source=TOKEN, ttl="10m")
    assert [requests.knock(gateway, ("Authorization", name)).body for name in "aba"] == [b"1", b"2", b"1"]


def test_an_answer_is_forgotten_after_its_ttl(requests, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(identity_source=TOKEN, ttl="1s")

    def again():
        assert requests.is_in(requests.knock(gateway, ("Authorization", "a")))
        return len(backend.seen("/authorize")) - 1
    assert again() == 0 and again() == 0
    eventually(again, "the authorizer to be asked again")


@pytest.mark.parametrize("failure", [Answer(500), Answer(401), Answer(200, "garbage"), Answer(raw=b"")])
def test_a_failure_is_not_remembered(requests, backend, failure):
    backend.answers("/authorize", failure, failure, Answer(body=ALLOW))
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m")
    eventually(lambda: requests.is_in(requests.knock(gateway, ("Authorization", "a"))), "the authorizer to be asked again")


def test_a_reload_forgets_what_was_remembered(livegate, backend):
    backend.answers("/authorize", Answer(body=ALLOW), Answer(body=DENY))
    authorizer = {"type": "http", "uri": backend.at("/authorize"), "identity_source": TOKEN, "ttl": "10m"}

    def text(*more):
        return http_api(routes_of(backend, "GET /a", *more), authorizers={"mine": authorizer})
    gateway = livegate(text())
    assert ask(gateway, "GET", "/a", [("Authorization", "a")]).status == 200
    gateway.reload(text("GET /b"))
    assert ask(gateway, "GET", "/a", [("Authorization", "a")]).status == 403


def test_an_answer_for_a_request_makes_no_nested_context_of_a_handshake(livegate, backend):
    backend.answer("/authorize", 200, policy(statement(), context=NESTED))
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"}},
        apis={"pets": pets({"GET /pets": {**says("in"), "authorizer": "mine"}})},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize"), "identity_source": TOKEN, "ttl": "10m"}})
    assert ask(gateway, "GET", "/pets", [("Authorization", "a")]).status == 200
    assert gateway.knock(headers=[("Authorization", "a")]).status == 500
    assert backend.seen("/connect") == []


# Many at once


def get_pets(gateway, name):
    return f"GET /pets HTTP/1.1\r\nHost: {gateway.host}\r\nAuthorization: {name}\r\n\r\n".encode()


async def asks(gateway, name, sent=None):
    """The status of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection(*gateway.address)
    writer.write(get_pets(gateway, name))
    if sent:
        sent.release()
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1])


def test_1000_callers_of_one_identity_ask_once(requests, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m", route=says("in"))

    async def story():
        with backend.holding("/authorize") as hold:
            callers = [asyncio.create_task(asks(gateway, "a")) for _ in range(1000)]
            await asyncio.to_thread(backend.next, "/authorize")
            hold.release()
            return await asyncio.gather(*callers)
    assert set(asyncio.run(asyncio.wait_for(story(), 60))) == {200}
    assert len(backend.seen("/authorize")) == 1


def test_callers_of_another_identity_do_not_wait(requests, backend):
    let_go = threading.Event()

    def decide(request):
        if shows(request.json["headers"].items()) == "slow":
            let_go.wait(PATIENCE)
        return Answer(body=ALLOW)
    backend.answers("/authorize", decide)
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m", route=says("in"))

    async def story():
        slow = [asyncio.create_task(asks(gateway, "slow")) for _ in range(100)]
        await asyncio.to_thread(backend.next, "/authorize")
        quick = await asyncio.gather(*(asks(gateway, f"caller-{number}") for number in range(200)))
        assert set(quick) == {200} and not any(one.done() for one in slow)
        let_go.set()
        assert set(await asyncio.gather(*slow)) == {200}
    asyncio.run(asyncio.wait_for(story(), 60))
    assert len(backend.seen("/authorize")) == 201


def test_a_caller_that_leaves_breaks_nothing_for_the_others(requests, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m", route=says("in"))

    async def story():
        sent = asyncio.Semaphore(0)
        with backend.holding("/authorize") as hold, gateway.wire() as first:
            first.send(get_pets(gateway, "a"))
            await asyncio.to_thread(backend.next, "/authorize")
            others = [asyncio.create_task(asks(gateway, "a", sent)) for _ in range(50)]
            for _ in others:
                await sent.acquire()
            first.reset()
            await asyncio.to_thread(
                eventually, lambda: gateway.metric("livegate_requests_total", status="cancelled") == 1)
            hold.release()
            assert set(await asyncio.gather(*others)) == {200}
    asyncio.run(asyncio.wait_for(story(), 60))
    # The first's call, and perhaps that of one who took its place.
    assert 1 <= len(backend.seen("/authorize")) <= 2
    assert requests.is_in(requests.knock(gateway, ("Authorization", "a")))


def test_the_only_caller_may_leave_and_come_back(requests, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = requests.gateway(identity_source=TOKEN, ttl="10m", route=says("in"))
    with backend.holding("/authorize"):
        with gateway.wire() as leaver:
            leaver.send(get_pets(gateway, "a"))
            backend.next("/authorize")
            leaver.reset()
        eventually(lambda: gateway.metric("livegate_requests_total", status="cancelled") == 1)
    assert requests.is_in(requests.knock(gateway, ("Authorization", "a")))


def test_a_client_that_leaves_during_its_handshake_is_one_that_left(livegate, backend):
    """The backend said yes to a connection that nobody has any more: it is owed a `$disconnect`."""
    backend.answer("/authorize", 200, ALLOW)
    gateway = livegate(routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"},
                               "$disconnect": backend.at("/disconnect")},
                       authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    with backend.holding("/authorize"), gateway.wire() as leaver:
        leaver.send(handshake("/prod", gateway.host))
        backend.next("/authorize")
        leaver.reset()
    assert backend.next("/connect").connection_id == backend.next("/disconnect").connection_id
    assert gateway.is_well()


def test_nothing_is_sent_before_the_authorizer_has_answered(door, backend):
    backend.answer("/authorize", 200, DENY)
    gateway = door.gateway()
    with backend.holding("/authorize"), gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host) if isinstance(door, Sockets) else get_pets(gateway, "a"))
        backend.next("/authorize")
        assert backend.seen("/in") == [] and gateway.metric("livegate_connections_open") == 0
    assert door.is_refused(door.knock(gateway), "denied")


# Beside other things


def test_an_authorizer_names_the_api_key(livegate, backend):
    backend.answers("/authorize", *(Answer(body=policy(statement(), **more)) for more in (
        {"usageIdentifierKey": "a-key-of-acme-0123456789"}, {"usageIdentifierKey": "a-key-of-nobody-0123456789"}, {})))
    backend.answer("/in", 200, '{"statusCode":200}')
    route = {**proxy(backend.at("/in"), payload="event", payload_format="1.0"), "authorizer": "mine",
             "api_key_required": True}
    gateway = livegate(http_api(
        {"GET /pets": route}, api={"api_key_selection_expression": "$context.authorizer.usageIdentifierKey"},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}}, usage_plans={"gold": {}},
        api_keys={"acme": {"value": "a-key-of-acme-0123456789", "usage_plan": "gold"}}))
    assert ask(gateway, "GET", "/pets").status == 200
    identity = backend.next("/in").json["requestContext"]["identity"]
    assert (identity["apiKey"], identity["apiKeyId"]) == ("a-key-of-acme-0123456789", "acme")
    # A header is not where this API has its keys.
    for _ in range(2):
        assert is_error(ask(gateway, "GET", "/pets", [("x-api-key", "a-key-of-acme-0123456789")]), 403, "Forbidden")
    assert backend.seen("/in")[1:] == []


def test_a_pool_may_stand_for_the_authorizers_host(livegate, backend):
    backend.answer("/decide", 200, ALLOW)
    gateway = livegate(
        http_api({"GET /pets": {**says("in"), "authorizer": "mine"}},
                 authorizers={"mine": {"type": "http", "uri": "http://deciders/decide?of=pets"}},
                 backends={"deciders": {"servers": [backend.authority]}}))
    assert ask(gateway, "GET", "/pets").status == 200
    request = backend.next("/decide")
    assert request.query == "of=pets" and request.json["type"] == "REQUEST"


def test_one_authorizer_may_serve_apis_of_both_kinds(livegate, backend):
    backend.answer("/authorize", 200, ALLOW)
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"}},
        apis={"pets": pets({"GET /pets": {**says("in"), "authorizer": "mine"}})},
        authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    assert (gateway.knock().status, ask(gateway, "GET", "/pets").status) == (101, 200)
    handshake_event, request_event = (request.json for request in backend.seen("/authorize"))
    assert (handshake_event["methodArn"], request_event["routeArn"]) == (Sockets.arn, Requests.arn)


def test_refusals_of_an_authorizer_have_their_cors_headers_and_preflights_are_not_asked_about(livegate, backend):
    backend.answers("/authorize", Answer(401), Answer(body=DENY), Answer(500))
    origin = "https://app.example.com"
    gateway = livegate(http_api({"GET /pets": {**says("in"), "authorizer": "mine"}},
                                api={"cors": {"allow_origins": [origin], "allow_methods": ["GET"]}},
                                authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}}))
    preflight = [("Origin", origin), ("Access-Control-Request-Method", "GET")]
    assert ask(gateway, "OPTIONS", "/pets", preflight).status == 204 and backend.seen("/authorize") == []
    answers = [ask(gateway, "GET", "/pets", [("Origin", origin)]) for _ in range(3)]
    assert [answer.status for answer in answers] == [401, 403, 500]
    assert {answer.header("Access-Control-Allow-Origin") for answer in answers} == {origin}


def test_a_route_that_carries_sockets_on_asks_its_authorizer_first(livegate, backend):
    backend.answers("/authorize", Answer(body=DENY), Answer(body=ALLOW))
    backend.answer("/ws", raw=b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
    gateway = livegate(http_api({"GET /ws": {**proxy(backend.at("/ws")), "upgrade": True, "authorizer": "mine"}},
                                authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}}))
    refused_answer = gateway.knock("/ws")
    assert refused_answer.status == 403 and backend.seen("/ws") == []
    assert gateway.knock("/ws").status == 101
    assert of_authorizer(backend.next("/ws")) == {"principalid": "user-42"}


def test_a_refused_handshake_leaves_nothing_behind(livegate, backend):
    backend.answer("/authorize", 200, DENY)
    gateway = livegate(routes={"$connect": {**to(backend.at("/connect")), "authorizer": "mine"},
                               "$disconnect": backend.at("/disconnect")},
                       authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    assert gateway.knock().status == 403
    assert gateway.metric("livegate_connects_total", outcome="refused") == 1
    assert gateway.metric("livegate_refusals_total", cause="denied", api="chat", stage="prod") == 1
    assert gateway.metric("livegate_connections_open") == 0
    # A later disconnect is the only one there is.
    backend.answer("/authorize", 200, ALLOW)
    with gateway.connect() as client:
        mine = client.whoami()
    assert backend.next("/disconnect").connection_id == mine and len(backend.seen("/disconnect")) == 1


# What `livegate check` refuses


@pytest.mark.parametrize("settings, words", [
    ({"ttl": "5m"}, ["ttl", "identity_source"]), ({"ttl": "2h", "identity_source": TOKEN}, ["an hour"]),
    ({"event": "TOKEN"}, ["exactly one identity"]), ({"event": "TOKEN", "identity_source": BOTH}, ["exactly one"]),
    ({"event": "TOKEN", "identity_source": TOKEN, "simple_responses": True}, ["policy"]),
    ({"identity_validation_expression": "a"}, ["TOKEN"]),
    ({"event": "TOKEN", "identity_source": TOKEN, "identity_validation_expression": "a("}, ["regular expression"]),
    ({"simple_responses": True, "payload_format": "1.0"}, ["2.0"]), ({"payload_format": "3.0"}, ["2.0"]),
    ({"event": "REQUST"}, ["REQUEST"]), ({"identity_source": ["$request.body.token"]}, ["$request.header"]),
    ({"identity_source": ["Authorization"]}, ["$request.header.Authorization"]),
    ({"identity_source": ["$context.nope"]}, ["$context.routeKey"]),
    ({"identity_source": ["$stageVariables.nope"]}, ["nope"]), ({"timeout": "0s"}, ["timeout"]),
    ({"uri": "ftp://x/"}, ["http"]), ({"uri": "nowhere"}, ["http"]), ({"url": "http://x/"}, ["uri"]),
    ({"type": "lambda"}, ["http"]), ({"type": "htp"}, ["http"]),
])
def test_bad_authorizers_are_refused(tmp_path, settings, words):
    written = {"type": "http", "uri": "http://127.0.0.1:3000/authorize", **settings}
    text = http_api({"GET /pets": {**says("in"), "authorizer": "mine"}}, authorizers={"mine": written})
    refused(tmp_path, text, "routes.toml:", *words)
