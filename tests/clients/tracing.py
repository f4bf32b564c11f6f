"""Traces for an OpenTelemetry collector: which spans there are, how a trace goes on from a client through the gateway
to its backends and back, and what a collector in trouble costs."""

import re
import time

import pytest

from authorizers import ALLOW
from backend import Answer
from http_apis import ask, http_api, proxy, refused, says
from http_events import TRACE_ID
from otlp_collector import PATH, Collector, Context
from wire import Response
from world import chat, eventually, to, two_way

# What a backend answers; whether the call of it failed, and the client's call.
FAULTS = [(200, False, False), (404, True, False), (500, True, True)]


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def another_collector():
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def dead_collector():
    """One that nobody listens at."""
    collector = Collector()
    collector.kill()
    yield collector
    collector.stop()


class Requests:
    """A request of an HTTP API is what is traced."""

    name = "GET /in"

    def __init__(self, livegate, backend):
        self._livegate, self._backend = livegate, backend

    def gateway(self, tracing):
        return self._livegate(http_api({self.name: proxy(self._backend.at("/in"))}, gateway=written(tracing)))

    def calls(self, gateway, *headers) -> Response:
        return ask(gateway, "GET", "/in", headers)


class Handshakes:
    """A handshake is."""

    name = "$connect"

    def __init__(self, livegate, backend):
        self._livegate, self._backend = livegate, backend

    def gateway(self, tracing):
        return self._livegate(routes={"$connect": self._backend.at("/in")}, gateway=written(tracing))

    def calls(self, gateway, *headers) -> Response:
        return gateway.knock("/prod", list(headers))


@pytest.fixture(params=[Requests, Handshakes])
def call(request, livegate, backend):
    """Either kind of call that comes with headers."""
    return request.param(livegate, backend)


def written(tracing):
    return {"tracing": tracing} if tracing else None


def counted(gateway):
    """`exported`, `dropped`, `failed`."""
    return [gateway.metric("livegate_spans_total", outcome=outcome) for outcome in ("exported", "dropped", "failed")]


def is_root(span):
    return span.parent is None


# What there is


def test_a_trace_goes_from_a_client_to_the_backend_and_back_in_a_push(livegate, backend, collector):
    own = []

    def sends(request):
        own.append(Context.of(request).child())
        headers = {"traceparent": own[0].traceparent}
        pushed = gateway.request("POST", f"/prod/@connections/{request.connection_id}", b"pushed", headers)
        return Answer(pushed.status)

    backend.answer("/authorize", 200, ALLOW)
    backend.answers("/send", sends)
    gateway = livegate(
        routes={"$connect": {**to(backend.at("/connect")), "authorizer": "users"},
                "sendmessage": backend.at("/send"), "$disconnect": backend.at("/disconnect")},
        authorizers={"users": {"type": "http", "uri": backend.at("/authorize")}},
        gateway={"tracing": collector.settings()})
    with gateway.connect() as client:
        client.says(action="sendmessage")
        assert client.hears() == "pushed"

    connect, message, gone = (collector.span(name) for name in ("$connect", "sendmessage", "$disconnect"))
    authorizer = collector.span("authorizer users", connect)
    of_connect, of_message, of_gone = (collector.span("integration", span) for span in (connect, message, gone))
    push = collector.span("POST @connections")
    assert len(collector.spans()) == 8

    # A message comes without headers, so that each begins a trace, as the end of a connection does.
    assert is_root(connect) and is_root(message) and is_root(gone)
    assert len({connect.context.trace_id, message.context.trace_id, gone.context.trace_id}) == 3
    assert push.parent == own[0].span_id
    for part, whole in ((authorizer, connect), (of_connect, connect), (of_message, message), (push, message), (of_gone, gone)):
        assert part.context.trace_id == whole.context.trace_id

    # Everyone who was asked was told of the span that asks it.
    for path, span in (("/authorize", authorizer), ("/connect", of_connect), ("/send", of_message), ("/disconnect", of_gone)):
        assert Context.of(backend.next(path)) == span.context
    kinds = {span.name: span.kind for span in collector.spans()}
    assert kinds == {"$connect": "SERVER", "sendmessage": "SERVER", "$disconnect": "SERVER", "POST @connections": "SERVER",
                     "authorizer users": "INTERNAL", "integration": "CLIENT"}
    assert not any(span.failed for span in collector.spans())


def test_parts_of_a_call_lie_within_it(livegate, backend, collector):
    backend.answer("/authorize", 200, ALLOW)
    gateway = livegate(
        http_api({"GET /in": {**proxy(backend.at("/in")), "authorizer": "users"}}, gateway=written(collector.settings()),
                 authorizers={"users": {"type": "http", "uri": backend.at("/authorize")}}))
    before = time.time_ns()
    assert ask(gateway, "GET", "/in").status == 200
    after = time.time_ns()
    whole = collector.span("GET /in")
    authorizer, integration = collector.span("authorizer users", whole), collector.span("integration", whole)
    moments = [whole.began, authorizer.began, authorizer.ended, integration.began, integration.ended, whole.ended]
    assert moments == sorted(moments)
    assert before - 10**9 < whole.began < whole.ended < after + 10**9


def test_who_sends_spans_and_with_what(livegate, collector):
    tracing = collector.settings(service_name="gate", headers={"X-Key": "a secret of ours"})
    gateway = livegate(http_api({"GET /in": says("in")}, gateway=written(tracing)))
    ask(gateway, "GET", "/in")
    span, request = collector.span("GET /in"), collector.next(PATH)
    assert request.header("X-Key") == "a secret of ours" and "a secret of ours" not in gateway.logs()
    assert span.resource["service.name"] == "gate" and span.scope == "livegate"
    assert re.fullmatch(r"\d+\.\d+\.\d+", span.resource["service.version"])
    assert re.fullmatch(r"[0-9a-f-]{36}", span.resource["service.instance.id"])


def test_a_span_says_what_was_called(livegate, backend, collector):
    gateway = livegate(http_api({"GET /pets/{id}": proxy(backend.at("/in"))}, gateway=written(collector.settings())))
    answer = ask(gateway, "GET", "/pets/7?token=secret")
    span = collector.span("GET /pets/{id}")
    assert {
        "http.request.method": "GET", "http.route": "/pets/{id}", "url.path": "/pets/7", "http.response.status_code": 200,
        "client.address": "127.0.0.1", "livegate.api": "pets", "livegate.stage": "$default",
        "livegate.request_id": answer.header("apigw-requestid"),
    }.items() <= span.attributes.items()
    integration = collector.span("integration", span)
    assert integration.attributes["http.response.status_code"] == 200
    # A query may hold what is nobody's business.
    assert not any("secret" in str(value) for one in (span, integration) for value in one.attributes.values())


def test_spans_of_a_connection_name_it(livegate, backend, collector):
    gateway = livegate(routes={"$connect": backend.at("/connect"), "sendmessage": backend.at("/send"),
                               "$disconnect": backend.at("/disconnect")}, gateway={"tracing": collector.settings()})
    with gateway.connect() as client:
        mine = client.whoami()
        client.says(action="sendmessage")
        backend.next("/send")
        gateway.push(mine, "pushed")
    for name in ("$connect", "sendmessage", "POST @connections", "$disconnect"):
        assert {"livegate.api": "chat", "livegate.stage": "prod", "livegate.connection_id": mine}.items() <= \
            collector.span(name).attributes.items()
    for name, path in (("$connect", "/connect"), ("sendmessage", "/send"), ("$disconnect", "/disconnect")):
        assert collector.span(name).attributes["livegate.route_key"] == name
        assert collector.span(name).attributes["livegate.request_id"] == backend.wait_for(path)[0].request_id


# How it went


@pytest.mark.parametrize("status, of_integration, of_call", FAULTS)
def test_a_backends_fault_is_the_calls_and_a_clients_is_not(livegate, backend, collector, status, of_integration, of_call):
    backend.answer("/in", status)
    gateway = livegate(http_api({"GET /in": proxy(backend.at("/in"))}, gateway=written(collector.settings())))
    assert ask(gateway, "GET", "/in").status == status
    whole = collector.span("GET /in")
    integration = collector.span("integration", whole)
    assert (integration.failed, whole.failed) == (of_integration, of_call)
    assert whole.attributes["http.response.status_code"] == integration.attributes["http.response.status_code"] == status


def test_a_backend_that_is_not_there_is_a_failure(livegate, dead_backend, collector):
    gateway = livegate(routes={"sendmessage": two_way(dead_backend.at("/send"))}, gateway={"tracing": collector.settings()})
    with gateway.connect() as client:
        assert "Internal server error" in client.asks(action="sendmessage")
    whole = collector.span("sendmessage")
    assert whole.failed and collector.span("integration", whole).failed


def test_a_refused_call_is_no_failure_and_asks_nobody(livegate, backend, collector):
    backend.answer("/authorize", 200, '{"isAuthorized": false}')
    gateway = livegate(
        http_api({"GET /in": {**proxy(backend.at("/in")), "authorizer": "users"}}, gateway=written(collector.settings()),
                 authorizers={"users": {"type": "http", "uri": backend.at("/authorize"), "simple_responses": True}}))
    assert ask(gateway, "GET", "/in").status == 403
    whole = collector.span("GET /in")
    collector.span("authorizer users", whole)
    assert not whole.failed and whole.attributes["http.response.status_code"] == 403
    assert "integration" not in collector.names()


# Whose trace it is


@pytest.mark.parametrize("spelled", ["traceparent", "amzn"])
def test_a_clients_trace_goes_on(call, backend, collector, spelled):
    gateway, client = call.gateway(collector.settings(sample=0.0)), Context.new()
    header = {"traceparent": ("traceparent", client.traceparent), "amzn": ("X-Amzn-Trace-Id", client.amzn)}[spelled]
    call.calls(gateway, header)
    whole = collector.span(call.name)
    integration = collector.span("integration", whole)
    assert (whole.parent, whole.context.trace_id) == (client.span_id, client.trace_id)
    assert Context.of(backend.next("/in")) == integration.context
    assert integration.context.trace_id == client.trace_id and whole.context.sampled


def test_a_load_balancers_trace_has_no_span_to_be_part_of(call, backend, collector):
    gateway, client = call.gateway(collector.settings()), Context.new()
    call.calls(gateway, ("X-Amzn-Trace-Id", f"Self=1-67891233-abcdef012345678912345678;{client.root}"))
    whole = collector.span(call.name)
    assert is_root(whole) and whole.context.trace_id == client.trace_id
    assert Context.of(backend.next("/in")) == collector.span("integration", whole).context


def test_a_trace_state_is_passed_on(call, backend, collector):
    gateway, client = call.gateway(collector.settings()), Context.new()
    call.calls(gateway, ("traceparent", client.traceparent), ("tracestate", "rojo=1,congo=2"))
    assert backend.next("/in").header("tracestate") == "rojo=1,congo=2"
    assert collector.span(call.name).state == "rojo=1,congo=2"


@pytest.mark.parametrize("headers", [
    [("traceparent", "nonsense")],
    [("traceparent", f"00-{'0' * 32}-00f067aa0ba902b7-01")],
    [("traceparent", f"ff-{'1' * 32}-00f067aa0ba902b7-01")],
    [("traceparent", f"00-{'1' * 32}-00f067aa0ba902b7-01"), ("traceparent", f"00-{'2' * 32}-00f067aa0ba902b7-01")],
    [("X-Amzn-Trace-Id", "Root=1-1")],
])
def test_what_is_no_trace_begins_a_new_one(call, backend, collector, headers):
    gateway = call.gateway(collector.settings())
    call.calls(gateway, *headers, ("tracestate", "rojo=1"))
    whole, request = collector.span(call.name), backend.next("/in")
    assert is_root(whole) and whole.context.trace_id not in ("1" * 32, "2" * 32)
    assert Context.of(request) == collector.span("integration", whole).context
    assert request.header("tracestate") is None


@pytest.mark.parametrize("sample, follow_parent, sampled", [
    (1.0, True, False), (0.0, True, False), (0.0, False, False), (0.0, False, True),
])
def test_a_trace_that_is_not_written_down_goes_on_all_the_same(call, backend, collector, sample, follow_parent, sampled):
    gateway = call.gateway(collector.settings(sample=sample, follow_parent=follow_parent))
    client = Context.new(sampled)
    call.calls(gateway, ("traceparent", client.traceparent))
    told = Context.of(backend.next("/in"))
    assert told.trace_id == client.trace_id and told.span_id != client.span_id and not told.sampled
    # What there is goes out at the end: at most the connection's, of which no client says anything.
    assert gateway.terminate() == 0
    assert set(collector.names()) <= {"$disconnect"}


def test_without_a_sample_there_is_nothing_to_pass_on(call, backend, collector):
    gateway = call.gateway(collector.settings(sample=0.0))
    call.calls(gateway)
    request = backend.next("/in")
    assert request.header("traceparent") is None and re.fullmatch(TRACE_ID, request.header("X-Amzn-Trace-Id"))
    assert counted(gateway) == [0, 0, 0]
    assert gateway.terminate() == 0
    assert collector.seen_anywhere() == []


def test_a_share_of_messages_is_traced(livegate, collector):
    gateway = livegate(gateway={"tracing": collector.settings(sample=0.2)})
    with gateway.connect() as client:
        for _ in range(2000):
            client.says(action="whoami")
        for _ in range(2000):
            client.hears()
    assert gateway.terminate() == 0
    # Six standard deviations on either side.
    assert 290 < collector.names().count("whoami") < 510


def test_without_tracing_nothing_is_added(call, backend):
    gateway = call.gateway(None)
    call.calls(gateway)
    request = backend.next("/in")
    assert request.header("traceparent") is None and request.header("tracestate") is None
    assert re.fullmatch(TRACE_ID, request.header("X-Amzn-Trace-Id"))
    assert counted(gateway) == [0, 0, 0]


def test_without_tracing_a_clients_trace_passes_as_it_is(livegate, backend):
    gateway, client = livegate(http_api({"GET /in": proxy(backend.at("/in"))})), Context.new()
    ask(gateway, "GET", "/in", [("traceparent", client.traceparent), ("tracestate", "a=1"), ("X-Amzn-Trace-Id", client.amzn)])
    request = backend.next("/in")
    assert Context.of(request) == client and request.header("tracestate") == "a=1"


# A collector in trouble


def messages(gateway, count):
    """So many messages, each answered."""
    with gateway.connect() as client:
        for _ in range(count):
            client.says(action="whoami")
        for _ in range(count):
            client.hears()


def test_a_collector_that_is_gone_slows_nothing_and_is_counted(livegate, dead_collector):
    gateway = livegate(gateway={"tracing": dead_collector.settings()})
    began = time.monotonic()
    messages(gateway, 100)
    assert time.monotonic() - began < 5
    # The connection itself has spans as well.
    eventually(lambda: counted(gateway)[2] >= 100, "spans that failed")
    assert counted(gateway)[:2] == [0, 0]
    eventually(lambda: "spans were not exported" in gateway.logs())
    assert gateway.is_well()


def test_a_collector_that_comes_back_gets_what_is_new(livegate, dead_collector):
    routes = {"GET /old": says("old"), "GET /new": says("new")}
    gateway = livegate(http_api(routes, gateway=written(dead_collector.settings())))
    ask(gateway, "GET", "/old")
    eventually(lambda: counted(gateway) == [0, 0, 1], "a span that failed")
    dead_collector.revive()
    ask(gateway, "GET", "/new")
    eventually(lambda: counted(gateway) == [1, 0, 1], "a span that was exported")
    assert dead_collector.names() == ["GET /new"]
    eventually(lambda: "spans are exported" in gateway.logs(), "the end of the trouble to be said")


@pytest.mark.parametrize("status, attempts", [(503, 2), (429, 2), (400, 1), (301, 1)])
def test_a_collector_that_refuses_is_asked_again_where_it_may_help(livegate, collector, status, attempts):
    collector.answer(PATH, status, headers={"Retry-After": "0", "Location": collector.at("/elsewhere")})
    gateway = livegate(http_api({"GET /in": says("in")}, gateway=written(collector.settings())))
    assert ask(gateway, "GET", "/in").status == 200
    eventually(lambda: counted(gateway) == [0, 0, 1], "a span that failed")
    assert len(collector.seen(PATH)) == len(collector.seen_anywhere()) == attempts


def test_a_collector_that_is_busy_once_gets_the_span(livegate, collector):
    collector.answers(PATH, Answer(503, headers={"Retry-After": "0"}), Answer(200))
    gateway = livegate(http_api({"GET /in": says("in")}, gateway=written(collector.settings())))
    assert ask(gateway, "GET", "/in").status == 200
    eventually(lambda: counted(gateway) == [1, 0, 0], "the span to be exported")
    first, second = collector.spans()
    assert first == second


def test_a_slow_collector_costs_spans_and_no_time(livegate, collector):
    gateway = livegate(gateway={"tracing": collector.settings()})
    with collector.holding(PATH):
        messages(gateway, 1)
        collector.next(PATH)
        messages(gateway, 6000)
        eventually(lambda: counted(gateway)[1] > 0, "spans that are dropped")
    assert gateway.terminate() == 0
    assert len(collector.spans()) >= 4096


# The end, and a new beginning


def test_what_is_not_out_yet_goes_out_at_the_end(livegate, backend, collector):
    gateway = livegate(routes={"$connect": backend.at("/connect"), "sendmessage": two_way(backend.at("/send")),
                               "$disconnect": backend.at("/disconnect")}, gateway={"tracing": collector.settings()})
    backend.answer("/send", 200, "answered")
    with gateway.connect() as client:
        assert client.asks(action="sendmessage") == "answered"
        assert gateway.terminate() == 0
    assert collector.names() == ["$connect", "$disconnect", *["integration"] * 3, "sendmessage"]


def test_a_collector_that_hangs_does_not_keep_the_gateway(livegate, collector):
    gateway = livegate(gateway={"tracing": collector.settings(), "drain_timeout": "2s"})
    with collector.holding(PATH):
        messages(gateway, 1)
        began = time.monotonic()
        assert gateway.terminate() == 0
        assert time.monotonic() - began < 8


def test_a_reload_brings_another_collector(livegate, collector, another_collector):
    gateway = livegate(gateway={"tracing": collector.settings()})
    messages(gateway, 1)
    gateway.reload(chat(gateway={"tracing": another_collector.settings()}))
    messages(gateway, 1)
    another_collector.span("whoami")
    # What was under way to the first one is not lost.
    collector.span("whoami")
    gateway.reload(chat())
    messages(gateway, 1)
    assert gateway.terminate() == 0
    assert (collector.names() + another_collector.names()).count("whoami") == 2


# Its settings


@pytest.mark.parametrize("wrong, words", [
    ({"endpoint": "nowhere"}, ["gateway.tracing.endpoint", "nowhere"]),
    ({"endpoint": "grpc://127.0.0.1:4317"}, ["gateway.tracing.endpoint"]),
    ({"sample": 1.5}, ["gateway.tracing.sample", "1.5"]),
    ({"sample": -0.1}, ["gateway.tracing.sample", "-0.1"]),
    ({"headers": {"x key": "secret"}}, ["gateway.tracing.headers", "x key"]),
    ({"protocol": "grpc"}, ["protocol"]),
])
def test_settings_that_cannot_be_are_problems(tmp_path, wrong, words):
    tracing = {"endpoint": "http://127.0.0.1:4318", **wrong}
    refused(tmp_path, chat(gateway={"tracing": tracing}), *words)


def test_tracing_needs_an_endpoint(tmp_path):
    refused(tmp_path, chat(gateway={"tracing": {"sample": 1.0}}), "gateway.tracing", "endpoint")


@pytest.mark.parametrize("appended", ["", "/", "/tenant", PATH])
def test_an_endpoint_may_name_its_path(livegate, collector, appended):
    tracing = collector.settings(endpoint=collector.endpoint + appended)
    gateway = livegate(http_api({"GET /in": says("in")}, gateway=written(tracing)))
    ask(gateway, "GET", "/in")
    assert collector.next("/tenant" + PATH if appended == "/tenant" else PATH).method == "POST"
