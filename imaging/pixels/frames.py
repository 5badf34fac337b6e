"""The frames of a stored image: as they are stored, or decoded, one at a time from the file; and other large values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging import kos
from imaging.instances import Instance, read_header
from imaging.pixels.transfer import Given, NotGivenError
from xds.messages import Document

_EXPLICIT = str(ExplicitVRLittleEndian)
_LITTLE = frozenset({_EXPLICIT, str(ImplicitVRLittleEndian), str(DeflatedExplicitVRLittleEndian)})
NATIVE = _LITTLE | {str(ExplicitVRBigEndian)}
#: Values of more bytes stay on disk.
DEFER_BYTES = 1024
_MAX_FILE_BYTES = 512 * 1024 * 1024
_MAX_PIXELS = 64 * 1024 * 1024
_CHUNK_BYTES = 512 * 1024
#: Finds the frames of an instance.
Opened = Callable[[Instance], "Frames"]
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


class FrameError(ValueError):
    """Frames that cannot be given, with the reason as the end of a sentence about the instance."""


def lazily(stored: Instance) -> Dataset:
    """The whole data set, large values still on disk. FrameError for what cannot be read."""
    try:
        if stored.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            # What is inflated has no place on disk.
            with stored.path.open("rb") as file:
                return kos.read_part10(file, max_bytes=_MAX_FILE_BYTES)
        return pydicom.dcmread(stored.path, defer_size=DEFER_BYTES)
    except Exception as error:  # readers raise anything on hostile bytes
        raise FrameError(f"cannot be read: {type(error).__name__}") from None


class Decoding:
    """Compressed instances as files without compression. `given` makes them, in processes of their own: decoders may crash.

    The last few are kept, since who asks for one frame will ask for the next.
    """

    def __init__(self, given: Given, *, kept: int = 4) -> None:
        self._given, self._kept = given, kept
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, stored: Instance) -> Document:
        """In Explicit VR Little Endian; its file is there as long as somebody has the document. FrameError where it cannot be decoded."""
        uid = stored.sop_instance_uid
        with self._lock:
            known = self._documents.get(uid)
        if known is None:
            try:
                known = self._given(stored, (_EXPLICIT,))
            except NotGivenError as error:
                raise FrameError(str(error)) from None
        with self._lock:
            self._documents[uid] = known
            self._documents.move_to_end(uid)
            while len(self._documents) > self._kept:
                self._documents.popitem(last=False)
        return known


@dataclass(frozen=True)
class Frames:
    """The frames of an instance, counted from 1. FrameError where it has none."""

    stored: Instance
    decoding: Decoding

    @cached_property
    def dataset(self) -> Dataset:
        return lazily(self.stored)

    @cached_property
    def keyword(self) -> str:
        """Which attribute holds the pixels."""
        found = next((one for one in _PIXELS if one in self.dataset), None)
        if found is None:
            raise FrameError("has no pixels")
        return found

    @property
    def is_native(self) -> bool:
        return self.stored.transfer_syntax_uid in NATIVE

    @cached_property
    def count(self) -> int:
        """How many frames there are: as many as the header says, if there are bytes for them."""
        said = max(1, int(_number(self.dataset, "NumberOfFrames")))
        _ = self.keyword
        if not self.is_native:
            return said
        return min(said, max(1, self._native_bytes // max(1, self._frame_bytes)))

    def stored_frame(self, number: int) -> bytes:
        """A compressed frame as it is stored."""
        raw = self.dataset.get_item(self.keyword)
        offsets = None
        if "ExtendedOffsetTable" in self.dataset and "ExtendedOffsetTableLengths" in self.dataset:
            offsets = (self.dataset.ExtendedOffsetTable, self.dataset.ExtendedOffsetTableLengths)
        try:
            if isinstance(raw, RawDataElement) and raw.value is None:
                with self.stored.path.open("rb") as file:
                    file.seek(raw.value_tell)
                    return bytes(get_frame(file, number - 1, extended_offsets=offsets, number_of_frames=self.count))
            return bytes(get_frame(raw.value, number - 1, extended_offsets=offsets, number_of_frames=self.count))
        except Exception as error:
            raise FrameError(f"has no frame {number} that can be read: {type(error).__name__}") from None

    @cached_property
    def _document(self) -> Document:
        """What is decoded; its file goes with it."""
        return self.decoding(self.stored)

    @cached_property
    def _plain(self) -> Frames:
        """The same frames without compression."""
        with self._document.open() as file:
            path = Path(file.name)
        return Frames(replace(self.stored, path=path, transfer_syntax_uid=_EXPLICIT), self.decoding)

    def decoded_frame(self, number: int) -> bytes:
        """A frame as Explicit VR Little Endian has it: bit for bit where it is stored so, else decoded, colour as RGB."""
        if not self.is_native:
            return self._plain.decoded_frame(number)
        raw, size = self.dataset.get_item(self.keyword), self._frame_bytes
        whole_bytes = int(_number(self.dataset, "BitsAllocated")) >= 8
        if self.stored.transfer_syntax_uid in _LITTLE and whole_bytes:
            start = (number - 1) * size
            if isinstance(raw, RawDataElement) and raw.value is None:
                with self.stored.path.open("rb") as file:
                    file.seek(raw.value_tell + start)
                    return file.read(size)
            return bytes(raw.value[start : start + size])
        pixels = self.pixels(number)
        if not whole_bytes:
            return np.packbits(pixels.astype(np.uint8), bitorder="little").tobytes()
        return pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()

    def pixels(self, number: int) -> NDArray[Any]:
        """A frame as an array of rows and columns, and samples where it is in colour."""
        if not self.is_native:
            return self._plain.pixels(number)
        header = self.header
        rows, columns = _number(header, "Rows"), _number(header, "Columns")
        if rows * columns * max(1.0, _number(header, "SamplesPerPixel")) > _MAX_PIXELS:
            raise FrameError(f"has frames of {columns:.0f} x {rows:.0f} pixels; the limit is {_MAX_PIXELS}")
        in_memory = self.stored.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
        try:
            decoded: NDArray[Any] = pixel_array(self.dataset if in_memory else self.stored.path, index=number - 1)
        except Exception as error:  # readers raise anything on hostile bytes
            raise FrameError(f"has no frame {number} that can be read: {type(error).__name__}") from None
        return decoded

    @cached_property
    def header(self) -> Dataset:
        """What is before the pixels that `pixels` gives."""
        if not self.is_native:
            return self._plain.header
        return self.dataset if "dataset" in self.__dict__ else read_header(self.stored.path)

    @property
    def _native_bytes(self) -> int:
        raw = self.dataset.get_item(self.keyword)
        return raw.length if isinstance(raw, RawDataElement) else len(raw.value)

    @cached_property
    def _frame_bytes(self) -> int:
        try:
            one = Dataset()
            for keyword in ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation"):
                setattr(one, keyword, self.dataset[keyword].value)
            one.NumberOfFrames = 1
            return int(get_expected_length(one))
        except Exception as error:
            raise FrameError(f"has no usable description of its pixels: {type(error).__name__}") from None


def bulk(stored: Instance, place: str) -> Iterator[bytes] | None:
    """The bytes of a value, `place` as in dicom_json.BulkUri; None where there is no such value. Little endian only."""
    dataset = lazily(stored)
    *outer, last = place.split("/")
    try:
        for tag, item in zip(outer[::2], outer[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(item) - 1] if int(item) > 0 else None
        raw = dataset.get_item(int(last, 16))
    except Exception:  # there is no such tag or item, or readers raise anything on hostile values
        return None
    if raw is None:
        return None
    if isinstance(raw, RawDataElement) and raw.value is None:
        return _slices(stored, raw.value_tell, raw.length)
    return iter([raw.value]) if isinstance(raw.value, bytes) else None


def _slices(stored: Instance, start: int, length: int) -> Iterator[bytes]:
    with stored.path.open("rb") as file:
        file.seek(start)
        while length > 0 and (chunk := file.read(min(length, _CHUNK_BYTES))):
            length -= len(chunk)
            yield chunk


def _number(dataset: Dataset, keyword: str) -> float:
    try:
        return float(dataset.get(keyword) or 0)
    except (TypeError, ValueError, OverflowError):
        return 0
