"""C-FIND over what is stored (PS3.4 C.4.1, IHE RAD-14): dcmtk and pynetdicom ask, and find what QIDO-RS finds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from benchmarks.postgres import Cluster
from tests.conformance.test_qido_rs import J2K_STUDY, OLD, SERIES, STUDY, objects
from tests.conftest import configured
from tests.dicomweb import ask, ct, read, rejection_note
from tests.query_retrieve import FIND, Asked, asked_source, associated, dcmtk, find, identifier

ALL = {STUDY, OLD, J2K_STUDY}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    directory = tmp_path_factory.mktemp("find")
    config = configured(directory)
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        server = sa.create_engine(
            sa.make_url(cluster.url()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        with server.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE query_retrieve")
        server.dispose()
        url = sa.make_url(cluster.url("query_retrieve")).set(drivername="postgresql+psycopg")
        config = replace(config, imaging=replace(config.imaging, database=url.render_as_string(hide_password=False)))
    with asked_source(directory, config) as one:
        for content in objects():
            one.instances.add_bytes(content)
        yield one


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"StudyInstanceUID": STUDY},
        {"StudyInstanceUID": f"{STUDY}\\{OLD}"},
        {"PatientID": "mrn7"},
        {"PatientID": "MRN*"},
        {"PatientID": "MRN?"},
        {"PatientID": "1*%"},
        {"IssuerOfPatientID": "NORTH"},
        {"AccessionNumber": "ACC_*"},
        {"PatientName": "muster^ann marie"},
        {"PatientName": "Muster"},
        {"PatientName": "MUSTER*"},
        {"PatientName": "山田^太郎"},
        {"StudyDate": "20260201"},
        {"StudyDate": "20260101-20261231"},
        {"StudyDate": "-20000101"},
        {"StudyDate": "19991231-"},
        {"StudyDate": "20260101-", "StudyTime": "09-0915"},
        {"StudyTime": "0900-0914"},
        {"ModalitiesInStudy": "XC"},
        {"ModalitiesInStudy": "XC\\CT"},
        {"ModalitiesInStudy": "CT", "PatientName": "Doe*"},
    ],
    ids=str,
)
def test_a_study_is_found_as_qido_rs_finds_it(asked: Asked, keys: dict[str, str]) -> None:
    query = "&".join(f"{keyword}={quote(value)}" for keyword, value in keys.items())
    answer = ask(f"{asked.dicomweb}/studies?{query}")
    there = [] if answer.status == 204 else [one["0020000D"]["Value"][0] for one in answer.json]
    status, found = find(asked.port, "STUDY", {"StudyInstanceUID": "", **keys})
    assert status.Status == 0
    assert [one.StudyInstanceUID for one in found] == there
    assert bool(found) == (set(keys.values()) not in ({"Muster"}, {"mrn7"}, {"0900-0914"}))


@pytest.mark.parametrize(
    ("level", "keys", "found"),
    [
        ("SERIES", {"StudyInstanceUID": STUDY}, [f"{STUDY}.1", f"{STUDY}.2"]),
        ("SERIES", {"StudyInstanceUID": STUDY, "SeriesNumber": "2"}, [f"{STUDY}.2"]),
        ("SERIES", {"StudyInstanceUID": STUDY, "SeriesDescription": "Ax*", "Modality": "CT"}, [SERIES, f"{STUDY}.2"]),
        ("SERIES", {"StudyInstanceUID": STUDY, "Modality": "MR"}, []),
        (
            "SERIES",
            {"StudyInstanceUID": J2K_STUDY, "RequestAttributesSequence.RequestedProcedureID": "REQ1"},
            [f"{J2K_STUDY}.1"],
        ),
        ("SERIES", {"StudyInstanceUID": J2K_STUDY, "RequestAttributesSequence.RequestedProcedureID": "REQ2"}, []),
        ("IMAGE", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "InstanceNumber": "2"}, [SERIES]),
        ("IMAGE", {"StudyInstanceUID": OLD, "SeriesInstanceUID": SERIES}, []),
    ],
    ids=str,
)
def test_series_and_images_are_found_below_what_is_named(
    asked: Asked, level: str, keys: dict[str, str], found: list[str]
) -> None:
    status, matches = find(asked.port, level, {"SeriesInstanceUID": "", **keys})
    assert (status.Status, [one.SeriesInstanceUID for one in matches]) == (0, found)


def test_a_match_has_what_was_asked_for_and_what_it_must_have(asked: Asked) -> None:
    """PS3.4 C.4.1.1.3.2: an attribute that has no value is there, and empty; the character set is there where it is needed."""
    empty = ("PatientName", "PatientSex", "ReferringPhysicianName", "NumberOfStudyRelatedInstances", "StudyDate")
    keys = dict.fromkeys((*empty, "ModalitiesInStudy", "InstanceAvailability"), "")
    _, (ct_study,) = find(asked.port, "STUDY", {**keys, "StudyInstanceUID": STUDY})
    assert (ct_study.NumberOfStudyRelatedInstances, ct_study.ModalitiesInStudy) == (5, "CT")
    assert (ct_study.RetrieveAETitle, ct_study.InstanceAvailability, ct_study.QueryRetrieveLevel) == (
        *("XDSI", "ONLINE"),
        "STUDY",
    )
    assert "SpecificCharacterSet" not in ct_study
    assert "PatientID" not in ct_study
    _, (picture,) = find(asked.port, "STUDY", {**keys, "StudyInstanceUID": J2K_STUDY})
    assert picture.SpecificCharacterSet == "ISO_IR 192"
    assert picture.PatientName == "Yamada^Tarou=山田^太郎"
    assert picture["StudyDate"].value == ""
    _, images = find(
        asked.port,
        "IMAGE",
        {"StudyInstanceUID": J2K_STUDY, "SeriesInstanceUID": f"{J2K_STUDY}.1", "SOPClassUID": "", "Rows": ""},
    )
    assert [(one.SOPInstanceUID, one.Rows) for one in images] == [(f"{J2K_STUDY}.1.1", 1024)]


def test_what_is_not_compared_is_said(asked: Asked) -> None:
    """PS3.4 table C.4-1: pending with a warning where an optional key is not supported."""
    private = identifier("STUDY", {"StudyInstanceUID": ""})
    private.add_new(0x00091001, "LO", "")
    for asked_for, expected in (
        (identifier("STUDY", {"PatientID": "*", "StudyDate": "*"}), 0xFF00),
        (identifier("STUDY", {"PatientComments": ""}), 0xFF01),
        (identifier("STUDY", {"InstitutionName": "Elsewhere"}), 0xFF01),
        (private, 0xFF01),
    ):
        with associated(asked.port, FIND["study"]) as association:
            statuses = [status.Status for status, _ in association.send_c_find(asked_for, FIND["study"])]
        assert statuses == [expected] * 3 + [0], asked_for


@pytest.mark.parametrize(
    ("root", "level", "keys", "comment"),
    [
        ("study", "", {}, "QueryRetrieveLevel is '', not one of STUDY, SERIES, IMAGE"),
        ("study", "PATIENT", {}, "QueryRetrieveLevel is 'PATIENT', not one of STUDY, SERIES, IMAGE"),
        ("study", "SERIES", {}, "StudyInstanceUID is missing at SERIES level"),
        ("study", "SERIES", {"StudyInstanceUID": "1.*"}, "StudyInstanceUID must be one UID at SERIES level"),
        ("study", "SERIES", {"StudyInstanceUID": "1.2\\1.3"}, "StudyInstanceUID must be one UID at SERIES level"),
        ("study", "IMAGE", {"StudyInstanceUID": STUDY}, "SeriesInstanceUID is missing at IMAGE level"),
        ("patient", "STUDY", {}, "PatientID is missing at STUDY level"),
        ("patient", "STUDY", {"PatientID": "M*"}, "PatientID must be one value at STUDY level"),
        (
            "study",
            "STUDY",
            {"StudyInstanceUID": "1.2.*"},
            "StudyInstanceUID: '1.2.*' is no UID: at most 64 digits and dots,",
        ),
        ("study", "STUDY", {"StudyDate": "2026"}, "StudyDate is '2026'; it must be YYYYMMDD, or a range of them wit"),
        ("study", "STUDY", {"PatientID": "a*" * 9}, "'a*a*a*a*a*a*a*a*a*' has more than 8 asterisks"),
        ("study", "STUDY", {"StudyID": "a\tb"}, "StudyID has control characters"),
        (
            "study",
            "SERIES",
            {"StudyInstanceUID": STUDY, "SeriesNumber": "9" * 12},
            "SeriesNumber is '999999999999'; it must be a whole numb",
        ),
    ],
)
def test_what_fits_no_level_is_refused_with_the_reason(
    asked: Asked, root: str, level: str, keys: dict[str, str], comment: str
) -> None:
    status, found = find(asked.port, level, keys, root)
    assert (status.Status, found) == (0xA900, [])
    assert status.ErrorComment.startswith(comment[:60])


def test_long_lists_of_uids_are_taken_and_longer_ones_refused(asked: Asked) -> None:
    """An Implicit VR list has no bound of its own."""
    others = [f"1.2.{number:040d}1" for number in range(1, 5000)]
    others = [one.replace(".0", ".1") for one in others]
    status, found = find(asked.port, "STUDY", {"StudyInstanceUID": "\\".join([*others, STUDY])})
    assert (status.Status, [one.StudyInstanceUID for one in found]) == (0, [STUDY])
    status, _ = find(asked.port, "STUDY", {"StudyInstanceUID": "\\".join(["1.2.3"] * 10_001)})
    assert (status.Status, status.ErrorComment) == (0xA900, "StudyInstanceUID has more than 10000 values")


def test_patients_are_found_each_once(asked: Asked) -> None:
    """Patient Root (PS3.4 C.6.1)."""
    status, found = find(
        asked.port, "PATIENT", {"PatientID": "", "PatientName": "", "StudyDate": "20260201"}, "patient"
    )
    assert status.Status == 0
    assert sorted(one.PatientID for one in found) == ["100%", "J 1", "MRN7"]
    _, found = find(asked.port, "PATIENT", {"PatientID": "", "PatientName": "muster*"}, "patient")
    assert [one.PatientID for one in found] == ["MRN7"]
    _, found = find(asked.port, "STUDY", {"PatientID": "MRN7", "StudyInstanceUID": ""}, "patient")
    assert [(one.PatientID, one.StudyInstanceUID) for one in found] == [("MRN7", STUDY)]
    keys = {"PatientID": "J 1", "StudyInstanceUID": STUDY, "SeriesInstanceUID": ""}
    assert find(asked.port, "SERIES", keys, "patient")[1] == []


def test_findscu_finds(asked: Asked) -> None:
    said = dcmtk(
        *("findscu", "-S", "-aec", "XDSI", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=MUSTER*"),
        *("-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedSeries", "127.0.0.1", asked.port),
    )
    assert said.count("Find Response:") == 1
    assert f"[{STUDY}]" in said and "IS [2 ]" in said


def test_nothing_of_patients_is_in_the_log(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="xdsi"):
        find(asked.port, "STUDY", {"PatientName": "Muster*", "PatientID": "MRN7"})
        find(asked.port, "STUDY", {"PatientID": "MRN7", "StudyDate": "Muster"})
    assert "C-FIND of 'TESTER' at STUDY level: 1 matches (all)" in caplog.text
    assert "MRN7" not in caplog.text and "uster" not in caplog.text


def test_more_matches_than_are_given_are_said_to_be(tmp_path: Path) -> None:
    """Never a silent cut: out of resources, after the first ones."""
    with asked_source(tmp_path, max_results=2) as asked:
        for one in ct(3):
            asked.instances.add_bytes(one)
        keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}
        status, found = find(asked.port, "IMAGE", keys)
        assert (status.Status, status.ErrorComment) == (0xA700, "there are more than these 2 matches")
        assert len(found) == 2
        status, found = find(asked.port, "IMAGE", {**keys, "InstanceNumber": "3"})
        assert (status.Status, len(found)) == (0, 1)


def test_a_search_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    slices = 800
    with asked_source(tmp_path) as asked:
        for one in ct(slices, rows=16, columns=16):
            asked.instances.add_bytes(one)
        keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": "", "InstanceNumber": ""}
        with associated(asked.port, FIND["study"]) as association:
            statuses = []
            for status, _ in association.send_c_find(identifier("IMAGE", keys), FIND["study"], msg_id=7):
                if not statuses:
                    association.send_c_cancel(7, query_model=FIND["study"])
                statuses.append(status.Status)
            assert statuses[-1] == 0xFE00
            assert len(statuses) < slices
            # The association is as good as before.
            again = [
                one.Status for one, _ in association.send_c_find(identifier("STUDY", {"PatientID": ""}), FIND["study"])
            ]
            assert again == [0xFF00, 0]


def test_what_is_rejected_is_not_found(tmp_path: Path) -> None:
    with asked_source(tmp_path) as asked:
        images = ct(3)
        for one in images:
            asked.instances.add_bytes(one)
        asked.instances.add_bytes(rejection_note([read(images[1])]))
        keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "NumberOfSeriesRelatedInstances": ""}
        _, found = find(asked.port, "IMAGE", keys)
        assert {one.SOPInstanceUID for one in found} == {read(images[number]).SOPInstanceUID for number in (0, 2)}
        assert {one.NumberOfSeriesRelatedInstances for one in found} == {2}


def test_it_is_not_offered_unless_it_is_configured(tmp_path: Path) -> None:
    with asked_source(tmp_path, query_retrieve=False) as asked:
        said = dcmtk(
            *("findscu", "-S", "-aec", "XDSI", "-k", "QueryRetrieveLevel=STUDY", "127.0.0.1", asked.port), check=False
        )
        assert "No presentation context" in said or "No Acceptable Presentation Contexts" in said


def test_an_identifier_that_cannot_be_read_is_refused(asked: Asked) -> None:
    broken = Dataset()
    broken.QueryRetrieveLevel = "STUDY"
    broken.add_new(0x00080050, "SH", "a" * 50_000)
    with associated(asked.port, FIND["study"]) as association:
        ((status, _),) = association.send_c_find(broken, FIND["study"])
    assert (status.Status, status.ErrorComment) == (0xA900, "AccessionNumber has more than 16384 characters")
