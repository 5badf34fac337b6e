"""DICOM JSON (PS3.18 Annex F), against pydicom's own and on what no modality should write."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from imaging import dicom_json
from imaging.pixels.frames import DEFER_BYTES

NAMES = (
    *("CT_small.dcm", "MR_small.dcm", "test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "JPEG2000.dcm"),
    *("waveform_ecg.dcm", "examples_palette.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"),
)


def plain(value: object) -> object:
    """Without what may be written in several ways: padding, 1 and 1.0, empty values."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if one not in ("", [], None)}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return value.rstrip(" \0") or None
    return float(value) if isinstance(value, int | float) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_encoded_as_another_encoder_does(name: str) -> None:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    dataset = pydicom.dcmread(path)
    expected = dataset.to_json_dict(dicom_json.INLINE_BYTES, lambda element: "uri", suppress_invalid_tags=True)
    encoded = dicom_json.encode(pydicom.dcmread(Path(path), defer_size=DEFER_BYTES), lambda place: "uri")
    for one in (expected, encoded):
        one.pop("00080005", None)
        for tag in [tag for tag in one if tag.endswith("0000")]:
            del one[tag]
    assert plain(encoded) == plain(expected)
    assert json.loads(json.dumps(encoded, allow_nan=False)) == encoded


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("DS", b"1.50", [1.5]),
        ("DS", b"abc ", ["abc"]),
        ("DS", b"1\\\\3", [1.0, None, 3.0]),
        ("DS", b"1e999", ["1e999"]),
        ("IS", b"12", [12]),
        ("IS", b"1.5", ["1.5"]),
        ("FD", b"\0\0\0\0\0\0\xf8\x7f", ["nan"]),
        ("AT", b"\x10\x00\x20\x00", ["00100020"]),
        ("PN", b"A^B==C", [{"Alphabetic": "A^B", "Phonetic": "C"}]),
        ("DA", b"not a date", ["not a date"]),
        ("US", b"\1\0\2\0", [1, 2]),
    ],
)
def test_a_value_that_is_none_is_text_or_nothing(vr: str, content: bytes, expected: list[object]) -> None:
    dataset = Dataset()
    dataset[Tag(0x00110010)] = pydicom.dataelem.RawDataElement(
        Tag(0x00110010), vr, len(content), content, 0, False, True, True
    )
    encoded = dicom_json.encode(dataset)["00110010"]
    assert json.loads(json.dumps(encoded, allow_nan=False)) == {"vr": vr, "Value": expected}


def test_sequences_end_at_a_depth() -> None:
    dataset = Dataset()
    for _ in range(200):
        outer = Dataset()
        outer.ContentSequence = [dataset]
        dataset = outer
    assert json.dumps(dicom_json.encode(dataset)).count("0040A730") == 17


def test_large_values_are_left_out_where_there_is_no_place_for_them() -> None:
    dataset = Dataset()
    dataset.EncapsulatedDocument = bytes(dicom_json.INLINE_BYTES + 2)
    assert "00420011" not in dicom_json.encode(dataset)
    dataset.EncapsulatedDocument = b"abcd"
    assert dicom_json.encode(dataset)["00420011"] == {"vr": "OB", "InlineBinary": "YWJjZA=="}
