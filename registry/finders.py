"""What each stored query finds: the rows of its objects (ITI TF-2 3.18.4.1.2.3.7, 3.51.4.1.2.3).

A finder is a function of the query and a `Reader`. The statements of one finder see the registry one after the other, so none relies on
what an earlier one saw of an object's patient: that may change by a merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from database.statements import chunks
from registry.selects import ENTRY_UUID, SOURCE_OBJECT, TARGET_OBJECT, Columns, Search
from registry.store import Store
from schemas.attributes import Kind
from xds.problems import ErrorCode, fail
from xds.queries import (
    FindDocuments,
    FindDocumentsByReferenceId,
    FindDocumentsByReferenceIdForMultiplePatients,
    FindDocumentsExclude,
    FindDocumentsForMultiplePatients,
    FindFolders,
    FindFoldersForMultiplePatients,
    FindSubmissionSets,
    GetAll,
    GetAssociations,
    GetDocuments,
    GetDocumentsAndAssociations,
    GetFolderAndContents,
    GetFolders,
    GetFoldersForDocument,
    GetRelatedDocuments,
    GetSubmissionSetAndContents,
    GetSubmissionSets,
    StoredQuery,
)
from xds.vocabulary import AssociationType

Row = tuple[Any, ...]
Found = list[tuple[Kind, Row]]
Narrow = Callable[[Search], Search]
#: An answer of so many objects of a class is read at once; of a longer one, first what identifies each object, then the texts by and by.
PAGE = 200
_HAS_MEMBER = str(AssociationType.HAS_MEMBER)
_NO_LIMIT = 2**31 - 1

# --- finding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """Rows for a query: with their bodies where it wants them and they are few.

    `max_results` is the limit of objects for LeafClass, and None for ObjectRef, which has none.
    """

    store: Store
    query_name: str
    max_results: int | None

    def check_count(self, count: int) -> None:
        """Failure (XDSTooManyResults) for more objects than the limit."""
        if self.max_results is not None and count > self.max_results:
            raise fail(
                ErrorCode.TOO_MANY_RESULTS,
                f"{self.query_name} finds more than {self.max_results} objects, the limit for LeafClass; ObjectRef has none",
            )

    def _run(self, search: Search, columns: Columns, most: int) -> list[Row]:
        return self.store.rows(*search.bound(columns, most, self.store.dialect))

    def rows(self, search: Search, *, expected: int = 0) -> list[Row]:
        """What meets the conditions. `expected` is about how many they will be."""
        if self.max_results is None:
            return self._run(search, "keys", _NO_LIMIT)
        if expected <= PAGE:
            rows = self._run(search, "whole", PAGE + 1)
            if len(rows) <= PAGE:
                return rows
        rows = self._run(search, "keys", self.max_results + 1)
        self.check_count(len(rows))
        return rows

    def find(self, search: Search, *, expected: int = 0) -> Found:
        """The same, each with its class."""
        kind = search.kind
        return [(kind, row) for row in self.rows(search, expected=expected)]

    def identified(self, kind: Kind, column: str, ids: Iterable[str], narrow: Narrow) -> Found:
        """Objects of a class by id, within the conditions that `narrow` adds."""
        found: Found = []
        for chunk in chunks(ids):
            found += self.find(narrow(Search(kind).identified(column, chunk)), expected=len(chunk))
            self.check_count(len(found))
        return found

    def touching(self, entry_uuids: Iterable[str], narrow: Narrow) -> list[Row]:
        """The Associations of which one of the objects is an end, each once."""
        found: dict[str, Row] = {}
        for chunk in chunks(entry_uuids):
            # One end after the other: of an OR over both, PostgreSQL makes a scan of the whole table where it is small.
            for end in ("source_object", "target_object"):
                rows = self.rows(narrow(Search("Association").one_of(end, chunk)), expected=len(chunk))
                found |= {row[ENTRY_UUID]: row for row in rows}
            self.check_count(len(found))
        return list(found.values())


_EntryQuery = (
    FindDocuments
    | FindDocumentsByReferenceId
    | FindDocumentsExclude
    | FindDocumentsForMultiplePatients
    | FindDocumentsByReferenceIdForMultiplePatients
)
_Filter = GetAll | GetSubmissionSetAndContents | GetFolderAndContents


def _as_associations(rows: Iterable[Row]) -> Found:
    return [("Association", row) for row in rows]


def _uuids(found: Found) -> list[str]:
    return [row[ENTRY_UUID] for _, row in found]


# --- Find -------------------------------------------------------------------------------------------------------------


def _of_patients(kind: Kind, given: str | tuple[str, ...]) -> Search:
    if not isinstance(given, tuple):
        return Search(kind).equal("patient_id", str(given))
    return Search(kind).one_of("patient_id", map(str, given)) if given else Search(kind)


def _entries(query: _EntryQuery) -> Search:
    search = _of_patients("DocumentEntry", query.patient_id).status(query.status).latest(query.metadata_level)
    for column in ("class_code", "type_code", "practice_setting_code", "healthcare_facility_type_code", "format_code"):
        search.code(column, getattr(query, column))
    search.values("event_code_list", query.event_code_list)
    search.values("confidentiality_code", query.confidentiality_code)
    # An On-Demand entry has no creationTime that could be compared (ITI TF-2 3.18.4.1.2.3.7.1).
    search.time("creation_time", query.creation_time_from, query.creation_time_to, unless="on demand")
    search.time("service_start_time", query.service_start_time_from, query.service_start_time_to, unless="null")
    search.time("service_stop_time", query.service_stop_time_from, query.service_stop_time_to, unless="null")
    return search.authors(query.author_person).available(query.document_availability)


def _find_documents(query: FindDocuments | FindDocumentsForMultiplePatients, reader: Reader) -> Found:
    return reader.find(_entries(query).one_of("object_type", query.object_type))


def _find_documents_by_reference_id(
    query: FindDocumentsByReferenceId | FindDocumentsByReferenceIdForMultiplePatients, reader: Reader
) -> Found:
    search = _entries(query).one_of("object_type", query.object_type)
    return reader.find(search.values("reference_id_list", query.reference_id_list))


def _find_documents_exclude(query: FindDocumentsExclude, reader: Reader) -> Found:
    search = _entries(query).values("reference_id_list", query.reference_id_list)
    for column in ("class_code", "type_code", "practice_setting_code", "healthcare_facility_type_code", "format_code"):
        search.code(column, getattr(query, f"{column}_exclude"), exclude=True)
    for column in ("event_code_list", "confidentiality_code", "reference_id_list"):
        search.values(column, getattr(query, f"{column}_exclude"), exclude=True)
    search.authors(query.author_person_exclude, exclude=True)
    if query.object_type_exclude:
        return reader.find(search.one_of("object_type", query.object_type_exclude, "not in"))
    return reader.find(search.one_of("object_type", query.object_type))


def _find_submission_sets(query: FindSubmissionSets, reader: Reader) -> Found:
    search = _of_patients("SubmissionSet", query.patient_id).status(query.status).latest(query.metadata_level)
    if query.source_id:
        search.one_of("source_id", query.source_id)
    search.time("submission_time", query.submission_time_from, query.submission_time_to)
    search.authors(query.author_person).code("content_type_code", query.content_type)
    return reader.find(search)


def _find_folders(query: FindFolders | FindFoldersForMultiplePatients, reader: Reader) -> Found:
    search = _of_patients("Folder", query.patient_id).status(query.status).latest(query.metadata_level)
    search.time("last_update_time", query.last_update_time_from, query.last_update_time_to)
    return reader.find(search.values("code_list", query.code_list))


def _get_all(query: GetAll, reader: Reader) -> Found:
    def of_patient(kind: Kind, status: Sequence[str]) -> Search:
        return _of_patients(kind, query.patient_id).status(status).latest(query.metadata_level)

    found = [
        *reader.find(of_patient("SubmissionSet", query.submission_set_status)),
        *reader.find(_filtered(query)(of_patient("DocumentEntry", query.document_entry_status))),
        *reader.find(of_patient("Folder", query.folder_status)),
    ]
    return [*found, *_as_associations(reader.touching(_uuids(found), _associations(query)))]


# --- Get --------------------------------------------------------------------------------------------------------------


def _filtered(query: _Filter) -> Narrow:
    """The conditions on DocumentEntries that the contents of something are narrowed by."""

    def narrow(search: Search) -> Search:
        search.one_of("object_type", query.object_type).code("format_code", query.format_code)
        return search.values("confidentiality_code", query.confidentiality_code)

    return narrow


def _associations(
    query: GetAll
    | GetAssociations
    | GetDocumentsAndAssociations
    | GetSubmissionSetAndContents
    | GetFolderAndContents
    | GetFoldersForDocument
    | GetRelatedDocuments,
) -> Narrow:
    """The conditions on Associations: by default, Deprecated ones are none (Metadata Update supplement)."""
    return lambda search: search.status(query.association_status).latest(query.metadata_level)


def _latest(level: int, narrow: Narrow | None = None) -> Narrow:
    """The conditions of `narrow`, and that it is a version which the level knows."""
    return lambda search: (search if narrow is None else narrow(search)).latest(level)


def _asked(
    kind: Kind,
    query: GetDocuments
    | GetFolders
    | GetDocumentsAndAssociations
    | GetSubmissionSetAndContents
    | GetFolderAndContents
    | GetFoldersForDocument
    | GetRelatedDocuments,
    reader: Reader,
    narrow: Narrow | None = None,
) -> Found:
    """The objects that a Get query names: by entryUUID exactly these, by uniqueId the versions that its level knows."""
    for column, level in (("entry_uuid", 2), ("unique_id", query.metadata_level), ("logical_id", query.metadata_level)):
        given = getattr(query, column, None)
        if given:
            ids = given if isinstance(given, tuple) else (given,)
            return reader.identified(kind, column, ids, _latest(level, narrow))
    return []


def _get_documents(query: GetDocuments, reader: Reader) -> Found:
    return _asked("DocumentEntry", query, reader)


def _get_folders(query: GetFolders, reader: Reader) -> Found:
    return _asked("Folder", query, reader)


def _get_associations(query: GetAssociations, reader: Reader) -> Found:
    return _as_associations(reader.touching(query.uuid, _associations(query)))


def _get_documents_and_associations(query: GetDocumentsAndAssociations, reader: Reader) -> Found:
    entries = _asked("DocumentEntry", query, reader)
    return [*entries, *_as_associations(reader.touching(_uuids(entries), _associations(query)))]


def _members(
    reader: Reader,
    end: Literal["source_object", "target_object"],
    ids: Iterable[str],
    narrow: Narrow,
) -> list[Row]:
    """The HasMember associations of which one of the objects is the source, or the target."""
    return [
        row
        for chunk in chunks(ids)
        for row in reader.rows(narrow(Search("Association").one_of(end, chunk).equal("association_type", _HAS_MEMBER)))
    ]


def _get_submission_sets(query: GetSubmissionSets, reader: Reader) -> Found:
    latest = _latest(query.metadata_level)
    members = _members(reader, "target_object", query.uuid, latest)
    sets = reader.identified("SubmissionSet", "entry_uuid", (row[SOURCE_OBJECT] for row in members), latest)
    present = set(_uuids(sets))
    return [*sets, *_as_associations(row for row in members if row[SOURCE_OBJECT] in present)]


def _get_submission_set_and_contents(query: GetSubmissionSetAndContents, reader: Reader) -> Found:
    """The set, its members as filtered, and those of its associations that have both ends in the result (3.18.4.1.2.3.7.10)."""
    sets = _asked("SubmissionSet", query, reader)
    members = _members(reader, "source_object", _uuids(sets), _associations(query))
    targets = [row[TARGET_OBJECT] for row in members]
    latest = _latest(query.metadata_level)
    found = [
        *sets,
        *reader.identified("DocumentEntry", "entry_uuid", targets, _latest(query.metadata_level, _filtered(query))),
        *reader.identified("Folder", "entry_uuid", targets, latest),
    ]
    present = set(_uuids(found))
    related = reader.identified("Association", "entry_uuid", targets, _associations(query))
    inner = [row for _, row in related if row[SOURCE_OBJECT] in present and row[TARGET_OBJECT] in present]
    present |= {row[ENTRY_UUID] for row in inner}
    linking = [row for row in members if row[TARGET_OBJECT] in present]
    return [*found, *_as_associations([*inner, *linking])]


def _get_folder_and_contents(query: GetFolderAndContents, reader: Reader) -> Found:
    folders = _asked("Folder", query, reader)
    members = _members(reader, "source_object", _uuids(folders), _associations(query))
    targets = [row[TARGET_OBJECT] for row in members]
    entries = reader.identified("DocumentEntry", "entry_uuid", targets, _latest(query.metadata_level, _filtered(query)))
    present = set(_uuids(entries))
    return [*folders, *entries, *_as_associations(row for row in members if row[TARGET_OBJECT] in present)]


def _get_folders_for_document(query: GetFoldersForDocument, reader: Reader) -> Found:
    entries = _asked("DocumentEntry", query, reader)
    members = _members(reader, "target_object", _uuids(entries), _associations(query))
    sources = (row[SOURCE_OBJECT] for row in members)
    return reader.identified("Folder", "entry_uuid", sources, _latest(query.metadata_level))


def _get_related_documents(query: GetRelatedDocuments, reader: Reader) -> Found:
    """Associations with both ends in the result, and nothing that is not an end of one (3.18.4.1.2.3.7.13)."""

    def of_type(search: Search) -> Search:
        return search.one_of("object_type", query.object_type)

    start = _asked("DocumentEntry", query, reader, of_type)
    begun = _uuids(start)
    related = reader.touching(
        begun, lambda search: _associations(query)(search).one_of("association_type", query.association_types)
    )
    others = {end for row in related for end in row[SOURCE_OBJECT : TARGET_OBJECT + 1]}.difference(begun)
    rest = reader.identified("DocumentEntry", "entry_uuid", others, _latest(query.metadata_level, of_type))
    entries = [*start, *rest]
    present = set(_uuids(entries))
    kept = [row for row in related if present.issuperset(row[SOURCE_OBJECT : TARGET_OBJECT + 1])]
    ends = {end for row in kept for end in row[SOURCE_OBJECT : TARGET_OBJECT + 1]}
    return [*(one for one in entries if one[1][ENTRY_UUID] in ends), *_as_associations(kept)]


#: Those that may find objects of several patients, and then give references only.
SINGLE_PATIENT = (
    GetDocuments,
    GetFolders,
    GetDocumentsAndAssociations,
    GetSubmissionSets,
    GetSubmissionSetAndContents,
    GetFolderAndContents,
    GetFoldersForDocument,
    GetRelatedDocuments,
)
FINDERS: Mapping[type[StoredQuery], Callable[[Any, Reader], Found]] = {
    FindDocuments: _find_documents,
    FindDocumentsByReferenceId: _find_documents_by_reference_id,
    FindDocumentsExclude: _find_documents_exclude,
    FindSubmissionSets: _find_submission_sets,
    FindFolders: _find_folders,
    GetAll: _get_all,
    FindDocumentsForMultiplePatients: _find_documents,
    FindDocumentsByReferenceIdForMultiplePatients: _find_documents_by_reference_id,
    FindFoldersForMultiplePatients: _find_folders,
    GetDocuments: _get_documents,
    GetFolders: _get_folders,
    GetAssociations: _get_associations,
    GetDocumentsAndAssociations: _get_documents_and_associations,
    GetSubmissionSets: _get_submission_sets,
    GetSubmissionSetAndContents: _get_submission_set_and_contents,
    GetFolderAndContents: _get_folder_and_contents,
    GetFoldersForDocument: _get_folders_for_document,
    GetRelatedDocuments: _get_related_documents,
}
