"""RAD-69 Retrieve Imaging Document Set, over real HTTP, on real objects (RAD TF-2 4.69), and RAD-68 before it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging import kos
from imaging.client import client
from imaging.instances import Instance, InstanceError, Instances
from imaging.publication.publishing import Publisher
from imaging.publication.rad68_provide import PublishError
from imaging.receiving.ingest import load
from registry.client import client as registry_client
from repository.client import client as repository_client
from schemas import rim
from server.commands.imaging import TRANSFER_SYNTAXES, request_of
from server.compose import Domain, soap_client
from server.config import Config
from server.demo import real_objects
from server.publishing import publisher
from xds.messages import DocumentRequest, ImagingRequest, Outcome, Retrieved, SeriesRequest, StudyRequest
from xds.metadata import DocumentEntry
from xds.problems import Failure, Problem
from xds.queries import FindDocuments
from xds.transactions import Provide
from xds.values import Identifier

PATIENT = Identifier("rad^^^&1.2.3.10&ISO")
LOCAL = Identifier("MRN7^^^&1.2.3.11&ISO")


@pytest.fixture(scope="module")
def instances(domain: Domain) -> Instances:
    stored: Instances = domain.parts["instances"]
    report = load(real_objects()[0], instances=stored)
    assert len(report.instances) >= 5
    assert report.refused == ()
    return stored


@pytest.fixture(scope="module")
def series(instances: Instances) -> list[Instance]:
    largest = max(instances.studies(), key=lambda study: study.instances)
    return instances.of_study(largest.study_instance_uid)


def ask(domain: Domain, config: Config, request: ImagingRequest) -> list[tuple[str, bytes] | Problem]:
    answers = client(soap_client(domain.endpoints["imaging"], config))(request)
    return [(a.request.document_unique_id, a.document.read()) if isinstance(a, Retrieved) else a for a in answers]


def request(
    chosen: list[Instance],
    config: Config,
    *,
    study: str | None = None,
    series_uid: str | None = None,
    location: str | None = None,
    syntaxes: tuple[str, ...] = TRANSFER_SYNTAXES,
    home: str | None = None,
) -> ImagingRequest:
    documents = tuple(
        DocumentRequest(
            repository_unique_id=location or config.imaging.location_uid,
            document_unique_id=one.sop_instance_uid,
            home_community_id=home,
        )
        for one in chosen
    )
    first = chosen[0]
    of_series = SeriesRequest(
        series_instance_uid=first.series_instance_uid if series_uid is None else series_uid, documents=documents
    )
    of_study = StudyRequest(
        study_instance_uid=first.study_instance_uid if study is None else study, series=(of_series,)
    )
    return ImagingRequest(studies=(of_study,), transfer_syntax_uids=syntaxes)


def test_every_instance_comes_back_bit_for_bit(domain: Domain, config: Config, series: list[Instance]) -> None:
    answers = ask(domain, config, request(series, config))
    assert answers == [(one.sop_instance_uid, one.path.read_bytes()) for one in series]


def test_a_published_study_is_found_and_its_manifest_leads_to_the_images(
    domain: Domain, config: Config, instances: Instances, series: list[Instance]
) -> None:
    """RAD-68, ITI-18, ITI-43 and RAD-69 in a row; RAD TF-3 4.68.4.1.2.3 for the metadata."""
    provide, retrieve = repository_client(soap_client(domain.endpoints["repository"], config))
    (published,) = source(domain, config, provide).publish(
        series[0].study_instance_uid, patient_id=PATIENT, source_patient_id=LOCAL
    )
    query = registry_client(soap_client(domain.endpoints["registry"], config)).query
    kos_format = "1.2.840.10008.5.1.4.1.1.88.59^^1.2.840.10008.2.6.1"
    result = query(
        FindDocuments(
            patient_id=PATIENT, format_code=((kos_format,),), event_code_list=(("MR^^1.2.840.10008.2.16.4",),)
        )
    )
    (entry,) = rim.decode_fragments(result.fragments)
    assert isinstance(entry, DocumentEntry)
    assert entry.unique_id == published.document_unique_id
    assert (entry.mime_type, entry.source_patient_id) == ("application/dicom", LOCAL)
    assert f"{series[0].study_instance_uid}^^^^urn:ihe:iti:xds:2016:studyInstanceUID" in entry.reference_id_list
    wanted = DocumentRequest(repository_unique_id=config.repository.unique_id, document_unique_id=str(entry.unique_id))
    (manifest,) = [one.document.read() for one in retrieve([wanted]) if isinstance(one, Retrieved)]
    assert hashlib.sha1(manifest).hexdigest() == published.sha1 == entry.hash
    assert [finding for finding in kos.check(manifest) if finding.level == "error"] == []
    images = ask(domain, config, request_of(kos.read(manifest), TRANSFER_SYNTAXES))
    assert {uid for uid, _ in images if isinstance(uid, str)} == {one.sop_instance_uid for one in series}  # type: ignore[misc]


def source(domain: Domain, config: Config, provide: Provide) -> Publisher:
    update = registry_client(soap_client(domain.endpoints["registry"], config)).update
    made = publisher(config, domain.parts["instances"], domain.parts["publications"], provide=provide, update=update)
    assert made is not None
    return made


def test_a_study_without_patient_id_is_not_published(domain: Domain, config: Config, instances: Instances) -> None:
    def never(*_: object) -> Outcome:
        raise AssertionError("nothing may be submitted")

    other = min(instances.studies(), key=lambda study: study.instances)
    with pytest.raises(PublishError, match="give the source patient id"):
        source(domain, config, never).publish(other.study_instance_uid, patient_id=PATIENT)


def test_a_refused_manifest_raises_the_registrys_errors(domain: Domain, config: Config, instances: Instances) -> None:
    provide, _ = repository_client(soap_client(domain.endpoints["repository"], config))
    other = min(instances.studies(), key=lambda study: study.instances)
    with pytest.raises(Failure, match="XDSRegistryMetadataError"):
        source(domain, config, provide).publish(other.study_instance_uid, patient_id="no CX", source_patient_id=LOCAL)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"location": "1.2.3.4"}, "XDSUnknownRepositoryId"),
        ({"study": "1.2.3.4"}, "XDSDocumentUniqueIdError"),
        ({"series_uid": "1.2.3.4"}, "XDSDocumentUniqueIdError"),
        ({"study": ""}, "XDSRepositoryError"),
        ({"series_uid": ""}, "XDSRepositoryError"),
        ({"syntaxes": (MPEG2MPML,)}, "XDSRepositoryError"),
    ],
)
def test_each_wrong_id_is_an_error_for_each_instance(
    domain: Domain, config: Config, series: list[Instance], change: dict[str, object], code: str
) -> None:
    """RAD TF-2 4.69.4.2.3; every error names its instance in location."""
    answers = ask(domain, config, request(series, config, **change))  # type: ignore[arg-type]
    assert [(one.code, one.location) for one in answers if isinstance(one, Problem)] == [
        (code, one.sop_instance_uid) for one in series
    ]


def test_unknown_instances_among_known_ones_are_a_partial_success(
    domain: Domain, config: Config, series: list[Instance]
) -> None:
    ghost = replace(series[0], sop_instance_uid="1.2.3.404")
    answers = ask(domain, config, request([series[0], ghost, series[1]], config))
    assert [isinstance(one, Problem) for one in answers] == [False, True, False]
    assert isinstance(answers[1], Problem)
    assert answers[1].code == "XDSDocumentUniqueIdError"
    assert "1.2.3.404" in answers[1].context


def test_an_uncompressed_object_is_given_in_the_other_byte_layout(
    domain: Domain, config: Config, series: list[Instance]
) -> None:
    stored = series[0].transfer_syntax_uid
    other = ImplicitVRLittleEndian if stored == ExplicitVRLittleEndian else ExplicitVRLittleEndian
    ((uid, content),) = ask(domain, config, request(series[:1], config, syntaxes=(JPEG2000Lossless, other)))  # type: ignore[misc]
    given, original = pydicom.dcmread(io.BytesIO(content)), pydicom.dcmread(series[0].path)
    assert given.file_meta.TransferSyntaxUID == other
    assert uid == given.SOPInstanceUID == series[0].sop_instance_uid
    assert given.PixelData == original.PixelData


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, HTJ2KLossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless], ids=lambda one: one.name
)
def test_a_series_is_compressed_for_who_takes_nothing_else(
    domain: Domain, config: Config, series: list[Instance], syntax: str
) -> None:
    """RAD TF-2 4.69.4.1.2: one of the transfer syntaxes of the request; the pixels are those that are stored."""
    answers = ask(domain, config, request(series, config, syntaxes=(MPEG2MPML, syntax)))
    assert [one[0] for one in answers if not isinstance(one, Problem)] == [one.sop_instance_uid for one in series]
    for (_, content), one in zip(answers, series, strict=True):  # type: ignore[misc]
        given, original = pydicom.dcmread(io.BytesIO(content)), pydicom.dcmread(one.path)
        assert given.file_meta.TransferSyntaxUID == syntax
        if syntax == HTJ2KLossless:
            # pydicom has no decoder of its own for it.
            given.decompress(decoding_plugin="pylibjpeg", generate_instance_uid=False)
        assert (given.pixel_array == original.pixel_array).all()


def test_the_same_bytes_may_be_loaded_again_and_other_bytes_not(
    instances: Instances, series: list[Instance], tmp_path: Path
) -> None:
    again, new = instances.add(series[0].path)
    assert (again, new) == (series[0], False)
    changed = bytearray(series[0].path.read_bytes())
    changed[-1] ^= 1
    with pytest.raises(InstanceError, match="is stored with other bytes"):
        instances.add_bytes(bytes(changed))
    assert list(instances.staging.iterdir()) == []


def test_a_damaged_file_is_an_error_and_never_wrong_bytes(domain: Domain, config: Config, instances: Instances) -> None:
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    stored, _ = instances.add_bytes(buffer.getvalue())
    with stored.path.open("ab") as file:
        file.write(b"more")
    (answer,) = ask(domain, config, request([stored], config))
    assert isinstance(answer, Problem)
    assert answer.code == "XDSRepositoryError"
    assert "instead of" in answer.context


def test_files_that_are_no_dicom_are_counted_and_broken_ones_told(instances: Instances, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no DICOM")
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x14\x00")
    report = load([tmp_path], instances=instances)
    assert (report.instances, report.not_dicom) == ((), 1)
    assert report.refused[0][0].name == "broken.dcm"
