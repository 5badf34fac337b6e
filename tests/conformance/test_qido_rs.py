"""RAD-129 QIDO-RS over real HTTP, on SQLite and PostgreSQL (PS3.18 10.6, PS3.4 C.2.2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from benchmarks.postgres import Cluster
from imaging import schema
from imaging.instances import Instances
from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import J2K_STUDY, SERIES, STUDY, ask, ct, encoded, read, sample

OLD = "1.2.826.0.1.3680043.10.99.3"
ALL = {STUDY, OLD, J2K_STUDY}


def objects() -> Iterator[bytes]:
    """Two CT series of 3 and 2 slices; an old study of the patient 100%; a picture with a request and a name in two scripts."""
    yield from ct(3)
    yield from ct(2, series_instance_uid=f"{STUDY}.2", series_number=2)
    yield from ct(
        1,
        study_instance_uid=OLD,
        series_instance_uid=f"{OLD}.1",
        patient_id="100%",
        patient_name="Doe^John",
        accession_number="ACCX1",
        study_date="19991231",
        study_time="235959",
    )
    picture = read(sample("JPEG2000.dcm"))
    picture.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    picture.StudyInstanceUID, picture.SeriesInstanceUID, picture.SOPInstanceUID = (
        J2K_STUDY,
        f"{J2K_STUDY}.1",
        f"{J2K_STUDY}.1.1",
    )
    picture.PatientName, picture.PatientID, picture.StudyDate = "Yamada^Tarou=山田^太郎", "J 1", ""
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "STEP1", "REQ1"
    picture.RequestAttributesSequence = [request]
    picture.Modality = "XC"
    yield encoded(picture)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = configured(tmp_path_factory.mktemp("qido"))
    config = replace(
        config, server=replace(config.server, actors="imaging"), imaging=replace(config.imaging, max_results=4)
    )
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        server = sa.create_engine(
            sa.make_url(cluster.url()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        with server.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE qido")
        server.dispose()
        url = sa.make_url(cluster.url("qido")).set(drivername="postgresql+psycopg")
        config = replace(config, imaging=replace(config.imaging, database=url.render_as_string(hide_password=False)))
    with serving(config) as domain:
        for one in objects():
            domain.parts["instances"].add_bytes(one)
        yield domain.endpoints["dicomweb"]


def uids(web: str, path: str, tag: str = "0020000D") -> list[str]:
    answer = ask(web + path)
    if answer.status == 204:
        assert answer.body == b""
        return []
    assert (answer.status, answer.headers["content-type"]) == (200, "application/dicom+json"), answer.text
    return [one[tag]["Value"][0] for one in answer.json]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ALL),
        (f"StudyInstanceUID={STUDY}", {STUDY}),
        (f"StudyInstanceUID={STUDY},{OLD}", {STUDY, OLD}),
        (f"0020000D={STUDY}%5C{OLD}", {STUDY, OLD}),
        ("PatientID=MRN7", {STUDY}),
        ("00100020=MRN7", {STUDY}),
        ("PatientID=mrn7", set()),
        ("PatientID=", ALL),
        ("PatientID=MRN*", {STUDY}),
        ("PatientID=MRN%3F", {STUDY}),
        ("PatientID=%25", set()),
        ("PatientID=1*%25", {OLD}),
        ("IssuerOfPatientID=NORTH", {STUDY, OLD}),
        ("AccessionNumber=ACC_*", {STUDY}),
        ("AccessionNumber=ACC*", {STUDY, OLD}),
        ("PatientName=muster%5Eann%20marie", {STUDY}),
        ("PatientName=Muster", set()),
        ("PatientName=MUSTER*", {STUDY}),
        ("PatientName=" + quote("山田^太郎"), {J2K_STUDY}),
        ("PatientName=ann&fuzzymatching=true", {STUDY}),
        ("PatientName=mar%20mus&fuzzymatching=true", {STUDY}),
        ("PatientName=uster&fuzzymatching=true", set()),
        ("PatientName=" + quote("太") + "&fuzzymatching=true", {J2K_STUDY}),
        ("StudyDate=20260201", {STUDY}),
        ("StudyDate=20260101-20261231", {STUDY}),
        ("StudyDate=-20000101", {OLD}),
        ("StudyDate=19991231-", {STUDY, OLD}),
        ("StudyDate=20260101-&StudyTime=09-0915", {STUDY}),
        ("StudyTime=0900-0914", set()),
        ("StudyTime=23", {OLD}),
        ("ModalitiesInStudy=XC", {J2K_STUDY}),
        ("ModalitiesInStudy=XC,CT", ALL),
        ("ModalitiesInStudy=CT&PatientName=Doe*", {OLD}),
    ],
)
def test_a_study_is_found_by_what_matches(web: str, query: str, found: set[str]) -> None:
    assert set(uids(web, f"/studies?{query}")) == found


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/studies/{STUDY}/series", [f"{STUDY}.1", f"{STUDY}.2"]),
        (f"/studies/{STUDY}/series?SeriesNumber=2", [f"{STUDY}.2"]),
        ("/series?Modality=XC", [f"{J2K_STUDY}.1"]),
        ("/series?PatientID=MRN7&SeriesDescription=Ax*", [f"{STUDY}.1", f"{STUDY}.2"]),
        ("/series?RequestAttributesSequence.ScheduledProcedureStepID=STEP1", [f"{J2K_STUDY}.1"]),
        ("/series?00400275.00401001=REQ1", [f"{J2K_STUDY}.1"]),
        ("/series?ModalitiesInStudy=CT&SeriesNumber=2", [f"{STUDY}.2"]),
        ("/studies/1.2.3/series", []),
    ],
)
def test_series_are_found(web: str, path: str, found: list[str]) -> None:
    assert uids(web, path, "0020000E") == found


def test_instances_are_found_at_every_path(web: str) -> None:
    of_series = uids(web, f"/studies/{STUDY}/series/{SERIES}/instances", "00080018")
    assert len(of_series) == 3
    assert uids(web, f"/studies/{STUDY}/series/{SERIES}/instances?InstanceNumber=2", "00080018") == [of_series[1]]
    assert uids(web, f"/instances?SOPInstanceUID={of_series[2]}", "00080018") == [of_series[2]]
    assert uids(web, f"/studies/{STUDY}/instances?limit=1&offset=2", "00080018") == [of_series[2]]
    assert uids(web, f"/studies/{OLD}/series/{SERIES}/instances", "00080018") == []


def test_a_study_is_answered_with_its_attributes_and_counts(web: str) -> None:
    """PS3.18 table 10.6.3-3."""
    (found,) = ask(f"{web}/studies?StudyInstanceUID={STUDY}").json
    expected = {
        "00080020": {"vr": "DA", "Value": ["20260201"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["CT"]},
        "00081190": {"vr": "UR", "Value": [f"{web}/studies/{STUDY}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Muster^Ann Marie"}]},
        "00201206": {"vr": "IS", "Value": [2]},
        "00201208": {"vr": "IS", "Value": [5]},
    }
    assert {tag: found[tag] for tag in expected} == expected
    assert {"00080005", "00080030", "00080050", "00080090", "00100020", "00100030", "00100040", "00200010"} <= set(
        found
    )


def test_names_come_in_unicode_whatever_they_were_written_in(web: str) -> None:
    (found,) = ask(f"{web}/studies?PatientName=Yamada*").json
    assert found["00100010"]["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]
    assert found["00080005"]["Value"] == ["ISO_IR 192"]


def test_an_instance_is_answered_with_its_own_attributes(web: str) -> None:
    found = ask(f"{web}/studies/{STUDY}/instances").json[0]
    values = {
        tag: found[tag]["Value"] for tag in ("00280010", "00280011", "00280100", "00083002", "00201209", "0020000D")
    }
    assert values == {
        "00280010": [64],
        "00280011": [48],
        "00280100": [16],
        "00083002": ["1.2.840.10008.1.2.1"],
        "00201209": [3],
        "0020000D": [STUDY],
    }


def test_includefield_adds_what_is_kept_and_names_what_is_not(web: str) -> None:
    plain, more, everything, unknown = (
        ask(f"{web}/series?SeriesInstanceUID={SERIES}{field}")
        for field in ("", "&includefield=00080070", "&includefield=all", "&includefield=Modality,PatientWeight")
    )
    assert "00080070" not in plain.json[0]
    assert set(more.json[0]) - set(plain.json[0]) == {"00080070"}
    assert set(everything.json[0]) > set(more.json[0])
    assert unknown.status == 200
    assert unknown.headers["warning"] == '299 xdsi "includefield: PatientWeight cannot be given"'


def test_an_answer_is_bounded_and_says_so(web: str) -> None:
    """The configured maximum is 4: a larger limit does not lift it."""
    for query in ("", "?limit=1000000000"):
        answer = ask(f"{web}/instances{query}")
        assert len(answer.json) == 4
        assert answer.headers["warning"] == '299 xdsi "there are more than these 4 results; ask with offset=4"'
    pages = [uids(web, f"/instances?limit=3&offset={offset}", "00080018") for offset in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert len({uid for page in pages for uid in page}) == 7
    assert "warning" not in ask(f"{web}/instances?limit=3&offset=6").headers


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/studies?limit=-1", 400, "limit is '-1'; it must be a whole number"),
        ("/studies?limit=99999999999999999999", 400, "limit is '99999999999999999999'"),
        ("/studies?offset=x", 400, "offset is 'x'"),
        ("/studies?fuzzymatching=yes", 400, "fuzzymatching is 'yes'; it must be true or false"),
        ("/studies?colour=red", 400, "'colour' is neither a parameter nor a DICOM attribute"),
        ("/studies?Modality=CT", 400, "study level: 'Modality' cannot be searched for; StudyInstanceUID"),
        ("/studies?PatientWeight=80", 400, "'PatientWeight' cannot be searched for"),
        ("/studies?includefield=Colour", 400, "'Colour' is neither"),
        ("/studies?StudyDate=2026", 400, "StudyDate is '2026'; it must be YYYYMMDD"),
        ("/studies?StudyDate=-", 400, "StudyDate is '-'"),
        ("/studies?StudyTime=noon", 400, "StudyTime is 'noon'; it must be HHMMSS.FFFFFF"),
        ("/studies?StudyInstanceUID=1.2.*", 400, "StudyInstanceUID: '1.2.*' is no UID"),
        ("/series?SeriesNumber=1*", 400, "SeriesNumber is '1*'; it must be a whole number"),
        ("/studies?PatientName=*a*a*a*a*a*a*a*a*a*", 400, "more than 8 asterisks"),
        ("/studies?PatientID=%00", 400, "NUL"),
        ("/studies?PatientID=%ff", 400, "not UTF-8"),
        ("/studies?" + "&".join(["PatientID=1"] * 300), 400, "more than 200 parameters"),
        ("/studies?PatientID=" + "x" * 20000, 400, "more than 16384 characters"),
        ("/studies/..%2f..%2fetc/series", 404, "there is no such resource"),
        ("/studies/../../../etc/passwd", 404, "there is no such resource"),
        ("/studies/1.2.x/series", 400, "the Study Instance UID '1.2.x' is no UID"),
        ("/patients", 404, "there is no such resource; there are /studies, /series"),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_its_reason(web: str, path: str, status: int, words: str) -> None:
    answer = ask(web + path)
    assert (answer.status, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert words in answer.text


@pytest.mark.parametrize(
    "value", ["' OR '1'='1", "x'; DROP TABLE study; --", "\\", "100/%", "_____", "%%", "[a-z]*", "\u202e"]
)
def test_no_value_is_taken_for_sql(web: str, value: str) -> None:
    assert uids(web, f"/studies?PatientID={quote(value)}") == []
    assert set(uids(web, "/studies")) == ALL


def test_only_json_is_given(web: str) -> None:
    refused = ask(f"{web}/studies", 'multipart/related; type="application/dicom+xml"')
    assert refused.status == 406
    assert "application/dicom+json" in refused.text
    for accept in ("application/json", "*/*", "text/html, application/dicom+json;q=0.1"):
        assert ask(f"{web}/studies", accept).status == 200
    assert ask(f"{web}/studies?accept=application/dicom%2Bjson", "text/html").status == 200
    assert ask(f"{web}/studies", method="DELETE").status == 405


def test_instances_that_were_stored_before_there_was_an_index_are_found(tmp_path: Path) -> None:
    engine = schema.connect(f"sqlite:///{tmp_path / 'imaging.sqlite'}")
    schema.upgrade(engine)
    instances = Instances(engine, tmp_path / "imaging")
    for one in objects():
        instances.add_bytes(one)
    tables = ("study", "series", "described_instance")

    def rows() -> list[list[tuple[object, ...]]]:
        with engine.connect() as connection:
            return [sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {table}"))) for table in tables]

    def of_before() -> None:
        """As a store of before the index is after its migration."""
        with engine.begin() as connection:
            for table in tables:
                connection.exec_driver_sql(f"DELETE FROM {table}")
            connection.exec_driver_sql("DROP TABLE undescribed")
            connection.exec_driver_sql("UPDATE imaging_version SET version_num = 'r0006'")
        schema.upgrade(engine)

    before = rows()
    lost = instances.of_study(OLD)[0]
    of_before()
    instances.complete_index()
    assert rows() == before
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM undescribed").all() == []
    of_before()
    lost.path.unlink()
    instances.complete_index()
    assert [len(one) for one in rows()] == [3, 4, 7]
    instances.close()
