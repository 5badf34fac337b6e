"""What the tests of DICOMweb and WADO-URI share: requests as they go over HTTP, and objects to store."""

from __future__ import annotations

import email
import email.policy
import io
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom.data
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from imaging import kos
from imaging.phantom import ct_series

STUDY = "1.2.826.0.1.3680043.10.99.1"
SERIES = f"{STUDY}.1"
J2K_STUDY = "1.2.826.0.1.3680043.10.99.2"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[str, bytes]]:
        """Content-Type and bytes of each part, as the standard library's parser reads them."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        assert message.is_multipart() and not message.defects
        return [(str(one["Content-Type"]), one.get_payload(decode=True)) for one in message.iter_parts()]  # type: ignore[attr-defined]


def ask(url: str, accept: str = "", *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request; parameters of the headers have _ for -. No status is an exception."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if accept:
        given["Accept"] = accept
    request = urllib.request.Request(url, body, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ct(slices: int = 3, **study: Any) -> list[bytes]:
    """A synthetic CT series as Part 10, always the same."""
    given: dict[str, Any] = {
        "rows": 64,
        "columns": 48,
        "patient_id": "MRN7",
        "patient_name": "Muster^Ann Marie",
        "issuer_of_patient_id": "NORTH",
        "accession_number": "ACC_1",
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "study_date": "20260201",
        "study_time": "091500",
    }
    return [encoded(one) for one in ct_series(slices=slices, **(given | study))]


def sample(name: str) -> bytes:
    """A file that pydicom carries."""
    return (Path(pydicom.data.__file__).parent / "test_files" / name).read_bytes()


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def rejection_note(images: Sequence[Dataset]) -> bytes:
    """Says that these are rejected for quality reasons (IOCM)."""
    note = read(
        kos.build(
            list(images),
            retrieve_ae_title="XDSI",
            retrieve_location_uid="1.2.3",
            now=datetime.now(UTC),
            new_uid=lambda: str(generate_uid()),
        )
    )
    note.ConceptNameCodeSequence[0].CodeValue = "113001"
    return encoded(note)


def multipart(parts: Sequence[bytes], part_type: str = "application/dicom") -> tuple[bytes, str]:
    """A body of these parts, and its Content-Type."""
    body = b"".join(b"--B\r\nContent-Type: " + part_type.encode() + b"\r\n\r\n" + part + b"\r\n" for part in parts)
    return body + b"--B--\r\n", 'multipart/related; type="application/dicom"; boundary=B'
