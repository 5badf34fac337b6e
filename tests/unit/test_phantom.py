"""Synthetic CT studies: deterministic, coherent and valid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from imaging.phantom import ct_series, write_series

DCIODVFY = Path(sys.executable).parent / "dciodvfy"


def series(slices: int = 5, **changes: Any) -> list[Dataset]:
    patient: dict[str, Any] = {"patient_id": "P1", "patient_name": "Phantom^Test", "rows": 64, "columns": 64}
    return list(ct_series(slices=slices, **{**patient, **changes}))


def test_equal_arguments_give_equal_objects() -> None:
    uids: dict[str, Any] = {"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.1"}
    assert series(seed=7, **uids) == series(seed=7, **uids)


def test_another_seed_gives_another_patient() -> None:
    assert series(seed=1)[2].PixelData != series(seed=2)[2].PixelData


def test_a_study_without_given_uids_is_a_new_one_each_time() -> None:
    first, second = series(slices=1)[0], series(slices=1)[0]
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.PixelData == second.PixelData


def test_two_series_can_be_of_one_study() -> None:
    first, second = (series(slices=1, study_instance_uid="1.2.3", series_number=n)[0] for n in (1, 2))
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_slices_lie_one_after_another_at_the_thickness_that_they_state() -> None:
    """PS3.3 C.7.6.2: position, orientation and spacing make one volume."""
    slices = series(slices=9)
    heights = [float(each.ImagePositionPatient[2]) for each in slices]
    assert np.allclose(np.diff(heights), -float(slices[0].SliceThickness), atol=1e-3)
    assert len({each.FrameOfReferenceUID for each in slices}) == 1
    assert len({each.SOPInstanceUID for each in slices}) == 9
    centre = float(slices[0].ImagePositionPatient[0]) + 31.5 * float(slices[0].PixelSpacing[0])
    assert centre == pytest.approx(0, abs=1e-3)


def test_there_is_a_body_with_air_around_lungs_in_and_bones_of_it() -> None:
    slices = series(slices=60, rows=128, columns=128)
    volume = np.stack([each.pixel_array.astype(int) + int(each.RescaleIntercept) for each in slices])
    assert np.median(volume[:, -4:, -4:]) == pytest.approx(-1000, abs=30)
    assert np.count_nonzero((volume > -900) & (volume < -800)) > 0.01 * volume.size
    assert np.count_nonzero((volume > 0) & (volume < 100)) > 0.1 * volume.size
    assert np.count_nonzero(volume > 400) > 0.002 * volume.size


def test_the_number_of_the_slice_is_burnt_into_each() -> None:
    one, two = series(slices=2, rows=128, columns=128, study_instance_uid="1.2.3")
    corners = [each.pixel_array[:8, :32] > 2400 for each in (one, two)]
    assert corners[0].sum() > 20
    assert not np.array_equal(corners[0], corners[1])


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 slices"):
        series(slices=0)


def test_every_slice_written_is_valid_for_dciodvfy(tmp_path: Path) -> None:
    """PS3.3 A.3: CT Image IOD, checked by dicom3tools."""
    paths = write_series(tmp_path, slices=3, patient_id="P1", patient_name="Müster^Eva", accession_number="A1")
    assert [pydicom.dcmread(path).InstanceNumber for path in paths] == [1, 2, 3]
    for path in paths:
        report = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
        assert report.returncode == 0, report.stderr
        assert "Error" not in report.stderr
