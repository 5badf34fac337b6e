"""multipart/related, bytes in and events out (RFC 2387, RFC 2046): no file, socket or clock in it.

A reader is fed the body in pieces of any size and gives the same events whatever the pieces were. Bytes of a part are passed on as
they are; only a few bytes, as many as a boundary could begin with, are ever held back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from soap.operations import Limits


class MultipartError(ValueError):
    """The message is no multipart/related that can be read, or a limit is passed (`http_status` 413)."""

    def __init__(self, reason: str, *, http_status: int = 400) -> None:
        super().__init__(reason)
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type in lower case, and its parameters by lower-case name."""

    media_type: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part's headers, by lower-case name. `content_id` without brackets, None where there is none."""

    headers: dict[str, str]
    content_id: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    pass


@dataclass(frozen=True, slots=True)
class End:
    """The closing boundary was seen; whatever follows is epilogue."""


Event = PartBegin | PartData | PartEnd | End

_PARAMETER = re.compile(r';\s*([^=;\s]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')


def parse_content_type(text: str) -> ContentType:
    """A Content-Type header: parameters in any order and case, quoted or bare. MultipartError where there is no media type."""
    media_type, _, _ = text.partition(";")
    if "/" not in media_type:
        raise MultipartError(f"Content-Type {text[:200]!r} has no media type", http_status=415)
    parameters: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(text[len(media_type) :]):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else bare.strip())
    return ContentType(media_type.strip().lower(), parameters)


def content_id(text: str) -> str:
    """A Content-ID or `start` parameter without its brackets, whether it had them or not."""
    text = text.strip()
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


class MultipartReader:
    """The events of one message, from the `boundary` parameter of its Content-Type.

    MultipartError for a boundary that is missing or too long, headers that are no headers, and each limit that is passed.
    """

    def __init__(self, boundary: str, limits: Limits) -> None:
        if not 0 < len(boundary) <= 200:
            raise MultipartError(f"the boundary has {len(boundary)} characters; 1 to 200 are allowed")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._limits = limits
        # The first boundary needs no line before it: as if there were one.
        self._buffer = bytearray(b"\r\n")
        self._state = self._preamble
        self._parts = 0
        self._skipped = 0
        self._at_start = False
        self._ended = False

    def receive_data(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        if self._ended:
            return
        self._buffer += data
        while not self._ended and (events := self._state()) is not None:
            yield from events

    def receive_eof(self) -> None:
        """Says that no more bytes come. MultipartError when the closing boundary has not been seen."""
        if not self._ended:
            raise MultipartError("the multipart message ends before its closing boundary")

    # Each state gives the events it can and may change the state; None when it needs more bytes.

    def _preamble(self) -> list[Event] | None:
        at = self._buffer.find(self._delimiter)
        # What can't be the beginning of a boundary is skipped.
        skipped = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        self._skipped += skipped
        if self._skipped > self._limits.preamble_bytes:
            raise MultipartError(f"no boundary within the first {self._limits.preamble_bytes} bytes", http_status=413)
        if at < 0:
            del self._buffer[:skipped]
            return None
        del self._buffer[: at + len(self._delimiter)]
        self._state = self._after_boundary
        return []

    def _after_boundary(self) -> list[Event] | None:
        """Behind `--boundary`: two hyphens close the message; white space and a line end begin a part."""
        if len(self._buffer) < 2:
            return None
        if self._buffer[:2] == b"--":
            self._ended = True
            self._buffer.clear()
            return [End()]
        line_end = self._buffer.find(b"\n")
        if line_end < 0:
            if len(self._buffer) > 1024:
                raise MultipartError("the line of a boundary does not end")
            return None
        if bytes(self._buffer[:line_end]).strip():
            raise MultipartError("a boundary is followed by other text on its line")
        del self._buffer[: line_end + 1]
        self._parts += 1
        if self._parts > self._limits.parts:
            raise MultipartError(f"the message has more than {self._limits.parts} parts", http_status=413)
        self._state = self._headers
        return []

    def _headers(self) -> list[Event] | None:
        if self._buffer[:2] == b"\r\n":
            head, used = b"", 2
        else:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0 and len(self._buffer) < self._limits.part_header_bytes + 4:
                return None
            if not 0 <= end <= self._limits.part_header_bytes:
                raise MultipartError(
                    f"the headers of part {self._parts} are longer than {self._limits.part_header_bytes} bytes",
                    http_status=413,
                )
            head, used = bytes(self._buffer[:end]), end + 4
        headers = self._parse_headers(head.decode("latin-1"))
        del self._buffer[:used]
        self._at_start = True
        self._state = self._body
        given = headers.get("content-id")
        return [PartBegin(headers, None if given is None else content_id(given))]

    def _parse_headers(self, head: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in re.sub(r"\r?\n[ \t]+", " ", head).split("\r\n"):
            name, colon, value = line.partition(":")
            if line and not colon:
                raise MultipartError(f"part {self._parts} has a header line without a colon: {line[:80]!r}")
            if line and headers.setdefault(name.strip().lower(), value.strip()) != value.strip():
                raise MultipartError(f"part {self._parts} has the header {name.strip()[:40]!r} twice")
        return headers

    def _body(self) -> list[Event] | None:
        delimiter = self._delimiter
        # A part without any bytes: the boundary follows the empty line at once (its own line end is that line's).
        if self._at_start:
            if len(self._buffer) < len(delimiter) - 2:
                return None
            self._at_start = False
            if self._buffer.startswith(delimiter[2:]):
                del self._buffer[: len(delimiter) - 2]
                self._state = self._after_boundary
                return [PartEnd()]
        at = self._buffer.find(delimiter)
        if at < 0:
            sure = len(self._buffer) - len(delimiter) + 1
            if sure <= 0:
                return None
            data = bytes(memoryview(self._buffer)[:sure])
            del self._buffer[:sure]
            return [PartData(data)]
        events: list[Event] = [PartData(bytes(memoryview(self._buffer)[:at]))] if at else []
        del self._buffer[: at + len(delimiter)]
        self._state = self._after_boundary
        return [*events, PartEnd()]
