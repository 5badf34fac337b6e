"""Where received parts go: small ones to memory, others to files, while their size and hashes are computed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from soap.fault import SoapFault, sender
from xds.messages import Document

_UNENCODED = ("", "binary", "8bit", "7bit")
#: RFC 2045 6.7 allows 76 characters in a line of quoted-printable; nobody needs more than this.
_MAX_LINE_BYTES = 64 * 1024


class Sink:
    """One part on its way in. `write` its bytes, then `close`; a Document comes out.

    A SoapFault (HTTP 413) when it grows over `max_bytes`, or when its bytes are not in the transfer encoding they claim.
    """

    def __init__(self, spool: Spool, *, name: str, mime_type: str, transfer_encoding: str, max_bytes: int) -> None:
        self._spool, self._name, self._mime_type, self._max_bytes = spool, name, mime_type, max_bytes
        self._sha1, self._sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
        self._size = 0
        self._memory: list[bytes] = []
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        encoding = transfer_encoding.strip().lower()
        self._decode: Callable[[bytes, bool], bytes] | None = None
        if encoding == "base64":
            self._decode = _Base64(name).decode
        elif encoding == "quoted-printable":
            self._decode = _QuotedPrintable(name).decode
        elif encoding not in _UNENCODED:
            raise sender(f"part {name!r} has the unknown Content-Transfer-Encoding {encoding[:40]!r}")

    def write(self, data: bytes) -> None:
        """The next bytes, as they are in the message."""
        self._store(data if self._decode is None else self._decode(data, False))

    def close(self) -> Document:
        """The whole part."""
        if self._decode is not None:
            self._store(self._decode(b"", True))
        if self._file is not None:
            self._file.close()
        content, path = b"".join(self._memory), self._path
        return Document(
            size=self._size,
            sha1=self._sha1.hexdigest(),
            sha256=self._sha256.hexdigest(),
            mime_type=self._mime_type,
            open=(lambda: io.BytesIO(content)) if path is None else (lambda: path.open("rb")),
            path=path,
        )

    def abort(self) -> None:
        """Lets go of the file; the spool removes it."""
        if self._file is not None:
            self._file.close()

    def _store(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max_bytes:
            raise SoapFault(
                "Sender", f"part {self._name!r} is larger than the limit of {self._max_bytes} bytes", http_status=413
            )
        self._sha1.update(data)
        self._sha256.update(data)
        if self._file is None:
            if self._size <= self._spool.memory_bytes and self._spool.reserve(len(data)):
                self._memory.append(data)
                return
            self._path, self._file = self._spool.create()
            _write(self._file, b"".join(self._memory))
            self._spool.reserve(len(data) - self._size)
            self._memory.clear()
        _write(self._file, data)


class Spool:
    """The parts of one message. `directory` should be where the documents will be kept, so that a file can be taken over by renaming.

    A part of up to `memory_bytes` stays in memory while all of them together have no more than `total_memory_bytes`. As a context manager
    the spool removes, at its end, whatever nobody has taken over.
    """

    def __init__(
        self, directory: Path, *, memory_bytes: int = 64 * 1024, total_memory_bytes: int = 8 * 1024 * 1024
    ) -> None:
        self.directory, self.memory_bytes = directory, memory_bytes
        self._free_bytes = total_memory_bytes
        self._files: list[Path] = []
        self._sinks: list[Sink] = []

    def sink(self, *, name: str, mime_type: str, transfer_encoding: str = "", max_bytes: int) -> Sink:
        """A place for one part. `name` is how errors call it; it never becomes part of a path."""
        sink = Sink(self, name=name, mime_type=mime_type, transfer_encoding=transfer_encoding, max_bytes=max_bytes)
        self._sinks.append(sink)
        return sink

    def reserve(self, size: int) -> bool:
        """Whether so many bytes more may stay in memory; if so they count from now on. A negative size gives bytes back."""
        if size > self._free_bytes:
            return False
        self._free_bytes -= size
        return True

    def create(self) -> tuple[Path, BinaryIO]:
        """A new file of a random name."""
        path = self.directory / f"{secrets.token_hex(16)}.part"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._files.append(path)
        return path, os.fdopen(descriptor, "wb", buffering=0)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for sink in self._sinks:
            sink.abort()
        failed: OSError | None = None
        for path in self._files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                failed = error
        self._files.clear()
        self._sinks.clear()
        if failed is not None:
            raise failed


def _write(file: BinaryIO, data: bytes) -> None:
    """All of the data: an unbuffered file on a disk that is nearly full takes less, and says so only the next time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class _Base64:
    """Base64 in pieces of any size, white space between its characters allowed (RFC 2045 6.8)."""

    def __init__(self, name: str) -> None:
        self._name, self._rest, self._padded = name, b"", False

    def decode(self, data: bytes, last: bool) -> bytes:
        text = self._rest + data.translate(None, b" \t\r\n")
        whole = len(text) if last else len(text) // 4 * 4
        text, self._rest = text[:whole], text[whole:]
        try:
            # Padding ends the text, even where a piece ends with it.
            if self._padded and text:
                raise ValueError
            self._padded = text.endswith(b"=")
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise sender(f"part {self._name!r} is not the base64 that it claims to be") from None


class _QuotedPrintable:
    """Quoted-printable in pieces of any size, line by line (RFC 2045 6.7)."""

    def __init__(self, name: str) -> None:
        self._name, self._rest = name, b""

    def decode(self, data: bytes, last: bool) -> bytes:
        text = self._rest + data
        whole = len(text) if last else text.rfind(b"\n") + 1
        text, self._rest = text[:whole], text[whole:]
        if len(self._rest) > _MAX_LINE_BYTES:
            raise sender(f"part {self._name!r} has a line of quoted-printable of more than {_MAX_LINE_BYTES} bytes")
        return binascii.a2b_qp(text)
