"""What the tests of reports share: a domain that listens for them, a RIS with one connection, and messages."""

from __future__ import annotations

import base64
import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from feeds.mllp import FrameReader, frame
from registry.iti18_stored_query import stored_query
from registry.patients import add_patient
from schemas import rim
from server.compose import Domain
from server.config import Config
from server.embedded import serving
from tests.conftest import configured
from xds.metadata import DocumentEntry
from xds.queries import FindDocuments, FindDocumentsByReferenceId
from xds.values import Identifier, ReferenceId
from xds.vocabulary import Status

BOTH = (str(Status.APPROVED), str(Status.DEPRECATED))
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj << >> endobj\n%%EOF\n"
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def reporting(directory: Path, **keys: Any) -> Config:
    """All actors, and a port for reports; the keys are of the section reports."""
    made = configured(directory)
    return replace(
        made,
        registry=replace(made.registry, assigning_authorities="AFF&1.2.3.10"),
        imaging=replace(
            made.imaging, accession_issuer="1.2.3.9", source_patient_issuer="1.2.3.11", publish_interval_s=1e6
        ),
        reports=replace(made.reports, port=free_port(), **keys),
    )


class Ris:
    """A RIS with one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._frames = FrameReader(max_message_bytes=1_000_000)
        self._received: list[bytes] = []

    def close(self) -> None:
        self._socket.close()

    def send(self, message: str | bytes, charset: str = "utf-8") -> list[str]:
        """The segments of the acknowledgement."""
        self._socket.sendall(frame(message.encode(charset) if isinstance(message, str) else message))
        while not self._received:
            data = self._socket.recv(65536)
            assert data, "the listener closed the connection"
            self._received += self._frames.receive_data(data)
        return self._received.pop(0).decode(charset).split("\r")

    def outcome(self, message: str | bytes, charset: str = "utf-8") -> tuple[str, str, str]:
        """MSA-1, MSA-3, ERR-1."""
        _, msa, *err = filter(None, self.send(message, charset))
        fields = [*msa.split("|"), ""]
        return fields[1], fields[3], "".join(err).removeprefix("ERR|")


@dataclass
class Site:
    """A served domain, and what is in it."""

    config: Config
    domain: Domain
    ris: Ris

    def patient(self) -> Identifier:
        """A new patient whom the registry knows."""
        made = Identifier.of(f"P{next(_numbers)}", "1.2.3.10")
        add_patient(self.domain.parts["registry"], made)
        return made

    def entries(self, patient: Identifier, status: Sequence[str] = (str(Status.APPROVED),)) -> list[DocumentEntry]:
        return self._found(FindDocuments(patient_id=patient, status=tuple(status)))

    def referring(self, patient: Identifier, reference: ReferenceId | str) -> list[DocumentEntry]:
        return self._found(FindDocumentsByReferenceId(patient_id=patient, reference_id_list=((str(reference),),)))

    def _found(self, query: FindDocuments | FindDocumentsByReferenceId) -> list[DocumentEntry]:
        fragments = stored_query(query, store=self.domain.parts["registry"]).fragments
        return [one for one in rim.decode_fragments(fragments) if isinstance(one, DocumentEntry)]

    def only(self, patient: Identifier) -> DocumentEntry:
        """The one Approved entry of a patient."""
        (entry,) = self.entries(patient)
        return entry

    def bytes_of(self, entry: DocumentEntry) -> bytes:
        document = self.domain.parts["documents"].get(str(entry.unique_id))
        assert document is not None
        return bytes(document.read())


@contextmanager
def site(config: Config) -> Iterator[Site]:
    with serving(config) as domain:
        ris = Ris(config.reports.port)
        try:
            yield Site(config, domain, ris)
        finally:
            ris.close()


# --- messages ---------------------------------------------------------------------------------------------------------


def msh(kind: str, *, at: str = "20260201120000+0000", charset: str = "UNICODE UTF-8", control_id: str = "M1") -> str:
    return f"MSH|^~\\&|RIS|NORTH|XDSI|AFF|{at}||{kind}|{control_id}|P|2.5.1||||||{charset}"


def pid(patient: Identifier) -> str:
    return f"PID|1||{patient.identifier}^^^AFF&1.2.3.10&ISO~MRN{patient.identifier}^^^HOSP^MR||Muster^Eva^^^Dr.||19700101|F"


def text(*lines: str, status: str = "F") -> list[str]:
    return [f"OBX|{n}|TX|18748-4^Report^LN||{line}||||||{status}" for n, line in enumerate(lines, 1)]


def embedded(content: bytes, kind: str = "^application^pdf", encoding: str = "Base64") -> str:
    data = {"Base64": base64.b64encode(content).decode(), "Hex": content.hex(), "A": content.decode("latin-1")}
    return f"OBX|1|ED|18748-4^Report^LN||{kind}^{encoding}^{data[encoding]}||||||F"


def order(
    filler: str = "F88", *, status: str = "F", at: str = "20260201113000+0000", accession: str = "A-17", more: str = ""
) -> str:
    """OBR of a CT of the chest; `more` begins with OBR-26."""
    return (
        f"OBR|1|O77^RIS^1.2.3.77^ISO|{filler}^RIS^1.2.3.88^ISO|24627-2^CT Chest^LN|||20260201100000+0100"
        f"|20260201101500+0100||||||||||{accession}||||{at}||CT|{status}|||||||1234&Leary&Hans&&&Dr.&&&DOC&1.2.3.12{more}"
    )


def oru(patient: Identifier, *segments: str, head: str | None = None) -> str:
    return "\r".join([head or msh("ORU^R01^ORU_R01"), pid(patient), "PV1|1|I", *segments, ""])


def txa(
    number: str, *, parent: str = "", status: str = "AU", available: str = "AV", at: str = "20260201113000+0000"
) -> str:
    signed = "8^Chief^Ida^^^^^^&1.2.3.12&ISO^^^^^^20260201113000"
    return (
        f"TXA|1|DI|TX|20260201100000+0000|8^Chief^Ida^^^^^^DOC&1.2.3.12&ISO|{at}|||1234^Leary^Hans^^^Dr.^^^DOC&1.2.3.12&ISO||"
        f"|{number}^RIS|{parent}|O77^RIS^1.2.3.77^ISO|F88^RIS^1.2.3.88^ISO||{status}|UC|{available}|||{signed}"
    )


def mdm(event: str, patient: Identifier, *segments: str, head: str | None = None) -> str:
    return "\r".join(
        [head or msh(f"MDM^{event}^MDM_T02"), f"EVN|{event}|20260201", pid(patient), "PV1|1|I", *segments, ""]
    )
