"""Contact sheets show what can be shown and say what can not."""

from __future__ import annotations

import importlib.util
import io
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from imaging.phantom import ct_series
from imaging.pixels.contact_sheet import contact_sheet

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
SPEC = importlib.util.find_spec("heudiconv")
CAPTION_PX, GAP_PX, TILE_PX = 24, 2, 64
LABEL_GREY = (40, 44, 52)


def part10(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def image(pixels: np.ndarray, **attributes: object) -> bytes:
    """A small Secondary Capture of these 8-bit pixels."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.Modality = "OT"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels.astype(np.uint8).tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    return part10(dataset)


def sheet(*instances: bytes | Path, **options: int) -> Image.Image:
    options = {"tile_px": TILE_PX, **options}
    return Image.open(io.BytesIO(contact_sheet(instances, **options))).convert("RGB")


def tile(picture: Image.Image, column: int = 0, row: int = 0) -> np.ndarray:
    left, top = GAP_PX + column * (TILE_PX + GAP_PX), CAPTION_PX + row * (TILE_PX + GAP_PX)
    return np.asarray(picture.crop((left, top, left + TILE_PX, top + TILE_PX)))


def is_label(pixels: np.ndarray) -> bool:
    return tuple(int(value) for value in pixels[1, 1]) == LABEL_GREY


RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))


def test_there_are_as_many_tiles_as_asked_for_spread_over_all_instances() -> None:
    slices = [image(np.full((8, 8), value), WindowCenter="128", WindowWidth="256") for value in range(0, 250, 10)]
    picture = sheet(*slices, max_tiles=4, columns=4)
    assert picture.size == (4 * (TILE_PX + GAP_PX) + GAP_PX, CAPTION_PX + TILE_PX + 2 * GAP_PX)
    shown = [int(tile(picture, column)[32, 32, 0]) for column in range(4)]
    assert shown == pytest.approx([0, 80, 160, 240], abs=2)


def test_the_window_of_the_header_is_applied_after_rescaling() -> None:
    """PS3.3 C.11.2.1.2: value 100 rescales to 0, the centre of the window."""
    window = {"RescaleSlope": "2", "RescaleIntercept": "-200", "WindowCenter": ["0", "40"], "WindowWidth": ["200", "4"]}
    pixels = tile(sheet(image(RAMP, **window)))
    assert pixels[32, 25, 0] == pytest.approx(128, abs=3)
    assert pixels[32, 10, 0] == 0
    assert pixels[32, 40, 0] == 255


def test_without_a_window_most_of_the_values_are_seen() -> None:
    pixels = tile(sheet(image(RAMP // 8)))
    assert pixels.min() < 10
    assert pixels.max() > 245


def test_the_lowest_value_of_monochrome1_is_white() -> None:
    """PS3.3 C.7.6.3.1.2."""
    pixels = tile(sheet(image(RAMP, PhotometricInterpretation="MONOCHROME1")))
    assert pixels[32, 1, 0] > 245
    assert pixels[32, 62, 0] < 10


def test_a_picture_of_one_value_is_shown() -> None:
    assert not is_label(tile(sheet(image(np.full((8, 8), 9)))))


def test_a_picture_keeps_its_proportions() -> None:
    pixels = tile(sheet(image(RAMP[:8], WindowCenter="1", WindowWidth="1")))
    assert pixels[2].max() == 0
    assert pixels[32].max() == 255


@pytest.mark.parametrize("name", ["SC_rgb_small_odd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm"])
def test_colour_stays_colour(name: str) -> None:
    pixels = tile(sheet(BUNDLED / name)).astype(int)
    assert np.abs(pixels[..., 0] - pixels[..., 2]).max() > 100


def test_palette_colour_is_looked_up() -> None:
    pixels = tile(sheet(BUNDLED / "examples_palette.dcm")).astype(int)
    assert np.abs(pixels[..., 0] - pixels[..., 2]).max() > 60


def test_the_frames_of_a_multi_frame_image_are_spread_over_the_tiles() -> None:
    frames = np.stack([np.full((8, 8), value) for value in range(0, 250, 10)])
    content = image(
        frames[0],
        NumberOfFrames="25",
        PixelData=frames.astype(np.uint8).tobytes(),
        WindowCenter="128",
        WindowWidth="256",
    )
    picture = sheet(content, max_tiles=4, columns=4)
    assert [int(tile(picture, column)[32, 32, 0]) for column in range(4)] == pytest.approx([0, 80, 160, 240], abs=2)


def test_an_object_without_pixels_is_a_tile_with_the_name_of_its_class() -> None:
    pixels = tile(sheet(BUNDLED / "rtplan.dcm"))
    assert is_label(pixels)
    assert pixels.max() > 180


def test_a_picture_of_too_many_pixels_is_a_label() -> None:
    assert is_label(tile(sheet(image(RAMP), max_pixels=64 * 64 - 1)))
    assert not is_label(tile(sheet(image(RAMP), max_pixels=64 * 64)))


def test_a_file_that_inflates_without_end_is_a_label() -> None:
    """PS3.5 A.5: what deflates to little may be much."""
    header = image(RAMP)
    deflater = zlib.compressobj(wbits=-15)
    body = deflater.compress(bytes(20_000_000)) + deflater.flush()
    start = header.index(b"\x08\x00\x16\x00")
    meta = header[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    assert len(meta + body) < 100_000
    assert is_label(tile(sheet(meta + body, max_bytes=100_000)))


@pytest.mark.parametrize("content", [b"", b"not DICOM", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\xff" * 500])
def test_what_is_not_readable_is_a_label_and_the_others_are_shown(content: bytes) -> None:
    picture = sheet(content, image(RAMP), columns=2)
    assert is_label(tile(picture, 0))
    assert not is_label(tile(picture, 1))


def test_pixel_data_cut_short_is_a_label() -> None:
    assert is_label(tile(sheet(image(RAMP)[:-100])))
    assert is_label(tile(sheet(image(RAMP, PixelData=b"12345678"))))


def test_nothing_gives_an_empty_sheet() -> None:
    assert sheet().size[0] > 0


def test_files_paths_and_bytes_are_shown_alike(tmp_path: Path) -> None:
    content = image(RAMP)
    (tmp_path / "image.dcm").write_bytes(content)
    assert contact_sheet([content]) == contact_sheet([tmp_path / "image.dcm"]) == contact_sheet([io.BytesIO(content)])


def test_tiles_of_no_size_are_refused() -> None:
    with pytest.raises(ValueError, match="tile_px=0"):
        contact_sheet([], tile_px=0)


def test_a_body_is_seen_in_the_sheet_of_a_phantom() -> None:
    slices = [part10(s) for s in ct_series(slices=9, rows=64, columns=64, patient_id="P", patient_name="P")]
    picture = sheet(*slices, columns=3)
    assert all(tile(picture, n % 3, n // 3)[16:48, 16:48].mean() > 25 for n in range(1, 8))


@pytest.mark.skipif(SPEC is None, reason="heudiconv, whose test data are real Siemens images, is not installed")
def test_siemens_mosaics_are_shown_as_they_are() -> None:
    assert SPEC is not None
    package = Path((SPEC.submodule_search_locations or [""])[0])
    mosaics = sorted(package.glob("tests/data/b0dwiForFmap/*.dcm"))
    picture = sheet(*mosaics, columns=3)
    assert len(mosaics) == 3
    assert all(tile(picture, column).std() > 15 for column in range(3))
