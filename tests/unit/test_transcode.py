"""Re-encoding real files, of every encoding that pydicom carries one of, into every syntax; independent decoders look at the result."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging.pixels.codecs import CodecError, Frame, Loss
from imaging.pixels.transcode import transcode

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (
    *UNCOMPRESSED,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
)
#: Of each encoding, sign, depth and colour one at least.
FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "image_dfl.dcm",
    "693_J2KI.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "liver_expb_1frame.dcm",
    "rtdose_rle_1frame.dcm",
    "rtdose_expb_1frame.dcm",
    "JPEG-LL.dcm",
    "MR2_J2KI.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
)
#: Syntaxes that have no room for a file: of BitsAllocated 32 but for RLE, of BitsAllocated 1.
PIXELS_ARE_TOO_WIDE = frozenset(LOSSLESS) - {*UNCOMPRESSED, RLELossless}
PIXELS_ARE_BITS = frozenset(LOSSLESS) - {*UNCOMPRESSED}
NO_ROOM: dict[str, frozenset[UID]] = {
    "rtdose_rle_1frame.dcm": PIXELS_ARE_TOO_WIDE,
    "rtdose_expb_1frame.dcm": PIXELS_ARE_TOO_WIDE,
    "liver_expb_1frame.dcm": PIXELS_ARE_BITS,
    # The encoder of JPEG-LS has no room for its own headers where there are nine pixels.
    "SC_rgb_small_odd.dcm": frozenset({JPEGLSLossless}),
    "SC_rgb_small_odd_big_endian.dcm": frozenset({JPEGLSLossless}),
}


def file(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert found is not None
    return Path(str(found))


def pixels(path: Path) -> tuple[Frame, str]:
    """All pixels as an independent decoder sees them, and the PhotometricInterpretation: RGB of JPEG, else as it is kept."""
    dataset = pydicom.dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    independent = [one for one in ("gdcm", "pylibjpeg", "pyjpegls") if one in decoder.available_plugins]
    # gdcm takes High-Throughput JPEG 2000 for JPEG 2000.
    plugin = "pylibjpeg" if "High-Throughput" in syntax.name else (independent or [""])[0]
    array, told = decoder.as_array(dataset, raw=syntax != JPEGBaseline8Bit, decoding_plugin=plugin)
    return array, str(told["photometric_interpretation"])


def recoded(source: Path, target: Path, syntax: UID, loss: Loss = Loss()) -> Dataset:  # noqa: B008
    assert transcode(source, target, [str(syntax)], loss) == syntax
    made = pydicom.dcmread(target)
    assert made.file_meta.TransferSyntaxUID == syntax
    return made


def beside_pixels(dataset: Dataset) -> dict[str, object]:
    """Whatever an image is beside its pixels. Group lengths are of old; VRs of private elements are not in Implicit VR."""
    depends = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration", "LossyImageCompression"}
    kept = [one for one in dataset if one.tag.element and one.keyword not in depends]
    return {
        str(one.tag): "" if one.tag.is_private else str(one)
        for one in kept
        if not one.keyword.startswith("ExtendedOffset")
    }


@pytest.mark.parametrize("name", FILES)
def test_every_file_comes_out_of_every_lossless_syntax_as_it_went_in(name: str, tmp_path: Path) -> None:
    source, target = file(name), tmp_path / "out.dcm"
    wanted, photometric = pixels(source)
    before = pydicom.dcmread(source)
    for syntax in LOSSLESS:
        if syntax in NO_ROOM.get(name, ()):
            with pytest.raises(CodecError):
                transcode(source, target, [str(syntax)], Loss())
            continue
        made = recoded(source, target, syntax)
        found, found_photometric = pixels(target)
        assert found_photometric == photometric == made.PhotometricInterpretation, syntax.name
        assert found.shape == wanted.shape, syntax.name
        # Two decoders of lossy JPEG differ in their rounding.
        most = 6 if photometric == "RGB" and "YBR" in before.PhotometricInterpretation else 0
        assert int(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max()) <= most, syntax.name
        assert made.SOPInstanceUID == before.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
        assert beside_pixels(made) == beside_pixels(before), syntax.name


def test_jpeg_of_twelve_bits_is_read_as_dcmtk_reads_it(tmp_path: Path) -> None:
    source, theirs, ours = file("JPGExtended.dcm"), tmp_path / "theirs.dcm", tmp_path / "ours.dcm"
    subprocess.run(["dcmdjpeg", source, theirs], check=True, capture_output=True, timeout=60)
    recoded(source, ours, ExplicitVRLittleEndian)
    assert np.array_equal(pixels(ours)[0], pixels(theirs)[0])


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "priv_SQ.dcm"])
@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_an_object_without_pixels_keeps_all_that_it_has(name: str, syntax: UID, tmp_path: Path) -> None:
    made = recoded(file(name), tmp_path / "out.dcm", syntax)
    assert beside_pixels(made).keys() == beside_pixels(pydicom.dcmread(file(name))).keys()
    if syntax != ImplicitVRLittleEndian:
        assert [str(one) for one in made] == [str(one) for one in pydicom.dcmread(file(name))]


@pytest.mark.parametrize(
    ("name", "syntax", "loss", "method"),
    [
        ("SC_rgb_rle.dcm", JPEGBaseline8Bit, Loss(jpeg_quality=90), "ISO_10918_1"),
        ("CT_small.dcm", JPEG2000, Loss(jpeg_2000_psnr_db=85), "ISO_15444_1"),
        ("MR_small.dcm", JPEGLSNearLossless, Loss(jpeg_ls_error=2), "ISO_14495_1"),
    ],
)
def test_what_is_lost_is_told(name: str, syntax: UID, loss: Loss, method: str, tmp_path: Path) -> None:
    """PS3.3 C.7.6.1.1.5. The pixels are near what they were, and smaller."""
    target = tmp_path / "out.dcm"
    made = recoded(file(name), target, syntax, loss)
    assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", method)
    assert float(made.LossyImageCompressionRatio) > 1
    raw = pydicom.dcmread(file(name)).pixel_array.astype(float)
    if syntax == JPEGBaseline8Bit:
        assert made.PhotometricInterpretation == "YBR_FULL_422"
    lossy = pixels(target)[0].astype(float)
    assert float(np.abs(lossy - raw).mean()) < 0.01 * (raw.max() - raw.min())
    back = recoded(target, tmp_path / "back.dcm", ExplicitVRLittleEndian)
    assert back.LossyImageCompression == "01", "once lossy, for ever lossy"


def test_the_first_syntax_that_has_room_is_taken(tmp_path: Path) -> None:
    wanted = [str(JPEG2000Lossless), str(RLELossless), str(ExplicitVRLittleEndian)]
    assert transcode(file("rtdose_1frame.dcm"), tmp_path / "out.dcm", wanted, Loss()) == RLELossless


def test_bits_above_bits_stored_are_kept(tmp_path: Path) -> None:
    """Overlays of old, in the bits that pixels do not use."""
    dataset = pydicom.dcmread(file("MR_small.dcm"))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    array = np.frombuffer(dataset.PixelData, "<u2") | 0x8000
    dataset.PixelData = array.tobytes()
    dataset.save_as(tmp_path / "in.dcm")
    for syntax in LOSSLESS:
        recoded(tmp_path / "in.dcm", tmp_path / "out.dcm", syntax)
        recoded(tmp_path / "out.dcm", tmp_path / "back.dcm", ExplicitVRLittleEndian)
        assert pydicom.dcmread(tmp_path / "back.dcm").PixelData == dataset.PixelData, syntax.name


@pytest.mark.parametrize(
    ("keyword", "value", "fault"),
    [
        ("Rows", 65, "has a frame of 64 x 64, where the data set says 65 x 64"),
        ("Rows", 0, "has Rows '0', which is not within 1 to 65535"),
        ("SamplesPerPixel", 4, "has SamplesPerPixel '4', which is not within 1 to 3"),
        ("NumberOfFrames", 3, "has 1 frames, where NumberOfFrames is 3"),
        ("NumberOfFrames", 10_000_000, "has NumberOfFrames '10000000', which is not within 1 to 1000000"),
    ],
)
def test_a_data_set_that_contradicts_its_pixels_is_refused(
    keyword: str, value: int, fault: str, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(file("MR_small_jp2klossless.dcm"))
    setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "in.dcm")
    with pytest.raises(CodecError, match=f"^{re.escape(fault)}"):
        transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", [str(ExplicitVRLittleEndian)], Loss())
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_a_stream_that_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(file(name))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[:60]])
    dataset.save_as(tmp_path / "in.dcm")
    with pytest.raises(CodecError, match=r"^has a frame that is no 1\.2\."):
        transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", [str(ExplicitVRLittleEndian)], Loss())
