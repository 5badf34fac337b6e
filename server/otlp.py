"""Exchanges as spans of OpenTelemetry, sent over OTLP/HTTP. The only file that knows it (the extra `tracing`).

A span holds names of ours, numbers, ids of messages, and no word else from the wire: neither the text of an error, which may name a
patient, nor `tracestate`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import get_args
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from registry.service import REGISTER, STORED_QUERY
from server import logs
from server.config import ConfigError
from server.http import App
from server.tracing import Tracing
from soap import fault
from soap.client import HttpResponse, Transport
from soap.operations import Exchange
from soap.streams import Receive, Scope, Send
from xds.problems import ErrorCode

_log = logging.getLogger("xdsi.server")
#: The end of the process waits so long for a collector.
_FLUSH_S = 5.0
_PROTOCOL = "http/protobuf"
_W3C = TraceContextTextMapPropagator()
#: Version 00 has 55; a later one may have more.
_TRACEPARENT_CHARACTERS = 512
_ACTION = re.compile(r'; action="([^"]*)"')
#: What a repository asks of a remote registry.
_TRANSACTIONS = {REGISTER: "ITI-42", STORED_QUERY: "ITI-18"}
#: The code of a problem that another actor found may be any text.
_CODES = frozenset(ErrorCode) | frozenset(get_args(fault.Code))


def tracing(endpoint: str) -> Tracing:
    """Spans that are posted to the URL, or, where it is empty, as the standard variables OTEL_* say. ConfigError for what they cannot."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (given := os.environ.get(name, "") or _PROTOCOL) != _PROTOCOL:
            raise ConfigError(f"environment variable {name} is {given!r}; traces are sent as {_PROTOCOL} only")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"server.tracing_endpoint is {endpoint!r}; it must begin with http:// or https://")
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint or None)))
    spans = Spans(provider.get_tracer("xdsi"))

    def close() -> None:
        ending = threading.Thread(target=provider.shutdown, name="xdsi-traces", daemon=True)
        ending.start()
        ending.join(_FLUSH_S)
        if ending.is_alive():
            _log.warning("the collector of traces did not answer within %s s; the last spans are lost", _FLUSH_S)

    return Tracing(app=spans.app, stage=spans.stage, observe=spans.observe, transport=spans.transport, close=close)


def _resource() -> Resource:
    """As OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say; else the name of the service is xdsi."""
    given = Resource.create()
    if str(given.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return given.merge(Resource({SERVICE_NAME: "xdsi"}))
    return given


class Spans:
    """What Tracing consists of."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def app(self, app: App, route: str, methods: Collection[str]) -> App:
        """A server's span around each exchange, the child of the span that a traceparent header names (W3C Trace Context)."""

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            method = scope["method"]
            if method not in methods:
                await app(scope, receive, send)
                return
            attributes = {"http.request.method": method, "http.route": route}
            with self._span(f"{method} {route}", SpanKind.SERVER, attributes, _parent(scope)) as span:
                token = logs.trace_id.set(format_trace_id(span.get_span_context().trace_id))
                try:
                    await app(scope, receive, send)
                finally:
                    logs.trace_id.reset(token)

        return run

    def stage(self, name: str) -> AbstractContextManager[Span]:
        """A span within the current one."""
        return self._span(name, SpanKind.INTERNAL, {})

    def observe(self, one: Exchange) -> None:
        """What became of the exchange whose span is the current one."""
        span = get_current_span()
        span.update_name(one.transaction or one.service)
        codes = tuple(dict.fromkeys(code if code in _CODES else "other" for code in one.codes))
        told: dict[str, str | int | tuple[str, ...] | None] = {
            "xdsi.service": one.service,
            "xdsi.transaction": one.transaction or None,
            "xdsi.ending": one.ending,
            "xdsi.error_codes": codes or None,
            "xdsi.incident": one.incident,
            "wsa.action": one.action or None,
            "wsa.message_id": None if one.message_id is None else logs.printable(one.message_id),
            "http.response.status_code": one.http_status or None,
            "http.request.body.size": one.bytes_in,
            "http.response.body.size": one.bytes_out,
        }
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if one.ending in ("failure", "fault", "disconnected"):
            _failed(span, codes[0] if codes else one.ending)

    def transport(self, transport: Transport) -> Transport:
        """A client's span around each request, which the peer is told as the parent of its own."""

        @contextmanager
        def post(url: str, headers: Mapping[str, str], body: Iterable[bytes]) -> Iterator[HttpResponse]:
            found = _ACTION.search(headers.get("Content-Type", ""))
            action = found[1] if found else ""
            attributes = {"http.request.method": "POST", "wsa.action": action, **_peer(url)}
            with self._span(_TRANSACTIONS.get(action, action), SpanKind.CLIENT, attributes) as span:
                told = dict(headers)
                _W3C.inject(told, set_span_in_context(span))
                with transport(url, told, body) as response:
                    span.set_attribute("http.response.status_code", response.status)
                    if response.status >= 400:
                        _failed(span, str(response.status))
                    yield response

        return post

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Mapping[str, str | int], parent: Context | None = None
    ) -> Iterator[Span]:
        """The current span of a while, below `parent` or else the one before. Of an exception it tells the type alone."""
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                _failed(span, type(error).__name__.lstrip("_"))
                raise


def _failed(span: Span, kind: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)


def _parent(scope: Scope) -> Context:
    """What the request says of where it belongs; the empty context where it says nothing, or several things."""
    found = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
    if len(found) != 1 or len(found[0]) > _TRACEPARENT_CHARACTERS:
        return Context()
    return _W3C.extract({"traceparent": found[0]}, Context())


def _peer(url: str) -> dict[str, str | int]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return {}
    return {"server.address": parts.hostname or "", "server.port": port}
