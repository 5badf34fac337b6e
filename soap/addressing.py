"""WS-Addressing 1.0 headers: read and checked on the way in, written on the way out (ITI TF-2 Appendix V.3.4)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lxml import etree

from soap.fault import SOAP12, WSA, NotUnderstood, SoapFault

ANONYMOUS = f"{WSA}/anonymous"
_NONE = f"{WSA}/none"
_ACTION, _MESSAGE_ID = f"{{{WSA}}}Action", f"{{{WSA}}}MessageID"
_WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
#: The roles that a header may be meant for and that we act in (SOAP 1.2 Part 1 2.2); no role is the ultimate receiver.
_OUR_ROLES = frozenset({"", f"{SOAP12}/role/next", f"{SOAP12}/role/ultimateReceiver"})
_ONCE = ("Action", "MessageID", "To", "ReplyTo", "FaultTo", "From")
#: Namespaces whose headers we understand. A security header that nobody asked for is accepted, so that clients may always send one.
_UNDERSTOOD = frozenset({WSA, _WSSE})


@dataclass(frozen=True, slots=True)
class Addressing:
    """What the headers of a request say."""

    action: str
    message_id: str | None


def message_id(headers: Iterable[etree._Element]) -> str | None:
    """wsa:MessageID alone, for a fault about the rest of the headers."""
    return _first(headers, _MESSAGE_ID)


def action(headers: Iterable[etree._Element]) -> str | None:
    """wsa:Action alone, for whoever counts messages that may be faulty."""
    return _first(headers, _ACTION)


def _first(headers: Iterable[etree._Element], tag: str) -> str | None:
    return next((text for one in headers if one.tag == tag and (text := (one.text or "").strip())), None)


def read(headers: Iterable[etree._Element]) -> Addressing:
    """The addressing of a request. SoapFault MustUnderstand, or Sender with the subcode that WS-Addressing gives each fault."""
    found: dict[str, etree._Element] = {}
    not_understood: list[NotUnderstood] = []
    for header in headers:
        name = etree.QName(header)
        if name.namespace == WSA and name.localname in _ONCE:
            if name.localname in found:
                raise SoapFault(
                    "Sender",
                    f"the header wsa:{name.localname} is there twice",
                    subcode="InvalidAddressingHeader",
                    subsubcode="InvalidCardinality",
                )
            found[name.localname] = header
        elif name.namespace not in _UNDERSTOOD and _must_be_understood(header):
            not_understood.append(NotUnderstood(name.namespace or "", name.localname))
    if not_understood:
        names = ", ".join(f"{{{one.namespace}}}{one.local}" for one in not_understood)
        raise SoapFault("MustUnderstand", f"not understood: {names[:400]}", not_understood=tuple(not_understood))
    named = _text(found.get("Action"))
    if not named:
        raise _required("Action")
    identifier = _text(found.get("MessageID"))
    if not identifier:
        raise _required("MessageID")
    for destination in ("ReplyTo", "FaultTo"):
        given = found.get(destination)
        address = ANONYMOUS if given is None else given.findtext(f"{{{WSA}}}Address", "").strip()
        if address not in (ANONYMOUS, _NONE):
            raise SoapFault(
                "Sender",
                f"wsa:{destination} is {address[:200]!r}; only the anonymous address is supported",
                subcode="InvalidAddressingHeader",
                subsubcode="OnlyAnonymousAddressSupported",
            )
    return Addressing(named, identifier)


def _must_be_understood(header: etree._Element) -> bool:
    demanded = header.get(f"{{{SOAP12}}}mustUnderstand", "").strip() in ("1", "true")
    return demanded and header.get(f"{{{SOAP12}}}role", "").strip() in _OUR_ROLES


def _text(header: etree._Element | None) -> str:
    return "" if header is None else (header.text or "").strip()


def _required(name: str) -> SoapFault:
    return SoapFault("Sender", f"the header wsa:{name} is missing or empty", subcode="MessageAddressingHeaderRequired")


def new_message_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def reply_headers(action: str, relates_to: str | None) -> str:
    """The headers of an answer; the prefixes soap: and wsa: are undeclared."""
    related = "" if relates_to is None else f"<wsa:RelatesTo>{escape(relates_to)}</wsa:RelatesTo>"
    return (
        f'<wsa:Action soap:mustUnderstand="1">{escape(action)}</wsa:Action>'
        f"<wsa:MessageID>{new_message_id()}</wsa:MessageID>{related}"
    )


def request_headers(action: str, to: str, message_id: str) -> str:
    """The headers of a request that wants its answer on the same connection; the prefixes soap: and wsa: are undeclared."""
    return (
        f'<wsa:Action soap:mustUnderstand="1">{escape(action)}</wsa:Action><wsa:MessageID>{escape(message_id)}</wsa:MessageID>'
        f"<wsa:ReplyTo><wsa:Address>{ANONYMOUS}</wsa:Address></wsa:ReplyTo><wsa:To>{escape(to)}</wsa:To>"
    )
