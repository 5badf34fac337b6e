"""Documents of any size sent and retrieved without ever being whole in memory, and how much memory the server takes for it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from benchmarks.messages import BOUNDARY, MTOM, SIMPLE, envelope, multipart, patient, retrieve, submission
from schemas import xdsb
from soap.multipart import ContentType, MultipartReader, PartBegin, PartData, PartEnd, parse_content_type
from soap.operations import Limits
from xds.messages import DocumentRequest

MEBIBYTE = 1024 * 1024
_PROVIDE = "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"
_PIECE = 256 * 1024
Framing = Literal["length", "chunked"]


class Content:
    """So many bytes, made as they are asked for."""

    def __init__(self, size: int, seed: int = 1) -> None:
        self.size = size
        self._block = random.Random(seed).randbytes(_PIECE)

    def pieces(self) -> Iterator[bytes]:
        for at in range(0, self.size, _PIECE):
            yield (at.to_bytes(8) + self._block[8:])[: self.size - at]

    @cached_property
    def sha1(self) -> str:
        digest = hashlib.sha1()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An ITI-41 request of one document, which is in `pieces`."""

    document_unique_id: str
    length: int
    pieces: Iterator[bytes]


def provide(content: Content, *, encoding: Literal["binary", "base64"] = "binary") -> Message:
    """MTOM, with the document as a part in this Content-Transfer-Encoding."""
    one = submission(patient(1))
    root = envelope(_PROVIDE, xdsb.encode_provide(one, {"Document0": "d@x"}))
    whole = multipart(root, [("d@x", b"")])
    at = whole.rindex(f"\r\n--{BOUNDARY}--".encode())
    head, tail = whole[:at], whole[at:]
    head = head.replace(b"Encoding: binary\r\nContent-ID: <d@x>", f"Encoding: {encoding}\r\nContent-ID: <d@x>".encode())
    size = content.size if encoding == "binary" else sum(len(piece) for piece in _base64(content))

    def pieces() -> Iterator[bytes]:
        yield head
        yield from content.pieces() if encoding == "binary" else _base64(content)
        yield tail

    unique_id = str(one.document_entries[0].unique_id)
    return Message(document_unique_id=unique_id, length=len(head) + size + len(tail), pieces=pieces())


def inline(content: bytes) -> Message:
    """Without MTOM: the document stands in the envelope, as base64."""
    one = submission(patient(1))
    body = xdsb.encode_provide(one, {"Document0": "d@x"})
    begin = body.index(b"<xop:Include")
    include = body[begin : body.index(b"/>", begin) + 2]
    whole = envelope(_PROVIDE, body.replace(include, base64.b64encode(content)))
    return Message(document_unique_id=str(one.document_entries[0].unique_id), length=len(whole), pieces=iter((whole,)))


def _base64(content: Content) -> Iterator[bytes]:
    """Lines of 76 characters (RFC 2045 6.8): 57 bytes each."""
    rest = b""
    for piece in content.pieces():
        rest += piece
        whole = len(rest) // 57 * 57
        yield base64.encodebytes(rest[:whole]).replace(b"\n", b"\r\n")
        rest = rest[whole:]
    yield base64.encodebytes(rest).replace(b"\n", b"\r\n")


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)


def post(url: str, message: Message, framing: Framing = "length", *, content_type: str = MTOM) -> tuple[int, str]:
    """Status and text of the answer."""
    headers = {"Content-Type": content_type}
    if framing == "length":
        headers["Content-Length"] = str(message.length)
    connection = connect(url)
    try:
        connection.request("POST", "/repository", message.pieces, headers, encode_chunked=framing == "chunked")
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def post_inline(url: str, message: Message) -> tuple[int, str]:
    """The same for a single XML entity."""
    return post(url, message, content_type=SIMPLE)


@dataclass(slots=True)
class Received:
    """The parts of an answer: of the first one its text, of every other one its SHA-1 and size, in their order."""

    root: bytearray = field(default_factory=bytearray)
    documents: list[tuple[str, int]] = field(default_factory=list)


def retrieved(
    url: str,
    repository_unique_id: str,
    document_unique_ids: Iterable[str],
    *,
    paused: Callable[[int], None] = lambda _: None,
) -> Received:
    """ITI-43. `paused` is called before each read with the number of bytes so far, and may take its time."""
    requests = [
        DocumentRequest(repository_unique_id=repository_unique_id, document_unique_id=one)
        for one in document_unique_ids
    ]
    connection = connect(url)
    try:
        connection.request("POST", "/repository", retrieve(requests), {"Content-Type": MTOM})
        response = connection.getresponse()
        assert response.status == 200, response.read(2000)
        content_type = parse_content_type(response.headers["Content-Type"])
        return _parts(content_type, response, paused)
    finally:
        connection.close()


def _parts(content_type: ContentType, response: http.client.HTTPResponse, paused: Callable[[int], None]) -> Received:
    found, total, number = Received(), 0, 0
    digest, size = hashlib.sha1(), 0
    reader = MultipartReader(content_type.parameters["boundary"], Limits(parts=100_000))
    while True:
        paused(total)
        data = response.read(64 * 1024)
        if not data:
            break
        total += len(data)
        for event in reader.receive_data(data):
            match event:
                case PartBegin():
                    number += 1
                    digest, size = hashlib.sha1(), 0
                case PartData(piece) if number == 1:
                    found.root += piece
                case PartData(piece):
                    digest.update(piece)
                    size += len(piece)
                case PartEnd() if number > 1:
                    found.documents.append((digest.hexdigest(), size))
    reader.receive_eof()
    return found


class Memory:
    """The resident memory of a process, in MiB: what it was at the beginning, and its peak while the context lasted."""

    def __init__(self, pid: int) -> None:
        self._process = Path("/proc") / str(pid)
        self.before = self.peak = 0.0

    @property
    def rise(self) -> float:
        return self.peak - self.before

    @property
    def so_far(self) -> float:
        """How much it has risen at most since the context began."""
        return self._read("VmHWM") - self.before

    def _read(self, name: str) -> float:
        line = next(one for one in (self._process / "status").read_text().splitlines() if one.startswith(name))
        return int(line.split()[1]) / 1024

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        # Forgets the peak so far.
        (self._process / "clear_refs").write_text("5")
        self.before = self._read("VmRSS")
        yield self
        self.peak = self._read("VmHWM")
