"""Parameter mappings and mocks of HTTP routes (contract/http-api.md section 7)."""

import json
import re

import pytest

from backend import query_of
from http_apis import ask, http_api, is_error, lines_of, proxy, refused, says

BODY = json.dumps(
    {"name": "Rex", "n": 5, "yes": True, "owner": {"name": "Ann", "tags": ["x", "y"]}, "none": None, "empty": ""})
RESERVED = [
    "access-control-allow-origin", "Access-Control-Max-Age", "apigw-requestid", "apigw-x", "Authorization",
    "Connection", "Content-Encoding", "Content-Length", "Content-Location", "Forwarded", "Keep-Alive", "Origin",
    "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailers", "Transfer-Encoding", "Upgrade", "Via", "x-amz-date",
    "x-amzn-trace-id", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto"
]


@pytest.fixture
def mapped(livegate, backend):
    """Starts a gateway whose route `POST /pets/{id}` has these request mappings."""
    def serve(mappings, **settings):
        return livegate(
            http_api({"POST /pets/{id}": proxy(backend.at("/animals"), request_parameters=mappings)},
                     stages={"$default": {"stage_variables": {"color": "blue"}}},
                     **settings))
    return serve


@pytest.fixture
def answered(livegate, backend):
    """Starts a gateway whose route `GET /pets/{id}` has these response mappings."""
    def serve(mappings, route="GET /pets/{id}"):
        return livegate(
            http_api({route: proxy(backend.at("/animals"), response_parameters=mappings)},
                     stages={"$default": {"stage_variables": {"color": "blue"}}}))
    return serve


# Requests: operations


@pytest.mark.parametrize("key, value, sent, got", [
    ("append:header.X-Tag", "new", ["old"], ["old,new"]), ("append:header.x-tag", "new", [], ["new"]),
    ("overwrite:header.X-TAG", "new", ["old", "older"], ["new"]), ("overwrite:header.X-Tag", "new", [], ["new"]),
    ("remove:header.X-Tag", "", ["old", "older"], []), ("remove:header.X-Tag", "''", ["old"], []),
    ("remove:header.X-Tag", "", [], []),
])
def test_headers_are_appended_overwritten_and_removed(mapped, backend, key, value, sent, got):
    gateway = mapped({key: value})
    assert ask(gateway, "POST", "/pets/7", [("X-Tag", text) for text in sent] + [("X-Other", "stays")]).status == 200
    request = backend.next("/animals")
    assert lines_of(request, "x-tag") == got and request.header("X-Other") == "stays"


@pytest.mark.parametrize("key, value, sent, got", [
    ("append:querystring.tag", "new", "tag=old&a=1", {"tag": ["old", "new"], "a": ["1"]}),
    ("append:querystring.tag", "new", "", {"tag": ["new"]}),
    ("overwrite:querystring.tag", "new", "tag=old&a=1&tag=older", {"tag": ["new"], "a": ["1"]}),
    ("overwrite:querystring.tag", "new", "%74ag=old", {"tag": ["new"]}),
    ("overwrite:querystring.tag", "new", "Tag=old", {"Tag": ["old"], "tag": ["new"]}),
    ("remove:querystring.tag", "", "tag=old&a=1&tag", {"a": ["1"]}), ("remove:querystring.tag", "", "tag=old", {}),
])
def test_query_parameters_are_appended_overwritten_and_removed(mapped, backend, key, value, sent, got):
    gateway = mapped({key: value})
    assert ask(gateway, "POST", f"/pets/7?{sent}").status == 200
    assert query_of(backend.next("/animals")) == got


def test_the_path_is_overwritten_and_the_query_stays(livegate, backend):
    gateway = livegate(
        http_api({"$default": proxy(backend.at("/base?own=1"), request_parameters={"overwrite:path": "/new"})}))
    assert ask(gateway, "GET", "/some/where?a=2").status == 200
    assert backend.next("/new").target == "/new?own=1&a=2"


def test_the_path_may_be_the_clients_own_without_the_stage(livegate, backend):
    gateway = livegate(
        http_api(
            {"GET /pets/{id}": proxy(backend.at("/animals"), request_parameters={"overwrite:path": "$request.path"})},
            stages={"prod": {}}))
    assert ask(gateway, "GET", "/prod/pets/a%2Fb").status == 200
    assert backend.next("/pets/a%2Fb").target == "/pets/a%2Fb"


def test_mappings_work_together_and_see_what_the_client_sent(mapped, backend):
    gateway = mapped({
        "overwrite:header.X-A": "$request.header.x-b", "overwrite:header.X-B": "$request.header.x-a",
        "remove:querystring.q": "", "append:header.X-Q": "$request.querystring.q",
        "overwrite:path": "/to/${request.path.id}"
    })
    assert ask(gateway, "POST", "/pets/7?q=1&r=2", [("X-A", "a"), ("X-B", "b")]).status == 200
    request = backend.next("/to/7")
    assert (request.header("X-A"), request.header("X-B"), request.header("X-Q"), request.query) == ("b", "a", "1",
                                                                                                    "r=2")


# Requests: sources


@pytest.mark.parametrize("value, got", [
    ("plain text", "plain text"), ("$request.header.X-In", "one,two"), ("$request.header.x-in", "one,two"),
    ("${request.header.x-IN}", "one,two"), ("$request.querystring.q", "a b,c"), ("$request.path.id", "4 2"),
    ("$request.path", "/pets/4%202"), ("$request.body", BODY), ("$request.body.name", "Rex"), ("$request.body.n", "5"),
    ("$request.body.yes", "true"), ("$request.body.owner.name", "Ann"), ("$request.body.owner.tags[1]", "y"),
    ("$stageVariables.color", "blue"), ("$context.stage", "$default"), ("$context.routeKey", "POST /pets/{id}"),
    ("$context.httpMethod", "POST"), ("$context.identity.sourceIp", "127.0.0.1"), ("$context.apiId", "pets"),
    ("${request.path.id} is ${stageVariables.color}, ${request.body.name}!", "4 2 is blue, Rex!"),
    ("<${request.header.none}>", "<>"),
])
def test_a_value_comes_from(mapped, backend, value, got):
    gateway = mapped({"overwrite:header.X-Out": value, "overwrite:querystring.out": value})
    assert ask(gateway, "POST", "/pets/4%202?q=a%20b&q=c&Q=d", [("X-In", "one"), ("x-in", "two")], BODY).status == 200
    request = backend.next("/animals")
    assert lines_of(request, "x-out") == [got]
    assert query_of(request)["out"] == [got]
    assert request.text == BODY


def test_the_request_id_of_the_answer_can_be_sent_on(mapped, backend):
    answer = ask(mapped({"overwrite:header.X-Id": "$context.requestId"}), "POST", "/pets/7")
    assert backend.next("/animals").header("X-Id") == answer.header("apigw-requestid")


@pytest.mark.parametrize("value", [
    "$request.header.none", "$request.querystring.Q", "$request.querystring.e", "$request.body.nope",
    "$request.body.empty", "$request.header.x-empty",
])
@pytest.mark.parametrize("operation", ["append", "overwrite"])
def test_an_empty_value_changes_nothing(mapped, backend, operation, value):
    gateway = mapped({f"{operation}:header.X-Tag": value, f"{operation}:querystring.tag": value,
                      "overwrite:path": value, "overwrite:header.X-Works": "$request.querystring.q"})
    assert ask(gateway, "POST", "/pets/7?q=1&tag=old&e=", [("X-Tag", "old"), ("X-Empty", "")], BODY).status == 200
    request = backend.next("/animals")
    assert (lines_of(request, "x-tag"), query_of(request)["tag"]) == (["old"], ["old"])
    assert request.header("X-Works") == "1"


@pytest.mark.parametrize("body", ["", "not json", '{"name":', "[1]", b"\xff\xfe"])
def test_a_body_without_the_value_changes_nothing_and_is_passed_on(mapped, backend, body):
    gateway = mapped({"overwrite:header.X-Tag": "$request.body.name", "overwrite:header.X-Works": "yes"})
    assert ask(gateway, "POST", "/pets/7", [("X-Tag", "old")], body).status == 200
    request = backend.next("/animals")
    assert (request.header("X-Tag"), request.header("X-Works")) == ("old", "yes")
    assert request.body == (body if isinstance(body, bytes) else body.encode())


def test_a_body_that_comes_in_pieces_is_read_and_passed_on(mapped, backend):
    gateway = mapped({"overwrite:header.X-Name": "$request.body.name"})
    with gateway.wire() as wire:
        wire.send(f"POST /pets/7 HTTP/1.1\r\nHost: {gateway.host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for piece in ('{"name', '":"R', 'ex"}'):
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece.encode()))
        wire.send(b"0\r\n\r\n")
        assert wire.response().status == 200
    request = backend.next("/animals")
    assert (request.header("X-Name"), request.text) == ("Rex", '{"name":"Rex"}')


# Answers


@pytest.mark.parametrize("key, value, sent, got", [
    ("append:header.X-Tag", "new", {"X-Tag": "old"}, ["old,new"]), ("append:header.X-Tag", "new", {}, ["new"]),
    ("overwrite:header.x-tag", "new", {"X-Tag": "old"}, ["new"]), ("remove:header.X-TAG", "", {"X-Tag": "old"}, []),
])
def test_headers_of_answers_are_appended_overwritten_and_removed(answered, backend, key, value, sent, got):
    backend.answer("/animals", 200, "body", sent)
    answer = answered({"200": {key: value}}).request("GET", "/pets/7")
    assert (answer.status, lines_of(answer, "x-tag"), answer.body) == (200, got, b"body")


@pytest.mark.parametrize("value, got", [
    ("plain", "plain"), ("$response.header.x-in", "in"), ("${response.header.X-IN}!", "in!"),
    ("$response.body.name", "Rex"), ("$response.body.owner.tags[0]", "x"), ("$response.body", BODY),
    ("$stageVariables.color", "blue"), ("$context.stage", "$default"),
    ("${response.body.n} of ${stageVariables.color}", "5 of blue"),
])
def test_a_value_of_an_answer_comes_from(answered, backend, value, got):
    backend.answer("/animals", 200, BODY, {"X-In": "in", "Content-Type": "application/json"})
    answer = answered({"200": {"overwrite:header.X-Out": value}}).request("GET", "/pets/7")
    assert (lines_of(answer, "x-out"), answer.body.decode()) == ([got], BODY)


def test_only_answers_of_the_named_status_are_changed(answered, backend):
    gateway = answered({
        "200": {"overwrite:header.X-Was": "fine"},
        "404": {"overwrite:header.X-Was": "missing",
                "overwrite:statuscode": "410"}, "500": {"overwrite:statuscode": "$response.body.code"}
    })
    for status, body, shown, was in [(200, "", 200, "fine"), (404, "", 410, "missing"), (201, "", 201, None),
                                     (403, "", 403, None), (500, '{"code":503}', 503, None),
                                     (500, '{"code":"418"}', 418, None), (500, "{}", 500, None), (599, "", 599, None)]:
        backend.answer("/animals", status, body)
        answer = gateway.request("GET", "/pets/7")
        assert (answer.status, answer.header("X-Was"), answer.body.decode()) == (shown, was, body), status


@pytest.mark.parametrize("code", ['"nope"', "99", "101", "600", "200.5", "-200", "[200]"])
def test_a_mapped_status_that_is_none_is_500(answered, backend, code):
    backend.answer("/animals", 200, f'{{"code":{code}}}')
    assert is_error(
        answered({"200": {"overwrite:statuscode": "$response.body.code"}}).request("GET", "/pets/7"), 500,
        "Internal Server Error")


def test_mappings_of_an_answer_see_what_the_backend_said(answered, backend):
    backend.answer("/animals", 200, "", {"X-A": "a", "X-B": "b"})
    gateway = answered(
        {"200": {"overwrite:header.X-A": "$response.header.x-b", "overwrite:header.X-B": "$response.header.x-a"}})
    answer = gateway.request("GET", "/pets/7")
    assert (answer.header("X-A"), answer.header("X-B")) == ("b", "a")


def test_an_empty_value_leaves_the_answer_alone(answered, backend):
    backend.answer("/animals", 200, "no json", {"X-Tag": "old"})
    gateway = answered({
        "200": {
            "overwrite:header.X-Tag": "$response.body.name", "append:header.X-Tag": "$response.header.none",
            "overwrite:statuscode": "$response.header.none"
        }
    })
    answer = gateway.request("GET", "/pets/7")
    assert (answer.status, lines_of(answer, "x-tag"), answer.body) == (200, ["old"], b"no json")


def test_the_gateways_own_errors_are_not_mapped(livegate, dead_backend):
    gateway = livegate(
        http_api(
            {"GET /pets": proxy(dead_backend.at("/"), response_parameters={"503": {"overwrite:statuscode": "200"}})}))
    assert is_error(gateway.request("GET", "/pets"), 503, "Service Unavailable")


# What a stranger may try


@pytest.mark.parametrize("evil", [
    "x\r\nX-Evil: 1", "x\nX-Evil: 1", "x\rX-Evil: 1", "x\u0000y", "x\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
])
def test_no_value_adds_a_header_or_a_request(mapped, backend, evil):
    gateway = mapped({
        "overwrite:header.X-Out": "$request.body.name", "append:header.X-More": "say ${request.body.name}",
        "overwrite:querystring.q": "$request.body.name"
    })
    assert ask(gateway, "POST", "/pets/7", body=json.dumps({"name": evil})).status == 200
    request = backend.next("/animals")
    assert "x-evil" not in request.names and query_of(request) == {"q": [evil]}
    assert all(character >= " " for character in request.header("X-Out"))
    assert len(backend.seen_anywhere()) == 1


@pytest.mark.parametrize("evil", ["x\r\nX-Evil: 1", "x\nX-Evil: 1", "x\r\n\r\n<h1>", "x\u0000y"])
def test_no_value_adds_a_header_to_an_answer(answered, backend, evil):
    body = json.dumps({"name": evil})
    backend.answer("/animals", 200, body)
    answer = answered({"200": {"overwrite:header.X-Out": "$response.body.name"}}).request("GET", "/pets/7")
    assert (answer.status, answer.body.decode(), answer.header("X-Evil")) == (200, body, None)
    assert all(character >= " " for character in answer.header("X-Out"))


@pytest.mark.parametrize("evil", ["a&admin=1", "a;admin=1", "a#b", "a=b", "a+b", "a%26b", "ä€ ", "?"])
def test_no_value_adds_a_query_parameter(mapped, backend, evil):
    gateway = mapped({"overwrite:querystring.q": "$request.body.name"})
    assert ask(gateway, "POST", "/pets/7?r=1", body=json.dumps({"name": evil})).status == 200
    assert query_of(backend.next("/animals")) == {"r": ["1"], "q": [evil]}


@pytest.mark.parametrize("evil", [
    "..", "../secret", "a/../../secret", "%2e%2e/secret", "..%2fsecret", "./x", "..;/x", "..\\x",
])
def test_no_value_leads_up_the_path(mapped, backend, evil):
    gateway = mapped({"overwrite:path": "/users/${request.querystring.name}"})
    from_query = ask(gateway, "POST", "/pets/7?name=" + evil.replace("%", "%25").replace(";", "%3B"))
    seen = backend.seen_anywhere()
    if from_query.status == 200:
        # Then it is text within one segment: the percent sign itself is escaped.
        assert [request.path for request in seen] == ["/users/" + evil.replace("%", "%25")]
    else:
        assert is_error(from_query, 400, "Bad Request") and seen == []


@pytest.mark.parametrize("evil", [
    "/x?admin=1", "/x#y", "//evil.example/x", "http://evil.example/x", "@evil.example", "x y", "/x\r\nHost: evil",
])
def test_no_value_changes_host_or_query(mapped, backend, evil):
    gateway = mapped({"overwrite:path": "$request.body.path"})
    assert ask(gateway, "POST", "/pets/7?r=1", body=json.dumps({"path": evil})).status == 200
    [request] = backend.seen_anywhere()
    assert (request.query, request.header("Host")) == ("r=1", backend.authority)
    assert request.path != "/animals" and request.path.startswith("/") and not re.search(r"[ ?#\r\n]", request.path)


# What `livegate check` says


def with_mappings(side, mappings):
    return http_api({"ANY /pets/{id}": proxy("http://127.0.0.1:3000/x", **{f"{side}_parameters": mappings})})


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize("operation", ["append", "overwrite", "remove"])
def test_reserved_headers_are_refused(tmp_path, side, operation):
    mappings = {f"{operation}:header.{name}": "x" for name in RESERVED}
    report = refused(tmp_path, with_mappings(side, mappings if side == "request" else {"200": mappings}))
    reported = set(re.findall(r"^ *\d+ \| \"(\w+:header\.[^\"]+)\"", report, re.MULTILINE))
    assert reported == set(mappings)


@pytest.mark.parametrize("side, mappings, word", [
    ("request", {"append:path": "/x"}, "overwrite:path"), ("request", {"remove:path": ""}, "overwrite:path"),
    ("request", {"set:header.X": "1"}, "append"), ("request", {"overwrite:body": "1"}, "overwrite:body"),
    ("request", {"overwrite:statuscode": "200"}, "statuscode"), ("request", {"overwrite:header.": "1"}, "header"),
    ("request", {"overwrite:header.X Y": "1"}, "X Y"), ("request", {"overwrite:querystring.": "1"}, "querystring"),
    ("request", {"overwrite:header.X": "$response.header.y"}, "response"),
    ("request", {"overwrite:header.X": "$request.nope"}, "request.nope"),
    ("request", {"overwrite:header.X": "$context.requestID"}, "context.requestId"),
    ("request", {"overwrite:header.X": "$request.path.nope"}, "nope"),
    ("request", {"overwrite:header.X": "$stageVariables.nope"}, "nope"),
    ("request", {"overwrite:header.X": "$request.body.a..b"}, ".."),
    ("request", {"overwrite:header.X": "$request.body.a[?(@.b)]"}, "?"), ("request", {"overwrite:path": "/a?b=1"}, "?"),
    ("request", {"overwrite:header.X": "1", "overwrite:header.x": "2"}, "twice"),
    ("response", {"200": {"append:statuscode": "201"}}, "overwrite:statuscode"),
    ("response", {"200": {"overwrite:statuscode": "700"}}, "700"),
    ("response", {"200": {"overwrite:path": "/x"}}, "path"),
    ("response", {"200": {"overwrite:querystring.q": "x"}}, "querystring"),
    ("response", {"2xx": {"overwrite:header.X": "1"}}, "2xx"),
    ("response", {"199": {"overwrite:header.X": "1"}}, "199"),
    ("response", {"600": {"overwrite:header.X": "1"}}, "600"),
])
def test_a_mapping_that_means_nothing_is_refused(tmp_path, side, mappings, word):
    refused(tmp_path, with_mappings(side, mappings), word)


# Mocks


def test_a_mock_answers_by_itself(livegate):
    gateway = livegate(
        http_api({
            "GET /plain": says(
                "hello",
                status=418,
                headers={"Content-Type": "text/tea", "X-Mine": "${context.routeKey} ${request.header.x-in}"}),
            "DELETE /plain": {"integration": {"type": "mock",
                                              "status": 204}}, "HEAD /plain": says("hello"), "GET /empty": says()
        }))
    answer = ask(gateway, "GET", "/plain", [("X-In", "in")])
    assert (answer.status, answer.body, answer.header("Content-Type"),
            answer.header("X-Mine")) == (418, b"hello", "text/tea", "GET /plain in")
    answer = ask(gateway, "DELETE", "/plain")
    assert (answer.status, answer.body, answer.header("Content-Length")) == (204, b"", None)
    answer = ask(gateway, "HEAD", "/plain")
    assert (answer.status, answer.header("Content-Length")) == (200, "5")
    answer = ask(gateway, "GET", "/empty")
    assert (answer.status, answer.body) == (200, b"")


def test_a_mock_knows_the_request(livegate):
    names = ["request.path.id", "request.path", "request.header.x-in", "request.querystring.q",
             "request.body.owner.name", "request.body.nope", "stageVariables.color", "context.stage", "context.path",
             "context.httpMethod", "context.protocol", "context.identity.userAgent"]
    text = "|".join(f"${{{name}}}" for name in names) + r"|\${x}"
    stages = {"prod": {"stage_variables": {"color": "blue"}}}
    gateway = livegate(http_api({"POST /pets/{id}": says(text)}, stages=stages))
    sent = [("X-In", "1"), ("X-In", "2"), ("User-Agent", "mine/1")]
    answer = ask(gateway, "POST", "/prod/pets/4%202?q=a&q=b%26", sent, BODY)
    assert answer.body.decode() == "4 2|/pets/4%202|1,2|a,b&|Ann||blue|prod|/prod/pets/4%202|POST|HTTP/1.1|mine/1|${x}"


def test_a_json_mock_is_filled_in_as_json(livegate):
    gateway = livegate(
        http_api({
            "POST /pets": says(
                '{"name":"${request.body.name}","owner":${request.body.owner},"q":"${request.querystring.q}"}')
        }))
    body = json.dumps({"name": 'a"b\\c\n</script>', "owner": {"tags": ["x", 1]}})
    answer = ask(gateway, "POST", "/pets?q=%22%5C", body=body)
    assert answer.json == {"name": 'a"b\\c\n</script>', "owner": {"tags": ["x", 1]}, "q": '"\\'}


def test_no_value_adds_a_header_to_a_mocks_answer(livegate):
    gateway = livegate(http_api({"POST /pets": says("ok", headers={"X-Out": "${request.body.name}"})}))
    answer = ask(gateway, "POST", "/pets", body=json.dumps({"name": "x\r\nX-Evil: 1\r\n\r\n<h1>"}))
    assert (answer.status, answer.header("X-Evil"), answer.body) == (200, None, b"ok")
