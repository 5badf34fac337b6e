"""ITI-18 Registry Stored Query: what each query finds (ITI TF-2 3.18.4.1.2.3.7), and the errors of its results."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.messages import patient, submission
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register
from registry.schema import upgrade
from registry.store import Store, open_engine
from schemas import rim
from xds.metadata import Association, Author, DocumentEntry, ObjectRef, SubmissionSet
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindSubmissionSets,
    GetAll,
    GetDocuments,
    GetSubmissionSetAndContents,
    ReturnType,
)
from xds.values import Code, Person, Timestamp
from xds.vocabulary import ON_DEMAND, Status

PATIENTS = [patient(1), patient(2)]
CODES = [Code.of(name, scheme, name) for name in ("A", "B") for scheme in ("1.2", "1.3")]
TIMES = ["2023", "202312", "20240101", "20240101120000", "2025"]
PEOPLE = ["1^Muster^Ann", "^Muster^Bob", "^muster", "^50%^x", "^a_b", "^back\\slash", "^M\u00fcller"]
PATTERNS = [*PEOPLE, "%", "%Muster%", "^Must_r%", "^50\\%^x", "%\\%", "^Mu\u0308ller", "nobody"]


def world() -> list[DocumentEntry]:
    """Sixty entries in which every attribute that a query compares takes every value."""
    entries = []
    for number in range(60):
        (entry,) = submission(PATIENTS[number % 2], registered=True).document_entries
        entries.append(
            replace(
                entry,
                class_code=CODES[number % 4],
                type_code=CODES[number // 4 % 4],
                event_code_list=tuple(CODES[: number % 5]),
                confidentiality_code=tuple(CODES[number % 3 : number % 3 + 2]),
                creation_time=Timestamp(TIMES[number % 5]),
                service_start_time=Timestamp(TIMES[number // 5 % 5]) if number % 3 else None,
                author=(Author(author_person=Person(PEOPLE[number % 7])),),
            )
        )
    return entries


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    engine = open_engine(module_database)
    upgrade(engine)
    made = Store(engine)
    for entry in world():
        one = submission(entry.patient_id or PATIENTS[0], registered=True)
        one = replace(one, document_entries=(replace(entry, entry_uuid="Document0"),))
        register(
            one,
            store=made,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            new_uuid=lambda: f"urn:uuid:{uuid.uuid4()}",
            patients="open",
        )
    yield made
    made.close()


@pytest.fixture(scope="module")
def entries(store: Store) -> list[DocumentEntry]:
    return [one for each in PATIENTS for one in found(store, GetAll(patient_id=each)) if isinstance(one, DocumentEntry)]


def found(store: Store, query: Any) -> list[Any]:
    return list(rim.decode_fragments(stored_query(query, store=store).fragments))


def like(value: str, pattern: str) -> bool:
    """SQL's LIKE without an escape character, on the composed form, in Python."""
    import re

    from xds.values import normal

    expression = "".join({"%": ".*", "_": "."}.get(one, re.escape(one)) for one in normal(pattern))
    return re.fullmatch(expression, normal(value), re.DOTALL) is not None


def matches(entry: DocumentEntry, query: FindDocuments) -> bool:
    """The query's meaning, written as plainly as can be."""

    def coded(groups: tuple[tuple[str, ...], ...], codes: tuple[Code | None, ...]) -> bool:
        keys = {code.key for code in codes if code}
        return all(keys & set(group) for group in groups)

    def in_time(value: Timestamp | None, start: Timestamp | None, end: Timestamp | None) -> bool:
        if value is None:
            return True
        return (start is None or start.earliest <= value.earliest) and (end is None or value.earliest < end.earliest)

    people = [author.author_person or "" for author in entry.author]
    return (
        entry.patient_id == query.patient_id
        and entry.availability_status in query.status
        and entry.object_type in query.object_type
        and coded(query.class_code, (entry.class_code,))
        and coded(query.type_code, (entry.type_code,))
        and coded(query.event_code_list, entry.event_code_list)
        and coded(query.confidentiality_code, entry.confidentiality_code)
        and in_time(entry.creation_time, query.creation_time_from, query.creation_time_to)
        and in_time(entry.service_start_time, query.service_start_time_from, query.service_start_time_to)
        and (not query.author_person or any(like(who, pattern) for who in people for pattern in query.author_person))
    )


KEYS = st.sampled_from([code.key for code in CODES])
GROUP = st.lists(KEYS, min_size=1, max_size=3).map(tuple)
ONE = st.just(()) | GROUP.map(lambda group: (group,))
MANY = st.lists(GROUP, max_size=3).map(tuple)
TIME = st.none() | st.sampled_from(TIMES).map(Timestamp)
QUERIES = st.builds(
    FindDocuments,
    patient_id=st.sampled_from([*PATIENTS, patient(3)]),
    status=st.sampled_from([(str(Status.APPROVED),), (str(Status.DEPRECATED),), tuple(map(str, Status))]),
    class_code=ONE,
    type_code=ONE,
    event_code_list=MANY,
    confidentiality_code=MANY,
    creation_time_from=TIME,
    creation_time_to=TIME,
    service_start_time_from=TIME,
    service_start_time_to=TIME,
    author_person=st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple),
)


def test_find_documents_equals_a_filter_in_python(store: Store, entries: list[DocumentEntry]) -> None:
    @settings(max_examples=300, deadline=None)
    @given(QUERIES)
    def check(query: FindDocuments) -> None:
        expected = {one.entry_uuid for one in entries if matches(one, query)}
        assert {one.entry_uuid for one in found(store, query)} == expected
        references = found(store, replace(query, return_type=ReturnType.OBJECT_REF))
        assert {one.entry_uuid for one in references} == expected
        assert all(isinstance(one, ObjectRef) for one in references)

    assert len(entries) == 60
    check()


def test_a_pattern_has_no_escape_character(store: Store) -> None:
    """ITI TF-2 3.18.4.1.2.3.3: only % and _ are special, and case counts."""
    query = FindDocuments(patient_id=PATIENTS[0], author_person=("^BACK\\slash",))
    assert found(store, query) == []
    assert found(store, replace(query, author_person=("^back\\%",)))


def test_nothing_of_a_query_becomes_sql(store: Store) -> None:
    hostile = "x' OR '1'='1' --^^1.2"
    assert found(store, FindDocuments(patient_id=PATIENTS[0], class_code=((hostile,),))) == []
    assert found(store, GetDocuments(unique_id=("' OR 1=1; DROP TABLE patient; --",))) == []


def test_get_documents_finds_by_entry_uuid_and_by_unique_id(store: Store, entries: list[DocumentEntry]) -> None:
    """3.18.4.1.2.3.7.5."""
    one = entries[0]
    assert found(store, GetDocuments(entry_uuid=(one.entry_uuid,))) == [one]
    assert found(store, GetDocuments(unique_id=(str(one.unique_id), "1.2.3"))) == [one]


def test_get_documents_of_two_patients_gives_references_only(store: Store, entries: list[DocumentEntry]) -> None:
    """Conformance test 12368: ObjectRef is exempt."""
    both = GetDocuments(entry_uuid=(entries[0].entry_uuid, entries[-1].entry_uuid))
    with pytest.raises(Failure, match="XDSResultNotSinglePatient"):
        stored_query(both, store=store)
    assert len(found(store, replace(both, return_type=ReturnType.OBJECT_REF))) == 2


def test_too_many_results_are_refused_for_leaf_class_only(store: Store) -> None:
    query = FindDocuments(patient_id=PATIENTS[0])
    with pytest.raises(Failure, match="finds more than 29 objects, the limit for LeafClass"):
        stored_query(query, store=store, max_results=29)
    references = stored_query(replace(query, return_type=ReturnType.OBJECT_REF), store=store, max_results=29)
    assert len(list(references.fragments)) == 30


def test_find_submission_sets_finds_those_of_the_patient(store: Store) -> None:
    """3.18.4.1.2.3.7.2."""
    sets = found(store, FindSubmissionSets(patient_id=PATIENTS[1]))
    assert len(sets) == 30
    assert all(isinstance(one, SubmissionSet) and one.patient_id == PATIENTS[1] for one in sets)
    query = FindSubmissionSets(
        patient_id=PATIENTS[1], source_id=("1.2.3.4.300",), content_type=(("DIS^^1.2.3.4.8.4",),)
    )
    assert len(found(store, query)) == 30
    assert found(store, replace(query, submission_time_to=Timestamp("2020"))) == []
    assert found(store, replace(query, source_id=("1.2",))) == []
    assert found(store, replace(query, author_person=("%Nobody%",))) == []


def test_get_submission_set_and_contents_gives_no_dangling_association(store: Store) -> None:
    """3.18.4.1.2.3.7.10."""
    chosen = found(store, FindSubmissionSets(patient_id=PATIENTS[0]))[0]
    for query in (
        GetSubmissionSetAndContents(entry_uuid=chosen.entry_uuid),
        GetSubmissionSetAndContents(unique_id=chosen.unique_id),
    ):
        contents = found(store, query)
        assert [type(one) for one in contents] == [SubmissionSet, DocumentEntry, Association]
        filtered = found(store, replace(query, object_type=(ON_DEMAND,)))
        assert filtered == [chosen]
    assert found(store, GetSubmissionSetAndContents(unique_id="1.2.3")) == []


def test_get_all_gives_everything_of_the_patient(store: Store) -> None:
    """3.18.4.1.2.3.7.4."""
    kinds = [type(one).__name__ for one in found(store, GetAll(patient_id=PATIENTS[0]))]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "SubmissionSet": 30,
        "DocumentEntry": 30,
        "Association": 30,
    }
