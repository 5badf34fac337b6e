"""Part-10 files of others, read within limits (PS3.10 7.1)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Container
from typing import BinaryIO

from pydicom import uid
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import data_element_generator

from imaging.kos.manifest import ManifestError, value_of

_READABLE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)
MAX_BYTES = 16 * 1024 * 1024


def read_part10(
    content: bytes | BinaryIO, *, max_bytes: int, transfer_syntaxes: Container[str] | None = None
) -> Dataset:
    """A Part-10 file with its file_meta, never more than `max_bytes` of it, inflated or not (PS3.10 7.1).

    Raises ManifestError if it is none, is longer, is cut short, or is in none of `transfer_syntaxes`.
    """
    data = content if isinstance(content, bytes) else content.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ManifestError(f"The file has more than {max_bytes} bytes (max_bytes).")
    if data[128:132] != b"DICM":
        raise ManifestError("The file has no DICM prefix: it is not Part 10 (rule 1).")
    try:
        file = io.BytesIO(data)
        file.seek(132)
        meta = FileMetaDataset(_elements(file, implicit=False, stop_when=lambda tag, vr, length: tag >> 16 != 2))
        syntax = uid.UID(value_of(meta, "TransferSyntaxUID"))
        if transfer_syntaxes is not None and syntax not in transfer_syntaxes:
            raise ManifestError(f"Transfer syntax {str(syntax)[:64]!r} is none that can be read (rule 1).")
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            file = io.BytesIO(_inflated(data[file.tell() :], max_bytes=max_bytes))
        big_endian = syntax == uid.ExplicitVRBigEndian
        implicit = syntax == uid.ImplicitVRLittleEndian
        dataset = _elements(file, implicit=implicit, little_endian=not big_endian)
    except ManifestError:
        raise
    except Exception as error:  # a parser of hostile bytes may raise anything, RecursionError and zlib.error among it
        raise ManifestError(f"The file can not be parsed: {type(error).__name__} (rule 1)") from error
    dataset.file_meta = meta
    return dataset


def parse(content: bytes | BinaryIO, *, max_bytes: int = MAX_BYTES) -> Dataset:
    return read_part10(content, max_bytes=max_bytes, transfer_syntaxes=_READABLE)


def _inflated(data: bytes, *, max_bytes: int) -> bytes:
    """PS3.5 A.5: RFC 1951, without the zlib header; trailing padding is ignored."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data, max_bytes + 1)
    if len(inflated) > max_bytes:
        raise ManifestError(f"The file inflates to more than {max_bytes} bytes (max_bytes).")
    if not inflater.eof:
        raise ManifestError("The deflated file is cut short (rule 1).")
    return inflated


def _elements(
    file: BinaryIO,
    *,
    implicit: bool,
    little_endian: bool = True,
    stop_when: Callable[[int, str | None, int], bool] | None = None,
) -> Dataset:
    """The elements from here on. Unlike pydicom's own reader it takes nothing that is cut short."""
    elements = {}
    for element in data_element_generator(file, implicit, little_endian, stop_when):
        if isinstance(element, RawDataElement) and element.length not in (0xFFFFFFFF, len(element.value or b"")):
            raise ManifestError(f"The file is cut short in {element.tag} (rule 1).")
        elements[element.tag] = element
    dataset = Dataset(elements)
    dataset.set_original_encoding(implicit, little_endian, "iso8859")
    if character_set := value_of(dataset, "SpecificCharacterSet"):
        dataset.set_original_encoding(implicit, little_endian, convert_encodings(character_set.split("\\")))
    return dataset
