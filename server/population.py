"""A registry's population as ten years might leave it: the same one for a seed, of any size, made where it is needed.

Patients have a skewed number of documents, about 20 in the mean. All that a registry has by then follows from the submissions in their
order, and is computed here too: what was replaced, which folders a replacement joined, when a folder last changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from registry.bulk import Settled
from xds.metadata import Association, Author, DocumentEntry, Folder, Submission, SubmissionSet
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    Organization,
    Person,
    PidField,
    ReferenceId,
    Sha1,
    Size,
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import (
    REFERENCE_ACCESSION,
    REFERENCE_ORDER,
    REFERENCE_STUDY_INSTANCE_UID,
    AssociationType,
    Status,
)

T = TypeVar("T")
AUTHORITY = "1.2.3.4.5.1000"
_SOURCES = "1.2.3.4.5.2000"
_MOST_DOCUMENTS = 1000
#: Of a part: so many are in one transaction.
_PART_DOCUMENTS = 4000
_FIRST, _YEARS = datetime(2016, 1, 1, tzinfo=UTC), 10
_SPAN_S = _YEARS * 365 * 86_400


def _skewed(weights: dict[T, int]) -> tuple[T, ...]:
    """Each as often as its weight says: taking one of them at random is then one look."""
    return tuple(one for one, weight in weights.items() for _ in range(weight))


def _names(listed: str) -> tuple[str, ...]:
    return tuple(listed.split())


# --- what documents are about -----------------------------------------------------------------------------------------

_SNOMED, _ICD10, _DCM = "2.16.840.1.113883.6.96", "2.16.840.1.113883.6.90", "1.2.840.10008.2.16.4"


@dataclass(frozen=True)
class _Type:
    """What goes together in documents of a type."""

    class_code: Code
    type_code: Code
    format_code: Code
    mime_type: MimeType
    event_codes: tuple[Code, ...]
    about: str


def _codes(scheme: str, listed: str) -> tuple[Code, ...]:
    """Codes, each with its display name, separated by semicolons."""
    pairs = (one.split(maxsplit=1) for one in listed.split(";"))
    return tuple(Code.of(code, scheme, name) for code, name in pairs)


_MODALITIES = _codes(
    _DCM,
    "DX Digital Radiography; CT Computed Tomography; US Ultrasound; MR Magnetic Resonance; MG Mammography",
)
_DIAGNOSES = _codes(
    _ICD10,
    "I10 Essential hypertension; E11.9 Type 2 diabetes mellitus; J06.9 Acute upper respiratory infection; "
    "M54.5 Low back pain; E78.5 Hyperlipidemia; J18.9 Pneumonia; N39.0 Urinary tract infection; "
    "I48.91 Atrial fibrillation; F32.9 Depressive episode; I50.9 Heart failure",
)


_IHE_FORMATS = _codes(
    "1.3.6.1.4.1.19376.1.2.3",
    "urn:ihe:iti:xds-sd:pdf:2008 Scanned document, PDF; urn:ihe:iti:xds:2017:mimeTypeSufficient mimeType Sufficient; "
    "urn:ihe:lab:xd-lab:2008 Laboratory report; urn:ihe:pcc:xds-ms:2007 Medical summary",
)
_KOS = _codes("1.2.840.10008.2.6.1", "1.2.840.10008.5.1.4.1.1.88.59 Key Object Selection Document")
_FORMATS = dict(zip(("scanned", "any", "lab", "summary", "kos"), _IHE_FORMATS + _KOS, strict=True))
_EVENTS = {"images": _MODALITIES, "diagnoses": _DIAGNOSES, "-": ()}


def _types(lines: str) -> tuple[_Type, ...]:
    """Each line's weight, class, LOINC code, format, MIME type, event codes, what it refers to, and display name."""
    weights: dict[_Type, int] = {}
    for line in lines.strip().splitlines():
        weight, class_name, loinc, form, mime_type, events, about, name = line.split(maxsplit=7)
        class_code = Code.of(class_name.upper(), "1.3.6.1.4.1.19376.1.2.6.1", class_name)
        type_code = Code.of(loinc, "2.16.840.1.113883.6.1", name)
        weights[_Type(class_code, type_code, _FORMATS[form], MimeType(mime_type), _EVENTS[events], about)] = int(weight)
    return _skewed(weights)


_TYPES = _types(
    """26 Reports 11502-2 lab text/xml - order Laboratory report
    14 Reports 18748-4 scanned application/pdf images study Diagnostic imaging study
    12 Images 18748-4 kos application/dicom images study Diagnostic imaging study
    12 Notes 11506-3 any application/pdf diagnoses - Progress note
    8 Summaries 18842-5 summary text/xml diagnoses - Discharge summary
    8 Prescriptions 57833-6 any application/pdf - - Prescription for medication
    6 Notes 11488-4 summary text/xml diagnoses - Consultation note
    4 Notes 34111-5 scanned application/pdf diagnoses - Emergency department note
    3 Workflows 57133-1 summary text/xml - order Referral note
    3 Reports 11526-1 scanned application/pdf - order Pathology study
    2 Notes 11504-8 scanned application/pdf diagnoses - Surgical operation note
    2 Reports 11524-6 any application/pdf - - EKG study
    2 Summaries 60591-5 summary text/xml - - Patient summary
    1 Certificates 11369-6 summary text/xml - - History of Immunization
    1 Certificates 59284-0 scanned application/pdf - - Patient Consent"""
)
_SPECIALTIES = _codes(
    _SNOMED,
    "394802001 General medicine; 394914008 Radiology; 394579002 Cardiology; 394609007 General surgery; "
    "773568002 Emergency medicine; 394537008 Pediatrics; 394801008 Trauma and orthopedics; "
    "394593009 Medical oncology; 394591006 Neurology; 394587001 Psychiatry; 394594003 Ophthalmology; "
    "394582007 Dermatology",
)
_FACILITIES = _codes(
    _SNOMED,
    "22232009 Hospital; 83891005 Solo practice private office; 35971002 Ambulatory care site; "
    "225728007 Accident and Emergency department; 42665001 Nursing home",
)
_NORMAL, _RESTRICTED, _VERY = _codes("2.16.840.1.113883.5.25", "N normal; R restricted; V very restricted")
_CONFIDENTIALITY = _skewed({(_NORMAL,): 92, (_RESTRICTED,): 7, (_VERY,): 1})
_LANGUAGES = _skewed({LanguageCode("en-US"): 16, LanguageCode("de-CH"): 3, LanguageCode("fr-CH"): 1})
_FOLDER_CODES = _codes(_SNOMED, "185349003 Encounter for check up; 397821002 Patient transfer")

# --- people and places ------------------------------------------------------------------------------------------------

_FAMILY = _names("Muster Meier Müller Schmid Keller Huber Favre Lévy Rossi Silva Smith Jones Novák Berg Olsen")
_GIVEN = _names("Ann Peter Maria Hans Verena Marco Laura José Zoë Nicolas Emma Noah Mia")
_INSTITUTIONS, _AUTHORS = 60, 4000
_PLACES = ("General Hospital", "Regional Clinic", "Group Practice", "Institute of Radiology", "Laboratory")


@cache
def _author(number: int) -> Author:
    specialty = _SPECIALTIES[number % len(_SPECIALTIES)]
    family, given = _FAMILY[number * 7 % len(_FAMILY)], _GIVEN[number * 5 % len(_GIVEN)]
    place = number % _INSTITUTIONS
    institution = f"{_PLACES[place % len(_PLACES)]} {place + 1}"
    return Author(
        author_person=Person(f"{10_000 + number}^{family}^{given}^^^Dr^^^&{AUTHORITY}.1&ISO"),
        author_institution=(Organization(f"{institution}^^^^^^^^^{_SOURCES}.{place + 1}"),),
        author_role=("Attending" if number % 4 else "Resident",),
        author_specialty=(str(specialty.display),),
    )


def patient(seed: int, number: int) -> Identifier:
    """The patientId of the n-th patient, counted from 0: ids do not follow one another."""
    return Identifier.of(f"{number * 2_654_435_761 % 2**32:010d}", f"{AUTHORITY}.{seed + 2}")


def document_counts(seed: int) -> Iterator[int]:
    """How many documents each patient has, without end: half have fewer than ten, one in a hundred more than 180."""
    rng = random.Random(f"counts of {seed}")
    while True:
        yield min(_MOST_DOCUMENTS, max(1, round(rng.lognormvariate(2.15, 1.3))))


def _time(moment: datetime) -> Timestamp:
    """As Timestamp.at, which takes four times as long."""
    t = moment
    return Timestamp(f"{t.year:04d}{t.month:02d}{t.day:02d}{t.hour:02d}{t.minute:02d}{t.second:02d}")


# --- a patient's history ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One submission as it was sent, and the memberships in folders that the registry added of itself, in the order of their ids."""

    moment: datetime
    submission: Submission
    inherited: tuple[Association, ...]


@dataclass(slots=True)
class History:
    """All that happened to a patient's metadata."""

    patient_id: Identifier
    steps: list[Step] = field(default_factory=list)
    deprecated: set[str] = field(default_factory=set)
    folder_times: dict[str, Timestamp] = field(default_factory=dict)

    def settled(self) -> Iterator[tuple[datetime, Settled]]:
        """What each submission left, with all that later ones did to it."""
        for step in self.steps:
            objects = (*step.submission.objects, *step.inherited)
            yield step.moment, Settled(str(self.patient_id), tuple(self._in_the_end(one) for one in objects))

    def _in_the_end(self, one: Any) -> Any:
        if one.entry_uuid in self.deprecated:
            return replace(one, availability_status=str(Status.DEPRECATED))
        if one.entry_uuid in self.folder_times:
            return replace(one, last_update_time=self.folder_times[one.entry_uuid])
        return one


def history(seed: int, number: int, documents: int) -> History:
    """The history of the n-th patient, who has so many documents."""
    return _Teller(random.Random(f"patient {number} of {seed}"), patient(seed, number)).tell(documents)


class _Teller:
    """Makes up a history, step by step."""

    def __init__(self, rng: random.Random, patient_id: Identifier) -> None:
        self.rng, self.random = rng, rng.random
        self.history = History(patient_id)
        #: Entries that may be replaced and appended to, each with its folder, and what was appended to each.
        self.approved: dict[str, str | None] = {}
        self.addenda: dict[str, list[str]] = {}
        self.folders: list[str] = []
        self.local_id = Identifier.of(str(100_000 + rng.getrandbits(20)), f"{_SOURCES}.{1 + rng.getrandbits(3)}")
        family, given = self.one_of(_FAMILY), self.one_of(_GIVEN)
        born = f"{1925 + int(self.random() * 100)}{1 + int(self.random() * 12):02d}{1 + int(self.random() * 28):02d}"
        self.information = (
            PidField(f"PID-3|{self.local_id}"),
            PidField(f"PID-5|{family}^{given}^^^"),
            PidField(f"PID-7|{born}"),
            PidField(f"PID-8|{self.one_of('FM')}"),
            PidField(f"PID-11|{1 + rng.getrandbits(7)} Main Street^^Town {rng.getrandbits(8)}^^{1000 + rng.getrandbits(12)}^CHE"),
        )  # fmt: skip

    def one_of(self, among: Sequence[T]) -> T:
        return among[int(self.random() * len(among))]

    def early(self, among: Sequence[T]) -> T:
        """One of them, the first ones much more often."""
        return among[int(self.random() ** 3 * len(among))]

    def new_uuid(self) -> str:
        digits = f"{self.rng.getrandbits(128):032x}"
        return f"urn:uuid:{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def tell(self, documents: int) -> History:
        sizes: list[int] = []
        while (left := documents - sum(sizes)) > 0:
            sizes.append(min(left, self.one_of((1, 1, 1, 1, 1, 1, 2, 2, 3))))
        for second, size in zip(sorted(int(self.random() * _SPAN_S) for _ in sizes), sizes, strict=True):
            self.submit(_FIRST + timedelta(seconds=second), size)
        return self.history

    def submit(self, moment: datetime, documents: int) -> None:
        author = _author(int(self.random() ** 2 * _AUTHORS))
        kind = self.one_of(_TYPES)
        entries = tuple(self.entry(moment, author, kind) for _ in range(documents))
        uuid_of_set = self.new_uuid()
        submission_set = SubmissionSet(
            entry_uuid=uuid_of_set,
            author=(author,),
            content_type_code=kind.type_code,
            logical_id=uuid_of_set,
            patient_id=self.history.patient_id,
            source_id=Oid(author.author_institution[0].rpartition("^")[2]),
            submission_time=_time(moment),
            title=kind.type_code.display if self.random() < 0.3 else Text(),
            unique_id=Oid(self.oid()),
            version="1",
        )
        links = [self.link(AssociationType.HAS_MEMBER, uuid_of_set, one.entry_uuid, "Original") for one in entries]
        folders, inherited = list[Folder](), list[Association]()
        for n, entry in enumerate(entries):
            relations, joined = self.relate(entry, moment, uuid_of_set) if n == 0 else ([], [])
            new, members = ([], []) if relations else self.file(entry, moment, uuid_of_set)
            links += [*relations, *members]
            inherited += joined
            folders += new
        submission = Submission(
            submission_sets=(submission_set,),
            document_entries=entries,
            folders=tuple(folders),
            associations=tuple(links),
        )
        self.history.steps.append(Step(moment, submission, tuple(inherited)))
        # Only a later submission can refer to them.
        for entry in entries:
            self.approved.setdefault(entry.entry_uuid, None)

    # --- objects ----------------------------------------------------------------------------------------------------

    def oid(self) -> str:
        return f"2.25.{self.rng.getrandbits(122)}"

    def entry(self, moment: datetime, author: Author, kind: _Type) -> DocumentEntry:
        rng, new = self.rng, self.new_uuid()
        created = moment - timedelta(seconds=int(self.random() ** 4 * 86_400 * 30))
        served = created - timedelta(hours=int(self.random() ** 3 * 200))
        events = (self.early(kind.event_codes),) if kind.event_codes and self.random() < 0.8 else ()
        second = (_author(int(self.random() ** 2 * _AUTHORS)),) if self.random() < 0.15 else ()
        return DocumentEntry(
            entry_uuid=new,
            author=(author, *second),
            class_code=kind.class_code,
            comments=Text.of("Scanned from paper; see the original for marginal notes.")
            if self.random() < 0.1
            else Text(),
            confidentiality_code=self.one_of(_CONFIDENTIALITY),
            creation_time=_time(created),
            event_code_list=events,
            format_code=kind.format_code,
            hash=Sha1(f"{rng.getrandbits(160):040x}"),
            healthcare_facility_type_code=self.early(_FACILITIES),
            language_code=self.one_of(_LANGUAGES),
            legal_authenticator=author.author_person if self.random() < 0.6 else None,
            logical_id=new,
            mime_type=kind.mime_type,
            patient_id=self.history.patient_id,
            practice_setting_code=self.early(_SPECIALTIES),
            reference_id_list=self.references(kind),
            repository_unique_id=Oid(f"1.2.3.4.5.3000.{1 + rng.getrandbits(2)}"),
            service_start_time=Timestamp(_time(served)[:8]) if self.random() < 0.3 else _time(served),
            service_stop_time=_time(created) if self.random() < 0.7 else None,
            size=Size(str(int(rng.lognormvariate(10.5, 1.6)) + 1)),
            source_patient_id=self.local_id,
            source_patient_info=self.information,
            title=kind.type_code.display,
            type_code=kind.type_code,
            unique_id=UniqueId(self.oid()),
            version="1",
        )

    def references(self, kind: _Type) -> tuple[ReferenceId, ...]:
        match kind.about:
            case "study":
                accession = ReferenceId.of(f"A{self.rng.getrandbits(32)}", REFERENCE_ACCESSION, f"{_SOURCES}.1")
                return accession, ReferenceId.of(self.oid(), REFERENCE_STUDY_INSTANCE_UID)
            case "order":
                return (ReferenceId.of(f"O{self.rng.getrandbits(32)}", REFERENCE_ORDER, f"{_SOURCES}.2"),)
        return ()

    def link(self, kind: AssociationType, source: str, target: str, status: str | None = None) -> Association:
        new = self.new_uuid()
        return Association(
            entry_uuid=new,
            association_type=kind,
            logical_id=new,
            source_object=source,
            submission_set_status=status,
            target_object=target,
            version="1",
        )

    # --- what submissions do to what is there -------------------------------------------------------------------------

    def relate(
        self, entry: DocumentEntry, moment: datetime, uuid_of_set: str
    ) -> tuple[list[Association], list[Association]]:
        """One submission in 15 replaces an earlier entry, which takes its place in its folder; one in 30 is appended to one.

        Only the first of its entries does so: two that touch the same entry would have effects on each other (ITI TF-3 4.2.2.2).
        """
        chance = self.random()
        if chance > 0.11 or not self.approved:
            return [], []
        new, old = entry.entry_uuid, self.one_of(tuple(self.approved))
        if chance > 0.075:
            self.addenda.setdefault(old, []).append(new)
            return [self.link(AssociationType.APND, new, old)], []
        replacement = self.link(AssociationType.RPLC, new, old)
        folder = self.approved[old]
        self.deprecate(old)
        if folder is None:
            return [replacement], []
        self.approved_in(new, folder, moment)
        member = self.link(AssociationType.HAS_MEMBER, folder, new)
        return [replacement], [member, self.link(AssociationType.HAS_MEMBER, uuid_of_set, member.entry_uuid)]

    def deprecate(self, entry_uuid: str) -> None:
        """ITI TF-2 3.42.4.1.3.5: with whatever was appended to it."""
        self.history.deprecated.add(entry_uuid)
        self.approved.pop(entry_uuid, None)
        for one in self.addenda.get(entry_uuid, ()):
            self.deprecate(one)

    def approved_in(self, entry_uuid: str, folder: str, moment: datetime) -> None:
        self.history.folder_times[folder] = _time(moment)
        self.approved[entry_uuid] = folder

    def file(self, entry: DocumentEntry, moment: datetime, uuid_of_set: str) -> tuple[list[Folder], list[Association]]:
        """One in 20 opens a folder, and one in five joins one."""
        chance, made = self.random(), []
        if chance < 0.05:
            folder = self.new_uuid()
            self.folders.append(folder)
            code = self.early(_FOLDER_CODES)
            made.append(
                Folder(
                    entry_uuid=folder,
                    code_list=(code,),
                    logical_id=folder,
                    patient_id=self.history.patient_id,
                    title=code.display,
                    unique_id=UniqueId(self.oid()),
                    version="1",
                )
            )
        elif chance < 0.25 and self.folders:
            folder = self.folders[-1]
        else:
            return [], []
        self.approved_in(entry.entry_uuid, folder, moment)
        member = self.link(AssociationType.HAS_MEMBER, folder, entry.entry_uuid)
        links = [member, self.link(AssociationType.HAS_MEMBER, uuid_of_set, member.entry_uuid)]
        return made, links + [self.link(AssociationType.HAS_MEMBER, uuid_of_set, one.entry_uuid) for one in made]


# --- the whole --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Some patients, the first one's number and how many documents each has. Called, it gives their objects in the order of time."""

    seed: int
    first: int
    documents: tuple[int, ...]

    def histories(self) -> Iterator[History]:
        for n, count in enumerate(self.documents):
            yield history(self.seed, self.first + n, count)

    def __call__(self) -> list[Settled]:
        # As they come in: what is of one patient does not lie together in the tables.
        settled = [one for each in self.histories() for one in each.settled()]
        settled.sort(key=lambda one: one[0])
        return [one for _, one in settled]


def parts(documents: int, seed: int = 1) -> Iterator[Part]:
    """A population of exactly so many documents."""
    first, counts, left = 0, list[int](), documents
    for count in document_counts(seed):
        counts.append(min(count, left))
        left -= counts[-1]
        if left == 0 or sum(counts) >= _PART_DOCUMENTS:
            yield Part(seed, first, tuple(counts))
            first, counts = first + len(counts), []
        if left == 0:
            return
