"""Every stored query against a plain filter in Python, over a world of several patients; and every request to text and back.

The filters are written from ITI TF-2 3.18.4.1.2.3.7 and know nothing of SQL.
"""

from __future__ import annotations

import random
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from sqlalchemy import update

from registry.iti18_stored_query import stored_query
from registry.schema import upgrade
from registry.store import Footprint, Store, open_engine
from registry.tables import BY_KIND
from schemas import query as wire
from schemas import rim
from schemas.query_parameters import AT_LEAST_ONE, AT_MOST_ONE, PARAMETERS
from xds.metadata import Association, Author, DocumentEntry, Folder, ObjectRef, RegistryObject, SubmissionSet
from xds.problems import Failure
from xds.queries import MultiPatientQuery, ReturnType, StoredQuery
from xds.values import Code, Identifier, Oid, Person, ReferenceId, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

KINDS: tuple[type[Any], ...] = get_args(StoredQuery)
PATIENTS = [Identifier.of(name, "1.2.3.4") for name in ("p1", "p2", "O'Brien", "M\u00fcller")]
NOBODY = Identifier.of("nobody", "1.2.3.4")
# The same letter composed and decomposed; a code in two schemes; what would end a string of JSON.
CODES = [
    *(Code.of(code, scheme, code) for code in ("A", "B", "M\u00fc") for scheme in ("1.2", "1.3")),
    Code.of('x"A', "1.2", ""),
]
ASKED_CODES = [*(code.key for code in CODES), "Mu\u0308^^1.2", "C^^1.2", '"A^^1.2', "\\"]
TIMES = ["2023", "202312", "20240101", "20240101120000", "2025"]
PEOPLE = ["1^Muster^Ann", "^Muster^Bob", "^muster", "^50%^x", "^a_b", "^back\\slash", "^M\u00fcller", '^q"uote', "^a,b"]
PATTERNS = [*PEOPLE, "%", "%Muster%", "^Must_r%", "^50\\%^x", "%\\%", "^Mu\u0308ller", "uote%", "nobody"]
REFERENCES = [f"{n}^^^&1.2&ISO^urn:ihe:iti:xds:2013:accession" for n in ("1", "%", "_", "M\u00fc")] + [
    'a"1^^^&1.2&ISO^urn:ihe:iti:xds:2013:accession'
]
ONLINE, OFFLINE = (f"urn:ihe:iti:2010:DocumentAvailability:{one}" for one in ("Online", "Offline"))
APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
RELATIONS = [str(one) for one in AssociationType if one is not AssociationType.HAS_MEMBER]
T = TypeVar("T", bound=RegistryObject)


# --- the world --------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What is registered, by entryUUID: objects with their status and patient; which of them are superseded versions."""

    entries: dict[str, DocumentEntry] = field(default_factory=dict)
    sets: dict[str, SubmissionSet] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)
    associations: dict[str, Association] = field(default_factory=dict)
    owners: dict[str, Identifier] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)

    @property
    def holders(self) -> list[DocumentEntry | Folder | SubmissionSet]:
        """What has a patientId and a uniqueId."""
        return [*self.entries.values(), *self.folders.values(), *self.sets.values()]

    @property
    def objects(self) -> dict[str, RegistryObject]:
        return {**self.entries, **self.sets, **self.folders, **self.associations}


def ids(objects: Iterable[RegistryObject]) -> list[str]:
    return [one.entry_uuid for one in objects]


class Maker:
    """Makes a world by chance, always the same one for a number."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World()
        self.count = 0

    def uuid(self) -> str:
        return f"urn:uuid:{uuid.UUID(int=self.random.getrandbits(128), version=4)}"

    def oid(self) -> str:
        self.count += 1
        return f"1.2.3.{self.count}"

    def some(self, of: list[Any], most: int = 3) -> tuple[Any, ...]:
        return tuple(self.random.sample(of, self.random.randint(0, min(most, len(of)))))

    def status(self) -> str:
        return DEPRECATED if self.random.random() < 0.25 else APPROVED

    def time(self) -> Timestamp | None:
        return self.random.choice([None, *map(Timestamp, TIMES)])

    def authors(self) -> tuple[Author, ...]:
        return tuple(Author(author_person=Person(who)) for who in self.some(PEOPLE, 2))

    def entry(self, patient: Identifier) -> DocumentEntry:
        one, on_demand = self.uuid(), self.random.random() < 0.2
        pick = self.random.choice
        return DocumentEntry(
            entry_uuid=one,
            logical_id=one,
            version="1",
            availability_status=self.status(),
            patient_id=patient,
            unique_id=UniqueId(pick(["9.9.9", self.oid(), self.oid(), self.oid()])),
            object_type=ON_DEMAND if on_demand else STABLE,
            creation_time=None if on_demand else Timestamp(pick(TIMES)),
            service_start_time=self.time(),
            service_stop_time=self.time(),
            class_code=pick([None, *CODES]),
            type_code=pick(CODES),
            format_code=pick(CODES),
            practice_setting_code=pick(CODES),
            healthcare_facility_type_code=pick(CODES),
            event_code_list=self.some(CODES),
            confidentiality_code=self.some(CODES, 2),
            author=self.authors(),
            reference_id_list=tuple(map(ReferenceId, self.some(REFERENCES))),
            document_availability=pick([None, ONLINE, OFFLINE]),
        )

    def folder(self, patient: Identifier) -> Folder:
        one = self.uuid()
        return Folder(
            entry_uuid=one,
            logical_id=one,
            version="1",
            availability_status=self.status(),
            patient_id=patient,
            unique_id=UniqueId(self.random.choice(["8.8.8", self.oid(), self.oid()])),
            code_list=self.some(CODES),
            last_update_time=Timestamp(self.random.choice(["20231231235959", "20240101000000", "20240101120000"])),
        )

    def submission_set(self, patient: Identifier) -> SubmissionSet:
        one = self.uuid()
        return SubmissionSet(
            entry_uuid=one,
            logical_id=one,
            version="1",
            availability_status=self.status(),
            patient_id=patient,
            unique_id=Oid(self.oid()),
            source_id=Oid(self.random.choice(["1.2", "1.3"])),
            submission_time=Timestamp(self.random.choice(TIMES)),
            content_type_code=self.random.choice(CODES),
            author=self.authors(),
        )

    def association(self, kind: str, source: str, target: str, patient: Identifier) -> Association:
        one = self.uuid()
        made = Association(
            entry_uuid=one,
            logical_id=one,
            version="1",
            association_type=kind,
            source_object=source,
            target_object=target,
            availability_status=self.status(),
        )
        self.world.associations[one] = made
        self.world.owners[one] = patient
        if self.random.random() < 0.05:
            self.world.old.add(one)
        return made

    def next_version(self, one: T) -> T:
        self.world.old.add(one.entry_uuid)
        return replace(one, entry_uuid=self.uuid(), version="2", logical_id=one.logical_id)

    def make(self) -> World:
        world, member = self.world, str(AssociationType.HAS_MEMBER)
        for patient in PATIENTS:
            entries = [self.entry(patient) for _ in range(25)]
            entries += [self.next_version(one) for one in entries[:5]]
            folders = [self.folder(patient) for _ in range(6)]
            folders += [self.next_version(one) for one in folders[:2]]
            sets = [self.submission_set(patient) for _ in range(8)]
            world.entries |= {one.entry_uuid: one for one in entries}
            world.folders |= {one.entry_uuid: one for one in folders}
            world.sets |= {one.entry_uuid: one for one in sets}
            pick = self.random.choice
            for folder in folders:
                for entry in self.some(entries, 6):
                    link = self.association(member, folder.entry_uuid, entry.entry_uuid, patient)
                    self.association(member, pick(sets).entry_uuid, link.entry_uuid, patient)
            for _ in range(60):
                # The metadata of any patient may be referred to, and updates lead from SubmissionSets (Metadata Update supplement).
                source, target = pick([*ids(entries), *ids(entries), *ids(sets)]), pick([*world.entries])
                link = self.association(pick(RELATIONS), source, target, patient)
                self.association(member, pick(sets).entry_uuid, link.entry_uuid, patient)
            for one in (*ids(entries), *ids(folders), pick([*world.entries])):
                self.association(member, pick(sets).entry_uuid, one, patient)
        world.owners |= {one.entry_uuid: one.patient_id for one in world.holders if one.patient_id}
        return world


def store_world(world: World, store: Store) -> None:
    for patient in PATIENTS:
        for status in Status:
            those = [
                one
                for one in world.objects.values()
                if world.owners[one.entry_uuid] == patient and one.availability_status == status
            ]
            store.write(
                Footprint(),
                lambda unit, those=those, patient=patient, status=status: unit.add(  # type: ignore[misc]
                    those, patient_id=str(patient), status=status
                ),
            )
    with store.engine.begin() as connection:
        for table in BY_KIND.values():
            connection.execute(update(table).where(table.c.entry_uuid.in_(world.old)).values(latest=0))


@pytest.fixture(scope="module")
def world() -> World:
    return Maker(7).make()


@pytest.fixture(scope="module")
def store(module_database: str, world: World) -> Iterator[Store]:
    engine = open_engine(module_database)
    upgrade(engine)
    made = Store(engine)
    store_world(world, made)
    yield made
    made.close()


# --- the queries, as the standard words them --------------------------------------------------------------------------


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def any_of(asked: Iterable[Iterable[str]], has: Iterable[Code | str | None]) -> bool:
    """In each group of what is asked, something that the object has."""
    texts = {nfc(one if isinstance(one, str) else f"{one.code}^^{one.scheme}") for one in has if one is not None}
    return all(any(nfc(one) in texts for one in group) for group in asked)


def like(value: str, pattern: str) -> bool:
    expression = "".join({"%": ".*", "_": "."}.get(one, re.escape(one)) for one in nfc(pattern))
    return re.fullmatch(expression, nfc(value), re.DOTALL) is not None


def written_by(authors: Iterable[Author], patterns: Collection[str]) -> bool:
    return any(like(one.author_person or "", pattern) for one in authors for pattern in patterns)


def padded(time: str) -> str:
    return time + "0000" + "0101000000"[len(time) - 4 :] if len(time) < 4 else time + "0101000000"[len(time) - 4 :]


def within(time: str | None, start: str | None, end: str | None) -> bool:
    if time is None:
        return False
    return (start is None or padded(start) <= padded(time)) and (end is None or padded(time) < padded(end))


def known(world: World, objects: dict[str, T], level: int) -> list[T]:
    """At level 1 only the latest versions."""
    return [one for one in objects.values() if level == 2 or one.entry_uuid not in world.old]


def of_patient(query: Any, one: Any) -> bool:
    if isinstance(query.patient_id, tuple):
        return not query.patient_id or one.patient_id in query.patient_id
    return bool(one.patient_id == query.patient_id)


def matching_entry(query: Any, one: DocumentEntry) -> bool:
    service = (
        ("service_start_time", one.service_start_time),
        ("service_stop_time", one.service_stop_time),
    )
    created = (query.creation_time_from, query.creation_time_to)
    return (
        of_patient(query, one)
        and one.availability_status in query.status
        and (one.object_type == ON_DEMAND or created == (None, None) or within(one.creation_time, *created))
        and all(
            time is None or within(time, getattr(query, f"{name}_from"), getattr(query, f"{name}_to"))
            for name, time in service
        )
        and any_of(query.class_code, [one.class_code])
        and any_of(query.type_code, [one.type_code])
        and any_of(query.format_code, [one.format_code])
        and any_of(query.practice_setting_code, [one.practice_setting_code])
        and any_of(query.healthcare_facility_type_code, [one.healthcare_facility_type_code])
        and any_of(query.event_code_list, one.event_code_list)
        and any_of(query.confidentiality_code, one.confidentiality_code)
        and any_of(getattr(query, "reference_id_list", ()), one.reference_id_list)
        and (not query.author_person or written_by(one.author, query.author_person))
        and (not query.document_availability or (one.document_availability or ONLINE) in query.document_availability)
        and (one.object_type in query.object_type or bool(getattr(query, "object_type_exclude", ())))
    )


def excluded(query: Any, one: DocumentEntry) -> bool:
    had: dict[str, Any] = {
        "class_code": [one.class_code],
        "type_code": [one.type_code],
        "format_code": [one.format_code],
        "practice_setting_code": [one.practice_setting_code],
        "healthcare_facility_type_code": [one.healthcare_facility_type_code],
        "event_code_list": one.event_code_list,
        "confidentiality_code": one.confidentiality_code,
        "reference_id_list": one.reference_id_list,
    }
    exclude = {name: getattr(query, f"{name}_exclude") for name in had}
    return (
        any(groups and any_of(groups, had[name]) for name, groups in exclude.items())
        or written_by(one.author, query.author_person_exclude)
        or one.object_type in query.object_type_exclude
    )


def find_documents(world: World, query: Any) -> set[str]:
    return {one.entry_uuid for one in known(world, world.entries, query.metadata_level) if matching_entry(query, one)}


def find_documents_exclude(world: World, query: Any) -> set[str]:
    return {one for one in find_documents(world, query) if not excluded(query, world.entries[one])}


def find_submission_sets(world: World, query: Any) -> set[str]:
    return {
        one.entry_uuid
        for one in world.sets.values()
        if of_patient(query, one)
        and one.availability_status in query.status
        and (not query.source_id or one.source_id in query.source_id)
        and within(one.submission_time, query.submission_time_from, query.submission_time_to)
        and (not query.author_person or written_by(one.author, query.author_person))
        and any_of(query.content_type, [one.content_type_code])
    }


def find_folders(world: World, query: Any) -> set[str]:
    return {
        one.entry_uuid
        for one in known(world, world.folders, query.metadata_level)
        if of_patient(query, one)
        and one.availability_status in query.status
        and within(one.last_update_time, query.last_update_time_from, query.last_update_time_to)
        and any_of(query.code_list, one.code_list)
    }


def filtered(query: Any, one: DocumentEntry) -> bool:
    return (
        one.object_type in query.object_type
        and any_of(query.format_code, [one.format_code])
        and any_of(query.confidentiality_code, one.confidentiality_code)
    )


def links(world: World, query: Any) -> list[Association]:
    """The associations that the query may know."""
    statuses = getattr(query, "association_status", tuple(map(str, Status)))
    return [
        one for one in known(world, world.associations, query.metadata_level) if one.availability_status in statuses
    ]


def members(world: World, query: Any) -> list[Association]:
    return [one for one in links(world, query) if one.association_type == AssociationType.HAS_MEMBER]


def get_all(world: World, query: Any) -> set[str]:
    level = query.metadata_level
    chosen = {
        one.entry_uuid
        for objects, statuses in (
            (known(world, world.sets, level), query.submission_set_status),
            ([one for one in known(world, world.entries, level) if filtered(query, one)], query.document_entry_status),
            (known(world, world.folders, level), query.folder_status),
        )
        for one in objects
        if one.patient_id == query.patient_id and one.availability_status in statuses
    }
    return chosen | {
        one.entry_uuid for one in links(world, query) if one.source_object in chosen or one.target_object in chosen
    }


def named(world: World, objects: dict[str, Any], query: Any) -> set[str]:
    """By entryUUID exactly these, by another id what the level knows."""
    level = query.metadata_level

    def asked(name: str) -> tuple[str, ...]:
        value = getattr(query, name, None) or ()
        return value if isinstance(value, tuple) else (value,)

    return {one for one in asked("entry_uuid") if one in objects} | {
        one.entry_uuid
        for one in known(world, objects, level)
        if one.unique_id in asked("unique_id") or one.logical_id in asked("logical_id")
    }


def get_documents(world: World, query: Any) -> set[str]:
    return named(world, world.entries, query)


def get_folders(world: World, query: Any) -> set[str]:
    return named(world, world.folders, query)


def get_associations(world: World, query: Any) -> set[str]:
    return {
        one.entry_uuid
        for one in links(world, query)
        if one.source_object in query.uuid or one.target_object in query.uuid
    }


def get_documents_and_associations(world: World, query: Any) -> set[str]:
    entries = named(world, world.entries, query)
    return entries | {
        one.entry_uuid for one in links(world, query) if one.source_object in entries or one.target_object in entries
    }


def get_submission_sets(world: World, query: Any) -> set[str]:
    between = [
        one for one in members(world, query) if one.target_object in query.uuid and one.source_object in world.sets
    ]
    return {one.source_object for one in between} | {one.entry_uuid for one in between}


def get_submission_set_and_contents(world: World, query: Any) -> set[str]:
    chosen = named(world, world.sets, query)
    inside = {one.target_object for one in members(world, query) if one.source_object in chosen}
    level = query.metadata_level
    entries = {one.entry_uuid for one in known(world, world.entries, level) if filtered(query, one)} & inside
    folders = {one.entry_uuid for one in known(world, world.folders, level)} & inside
    present = chosen | entries | folders
    inner = {
        one.entry_uuid
        for one in links(world, query)
        if one.entry_uuid in inside and one.source_object in present and one.target_object in present
    }
    present |= inner
    return present | {
        one.entry_uuid for one in members(world, query) if one.source_object in chosen and one.target_object in present
    }


def get_folder_and_contents(world: World, query: Any) -> set[str]:
    chosen = named(world, world.folders, query)
    entries = {one.entry_uuid for one in known(world, world.entries, query.metadata_level) if filtered(query, one)}
    linking = [one for one in members(world, query) if one.source_object in chosen and one.target_object in entries]
    return chosen | {one.target_object for one in linking} | {one.entry_uuid for one in linking}


def get_folders_for_document(world: World, query: Any) -> set[str]:
    entries = named(world, world.entries, query)
    holding = {one.source_object for one in members(world, query) if one.target_object in entries}
    return {one.entry_uuid for one in known(world, world.folders, query.metadata_level)} & holding


def get_related_documents(world: World, query: Any) -> set[str]:
    start = named(world, world.entries, query)
    may = {one.entry_uuid for one in known(world, world.entries, query.metadata_level)} | start
    may = {one for one in may if world.entries[one].object_type in query.object_type}
    between = [
        one
        for one in links(world, query)
        if one.association_type in query.association_types
        and (one.source_object in start or one.target_object in start)
        and one.source_object in may
        and one.target_object in may
    ]
    return {part for one in between for part in (one.entry_uuid, one.source_object, one.target_object)}


MEANING: dict[str, Callable[[World, Any], set[str]]] = {
    "FindDocuments": find_documents,
    "FindDocumentsByReferenceId": find_documents,
    "FindDocumentsExclude": find_documents_exclude,
    "FindDocumentsForMultiplePatients": find_documents,
    "FindDocumentsByReferenceIdForMultiplePatients": find_documents,
    "FindSubmissionSets": find_submission_sets,
    "FindFolders": find_folders,
    "FindFoldersForMultiplePatients": find_folders,
    "GetAll": get_all,
    "GetDocuments": get_documents,
    "GetFolders": get_folders,
    "GetAssociations": get_associations,
    "GetDocumentsAndAssociations": get_documents_and_associations,
    "GetSubmissionSets": get_submission_sets,
    "GetSubmissionSetAndContents": get_submission_set_and_contents,
    "GetFolderAndContents": get_folder_and_contents,
    "GetFoldersForDocument": get_folders_for_document,
    "GetRelatedDocuments": get_related_documents,
}


# --- asking -----------------------------------------------------------------------------------------------------------


OPTIONAL = ("time", "code", "reference", "pattern")


def tuples(of: st.SearchStrategy[str], least: int = 0, most: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(of, min_size=least, max_size=most).map(tuple)


def values(world: World, kind: type[Any], name: str) -> st.SearchStrategy[Any]:
    parameter = PARAMETERS[kind][name]
    code = st.sampled_from(ASKED_CODES[:-1])
    match parameter.syntax:
        case "patient":
            patient = st.sampled_from([*PATIENTS, NOBODY])
            return tuples(patient) if parameter.many else patient
        case "status":
            return st.sampled_from([(APPROVED,), (DEPRECATED,), (APPROVED, DEPRECATED)])
        case "type":
            return st.sampled_from([(STABLE,), (ON_DEMAND,), (STABLE, ON_DEMAND)])
        case "level":
            return st.sampled_from([1, 2])
        case "time":
            return st.sampled_from(TIMES).map(Timestamp)
        case "code":
            return tuples(tuples(code, 1), 1, 3 if parameter.and_or else 1)
        case "reference":
            return tuples(tuples(st.sampled_from([*REFERENCES, "1^^^&1.2&ISO"]), 1), 1, 2)
        case "pattern":
            return tuples(st.sampled_from(PATTERNS), 1, 2 if parameter.many else 1)
    if name in ("entry_uuid", "uuid", "logical_id"):
        one = st.sampled_from(sorted(world.objects))
    elif name == "unique_id":
        texts = [str(one.unique_id) for one in world.holders]
        one = st.sampled_from(["9.9.9", "8.8.8", *texts])
    elif name == "association_types":
        return tuples(st.sampled_from(RELATIONS), 3, 7)
    elif name == "document_availability":
        return tuples(st.sampled_from([ONLINE, OFFLINE]), 1)
    else:
        one = st.sampled_from(["1.2", "1.3", "1.4"])
        return tuples(one, 1)
    return tuples(one, 1) if parameter.many else one


def right_kind(world: World, kind: type[Any]) -> st.SearchStrategy[str]:
    """Ids of the class that a Get query is about, that some of them be found."""
    objects: Any = world.entries
    if kind.__name__.startswith(("GetFolderA", "GetFolders")) and "ForDocument" not in kind.__name__:
        objects = world.folders
    elif kind.__name__.startswith("GetSubmissionSetA"):
        objects = world.sets
    return st.sampled_from(sorted(objects))


@st.composite
def queries(draw: st.DrawFn, world: World, kind: type[Any]) -> Any:
    """A query that the standard allows."""
    # A query with many conditions finds nothing.
    optional = [name for name, row in PARAMETERS[kind].items() if row.syntax in OPTIONAL and not row.required]
    kept = draw(st.sets(st.sampled_from(optional), max_size=2)) if optional else set()
    names = [name for name in PARAMETERS[kind] if name in kept or name not in optional]
    given = {name: draw(values(world, kind, name)) for name in names}
    needed = AT_LEAST_ONE.get(kind, ())
    if "entry_uuid" in given:
        chosen = draw(st.sampled_from(needed))
        empty: Any = () if PARAMETERS[kind]["entry_uuid"].many else None
        given |= {name: given[name] if name == chosen else empty for name in needed}
        if chosen == "entry_uuid":
            one = right_kind(world, kind)
            given[chosen] = draw(tuples(one, 1, 3)) if empty == () else draw(one)
        if chosen == "logical_id":
            given["metadata_level"] = 2
    elif needed and not any(given.get(name) for name in needed):
        given["patient_id"] = (draw(st.sampled_from(PATIENTS)),)
    for pair in AT_MOST_ONE.get(kind, ()):
        if pair[1].endswith("_exclude"):
            given.pop(draw(st.sampled_from(pair)), None)
    return kind(**given, return_type=draw(st.sampled_from(list(ReturnType))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_finds_what_a_plain_filter_finds(kind: type[Any], store: Store, world: World) -> None:
    """ITI TF-2 3.18.4.1.2.3.7 and 3.51.4.1.2.3; LeafClass of a Get query is for one patient (3.18.4.1.3)."""
    objects, sizes = world.objects, list[int]()

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(queries(world, kind))
    def check(query: Any) -> None:
        expected = MEANING[kind.__name__](world, query)
        sizes.append(len(expected))
        patients = {world.owners[one] for one in expected if one not in world.associations}
        if query.return_type is ReturnType.OBJECT_REF:
            found = list(rim.decode_fragments(stored_query(query, store=store).fragments))
            assert all(isinstance(one, ObjectRef) for one in found)
            assert sorted(one.entry_uuid for one in found) == sorted(expected)
        elif kind.__name__.startswith("Get") and len(patients) > 1:
            with pytest.raises(Failure, match="XDSResultNotSinglePatient"):
                stored_query(query, store=store)
        else:
            found = list(rim.decode_fragments(stored_query(query, store=store).fragments))
            assert len(found) == len(expected)
            assert {one.entry_uuid: one for one in found} == {one: objects[one] for one in expected}

    check()
    assert sum(size > 0 for size in sizes) > len(sizes) / 5


@pytest.mark.parametrize("kind", KINDS)
def test_decode_of_encode_is_the_same_query(kind: type[Any], world: World) -> None:
    @settings(max_examples=60, deadline=None)
    @given(queries(world, kind), st.none() | st.just("urn:oid:1.2.3"))
    def check(query: Any, home: str | None) -> None:
        asked = replace(query, home_community_id=home)
        element = etree.fromstring(wire.encode_query(asked))
        assert wire.decode_query(element, multi_patient=issubclass(kind, MultiPatientQuery)) == asked

    check()


def test_every_stored_query_has_its_parameters() -> None:
    assert set(PARAMETERS) == set(KINDS)
    assert {kind.__name__ for kind in KINDS} == set(MEANING)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attribute_of_a_stored_query_has_its_parameter(kind: type[Any]) -> None:
    attributes = {one.name for one in fields(kind)} - {"return_type", "home_community_id"}
    assert attributes == set(PARAMETERS[kind])
