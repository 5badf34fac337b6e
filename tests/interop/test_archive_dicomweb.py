"""DICOMweb and WADO-URI of a source with a real PACS behind it: what is not stored here comes from there, by either protocol."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks import orthanc
from benchmarks.limits import free_port
from server.compose import Domain
from server.embedded import serving
from tests.archives import CALLING, Pacs, dcmqrscp, uids
from tests.conftest import configured
from tests.dicomweb import SERIES, STUDY, ask, ct, multipart, read, rejection_note
from tests.dimse import data_set_bytes
from tests.interop.test_archive_dimse import as_dcmtk_writes

HERE = "1.2.826.0.1.3680043.10.99.7"
NAMES = ("CT_small.dcm", "reportsi.dcm")
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
WAYS = ("dicomweb", "orthanc", "dcmqrscp")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the PACS has: a series of 40 slices, and some others."""
    directory = tmp_path_factory.mktemp("there")
    found = as_dcmtk_writes(directory, NAMES)
    for number, content in enumerate(ct(40)):
        found.append(directory / f"{number:02}.dcm")
        found[-1].write_bytes(content)
    return found


@pytest.fixture(scope="module")
def all_keys(paths: list[Path]) -> Iterator[dict[str, dict[str, Any]]]:
    """The configuration of each way."""
    with orthanc.serving({"here": [CALLING, "127.0.0.1", free_port()]}) as first, dcmqrscp(paths) as second:
        for path in paths:
            first.store(path.read_bytes())
        yield {
            "dicomweb": {"archive_url": first.dicomweb},
            "orthanc": {"archive_dimse": Pacs("", first.ae_title, first.port, 0).key},
            "dcmqrscp": {"archive_dimse": second.key},
        }


def fronting(directory: Path, keys: dict[str, Any]) -> Any:
    config = configured(directory)
    imaging = replace(config.imaging, **keys)
    return serving(replace(config, server=replace(config.server, actors="imaging"), imaging=imaging))


@pytest.fixture(scope="module", params=WAYS)
def domain(
    request: pytest.FixtureRequest,
    all_keys: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Domain]:
    """A source before the PACS, which has one study of its own."""
    directory = tmp_path_factory.mktemp(request.param)
    with fronting(directory, all_keys[request.param]) as served:
        for content in ct(3, study_instance_uid=HERE, series_instance_uid=f"{HERE}.1", patient_id="LOCAL"):
            served.parts["instances"].add_bytes(content)
        yield served


@pytest.fixture
def web(domain: Domain) -> str:
    return domain.endpoints["dicomweb"]


def values(answer: Any, tag: str) -> list[str]:
    return [one[tag]["Value"][0] for one in answer.json]


def staged(domain: Domain) -> list[Path]:
    return [path for path in domain.parts["instances"].staging.iterdir() if path.suffix != ".lock" and path.is_file()]


def test_a_study_of_the_archive_comes_as_it_is_there(domain: Domain, web: str, paths: list[Path]) -> None:
    answer = ask(f"{web}/studies/{STUDY}", AS_STORED)
    assert answer.status == 200
    came = {read(content).SOPInstanceUID: content for _, content in answer.parts}
    wanted = {uids(path)[2]: path for path in paths if uids(path)[0] == STUDY}
    assert set(came) == set(wanted)
    for uid, path in wanted.items():
        offset = len(came[uid]) - len(data_set_bytes(path))
        assert came[uid][offset:] == data_set_bytes(path)


def test_series_instances_metadata_frames_and_pictures_come_from_there(web: str, paths: list[Path]) -> None:
    path = next(path for path in paths if path.name == "CT_small.dcm")
    study, series, instance = uids(path)
    original = pydicom.dcmread(path)
    below = f"{web}/studies/{study}/series/{series}"
    assert len(ask(below, AS_STORED).parts) == 1
    one = f"{below}/instances/{instance}"
    assert read(ask(one, "application/dicom").body) == original
    (metadata,) = ask(f"{below}/metadata").json
    assert metadata["00080018"]["Value"] == [instance]
    assert metadata["7FE00010"]["BulkDataURI"] == f"{one}/bulkdata/7FE00010"
    assert ask(metadata["7FE00010"]["BulkDataURI"], "application/octet-stream").body == original.PixelData
    assert ask(f"{one}/frames/1", "application/octet-stream").body == original.PixelData
    assert ask(f"{one}/rendered", "image/jpeg").body[:2] == b"\xff\xd8"
    assert ask(f"{one}/thumbnail", "image/png").body[:4] == b"\x89PNG"
    wado = (
        f"{web.removesuffix('dicomweb')}wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}"
    )
    assert read(ask(f"{wado}&contentType=application/dicom").body) == original


@pytest.mark.skipif(importlib.util.find_spec("dcm2niix") is None, reason="dcm2niix is not installed")
def test_a_series_of_the_archive_as_nifti(web: str) -> None:
    answer = ask(f"{web}/studies/{STUDY}/series/{SERIES}", "application/x-nifti")
    assert (answer.status, answer.body[:2]) == (200, b"\x1f\x8b")


def test_what_is_neither_here_nor_there_is_404(web: str, paths: list[Path]) -> None:
    study, series, _ = uids(paths[0])
    for path in ("1.2.404", f"{study}/series/1.2.404", f"{study}/series/{series}/instances/1.2.404"):
        answer = ask(f"{web}/studies/{path}", "*/*")
        assert answer.status == 404
        assert "is not stored here, nor in the archive behind this source" in answer.text


def test_a_search_finds_what_is_here_and_what_is_there(web: str, paths: list[Path]) -> None:
    found = ask(f"{web}/studies")
    there = {uids(path)[0] for path in paths}
    assert values(found, "0020000D")[0] == HERE
    assert set(values(found, "0020000D")[1:]) == there
    assert set(values(found, "00081190")) == {f"{web}/studies/{uid}" for uid in {HERE, *there}}
    assert values(ask(f"{web}/studies?PatientID=MRN7"), "0020000D") == [STUDY]
    assert values(ask(f"{web}/studies?PatientName=Muster*&StudyDate=20260101-"), "0020000D") == [HERE, STUDY]
    some = [STUDY, uids(paths[0])[0]]
    assert sorted(values(ask(f"{web}/studies?StudyInstanceUID={','.join(some)}"), "0020000D")) == sorted(some)
    assert ask(f"{web}/studies?PatientID=NOBODY").status == 204
    assert ask(f"{web}/series?Modality=no%20code%20at%20all%20that%20is%20longer").status == 204
    assert values(ask(f"{web}/studies/{STUDY}/series"), "00200011") == [1]
    found = ask(f"{web}/studies/{STUDY}/series/{SERIES}/instances")
    assert sorted(values(found, "00080018")) == sorted(uids(path)[2] for path in paths if uids(path)[0] == STUDY)
    assert set(values(found, "00100020")) == {"MRN7"}


def test_pages_go_on_where_the_one_before_ended(web: str, paths: list[Path]) -> None:
    """Whatever is here or there; the last page has no warning."""
    whole = values(ask(f"{web}/instances"), "00080018")
    assert len(whole) == len(set(whole)) == 3 + len(paths)
    pages = []
    for offset in range(0, len(whole), 2):
        page = ask(f"{web}/instances?limit=2&offset={offset}")
        pages += values(page, "00080018")
        assert ("there are more" in page.headers.get("warning", "")) == (offset + 2 < len(whole))
    assert pages == whole
    assert ask(f"{web}/instances?limit=2&offset={len(whole)}").status == 204


def test_what_cannot_be_given_or_matched_there_is_said(web: str) -> None:
    plain = ask(f"{web}/studies?PatientID=MRN7").json[0]
    more = ask(f"{web}/studies?PatientID=MRN7&includefield=all").json[0]
    assert set(plain) < set(more) or plain == more
    assert "00080080" not in plain
    assert ask(f"{web}/studies?Rows=64").status == 400
    assert ask(f"{web}/studies?StudyDate=someday").status == 400
    assert ask(f"{web}/studies?PatientID=MRN7&PatientID=MRN8").status == 400


def test_what_the_archive_cannot_search_for_finds_nobody_elses(domain: Domain, web: str, paths: list[Path]) -> None:
    """dcmqrscp passes over ModalitiesInStudy, and would give every study."""
    answer = ask(f"{web}/studies?ModalitiesInStudy=SR")
    if answer.status == 200:
        assert values(answer, "0020000D") == [uids(paths[1])[0]]
    else:
        assert "ModalitiesInStudy: the archive behind this source cannot search for it" in answer.headers["warning"]
    assert values(ask(f"{web}/series?Modality=SR"), "0020000D") == [uids(paths[1])[0]]


def test_names_that_the_archive_compares_letter_by_letter_are_warned_of(
    all_keys: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with fronting(tmp_path, all_keys["dcmqrscp"]) as served:
        answer = ask(f"{served.endpoints['dicomweb']}/studies?PatientName=Ann%20Muster&fuzzymatching=true")
        assert answer.status == 204
        assert "compares names letter by letter" in answer.headers["warning"]


def test_what_a_note_rejects_is_hidden_though_the_archive_has_it(
    all_keys: dict[str, dict[str, Any]], paths: list[Path], tmp_path: Path
) -> None:
    """The note is stored here; the study is the archive's all the same."""
    with fronting(tmp_path, all_keys["orthanc"]) as served:
        web = served.endpoints["dicomweb"]
        slices = [read(path.read_bytes()) for path in paths if uids(path)[0] == STUDY]
        body, content_type = multipart([rejection_note(slices[:2])])
        stored = ask(f"{web}/studies", method="POST", body=body, Content_Type=content_type)
        assert stored.status == 200
        gone = {str(one.SOPInstanceUID) for one in slices[:2]}
        found = ask(f"{web}/studies/{STUDY}/instances")
        assert len(found.json) == 38 and not gone & set(values(found, "00080018"))
        assert len(ask(f"{web}/studies/{STUDY}", AS_STORED).parts) == 38
        refused = ask(f"{web}/studies/{STUDY}/series/{SERIES}/instances/{min(gone)}", "application/dicom")
        assert (refused.status, "is rejected: 113001" in refused.text) == (404, True)
        assert values(ask(f"{web}/studies?PatientID=MRN7"), "0020000D") == [STUDY]


def test_a_study_that_is_known_here_is_answered_from_here(all_keys: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    with fronting(tmp_path, all_keys["dicomweb"]) as served:
        web = served.endpoints["dicomweb"]
        served.parts["instances"].add_bytes(ct(40)[0])
        assert len(ask(f"{web}/studies/{STUDY}", AS_STORED).parts) == 1
        assert len(ask(f"{web}/studies/{STUDY}/instances").json) == 1
        assert values(ask(f"{web}/studies"), "0020000D").count(STUDY) == 1


def test_an_archive_that_is_away_is_a_502_and_no_half_answer(tmp_path: Path) -> None:
    for number, keys in enumerate(
        ({"archive_url": "http://127.0.0.1:9/dicom-web"}, {"archive_dimse": "PACS@127.0.0.1:9"})
    ):
        with fronting(tmp_path / str(number), keys) as served:
            served.parts["instances"].add_bytes(ct(1)[0])
            web = served.endpoints["dicomweb"]
            for path in ("studies", "instances", "studies/1.2.3", "studies/1.2.3/metadata", "studies/1.2.3/series"):
                answer = ask(f"{web}/{path}", "*/*")
                assert answer.status == 502, path
                assert answer.text.startswith("the archive behind this imaging source did not answer as it should")
            # What is known here needs nobody.
            assert ask(f"{web}/studies/{STUDY}", AS_STORED).status == 200


def test_what_was_fetched_last_is_kept_for_the_next_frame(paths: list[Path], tmp_path: Path) -> None:
    """Within `archive_kept_bytes`, and until the server ends."""
    with (
        dcmqrscp(paths[2:5]) as pacs,
        fronting(tmp_path, {"archive_dimse": pacs.key, "archive_kept_bytes": 10_000}) as served,
    ):
        first, second = (
            f"{served.endpoints['dicomweb']}/studies/{STUDY}/series/{SERIES}/instances/{uids(path)[2]}/frames/1"
            for path in paths[2:4]
        )
        for url in (first, second):
            assert ask(url, "application/octet-stream").status == 200
        assert pacs.process is not None
        pacs.process.kill()
        pacs.process.wait()
        assert ask(second, "application/octet-stream").body == pydicom.dcmread(paths[3]).PixelData
        # Two slices have more bytes than that.
        assert ask(first, "application/octet-stream").status == 502
        staging = served.parts["instances"].staging
    assert list(staging.iterdir()) == []


def test_nothing_of_the_archive_is_left(domain: Domain) -> None:
    """Runs after the others of its way."""
    assert len(list((domain.parts["instances"].staging.parent / "content").glob("*/*.dcm"))) == 3
