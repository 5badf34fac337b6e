"""SOAP 1.2 faults: what is wrong with the framing of a message (SOAP 1.2 Part 1 5.4, WS-Addressing SOAP Binding 6.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

SOAP12 = "http://www.w3.org/2003/05/soap-envelope"
SOAP11 = "http://schemas.xmlsoap.org/soap/envelope/"
WSA = "http://www.w3.org/2005/08/addressing"

FAULT_ACTION = f"{WSA}/fault"
SOAP_FAULT_ACTION = f"{WSA}/soap/fault"

#: What XML 1.0 can't hold, even escaped (2.2).
_NO_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Code = Literal["Sender", "Receiver", "MustUnderstand", "VersionMismatch", "DataEncodingUnknown"]


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A header that demanded to be understood: its namespace and local name."""

    namespace: str
    local: str


class SoapFault(Exception):
    """A fault, sent or received.

    `subcode` is a local name of WS-Addressing ("ActionNotSupported"), `subsubcode` another one below it; `problem_action` goes into
    the detail. `http_status` 0 stands for the status that the SOAP 1.2 HTTP binding gives the code: 400 for Sender, 500 for the rest.
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        *,
        subcode: str | None = None,
        subsubcode: str | None = None,
        problem_action: str | None = None,
        not_understood: tuple[NotUnderstood, ...] = (),
        http_status: int = 0,
    ) -> None:
        super().__init__(reason)
        self.code: Code = code
        self.reason = reason
        self.subcode = subcode
        self.subsubcode = subsubcode
        self.problem_action = problem_action
        self.not_understood = not_understood
        self.http_status = http_status or (400 if code == "Sender" else 500)

    def __str__(self) -> str:
        return f"SOAP fault {self.code}{f' ({self.subcode})' if self.subcode else ''}: {self.reason}"


def sender(reason: str, *, http_status: int = 0) -> SoapFault:
    """The message is not well formed or lacks something: the sender's fault."""
    return SoapFault("Sender", reason, http_status=http_status)


def headers(fault: SoapFault) -> str:
    """The header blocks that belong to a fault of this code: Upgrade, NotUnderstood."""
    if fault.code == "VersionMismatch":
        return f'<soap:Upgrade><soap:SupportedEnvelope qname="e:Envelope" xmlns:e="{SOAP12}"/></soap:Upgrade>'
    return "".join(
        f'<soap:NotUnderstood qname="n:{one.local}" xmlns:n={quoteattr(one.namespace)}/>'
        if one.namespace
        else f'<soap:NotUnderstood qname="{one.local}"/>'
        for one in fault.not_understood
    )


def body(fault: SoapFault) -> str:
    """The soap:Fault element; the prefixes soap: and wsa: are undeclared."""
    subsubcode = (
        f"<soap:Subcode><soap:Value>wsa:{fault.subsubcode}</soap:Value></soap:Subcode>" if fault.subsubcode else ""
    )
    subcode = (
        f"<soap:Subcode><soap:Value>wsa:{fault.subcode}</soap:Value>{subsubcode}</soap:Subcode>"
        if fault.subcode
        else ""
    )
    reason = escape(_NO_CHARACTERS.sub("\ufffd", fault.reason))
    detail = ""
    if fault.problem_action is not None:
        action = escape(fault.problem_action)
        detail = f"<soap:Detail><wsa:ProblemAction><wsa:Action>{action}</wsa:Action></wsa:ProblemAction></soap:Detail>"
    return (
        f"<soap:Fault><soap:Code><soap:Value>soap:{fault.code}</soap:Value>{subcode}</soap:Code>"
        f'<soap:Reason><soap:Text xml:lang="en">{reason}</soap:Text></soap:Reason>{detail}</soap:Fault>'
    )


def action(fault: SoapFault) -> str:
    """wsa:Action of the message that carries the fault (WS-Addressing SOAP Binding 6)."""
    soap_defined = fault.code in ("MustUnderstand", "VersionMismatch")
    return SOAP_FAULT_ACTION if soap_defined else FAULT_ACTION
