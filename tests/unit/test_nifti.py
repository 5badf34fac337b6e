"""NIfTI volumes beside an independent conversion with pydicom and nibabel: each voxel at its place, with its value."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid

from imaging import schema
from imaging.instances import Instance, Instances
from imaging.nifti import NiftiError, export
from imaging.pixels.bounded import Bounds
from imaging.pixels.recoding import Recoder
from imaging.pixels.transfer import Transfer
from tests.unit.test_transcode import file

Array = NDArray[np.float64]
AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)
OBLIQUE = (0.866025404, 0.5, 0, -0.433012702, 0.75, 0.5)


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    engine = schema.connect(f"sqlite:///{tmp_path / 'imaging.sqlite'}")
    schema.upgrade(engine)
    made = Instances(engine, tmp_path / "instances")
    yield made
    made.close()


@pytest.fixture
def transfer(instances: Instances) -> Iterator[Transfer]:
    recoder = Recoder(processes=1)
    yield Transfer(recoder, instances.staging)
    recoder.close()


def dataset(sop_class: UID) -> Dataset:
    """An MR image without pixels."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = sop_class
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.Modality, made.PatientName, made.PatientID = "MR", "Zwetschgenberger^Anna", "SECRET-17"
    made.StudyInstanceUID, made.StudyDate, made.StudyTime, made.Manufacturer = "1.2.3", "20260101", "120000", "xdsi"
    made.ImageType, made.PatientPosition = ["ORIGINAL", "PRIMARY", "M"], "HFS"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.BitsAllocated = 1, "MONOCHROME2", 16
    made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 15, 1
    return made


def slices(
    orientation: Sequence[float],
    *,
    count: int = 7,
    gap: float = 2.5,
    spacing: tuple[float, float] = (1.25, 0.75),
    rescale: tuple[float, float] | None = None,
    times: int = 1,
) -> list[Dataset]:
    """A series of slices with pixels of their own, in a random order."""
    random = np.random.default_rng(17)
    normal = np.cross(orientation[:3], orientation[3:])
    made = []
    for time in range(times):
        for number in range(count):
            one = dataset(MRImageStorage)
            one.SeriesInstanceUID, one.FrameOfReferenceUID, one.SeriesNumber = "1.2.3.4", "1.2.3.5", 3
            one.Rows, one.Columns = 12, 10
            one.PixelSpacing, one.SliceThickness, one.SpacingBetweenSlices = list(spacing), 2, gap
            one.ImageOrientationPatient = list(orientation)
            one.ImagePositionPatient = [float(v) for v in np.array([-31.0, 22.0, 13.0]) + normal * gap * number]
            one.InstanceNumber = time * count + number + 1
            one.AcquisitionNumber = one.TemporalPositionIdentifier = time + 1
            one.NumberOfTemporalPositions, one.RepetitionTime, one.EchoTime = times, 2000, 30
            one.AcquisitionTime = f"1200{2 * time:02}"
            if rescale is not None:
                one.RescaleSlope, one.RescaleIntercept = rescale
            one.PixelData = random.integers(-900, 3000, (12, 10), dtype=np.int16).tobytes()
            made.append(one)
    random.shuffle(made)  # type: ignore[arg-type]
    return made


def enhanced(orientation: Sequence[float]) -> Dataset:
    """The same as one multi-frame object."""
    frames = sorted(slices(orientation), key=lambda one: int(one.InstanceNumber))
    made = dataset(EnhancedMRImageStorage)
    made.SeriesInstanceUID, made.FrameOfReferenceUID, made.SeriesNumber, made.InstanceNumber = (
        "1.2.3.4",
        "1.2.3.5",
        3,
        1,
    )
    made.Rows, made.Columns, made.NumberOfFrames = 12, 10, len(frames)
    shared = Dataset()
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [1.25, 0.75], 2, 2.5
    plane.ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, frame in enumerate(frames, 1):
        group, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = frame.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [1, number]
        group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    made.PixelData = b"".join(frame.PixelData for frame in frames)
    return made


def stored(instances: Instances, datasets: Sequence[Dataset]) -> list[Instance]:
    added = []
    for one in datasets:
        buffer = io.BytesIO()
        one.save_as(buffer, enforce_file_format=True)
        added.append(instances.add_bytes(buffer.getvalue())[0])
    return added


def reference(datasets: Sequence[Dataset]) -> tuple[Array, Array]:
    """Values by voxel (column, row, slice), and the affine to RAS: as PS3.3 C.7.6.2.1.1 has it, with another sign of x and y."""
    normal = np.cross(datasets[0].ImageOrientationPatient[:3], datasets[0].ImageOrientationPatient[3:])
    ordered = sorted(datasets, key=lambda one: float(np.dot(one.ImagePositionPatient, normal)))
    first, last = (np.array(one.ImagePositionPatient, float) for one in (ordered[0], ordered[-1]))
    rows, columns = datasets[0].PixelSpacing
    affine = np.eye(4)
    affine[:3, 0] = np.array(datasets[0].ImageOrientationPatient[:3], float) * columns
    affine[:3, 1] = np.array(datasets[0].ImageOrientationPatient[3:], float) * rows
    affine[:3, 2] = (last - first) / (len(ordered) - 1)
    affine[:3, 3] = first
    values = np.stack([one.pixel_array.T.astype(float) for one in ordered], axis=-1)
    slope, intercept = (float(datasets[0].get(name, d)) for name, d in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    return values * slope + intercept, np.diag([-1.0, -1, 1, 1]) @ affine


def assert_same(image: nibabel.Nifti1Image, values: Array, affine: Array) -> None:
    """Each voxel of the image is one of the reference, at the same place in the patient, with the same value."""
    found = np.asarray(image.get_fdata(dtype=np.float64))
    assert found.size == values.size
    index = np.indices(found.shape).reshape(3, -1)
    places = image.affine @ np.vstack([index, np.ones(index.shape[1])])
    wanted = np.linalg.inv(affine) @ places
    rounded = np.rint(wanted[:3]).astype(int)
    assert np.abs(wanted[:3] - rounded).max() < 1e-3
    assert np.allclose(found[tuple(index)], values[tuple(rounded)], rtol=1e-6, atol=1e-3)


def volumes(files: Sequence[Path]) -> list[nibabel.Nifti1Image]:
    return [nibabel.load(one) for one in files if one.name.endswith(".nii.gz")]


@pytest.mark.parametrize("rescale", [None, (2.0, -1024.0), (0.5, 3.25)])
@pytest.mark.parametrize(
    "orientation", [AXIAL, SAGITTAL, CORONAL, OBLIQUE], ids=["axial", "sagittal", "coronal", "oblique"]
)
def test_each_voxel_is_at_its_place_with_its_value(
    orientation: Sequence[float],
    rescale: tuple[float, float] | None,
    instances: Instances,
    transfer: Transfer,
    tmp_path: Path,
) -> None:
    made = slices(orientation, rescale=rescale)
    (image,) = volumes(export(stored(instances, made), tmp_path, given=transfer.given))
    assert_same(image, *reference(made))
    assert image.header.get_xyzt_units() == ("mm", "sec")


def test_a_multi_frame_object_is_a_volume(instances: Instances, transfer: Transfer, tmp_path: Path) -> None:
    (image,) = volumes(export(stored(instances, [enhanced(OBLIQUE)]), tmp_path, given=transfer.given))
    assert_same(image, *reference(slices(OBLIQUE)))


def test_slices_at_the_same_places_are_a_fourth_dimension(
    instances: Instances, transfer: Transfer, tmp_path: Path
) -> None:
    made = slices(AXIAL, times=3)
    (image,) = volumes(export(stored(instances, made), tmp_path, given=transfer.given))
    assert image.shape[3] == 3
    for time in range(3):
        of_time = [one for one in made if one.TemporalPositionIdentifier == time + 1]
        assert_same(image.slicer[..., time], *reference(of_time))
    assert image.header.get_zooms()[3] == pytest.approx(2.0), "RepetitionTime in seconds"


def test_a_compressed_series_is_converted_too(instances: Instances, transfer: Transfer, tmp_path: Path) -> None:
    made = slices(CORONAL)
    wanted = reference(made)
    for one in made:
        one.compress(RLELossless, generate_instance_uid=False)
    (image,) = volumes(export(stored(instances, made), tmp_path, given=transfer.given))
    assert_same(image, *wanted)


def test_nothing_that_is_written_names_the_patient(instances: Instances, transfer: Transfer, tmp_path: Path) -> None:
    made = slices(AXIAL)
    for one in made:
        one.ImageComments = "Anna Zwetschgenberger came late"
    files = export(stored(instances, made), tmp_path, given=transfer.given)
    assert {"".join(one.suffixes[-2:]) for one in files if ".nii" in one.name} == {".nii.gz"}
    for one in files:
        content = bytes(nibabel.load(one).header.binaryblock) if one.name.endswith(".nii.gz") else one.read_bytes()
        assert b"Zwetschgenberger" not in content and b"SECRET-17" not in content
    (sidecar,) = [one for one in files if one.suffix == ".json"]
    assert json.loads(sidecar.read_text())["Modality"] == "MR"


def test_the_files_are_named_and_nothing_else_is_left(instances: Instances, transfer: Transfer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    files = export(stored(instances, slices(AXIAL)), out, given=transfer.given, name="brain")
    assert sorted(out.iterdir()) == sorted(files)
    assert {one.name for one in files} == {"brain.nii.gz", "brain.json"}


def mosaic() -> list[Dataset]:
    made = slices(AXIAL, count=1)
    made[0].ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    return made


def of_two_directions() -> list[Dataset]:
    made = slices(AXIAL)
    made[3].ImageOrientationPatient = list(CORONAL)
    return made


def without_place() -> list[Dataset]:
    made = slices(AXIAL)
    del made[0].ImagePositionPatient
    return made


def report() -> list[Dataset]:
    return [pydicom.dcmread(file("reportsi.dcm"))]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (mosaic, "is a mosaic"),
        (of_two_directions, "slices of several orientations"),
        (without_place, "its place is not known"),
        (report, "has no pixels"),
        (list, "there is no such series"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_reason(
    made: type[list[Dataset]], reason: str, instances: Instances, transfer: Transfer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NiftiError, match=reason):
        export(stored(instances, made()), out, given=transfer.given)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("bounds", [Bounds(memory_bytes=16 * 1024**2), Bounds(file_bytes=100)])
def test_a_conversion_that_exceeds_its_bounds_is_refused(
    bounds: Bounds, instances: Instances, transfer: Transfer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NiftiError, match="dcm2niix"):
        export(stored(instances, slices(AXIAL)), out, given=transfer.given, bounds=bounds)
    assert list(out.iterdir()) == []
