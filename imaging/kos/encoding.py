"""The lists of a manifest as DICOM bytes: evidence, template and content tree. By way of pydicom they would take half a second.

Texts are in UTF-8 (ISO_IR 192).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from imaging.kos.manifest import Coded, value_of

_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
# The image classes whose names do not say so (PS3.4 Table B.5-1).
_OTHER_IMAGES = {uid.SegmentationStorage, uid.ParametricMapStorage, uid.RTDoseStorage, uid.EnhancedUSVolumeStorage}


#: Characters of an SH and of an LO (PS3.5 6.2).
_MAX_SHORT, _MAX_LONG = 16, 64
#: Series Instance UID -> the headers of its instances.
Series = Mapping[str, Sequence[Dataset]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    ae_title: str
    uid: str
    url: str | None


def _element(tag: int, vr: str, value: str | bytes) -> bytes:
    """One element in Explicit VR Little Endian, its value padded to an even length (PS3.5 6.2, 7.1.2)."""
    content = value.encode() if isinstance(value, str) else value
    content += (b"\0" if vr == "UI" else b" ") * (len(content) % 2)
    length = struct.pack("<2xI" if vr in ("SQ", "UC", "UR", "UT") else "<H", len(content))
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode()) + length + content


def _sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence and its items, all of explicit length (PS3.5 7.5)."""
    return _element(tag, "SQ", b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items))


def encoded_dataset(dataset: Dataset) -> bytes:
    """Any small data set whose values are texts and sequences."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset, "utf8")
    return bytes(file.getvalue())


def _encoded_reference(header: Dataset) -> bytes:
    return encoded_reference(value_of(header, "SOPClassUID"), value_of(header, "SOPInstanceUID"))


def encoded_reference(
    sop_class_uid: str, sop_instance_uid: str, *, frames: str = "", presentation: bytes = b""
) -> bytes:
    """The elements of an item of ReferencedSOPSequence; `presentation` is the item of the state that an image is shown in (C.18.4)."""
    return (
        _element(0x00081150, "UI", sop_class_uid)
        + _element(0x00081155, "UI", sop_instance_uid)
        + (_element(0x00081160, "IS", frames) if frames else b"")
        + (_sequence(0x00081199, [presentation]) if presentation else b"")
    )


def encoded_choice(value_type: str, reference: bytes, *, children: Iterable[bytes] = ()) -> bytes:
    """A content item CONTAINS IMAGE, WAVEFORM or COMPOSITE (PS3.3 C.17.3), and what is said of it."""
    below = list(children)
    return (
        _sequence(0x00081199, [reference])
        + _element(0x0040A010, "CS", "CONTAINS")
        + _element(0x0040A040, "CS", value_type)
        + (_sequence(0x0040A730, below) if below else b"")
    )


def encoded_evidence(study: str, series: Series, location: Location) -> bytes:
    """CurrentRequestedProcedureEvidenceSequence (PS3.3 C.17.2.1) with the locations that RAD TF-3 4.68.4.1.2 demands."""
    items = [
        _element(0x00080054, "AE", location.ae_title)
        + (_element(0x00081190, "UR", location.url) if location.url else b"")
        + _sequence(0x00081199, map(_encoded_reference, members))
        + _element(0x0020000E, "UI", series_uid)
        + _element(0x0040E011, "UI", location.uid)
        for series_uid, members in series.items()
    ]
    return _sequence(0x0040A375, [_sequence(0x00081115, items) + _element(0x0020000D, "UI", study)])


def encoded_template() -> bytes:
    """ContentTemplateSequence: TID 2010 of the DICOM Content Mapping Resource."""
    template = ((0x00080105, "CS", "DCMR"), (0x00080118, "UI", "1.2.840.10008.8.1.1"), (0x0040DB00, "CS", "2010"))
    return _sequence(0x0040A504, [b"".join(_element(*element) for element in template)])


def encoded_tree(items: Iterable[bytes]) -> bytes:
    """ContentSequence."""
    return _sequence(0x0040A730, items)


def _encoded_coded(code: Coded) -> bytes:
    """The elements of an item of a code sequence (PS3.3 8.8)."""
    long = len(code.value) > _MAX_SHORT
    return (
        (b"" if long else _element(0x00080100, "SH", code.value))
        + _element(0x00080102, "SH", code.scheme[:_MAX_SHORT])
        + _element(0x00080104, "LO", code.meaning[:_MAX_LONG])
        + (_element(0x00080119, "UC", code.value) if long else b"")
    )


def _item(relationship: str, kind: str, name: Coded, value: bytes) -> bytes:
    return (
        _element(0x0040A010, "CS", relationship)
        + _element(0x0040A040, "CS", kind)
        + _sequence(0x0040A043, [_encoded_coded(name)])
        + value
    )


def encoded_code(relationship: str, name: Coded, value: Coded) -> bytes:
    """A content item CODE (PS3.3 C.17.3), as those below are of their kinds."""
    return _item(relationship, "CODE", name, _sequence(0x0040A168, [_encoded_coded(value)]))


def encoded_text(relationship: str, name: Coded, value: str) -> bytes:
    return _item(relationship, "TEXT", name, _element(0x0040A160, "UT", value))


def encoded_date(relationship: str, name: Coded, value: str) -> bytes:
    return _item(relationship, "DATE", name, _element(0x0040A121, "DA", value))


def encoded_time(relationship: str, name: Coded, value: str) -> bytes:
    return _item(relationship, "TIME", name, _element(0x0040A122, "TM", value))


def encoded_uid(relationship: str, name: Coded, value: str) -> bytes:
    return _item(relationship, "UIDREF", name, _element(0x0040A124, "UI", value))


def encoded_number(relationship: str, name: Coded, value: str, unit: Coded) -> bytes:
    measured = _sequence(0x004008EA, [_encoded_coded(unit)]) + _element(0x0040A30A, "DS", value)
    return _item(relationship, "NUM", name, _sequence(0x0040A300, [measured]))


def encoded_container(relationship: str, name: Coded, children: Iterable[bytes]) -> bytes:
    value = _element(0x0040A050, "CS", "SEPARATE") + encoded_tree(children)
    return _item(relationship, "CONTAINER", name, value)


def encoded_choices(series: Series) -> list[bytes]:
    """TID 2010 rows 7 to 9, flat: everything that is listed."""
    return [
        encoded_choice(value_type(value_of(header, "SOPClassUID")), _encoded_reference(header))
        for members in series.values()
        for header in members
    ]


def value_type(sop_class_uid: str) -> str:
    """How a content item refers to an instance of a class (PS3.16 TID 2010)."""
    if sop_class_uid.startswith(_WAVEFORMS):
        return "WAVEFORM"
    named_image = "Image Storage" in uid.UID(sop_class_uid).name
    return "IMAGE" if named_image or sop_class_uid in _OTHER_IMAGES else "COMPOSITE"
