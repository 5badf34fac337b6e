"""A collector of traces: it takes OTLP over HTTP as the protocol says, and keeps what it was told."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | int | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A span; its ids in hexadecimal, `parent` "" for one without."""

    name: str
    kind: Literal["server", "client", "internal"]
    trace: str
    id: str
    parent: str
    attributes: dict[str, Value]
    failed: bool
    resource: dict[str, Value]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.collector.take(self.path, self.headers.get("Content-Type", ""), body)
        if self.collector.silent:
            self.collector.over.wait()
            self.close_connection = True
            return
        content = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@dataclass
class Collector:
    """`silent` is one that takes what comes and never answers. `bodies` are what it received, byte for byte."""

    silent: bool = False
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    spans: list[Told] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def take(self, path: str, content_type: str, body: bytes) -> None:
        assert (path, content_type) == ("/v1/traces", "application/x-protobuf")
        self.bodies.append(body)
        self.spans += _told(body)

    def of(self, name: str, kind: str) -> Told:
        """The only span of this name and kind."""
        (found,) = (one for one in self.spans if (one.name, one.kind) == (name, kind))
        return found

    def below(self, parent: Told) -> dict[str, Told]:
        """Its children by name."""
        return {one.name: one for one in self.spans if one.parent == parent.id}


@contextmanager
def collecting(*, silent: bool = False) -> Iterator[Collector]:
    """A collector that listens; nothing waits in it any more when the context has ended."""
    collector = Collector(silent=silent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"collector": collector}))
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        collector.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


_KINDS: dict[int, Literal["server", "client", "internal"]] = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_INTERNAL: "internal",
}


def _told(body: bytes) -> Iterator[Told]:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                assert not span.events, "an exception was told, whose text may name a patient"
                assert span.start_time_unix_nano <= span.end_time_unix_nano
                yield Told(
                    name=span.name,
                    kind=_KINDS[span.kind],
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    attributes=_attributes(span.attributes),
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    resource=resource,
                )


def _attributes(given: Iterable[KeyValue]) -> dict[str, Value]:
    return {one.key: _value(one.value) for one in given}


def _value(given: AnyValue) -> Value:
    if given.HasField("array_value"):
        return tuple(one.string_value for one in given.array_value.values)
    return given.int_value if given.HasField("int_value") else given.string_value
