"""What a SOAP service is made of: operations, what they are given, and what they give back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from lxml import etree

from xds.messages import Document
from xds.vocabulary import ResponseStatus

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. In `body`, the one child of soap:Body, xop:Include elements are still in place.

    `documents` are the received parts but the root, by Content-ID without brackets; their size and SHA-1 are known.
    """

    body: etree._Element
    documents: Mapping[str, Document]
    message_id: str | None
    mtom: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer: the child of soap:Body as serialised XML that declares its own namespaces, in pieces, and the MIME parts.

    Each document comes with its Content-ID without brackets, and is opened when its turn comes. The body refers to it with
    `<xop:Include xmlns:xop="..." href="cid:..."/>`, with this prefix and these quotes, so that a peer without MTOM can be given base64.
    """

    body: Iterable[bytes]
    documents: Sequence[tuple[str, Document]] = ()
    #: What the RegistryResponse in the body says, for whoever counts; asked when the body has been made.
    status: Callable[[], ResponseStatus] = lambda: ResponseStatus.SUCCESS
    #: And the errorCodes of its errors, each once.
    codes: Callable[[], tuple[str, ...]] = tuple
    #: Done when the body, a small one, can be made without waiting: meanwhile the thread that answers is free for others.
    ready: Future[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One transaction: found by `action`, checked against the Clark name of the body's child, answered by `answer`.

    `mtom` says that request and reply are multipart (ITI TF-2 Appendix V.3.6); otherwise both are a single XML entity.
    """

    name: str
    action: str
    element: str
    reply_action: str
    mtom: bool
    answer: Callable[[Call], Reply]
    alternate_elements: tuple[str, ...] = ()
    #: Which one it is, as IHE numbers them: "ITI-18".
    transaction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Operations at one address. `describe` gives the WSDL (file None) or one of its schemas, None for an unknown one."""

    name: str
    operations: tuple[Operation, ...]
    describe: Callable[[str, str | None], bytes | None]


Ending = Literal["success", "partial", "failure", "fault", "disconnected"]
ENDINGS: Mapping[ResponseStatus, Ending] = {
    ResponseStatus.SUCCESS: "success",
    ResponseStatus.PARTIAL_SUCCESS: "partial",
    ResponseStatus.FAILURE: "failure",
}


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and what became of it, as it is told when its last byte has been sent.

    `transaction` and `action` (wsa:Action) are "" where the message did not come so far that one was found. `ending`: what the
    RegistryResponse said, a SOAP fault, or a client that went away; `codes`: the errorCodes of the one, the code of the other.
    `http_status` is 0 where no answer was begun. `incident` is the number under which the log has what nobody foresaw. Nothing of it is
    the message's own text but `message_id`, and those codes that another actor gave.
    """

    service: str
    transaction: str = ""
    action: str = ""
    message_id: str | None = None
    ending: Ending = "disconnected"
    codes: tuple[str, ...] = ()
    http_status: int = 0
    incident: str | None = None
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a message may be at most. Each refusal names the limit that was passed."""

    envelope_bytes: int = 16 * MIB
    message_bytes: int = 64 * 1024 * MIB
    document_bytes: int = 64 * 1024 * MIB
    parts: int = 10_000
    part_header_bytes: int = 8 * 1024
    preamble_bytes: int = 64 * 1024
    depth: int = 100
    attributes: int = 256
    namespaces: int = 100_000
    tags: int = 1_000_000
    body_idle_s: float = 60.0
    #: The average rate of a body is looked at after `body_grace_s` seconds: it may be slow at first.
    body_bytes_per_s: int = 1024
    body_grace_s: float = 30.0
