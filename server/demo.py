"""The main job, once through, on real objects: load, publish, find, retrieve, compare every byte, and look at it."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from imaging import kos
from imaging.client import client as imaging_client
from imaging.instances import Instance, Instances
from imaging.pixels.contact_sheet import contact_sheet
from imaging.receiving.ingest import load
from registry.client import client as registry_client
from registry.patients import add_patient
from repository.client import client as repository_client
from schemas import rim
from server.commands.imaging import TRANSFER_SYNTAXES, request_of
from server.compose import Domain, soap_client
from server.config import Config
from server.embedded import serving
from server.publishing import publisher
from xds.messages import Document, DocumentRequest, Outcome, Retrieved
from xds.metadata import DocumentEntry, Submission
from xds.problems import Problem
from xds.queries import FindDocuments
from xds.values import Identifier

PATIENT = Identifier("demo1^^^&1.3.6.1.4.1.21367.13.20.1000&ISO")
# The objects are anonymised: the demo says who the patient is to the hospital.
LOCAL_PATIENT = Identifier("MRN1^^^&1.3.6.1.4.1.21367.13.20.2000&ISO")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row of the demo's table. `size` in bytes."""

    step: str
    transaction: str
    seconds: float
    documents: int
    size: int
    verdict: str


def real_objects() -> tuple[list[Path], str]:
    """Real DICOM files that an installed package carries, and what they are."""
    spec = importlib.util.find_spec("heudiconv")
    if spec is not None and spec.origin is not None:
        data = Path(spec.origin).parent / "tests" / "data"
        folders = [data / "b0dwiForFmap", data / "Phoenix"]
        if all(folder.is_dir() for folder in folders):
            return (
                folders,
                "Siemens MR: three diffusion volumes of 81 slices; an MR image and its protocol as Enhanced SR",
            )
    pydicom = importlib.util.find_spec("pydicom")
    assert pydicom is not None and pydicom.origin is not None
    folders = [Path(pydicom.origin).parent / "data" / "test_files" / "dicomdirtests" / "98892003"]
    return (
        folders,
        "MR series that pydicom carries, 16 x 16 pixels (the package heudiconv, with larger ones, is not installed)",
    )


def run(out: Path) -> tuple[list[Step], Path, str]:
    """The steps with their verdicts, the picture, and what the data are. OSError, Failure or SoapFault where a step cannot be done."""
    folders, source = real_objects()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="xdsi-demo-") as directory:
        config = Config()
        config = replace(config, server=replace(config.server, directory=directory))
        with serving(config) as domain:
            steps, images = _steps(config, domain, folders)
        picture = (out / "contact-sheet.png").absolute()
        picture.write_bytes(contact_sheet(images, columns=3, tile_px=320))
    return steps, picture, source


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def _steps(config: Config, domain: Domain, folders: Sequence[Path]) -> tuple[list[Step], list[bytes]]:
    steps: list[Step] = []

    def done(step: str, transaction: str, seconds: float, sizes: Sequence[int], *, good: bool, reason: str) -> None:
        verdict = "verified" if good else reason
        steps.append(
            Step(
                step=step,
                transaction=transaction,
                seconds=seconds,
                documents=len(sizes),
                size=sum(sizes),
                verdict=verdict,
            )
        )

    instances: Instances = domain.parts["instances"]
    add_patient(domain.parts["registry"], PATIENT)

    report, seconds = _timed(lambda: load(folders, instances=instances))
    loaded = {one.sop_instance_uid: one for one in report.added}
    done("load", "-", seconds, [one.size for one in report.added], good=bool(loaded), reason="nothing was loaded")

    published, seconds = _timed(lambda: _publish(config, domain, report.added))
    clean = all(not _errors(one) for one in published.values())
    sizes = [len(one) for one in published.values()]
    done("publish manifests", "RAD-68 + ITI-42", seconds, sizes, good=clean, reason="a manifest breaks a rule")

    entries, seconds = _timed(lambda: _find(config, domain))
    same = {str(one.unique_id) for one in entries} == published.keys()
    done(
        "find them",
        "ITI-18",
        seconds,
        [int(one.size or 0) for one in entries],
        good=same,
        reason="other documents were found",
    )

    manifests, seconds = _timed(lambda: _retrieve(config, domain, entries))
    same = sorted(manifests) == sorted(published.values())
    done("retrieve manifests", "ITI-43", seconds, [len(one) for one in manifests], good=same, reason="other bytes came")

    images, seconds = _timed(lambda: _retrieve_images(config, domain, manifests))
    done(
        "retrieve images",
        "RAD-69",
        seconds,
        [len(one) for one in images.values()],
        good=set(images) == set(loaded),
        reason="some lack",
    )

    start = time.perf_counter()
    originals = {_uid_of(path): path.read_bytes() for path in _files(folders)}
    equal = {uid: content for uid, content in images.items() if originals.get(uid) == content}
    compared = [len(content) for content in equal.values()]
    done("compare every byte", "-", time.perf_counter() - start, compared, good=equal == images, reason="bytes differ")
    return steps, list(images.values())


def _files(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def _uid_of(path: Path) -> str:
    from imaging.instances import InstanceError, read_header

    try:
        return str(read_header(path).get("SOPInstanceUID", ""))
    except InstanceError:
        return ""


def _publish(config: Config, domain: Domain, added: Sequence[Instance]) -> dict[str, bytes]:
    """The manifests as they were submitted, by uniqueId."""
    instances, publications = domain.parts["instances"], domain.parts["publications"]
    submit, _ = repository_client(soap_client(domain.endpoints["repository"], config))
    sent: dict[str, bytes] = {}

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        sent.update({str(one.unique_id): documents[one.entry_uuid].read() for one in submission.document_entries})
        return submit(submission, documents)

    source = publisher(config, instances, publications, provide=provide)
    assert source is not None
    for study in dict.fromkeys(one.study_instance_uid for one in added):
        source.publish(study, patient_id=PATIENT, source_patient_id=LOCAL_PATIENT)
    return sent


def _errors(manifest: bytes) -> list[kos.Finding]:
    return [finding for finding in kos.check(manifest) if finding.level == "error"]


def _find(config: Config, domain: Domain) -> list[DocumentEntry]:
    query = registry_client(soap_client(domain.endpoints["registry"], config)).query
    result = query(FindDocuments(patient_id=PATIENT))
    return [one for one in rim.decode_fragments(result.fragments) if isinstance(one, DocumentEntry)]


def _retrieve(config: Config, domain: Domain, entries: Sequence[DocumentEntry]) -> list[bytes]:
    _, retrieve = repository_client(soap_client(domain.endpoints["repository"], config))
    requests = [
        DocumentRequest(repository_unique_id=str(one.repository_unique_id), document_unique_id=str(one.unique_id))
        for one in entries
    ]
    return [one.document.read() for one in retrieve(requests) if isinstance(one, Retrieved)]


def _retrieve_images(config: Config, domain: Domain, manifests: Sequence[bytes]) -> dict[str, bytes]:
    retrieve = imaging_client(soap_client(domain.endpoints["imaging"], config))
    images: dict[str, bytes] = {}
    for manifest in manifests:
        for one in retrieve(request_of(kos.read(manifest), TRANSFER_SYNTAXES)):
            if isinstance(one, Problem):
                raise OSError(str(one))
            images[one.request.document_unique_id] = one.document.read()
    return images
