"""The only parser of untrusted XML: no DTD, no entities, no network; bounded in size, depth and attributes (SOAP 1.2 Part 1 5)."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache

from lxml import etree

from soap.fault import SOAP11, SOAP12, SoapFault, sender
from soap.operations import Limits

_ENVELOPE, _HEADER, _BODY = (f"{{{SOAP12}}}{name}" for name in ("Envelope", "Header", "Body"))
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_MISC = re.compile(rb"\s+|<\?.*?\?>|<!--.*?-->", re.DOTALL)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
#: The encodings that peers really use, by the name that Python gives them.
_ENCODINGS = frozenset({"utf-8", "iso8859-1", "utf-16", "utf-16-le", "utf-16-be"})


@dataclass(frozen=True, slots=True)
class Envelope:
    """The header blocks, and the one child of the body."""

    headers: tuple[etree._Element, ...]
    body: etree._Element


def parse(data: bytes, *, charset: str | None = None, limits: Limits | None = None) -> Envelope:
    """A SOAP 1.2 message. SoapFault for everything that it is not: VersionMismatch for SOAP 1.1, else Sender."""
    root = parse_document(data, charset=charset, limits=limits)
    if root.tag == f"{{{SOAP11}}}Envelope":
        raise SoapFault(
            "VersionMismatch", "the message is a SOAP 1.1 envelope; IHE demands SOAP 1.2 (ITI TF-2 Appendix V.3.2)"
        )
    if root.tag != _ENVELOPE:
        if etree.QName(root).localname == "Envelope":
            raise SoapFault(
                "VersionMismatch", f"the Envelope is in the namespace {etree.QName(root).namespace!r}, not SOAP 1.2"
            )
        raise sender(f"the root element is {root.tag!r}, not a SOAP 1.2 Envelope")
    children = [child.tag for child in root]
    if children not in ([_BODY], [_HEADER, _BODY]):
        raise sender("the Envelope does not hold one optional Header and then one Body")
    body = root[-1]
    if len(body) != 1:
        raise sender(f"the Body holds {len(body)} elements; it must hold one")
    return Envelope(tuple(root[0]) if len(children) == 2 else (), body[0])


def parse_document(data: bytes, *, charset: str | None = None, limits: Limits | None = None) -> etree._Element:
    """The root element of an XML entity; `charset` is what the Content-Type says of it. Comments and PIs are dropped.

    SoapFault (Sender) for what is not well formed, has a document type declaration, or passes a limit.
    """
    limits = limits or Limits()
    if len(data) > limits.envelope_bytes:
        raise sender(f"the XML is larger than the limit of {limits.envelope_bytes} bytes", http_status=413)
    data = _utf8(data, charset)
    if _has_doctype(data):
        raise sender("the message has a document type declaration, which SOAP 1.2 forbids (SOAP 1.2 Part 1 5)")
    # A tree takes far more memory than its text: what would make a large one of a short text is counted before.
    if data.count(b"<") > limits.tags:
        raise sender(f"the XML has more than the limit of {limits.tags} tags", http_status=413)
    if data.count(b"xmlns") > limits.namespaces:
        raise sender(f"the XML declares more than the limit of {limits.namespaces} namespaces", http_status=413)
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        # Without it no text may be longer than 10,000,000 bytes; with it, size, tags and namespaces are bounded above all the same.
        huge_tree=len(data) > 10_000_000,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise sender(f"the message is not well-formed XML: {error.msg}") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise sender("the message has a document type declaration, which SOAP 1.2 forbids (SOAP 1.2 Part 1 5)")
    too_deep, too_many = _bounds(limits.depth, limits.attributes)
    if too_deep(root):
        raise sender(f"the XML is nested deeper than the limit of {limits.depth} elements", http_status=413)
    if too_many(root):
        raise sender(f"an element has more than the limit of {limits.attributes} attributes", http_status=413)
    return root


def _has_doctype(data: bytes) -> bool:
    """Whether a document type declaration follows what may stand before one (XML 1.0 2.8). Linear in what it reads."""
    at = 0
    while misc := _MISC.match(data, at):
        at = misc.end()
    return data.startswith(b"<!DOCTYPE", at)


@lru_cache(maxsize=8)
def _bounds(depth: int, attributes: int) -> tuple[etree.XPath, etree.XPath]:
    # Written so that libxml2 stops counting; with count(@*) it takes ten times as long.
    return etree.XPath(f"boolean({'/*' * (depth + 1)})"), etree.XPath(f"boolean(//*/@*[{attributes + 1}])")


def _utf8(data: bytes, charset: str | None) -> bytes:
    """The entity in UTF-8. The byte order mark, the Content-Type and the XML declaration must not contradict each other."""
    mark, marked = next(((mark, name) for mark, name in _BOMS if data.startswith(mark)), (b"", None))
    data = data[len(mark) :]
    named = _codec(charset) if charset else None
    if named and marked and named not in (marked, marked[:6]):
        raise sender(f"the Content-Type has the charset {named}, but the byte order mark is that of {marked}")
    # UTF-16 of an unnamed byte order shows it in its first character.
    used = marked or (_guess(data) if named == "utf-16" else named) or _guess(data)
    text = _decoded(data, used).encode() if used.startswith("utf-16") else data
    declaration = _DECLARED.match(text[:200])
    if declaration is not None:
        declared = _codec(declaration[1].decode())
        if used == "utf-8" and named is None and marked is None and not declared.startswith("utf-16"):
            used = declared
        elif declared[:6] != used[:6]:
            raise sender(f"the XML declares the encoding {declared}, but it is sent as {used}")
    return _decoded(data, used).encode() if used == "iso8859-1" else text


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise sender(f"the message is not in the encoding {encoding} that it claims, from byte {error.start}") from None


def _codec(name: str) -> str:
    """The encoding of that name; ASCII is UTF-8 too."""
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        codec = ""
    codec = "utf-8" if codec == "ascii" else codec
    if codec not in _ENCODINGS:
        raise sender(f"the encoding {name[:40]!r} is not accepted; UTF-8 and UTF-16 are", http_status=415)
    return codec


def _guess(data: bytes) -> str:
    """UTF-16 without a byte order mark shows in its first character; all else begins like UTF-8."""
    return {b"<\x00": "utf-16-le", b"\x00<": "utf-16-be"}.get(data[:2], "utf-8")
