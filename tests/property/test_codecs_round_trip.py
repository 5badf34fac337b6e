"""Decode of encode gives the same object, for every class, stored query and message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from schemas import lcm, query, rim, rs, xdsb, xdsi
from schemas.attributes import (
    AUTHOR,
    TABLES,
    Attribute,
    Authors,
    Coded,
    Identified,
    Localized,
    Marker,
    SlotRow,
    Version,
)
from xds.messages import (
    Document,
    DocumentRequest,
    ImagingRequest,
    Outcome,
    QueryResult,
    Retrieved,
    SeriesRequest,
    StudyRequest,
)
from xds.metadata import (
    Association,
    Author,
    Classification,
    DocumentEntry,
    ExternalIdentifier,
    Extra,
    Folder,
    Slot,
    Submission,
    SubmissionSet,
)
from xds.problems import Problem, Severity
from xds.values import Code, LocalizedString, Text
from xds.vocabulary import STABLE, ResponseStatus

# Any character that XML 1.0 can hold, those that need escaping more often.
TEXT = st.text(
    st.one_of(
        st.sampled_from("&<>\"'\t\n\r ^~|\\"),
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"),
    ),
    min_size=1,
    max_size=12,
)
TEXTS = st.lists(
    st.builds(LocalizedString, TEXT, st.sampled_from([None, "en-US"]), st.sampled_from([None, "UTF-8"])), max_size=2
).map(Text)
CODES = st.builds(Code, TEXT, TEXT, TEXTS)
UUIDS = st.uuids().map(lambda u: f"urn:uuid:{u}")
CLASSES = {"DocumentEntry": DocumentEntry, "SubmissionSet": SubmissionSet, "Folder": Folder, "Association": Association}
EXTRA = st.builds(
    Extra,
    slots=st.lists(
        st.builds(Slot, name=TEXT.map(lambda t: f"urn:x:{t}"), values=st.lists(TEXT, max_size=2).map(tuple)), max_size=2
    ).map(tuple),
    classifications=st.lists(
        st.builds(Classification, scheme=TEXT, node_representation=TEXT, name=TEXTS), max_size=1
    ).map(tuple),
    identifiers=st.lists(st.builds(ExternalIdentifier, scheme=TEXT, value=TEXT, name=TEXTS), max_size=1).map(tuple),
)


def slot_values(row: SlotRow) -> st.SearchStrategy[Any]:
    if row.many:
        return st.lists(TEXT.map(row.make), max_size=3).map(tuple)
    return st.none() | TEXT.map(row.make)


AUTHORS = st.builds(Author, **{field: slot_values(row) for field, row in AUTHOR.items()}, extra=st.just(()))


def strategy(row: Any) -> st.SearchStrategy[Any]:
    match row:
        case SlotRow():
            return slot_values(row)
        case Coded(_, many):
            return st.lists(CODES, max_size=2).map(tuple) if many else st.none() | CODES
        case Authors():
            return st.lists(AUTHORS, max_size=2).map(tuple)
        case Identified(_, _, make) | Attribute(_, make):
            return st.none() | TEXT.map(make)
        case Localized():
            return TEXTS
        case Marker():
            return st.booleans()
        case Version():
            return st.none() | st.sampled_from(["1", "2"])
    raise AssertionError(row)


def objects(kind: str) -> st.SearchStrategy[Any]:
    table: Mapping[str, Any] = TABLES[kind]  # type: ignore[index]
    strategies = {field: strategy(row) for field, row in table.items()}
    strategies["entry_uuid"] = UUIDS | TEXT
    for required in ("association_type", "source_object", "target_object"):
        if required in strategies:
            strategies[required] = TEXT
    if "object_type" in strategies:
        strategies["object_type"] = st.just(STABLE)
    return st.builds(CLASSES[kind], **strategies, extra=EXTRA)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_attribute_of_a_class_has_a_row_in_its_table(kind: str) -> None:
    assert {field.name for field in fields(CLASSES[kind])} - {"extra"} == set(TABLES[kind])  # type: ignore[index]


@pytest.mark.parametrize("kind", CLASSES)
def test_decode_of_encode_is_the_same_object(kind: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(objects(kind))
    def check(obj: Any) -> None:
        assert rim.decode(rim.encode(obj)) == obj

    check()


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Submission,
        submission_sets=st.lists(objects("SubmissionSet"), max_size=1).map(tuple),
        document_entries=st.lists(objects("DocumentEntry"), max_size=2).map(tuple),
        folders=st.lists(objects("Folder"), max_size=1).map(tuple),
        associations=st.lists(objects("Association"), max_size=2).map(tuple),
    )
)
def test_a_submission_survives_lcm(submission: Submission) -> None:
    assert lcm.decode_submission(etree.fromstring(lcm.encode_submission(submission))) == submission


PROBLEMS = st.builds(
    Problem, code=TEXT, context=TEXT, location=st.none() | TEXT, severity=st.sampled_from(list(Severity))
)
OUTCOMES = st.builds(
    Outcome, status=st.sampled_from(list(ResponseStatus)), problems=st.lists(PROBLEMS, max_size=3).map(tuple)
)


@given(OUTCOMES)
def test_an_outcome_survives_rs(outcome: Outcome) -> None:
    assert rs.decode_outcome(etree.fromstring(rs.encode_outcome(outcome))) == outcome


@settings(max_examples=20, deadline=None)
@given(st.lists(objects("DocumentEntry"), max_size=3), OUTCOMES)
def test_a_query_result_survives(entries: list[DocumentEntry], outcome: Outcome) -> None:
    result = QueryResult(outcome=outcome, fragments=[rim.to_text(entry) for entry in entries])
    back = query.decode_result(etree.fromstring(b"".join(query.encode_result(result))))
    assert back.outcome == outcome
    assert list(rim.decode_fragments(back.fragments)) == entries


IDS = st.from_regex(r"[0-9A-Za-z.^&:-]{1,20}", fullmatch=True)
REQUESTS = st.builds(
    DocumentRequest, repository_unique_id=IDS, document_unique_id=IDS, home_community_id=st.none() | IDS
)


@given(st.lists(REQUESTS, min_size=1, max_size=4))
def test_a_retrieve_request_survives(requests: list[DocumentRequest]) -> None:
    assert xdsb.decode_retrieve_request(etree.fromstring(xdsb.encode_retrieve_request(requests))) == tuple(requests)


@given(OUTCOMES, st.lists(REQUESTS, max_size=3))
def test_a_retrieve_response_survives(outcome: Outcome, requests: list[DocumentRequest]) -> None:
    document = Document.of(b"abc", "text/plain")
    retrieved = [(Retrieved(request=one, document=document), f"{n}@x") for n, one in enumerate(requests)]
    element = etree.fromstring(b"".join(xdsb.encode_retrieve_response(outcome, retrieved)))
    back, documents = xdsb.decode_retrieve_response(element)
    assert back == outcome
    assert [(request, mime) for request, mime, _ in documents] == [(request, "text/plain") for request in requests]


UIDS = st.from_regex(r"[12](\.[1-9][0-9]{0,3}){1,6}", fullmatch=True)
IMAGING = st.builds(
    ImagingRequest,
    studies=st.lists(
        st.builds(
            StudyRequest,
            study_instance_uid=UIDS,
            series=st.lists(
                st.builds(
                    SeriesRequest,
                    series_instance_uid=UIDS,
                    documents=st.lists(REQUESTS, min_size=1, max_size=3).map(tuple),
                ),
                min_size=1,
                max_size=2,
            ).map(tuple),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    transfer_syntax_uids=st.lists(UIDS, min_size=1, max_size=3, unique=True).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(IMAGING)
def test_an_imaging_request_survives(request: ImagingRequest) -> None:
    assert xdsi.decode_imaging_request(etree.fromstring(xdsi.encode_imaging_request(request))) == request
