"""`payload = "event"` on HTTP routes: AWS's events field by field, and what becomes of a handler's answer
(contract/http-api.md sections 3 and 4); and what `livegate check` and `livegate routes` say of HTTP APIs."""

import base64
import json
import re
import time

import pytest

from backend import Answer
from http_apis import REQUEST_ID, ask, checked, http_api, is_error, lines_of, pets, proxy, refused, says
from world import chat, mock, run

TRACE_ID = r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}"
SENT = [("Accept", "application/json"), ("Content-Type", "application/json"), ("User-Agent", "demo/1.0"),
        ("X-Multi", "one"), ("x-multi", "two"), ("Cookie", "sid=abc; theme=dark"), ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"), ("X-Livegate-Api", "forged")]


def handler(event, _context):
    """A Lambda function, as it stands in many repositories."""
    if event["version"] == "2.0":
        method, path = event["requestContext"]["http"]["method"], event["rawPath"]
    else:
        method, path = event["httpMethod"], event["path"]
    body = event.get("body") or ""
    if event["isBase64Encoded"]:
        body = base64.b64decode(body).decode("latin-1")
    return {
        "statusCode": 201, "headers": {"content-type": "application/json"},
        "body": json.dumps({"method": method, "path": path, "got": body})
    }


class Function:
    """A function behind any HTTP server: it is posted an event, and gives back what `answer` says."""
    def __init__(self, livegate, backend, version):
        self._livegate, self._backend, self.version = livegate, backend, version
        self.answer = {"statusCode": 200}
        backend.answers("/function", lambda request: Answer(body=self._said(request)))

    def _said(self, request):
        answer = self.answer(request.json, None) if callable(self.answer) else self.answer
        return answer if isinstance(answer, (str, bytes)) else json.dumps(answer)

    def gateway(self, *keys, **parts):
        route = proxy(self._backend.at("/function"), payload="event", payload_format=self.version)
        return self._livegate(http_api({key: route for key in keys or ("$default", )}, **parts))

    def event(self):
        request = self._backend.next("/function")
        assert request.method == "POST" and request.header("Content-Type").startswith("application/json")
        event = request.json
        assert event["version"] == self.version
        return event


@pytest.fixture
def function(livegate, backend):
    return Function(livegate, backend, "2.0")


@pytest.fixture
def older(livegate, backend):
    return Function(livegate, backend, "1.0")


@pytest.fixture(params=["1.0", "2.0"])
def either(livegate, backend, request):
    return Function(livegate, backend, request.param)


def check_time(text, milliseconds):
    assert isinstance(milliseconds, int) and abs(milliseconds / 1000 - time.time()) < 60
    assert text == time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(milliseconds // 1000))


# Format 2.0


def test_the_event_in_format_2_0(function):
    gateway = function.gateway("POST /orders/{orderId}", stage={"stage_variables": {"backend": "blue"}})
    body = '{"qty": 3, "a":1}'
    answer = ask(gateway, "POST", "/orders/42%20b?tag=red&tag=blue&q=x%20y", SENT, body)
    event = function.event()
    context, headers = event.pop("requestContext"), event.pop("headers")
    assert event == {
        "version": "2.0", "routeKey": "POST /orders/{orderId}", "rawPath": "/orders/42 b",
        "rawQueryString": "tag=red&tag=blue&q=x%20y", "cookies": ["sid=abc", "theme=dark"],
        "queryStringParameters": {"tag": "red,blue", "q": "x y"}, "pathParameters": {"orderId": "42 b"},
        "stageVariables": {"backend": "blue"}, "body": body, "isBase64Encoded": False
    }
    assert re.fullmatch(TRACE_ID, headers.pop("x-amzn-trace-id"))
    headers.pop("forwarded", None)
    assert headers == {
        "accept": "application/json", "content-length": str(len(body)), "content-type": "application/json",
        "host": gateway.host, "user-agent": "demo/1.0", "x-forwarded-for": "127.0.0.1",
        "x-forwarded-port": str(gateway.port), "x-forwarded-proto": "http", "x-multi": "one,two"
    }
    check_time(context.pop("time"), context.pop("timeEpoch"))
    assert re.fullmatch(REQUEST_ID,
                        context["requestId"]) and context.pop("requestId") == answer.header("apigw-requestid")
    assert context.pop("domainPrefix") == gateway.host.split(".")[0]
    assert re.fullmatch(r"\d{12}", context.pop("accountId"))
    assert context == {
        "apiId": "pets", "domainName": gateway.host, "routeKey": "POST /orders/{orderId}", "stage": "$default",
        "http": {
            "method": "POST", "path": "/orders/42 b", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
            "userAgent": "demo/1.0"
        }
    }


def test_the_smallest_event_in_format_2_0_has_nothing_empty(function):
    gateway = function.gateway()
    ask(gateway, "GET", "/")
    event = function.event()
    assert set(event) == {
        "version", "routeKey", "rawPath", "rawQueryString", "headers", "requestContext", "isBase64Encoded"
    }
    assert (event["routeKey"], event["rawPath"], event["rawQueryString"], event["isBase64Encoded"]) == ("$default", "/",
                                                                                                        "", False)
    assert event["requestContext"]["http"]["userAgent"] == ""


@pytest.mark.parametrize("sent, shown", [
    ("?a=1&a=2&b=%26&c=x+y&flag", {"a": "1,2", "b": "&", "c": "x y", "flag": ""}), ("?A=1&a=2", {"A": "1", "a": "2"}),
    ("?q=h%C3%A9", {"q": "hé"}), ("?a=x,y&a=z", {"a": "x,y,z"}),
])
def test_the_query_in_format_2_0(function, sent, shown):
    ask(function.gateway(), "GET", "/x" + sent)
    event = function.event()
    assert (event["rawQueryString"], event["queryStringParameters"]) == (sent[1:], shown)


def test_cookies_of_several_lines_in_format_2_0(function):
    ask(function.gateway(), "GET", "/", [("Cookie", "a=1;b=2"), ("Cookie", 'c="x y"')])
    event = function.event()
    assert event["cookies"] == ["a=1", "b=2", 'c="x y"'] and "cookie" not in event["headers"]


def test_the_paths_of_a_stage_in_format_2_0(function):
    gateway = function.gateway("GET /a/{proxy+}", "$default", stages={"prod": {}}, api={"base_path": "/shop"})
    ask(gateway, "GET", "/shop/prod/a/x%2Fy/%C3%A9/")
    event = function.event()
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/prod/a/x/y/é/"
    assert (event["pathParameters"], event["requestContext"]["stage"]) == ({"proxy": "x/y/é/"}, "prod")
    ask(gateway, "GET", "/shop/prod")
    event = function.event()
    assert event["rawPath"] == "/prod" and event["routeKey"] == "$default"


@pytest.mark.parametrize("base_path, path", [("", "/orders"), ("/v1", "/v1/orders")])
def test_a_domain_that_names_its_stage_shows_it_in_the_path(function, base_path, path):
    """Contract section 10: `/<stage>/…` for a named stage, the mapping's key removed."""
    gateway = function.gateway("GET /orders",
                               stages={"prod": {}},
                               api={
                                   "domains": [{
                                       "host": "pets.example.com", "stage": "prod",
                                       **({"base_path": base_path} if base_path else {})
                                   }]
                               })
    ask(gateway, "GET", path, host="pets.example.com")
    event = function.event()
    assert event["requestContext"]["stage"] == "prod"
    assert (event["requestContext"]["domainName"], event["requestContext"]["domainPrefix"]) == ("pets.example.com",
                                                                                                "pets")
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/prod/orders"


def test_a_forged_host_is_in_no_event(either):
    ask(either.gateway(gateway={"callback_url": "http://gateway.example:9000"}), "GET", "/", host="evil.example")
    event = either.event()
    assert event["requestContext"]["domainName"] == "gateway.example:9000"
    assert "evil.example" not in json.dumps(event)


@pytest.mark.parametrize("content_type, body, is_base64", [
    ("application/json", b"{}", False), ("application/json; charset=utf-8", b"{}", False), ("text/plain", b"hi", False),
    ("TEXT/CSV", b"a,b", False), ("application/xml", b"<a/>", False), ("application/javascript", b"1", False),
    ("application/problem+json", b"{}", False), ("image/svg+xml", b"<svg/>", False), (None, b"hi", False),
    ("text/plain", "hé€".encode(), False), ("application/octet-stream", b"hi", True),
    ("application/x-www-form-urlencoded", b"a=1&b=2", True), ("multipart/form-data; boundary=x", b"--x--", True),
    ("image/png", b"\x89PNG\x00", True), ("text/plain", b"\xff\xfe", True),
])
def test_a_body_is_text_or_base64(either, content_type, body, is_base64):
    ask(either.gateway(), "POST", "/", [("Content-Type", content_type)] if content_type else [], body)
    event = either.event()
    assert event["isBase64Encoded"] is is_base64
    assert event["body"] == (base64.b64encode(body).decode() if is_base64 else body.decode())


def test_a_body_in_pieces_is_whole_in_its_event(either):
    gateway = either.gateway()
    with gateway.wire() as wire:
        wire.send(f"POST / HTTP/1.1\r\nHost: {gateway.host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode())
        wire.send(b"3\r\ndef\r\n0\r\n\r\n")
        assert wire.response().status == 200
    event = either.event()
    headers = {name.lower(): value for name, value in event["headers"].items()}
    assert (event["body"], headers["content-length"]) == ("abcdef", "6") and "transfer-encoding" not in headers


def test_mapped_headers_are_in_the_event(livegate, backend):
    """Contract section 7 is for functions as well: they see the request as it was mapped."""
    backend.answer("/function", 200, '{"statusCode":200}')
    gateway = livegate(
        http_api({
            "GET /pets/{id}": proxy(backend.at("/function"),
                                    payload="event",
                                    request_parameters={
                                        "overwrite:header.X-Pet": "$request.path.id", "remove:header.X-Gone": "",
                                        "append:querystring.tag": "new"
                                    })
        }))
    ask(gateway, "GET", "/pets/7?tag=old", [("X-Gone", "1")])
    event = backend.next("/function").json
    assert event["headers"].get("x-pet") == "7" and "x-gone" not in event["headers"]
    assert event["queryStringParameters"] == {"tag": "old,new"}


# Format 1.0


def test_the_event_in_format_1_0(older):
    gateway = older.gateway("GET /orders/{orderId}")
    answer = ask(gateway, "GET", "/orders/42%20b?tag=red&tag=blue", SENT)
    event = older.event()
    context, headers, multi = event.pop("requestContext"), event.pop("headers"), event.pop("multiValueHeaders")
    assert event == {
        "version": "1.0", "resource": "/orders/{orderId}", "path": "/orders/42%20b", "httpMethod": "GET",
        "queryStringParameters": {"tag": "blue"}, "multiValueQueryStringParameters": {"tag": ["red", "blue"]},
        "pathParameters": {"orderId": "42 b"}, "stageVariables": None, "body": None, "isBase64Encoded": False
    }
    assert re.fullmatch(TRACE_ID, headers["X-Amzn-Trace-Id"])
    assert multi == {**{name: [value] for name, value in headers.items()}, "X-Multi": ["one", "two"]}
    headers.pop("Forwarded", None)
    assert headers == {
        "Accept": "application/json", "Content-Length": "0", "Content-Type": "application/json",
        "Cookie": "sid=abc; theme=dark", "Host": gateway.host, "User-Agent": "demo/1.0",
        "X-Amzn-Trace-Id": headers["X-Amzn-Trace-Id"], "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Port": str(gateway.port), "X-Forwarded-Proto": "http", "X-Multi": "two"
    }
    check_time(context.pop("requestTime"), context.pop("requestTimeEpoch"))
    assert context.pop("requestId") == context.pop("extendedRequestId") == answer.header("apigw-requestid")
    assert re.fullmatch(r"\d{12}", context.pop("accountId"))
    assert context.pop("domainPrefix") == gateway.host.split(".")[0]
    nobody = [
        "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
        "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "user", "userArn"
    ]
    assert context == {
        "apiId": "pets", "domainName": gateway.host, "httpMethod": "GET", "path": "/orders/42 b",
        "protocol": "HTTP/1.1", "resourceId": "GET /orders/{orderId}", "resourcePath": "/orders/{orderId}",
        "stage": "$default", "identity": {**dict.fromkeys(nobody), "sourceIp": "127.0.0.1", "userAgent": "demo/1.0"}
    }


def test_the_smallest_event_in_format_1_0_has_nulls(older):
    ask(older.gateway(), "GET", "/")
    event = older.event()
    assert {name
            for name, value in event.items() if value is None} == {
                "queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables", "body"
            }
    assert (event["resource"], event["requestContext"]["resourceId"],
            event["requestContext"]["identity"]["userAgent"]) == ("$default", "$default", "")


def test_the_paths_of_a_stage_in_format_1_0(older):
    gateway = older.gateway("ANY /a/{proxy+}", stages={"prod": {"stage_variables": {"x": "1"}}})
    ask(gateway, "PATCH", "/prod/a/x%2Fy/%C3%A9")
    event = older.event()
    assert (event["path"], event["requestContext"]["path"]) == ("/prod/a/x%2Fy/%C3%A9", "/prod/a/x/y/é")
    assert (event["pathParameters"], event["stageVariables"], event["httpMethod"]) == ({"proxy": "x/y/é"}, {"x": "1"},
                                                                                       "PATCH")


# What becomes of an answer


def test_an_unmodified_handler_works_in_either_format(either):
    either.answer = handler
    answer = ask(either.gateway(), "PUT", "/pets/7", [("Content-Type", "image/x")], b"\x00\xff")
    assert (answer.status, answer.header("Content-Type")) == (201, "application/json")
    assert answer.json == {"method": "PUT", "path": "/pets/7", "got": "\x00\xff"}


PLAIN, JSON = "text/plain; charset=utf-8", "application/json"


@pytest.mark.parametrize("answer, status, content_type, body", [
    ({"statusCode": 200}, 200, PLAIN, b""), ("", 200, PLAIN, b""),
    ({"statusCode": 404, "body": "no"}, 404, PLAIN, b"no"),
    ({"statusCode": 200, "body": '{"a":"é"}', "headers": {"Content-Type": JSON}}, 200, JSON, '{"a":"é"}'.encode()),
    ({"statusCode": 200, "body": "AP8=", "isBase64Encoded": True, "headers": {"content-type": "image/x"}},
     200, "image/x", b"\x00\xff"),
    ({"statusCode": 200, "body": "aGk=", "isBase64Encoded": False}, 200, PLAIN, b"aGk="),
    ({"statusCode": 200, "body": None, "headers": None}, 200, PLAIN, b""),
    ({"statusCode": 503, "body": "mine"}, 503, PLAIN, b"mine"),
    ({"statusCode": 302, "headers": {"Location": "/x"}}, 302, PLAIN, b""),
])
def test_an_envelope_says_status_headers_and_body(either, answer, status, content_type, body):
    either.answer = answer
    got = ask(either.gateway(), "GET", "/")
    assert (got.status, got.header("Content-Type"), got.body) == (status, content_type, body)
    assert re.fullmatch(REQUEST_ID, got.header("apigw-requestid"))


def test_headers_of_an_envelope_are_made_text(either):
    either.answer = {
        "statusCode": 200,
        "headers": {"X-Number": 5, "X-True": True, "X-List": "a, b", "Content-Length": "999",
                    "Connection": "close"}, "body": "four"
    }
    got = ask(either.gateway(), "GET", "/")
    assert (got.header("X-Number"), got.header("X-True"), got.header("X-List"), got.body) == ("5", "true", "a, b",
                                                                                              b"four")
    assert got.header("Content-Length") == "4"


def test_cookies_are_lines_of_their_own_in_format_2_0(function):
    function.answer = {
        "statusCode": 200, "cookies": ["sid=abc; HttpOnly", "theme=dark"], "multiValueHeaders": {"X-No": ["1"]}
    }
    got = ask(function.gateway(), "GET", "/")
    assert lines_of(got, "Set-Cookie") == ["sid=abc; HttpOnly", "theme=dark"] and got.header("X-No") is None


def test_multi_value_headers_follow_the_single_one_in_format_1_0(older):
    older.answer = {
        "statusCode": 200, "headers": {"X-Tag": "one"},
        "multiValueHeaders": {"X-Tag": ["two", "three"], "Set-Cookie": ["a=1", "b=2"]}, "cookies": ["c=3"]
    }
    got = ask(older.gateway(), "GET", "/")
    assert lines_of(got, "X-Tag") == ["one", "two", "three"] and lines_of(got, "Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("answer, body", [
    ('{"pets": [1,  2]}', '{"pets": [1,  2]}'), ("[1, 2]", "[1, 2]"), ("42", "42"), ("true", "true"), ("null", "null"),
    ("{}", "{}"), ('"test"', "test"), ('""', ""), (r'"a \"b\" \u00e9"', 'a "b" é'),
    ('{"headers":{"X":"y"},"body":"z"}', '{"headers":{"X":"y"},"body":"z"}'),
    ('{"StatusCode":404}', '{"StatusCode":404}'), ('{"nested":{"statusCode":404}}', '{"nested":{"statusCode":404}}'),
])
def test_json_without_a_status_code_is_the_body_in_format_2_0(function, answer, body):
    function.answer = answer
    got = ask(function.gateway(), "GET", "/")
    assert (got.status, got.header("Content-Type"), got.body.decode(), got.header("X")) == (200, JSON, body, None)


WRONG = [
    '{"statusCode":200.5}', '{"statusCode":0}', '{"statusCode":"nope"}', '{"statusCode":null}', '{"statusCode":101}',
    '{"statusCode":600}', '{"statusCode":200,"body":{}}', '{"statusCode":200,"headers":[]}',
    '{"statusCode":200,"headers":{"X":{}}}', '{"statusCode":200,"body":"***","isBase64Encoded":true}',
    r'{"statusCode":200,"headers":{"X":"a\r\nX-Evil: 1"}}', '{"statusCode":200,"headers":{"a b":"c"}}'
]


@pytest.mark.parametrize("answer", WRONG)
def test_a_malformed_envelope_is_500(either, answer):
    either.answer = answer
    got = ask(either.gateway(), "GET", "/")
    assert is_error(got, 500, "Internal Server Error") and got.header("X-Evil") is None


@pytest.mark.parametrize("answer", ["{}", '{"body":"x"}', "null", '"test"', "[]", "not json"])
def test_in_format_1_0_only_an_envelope_will_do(older, answer):
    older.answer = answer
    assert is_error(ask(older.gateway(), "GET", "/"), 500, "Internal Server Error")


@pytest.mark.parametrize("status", [301, 400, 404, 500, 502])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_any_other_transport_status_is_a_function_error(livegate, backend, version, status):
    function = Function(livegate, backend, version)
    backend.answer("/function", status, '{"statusCode":200,"body":"hi"}')
    assert is_error(ask(function.gateway(), "GET", "/"), 500, "Internal Server Error")


def test_an_answer_to_head_has_no_body(either):
    either.answer = {"statusCode": 200, "body": "four"}
    gateway = either.gateway()
    with gateway.wire() as wire:
        for _ in range(2):
            wire.send(f"HEAD / HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode())
            got = wire.response(to="HEAD")
            assert (got.status, got.header("Content-Length")) == (200, "4")


def test_2_0_is_the_default_format(livegate, backend):
    gateway = livegate(http_api({"GET /": proxy(backend.at("/function"), payload="event")}))
    ask(gateway, "GET", "/")
    assert backend.next("/function").json["version"] == "2.0"


# `livegate check` and `livegate routes`

X = "http://127.0.0.1:3000/x"


@pytest.mark.parametrize("routes, words", [
    ({"GET /pets/{id}": X, "GET /pets/{name}": X}, ["`GET /pets/{name}` matches", "as `GET /pets/{id}`"]),
    ({"ANY /a/{x+}": X, "ANY /a/{y+}": X}, ["matches the same requests"]), ({"GET /pets/:id": X}, ["`:id`", "{id}"]),
    ({"GET /pets/*": X}, ["{proxy+}"]), ({"GET /pets/<id>": X}, ["{id}"]),
    ({"GET /{proxy+}/x": X}, ["{proxy+}", "last"]), ({"GET /{id}/{id}": X}, ["two variables"]),
    ({"GET /pets/x{id}": X}, ["no variable"]), ({"GET pets": X}, ["GET /pets"]), ({"/pets": X}, ["GET /pets"]),
    ({"get /pets": X}, ["GET /pets"]), ({"FETCH /pets": X}, ["FETCH"]), ({"GET  /pets": X}, ["GET /pets"]),
    ({"GET /a//b": X}, ["/a/b"]), ({"GET /a/../b": X}, [".."]), ({"GET /pets?x=1": X}, ["query"]),
    ({"$connect": X}, ["$connect", "$default"]), ({"$defualt": X}, ["$default"]),
    ({"GET /pets/{id}": "http://127.0.0.1:3000/{nme}"}, ["`{nme}` is no variable of the route key"]),
    ({"GET /pets/{id}": "http://127.0.0.1:3000/{ids}"}, ["did you mean `{id}`?"]),
    ({"GET /f/{proxy+}": "http://127.0.0.1:3000/{proxy+}"}, ["write `{proxy}` here"]),
    ({"GET /pets": "http://127.0.0.1:3000/${stageVariables.nope}"}, ["nope"]),
    ({"GET /pets": "http://127.0.0.1:3000/${context.stage}"}, ["context.stage"]),
    ({"GET /pets": "ftp://127.0.0.1/"}, ["http"]), ({"GET /pets": proxy(X, method="get")}, ["`get`"]),
    ({"GET /pets": proxy(X, payload_format="3.0")}, ["2.0"]), ({"GET /pets": proxy(X, timeout="0s")}, ["timeout"]),
    ({"GET /pets": {**proxy(X), "route_response": True}}, ["route_response"]),
    ({"GET /pets": says("${context.connectionId}")}, ["WebSocket", "connectionId"]),
    ({"GET /pets": says("${request.path.id}")}, ["`{id}` is not in the route key"]),
    ({"GET /pets": says("x", status=204)}, ["204"]), ({"GET /pets": {**says("x"), "upgrade": True}}, ["upgrade"]),
])
def test_bad_routes_are_refused(tmp_path, routes, words):
    refused(tmp_path, http_api(routes), "routes.toml:", *words)


@pytest.mark.parametrize("text, words", [
    (http_api({"$default": X}, api={"route_selection_expression": "$request.body.x"}), ["route_selection"]),
    (http_api({"$default": X}, api={"connections_api": {"authorization": "none"}}), ["connections_api"]),
    (chat(routes={"send": proxy(X, payload_format="2.0")}), ["payload_format"]),
    (chat(routes={"send": proxy(X, response_parameters={"200": {"overwrite:header.X": "1"}})}), ["response_param"]),
    (chat(routes={"send": proxy(X, method="GET")}), ["method"]),
    (chat(routes={"send": {**proxy(X), "upgrade": True}}), ["upgrade"]),
    (http_api({"$default": X}, api={"protocol": "htp"}), ["http"]),
    (http_api({"$default": X}, apis={"other": pets({"$default": X})}), ["would both answer"]),
    (http_api({"$default": X}, stages={"a": {}}, apis={"other": pets({"$default": X}, {"a": {}})}),
     ["would both answer"]),
    (http_api({"$default": X}, api={"base_path": "shop"}), ["base_path"]),
    (http_api({"$default": X}, api={"domains": [{"host": "a.example", "stage": "nope"}]}), ["nope"]),
])
def test_keys_of_the_other_protocol_and_clashes_are_refused(tmp_path, text, words):
    refused(tmp_path, text, "routes.toml:", *words)


def test_every_problem_is_shown_with_its_line(tmp_path):
    text = http_api({"GET /a/:id": X, "GET /b": "http://127.0.0.1:3000/{nope}", "GET /c": X, "get /d": X})
    report = refused(tmp_path, text)
    lines = text.splitlines()
    for wanted in (':id', "{nope}", "get /d"):
        number = 1 + next(index for index, line in enumerate(lines) if wanted in line)
        assert f"routes.toml:{number}:" in report, report


def test_http_and_websocket_apis_may_share_an_address(tmp_path):
    code, report = checked(tmp_path, chat(apis={"pets": pets({"GET /pets": X}, {"prod": {}})}))
    assert code == 0, report


def test_routes_shows_http_apis(tmp_path):
    (tmp_path / "routes.toml").write_text(
        chat(routes={"say": mock("hi")},
             apis={
                 "pets": pets(
                     {
                         "GET /pets/{id}": "http://127.0.0.1:4000/animals/{id}?kind=cat", "ANY /files/{proxy+}": proxy(
                             "http://127.0.0.1:4000/f/{proxy}", payload="event"), "$default": says("x"),
                         "GET /ws": {**proxy("http://127.0.0.1:4000/ws"), "upgrade": True}
                     }, {"$default": {}, "blue": {}},
                     base_path="/shop",
                     domains=["pets.example.com"])
             }))
    printed = run("routes", cwd=tmp_path)
    assert printed.returncode == 0, printed.stdout
    rows = [re.split(r"  +", line) for line in printed.stdout.splitlines()]
    of_pets = [row for row in rows if row[0] == "pets"]
    assert len(of_pets) == 8 and any(row[0] == "chat" for row in rows)
    assert {(row[1], row[2])
            for row in of_pets} == {("$default", "pets.example.com/shop"), ("blue", "pets.example.com/shop/blue")}
    shown = {row[3]: row[4] for row in of_pets}
    assert set(shown) == {"GET /pets/{id}", "ANY /files/{proxy+}", "$default", "GET /ws"}
    assert shown["GET /pets/{id}"].endswith("http://127.0.0.1:4000/animals/{id}?kind=cat")
    assert "mock" in shown["$default"]
    assert "(event)" in shown["ANY /files/{proxy+}"], "as it is shown of a WebSocket API's routes"


def test_the_schema_knows_http_apis():
    text = run("schema").stdout
    for key in ("cors", "allow_origins", "payload_format", "response_parameters", "upgrade"):
        assert f'"{key}"' in text
