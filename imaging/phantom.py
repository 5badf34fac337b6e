"""Synthetic CT studies of any size: a body that one recognises, in coherent geometry, of a patient who does not exist."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

_FIELD_MM = 500.0  # width of the picture; its height follows from rows and columns
_TOP_MM, _BOTTOM_MM = 450.0, -450.0  # crown and thighs
_INTERCEPT = -1024
_AIR, _TEXT = -1000, 1500


@dataclass(frozen=True, slots=True)
class _Organ:
    """|x/a|² + |y/b|² + |z/c|^flatness < 1, in mm: x to the patient's left, y to the back, z to the head.

    `period` in mm repeats it along z: only the first half of each period is painted (vertebrae, ribs).
    """

    hounsfield: int
    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    flatness: int = 2
    period: float = 0.0


# Painted in this order, each over the ones before it.
_BODY = (
    _Organ(-300, (0, 155, 0), (220, 10, 600), 8),  # the table
    _Organ(-100, (0, 0, -110), (190, 125, 330), 8),  # trunk: fat, and muscle in it
    _Organ(-100, (0, 10, 175), (225, 105, 65), 4),  # shoulders
    _Organ(45, (0, 0, -110), (172, 108, 325), 8),
    _Organ(45, (0, 10, 175), (210, 90, 58), 4),
    _Organ(45, (0, 5, 250), (58, 62, 90), 8),  # neck
    _Organ(40, (0, -10, 350), (82, 100, 98), 3),  # head
    _Organ(900, (0, -8, 355), (76, 94, 90), 3),  # skull
    _Organ(35, (0, -8, 358), (69, 87, 82), 3),  # brain
    _Organ(5, (-14, -8, 372), (7, 34, 20)),  # ventricles
    _Organ(5, (14, -8, 372), (7, 34, 20)),
    _Organ(10, (-34, -90, 325), (15, 15, 15)),  # eyes
    _Organ(10, (34, -90, 325), (15, 15, 15)),
    _Organ(-900, (0, -78, 292), (18, 26, 22)),  # nose and pharynx
    _Organ(-1000, (0, -22, 215), (9, 9, 85), 8),  # trachea
    _Organ(700, (-75, -40, 185), (75, 9, 9), 4),  # clavicles
    _Organ(700, (75, -40, 185), (75, 9, 9), 4),
    _Organ(600, (-170, 20, 165), (26, 26, 30)),  # humerus
    _Organ(600, (170, 20, 165), (26, 26, 30)),
    _Organ(500, (0, 0, 45), (152, 98, 135), 4, 26.0),  # ribs, and what they enclose
    _Organ(45, (0, 0, 45), (143, 89, 135), 4),
    _Organ(-850, (-75, 5, 65), (62, 80, 118), 3),  # lungs
    _Organ(-850, (75, 5, 65), (62, 80, 118), 3),
    _Organ(60, (18, -22, 35), (58, 52, 58)),  # heart
    _Organ(160, (25, -20, 32), (24, 24, 30)),
    _Organ(160, (14, 48, -40), (12, 12, 200), 8),  # aorta
    _Organ(65, (-62, -8, -75), (88, 82, 65)),  # liver
    _Organ(15, (-38, -70, -100), (16, 16, 24)),  # gall bladder
    _Organ(-900, (62, -52, -75), (40, 26, 32)),  # stomach
    _Organ(55, (112, 42, -78), (28, 34, 40)),  # spleen
    _Organ(150, (-66, 56, -135), (27, 24, 50)),  # kidneys
    _Organ(150, (66, 56, -135), (27, 24, 50)),
    _Organ(20, (-66, 56, -135), (9, 9, 26)),
    _Organ(20, (66, 56, -135), (9, 9, 26)),
    _Organ(-700, (-110, -30, -190), (22, 22, 75), 4, 34.0),  # colon
    _Organ(-700, (110, -30, -190), (22, 22, 75), 4, 34.0),
    _Organ(650, (-105, 35, -265), (34, 62, 60)),  # pelvis
    _Organ(650, (105, 35, -265), (34, 62, 60)),
    _Organ(45, (-100, 20, -262), (25, 55, 54)),
    _Organ(45, (100, 20, -262), (25, 55, 54)),
    _Organ(10, (0, -35, -320), (48, 40, 38)),  # bladder
    _Organ(800, (-105, 10, -345), (26, 26, 28)),  # femurs
    _Organ(800, (105, 10, -345), (26, 26, 28)),
    _Organ(800, (-112, 10, -420), (17, 17, 70), 8),
    _Organ(800, (112, 10, -420), (17, 17, 70), 8),
    _Organ(80, (0, 80, -50), (24, 22, 340), 8),  # spine: discs, vertebrae, processes, canal
    _Organ(450, (0, 78, -50), (26, 22, 340), 8, 36.0),
    _Organ(450, (0, 112, -50), (7, 20, 340), 8, 36.0),
    _Organ(20, (0, 106, -50), (9, 8, 345), 8),
)

# What is the same in every slice of every study.
_SAME: dict[str, object] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPClassUID": CTImageStorage,
    "Modality": "CT",
    "Manufacturer": "xdsi",
    "ManufacturerModelName": "Phantom",
    "ReferringPhysicianName": "",
    "SeriesDescription": "Axial",
    "BodyPartExamined": "WHOLEBODY",
    "KVP": "120",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "AcquisitionNumber": "1",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "BurnedInAnnotation": "NO",  # none that would identify the patient (PS3.3 C.7.6.1)
    "WindowCenter": "40",
    "WindowWidth": "400",
    "RescaleIntercept": str(_INTERCEPT),
    "RescaleSlope": "1",
    "RescaleType": "HU",
}

_DIGITS = {
    "0": "111101101101111",
    "1": "010110010010111",
    "2": "111001111100111",
    "3": "111001111001111",
    "4": "101101111001001",
    "5": "111100111001111",
    "6": "111100111101111",
    "7": "111001010010010",
    "8": "111101111101111",
    "9": "111101111001111",
    "/": "001001010100100",
}


class _Study(TypedDict, total=False):
    slices: int
    rows: int
    columns: int
    patient_id: Required[str]
    patient_name: Required[str]
    patient_birth_date: str
    patient_sex: str
    issuer_of_patient_id: str
    accession_number: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    study_date: str
    study_time: str
    study_description: str
    series_number: int
    seed: int


def write_series(directory: Path, **study: Unpack[_Study]) -> list[Path]:
    """Write the series of `ct_series`, which takes the same arguments, one Part-10 file for each slice; crown first."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(ct_series(**study), start=1):
        paths.append(directory / f"IM{number:05}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def ct_series(
    *,
    slices: int = 500,
    rows: int = 512,
    columns: int = 512,
    patient_id: str,
    patient_name: str,
    patient_birth_date: str = "19700101",
    patient_sex: str = "O",
    issuer_of_patient_id: str = "",
    accession_number: str = "",
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    study_date: str = "20260201",
    study_time: str = "091500",
    study_description: str = "CT Phantom",
    series_number: int = 1,
    seed: int = 0,
) -> Iterator[Dataset]:
    """One axial series from the crown to the thighs, whatever the number of slices, slice by slice, as CT Image Storage.

    Equal arguments give equal objects if both UIDs are given (the others follow from them); otherwise the study or the
    series is new. `seed` changes the patient a little: noise, size, and where the nodule in the lung is. The number of
    the slice is burnt in at the upper left. Dates and times are DICOM's.
    """
    if not (1 <= slices <= 99_999 and 16 <= rows <= 65_535 and 16 <= columns <= 65_535):
        raise ValueError(f"{slices} slices of {rows} x {columns} pixels: 1 to 99,999 of 16 to 65,535 can be made")
    study_uid = study_instance_uid or _uid(str(uuid.uuid4()))
    series_uid = series_instance_uid or _uid(str(uuid.uuid4()))
    spacing_mm = _FIELD_MM / columns
    step_mm = (_TOP_MM - _BOTTOM_MM) / slices
    first = np.array([-(columns - 1) / 2 * spacing_mm, -(rows - 1) / 2 * spacing_mm, _TOP_MM - step_mm / 2])
    picture = _picture(rows, columns, spacing_mm, np.random.default_rng(seed))
    study: dict[str, object] = {
        **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), study_date),
        **dict.fromkeys(("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"), study_time),
        **({"IssuerOfPatientID": issuer_of_patient_id} if issuer_of_patient_id else {}),
        "AccessionNumber": accession_number,
        "StudyDescription": study_description,
        "PatientName": patient_name,
        "PatientID": patient_id,
        "PatientBirthDate": patient_birth_date,
        "PatientSex": patient_sex,
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": series_uid,
        "SeriesNumber": str(series_number),
        "FrameOfReferenceUID": _uid(f"{study_uid}/frame of reference"),
        "SliceThickness": f"{step_mm:.6g}",
        "PixelSpacing": [f"{spacing_mm:.8g}"] * 2,
        "Rows": rows,
        "Columns": columns,
    }
    for index in range(slices):
        number = str(index + 1)
        position = first - (0, 0, index * step_mm)
        pixels = picture(float(position[2]))
        _burn_in(pixels, f"{number}/{slices}")
        yield _dataset(
            {
                **_SAME,
                **study,
                "SOPInstanceUID": _uid(f"{series_uid}/{number}"),
                "InstanceNumber": number,
                "ImagePositionPatient": [f"{value:.8g}" for value in position],
                "SliceLocation": f"{position[2]:.8g}",
                "PixelData": (pixels - _INTERCEPT).astype("<u2").tobytes(),
            }
        )


def _dataset(attributes: dict[str, object]) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _uid(name: str) -> str:
    """The UID of a name, always the same one (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def _picture(
    rows: int, columns: int, spacing_mm: float, random: np.random.Generator
) -> Callable[[float], NDArray[np.int16]]:
    """A function of z in mm, giving one slice as Hounsfield units of shape (rows, columns)."""
    size = random.uniform(0.94, 1.06)
    side = random.choice([-75.0, 75.0])
    nodule = _Organ(60, (side, random.uniform(-30, 40), random.uniform(20, 110)), (9, 9, 9))
    x = ((np.arange(columns) - (columns - 1) / 2) * spacing_mm / size).astype(np.float32)
    y = ((np.arange(rows) - (rows - 1) / 2) * spacing_mm / size).astype(np.float32)
    # One sheet of noise, shifted for each slice: drawing a new one takes as long as all the rest.
    noise = random.normal(0, 8, (rows, columns)).astype(np.int16)
    shapes = []
    for organ in (*_BODY, nodule):
        across = ((x - organ.centre[0]) / organ.axes[0]) ** 2
        down = ((y - organ.centre[1]) / organ.axes[1]) ** 2
        box = (_extent(down < 1), _extent(across < 1))
        shapes.append((organ, box, down[box[0], None] + across[None, box[1]]))

    def slice_at(z: float) -> NDArray[np.int16]:
        pixels = np.full((rows, columns), _AIR, np.int16)
        for organ, box, distance in shapes:
            along = z - organ.centre[2]
            if organ.period and along % organ.period > organ.period / 2:
                continue
            rest = 1 - abs(along / organ.axes[2]) ** organ.flatness
            if rest > 0:
                pixels[box][distance < rest] = organ.hounsfield
        pixels += np.roll(noise, (int(z * 7) % rows, int(z * 13) % columns), (0, 1))
        return np.clip(pixels, _INTERCEPT, _INTERCEPT + 4095)

    return slice_at


def _extent(inside: NDArray[np.bool_]) -> slice:
    """From the first to the last that is inside."""
    where = np.flatnonzero(inside)
    return slice(where[0], where[-1] + 1) if where.size else slice(0, 0)


def _burn_in(pixels: NDArray[np.int16], text: str) -> None:
    """Paint digits of 3 x 5 cells into the upper left corner, as far as there is room."""
    cell = max(1, pixels.shape[0] // 128)
    for place, character in enumerate(text):
        digit = np.array([bit == "1" for bit in _DIGITS[character]]).reshape(5, 3)
        shape = digit.repeat(cell, axis=0).repeat(cell, axis=1)
        area = pixels[2 * cell : 7 * cell, (2 + 4 * place) * cell : (5 + 4 * place) * cell]
        area[shape[: area.shape[0], : area.shape[1]]] = _TEXT
