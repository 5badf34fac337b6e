"""One request on its way in: bytes to an envelope in memory and documents in a spool."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from soap import multipart
from soap.envelope import Envelope, parse
from soap.fault import sender
from soap.multipart import ContentType, End, MultipartError, MultipartReader, PartBegin, PartData, PartEnd
from soap.operations import Limits
from soap.spool import Sink, Spool
from xds.messages import Document

_XML_TYPES = frozenset({"application/soap+xml", "application/xop+xml", "text/xml", "application/xml"})


class Receiver:
    """Takes the body of an HTTP message in pieces of any size; afterwards it has the `envelope` and the `documents`.

    SoapFault for whatever is wrong with the packaging (ITI TF-2 Appendix V.3.6) and for each limit that is passed.
    """

    def __init__(self, content_type: str, spool: Spool, limits: Limits) -> None:
        self.documents: dict[str, Document] = {}
        self._spool, self._limits = spool, limits
        self._root = bytearray()
        self._root_type: ContentType | None = None
        self._reader: MultipartReader | None = None
        self._sink: Sink | None = None
        self._lost: OSError | None = None
        self._in_root = False
        self._content_id: str | None = None
        self._received = 0
        try:
            parsed = multipart.parse_content_type(content_type)
            if parsed.media_type == "multipart/related":
                self._start = multipart.content_id(parsed.parameters.get("start", ""))
                self._reader = MultipartReader(parsed.parameters.get("boundary", ""), limits)
            elif parsed.media_type in _XML_TYPES:
                self._root_type = parsed
            else:
                raise sender(
                    f"Content-Type {parsed.media_type[:200]!r} is neither multipart/related nor SOAP", http_status=415
                )
        except MultipartError as error:
            raise sender(str(error), http_status=error.http_status) from None

    @property
    def mtom(self) -> bool:
        return self._reader is not None

    def receive_data(self, data: bytes) -> None:
        """The next bytes of the body."""
        self._received += len(data)
        if self._received > self._limits.message_bytes:
            raise sender(f"the message is larger than the limit of {self._limits.message_bytes} bytes", http_status=413)
        if self._reader is None:
            self._add_to_root(data)
            return
        try:
            for event in self._reader.receive_data(data):
                self._handle(event)
        except MultipartError as error:
            raise sender(str(error), http_status=error.http_status) from None

    def envelope(self) -> Envelope:
        """The message, after the last byte. The root part is the one that `start` names, else the first."""
        if self._reader is not None:
            try:
                self._reader.receive_eof()
            except MultipartError as error:
                raise sender(str(error)) from None
        if self._root_type is None:
            raise sender(f"no part has the Content-ID {self._start[:200]!r} that the parameter start names")
        return parse(bytes(self._root), charset=self._root_type.parameters.get("charset"), limits=self._limits)

    def _handle(self, event: multipart.Event) -> None:
        match event:
            case PartBegin(headers, content_id):
                self._begin(headers, content_id)
            case PartData(data):
                self._add_to_part(data)
            case PartEnd():
                self._end()
            case End():
                pass

    def _begin(self, headers: dict[str, str], content_id: str | None) -> None:
        # Without the parameter start the first part is the root (RFC 2387 3.2).
        is_root = self._root_type is None and (not self._start or content_id == self._start)
        encoding = headers.get("content-transfer-encoding", "")
        self._in_root, self._content_id = is_root, content_id
        if is_root:
            root_type = multipart.parse_content_type(headers.get("content-type", "application/xop+xml"))
            if root_type.media_type not in _XML_TYPES:
                raise sender(
                    f"the root part is {root_type.media_type[:200]!r}, not application/xop+xml", http_status=415
                )
            self._root_type = root_type
            if encoding.strip().lower() in ("", "binary", "8bit", "7bit"):
                return
        elif content_id in self.documents:
            raise sender(f"two parts have the Content-ID {content_id[:200]!r}")
        self._lost = None
        self._sink = self._spool.sink(
            name="root" if is_root else content_id or "without Content-ID",
            mime_type=headers.get("content-type", "application/octet-stream"),
            transfer_encoding=encoding,
            max_bytes=self._limits.envelope_bytes if is_root else self._limits.document_bytes,
        )

    def _add_to_part(self, data: bytes) -> None:
        if self._sink is None:
            self._add_to_root(data)
        elif self._lost is None:
            try:
                self._sink.write(data)
            except OSError as error:
                if self._in_root:
                    raise
                # Only the operation can answer in its own words that there is no room, and the envelope says which it is.
                self._lost = error

    def _end(self) -> None:
        if self._sink is None:
            return
        document = _unreadable(self._lost) if self._lost is not None else self._sink.close()
        self._sink = None
        if self._in_root:
            # A root part in base64 or quoted-printable has been decoded by its sink.
            self._root += document.read()
        elif self._content_id is not None:
            self.documents[self._content_id] = document

    def _add_to_root(self, data: bytes) -> None:
        self._root += data
        if len(self._root) > self._limits.envelope_bytes:
            raise sender(
                f"the SOAP envelope is larger than the limit of {self._limits.envelope_bytes} bytes", http_status=413
            )


def _unreadable(error: OSError) -> Document:
    """What could not be kept: whoever opens it meets the error. Nobody knows its size and hash."""
    return Document(size=0, sha1="", mime_type="application/octet-stream", open=_raising(error))


def _raising(error: OSError) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        raise error

    return opened
