"""One reply on its way out: an Answer or a fault to an HTTP status, headers, and bytes that are made as they are sent."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from soap import addressing, fault
from soap.fault import SOAP12, WSA, SoapFault
from xds.messages import Document

_OPEN = f'<soap:Envelope xmlns:soap="{SOAP12}" xmlns:wsa="{WSA}"><soap:Header>'
_MIDDLE = "</soap:Header><soap:Body>"
_CLOSE = b"</soap:Body></soap:Envelope>"
_INCLUDE = re.compile(rb'<xop:Include[^>]*? href="cid:([^"]*)"[^>]*?/>')
_SIMPLE = "application/soap+xml; charset=UTF-8"
#: A multiple of three, so that the base64 of the chunks is the base64 of the whole.
_BASE64_CHUNK = 3 * 128 * 1024


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What goes over HTTP. `length` is None where it is not known before the last piece."""

    status: int
    content_type: str
    length: int | None
    pieces: Iterator[bytes]
    headers: tuple[tuple[str, str], ...] = ()


def envelope(headers: str, body: Iterable[bytes]) -> Iterator[bytes]:
    """A SOAP 1.2 envelope around header blocks as text and a body in pieces."""
    yield (_OPEN + headers + _MIDDLE).encode()
    yield from body
    yield _CLOSE


def fault_reply(error: SoapFault, relates_to: str | None) -> HttpReply:
    headers = addressing.reply_headers(fault.action(error), relates_to) + fault.headers(error)
    content = b"".join(envelope(headers, [fault.body(error).encode()]))
    return HttpReply(error.http_status, _SIMPLE, len(content), iter([content]))


def simple(headers: str, body: Iterable[bytes], documents: Sequence[tuple[str, Document]] = ()) -> HttpReply:
    """A single XML entity; documents stand in it as base64."""
    content = envelope(headers, body)
    return HttpReply(200, _SIMPLE, None, _inline(content, dict(documents)) if documents else content)


def _inline(content: Iterable[bytes], documents: dict[str, Document]) -> Iterator[bytes]:
    text, *rest = _INCLUDE.split(b"".join(content))
    yield text
    for content_id, following in zip(rest[::2], rest[1::2], strict=True):
        for chunk in documents[unquote(content_id.decode())].chunks(_BASE64_CHUNK):
            yield base64.b64encode(chunk)
        yield following


def mtom(headers: str, body: Iterable[bytes], documents: Sequence[tuple[str, Document]]) -> HttpReply:
    """multipart/related with the documents as parts, each opened when its turn comes (ITI TF-2 Appendix V.3.6)."""
    boundary, root_id, root = f"xdsi-{uuid.uuid4()}", f"{uuid.uuid4()}@xdsi", b"".join(envelope(headers, body))
    root_head = (
        f'--{boundary}\r\nContent-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
        f"Content-Transfer-Encoding: binary\r\nContent-ID: <{root_id}>\r\n\r\n"
    ).encode()
    heads = [_part_head(boundary, content_id, document) for content_id, document in documents]
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = (
        len(root_head) + len(root) + sum(map(len, heads)) + sum(document.size for _, document in documents) + len(tail)
    )

    def pieces() -> Iterator[bytes]:
        yield root_head + root
        for head, (_, document) in zip(heads, documents, strict=True):
            yield head
            sent = 0
            for chunk in document.chunks():
                sent += len(chunk)
                if sent <= document.size:
                    yield chunk
            if sent != document.size:
                raise OSError(f"a document of {document.size} bytes has become one of {sent} while it was being sent")
        yield tail

    content_type = (
        f'multipart/related; type="application/xop+xml"; start="<{root_id}>"; start-info="application/soap+xml";'
        f' boundary="{boundary}"'
    )
    return HttpReply(200, content_type, length, pieces())


def _part_head(boundary: str, content_id: str, document: Document) -> bytes:
    # A MIME type is what somebody submitted: nothing in it may end the header.
    mime_type = re.sub(r"[^\x20-\x7e]", "", document.mime_type) or "application/octet-stream"
    return (
        f"\r\n--{boundary}\r\nContent-Type: {mime_type}\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <{content_id}>\r\n\r\n"
    ).encode()
