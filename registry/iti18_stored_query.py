"""ITI-18 Registry Stored Query: the answer to each stored query (ITI TF-2 3.18.4.1.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from registry import selects
from registry.store import Store
from registry.tables import association, document_entry, folder, submission_set
from schemas import rim
from schemas.attributes import Kind
from xds.messages import QueryResult
from xds.problems import ErrorCode, fail
from xds.queries import (
    FindDocuments,
    FindSubmissionSets,
    GetAll,
    GetDocuments,
    GetSubmissionSetAndContents,
    ReturnType,
    StoredQuery,
)
from xds.vocabulary import AssociationType

#: How many ids one statement is given.
_CHUNK = 500
Found = list[tuple[Kind, Any]]


def stored_query(query: StoredQuery, *, store: Store, max_results: int = 5_000) -> QueryResult:
    """The objects that the query selects. Failure: XDSTooManyResults, XDSResultNotSinglePatient."""
    found = _FINDERS[type(query)](query, store)
    if query.return_type is ReturnType.OBJECT_REF:
        return QueryResult(fragments=[rim.object_ref(row.entry_uuid) for _, row in found])
    if len(found) > max_results:
        raise fail(
            ErrorCode.TOO_MANY_RESULTS,
            f"{type(query).__name__} finds {len(found)} objects; the limit for LeafClass is {max_results}. ObjectRef has none",
        )
    if isinstance(query, GetDocuments):
        patients = {row.patient_id for _, row in found}
        # ObjectRef is exempt (ITI TF-2 3.18.4.1.3).
        if len(patients) > 1:
            raise fail(
                ErrorCode.RESULT_NOT_SINGLE_PATIENT,
                f"GetDocuments finds entries of {len(patients)} patients; LeafClass gives those of one",
            )
    return QueryResult(fragments=[_complete(kind, row) for kind, row in found])


def _complete(kind: Kind, row: Any) -> str:
    return rim.complete(
        kind,
        row.body,
        status=row.status,
        patient_id=None if kind == "Association" else row.patient_id,
        last_update_time=row.last_update_time if kind == "Folder" else None,
    )


def _find_documents(query: FindDocuments, store: Store) -> Found:
    return [("DocumentEntry", row) for row in store.rows(*selects.find_documents(query))]


def _find_submission_sets(query: FindSubmissionSets, store: Store) -> Found:
    return [("SubmissionSet", row) for row in store.rows(*selects.find_submission_sets(query))]


def _get_documents(query: GetDocuments, store: Store) -> Found:
    rows: list[Any] = []
    for chunk in _chunks(query.entry_uuid):
        rows += store.rows(*selects.by_ids(document_entry, chunk))
    for chunk in _chunks(query.unique_id):
        rows += store.rows(*selects.entries_by_unique_ids(chunk))
    return [("DocumentEntry", row) for row in rows]


def _get_all(query: GetAll, store: Store) -> Found:
    entries = store.rows(
        *selects.find_documents(
            FindDocuments(
                patient_id=query.patient_id,
                status=query.document_entry_status,
                format_code=query.format_code,
                confidentiality_code=query.confidentiality_code,
                object_type=query.object_type,
            )
        )
    )
    sets = store.rows(*selects.of_patient(submission_set, query.patient_id, query.submission_set_status))
    folders = store.rows(*selects.of_patient(folder, query.patient_id, query.folder_status))
    found: Found = [
        *(("SubmissionSet", row) for row in sets),
        *(("DocumentEntry", row) for row in entries),
        *(("Folder", row) for row in folders),
    ]
    touching: dict[str, Any] = {}
    for chunk in _chunks([row.entry_uuid for _, row in found]):
        for end in ("source_object", "target_object"):
            touching |= {row.entry_uuid: row for row in store.rows(*selects.associations_touching(chunk, end))}
    return [*found, *(("Association", row) for row in touching.values())]


def _get_submission_set_and_contents(query: GetSubmissionSetAndContents, store: Store) -> Found:
    """The set, its members as filtered, and those of its associations that have both ends in the result (3.18.4.1.2.3.7.10)."""
    if query.entry_uuid is not None:
        sets = store.rows(*selects.by_ids(submission_set, [query.entry_uuid]))
    else:
        sets = store.rows(*selects.submission_set_by_unique_id(query.unique_id or ""))
    found: Found = []
    for row in sets:
        members = [
            one
            for one in store.rows(*selects.associations_from(row.entry_uuid))
            if one.association_type == AssociationType.HAS_MEMBER
        ]
        found += [("SubmissionSet", row), *_contents(query, store, row.entry_uuid, members)]
    return found


def _contents(query: GetSubmissionSetAndContents, store: Store, set_uuid: str, members: Sequence[Any]) -> Found:
    targets = [member.target_object for member in members]
    contents: Found = []
    associations: list[Any] = []
    for chunk in _chunks(targets):
        entries = selects.filtered_entries(chunk, query.format_code, query.confidentiality_code, query.object_type)
        contents += [("DocumentEntry", row) for row in store.rows(*entries)]
        contents += [("Folder", row) for row in store.rows(*selects.by_ids(folder, chunk))]
        associations += store.rows(*selects.by_ids(association, chunk))
    present = {set_uuid} | {row.entry_uuid for _, row in contents}
    inner = [one for one in associations if one.source_object in present and one.target_object in present]
    present |= {one.entry_uuid for one in inner}
    linking = [member for member in members if member.target_object in present]
    return [*contents, *(("Association", one) for one in (*inner, *linking))]


def _chunks(ids: Iterable[str]) -> list[list[str]]:
    unique = list(dict.fromkeys(ids))
    return [unique[start : start + _CHUNK] for start in range(0, len(unique), _CHUNK)]


_FINDERS: dict[type[StoredQuery], Callable[[Any, Store], Found]] = {
    FindDocuments: _find_documents,
    FindSubmissionSets: _find_submission_sets,
    GetDocuments: _get_documents,
    GetAll: _get_all,
    GetSubmissionSetAndContents: _get_submission_set_and_contents,
}
