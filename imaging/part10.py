"""DICOM files as bytes (PS3.10 7.1): where the data set begins, whether two are the same, and the header that we write ourselves."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

#: Of this program, derived from a UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = "2.25.188221763070184769050091059420776055296"
IMPLEMENTATION_VERSION_NAME = "XDSI"
_CHUNK_BYTES = 1024 * 1024
_PREFIX_BYTES = 132
_DEFLATED = b"1.2.840.10008.1.2.1.99"
#: (0002,0000) UL, four bytes: FileMetaInformationGroupLength in Explicit VR Little Endian.
_GROUP_LENGTH = bytes.fromhex("02000000") + b"UL" + bytes.fromhex("0400")


def header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str) -> bytes:
    """Preamble, prefix and File Meta Information of a data set that the AE `source` sent."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", sop_class_uid.encode()),
            _element(0x0003, b"UI", sop_instance_uid.encode()),
            _element(0x0010, b"UI", transfer_syntax_uid.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", source.encode()),
        )
    )
    return bytes(128) + b"DICM" + _GROUP_LENGTH + struct.pack("<L", len(elements)) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian (PS3.5 7.1.2), its value of even length."""
    value += (b"\x00" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    length = struct.pack("<HL", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", 0x0002, number) + vr + length + value


def data_set_offset(file: BinaryIO) -> int | None:
    """Where the data set begins, in bytes; None where the File Meta Information does not say how long it is."""
    file.seek(_PREFIX_BYTES)
    element = file.read(len(_GROUP_LENGTH) + 4)
    if len(element) < len(_GROUP_LENGTH) + 4 or not element.startswith(_GROUP_LENGTH):
        return None
    return _PREFIX_BYTES + len(element) + int.from_bytes(element[-4:], "little")


def same_data_set(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes after their File Meta Information."""
    with one.open("rb") as first, other.open("rb") as second:
        offsets = data_set_offset(first), data_set_offset(second)
        if offsets[0] is None or offsets[1] is None:
            return False
        if first.seek(0, io.SEEK_END) - offsets[0] != second.seek(0, io.SEEK_END) - offsets[1]:
            return False
        first.seek(offsets[0])
        second.seek(offsets[1])
        while chunk := first.read(_CHUNK_BYTES):
            if chunk != second.read(_CHUNK_BYTES):
                return False
    return True


def is_deflated(path: Path) -> bool:
    """Whether the File Meta Information says that the data set is deflated; where it does not say how long it is, whether it may."""
    with path.open("rb") as file:
        offset = data_set_offset(file)
        file.seek(0)
        return _DEFLATED in file.read(_CHUNK_BYTES if offset is None else min(offset, _CHUNK_BYTES))


def inflates_within(path: Path, max_bytes: int) -> bool:
    """Whether a deflated data set (PS3.5 A.5) can be inflated, and to so many bytes at most."""
    with path.open("rb") as file:
        offset = data_set_offset(file)
        if offset is None:
            return False
        file.seek(offset)
        inflating, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflating.unconsumed_tail or file.read(_CHUNK_BYTES):
            try:
                size += len(inflating.decompress(chunk, _CHUNK_BYTES))
            except zlib.error:
                return False
            if size > max_bytes:
                return False
            if inflating.eof:
                return True
    return False
