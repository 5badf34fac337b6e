"""ITI-18 Registry Stored Query and ITI-51 Multi-Patient Stored Query: the answer to each stored query (ITI TF-2 3.18.4.1.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from database.statements import chunks
from registry import selects
from registry.finders import FINDERS, PAGE, SINGLE_PATIENT, Found, Reader, Row
from registry.selects import BODY, ENTRY_UUID, MORE, PATIENT_ID, STATUS
from registry.store import Store
from registry.tables import STATUS_URN
from schemas import rim
from schemas.attributes import Kind
from xds.messages import QueryResult
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.queries import ReturnType, StoredQuery

#: So many texts are read at a time.
_CHUNK = 256


def stored_query(
    query: StoredQuery,
    *,
    store: Store,
    max_results: int = 25_000,
    home_community_id: str | None = None,
    unknown_patient: Literal["empty", "error"] = "empty",
) -> QueryResult:
    """The objects that the query selects. Of a long answer, the texts are read while it is written.

    `max_results` is the limit of objects for LeafClass. `home_community_id` is the registry's own, and then every object of the answer
    carries it. Failure: XDSTooManyResults, XDSResultNotSinglePatient, XDSUnknownCommunity, and XDSUnknownPatientId where
    `unknown_patient` is "error": else nobody has no objects.
    """
    asked_home = query.home_community_id
    if home_community_id is not None and asked_home is not None and asked_home != home_community_id:
        raise fail(
            ErrorCode.UNKNOWN_COMMUNITY,
            f"homeCommunityId {asked_home!r} is not that of this registry, {home_community_id!r}",
        )
    if unknown_patient == "error":
        _check_patients(query, store)
    leaf = query.return_type is ReturnType.LEAF_CLASS
    reader = Reader(store, type(query).__name__, max_results if leaf else None)
    found = FINDERS[type(query)](query, reader)
    if not leaf:
        return QueryResult(fragments=[rim.object_ref(row[ENTRY_UUID], home_community_id) for _, row in found])
    reader.check_count(len(found))
    if isinstance(query, SINGLE_PATIENT):
        _check_single_patient(query, found)
    if len(found) <= PAGE and all(row[BODY] is not None for _, row in found):
        return QueryResult(fragments=_written(found, store, home_community_id))
    return QueryResult(fragments=_fragments(found, store, home_community_id))


def _check_patients(query: StoredQuery, store: Store) -> None:
    given = getattr(query, "patient_id", ())
    patients = [str(one) for one in (given if isinstance(given, tuple) else (given,))]
    known = {one for chunk in chunks(patients) for (one,) in store.rows(*selects.known_patients(chunk))}
    problems = [
        Problem(code=ErrorCode.UNKNOWN_PATIENT_ID, context=f"patient {one!r} is not known to this registry")
        for one in dict.fromkeys(patients)
        if one not in known
    ]
    if problems:
        raise Failure(problems)


def _check_single_patient(query: StoredQuery, found: Found) -> None:
    """ITI TF-2 3.18.4.1.3; ObjectRef is exempt. An Association has no patientId."""
    patients = {row[PATIENT_ID] for kind, row in found if kind != "Association"}
    if len(patients) > 1:
        raise fail(
            ErrorCode.RESULT_NOT_SINGLE_PATIENT,
            f"{type(query).__name__} finds objects of {len(patients)} patients; LeafClass gives those of one",
        )


# --- the answer -------------------------------------------------------------------------------------------------------


def _written(found: Found, store: Store, home: str | None) -> list[str]:
    """The elements of objects whose rows have their bodies."""
    text, complete = store.bodies.text, rim.complete
    written = []
    for kind, row in found:
        body = text(row[BODY])
        written.append(
            complete(
                kind,
                body if home is None else _at_home(body, home),
                status=STATUS_URN[row[STATUS]],
                patient_id=None if kind == "Association" else row[PATIENT_ID],
                last_update_time=row[MORE] if kind == "Folder" else None,
            )
        )
    return written


def _at_home(body: str, home: str) -> str:
    """The text of an object with the registry's homeCommunityId, in place of any that it was submitted with."""
    attributes, _, children = body.partition(">")
    before, found, after = attributes.partition(' home="')
    if found:
        attributes = before + after.partition('"')[2]
    return f'{attributes} home="{rim.escape(home)}">{children}'


def _fragments(found: Found, store: Store, home: str | None) -> Iterator[str]:
    """The elements of objects in order, their bodies read in chunks. What has been removed since it was found is left out."""
    for start in range(0, len(found), _CHUNK):
        part = found[start : start + _CHUNK]
        wanted: dict[Kind, list[Row]] = {}
        for kind, row in part:
            if row[BODY] is None:
                wanted.setdefault(kind, []).append(row)
        bodies = {uuid: body for kind, rows in wanted.items() for uuid, body in _bodies(kind, rows, store)}
        whole = [
            (kind, row if row[BODY] is not None else (*row[:BODY], bodies[row[ENTRY_UUID]], *row[MORE:]))
            for kind, row in part
            if row[BODY] is not None or row[ENTRY_UUID] in bodies
        ]
        yield from _written(whole, store, home)


def _bodies(kind: Kind, rows: Sequence[Row], store: Store) -> list[Row]:
    uuids = [row[ENTRY_UUID] for row in rows]
    patients = {row[PATIENT_ID] for row in rows}
    if len(patients) > 1:
        return store.rows(*selects.bodies(kind, None, uuids, store.dialect))
    read = store.rows(*selects.bodies(kind, patients.pop(), uuids, store.dialect))
    if len(read) < len(uuids):
        # The patient has been merged into another since: its objects are still there.
        read += store.rows(*selects.bodies(kind, None, uuids, store.dialect))
    return read
