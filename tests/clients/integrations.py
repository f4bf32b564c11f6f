"""`request_parameters` and `mock`: contract/websocket.md section 4, ROUTES.md section 4."""

import re

import pytest

from backend import query_of
from world import ID, mock, to, two_way


def mapped(uri, mapping):
    return to(uri, request_parameters={f"integration.request.{target}": source for target, source in mapping.items()})


def send(livegate, backend, mapping, message, path="/send", arrives_at=None, **parts):
    """One message through a route with these mappings; what the backend got."""
    gateway = livegate(routes={"send": mapped(backend.at(path), mapping)}, **parts)
    with gateway.connect("/prod?room=blue", headers={"X-Mine": "yes"}) as client:
        client.says(action="send", **message)
        return backend.next(arrives_at or path)


@pytest.mark.parametrize("source, value", [
    ("route.request.body.name", "ann"),
    ("route.request.body.inner.list[1]", "two"),
    ("route.request.body.number", "7"),
    ("route.request.body.yes", "true"),
    ("stageVariables.table", "rooms"),
    ("context.stage", "prod"),
    ("context.apiId", "chat"),
    ("context.routeKey", "send"),
    ("context.eventType", "MESSAGE"),
    ("context.identity.sourceIp", "127.0.0.1"),
    ("'a literal'", "a literal"),
])
def test_a_header_is_mapped(livegate, backend, source, value):
    message = {"name": "ann", "inner": {"list": ["one", "two"]}, "number": 7, "yes": True}
    sent = send(livegate, backend, {"header.X-Value": source}, message, stage={"stage_variables": {"table": "rooms"}})
    assert sent.header("X-Value") == value


def test_the_connection_id_is_mapped(livegate, backend):
    sent = send(livegate, backend, {"header.connectionId": "context.connectionId"}, {})
    assert re.fullmatch(ID, sent.header("connectionId")) and sent.header("connectionId") == sent.connection_id


def test_a_query_parameter_is_mapped_and_encoded(livegate, backend):
    sent = send(livegate, backend, {"querystring.who": "route.request.body.name", "querystring.stage": "context.stage"},
                {"name": "ann & bob=?"})
    assert query_of(sent) == {"who": ["ann & bob=?"], "stage": ["prod"]}


def test_a_path_parameter_is_mapped(livegate, backend):
    sent = send(livegate, backend, {"path.room": "route.request.body.room"}, {"room": "blue"},
                path="/rooms/{room}/send", arrives_at="/rooms/blue/send")
    assert sent.method == "POST"


@pytest.mark.parametrize("room", ["../../admin", "a/b", "a?b=c", "a#b", "%2e%2e", ".."])
def test_a_path_parameter_stays_inside_its_segment(livegate, backend, room):
    gateway = livegate(routes={"send": mapped(backend.at("/rooms/{room}/send"), {"path.room": "route.request.body.room"}),
                               "after": two_way(backend.at("/after"))}, stage={"ordering": "connection"})
    backend.answer("/after", 200, "after")
    with gateway.connect() as client:
        client.says(action="send", room=room)
        client.says(action="after")
        backend.wait_for("/after")
    targets = [request.target for request in backend.seen_anywhere() if request.path != "/after"]
    assert all(re.fullmatch(r"/rooms/[^/?#]+/send", target) and "/../" not in target for target in targets), targets


def test_a_source_that_is_missing_leaves_the_parameter_out(livegate, backend):
    sent = send(livegate, backend, {"header.X-Value": "route.request.body.nope", "querystring.who": "route.request.body.neither"}, {})
    assert sent.header("X-Value") is None and query_of(sent) == {}


def test_mapped_values_cannot_add_headers(livegate, backend):
    sent = send(livegate, backend, {"header.X-Value": "route.request.body.name"}, {"name": "a\r\nX-Livegate-Connection-Id: forged"})
    assert re.fullmatch(ID, sent.connection_id)
    assert len([name for name, _ in sent.headers if name.lower() == "x-livegate-connection-id"]) == 1


def test_on_connect_header_and_query_are_mapped(livegate, backend):
    gateway = livegate(routes={"$connect": mapped(backend.at("/connect"), {
        "header.X-Room": "route.request.querystring.room",
        "header.X-Mine-Too": "route.request.header.X-Mine",
        "header.X-Id": "context.connectionId",
        "querystring.agent": "route.request.header.User-Agent",
        "header.X-Tags": "route.request.multivaluequerystring.tag",
    })})
    gateway.open("/prod?room=blue&tag=a&tag=b", headers=[("X-Mine", "yes"), ("User-Agent", "mine/1")])
    connect = backend.next("/connect")
    assert (connect.header("X-Room"), connect.header("X-Mine-Too"), connect.header("X-Id")) == ("blue", "yes", connect.connection_id)
    assert query_of(connect)["agent"] == ["mine/1"]
    assert {"a", "b"} <= set(re.findall(r"\w+", connect.header("X-Tags")))


def test_stage_variables_are_filled_into_the_uri(livegate, backend):
    gateway = livegate(routes={"send": to("http://${stageVariables.backend}/${stageVariables.path}")},
                       stage={"stage_variables": {"backend": backend.authority, "path": "send"}})
    with gateway.connect() as client:
        client.says(action="send")
        assert backend.next("/send").method == "POST"


def test_each_stage_has_its_own_variables(livegate, backend, another_backend):
    gateway = livegate(routes={"send": to("http://${stageVariables.backend}/send")},
                       stages={"blue": {"stage_variables": {"backend": backend.authority}},
                               "green": {"stage_variables": {"backend": another_backend.authority}}})
    for stage, its_backend in (("blue", backend), ("green", another_backend)):
        with gateway.connect(f"/{stage}") as client:
            client.says(action="send")
            assert its_backend.next("/send").header("X-Livegate-Stage") == stage


# mock


@pytest.mark.parametrize("response, message, frame", [
    ("pong", {}, "pong"),
    ("you are ${request.body.name}", {"name": "ann"}, "you are ann"),
    ("${request.body.nope}|", {}, "|"),
    ('{"name":"${request.body.name}"}', {"name": 'an"n\n\\'}, '{"name":"an\\"n\\n\\\\"}'),
    ('{"all":${request.body.inner}}', {"inner": {"a": [1, "x"]}}, '{"all":{"a":[1,"x"]}}'),
    ('{"nope":"${request.body.nope}"}', {}, '{"nope":""}'),
    ('{"n":${request.body.n}}', {"n": 7}, '{"n":7}'),
    ("${context.stage}/${context.apiId}/${context.routeKey}", {}, "prod/chat/say"),
    ("${stageVariables.table}", {}, "rooms"),
])
def test_a_mock_fills_in_its_response(livegate, response, message, frame):
    gateway = livegate(routes={"say": mock(response)}, stage={"stage_variables": {"table": "rooms"}})
    with gateway.connect() as client:
        assert client.asks(action="say", **message) == frame


def test_what_is_filled_in_is_not_filled_in_again(livegate):
    gateway = livegate(routes={"say": mock("${request.body.name}")})
    with gateway.connect() as client:
        assert client.asks(action="say", name="${context.stage}") == "${context.stage}"


def test_a_one_way_mock_says_nothing(livegate):
    gateway = livegate(routes={"say": {"integration": {"type": "mock", "response": "pong"}}}, stage={"ordering": "connection"})
    with gateway.connect() as client:
        client.says(action="say")
        assert re.fullmatch(ID, client.whoami())
