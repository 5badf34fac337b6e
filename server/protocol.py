"""One connection: uvicorn's protocol, with bounds on what comes before a request's body and on what nobody reads any more.

Whatever passes a bound is answered in plain text that names it: no SOAP message has been seen yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.config import Limits
from soap.streams import Receive, Scope, Send


class _Passed(Exception):
    """A bound is passed; the parser stops."""


class _UntilRead:
    """A transport whose closing waits until the request has come, or its time is up."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol, self._transport = protocol, protocol.transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._protocol.close_when_read()


class BoundedProtocol(HttpToolsProtocol):
    """Bounds: `connections`, `head_bytes`, `head_fields`, `head_s` (server/config/sections.py)."""

    def __init__(self, *, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._refusal: tuple[int, str] | None = None
        #: Between two requests, or in the head of one: from the end of a message to the end of the next head.
        self._in_head = True
        #: What came since the last head, body or message got on, and of a head what is complete. Either may be behind the other.
        self._head_bytes = self._parsed_bytes = 0
        self._got_on = False
        #: It is answered, and nothing is answered any more.
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            text = f"there are more than the limit of {self._limits.connections} connections"
            self.app = _unavailable(text)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._got_on = False
        super().data_received(data)
        if self._got_on or self.transport.is_closing():
            return
        # A head that goes on, line ends before one, or what surrounds the chunks of a body and follows the last.
        if self._in_head:
            self._start_timer()
        self._head_bytes += len(data)
        if self._head_bytes > self._limits.head_bytes:
            self._refusal = self._too_long()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._parsed_bytes = 0
        self._start_timer()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + len(": \r\n"))

    def on_headers_complete(self) -> None:
        self._in_head, self._got_on, self._head_bytes = False, True, 0
        self._stop_timer()
        super().on_headers_complete()
        self.cycle.transport = _UntilRead(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._got_on, self._head_bytes = True, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._got_on, self._head_bytes = True, True, 0
        self._stop_timer()
        if self._closing:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head:
            # It was answered before it was read: what is left of it must come soon, and is thrown away.
            self._start_timer()

    def close_when_read(self) -> None:
        """Closes the connection; while the request still comes, only the sending side at first.

        Closed with bytes unread, the system would take back what the client has not read yet: why it was refused.
        """
        too_many = len(self.connections) > self._limits.connections
        if too_many or self._in_head or self.pipeline or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self._closing = True
            self.transport.write_eof()
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # This is no time to answer: the application does, or has begun to.
            self.transport.close()
            return
        status, text = self._refusal or (400, msg)
        content = text.encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def _count(self, size: int) -> None:
        """Raises what stops the parser when the head has become too long or has too many fields."""
        self._parsed_bytes += size
        if self._parsed_bytes > self._limits.head_bytes:
            self._refusal = self._too_long()
        elif len(self.headers) > self._limits.head_fields:
            self._refusal = 431, f"the request has more than the limit of {self._limits.head_fields} header fields"
        else:
            return
        raise _Passed

    def _too_long(self) -> tuple[int, str]:
        return 431, f"the request line and header fields are longer than the limit of {self._limits.head_bytes} bytes"

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._limits.head_s, self._is_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The next request may wait for the answer to this one.
            self._start_timer()
        elif self._in_head and self._head_bytes:
            limit = self._limits.head_s
            self._refusal = 408, f"the request line and header fields have not come within the limit of {limit} s"
            self.send_400_response("")
        else:
            self.transport.close()


def bounded(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """What makes the protocol of each connection."""
    return partial(BoundedProtocol, limits=limits)


def _unavailable(text: str) -> Callable[[Scope, Receive, Send], Any]:
    """An application that has no time, and says why."""
    content = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return application
