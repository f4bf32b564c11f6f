"""`payload = "event"`: AWS's proxy events, key by key, and the proxy answers (contract/websocket.md section 3)."""

import base64
import json
import re
import time

import pytest

from messages import IN_ORDER, error_frame
from wire import BINARY, TEXT, close_frame, frame
from world import ID, to, two_way

CONTEXT = {"routeKey", "eventType", "extendedRequestId", "requestTime", "messageDirection", "stage", "connectedAt",
           "requestTimeEpoch", "identity", "requestId", "domainName", "connectionId", "apiId"}


def event_routes(backend):
    return {"$connect": to(backend.at("/connect"), payload="event"),
            "$disconnect": to(backend.at("/disconnect"), payload="event"),
            "send": two_way(backend.at("/send"), payload="event"),
            "quiet": to(backend.at("/quiet"), payload="event")}


@pytest.fixture
def gateway(livegate, backend):
    return livegate(routes=event_routes(backend))


def check_context(gateway, context, route_key, event_type):
    """What the three kinds of event share."""
    assert (context["routeKey"], context["eventType"]) == (route_key, event_type)
    assert (context["apiId"], context["stage"], context["messageDirection"]) == ("chat", "prod", "IN")
    assert context["domainName"] == gateway.host
    assert re.fullmatch(ID, context["connectionId"]) and re.fullmatch(ID, context["requestId"])
    assert context["extendedRequestId"] == context["requestId"]
    assert re.fullmatch(r"\d\d/(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/\d{4}:\d\d:\d\d:\d\d \+0000", context["requestTime"])
    for moment in (context["connectedAt"], context["requestTimeEpoch"]):
        assert isinstance(moment, int) and abs(moment / 1000 - time.time()) < 60
    assert 0 <= context["requestTimeEpoch"] - context["connectedAt"] < 60_000
    assert context["requestTime"] == time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(context["requestTimeEpoch"] // 1000))


def test_the_connect_event(gateway, backend):
    gateway.open("/prod?room=blue&tag=a&tag=b&text=h%C3%A9", headers=[
        ("user-agent", "mine/1"), ("x-mine", "one"), ("X-Mine", "two"), ("Sec-WebSocket-Protocol", "chat.v2, chat.v1")])
    request = backend.next("/connect")
    event = request.json
    assert request.method == "POST" and request.header("Content-Type").startswith("application/json")
    assert set(event) == {"headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters",
                          "requestContext", "isBase64Encoded"}
    assert event["isBase64Encoded"] is False
    assert event["queryStringParameters"] == {"room": "blue", "tag": "b", "text": "hé"}
    assert event["multiValueQueryStringParameters"] == {"room": ["blue"], "tag": ["a", "b"], "text": ["hé"]}
    headers = dict(event["headers"])
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", headers.pop("X-Amzn-Trace-Id"))
    assert headers == {
        "Host": gateway.host, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "chat.v2, chat.v1",
        "Sec-WebSocket-Version": "13", "User-Agent": "mine/1", "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Port": str(gateway.port), "X-Forwarded-Proto": "http", "X-Mine": "two"}
    single = {name: [value] for name, value in event["headers"].items()}
    assert event["multiValueHeaders"] == {**single, "X-Mine": ["one", "two"]}
    assert list(event["headers"]) == sorted(event["headers"], key=str.lower)
    assert set(event["requestContext"]) == CONTEXT
    assert event["requestContext"]["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "mine/1"}
    check_context(gateway, event["requestContext"], "$connect", "CONNECT")


def test_the_smallest_connect_event(gateway, backend):
    gateway.open()
    event = backend.next("/connect").json
    assert set(event) == {"headers", "multiValueHeaders", "requestContext", "isBase64Encoded"}
    assert event["requestContext"]["identity"] == {"sourceIp": "127.0.0.1"}


def test_the_message_event(gateway, backend):
    text = '{"action":"send", "room":"blue","text":"h\u00e9llo"}'
    with gateway.open(headers=[("User-Agent", "mine/1")]) as wire:
        wire.send(frame(TEXT, text))
        event = backend.next("/send").json
    connect = backend.next("/connect").json["requestContext"]
    assert set(event) == {"requestContext", "body", "isBase64Encoded"}
    assert (event["body"], event["isBase64Encoded"]) == (text, False)
    context = event["requestContext"]
    assert set(context) == CONTEXT | {"messageId"}
    assert context["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "mine/1"}
    assert re.fullmatch(ID, context["messageId"]) and context["messageId"] != context["requestId"]
    assert (context["connectionId"], context["connectedAt"]) == (connect["connectionId"], connect["connectedAt"])
    check_context(gateway, context, "send", "MESSAGE")


def test_the_disconnect_event(gateway, backend):
    with gateway.open() as wire:
        wire.send(close_frame(3001, "bye"))
        assert wire.frame().close[0] == 3001
    event, connect = backend.next("/disconnect").json, backend.next("/connect").json["requestContext"]
    headers = {"Host": gateway.host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
    assert set(event) == {"headers", "multiValueHeaders", "requestContext", "isBase64Encoded"}
    assert event["headers"] == headers and event["isBase64Encoded"] is False
    assert event["multiValueHeaders"] == {name: [value] for name, value in headers.items()}
    context = event["requestContext"]
    assert set(context) == CONTEXT | {"disconnectStatusCode", "disconnectReason"}
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (3001, "bye")
    assert (context["connectionId"], context["connectedAt"]) == (connect["connectionId"], connect["connectedAt"])
    check_context(gateway, context, "$disconnect", "DISCONNECT")


def test_stage_variables_are_in_every_event(livegate, backend):
    gateway = livegate(routes=event_routes(backend), stage={"stage_variables": {"table": "rooms"}})
    with gateway.connect() as client:
        client.says(action="quiet")
        backend.next("/quiet")
    for path in ("/connect", "/quiet", "/disconnect"):
        assert backend.wait_for(path)[0].json["stageVariables"] == {"table": "rooms"}


def test_a_binary_message_is_base64_in_its_event(livegate, backend):
    gateway = livegate(stage={"binary": True}, routes={"$default": to(backend.at("/send"), payload="event")})
    with gateway.open() as wire:
        wire.send(frame(BINARY, b"\x00\xff\x80"))
        event = backend.next("/send").json
    assert (event["body"], event["isBase64Encoded"]) == (base64.b64encode(b"\x00\xff\x80").decode(), True)


# What the backend's proxy answer becomes


@pytest.mark.parametrize("answer", [
    {"statusCode": 200, "body": "hi"},
    {"statusCode": 500, "body": "hi"},
    {"statusCode": 200, "headers": {"X": "y"}, "multiValueHeaders": {"X": ["y"]}, "body": "hi", "isBase64Encoded": False},
    {"statusCode": 200, "body": base64.b64encode(b"hi").decode(), "isBase64Encoded": True},
])
def test_the_body_of_a_proxy_answer_is_the_frame(gateway, backend, answer):
    backend.answer("/send", 200, json.dumps(answer))
    with gateway.connect() as client:
        assert client.asks(action="send") == "hi"


@pytest.mark.parametrize("body", ["", '{"statusCode":200}', '{"statusCode":500}', '{"statusCode":200,"body":""}'])
def test_an_answer_without_a_body_or_an_empty_one_is_no_frame(livegate, backend, body):
    backend.answer("/send", 200, body)
    gateway = livegate(stage=IN_ORDER, routes={"send": two_way(backend.at("/send"), payload="event")})
    with gateway.connect() as client:
        client.says(action="send")
        assert re.fullmatch(ID, client.whoami())


MALFORMED = ["not json", "null", '"hi"', "[]", "{}", '{"body":"hi"}', '{"statusCode":"200"}', '{"statusCode":200.5}',
             '{"statusCode":200,"body":5}', '{"statusCode":200,"body":{"a":1}}', '{"statusCode":200,"ConnectionId":"x"}',
             '{"statusCode":200,"body":"***","isBase64Encoded":true}']


@pytest.mark.parametrize("route", ["send", "quiet"])
@pytest.mark.parametrize("body", MALFORMED)
def test_a_malformed_answer_is_an_internal_server_error(gateway, backend, body, route):
    backend.answer(f"/{route}", 200, body)
    with gateway.connect() as client:
        assert re.fullmatch(error_frame("Internal server error"), client.asks(action=route))
        assert re.fullmatch(ID, client.whoami())


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_any_other_transport_status_is_a_function_error(gateway, backend, status):
    backend.answer("/send", status, '{"statusCode":200,"body":"hi"}')
    with gateway.connect() as client:
        assert re.fullmatch(error_frame("Internal server error"), client.asks(action="send"))


def test_base64_that_is_not_utf8_is_an_internal_server_error(gateway, backend):
    backend.answer("/send", 200, json.dumps({"statusCode": 200, "body": base64.b64encode(b"\xff\xfe").decode(), "isBase64Encoded": True}))
    with gateway.connect() as client:
        assert re.fullmatch(error_frame("Internal server error"), client.asks(action="send"))


def test_with_binary_base64_that_is_not_utf8_is_a_binary_frame(livegate, backend):
    backend.answer("/send", 200, json.dumps({"statusCode": 200, "body": base64.b64encode(b"\xff\xfe").decode(), "isBase64Encoded": True}))
    gateway = livegate(stage={"binary": True}, routes=event_routes(backend))
    with gateway.open() as wire:
        wire.says(action="send")
        got = wire.frame()
        assert (got.opcode, got.payload) == (BINARY, b"\xff\xfe")


# $connect


@pytest.mark.parametrize("body", ["", '{"statusCode":200}', '{"statusCode":204}', '{"statusCode":200,"body":"welcome"}'])
def test_a_2xx_answer_opens(gateway, backend, body):
    backend.answer("/connect", 200, body)
    assert gateway.is_well()


def test_another_status_code_is_passed_on_with_its_body(gateway, backend):
    backend.answer("/connect", 200, '{"statusCode":403,"body":"no room","headers":{"Content-Type":"text/plain"}}')
    refused = gateway.knock()
    assert (refused.status, refused.body, refused.header("Content-Type")) == (403, b"no room", "text/plain")


def test_the_answers_headers_choose_the_subprotocol(gateway, backend):
    backend.answer("/connect", 200, '{"statusCode":200,"headers":{"sec-websocket-PROTOCOL":"chat.v1"}}')
    with gateway.connect(subprotocols=["chat.v2", "chat.v1"]) as client:
        assert client.subprotocol == "chat.v1"


@pytest.mark.parametrize("body", MALFORMED)
def test_a_malformed_answer_refuses_with_502(gateway, backend, body):
    backend.answer("/connect", 200, body)
    assert gateway.knock().error == (502, "InternalServerErrorException", '{"message":"Internal server error"}')


@pytest.mark.parametrize("status", [302, 403, 500])
def test_any_other_transport_status_refuses_with_502(gateway, backend, status):
    backend.answer("/connect", status, '{"statusCode":200}')
    assert gateway.knock().status == 502
