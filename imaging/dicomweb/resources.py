"""What DICOMweb and WADO handlers are given and give back: a request for a resource, an answer or a refusal, and media types."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soap.multipart import MultipartError, parse_content_type
from soap.replying import HttpReply
from xds.values import is_oid

JSON = "application/dicom+json"
TEXT = "text/plain; charset=utf-8"
_MAX_VALUE_CHARACTERS = 16_384
_MAX_ACCEPTED = 50
_UIDS = {"study": "Study Instance UID", "series": "Series Instance UID", "instance": "SOP Instance UID"}


class Refusal(Exception):
    """A request that is answered with an HTTP status of 400 or more and a text that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for. `place` are the variable parts of the path, `base` is the URL below which the resources are.

    `accept` is the header Accept, or the query parameter that stands for it (PS3.18 8.3.3.1).
    """

    place: Mapping[str, str] = field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    accept: str = ""
    content_type: str = ""
    base: str = ""

    def parameters(self, allowed: Iterable[str]) -> dict[str, str]:
        """The query's parameters, each of which may come once; Refusal for one that is not allowed."""
        found: dict[str, str] = {}
        known = {name.lower(): name for name in allowed}
        for given, value in self.query:
            name = known.get(given.lower())
            if name is None:
                raise Refusal(400, f"there is no parameter {given[:64]!r} here; there are {', '.join(sorted(allowed))}")
            if name in found:
                raise Refusal(400, f"the parameter {name} comes twice")
            found[name] = value
        return found


Handler = Callable[[Request], HttpReply]


def check_place(place: Mapping[str, str]) -> None:
    """Refusal for a part of the path that is to be a UID and is none (PS3.5 9.1)."""
    for name, meaning in _UIDS.items():
        if name in place and not is_oid(place[name]):
            raise Refusal(400, f"the {meaning} {place[name][:80]!r} is no UID: at most 64 digits and dots")


def check_query(query: Sequence[tuple[str, str]]) -> None:
    """Refusal for what no parameter of a query can be."""
    for name, value in query:
        if len(value) > _MAX_VALUE_CHARACTERS:
            raise Refusal(400, f"the value of {name[:64]!r} has more than {_MAX_VALUE_CHARACTERS} characters")
        if "\0" in name + value:
            raise Refusal(400, f"{name[:64]!r} or its value has a NUL in it")


@dataclass(frozen=True, slots=True)
class Accepted:
    """One media type that the client takes. `part_type` is that of the parts where it is multipart/related, else ""."""

    media_type: str
    part_type: str
    transfer_syntax: str

    @property
    def is_multipart(self) -> bool:
        return self.media_type == "multipart/related"

    @property
    def is_any(self) -> bool:
        """Whatever the server likes, multipart or not."""
        return self.media_type == "*/*"

    @property
    def content(self) -> str:
        """The media type of what is in it, which may be a range: "*/*", "image/*"."""
        return (self.part_type or "*/*") if self.is_multipart else self.media_type

    def takes(self, media_type: str) -> bool:
        """Whether it takes such content, as one or as parts."""
        return self.content in ("*/*", media_type, f"{media_type.partition('/')[0]}/*")


def accepted(header: str) -> list[Accepted]:
    """The media types of an Accept header, the preferred first; anything where it is empty. Refusal for what is no such header."""
    weighed: list[tuple[float, Accepted]] = []
    entries = [one for one in re.findall(r'(?:[^,"]|"[^"]*"?)+', header) if one.strip()] or ["*/*"]
    if len(entries) > _MAX_ACCEPTED:
        raise Refusal(400, f"Accept has more than {_MAX_ACCEPTED} media types")
    for entry in entries:
        try:
            parsed = parse_content_type(entry.strip())
        except MultipartError:
            raise Refusal(400, f"Accept: {entry.strip()[:80]!r} is no media type") from None
        quality = _quality(parsed.parameters.get("q", "1"))
        if quality > 0:
            media_type = _ALIASES.get(parsed.media_type, parsed.media_type)
            part_type = parsed.parameters.get("type", "").lower() if media_type == "multipart/related" else ""
            syntax = parsed.parameters.get("transfer-syntax", "")
            weighed.append((quality, Accepted(media_type, _ALIASES.get(part_type, part_type), syntax)))
    return [one for _, one in sorted(weighed, key=lambda pair: -pair[0])]


#: What some clients say.
_ALIASES = {
    "image/jpg": "image/jpeg",
    "application/jpeg": "image/jpeg",
    "image/x-jls": "image/jls",
    "image/x-dicom-rle": "image/dicom-rle",
    "multipart/*": "multipart/related",
}


def _quality(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text, re.ASCII) else 0.0


def one_of(request: Request, offered: Sequence[str]) -> str:
    """The media type, of those offered, that the client prefers; the first one where it takes any. Refusal (406) for none of them."""
    for one in accepted(request.accept):
        found = next((media_type for media_type in offered if one.takes(media_type)), None)
        if found is not None and not one.is_multipart:
            return found
    raise not_acceptable(request, offered)


def not_acceptable(request: Request, offered: Iterable[str]) -> Refusal:
    return Refusal(
        406, f"Accept: {request.accept[:200]!r} has none of the media types of this resource: {', '.join(offered)}"
    )


def reply(
    content: bytes, content_type: str, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> HttpReply:
    return HttpReply(status, content_type, len(content), iter([content]), headers)


def in_text(status: int, text: str) -> HttpReply:
    """A refusal as a line of text."""
    return reply(f"{text}\n".encode("utf-8", "replace"), TEXT, status=status)


def json_array(items: Iterable[Mapping[str, Any]], *, headers: tuple[tuple[str, str], ...] = ()) -> HttpReply:
    """Data sets in DICOM JSON, each made when its turn comes."""

    def pieces() -> Iterator[bytes]:
        opening = b"["
        for item in items:
            yield opening + json.dumps(item, separators=(",", ":")).encode()
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return HttpReply(200, JSON, None, pieces(), headers)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart answer. `location` is its Content-Location, if it has one."""

    content_type: str
    content: Iterable[bytes]
    location: str = ""


def multipart(
    part_type: str, parts: Iterable[Part], *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> HttpReply:
    """multipart/related (PS3.18 8.7.1), each part made when its turn comes."""
    boundary = f"xdsi-{uuid.uuid4()}"

    def pieces() -> Iterator[bytes]:
        for part in parts:
            location = f"Content-Location: {part.location}\r\n" if part.location else ""
            yield f"--{boundary}\r\nContent-Type: {part.content_type}\r\n{location}\r\n".encode()
            yield from part.content
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return HttpReply(status, f'multipart/related; type="{part_type}"; boundary="{boundary}"', None, pieces(), headers)


def warning(text: str) -> tuple[str, str]:
    """A Warning header (PS3.18 8.3.4.1 and others): 299, who says so, and what."""
    return ("Warning", '299 xdsi "' + re.sub(r'[^\x20-\x7e]|["\\]', "?", text) + '"')
