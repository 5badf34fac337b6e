"""Building a manifest of the headers of a study's instances (RAD TF-3 4.68.4.1.2, PS3.3 C.17.6)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom import config, uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset

from imaging.kos.encoding import (
    Location,
    Series,
    encoded_choices,
    encoded_evidence,
    encoded_template,
    encoded_tree,
)
from imaging.kos.manifest import (
    IDENTITY,
    KEY_OBJECT_SELECTION,
    MANIFEST_TITLE,
    OFFSET,
    Coded,
    ManifestError,
    first_of,
    is_manifest,
    is_rejection,
    is_uid,
    items_of,
    listed_in,
    studies_of,
    value_of,
)

_AE_TITLE = re.compile(r"(?=.*[!-\[\]-~])[ -\[\]-~]{1,16}", re.ASCII)  # PS3.5 6.2
#: No code, issuer or content item that we copy is as deep.
_MAX_DEPTH = 8
_TEXTUAL = frozenset(["AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"])


_MANIFEST = Coded(MANIFEST_TITLE, "DCM", "Manifest")


def _as_it_is(head: Dataset) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What kinds of manifests differ in: the title, the content items of what is listed, and what else the object has to say of itself."""

    title: Coded = _MANIFEST
    items: Callable[[Series], Sequence[bytes]] = encoded_choices
    amend: Callable[[Dataset], None] = _as_it_is


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
    content: Content = Content(),
) -> bytes:
    """The manifest of one study as a Part-10 file in Explicit VR Little Endian.

    `headers` are the instances of the study; pixel data is not looked at. Earlier manifests, rejection notes and what
    these reject are left out. The two issuers are OIDs, for where the images name none. `new_uid` is called twice: for
    the SOP instance, then for the series. Times are given in the images' own time zone if they state one, else in that
    of `now`, which must be aware. Raises ManifestError. Rules: RAD TF-3 4.68.4.1.2, PS3.3 C.17.6.
    """
    location = Location(ae_title=retrieve_ae_title, uid=retrieve_location_uid, url=retrieve_url)
    for issuer in (accession_issuer, patient_id_issuer):
        if issuer is not None and not is_uid(issuer):
            raise ManifestError(f"The issuer {issuer!r} is not an OID.")
    _check_location(location)
    if now.utcoffset() is None:
        raise ManifestError("The time of creation has no time zone: it would be read in any (PS3.3 C.12.1).")
    series = _by_series(_to_list(headers))
    dataset = _head(series, now=now, accession_issuer=accession_issuer, patient_id_issuer=patient_id_issuer)
    put(dataset, ConceptNameCodeSequence=[code_item(content.title)])
    put(dataset, SOPInstanceUID=new_uid(), SeriesInstanceUID=new_uid(), Manufacturer=manufacturer)
    if institution:
        put(dataset, InstitutionName=institution)
    content.amend(dataset)
    _check_new_uids(dataset, series)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    # The lists come last, as their tags are the largest. Encoded here they take milliseconds, by way of pydicom half a
    # second for 2,000 instances.
    file.write(encoded_evidence(value_of(dataset, "StudyInstanceUID"), series, location))
    file.write(encoded_template())
    file.write(encoded_tree(content.items(series)))
    return file.getvalue()


def _check_location(location: Location) -> None:
    if not all(_AE_TITLE.fullmatch(title) for title in location.ae_title.split("\\")):
        raise ManifestError(f"RetrieveAETitle {location.ae_title!r} is not 1 to 16 characters (rule 6).")
    if not is_uid(location.uid):
        raise ManifestError(f"RetrieveLocationUID {location.uid!r} is not a UID (rule 6).")
    if location.url is not None and not re.fullmatch(r"[!-\[\]-~]+", location.url):
        raise ManifestError(f"RetrieveURL {location.url!r} is not a URL.")


def _to_list(headers: Sequence[Dataset]) -> list[Dataset]:
    """The headers of what the manifest is to list, found to be of one study and one patient."""
    notes = [header for header in headers if value_of(header, "SOPClassUID") == KEY_OBJECT_SELECTION]
    rejecting = list(filter(is_rejection, notes))
    rejected = {instance for note in rejecting for instance in listed_in(studies_of(note))}
    left_out = {id(note) for note in (*rejecting, *filter(is_manifest, notes))}
    listed = [h for h in headers if id(h) not in left_out and value_of(h, "SOPInstanceUID") not in rejected]
    if not listed:
        raise ManifestError("There is no instance to list (rule 5).")
    for header in listed:
        for keyword in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"):
            if not is_uid(value := value_of(header, keyword)):
                instance = value_of(header, "SOPInstanceUID")
                raise ManifestError(f"Instance {instance!r}: {keyword} {value!r} is not a UID (rule 5, PS3.5 9.1).")
    _check_equal(listed, "StudyInstanceUID", "a manifest is of one study")
    for keyword in IDENTITY:
        _check_equal(listed, keyword, "a manifest is of one patient (rule 12)")
    return listed


def _check_equal(headers: Iterable[Dataset], keyword: str, rule: str) -> None:
    """An empty value contradicts none: secondary objects often leave out what the images say."""
    known = ""
    for header in headers:
        value = value_of(header, keyword).rstrip("^= ")  # PS3.5 6.2.1: trailing delimiters of a PN mean nothing
        if value and known and value != known:
            raise ManifestError(
                f"Instance {value_of(header, 'SOPInstanceUID')}: {keyword} differs from the instances before it; {rule}."
            )
        known = known or value


def _by_series(headers: Iterable[Dataset]) -> dict[str, list[Dataset]]:
    """Series UID -> headers, series by SeriesNumber, instances by InstanceNumber; then by UID, to be the same each time."""
    where: dict[str, tuple[str, str]] = {}
    series: dict[str, list[Dataset]] = {}
    for header in headers:
        instance = value_of(header, "SOPInstanceUID")
        place = (value_of(header, "SeriesInstanceUID"), value_of(header, "SOPClassUID"))
        known = where.setdefault(instance, place)
        if known != place:
            raise ManifestError(f"Instance {instance}: it comes in two series or of two SOP classes (rule 5).")
        series.setdefault(place[0], []).append(header)

    def number(header: Dataset, keyword: str) -> int:
        text = value_of(header, keyword)
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text, re.ASCII) else 1 << 40

    for uid_, members in series.items():
        unique = {value_of(header, "SOPInstanceUID"): header for header in members}
        series[uid_] = [unique[key] for key in sorted(unique, key=lambda k: (number(unique[k], "InstanceNumber"), k))]
    return dict(sorted(series.items(), key=lambda pair: (number(pair[1][0], "SeriesNumber"), pair[0])))


def _check_new_uids(dataset: Dataset, series: dict[str, list[Dataset]]) -> None:
    own, own_series = value_of(dataset, "SOPInstanceUID"), value_of(dataset, "SeriesInstanceUID")
    if not (is_uid(own) and is_uid(own_series)):
        raise ManifestError(f"The new UIDs {own!r} and {own_series!r} are not both UIDs (rule 5).")
    if own_series in series:
        raise ManifestError(f"The new SeriesInstanceUID {own_series} is the one of a listed series (rule 9).")
    if any(own == value_of(header, "SOPInstanceUID") for members in series.values() for header in members):
        raise ManifestError(f"The new SOPInstanceUID {own} is the one of a listed instance (rule 3).")


def put(dataset: Dataset, **values: str | list[Dataset]) -> None:
    """Set attributes without judging the values: what comes from the images has to stay what it is."""
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        dataset[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)


def code_item(code: Coded) -> Dataset:
    """An item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    put(item, **{"CodeValue" if len(code.value) <= 16 else "LongCodeValue": code.value})
    put(item, CodingSchemeDesignator=code.scheme, CodeMeaning=code.meaning)
    return item


def copies(items: Iterable[Dataset], depth: int = _MAX_DEPTH) -> list[Dataset]:
    """Items with their texts decoded, for an object of another character set.

    Numbers and private attributes stay behind, and sequences below so many others.
    """
    copied = []
    for item in items:
        copy = Dataset()
        for element in item:
            if element.VR == "SQ":
                nested = copies(element.value, depth - 1) if depth else []
                put(copy, **{element.keyword: nested} if element.keyword else {})
            elif element.VR in _TEXTUAL and element.keyword:
                put(copy, **{element.keyword: value_of(item, element.keyword)})
        copied.append(copy)
    return copied


def issuer_item(oid: str | None) -> list[Dataset]:
    """HL7v2 Hierarchic Designator Macro (PS3.3 10.14) of an OID."""
    issuer = Dataset()
    if oid:
        put(issuer, UniversalEntityID=oid, UniversalEntityIDType="ISO")
    return [issuer] if oid else []


def _head(
    series: dict[str, list[Dataset]], *, now: datetime, accession_issuer: str | None, patient_id_issuer: str | None
) -> Dataset:
    """All of the manifest but its own UIDs, its equipment and its lists."""
    headers = [header for members in series.values() for header in members]
    stated = first_of(headers, "TimezoneOffsetFromUTC")
    if OFFSET.fullmatch(
        stated
    ):  # one offset holds for every time in an object, so for the StudyTime copied from the images
        now = now.astimezone(datetime.strptime(stated, "%z").tzinfo)
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    requests = _requests([members[0] for members in series.values()], accession_issuer)
    accessions = {number for request in requests if (number := value_of(request, "AccessionNumber"))}
    head = Dataset()
    put(head, SpecificCharacterSet="ISO_IR 192", SOPClassUID=KEY_OBJECT_SELECTION, Modality="KO")
    put(head, InstanceCreationDate=date, InstanceCreationTime=time, ContentDate=date, ContentTime=time)
    put(head, TimezoneOffsetFromUTC=now.strftime("%z")[:5], SeriesNumber="1", InstanceNumber="1")
    put(head, ReferencedPerformedProcedureStepSequence=[], ValueType="CONTAINER", ContinuityOfContent="SEPARATE")
    for keyword in (*IDENTITY, "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName"):
        put(head, **{keyword: first_of(headers, keyword)})
    for keyword in ("IssuerOfPatientID", "StudyDescription", "InstitutionName"):  # type 3: there or not
        if text := first_of(headers, keyword):
            put(head, **{keyword: text})
    for keyword in ("IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "ProcedureCodeSequence"):
        if items := next((items for header in headers if (items := items_of(header, keyword))), []):
            put(head, **{keyword: copies(items)})
    if patient_id_issuer and "IssuerOfPatientIDQualifiersSequence" not in head and value_of(head, "PatientID"):
        put(head, IssuerOfPatientIDQualifiersSequence=issuer_item(patient_id_issuer))
    put(head, AccessionNumber=accessions.pop() if len(accessions) == 1 else "")
    if value_of(head, "AccessionNumber") and (issuers := items_of(requests[0], "IssuerOfAccessionNumberSequence")):
        put(head, IssuerOfAccessionNumberSequence=copies(issuers))
    if requests:
        put(head, ReferencedRequestSequence=requests)
    return head


def _requests(headers: Iterable[Dataset], accession_issuer: str | None) -> list[Dataset]:
    """Items of ReferencedRequestSequence: one for each accession number and placer order (PS3.3 C.17.6.2, type 1C)."""
    requests: dict[tuple[str, str], Dataset] = {}
    for header in headers:
        for source in items_of(header, "RequestAttributesSequence") or [Dataset()]:
            both = (source, header)
            request = Dataset()
            for keyword in (
                "AccessionNumber",
                "PlacerOrderNumberImagingServiceRequest",
                "FillerOrderNumberImagingServiceRequest",
                "RequestedProcedureID",
                "RequestedProcedureDescription",
            ):
                put(request, **{keyword: first_of(both, keyword)})
            for keyword in (
                "IssuerOfAccessionNumberSequence",
                "OrderPlacerIdentifierSequence",
                "OrderFillerIdentifierSequence",
            ):
                if items := items_of(source, keyword) or items_of(header, keyword):
                    put(request, **{keyword: copies(items)})
            accession, placer = (
                value_of(request, k) for k in ("AccessionNumber", "PlacerOrderNumberImagingServiceRequest")
            )
            if not (accession or placer) or (accession, placer) in requests:
                continue
            if accession and accession_issuer and "IssuerOfAccessionNumberSequence" not in request:
                put(request, IssuerOfAccessionNumberSequence=issuer_item(accession_issuer))
            codes = items_of(source, "RequestedProcedureCodeSequence") or items_of(
                header, "RequestedProcedureCodeSequence"
            )
            put(request, RequestedProcedureCodeSequence=copies(codes), ReferencedStudySequence=[])
            put(request, StudyInstanceUID=value_of(header, "StudyInstanceUID"))
            requests[accession, placer] = request
    return list(requests.values())
