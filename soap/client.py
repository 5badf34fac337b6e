"""A SOAP 1.2 client with MTOM in both directions, over any HTTP that a Transport brings."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lxml import etree

from soap import addressing, replying
from soap.envelope import Envelope
from soap.fault import SOAP12, WSA, SoapFault
from soap.operations import Limits
from soap.receiving import Receiver
from soap.spool import Spool
from xds.messages import Document


class HttpResponse(Protocol):
    """What a Transport gives: the status, the headers by lower-case name, and the body in pieces."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def chunks(self) -> Iterator[bytes]: ...


Transport = Callable[[str, Mapping[str, str], Iterable[bytes]], AbstractContextManager[HttpResponse]]
"""POSTs (URL, headers, body in pieces). OSError where there is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A reply: the one child of its body, and its parts by Content-ID. The documents live until the call's context ends."""

    body: etree._Element
    documents: Mapping[str, Document]


class SoapClient:
    """One peer's endpoint. Received documents go to `spool_directory`."""

    def __init__(self, url: str, transport: Transport, spool_directory: Path, limits: Limits | None = None) -> None:
        self.url = url
        self._transport, self._spool_directory, self._limits = transport, spool_directory, limits or Limits()

    @contextmanager
    def call(
        self, action: str, body: Iterable[bytes], documents: Sequence[tuple[str, Document]] = (), *, mtom: bool
    ) -> Iterator[Received]:
        """Sends a request and gives its reply, whether it came as multipart or not.

        SoapFault for a fault reply and for an answer that is no SOAP; OSError where there is no answer.
        """
        message_id = addressing.new_message_id()
        headers = addressing.request_headers(action, self.url, message_id)
        message = replying.mtom(headers, body, documents) if mtom else replying.simple(headers, body, documents)
        http_headers = {"Content-Type": f'{message.content_type}; action="{action}"'}
        if message.length is not None:
            http_headers["Content-Length"] = str(message.length)
        with Spool(self._spool_directory) as spool:
            with self._transport(self.url, http_headers, message.pieces) as response:
                receiver = self._receive(response, spool)
            envelope = self._envelope(receiver, response.status)
            self._check_relation(envelope, message_id)
            yield Received(body=envelope.body, documents=receiver.documents)

    def _receive(self, response: HttpResponse, spool: Spool) -> Receiver:
        content_type = response.headers.get("content-type", "")
        try:
            receiver = Receiver(content_type, spool, self._limits)
        except SoapFault:
            raise SoapFault(
                "Receiver",
                f"{self.url} answered HTTP {response.status} with Content-Type {content_type[:80]!r}, which is no SOAP",
            ) from None
        for chunk in response.chunks():
            try:
                receiver.receive_data(chunk)
            except SoapFault as error:
                raise self._no_soap(response.status, error) from None
        return receiver

    def _envelope(self, receiver: Receiver, status: int) -> Envelope:
        try:
            envelope = receiver.envelope()
        except SoapFault as error:
            raise self._no_soap(status, error) from None
        if envelope.body.tag == f"{{{SOAP12}}}Fault":
            raise read_fault(envelope.body, status)
        return envelope

    def _no_soap(self, status: int, error: SoapFault) -> SoapFault:
        return SoapFault("Receiver", f"{self.url} answered HTTP {status} with what is no SOAP message: {error.reason}")

    def _check_relation(self, envelope: Envelope, message_id: str) -> None:
        """A reply that relates to another message is another patient's, perhaps; one that does not say is accepted."""
        related = [(one.text or "").strip() for one in envelope.headers if one.tag == f"{{{WSA}}}RelatesTo"]
        if related and message_id not in related:
            raise SoapFault("Receiver", f"{self.url} answered another message: RelatesTo is {related[0][:200]!r}")


def read_fault(element: etree._Element, http_status: int) -> SoapFault:
    """A soap:Fault element as the exception that it stands for."""
    soap = {"s": SOAP12}
    code = element.findtext("s:Code/s:Value", "", soap).rpartition(":")[2]
    subcode = element.findtext("s:Code/s:Subcode/s:Value", "", soap).rpartition(":")[2]
    reason = " ".join((text.text or "").strip() for text in element.iterfind("s:Reason/s:Text", soap))
    action = element.findtext(f"s:Detail/{{{WSA}}}ProblemAction/{{{WSA}}}Action", None, soap)
    known = next((name for name in ("Sender", "MustUnderstand", "VersionMismatch") if name == code), "Receiver")
    return SoapFault(
        known,  # type: ignore[arg-type]
        reason or "a fault without a reason",
        subcode=subcode or None,
        problem_action=action,
        http_status=http_status,
    )


def new_content_id() -> str:
    """A Content-ID for a part, without brackets."""
    return f"{uuid.uuid4()}@xdsi"
