"""Manifests, i.e. Key Object Selection documents that list the instances of a study: built, read and checked.

Clauses: IHE RAD TF-3 4.68 (what XDS-I.b demands), DICOM PS3.3 A.35.4 (the object), PS3.16 TID 2010 (its content).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import BinaryIO, Literal

from pydicom import config, uid
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.multival import MultiValue

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MANIFEST_TITLE = "113030"
# PS3.16 CID 7010; the last one is IHE's, until DICOM gives Manifest with Description a code.
_OTHER_MANIFEST_TITLES = {(str(code), "DCM") for code in range(113031, 113036)} | {("MADOTEMP001", "99IHE")}
_MANIFEST_TITLES = _OTHER_MANIFEST_TITLES | {(MANIFEST_TITLE, "DCM")}
# IHE RAD IOCM: what such a note lists is to be treated as not available.
_REJECTION_TITLES = {(code, "DCM") for code in ("113001", "113037", "113038", "113039")}

_IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_OWN_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+", re.ASCII)  # PS3.5 9.1
_AE_TITLE = re.compile(r"(?=.*[!-\[\]-~])[ -\[\]-~]{1,16}", re.ASCII)  # PS3.5 6.2
_OFFSET = re.compile(r"([+-])([0-9]{2})([0-5][0-9])", re.ASCII)  # PS3.3 C.12.1
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
# The image classes whose names do not say so (PS3.4 Table B.5-1).
_OTHER_IMAGES = {uid.SegmentationStorage, uid.ParametricMapStorage, uid.RTDoseStorage, uid.EnhancedUSVolumeStorage}
_TEXTUAL = frozenset(["AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"])


class ManifestError(ValueError):
    """A manifest can not be built or read: the text names the instance, the attribute and the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReference:
    """One item of ReferencedSOPSequence (0008,1199)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReference:
    """One series at one location: an item of ReferencedSeriesSequence (0008,1115).

    `retrieve_ae_title` may be several, parted by a backslash as in DICOM: they are alternatives.
    """

    series_instance_uid: str
    retrieve_ae_title: str
    retrieve_location_uid: str
    retrieve_url: str | None
    instances: tuple[InstanceReference, ...]
    modality: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReference:
    """One item of CurrentRequestedProcedureEvidenceSequence (0040,A375)."""

    study_instance_uid: str
    series: tuple[SeriesReference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """The patient as the manifest names it. `issuer` is the OID of the issuer if there is one, else its local name."""

    id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a manifest says. Values are DICOM's own text, "" where there is none; `created` is a DICOM DT."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    title: str
    patient: Patient
    accession_number: str
    created: str
    timezone_offset: str
    study_date: str
    study_time: str
    study_description: str
    institution_name: str
    studies: tuple[StudyReference, ...]

    @property
    def instance_count(self) -> int:
        """How many different instances are listed: one that is held at two locations counts once."""
        return len(_listed(self.studies))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that a manifest breaks."""

    rule: int
    level: Literal["error", "warning"]
    text: str


# --- values ---------------------------------------------------------------------------------------------------------


def _text(dataset: Dataset, keyword: str) -> str:
    """The value as text, several joined by a backslash; "" if it is absent or empty.

    Raw values are decoded here and not by pydicom, which warns of each value that breaks its VR: judging them is our part.
    """
    tag = tag_for_keyword(keyword)
    if tag not in dataset:
        return ""
    element = dataset.get_item(tag)
    value = element.value
    if isinstance(value, bytes):
        if value.isascii() and b"\x1b" not in value:
            value = value.decode("ascii")
        else:
            character_set = dataset.original_character_set
            value = decode_bytes(
                value, [character_set] if isinstance(character_set, str) else character_set, set("\\^=")
            )
    if isinstance(value, MultiValue | list):
        value = "\\".join(str(each) for each in value)
    return "" if value is None else str(value).strip("\0 ")


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none if it is absent or empty."""
    return list(dataset.get(keyword) or ())


def _first(headers: Iterable[Dataset], keyword: str) -> str:
    return next((text for header in headers if (text := _text(header, keyword))), "")


def _title(dataset: Dataset) -> tuple[str, str]:
    """Code value and coding scheme of the title."""
    concept = (_items(dataset, "ConceptNameCodeSequence") or [Dataset()])[0]
    return _text(concept, "CodeValue"), _text(concept, "CodingSchemeDesignator")


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _listed(studies: Iterable[StudyReference]) -> set[str]:
    return {i.sop_instance_uid for study in studies for series in study.series for i in series.instances}


# --- build ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Location:
    ae_title: str
    uid: str
    url: str | None


def build(
    headers: Sequence[Dataset],
    *,
    retrieve_ae_title: str,
    retrieve_location_uid: str,
    retrieve_url: str | None = None,
    now: datetime,
    new_uid: Callable[[], str],
    institution: str | None = None,
    manufacturer: str = "xdsi",
    accession_issuer: str | None = None,
    patient_id_issuer: str | None = None,
) -> bytes:
    """The manifest of one study as a Part-10 file in Explicit VR Little Endian.

    `headers` are the instances of the study; pixel data is not looked at. Earlier manifests, rejection notes and what
    these reject are left out. The two issuers are OIDs, for where the images name none. `new_uid` is called twice: for
    the SOP instance, then for the series. Times are given in the images' own time zone if they state one, else in that
    of `now`, which must be aware. Raises ManifestError. Rules: RAD TF-3 4.68.4.1.2, PS3.3 C.17.6.
    """
    location = _Location(ae_title=retrieve_ae_title, uid=retrieve_location_uid, url=retrieve_url)
    for issuer in (accession_issuer, patient_id_issuer):
        if issuer is not None and not _is_uid(issuer):
            raise ManifestError(f"The issuer {issuer!r} is not an OID.")
    _check_location(location)
    if now.utcoffset() is None:
        raise ManifestError("The time of creation has no time zone: it would be read in any (PS3.3 C.12.1).")
    series = _by_series(_to_list(headers))
    dataset = _head(series, now=now, accession_issuer=accession_issuer, patient_id_issuer=patient_id_issuer)
    _put(dataset, SOPInstanceUID=new_uid(), SeriesInstanceUID=new_uid(), Manufacturer=manufacturer)
    if institution:
        _put(dataset, InstitutionName=institution)
    _check_new_uids(dataset, series)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    # The lists come last, as their tags are the largest. Encoded here they take milliseconds, by way of pydicom half a
    # second for 2,000 instances.
    content.write(_encoded_evidence(_text(dataset, "StudyInstanceUID"), series, location))
    content.write(_encoded_template())
    content.write(_encoded_tree(series))
    return content.getvalue()


def _check_location(location: _Location) -> None:
    if not all(_AE_TITLE.fullmatch(title) for title in location.ae_title.split("\\")):
        raise ManifestError(f"RetrieveAETitle {location.ae_title!r} is not 1 to 16 characters (rule 6).")
    if not _is_uid(location.uid):
        raise ManifestError(f"RetrieveLocationUID {location.uid!r} is not a UID (rule 6).")
    if location.url is not None and not re.fullmatch(r"[!-\[\]-~]+", location.url):
        raise ManifestError(f"RetrieveURL {location.url!r} is not a URL.")


def _to_list(headers: Sequence[Dataset]) -> list[Dataset]:
    """The headers of what the manifest is to list, found to be of one study and one patient."""
    notes = {id(h): _title(h) for h in headers if _text(h, "SOPClassUID") == KEY_OBJECT_SELECTION}
    rejected = {
        instance
        for header in headers
        if notes.get(id(header)) in _REJECTION_TITLES
        for instance in _listed(_studies(header))
    }
    left_out = _MANIFEST_TITLES | _REJECTION_TITLES
    listed = [h for h in headers if notes.get(id(h)) not in left_out and _text(h, "SOPInstanceUID") not in rejected]
    if not listed:
        raise ManifestError("There is no instance to list (rule 5).")
    for header in listed:
        for keyword in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"):
            if not _is_uid(value := _text(header, keyword)):
                instance = _text(header, "SOPInstanceUID")
                raise ManifestError(f"Instance {instance!r}: {keyword} {value!r} is not a UID (rule 5, PS3.5 9.1).")
    _check_equal(listed, "StudyInstanceUID", "a manifest is of one study")
    for keyword in _IDENTITY:
        _check_equal(listed, keyword, "a manifest is of one patient (rule 12)")
    return listed


def _check_equal(headers: Iterable[Dataset], keyword: str, rule: str) -> None:
    """An empty value contradicts none: secondary objects often leave out what the images say."""
    known = ""
    for header in headers:
        value = _text(header, keyword).rstrip("^= ")  # PS3.5 6.2.1: trailing delimiters of a PN mean nothing
        if value and known and value != known:
            raise ManifestError(
                f"Instance {_text(header, 'SOPInstanceUID')}: {keyword} differs from the instances before it; {rule}."
            )
        known = known or value


def _by_series(headers: Iterable[Dataset]) -> dict[str, list[Dataset]]:
    """Series UID -> headers, series by SeriesNumber, instances by InstanceNumber; then by UID, to be the same each time."""
    where: dict[str, tuple[str, str]] = {}
    series: dict[str, list[Dataset]] = {}
    for header in headers:
        instance = _text(header, "SOPInstanceUID")
        place = (_text(header, "SeriesInstanceUID"), _text(header, "SOPClassUID"))
        known = where.setdefault(instance, place)
        if known != place:
            raise ManifestError(f"Instance {instance}: it comes in two series or of two SOP classes (rule 5).")
        series.setdefault(place[0], []).append(header)

    def number(header: Dataset, keyword: str) -> int:
        text = _text(header, keyword)
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text, re.ASCII) else 1 << 40

    for uid_, members in series.items():
        unique = {_text(header, "SOPInstanceUID"): header for header in members}
        series[uid_] = [unique[key] for key in sorted(unique, key=lambda k: (number(unique[k], "InstanceNumber"), k))]
    return dict(sorted(series.items(), key=lambda pair: (number(pair[1][0], "SeriesNumber"), pair[0])))


def _check_new_uids(dataset: Dataset, series: dict[str, list[Dataset]]) -> None:
    own, own_series = _text(dataset, "SOPInstanceUID"), _text(dataset, "SeriesInstanceUID")
    if not (_is_uid(own) and _is_uid(own_series)):
        raise ManifestError(f"The new UIDs {own!r} and {own_series!r} are not both UIDs (rule 5).")
    if own_series in series:
        raise ManifestError(f"The new SeriesInstanceUID {own_series} is the one of a listed series (rule 9).")
    if any(own == _text(header, "SOPInstanceUID") for members in series.values() for header in members):
        raise ManifestError(f"The new SOPInstanceUID {own} is the one of a listed instance (rule 3).")


def _put(dataset: Dataset, **values: str | list[Dataset]) -> None:
    """Set attributes without judging the values: what comes from the images has to stay what it is."""
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        dataset[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)


def _copies(items: Iterable[Dataset]) -> list[Dataset]:
    """Items with their texts decoded, for an object of another character set. Numbers and private attributes stay behind."""
    copies = []
    for item in items:
        copy = Dataset()
        for element in item:
            if element.VR == "SQ":
                _put(copy, **{element.keyword: _copies(element.value)} if element.keyword else {})
            elif element.VR in _TEXTUAL and element.keyword:
                _put(copy, **{element.keyword: _text(item, element.keyword)})
        copies.append(copy)
    return copies


def _issuer(oid: str | None) -> list[Dataset]:
    """HL7v2 Hierarchic Designator Macro (PS3.3 10.14) of an OID."""
    issuer = Dataset()
    if oid:
        _put(issuer, UniversalEntityID=oid, UniversalEntityIDType="ISO")
    return [issuer] if oid else []


def _head(
    series: dict[str, list[Dataset]], *, now: datetime, accession_issuer: str | None, patient_id_issuer: str | None
) -> Dataset:
    """All of the manifest but its own UIDs, its equipment and its lists."""
    headers = [header for members in series.values() for header in members]
    stated = _first(headers, "TimezoneOffsetFromUTC")
    if _OFFSET.fullmatch(
        stated
    ):  # one offset holds for every time in an object, so for the StudyTime copied from the images
        now = now.astimezone(datetime.strptime(stated, "%z").tzinfo)
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    requests = _requests([members[0] for members in series.values()], accession_issuer)
    accessions = {number for request in requests if (number := _text(request, "AccessionNumber"))}
    manifest, head = Dataset(), Dataset()
    _put(manifest, CodeValue=MANIFEST_TITLE, CodingSchemeDesignator="DCM", CodeMeaning="Manifest")
    _put(head, SpecificCharacterSet="ISO_IR 192", SOPClassUID=KEY_OBJECT_SELECTION, Modality="KO")
    _put(head, InstanceCreationDate=date, InstanceCreationTime=time, ContentDate=date, ContentTime=time)
    _put(head, TimezoneOffsetFromUTC=now.strftime("%z")[:5], SeriesNumber="1", InstanceNumber="1")
    _put(head, ReferencedPerformedProcedureStepSequence=[], ValueType="CONTAINER", ContinuityOfContent="SEPARATE")
    _put(head, ConceptNameCodeSequence=[manifest])
    for keyword in (*_IDENTITY, "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName"):
        _put(head, **{keyword: _first(headers, keyword)})
    for keyword in ("IssuerOfPatientID", "StudyDescription", "InstitutionName"):  # type 3: there or not
        if text := _first(headers, keyword):
            _put(head, **{keyword: text})
    for keyword in ("IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "ProcedureCodeSequence"):
        if items := next((items for header in headers if (items := _items(header, keyword))), []):
            _put(head, **{keyword: _copies(items)})
    if patient_id_issuer and "IssuerOfPatientIDQualifiersSequence" not in head and _text(head, "PatientID"):
        _put(head, IssuerOfPatientIDQualifiersSequence=_issuer(patient_id_issuer))
    _put(head, AccessionNumber=accessions.pop() if len(accessions) == 1 else "")
    if _text(head, "AccessionNumber") and (issuers := _items(requests[0], "IssuerOfAccessionNumberSequence")):
        _put(head, IssuerOfAccessionNumberSequence=_copies(issuers))
    if requests:
        _put(head, ReferencedRequestSequence=requests)
    return head


def _requests(headers: Iterable[Dataset], accession_issuer: str | None) -> list[Dataset]:
    """Items of ReferencedRequestSequence: one for each accession number and placer order (PS3.3 C.17.6.2, type 1C)."""
    requests: dict[tuple[str, str], Dataset] = {}
    for header in headers:
        for source in _items(header, "RequestAttributesSequence") or [Dataset()]:
            both = (source, header)
            request = Dataset()
            for keyword in (
                "AccessionNumber",
                "PlacerOrderNumberImagingServiceRequest",
                "FillerOrderNumberImagingServiceRequest",
                "RequestedProcedureID",
                "RequestedProcedureDescription",
            ):
                _put(request, **{keyword: _first(both, keyword)})
            for keyword in (
                "IssuerOfAccessionNumberSequence",
                "OrderPlacerIdentifierSequence",
                "OrderFillerIdentifierSequence",
            ):
                if items := _items(source, keyword) or _items(header, keyword):
                    _put(request, **{keyword: _copies(items)})
            accession, placer = (
                _text(request, k) for k in ("AccessionNumber", "PlacerOrderNumberImagingServiceRequest")
            )
            if not (accession or placer) or (accession, placer) in requests:
                continue
            if accession and accession_issuer and "IssuerOfAccessionNumberSequence" not in request:
                _put(request, IssuerOfAccessionNumberSequence=_issuer(accession_issuer))
            codes = _items(source, "RequestedProcedureCodeSequence") or _items(header, "RequestedProcedureCodeSequence")
            _put(request, RequestedProcedureCodeSequence=_copies(codes), ReferencedStudySequence=[])
            _put(request, StudyInstanceUID=_text(header, "StudyInstanceUID"))
            requests[accession, placer] = request
    return list(requests.values())


def _element(tag: int, vr: str, value: str | bytes) -> bytes:
    """One element in Explicit VR Little Endian, its value padded to an even length (PS3.5 6.2, 7.1.2)."""
    content = value.encode("ascii") if isinstance(value, str) else value
    content += (b"\0" if vr == "UI" else b" ") * (len(content) % 2)
    length = struct.pack("<2xI" if vr in ("SQ", "UR") else "<H", len(content))
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode()) + length + content


def _sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence and its items, all of explicit length (PS3.5 7.5)."""
    return _element(tag, "SQ", b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items))


def _encoded_reference(header: Dataset) -> bytes:
    return _element(0x00081150, "UI", _text(header, "SOPClassUID")) + _element(
        0x00081155, "UI", _text(header, "SOPInstanceUID")
    )


def _encoded_evidence(study: str, series: dict[str, list[Dataset]], location: _Location) -> bytes:
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


def _encoded_template() -> bytes:
    """ContentTemplateSequence: TID 2010 of the DICOM Content Mapping Resource."""
    template = ((0x00080105, "CS", "DCMR"), (0x00080118, "UI", "1.2.840.10008.8.1.1"), (0x0040DB00, "CS", "2010"))
    return _sequence(0x0040A504, [b"".join(_element(*element) for element in template)])


def _encoded_tree(series: dict[str, list[Dataset]]) -> bytes:
    """ContentSequence: TID 2010 rows 7 to 9, flat."""
    return _sequence(
        0x0040A730,
        (
            _sequence(0x00081199, [_encoded_reference(header)])
            + _element(0x0040A010, "CS", "CONTAINS")
            + _element(0x0040A040, "CS", _value_type(_text(header, "SOPClassUID")))
            for members in series.values()
            for header in members
        ),
    )


def _value_type(sop_class_uid: str) -> str:
    if sop_class_uid.startswith(_WAVEFORMS):
        return "WAVEFORM"
    named_image = "Image Storage" in uid.UID(sop_class_uid).name
    return "IMAGE" if named_image or sop_class_uid in _OTHER_IMAGES else "COMPOSITE"


# --- read -----------------------------------------------------------------------------------------------------------

_READABLE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)
_MAX_BYTES = 16 * 1024 * 1024


def read(content: bytes | BinaryIO, *, max_bytes: int = _MAX_BYTES) -> Manifest:
    """What a manifest says. It may be of several studies, several locations for a series, and any title.

    `max_bytes` bounds the file and what it inflates to. Raises ManifestError if a rule is broken without which nothing
    could be retrieved (1, 2 and 5 of `check`): the rest is for `check` to say.
    """
    dataset = _parse(content, max_bytes=max_bytes)
    try:
        broken = chain(_check_class(dataset), _check_own_uids(dataset), _check_evidence(_studies(dataset)))
        for finding in broken:
            raise ManifestError(f"{finding.text} (rule {finding.rule})")
        return _manifest(dataset)
    except ManifestError:
        raise
    except Exception as error:  # sequences are parsed when they are asked for, and whatever is wrong in them shows here
        raise ManifestError(f"The manifest can not be parsed: {type(error).__name__} (rule 1)") from error


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
        syntax = uid.UID(_text(meta, "TransferSyntaxUID"))
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


def _parse(content: bytes | BinaryIO, *, max_bytes: int = _MAX_BYTES) -> Dataset:
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
    if character_set := _text(dataset, "SpecificCharacterSet"):
        dataset.set_original_encoding(implicit, little_endian, convert_encodings(character_set.split("\\")))
    return dataset


def _studies(dataset: Dataset) -> tuple[StudyReference, ...]:
    """The evidence, whatever it is: judging it is for the rules."""
    return tuple(
        StudyReference(
            study_instance_uid=_text(study, "StudyInstanceUID"),
            series=tuple(map(_series, _items(study, "ReferencedSeriesSequence"))),
        )
        for study in _items(dataset, "CurrentRequestedProcedureEvidenceSequence")
    )


def _series(series: Dataset) -> SeriesReference:
    return SeriesReference(
        series_instance_uid=_text(series, "SeriesInstanceUID"),
        retrieve_ae_title=_text(series, "RetrieveAETitle"),
        retrieve_location_uid=_text(series, "RetrieveLocationUID"),
        retrieve_url=_text(series, "RetrieveURL") or None,
        modality=_text(series, "Modality") or None,
        instances=tuple(
            InstanceReference(
                sop_class_uid=_text(instance, "ReferencedSOPClassUID"),
                sop_instance_uid=_text(instance, "ReferencedSOPInstanceUID"),
            )
            for instance in _items(series, "ReferencedSOPSequence")
        ),
    )


def _manifest(dataset: Dataset) -> Manifest:
    qualifiers = [
        q for q in _items(dataset, "IssuerOfPatientIDQualifiersSequence") if _text(q, "UniversalEntityIDType") == "ISO"
    ]
    offset = _text(dataset, "TimezoneOffsetFromUTC")
    created = _text(dataset, "InstanceCreationDate") + _text(dataset, "InstanceCreationTime")
    return Manifest(
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        title=_title(dataset)[0],
        patient=Patient(
            id=_text(dataset, "PatientID"),
            issuer=_first(qualifiers, "UniversalEntityID") or _text(dataset, "IssuerOfPatientID"),
            name=_text(dataset, "PatientName"),
            birth_date=_text(dataset, "PatientBirthDate"),
            sex=_text(dataset, "PatientSex"),
        ),
        accession_number=_text(dataset, "AccessionNumber"),
        created=(created or _text(dataset, "ContentDate") + _text(dataset, "ContentTime")) + offset,
        timezone_offset=offset,
        study_date=_text(dataset, "StudyDate"),
        study_time=_text(dataset, "StudyTime"),
        study_description=_text(dataset, "StudyDescription"),
        institution_name=_text(dataset, "InstitutionName"),
        studies=_studies(dataset),
    )


# --- check ----------------------------------------------------------------------------------------------------------


def check(
    manifest: Dataset | bytes,
    *,
    locations: Container[str] | None = None,
    images: Sequence[Dataset] = (),
    strict: bool = False,
) -> list[Finding]:
    """Every rule of an XDS-I.b manifest that this one breaks.

    `locations` are the RetrieveLocationUIDs of the configured sources (rule 7), `images` headers of the listed instances
    (rule 12); either is not looked at if absent. `strict` makes an error of rule 10. Rule 14 is `check_document_entry`.
    """
    try:
        dataset = _parse(manifest) if isinstance(manifest, bytes) else manifest
        return list(_findings(dataset, locations=locations, images=images, strict=strict))
    except ManifestError as error:
        return [_error(1, str(error))]
    except Exception as error:  # as in `read`
        return [_error(1, f"The manifest can not be parsed: {type(error).__name__}")]


def check_document_entry(
    manifest: Manifest,
    *,
    unique_id: str,
    mime_type: str,
    format_code: str,
    format_code_scheme: str,
    source_patient_id: str,
) -> Iterator[Finding]:
    """Rule 14: what the DocumentEntry says of the manifest (RAD TF-3 4.68.4.1.2).

    `source_patient_id` is a CX or its first component.
    """
    for attribute, value, expected in (
        ("uniqueId", unique_id, manifest.sop_instance_uid),
        ("mimeType", mime_type, "application/dicom"),
        ("formatCode", format_code, KEY_OBJECT_SELECTION),
        ("formatCode.codingScheme", format_code_scheme, "1.2.840.10008.2.6.1"),
        ("sourcePatientId", source_patient_id.partition("^")[0], manifest.patient.id),
    ):
        if value != expected:
            yield _error(14, f"DocumentEntry.{attribute} is {_shown(value)}, not {_shown(expected)}.")


def _error(rule: int, text: str) -> Finding:
    return Finding(rule=rule, level="error", text=text)


def _warning(rule: int, text: str) -> Finding:
    return Finding(rule=rule, level="warning", text=text)


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:80] + "...")


def _findings(
    dataset: Dataset, *, locations: Container[str] | None, images: Sequence[Dataset], strict: bool
) -> Iterator[Finding]:
    studies = _studies(dataset)
    yield from _check_class(dataset)
    yield from _check_title(dataset)
    yield from _check_own_uids(dataset)
    yield from _check_evidence(studies)
    yield from _check_locations(studies, locations)
    yield from _check_places(dataset, studies)
    yield from _check_tree(dataset, studies, strict=strict)
    yield from _check_patient(dataset, images)
    if not (
        _text(dataset, "AccessionNumber") or _first(_items(dataset, "ReferencedRequestSequence"), "AccessionNumber")
    ):
        yield _warning(13, "There is no accession number.")
    offset = _OFFSET.fullmatch(_text(dataset, "TimezoneOffsetFromUTC"))
    minutes = int(offset[1] + "1") * (int(offset[2]) * 60 + int(offset[3])) if offset else None
    if minutes is None or not -12 * 60 <= minutes <= 14 * 60:
        yield _warning(16, f"TimezoneOffsetFromUTC is {_shown(_text(dataset, 'TimezoneOffsetFromUTC'))}.")


def _check_class(dataset: Dataset) -> Iterator[Finding]:
    for keyword, expected in (("SOPClassUID", KEY_OBJECT_SELECTION), ("Modality", "KO")):
        if (value := _text(dataset, keyword)) != expected:
            yield _error(2, f"{keyword} is {_shown(value)}, not {expected}: it is no Key Object Selection.")


def _check_title(dataset: Dataset) -> Iterator[Finding]:
    code, scheme = _title(dataset)
    if (code, scheme) in _OTHER_MANIFEST_TITLES:
        yield _warning(4, f"The title is ({code}, {scheme}), not (113030, DCM, Manifest).")
    elif (code, scheme) not in _MANIFEST_TITLES:
        yield _error(4, f"The title ({_shown(code)}, {_shown(scheme)}) is none of a manifest.")
    template = (_items(dataset, "ContentTemplateSequence") or [Dataset()])[0]
    if (_text(template, "MappingResource"), _text(template, "TemplateIdentifier")) != ("DCMR", "2010"):
        yield _warning(11, "ContentTemplateSequence is not DCMR, 2010.")


def _check_own_uids(dataset: Dataset) -> Iterator[Finding]:
    for keyword in _OWN_UIDS:
        if not _is_uid(value := _text(dataset, keyword)):
            yield _error(5, f"{keyword} {_shown(value)} of the manifest is not a UID.")


def _check_evidence(studies: Sequence[StudyReference]) -> Iterator[Finding]:
    """Rule 5: whatever is listed can be named when it is retrieved."""
    if not studies:
        yield _error(5, "CurrentRequestedProcedureEvidenceSequence lists no study.")
    for study in studies:
        if not _is_uid(study.study_instance_uid):
            yield _error(5, f"StudyInstanceUID {_shown(study.study_instance_uid)} is not a UID.")
        if not study.series:
            yield _error(5, f"Study {_shown(study.study_instance_uid)} lists no series.")
        for series in study.series:
            if not _is_uid(series.series_instance_uid):
                yield _error(5, f"SeriesInstanceUID {_shown(series.series_instance_uid)} is not a UID.")
            if not series.instances:
                yield _error(5, f"Series {_shown(series.series_instance_uid)} lists no instance.")
            for instance in series.instances:
                for value in (instance.sop_class_uid, instance.sop_instance_uid):
                    if not _is_uid(value):
                        yield _error(5, f"Series {_shown(series.series_instance_uid)}: {_shown(value)} is not a UID.")


def _check_locations(studies: Sequence[StudyReference], locations: Container[str] | None) -> Iterator[Finding]:
    for series in (series for study in studies for series in study.series):
        where = f"Series {_shown(series.series_instance_uid)}"
        if not series.retrieve_ae_title:
            yield _error(6, f"{where} has no RetrieveAETitle.")
        if not series.retrieve_location_uid:
            yield _error(6, f"{where} has no RetrieveLocationUID.")
        elif locations is not None and series.retrieve_location_uid not in locations:
            yield _warning(
                7, f"{where}: RetrieveLocationUID {_shown(series.retrieve_location_uid)} is no known source."
            )


def _check_places(dataset: Dataset, studies: Sequence[StudyReference]) -> Iterator[Finding]:
    """Rules 3, 8 and 9: where the manifest itself stands among what it lists."""
    own, own_series, own_study = (_text(dataset, keyword) for keyword in _OWN_UIDS)
    if own in _listed(studies):
        yield _error(3, f"The manifest {_shown(own)} lists itself as evidence.")
    if own_study not in {study.study_instance_uid for study in studies}:
        yield _error(8, f"StudyInstanceUID {_shown(own_study)} is no listed study.")
    shared = [s for study in studies for s in study.series if s.series_instance_uid == own_series]
    if any(i.sop_class_uid != KEY_OBJECT_SELECTION for series in shared for i in series.instances):
        yield _error(9, f"SeriesInstanceUID {_shown(own_series)} is a listed series.")


def _check_tree(dataset: Dataset, studies: Sequence[StudyReference], *, strict: bool) -> Iterator[Finding]:
    """Rules 10 and 15. Content items of other kinds, and nested ones, are of no interest."""
    referenced: set[str] = set()
    waiting = _items(dataset, "ContentSequence")
    while waiting:
        item = waiting.pop()
        referenced.update(_text(sop, "ReferencedSOPInstanceUID") for sop in _items(item, "ReferencedSOPSequence"))
        waiting.extend(_items(item, "ContentSequence"))
    if differing := referenced ^ _listed(studies):
        text = f"{len(differing)} instances are in the content tree or in the evidence but not in both."
        yield Finding(rule=10, level="error" if strict else "warning", text=text)
    if _text(dataset, "SOPInstanceUID") in referenced:
        yield _error(15, "The manifest refers to itself in its content tree.")


def _check_patient(dataset: Dataset, images: Sequence[Dataset]) -> Iterator[Finding]:
    for keyword in _IDENTITY:
        own = _text(dataset, keyword).rstrip("^= ")
        if differing := sum(_text(image, keyword).rstrip("^= ") not in (own, "") for image in images):
            # An id may have been coerced where the images came to.
            report = _warning if keyword == "PatientID" else _error
            yield report(12, f"{keyword} differs from {differing} of {len(images)} images.")
