"""An OpenTelemetry collector that keeps what it is sent, and trace contexts as they stand in headers."""

import os
import re
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Written
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from backend import Backend

PATH = "/v1/traces"


@dataclass(frozen=True)
class Context:
    """One span's place in its trace."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @classmethod
    def new(cls, sampled=True):
        return cls(os.urandom(16).hex(), os.urandom(8).hex(), sampled)

    @classmethod
    def of(cls, request):
        """What a request says of its trace, which it says in both ways."""
        found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])", request.header("traceparent") or "")
        assert found, request.headers
        context = cls(found[1], found[2], found[3] == "1")
        assert request.header("X-Amzn-Trace-Id") == context.amzn, request.headers
        return context

    def child(self):
        """The context of a span that is part of this one."""
        return Context(self.trace_id, os.urandom(8).hex(), self.sampled)

    @property
    def root(self):
        return f"Root=1-{self.trace_id[:8]}-{self.trace_id[8:]}"

    @property
    def amzn(self):
        return f"{self.root};Parent={self.span_id};Sampled={self.sampled:d}"

    @property
    def traceparent(self):
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02d}"


@dataclass(frozen=True)
class Span:
    name: str
    context: Context
    # The span's id, or None.
    parent: str | None
    kind: str
    failed: bool
    state: str
    # Nanoseconds since the epoch.
    began: int
    ended: int
    attributes: dict
    resource: dict
    scope: str


class Collector(Backend):
    """Takes every span until `answer` or `holding` says otherwise."""

    def __init__(self):
        super().__init__()
        self.endpoint = self.at("")

    def settings(self, **more):
        """`[gateway.tracing]` for it: everything is traced, unless who calls says otherwise."""
        return {"endpoint": self.endpoint, "sample": 1.0, "follow_parent": True, **more}

    def spans(self):
        """All that came so far; twice what was sent twice."""
        return [span for request in self.seen(PATH) for span in spans_of(request)]

    def names(self):
        return sorted(span.name for span in self.spans())

    def span(self, name, parent=None):
        """The span of this name, once it is here: the only one, or the only one that is part of `parent`."""
        def look():
            named = [span for span in self.spans() if span.name == name]
            return [span for span in named if parent is None or span.parent == parent.context.span_id]
        found = self._wait(lambda: look() or None, f"a span `{name}`")
        assert len(found) == 1, found
        return found[0]


def spans_of(request):
    assert request.method == "POST" and request.header("Content-Type") == "application/x-protobuf"
    for of_resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
        for of_scope in of_resource.scope_spans:
            for written in of_scope.spans:
                yield read(written, values(of_resource.resource.attributes), of_scope.scope.name)


def read(written, resource, scope):
    assert (len(written.trace_id), len(written.span_id)) == (16, 8) and len(written.parent_span_id) in (0, 8)
    context = Context(written.trace_id.hex(), written.span_id.hex(), bool(written.flags & 1))
    return Span(
        written.name, context, written.parent_span_id.hex() or None,
        Written.SpanKind.Name(written.kind).removeprefix("SPAN_KIND_"), written.status.code == Status.STATUS_CODE_ERROR,
        written.trace_state, written.start_time_unix_nano, written.end_time_unix_nano, values(written.attributes),
        resource, scope)


def values(attributes):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
