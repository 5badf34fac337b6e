"""The manifest of IHE MADO as a Key Object Selection: an XDS-I.b manifest that describes what it lists, in an image library.

Clauses: IHE RAD MADO (trial implementation, rev. 1.1), PS3.16 TID 2010, 1600, 1601. Its codes are temporary until DICOM has final ones;
both are read, and which are written is configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from imaging.kos.building import Content, copies, issuer_item, put
from imaging.kos.encoding import (
    Series,
    encoded_choice,
    encoded_choices,
    encoded_code,
    encoded_container,
    encoded_date,
    encoded_number,
    encoded_reference,
    encoded_text,
    encoded_time,
    encoded_uid,
    value_type,
)
from imaging.kos.manifest import (
    DESCRIBED,
    KEY_OBJECT_SELECTION,
    Coded,
    Finding,
    StudyReference,
    coded_of,
    concept_of,
    first_of,
    items_of,
    value_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """What a row of the description is named: by the code that IHE lends it, and by the one that is proposed for DICOM."""

    temporary: Coded
    final: Coded

    def written(self, *, final: bool) -> Coded:
        return self.final if final else self.temporary

    def names(self, item: Dataset) -> bool:
        """Whether this is what a content item has as its name."""
        name = concept_of(item)
        known = ((self.temporary.value, self.temporary.scheme), (self.final.value, self.final.scheme))
        return (name.value, name.scheme) in known


def _both(temporary: str, final: str, meaning: str) -> Concept:
    return Concept(temporary=Coded(temporary, "99IHE", meaning), final=Coded(final, "DCM", meaning))


TEMPORARY_TITLE = Coded("MADOTEMP001", "99IHE", DESCRIBED)
SERIES_DESCRIPTION = _both("MADOTEMP002", "131563", "Series Description")
SERIES_DATE = _both("MADOTEMP003", "131561", "Series Date")
SERIES_TIME = _both("MADOTEMP004", "131562", "Series Time")
INSTANCES_OF_SERIES = _both("MADOTEMP007", "131564", "Number of Series Related Instances")
SERIES_OF_STUDY = _both("MADOTEMP009", "131565", "Number of Study Related Series")
_PROCEDURE = Coded("121023", "DCM", "Procedure Code")
_LIBRARY = Coded("111028", "DCM", "Image Library")
_GROUP = Coded("126200", "DCM", "Image Library Group")
_MODALITY = Coded("121139", "DCM", "Modality")
_REGION = Coded("123014", "DCM", "Target Region")
_SERIES_NUMBER = Coded("113607", "DCM", "Series Number")
_SERIES_UID = Coded("112002", "DCM", "Series Instance UID")
_FRAMES = Coded("121140", "DCM", "Number of Frames")
_INSTANCE_NUMBER = Coded("113609", "DCM", "Instance Number")
_TITLE = Coded("121144", "DCM", "Document Title")
_DESCRIPTION = Coded("113012", "DCM", "Key Object Description")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a manifest is to say beside what the headers do.

    `title` is its title, `final` whether DICOM's proposed codes are written. `modality` names one, `regions` are those of a series.
    `other_patient_ids` are ids of the patient elsewhere, each with the OID of who assigns it; `generated_issuer` is the OID under which an
    accession number is made up for a study that has none (MADO demands one).
    """

    title: Coded = TEMPORARY_TITLE
    final: bool = False
    modality: Callable[[str], Coded]
    regions: Callable[[Sequence[Dataset]], Sequence[Coded]]
    other_patient_ids: Sequence[tuple[str, str]] = ()
    generated_issuer: str = ""

    def content(self) -> Content:
        """What the building of a manifest is given."""
        return Content(title=self.title, items=self._items, amend=self._amend)

    # --- the object itself --------------------------------------------------------------------------------------------

    def _amend(self, head: Dataset) -> None:
        self._name_the_patient(head)
        requests = items_of(head, "ReferencedRequestSequence")
        if not (value_of(head, "AccessionNumber") or first_of(requests, "AccessionNumber")):
            made_up = generated_accession(value_of(head, "StudyInstanceUID"))
            numbered = issuer_item(self.generated_issuer or None)
            put(head, AccessionNumber=made_up)
            if numbered:
                put(head, IssuerOfAccessionNumberSequence=numbered)
            requests = requests or [_request(head)]
            for request in requests:
                put(request, AccessionNumber=made_up)
                if numbered:
                    put(request, IssuerOfAccessionNumberSequence=copies(numbered))
            put(head, ReferencedRequestSequence=requests)

    def _name_the_patient(self, head: Dataset) -> None:
        """OtherPatientIDsSequence has every id that is known, the primary one among them."""
        known = items_of(head, "OtherPatientIDsSequence")
        primary = value_of(head, "PatientID")
        if primary:
            item = _patient_id(primary, copies(items_of(head, "IssuerOfPatientIDQualifiersSequence")))
            if issuer := value_of(head, "IssuerOfPatientID"):
                put(item, IssuerOfPatientID=issuer)
            known = [item, *(one for one in known if value_of(one, "PatientID") != primary)]
        there = {value_of(one, "PatientID") for one in known[bool(primary) :]}
        known += [_patient_id(one, issuer_item(oid)) for one, oid in self.other_patient_ids if one not in there]
        if known:
            put(head, OtherPatientIDsSequence=known)

    # --- its content --------------------------------------------------------------------------------------------------

    def _items(self, series: Series) -> Sequence[bytes]:
        return [*self._procedures(series), *encoded_choices(series), self._library(series)]

    def _procedures(self, series: Series) -> Iterator[bytes]:
        headers = (header for members in series.values() for header in members)
        codes = next((items for one in headers if (items := items_of(one, "ProcedureCodeSequence"))), [])
        for one in map(coded_of, codes):
            if one.value and one.scheme:
                yield encoded_code("HAS CONCEPT MOD", _PROCEDURE, one)

    def _library(self, series: Series) -> bytes:
        firsts = [members[0] for members in series.values()]
        modalities = dict.fromkeys(value_of(one, "Modality") or "OT" for one in firsts)
        regions = dict.fromkeys(region for members in series.values() for region in self.regions(members))
        children = [
            *(_said_code(_MODALITY, self.modality(one)) for one in modalities),
            *(_said_code(_REGION, one) for one in regions),
            self._said_number(SERIES_OF_STUDY, len(series), "series"),
            *(self._group(uid, members) for uid, members in series.items()),
        ]
        return encoded_container("CONTAINS", _LIBRARY, children)

    def _group(self, series_uid: str, members: Sequence[Dataset]) -> bytes:
        return encoded_container("CONTAINS", _GROUP, [*self._of_series(series_uid, members), *map(_entry, members)])

    def _of_series(self, series_uid: str, members: Sequence[Dataset]) -> Iterator[bytes]:
        def text(keyword: str) -> str:
            return first_of(members, keyword)

        yield _said_code(_MODALITY, self.modality(text("Modality") or "OT"))
        if len(date := text("SeriesDate")) == 8:
            yield encoded_date("HAS ACQ CONTEXT", self._named(SERIES_DATE), date)
        if time := text("SeriesTime"):
            yield encoded_time("HAS ACQ CONTEXT", self._named(SERIES_TIME), time[:16])
        if description := text("SeriesDescription"):
            yield encoded_text("HAS ACQ CONTEXT", self._named(SERIES_DESCRIPTION), description)
        if number := text("SeriesNumber"):
            yield encoded_text("HAS ACQ CONTEXT", _SERIES_NUMBER, number)
        yield encoded_uid("HAS ACQ CONTEXT", _SERIES_UID, series_uid)
        for region in self.regions(members):
            yield _said_code(_REGION, region)
        yield self._said_number(INSTANCES_OF_SERIES, len(members), "instances")

    def _said_number(self, concept: Concept, value: int, unit: str) -> bytes:
        return _said_number(self._named(concept), value, unit)

    def _named(self, concept: Concept) -> Coded:
        return concept.written(final=self.final)


def generated_accession(study_instance_uid: str) -> str:
    """An accession number for a study that has none: the same each time, and an SH."""
    return "X" + hashlib.sha256(study_instance_uid.encode()).hexdigest()[:15].upper()


def check_described(dataset: Dataset, studies: Sequence[StudyReference]) -> Iterator[Finding]:
    """Rule 17: the image library counts and describes the series and instances that the evidence lists."""
    listed = {series.series_instance_uid: len(series.instances) for study in studies for series in study.series}
    libraries = [one for one in items_of(dataset, "ContentSequence") if _is(one, _LIBRARY)]
    if len(libraries) != 1:
        yield _finding(f"There are {len(libraries)} image libraries, not one.")
    for library in libraries:
        children = items_of(library, "ContentSequence")
        count = _number(children, SERIES_OF_STUDY)
        if count != str(len(listed)):
            yield _finding(f"Number of Study Related Series is {count!r}; {len(listed)} are listed.")
        described = set()
        for group in (items_of(one, "ContentSequence") for one in children if _is(one, _GROUP)):
            uid = next((value_of(one, "UID") for one in group if _is(one, _SERIES_UID)), "")
            described.add(uid)
            count = _number(group, INSTANCES_OF_SERIES)
            if uid in listed and count != str(listed[uid]):
                yield _finding(
                    f"Series {uid}: Number of Series Related Instances is {count!r}; {listed[uid]} are listed."
                )
        if differing := described ^ listed.keys():
            yield _finding(f"{len(differing)} series are in the image library or in the evidence but not in both.")


def _is(item: Dataset, code: Coded) -> bool:
    name = concept_of(item)
    return (name.value, name.scheme) == (code.value, code.scheme)


def _finding(text: str) -> Finding:
    return Finding(rule=17, level="warning", text=text)


def _number(items: Sequence[Dataset], concept: Concept) -> str:
    """The value of a NUM, or of the TEXT that earlier drafts had; "" where there is none."""
    for item in items:
        if concept.names(item):
            return first_of(items_of(item, "MeasuredValueSequence"), "NumericValue") or value_of(item, "TextValue")
    return ""


def _entry(header: Dataset) -> bytes:
    """TID 1601: an instance."""
    sop_class, said = value_of(header, "SOPClassUID"), []
    if frames := value_of(header, "NumberOfFrames"):
        said.append(_said_number(_FRAMES, frames, "frames"))
    if number := value_of(header, "InstanceNumber"):
        said.append(encoded_text("HAS ACQ CONTEXT", _INSTANCE_NUMBER, number))
    if sop_class == KEY_OBJECT_SELECTION:
        if (title := concept_of(header)).value:
            said.append(_said_code(_TITLE, title))
        texts = (one for one in items_of(header, "ContentSequence") if _is(one, _DESCRIPTION))
        if description := first_of(texts, "TextValue"):
            said.append(encoded_text("HAS ACQ CONTEXT", _DESCRIPTION, description))
    reference = encoded_reference(sop_class, value_of(header, "SOPInstanceUID"))
    return encoded_choice(value_type(sop_class), reference, children=said)


def _said_code(name: Coded, value: Coded) -> bytes:
    return encoded_code("HAS ACQ CONTEXT", name, value)


def _said_number(name: Coded, value: int | str, unit: str) -> bytes:
    return encoded_number("HAS ACQ CONTEXT", name, str(value)[:16], Coded(f"{{{unit}}}", "UCUM", unit))


def _request(head: Dataset) -> Dataset:
    """An item of ReferencedRequestSequence for an order of which nothing is known (PS3.3 C.17.6.2)."""
    request = Dataset()
    put(request, StudyInstanceUID=value_of(head, "StudyInstanceUID"), ReferencedStudySequence=[])
    put(request, PlacerOrderNumberImagingServiceRequest="", FillerOrderNumberImagingServiceRequest="")
    put(request, RequestedProcedureID="", RequestedProcedureDescription="", RequestedProcedureCodeSequence=[])
    return request


def _patient_id(identifier: str, issuers: list[Dataset]) -> Dataset:
    item = Dataset()
    put(item, PatientID=identifier, TypeOfPatientID="TEXT")
    if issuers:
        put(item, IssuerOfPatientIDQualifiersSequence=issuers)
    return item
