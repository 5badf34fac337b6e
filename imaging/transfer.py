"""An instance in one of the transfer syntaxes that somebody takes: as it is stored where that is one of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.instances import Instance, read_header
from xds.messages import Document

#: Syntaxes between which a data set is re-encoded without touching its pixels.
_UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
_READABLE = frozenset({*_UNCOMPRESSED, str(DeflatedExplicitVRLittleEndian)})
_MAX_REENCODED_BYTES = 512 * 1024 * 1024


class NotGivenError(ValueError):
    """An instance that can not be given in any of the syntaxes, with the reason as the end of a sentence about it."""


def given(stored: Instance, syntaxes: Sequence[str]) -> Document:
    """The instance as Part 10 in one of the transfer syntaxes, the first being preferred; NotGivenError where that can not be.

    As it is stored, bit for bit, where that is among them.
    """
    if stored.transfer_syntax_uid in syntaxes:
        return stored.document
    has_pixels = _has_pixels(stored)
    wanted = next((uid for uid in syntaxes if uid in _UNCOMPRESSED), None)
    if wanted is None and not has_pixels:
        # Compressed syntaxes say nothing of an object without pixels: it comes in Explicit VR Little Endian.
        if stored.transfer_syntax_uid == str(ExplicitVRLittleEndian):
            return stored.document
        wanted = str(ExplicitVRLittleEndian)
    if wanted is not None and stored.transfer_syntax_uid in _READABLE and stored.size <= _MAX_REENCODED_BYTES:
        return _reencoded(stored, wanted)
    listed = ", ".join(syntaxes[:5])
    raise NotGivenError(f"is stored in transfer syntax {stored.transfer_syntax_uid}, and cannot be given in {listed}")


def _has_pixels(stored: Instance) -> bool:
    # Rows is in the image pixel description of every object that has pixels (PS3.3 C.7.6.3).
    return "Rows" in read_header(stored.path)


def _reencoded(stored: Instance, transfer_syntax_uid: str) -> Document:
    dataset = pydicom.dcmread(stored.path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax_uid)
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=transfer_syntax_uid == str(ImplicitVRLittleEndian), little_endian=True)
    return Document.of(buffer.getvalue(), "application/dicom")
