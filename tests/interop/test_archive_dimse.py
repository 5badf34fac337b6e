"""Real PACS that are asked by DIMSE: Orthanc and dcmtk's dcmqrscp, each by C-GET and by C-MOVE."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from benchmarks import orthanc
from benchmarks.limits import free_port
from imaging.archive import ArchiveError, Fetched, Search
from imaging.archive.dimse import DimseArchive
from imaging.archive.fetching import Fetching, Kept
from server.embedded import serving
from tests.archives import CALLING, Pacs, by_series, dcmqrscp, dimse_archive, fetched, uids
from tests.conftest import configured
from tests.dicomweb import STUDY, ct, rejection_note
from tests.dimse import data_set_bytes
from tests.interop.test_lifecycle_cli import Shell
from tests.unit.test_transcode import file

#: Deflated is left out: what comes is deflated anew.
SAMPLES = (
    *(
        "CT_small.dcm",
        "rtplan.dcm",
        "MR_small_RLE.dcm",
        "JPEG2000.dcm",
        "JPEG-lossy.dcm",
        "examples_ybr_color.dcm",
        "reportsi.dcm",
    ),
    *("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm"),
)
#: What dcmqrscp gives as it is without being told of an encoding: it prefers Explicit VR.
PLAIN = ("CT_small.dcm", "reportsi.dcm")
WAYS = [(name, how) for name in ("orthanc", "dcmqrscp") for how in ("get", "move")]


def as_dcmtk_writes(directory: Path, names: Sequence[str]) -> list[Path]:
    """Both PACS write each data set anew, in one of the forms that PS3.5 allows (lengths, group lengths, padding): this one."""
    made = []
    for name in names:
        made.append(directory / name)
        subprocess.run(["dcmconv", "-q", "+e", "-g", "-p", file(name), made[-1]], check=True)
    return made


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series of more slices than are asked for at once."""
    directory = tmp_path_factory.mktemp("slices")
    found = []
    for number, content in enumerate(ct(40)):
        found.append(directory / f"{number:02}.dcm")
        found[-1].write_bytes(content)
    return found


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """By PACS."""
    directory = tmp_path_factory.mktemp("samples")
    return {"orthanc": as_dcmtk_writes(directory, SAMPLES), "dcmqrscp": as_dcmtk_writes(directory, PLAIN)}


@pytest.fixture(scope="module")
def all_pacs(paths: dict[str, list[Path]], slices: list[Path]) -> Iterator[dict[str, Pacs]]:
    move_port = free_port()
    with (
        orthanc.serving({"here": [CALLING, "127.0.0.1", move_port]}) as first,
        dcmqrscp([*paths["dcmqrscp"], *slices]) as second,
    ):
        for path in [*paths["orthanc"], *slices]:
            first.store(path.read_bytes())
        yield {"orthanc": Pacs("orthanc", first.ae_title, first.port, move_port), "dcmqrscp": second}


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest, all_pacs: dict[str, Pacs]) -> tuple[Pacs, str]:
    name, how = request.param
    return all_pacs[name], how


@pytest.fixture
def archive(way: tuple[Pacs, str], tmp_path: Path) -> DimseArchive:
    return dimse_archive(way[0], tmp_path, way[1])


def left(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name != "move.lock"]


def test_an_instance_comes_as_the_archive_has_it(
    archive: DimseArchive, way: tuple[Pacs, str], paths: dict[str, list[Path]], tmp_path: Path
) -> None:
    """The data set byte for byte, whatever its transfer syntax."""
    for path in paths[way[0].name]:
        found = fetched(archive, *uids(path))
        assert isinstance(found, Fetched)
        assert found.transfer_syntax_uid == pydicom.dcmread(path).file_meta.TransferSyntaxUID, path.name
        assert data_set_bytes(found.path) == data_set_bytes(path), path.name
        assert found.size == found.path.stat().st_size
        with found.document.open() as stream:
            del found
            assert stream.read(132)[128:] == b"DICM"
    assert left(tmp_path) == []


def test_compressed_instances_come_as_dcmqrscp_has_them(tmp_path: Path) -> None:
    """It is to be told of one compressed transfer syntax, and takes the first presentation context whatever it has."""
    (path,) = as_dcmtk_writes(tmp_path, ["MR_small_jp2klossless.dcm"])
    (staging := tmp_path / "staging").mkdir()
    with dcmqrscp([path], "+xv", "-xv") as pacs:
        for how in ("get", "move"):
            found = fetched(dimse_archive(pacs, staging, how), *uids(path))
            assert isinstance(found, Fetched)
            assert data_set_bytes(found.path) == data_set_bytes(path)


def test_instances_of_a_series_come_together(archive: DimseArchive, slices: list[Path], tmp_path: Path) -> None:
    ((study, series), of_series) = next(iter(by_series(slices).items()))
    with ThreadPoolExecutor(2) as executor:
        fetching = Fetching(archive, executor, Kept(0), [(study, series, uid) for uid in of_series])
        for uid, path in of_series.items():
            found = fetching.begin((study, series, uid))()
            assert found is not None
            assert data_set_bytes(found.path) == data_set_bytes(path)
    del fetching, found
    assert left(tmp_path) == []


def test_moves_of_several_processes_take_turns(all_pacs: dict[str, Pacs], slices: list[Path], tmp_path: Path) -> None:
    """There is one address to which the PACS sends: what is asked for at the same time comes to the one who asked."""
    ((study, series), of_series) = next(iter(by_series(slices).items()))
    chosen = [list(of_series)[start : start + 10] for start in (0, 10, 20, 30)]
    # A lock is of an open file, so that it makes no difference whether those who wait are of one process.
    archives = [dimse_archive(all_pacs["orthanc"], tmp_path, "move") for _ in chosen]
    with ThreadPoolExecutor(len(chosen)) as executor:
        came = list(executor.map(lambda one, uids: one.fetch(study, series, uids), archives, chosen))
    for outcomes, wanted in zip(came, chosen, strict=True):
        assert list(outcomes) == wanted
        assert all(isinstance(one, Fetched) for one in outcomes.values())


def test_what_the_archive_does_not_have_is_left_out(archive: DimseArchive, slices: list[Path], tmp_path: Path) -> None:
    study, series, instance = uids(slices[0])
    assert list(archive.fetch(study, series, ["1.2.3.404", instance, "../.."])) == [instance]
    assert archive.fetch("1.2.3.404", series, [instance]) == {}
    assert archive.of_study("1.2.3.404") == archive.of_study("*") == []
    assert archive.search(Search(level="study", keys={"PatientID": "NOBODY"}, most=5)).found == []
    assert left(tmp_path) == []


def test_the_headers_of_a_study_are_those_of_its_instances(archive: DimseArchive, slices: list[Path]) -> None:
    """Each has its own UIDs and number; the rest is what the series has in common."""
    found = archive.of_study(STUDY)
    assert [one.sop_instance_uid for one in found] == [uids(path)[2] for path in slices]
    for one, path in zip(found, slices, strict=True):
        header, original = one.header(), pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in (
            *("PatientName", "PatientID", "IssuerOfPatientID", "StudyDate", "AccessionNumber", "Modality"),
            *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
        ):
            assert header.get(keyword) == original.get(keyword), keyword


def test_a_search_goes_down_to_its_level(archive: DimseArchive, slices: list[Path]) -> None:
    """Matches have what is above them, too; the first ones are enough where no more are asked for."""
    found = archive.search(Search(level="instance", keys={"PatientID": "MRN7", "Modality": "CT"}, most=100)).found
    assert {one["00080018"]["Value"][0] for one in found} == {uids(path)[2] for path in slices}
    assert {one["00100010"]["Value"][0]["Alphabetic"] for one in found} == {"Muster^Ann Marie"}
    assert archive.search(Search(level="series", keys={"PatientID": "MRN7", "Modality": "MR"}, most=9)).found == []
    assert len(archive.search(Search(level="instance", keys={"PatientID": "MRN7"}, most=7)).found) == 7
    assert len(archive.search(Search(level="study", keys={}, most=2)).found) == 2


def test_a_study_of_the_archive_is_published_and_retrieved(
    way: tuple[Pacs, str], slices: list[Path], tmp_path: Path
) -> None:
    """RAD-68 and RAD-69 before a PACS that speaks DIMSE: nothing is stored here, and the data sets are those of the PACS."""
    pacs, how = way
    config = configured(tmp_path / "data", patients="open")
    keys = {"archive_dimse": pacs.key, "archive_retrieve": how, "archive_move_port": pacs.move_port}
    config = replace(config, imaging=replace(config.imaging, **keys))
    with serving(config) as domain:
        shell = Shell(tmp_path, tmp_path / "data", domain.endpoints)
        shell.environment |= {
            "XDSI_IMAGING_URL": domain.endpoints["imaging"],
            **{f"XDSI__IMAGING__{name.upper()}": str(value) for name, value in keys.items()},
        }
        patient = ("--patient", "p7^^^&1.2.3.4&ISO", "--source-patient", "MRN7^^^&1.2.3.11&ISO")
        (published,) = json.loads(shell.run("publish", "--study", STUDY, *patient, "--json").stdout)
        assert published["instances"] == len(slices)
        shell.run("retrieve", published["manifest"], "--out", "manifest")
        (manifest,) = (shell.directory / "manifest").iterdir()
        shell.run("retrieve-images", str(manifest), "--out", "images")
    images = {one.stem: data_set_bytes(one) for one in (tmp_path / "images").iterdir()}
    assert images == {uids(path)[2]: data_set_bytes(path) for path in slices}
    assert list((tmp_path / "data" / "imaging" / "content").iterdir()) == []
    assert left(tmp_path / "data" / "imaging" / "staging") == []


def test_what_a_note_rejects_is_in_no_manifest(all_pacs: dict[str, Pacs], slices: list[Path], tmp_path: Path) -> None:
    """The note is stored here, what it is of is the archive's."""
    config = configured(tmp_path, patients="open")
    config = replace(config, imaging=replace(config.imaging, archive_dimse=all_pacs["orthanc"].key))
    with serving(config) as domain:
        patient = {"patient_id": "p7^^^&1.2.3.4&ISO", "source_patient_id": "MRN7^^^&1.2.3.11&ISO"}
        publisher, instances = domain.parts["publisher"], domain.parts["instances"]
        assert [one.instances for one in publisher.publish(STUDY, **patient)] == [40]
        instances.add_bytes(rejection_note([pydicom.dcmread(path) for path in slices[:2]]))
        assert [one.instances for one in publisher.publish(STUDY, **patient)] == [38]


def test_an_archive_that_is_killed_is_an_error(slices: list[Path], tmp_path: Path) -> None:
    """What has come until then is good."""
    ((study, series), of_series) = next(iter(by_series(slices).items()))
    with dcmqrscp(slices) as pacs, ThreadPoolExecutor(1) as executor:
        assert pacs.process is not None
        archive = dimse_archive(pacs, tmp_path)
        first, second = list(of_series)[: archive.batch], list(of_series)[archive.batch :]
        fetching = Fetching(archive, executor, Kept(0), [(study, series, uid) for uid in first])
        assert all(fetching.begin((study, series, uid))() is not None for uid in first)
        pacs.process.kill()
        pacs.process.wait()
        later = Fetching(archive, executor, Kept(0), [(study, series, uid) for uid in second])
        with pytest.raises(ArchiveError, match=r"QRSCP@127.0.0.1:\d+: no association could be made"):
            later.begin((study, series, second[0]))()
        with pytest.raises(ArchiveError, match="no association could be made"):
            archive.of_study(study)
