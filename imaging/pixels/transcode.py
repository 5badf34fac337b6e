"""A Part-10 file in another transfer syntax (PS3.5 10, PS3.3 C.7.6.3). Its SOP Instance UID and whatever is no pixels stay as they are.

The file is in memory as a whole, and what is decoded may be hostile: imaging/pixels/recoding.py runs this in processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from imaging.pixels import codecs
from imaging.pixels.codecs import CodecError, Form, Frame, Loss

# What a modality wrote is given as it is, whatever limits of its VR it breaks.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

UNCOMPRESSED = frozenset(map(str, (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)))
#: What can be read at all; of what is not among them, such as video, nothing but the stored bytes can be given.
READ = UNCOMPRESSED | codecs.DECODED | {str(ExplicitVRBigEndian)}
WRITTEN = UNCOMPRESSED | frozenset(codecs.ENCODINGS)

_LOSSY = frozenset(map(str, (JPEGBaseline8Bit, JPEGExtended12Bit)))
_SWAPPED = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}


def transcode(source: Path, target: Path, syntaxes: Sequence[str], loss: Loss) -> str:
    """Writes `source` to `target` in the first of the syntaxes that it fits into: that one.

    CodecError where it fits into none of them, with what was wrong with the first.
    """
    dataset = pydicom.dcmread(source)
    faults: list[CodecError] = []
    for syntax in syntaxes:
        try:
            _recode(dataset, syntax, loss)
        except CodecError as fault:
            faults.append(fault)
            continue
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        implicit = syntax == ImplicitVRLittleEndian
        pydicom.dcmwrite(target, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
        return syntax
    raise faults[0]


def _recode(dataset: Dataset, syntax: str, loss: Loss) -> None:
    """Replaces the pixels by those of the syntax; where CodecError is raised, nothing was changed."""
    stored = str(dataset.file_meta.TransferSyntaxUID)
    if stored not in READ:
        raise CodecError(f"is stored in transfer syntax {stored}, which is not decoded here")
    if "PixelData" not in dataset:
        if syntax not in UNCOMPRESSED and ("FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset):
            raise CodecError(f"has pixels of floating point, for which there is no transfer syntax {syntax}")
    elif stored in codecs.DECODED or syntax in codecs.ENCODINGS:
        _recode_pixels(dataset, stored, syntax, loss)
    if stored == ExplicitVRBigEndian:
        _swap(dataset, pixels=syntax in UNCOMPRESSED)
    if stored in codecs.DECODED:
        _drop_encapsulated_icon(dataset)


def _recode_pixels(dataset: Dataset, stored: str, syntax: str, loss: Loss) -> None:
    form = _form(dataset)
    count = _number(dataset, "NumberOfFrames", default=1, most=1_000_000)
    frames = (
        _decoded(dataset, stored, form, count) if stored in codecs.DECODED else _native(dataset, stored, form, count)
    )
    photometric = (
        codecs.decoded_photometric(stored, form) if stored in codecs.DECODED else form.photometric_interpretation
    )
    plain = replace(form, photometric_interpretation=photometric)
    if syntax in UNCOMPRESSED:
        content = b"".join(frame.tobytes() for frame in frames)
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OB" if form.bits_allocated <= 8 else "OW"
        dataset["PixelData"].is_undefined_length = False
    else:
        photometric = _encode(dataset, frames, plain, syntax, loss)
    if form.samples == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    if stored in _LOSSY and not dataset.get("LossyImageCompression"):
        dataset.LossyImageCompression = "01"


def _encode(dataset: Dataset, frames: Iterator[Frame], form: Form, syntax: str, loss: Loss) -> str:
    """The PhotometricInterpretation of what the frames were encoded to."""
    encoding = codecs.ENCODINGS[syntax]
    lossy = encoding.lossy(loss)
    if lossy and form.photometric_interpretation == "PALETTE COLOR":
        raise CodecError(f"is PALETTE COLOR, and would not survive the loss of {syntax}")
    if form.is_ybr and syntax in codecs.JPEG_LOSSLESS:
        raise CodecError(f"is {form.photometric_interpretation}, which {syntax} would take for RGB")
    encoded, size = [], 0
    for frame in frames:
        encoded.append(codecs.encode(syntax, frame, form, loss))
        size += frame.nbytes
    dataset.PixelData = encapsulate(encoded, has_bot=sum(map(len, encoded)) < 2**31)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    if lossy:
        _note_loss(dataset, size / max(1, sum(map(len, encoded))), encoding.method)
    return "YBR_FULL_422" if syntax in _LOSSY and form.samples == 3 else form.photometric_interpretation


def _note_loss(dataset: Dataset, ratio: float, method: str) -> None:
    """PS3.3 C.7.6.1.1.5: once lossy, for ever lossy; each step adds its ratio and method."""
    dataset.LossyImageCompression = "01"
    for keyword, value in (("LossyImageCompressionRatio", f"{ratio:.2f}"), ("LossyImageCompressionMethod", method)):
        before = dataset.get(keyword)
        values = [] if before is None else [before] if isinstance(before, str | float) else list(before)
        setattr(dataset, keyword, [*values, value])


# --- frames -----------------------------------------------------------------------------------------------------------


def _decoded(dataset: Dataset, stored: str, form: Form, count: int) -> Iterator[Frame]:
    found = 0
    try:
        for content in generate_frames(dataset.PixelData, number_of_frames=count):
            found += 1
            yield codecs.decode(stored, content, form)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(
            f"has encapsulated pixels that can not be read: {' '.join(str(error).split())[:200]}"
        ) from error
    if found != count:
        raise CodecError(f"has {found} frames, where NumberOfFrames is {count}")


def _native(dataset: Dataset, stored: str, form: Form, count: int) -> Iterator[Frame]:
    if form.photometric_interpretation == "YBR_FULL_422":
        raise CodecError("has YBR_FULL_422 pixels without compression, which are not compressed here")
    content = dataset.PixelData
    samples = form.rows * form.columns * form.samples
    size = samples * form.bits_allocated // 8
    if len(content) < size * count:
        raise CodecError(f"has {len(content)} bytes of pixels, where {count} frames take {size * count}")
    planar = form.samples == 3 and dataset.get("PlanarConfiguration", 0) == 1
    order: Literal["<", ">"] = ">" if stored == ExplicitVRBigEndian and form.bits_allocated > 8 else "<"
    if stored == ExplicitVRBigEndian and form.bits_allocated == 8 and dataset["PixelData"].VR == "OW":
        content = _swapped(content, 2)
    for number in range(count):
        flat = np.frombuffer(content, form.dtype.newbyteorder(order), samples, number * size).astype(form.dtype)
        yield (
            flat.reshape(form.samples, form.rows, form.columns).transpose(1, 2, 0)
            if planar
            else flat.reshape(form.shape)
        )


def _form(dataset: Dataset) -> Form:
    samples = _number(dataset, "SamplesPerPixel", default=1, most=3)
    allocated = _number(dataset, "BitsAllocated", most=32)
    if samples == 2 or allocated not in (8, 16, 32):
        raise CodecError(f"has SamplesPerPixel {samples} and BitsAllocated {allocated}, which are not re-encoded")
    return Form(
        rows=_number(dataset, "Rows", most=65535),
        columns=_number(dataset, "Columns", most=65535),
        samples=samples,
        bits_allocated=allocated,
        bits_stored=_number(dataset, "BitsStored", default=allocated, most=allocated),
        signed=dataset.get("PixelRepresentation", 0) == 1,
        photometric_interpretation=str(dataset.get("PhotometricInterpretation", "")),
    )


def _number(dataset: Dataset, keyword: str, *, most: int, default: int | None = None) -> int:
    value = dataset.get(keyword)
    value = default if value is None or value == "" else value
    try:
        number = int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= most:
        raise CodecError(f"has {keyword} {str(value)[:40]!r}, which is not within 1 to {most}")
    return number


# --- what else depends on the syntax ----------------------------------------------------------------------------------


def _swap(dataset: Dataset, *, pixels: bool = True) -> None:
    """Big endian words become little endian ones; numbers of other VRs are already read. `pixels`: those of the image too."""
    allocated = dataset.get("BitsAllocated", 8)
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _swap(item)
        elif element.VR in _SWAPPED and isinstance(element.value, bytes):
            if element.keyword == "PixelData" and not pixels:
                continue
            size = max(2, allocated // 8) if element.keyword == "PixelData" else _SWAPPED[element.VR]
            element.value = _swapped(element.value, size)


def _swapped(content: bytes, size: int) -> bytes:
    whole = len(content) - len(content) % size
    return np.frombuffer(content[:whole], f">u{size}").astype(f"<u{size}").tobytes() + content[whole:]


def _drop_encapsulated_icon(dataset: Dataset) -> None:
    """An icon may be encoded as the image was; nobody could read it in another syntax, and it is optional (PS3.3 C.7.6.1.1.6)."""
    icons = dataset.get("IconImageSequence") or []
    if any("PixelData" in icon and icon["PixelData"].is_undefined_length for icon in icons):
        del dataset.IconImageSequence
