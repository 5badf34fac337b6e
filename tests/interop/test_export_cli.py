"""Stored studies in other formats, as a user asks for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import pytest

from imaging.phantom import write_series
from server.demo import real_objects

STUDY, SERIES = "1.2.840.99.1", "1.2.840.99.1.1"


def run(directory: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "COLUMNS": "200",
        "XDSI__SERVER__DIRECTORY": str(directory / "data"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def loaded(tmp_path: Path) -> Path:
    (tmp_path / "ct").mkdir()
    write_series(
        tmp_path / "ct",
        slices=5,
        rows=64,
        columns=64,
        patient_id="P7",
        patient_name="Muster^Anna",
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
    )
    run(tmp_path, "load", "ct")
    return tmp_path


def test_a_series_becomes_a_volume(loaded: Path) -> None:
    found = json.loads(run(loaded, "export", STUDY, "--nifti", "--out", "volumes", "--json").stdout)
    assert found["failed"] == []
    assert [one["of"] for one in found["files"]] == [SERIES, SERIES]
    image = nibabel.load(loaded / "volumes" / f"{SERIES}.nii.gz")
    assert image.shape == (64, 64, 5)


def test_a_study_becomes_an_imaging_study(loaded: Path) -> None:
    run(loaded, "export", STUDY, "--fhir", "R5", "--out", "fhir")
    made = json.loads((loaded / "fhir" / f"{STUDY}.json").read_text())
    assert (made["resourceType"], made["numberOfInstances"]) == ("ImagingStudy", 5)


def test_what_is_no_volume_is_told_with_the_reason(tmp_path: Path) -> None:
    folder = real_objects()[0][-1]
    report = json.loads(run(tmp_path, "load", str(folder), "--json").stdout)
    for study in report["studies"]:
        found = json.loads(run(tmp_path, "export", study, "--nifti", "--json", status=1).stdout)
        assert all("has no pixels" in one or "is a mosaic" in one for one in found["failed"]), found


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((STUDY,), "nothing to do"), (("1.2.3", "--nifti"), "no instance of study 1.2.3 is stored")],
)
def test_what_can_not_be_done_is_told_in_a_line(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = run(tmp_path, "export", *arguments, status=1)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
