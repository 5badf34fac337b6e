"""XOP: from an element that holds binary content to the bytes, whether they came as a part or inline (XOP 1.0 3.2)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import unquote

from lxml import etree

from soap.fault import sender
from xds.messages import Document

INCLUDE = "{http://www.w3.org/2004/08/xop/include}Include"
_NO_SPACE = dict.fromkeys(map(ord, " \t\r\n"))


def normalize(href: str) -> str:
    """The Content-ID, without brackets, that an href names. SoapFault for any scheme but cid: nothing is ever fetched."""
    scheme, _, rest = href.strip().partition(":")
    if scheme.lower() != "cid" or not rest:
        raise sender(
            f"xop:Include refers to {href[:200]!r}; only cid: references to parts of the same message are resolved"
        )
    identifier = unquote(rest)
    return identifier[1:-1] if identifier.startswith("<") and identifier.endswith(">") else identifier


def resolve(element: etree._Element, documents: Mapping[str, Document]) -> Document:
    """The bytes of an element: the part that its only child xop:Include names, or its own text as base64.

    Inline text is no longer than an envelope may be, so it is decoded in memory.

    SoapFault (Sender) for a reference to no part, an Include with siblings or text beside it, and text that is no base64.
    """
    name = etree.QName(element).localname
    children = list(element)
    if not children:
        text = (element.text or "").translate(_NO_SPACE)
        try:
            return Document.of(base64.b64decode(text, validate=True), "application/octet-stream")
        except ValueError:
            raise sender(f"the text of {name} is not base64") from None
    beside = (element.text or "") + "".join(child.tail or "" for child in children)
    if len(children) != 1 or children[0].tag != INCLUDE or beside.strip():
        raise sender(f"{name} holds something beside its one xop:Include")
    return documents[_included(children[0], documents)]


def _included(include: etree._Element, documents: Mapping[str, Document]) -> str:
    """The Content-ID of the part that an Include names. Some peers percent-encode it in the part's header too."""
    href = include.get("href", "").strip()
    identifier = normalize(href)
    if identifier in documents:
        return identifier
    _, _, as_written = href.partition(":")
    if as_written in documents:
        return as_written
    raise sender(f"xop:Include refers to {href[:200]!r}, and the message has no part of that Content-ID")


def check_references(body: etree._Element, documents: Mapping[str, Document]) -> None:
    """SoapFault (Sender) when two elements include the same part, or an Include resolves to none.

    One part in many elements is an amplification that no sender needs.
    """
    seen: set[str] = set()
    for include in body.iter(INCLUDE):
        identifier = _included(include, documents)
        if identifier in seen:
            raise sender(f"the part {identifier[:200]!r} is included twice")
        seen.add(identifier)
