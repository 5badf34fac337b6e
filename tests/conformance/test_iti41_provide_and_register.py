"""ITI-41 Provide and Register Document Set-b at the repository: a real store, and a registry that records or refuses."""

from __future__ import annotations

import base64
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from lxml import etree
from sqlalchemy import Engine, event, select, text

from repository.documents import Documents
from repository.iti41_provide_and_register import provide_and_register
from repository.schema import connect, upgrade
from repository.service import PROVIDE, service
from repository.tables import stored_document
from schemas import catalog, rs, xdsb
from soap.fault import SoapFault
from soap.operations import Call
from xds.messages import Document, Outcome
from xds.metadata import DocumentEntry, Extra, Slot, Submission, SubmissionSet, Unrecognized, has_member
from xds.problems import Failure, Problem, Severity, fail
from xds.transactions import Provide
from xds.values import Code, Identifier, MimeType, Oid, Sha1, Size, UniqueId
from xds.vocabulary import ResponseStatus

OUR_ID = "1.3.6.1.4.1.21367.2010.1.2.1125"
LETTER = Document.of(b"Dear colleague,\r\nthank you.\r\n", "application/octet-stream")
IMAGE = Document.of(bytes(range(256)) * 400, "application/octet-stream")
WARNING = Problem(code="XDSExtraMetadataNotSaved", context="urn:x", severity=Severity.WARNING)


def entry(number: int, unique_id: str | None = None) -> DocumentEntry:
    return DocumentEntry(
        entry_uuid=f"Document{number}",
        unique_id=UniqueId(unique_id or f"1.2.3.{number}"),
        mime_type=MimeType("text/plain; charset=ISO-8859-1"),
        patient_id=Identifier.of("P1", "1.2.3.4"),
        class_code=Code.of("34133-9", "2.16.840.1.113883.6.1", "Summary"),
        extra=Extra(slots=(Slot(name="urn:example:ward", values=("7B",)),)),
    )


def submission_of(*entries: DocumentEntry) -> Submission:
    return Submission(
        submission_sets=(SubmissionSet(entry_uuid="SubmissionSet01", unique_id=Oid("1.2.3.99")),),
        document_entries=entries,
        associations=tuple(
            has_member("SubmissionSet01", one.entry_uuid, entry_uuid=f"A{number}", submission_set_status="Original")
            for number, one in enumerate(entries)
        ),
    )


@dataclass
class Registry:
    """Registers what it is asked to, or does what `answer` says."""

    answer: Callable[[], Outcome] = Outcome
    registered: list[Submission] = field(default_factory=list)

    def __call__(self, submission: Submission) -> Outcome:
        self.registered.append(submission)
        return self.answer()


@dataclass
class Actors:
    """A repository with its store, and the registry behind it."""

    engine: Engine
    store: Documents
    registry: Registry

    def provide(self, submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        return provide_and_register(
            submission, documents, store=self.store, register=self.registry, repository_unique_id=OUR_ID
        )

    def refused(self, submission: Submission, documents: Mapping[str, Document]) -> tuple[Problem, ...]:
        with pytest.raises(Failure) as refused:
            self.provide(submission, documents)
        return refused.value.problems

    def given(self, unique_id: str) -> bytes | None:
        document = self.store.get(unique_id)
        return None if document is None else document.read()

    def states(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.scalars(select(stored_document.c.state)))


@pytest.fixture
def actors(tmp_path: Path) -> Iterator[Actors]:
    engine = connect(f"sqlite:///{tmp_path / 'catalogue.db'}")
    upgrade(engine)
    # Everything as files, so that a test sees what is left.
    store = Documents(engine, tmp_path / "store", in_catalogue_bytes=-1)
    yield Actors(engine, store, Registry())
    store.close()
    engine.dispose()


def codes(problems: tuple[Problem, ...]) -> list[str]:
    return [str(problem.code) for problem in problems]


def raising(error: Exception) -> Callable[[], Outcome]:
    def answer() -> Outcome:
        raise error

    return answer


def test_documents_are_stored_and_registered_with_our_hash_size_and_repository(actors: Actors) -> None:
    """ITI TF-2 3.41.4.1.3 [T 11966, 11979]."""
    submission = submission_of(entry(1), entry(2))
    assert actors.provide(submission, {"Document1": LETTER, "Document2": IMAGE}) == Outcome()
    (registered,) = actors.registry.registered
    assert registered == replace(
        submission,
        document_entries=tuple(
            replace(
                one,
                hash=Sha1(document.sha1),
                size=Size(document.size),
                repository_unique_id=Oid(OUR_ID),
            )
            for one, document in zip(submission.document_entries, (LETTER, IMAGE), strict=True)
        ),
    )
    assert (actors.given("1.2.3.1"), actors.given("1.2.3.2")) == (LETTER.read(), IMAGE.read())
    assert actors.states() == ["available", "available"]


def test_the_mime_type_of_the_metadata_is_kept_to_the_letter(actors: Actors) -> None:
    """The one of the MIME part says nothing (ITI TF-2 3.41.4.1.3) [T 12360]."""
    actors.provide(submission_of(entry(1)), {"Document1": LETTER})
    document = actors.store.get("1.2.3.1")
    assert document is not None
    assert document.mime_type == "text/plain; charset=ISO-8859-1"


def test_a_submission_without_documents_goes_to_the_registry(actors: Actors) -> None:
    assert actors.provide(submission_of(), {}).succeeded
    assert actors.registry.registered == [submission_of()]


def test_the_bytes_can_be_retrieved_before_the_registry_is_asked(actors: Actors) -> None:
    seen: list[bytes | None] = []

    def answer() -> Outcome:
        seen.append(actors.given("1.2.3.1"))
        return Outcome()

    actors.registry.answer = answer
    actors.provide(submission_of(entry(1)), {"Document1": LETTER})
    assert seen == [LETTER.read()]


def test_a_document_whose_hash_nobody_has_computed_is_measured(actors: Actors) -> None:
    actors.provide(submission_of(entry(1)), {"Document1": replace(LETTER, sha1="")})
    (registered,) = actors.registry.registered
    assert registered.document_entries[0].hash == LETTER.sha1


def test_right_hash_and_size_of_the_source_are_accepted_in_any_writing(actors: Actors) -> None:
    one = replace(entry(1), hash=Sha1(LETTER.sha1.upper()), size=Size(f"00{LETTER.size}"))
    assert actors.provide(submission_of(one), {"Document1": LETTER}).succeeded
    assert actors.registry.registered[0].document_entries[0].hash == LETTER.sha1


@pytest.mark.parametrize(
    "change",
    [
        {"hash": Sha1("0" * 40)},
        {"hash": Sha1("")},
        {"size": Size(LETTER.size + 1)},
        {"size": Size("many")},
        {"extra": Extra(slots=(Slot(name="size", values=(str(LETTER.size), "7")),))},
        {"extra": Extra(slots=(Slot(name="hash", values=("no hash",)),))},
    ],
    ids=["hash", "empty hash", "size", "size is no number", "two sizes", "misshapen hash"],
)
def test_a_wrong_hash_or_size_of_the_source_is_refused_and_nothing_is_registered(
    actors: Actors, change: dict[str, Sha1 | Size | Extra]
) -> None:
    """ITI TF-2 3.41.4.1.3 [T 11981, 12369]."""
    one = replace(entry(1), **change)  # type: ignore[arg-type]
    problems = actors.refused(submission_of(one, entry(2)), {"Document1": LETTER, "Document2": IMAGE})
    assert codes(problems) == ["XDSRepositoryMetadataError"]
    assert "Document1" in problems[0].context
    assert (actors.registry.registered, actors.states()) == ([], [])


def test_the_repository_of_a_source_is_replaced_by_ours_wherever_it_stands(actors: Actors) -> None:
    misshapen = Slot(name="repositoryUniqueId", values=("1.2", "1.3"))
    ward = Slot(name="urn:example:ward", values=("7B",))
    submitted = replace(entry(1), repository_unique_id=Oid("9.9.9"), extra=Extra(slots=(misshapen, ward)))
    actors.provide(submission_of(submitted), {"Document1": LETTER})
    registered = actors.registry.registered[0].document_entries[0]
    assert (registered.repository_unique_id, registered.extra) == (OUR_ID, Extra(slots=(ward,)))


def test_every_mismatch_of_documents_and_entries_is_told_at_once(actors: Actors) -> None:
    """ITI TF-2 3.41.4.1.3 [T 11983]."""
    submission = submission_of(entry(1), replace(entry(2), hash=Sha1("0" * 40)), entry(3), entry(4, "1.2.3.3"))
    documents = {"Document2": LETTER, "Document3": LETTER, "Document4": LETTER, "Stray": IMAGE}
    assert sorted(codes(actors.refused(submission, documents))) == [
        "XDSMissingDocument",
        "XDSMissingDocumentMetadata",
        "XDSRepositoryDuplicateUniqueIdInMessage",
        "XDSRepositoryMetadataError",
    ]
    assert (actors.registry.registered, actors.states()) == ([], [])


def test_two_entries_of_one_id_are_refused(actors: Actors) -> None:
    submission = submission_of(entry(1), replace(entry(2), entry_uuid="Document1"))
    assert codes(actors.refused(submission, {"Document1": LETTER})) == ["XDSRepositoryMetadataError"]


@pytest.mark.parametrize("unique_id", [None, UniqueId("1" * 257)], ids=["missing", "too long"])
def test_an_unusable_unique_id_is_for_the_registry_to_refuse(actors: Actors, unique_id: UniqueId | None) -> None:
    refusal = Problem(code="XDSRegistryMetadataError", context="DocumentEntry.uniqueId is missing")
    actors.registry.answer = lambda: Outcome.of([refusal])
    submission = submission_of(replace(entry(1), unique_id=unique_id), entry(2))
    assert actors.refused(submission, {"Document1": LETTER, "Document2": IMAGE}) == (refusal,)
    assert actors.states() == []


def test_a_registry_that_takes_an_entry_without_unique_id_is_no_success(actors: Actors) -> None:
    problems = actors.refused(submission_of(replace(entry(1), unique_id=None)), {"Document1": LETTER})
    assert codes(problems) == ["XDSRepositoryError"]


def test_the_document_of_an_object_that_ihe_does_not_know_is_for_the_registry_to_refuse(actors: Actors) -> None:
    odd = Unrecognized(entry_uuid="Document1", reason="has an unknown objectType", xml=b"<x/>")
    actors.registry.answer = raising(fail("XDSRegistryMetadataError", "Document1 has an unknown objectType"))
    problems = actors.refused(replace(submission_of(), unrecognized=(odd,)), {"Document1": LETTER})
    assert codes(problems) == ["XDSRegistryMetadataError"]


@pytest.mark.parametrize("as_exception", [True, False])
def test_the_problems_of_the_registry_are_relayed_unchanged_and_the_bytes_go(
    actors: Actors, tmp_path: Path, as_exception: bool
) -> None:
    """ITI TF-2 3.41.4.1.3 [T 11986]: all of them, warnings too."""
    problems = (Problem(code="XDSUnknownPatientId", context="P1^^^&1.2.3.4&ISO", location="x"), WARNING)
    refusal = Outcome(status=ResponseStatus.FAILURE, problems=problems)
    actors.registry.answer = raising(Failure(problems)) if as_exception else (lambda: refusal)
    assert actors.refused(submission_of(entry(1)), {"Document1": LETTER}) == problems
    assert (actors.given("1.2.3.1"), actors.states()) == (None, [])
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_warnings_of_the_registry_come_with_the_success(actors: Actors) -> None:
    actors.registry.answer = lambda: Outcome.of([WARNING])
    assert actors.provide(submission_of(entry(1)), {"Document1": LETTER}) == Outcome(problems=(WARNING,))


def test_a_refused_submission_does_not_take_the_bytes_of_an_earlier_one(actors: Actors) -> None:
    actors.provide(submission_of(entry(1)), {"Document1": LETTER})
    actors.registry.answer = raising(fail("XDSDuplicateUniqueIdInRegistry", "1.2.3.99"))
    actors.refused(submission_of(entry(1), entry(2)), {"Document1": LETTER, "Document2": IMAGE})
    assert (actors.given("1.2.3.1"), actors.given("1.2.3.2")) == (LETTER.read(), None)


def test_a_unique_id_comes_again_only_with_the_same_bytes(actors: Actors) -> None:
    """ITI TF-3 4.2.4.1, XDSNonIdenticalHash."""
    actors.provide(submission_of(entry(1)), {"Document1": LETTER})
    assert actors.provide(submission_of(entry(1)), {"Document1": LETTER}).succeeded
    assert codes(actors.refused(submission_of(entry(1)), {"Document1": IMAGE})) == ["XDSNonIdenticalHash"]
    assert len(actors.registry.registered) == 2
    assert actors.given("1.2.3.1") == LETTER.read()


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionRefusedError(), ValueError("no SOAP"), SoapFault("Receiver", "x")]
)
def test_without_a_verdict_of_the_registry_the_documents_are_kept_but_not_given_out(
    actors: Actors, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The registration may have happened."""
    actors.registry.answer = raising(error)
    (problem,) = actors.refused(submission_of(entry(1)), {"Document1": LETTER})
    assert problem.code == "XDSRegistryNotAvailable"
    assert (actors.given("1.2.3.1"), actors.states()) == (None, ["quarantined"])
    incident = problem.context.rpartition("incident ")[2].rstrip(")")
    assert incident in caplog.text


def test_a_registered_document_is_given_out_even_when_the_catalogue_fails_afterwards(
    actors: Actors, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> Outcome:
        with actors.engine.begin() as connection:
            connection.execute(
                text("CREATE TRIGGER broken BEFORE UPDATE ON stored_document BEGIN SELECT RAISE(ABORT, 'no'); END")
            )
        return Outcome()

    actors.registry.answer = answer
    assert actors.provide(submission_of(entry(1)), {"Document1": LETTER}).succeeded
    assert (actors.given("1.2.3.1"), actors.states()) == (LETTER.read(), ["pending"])
    assert "left to the sweep" in caplog.text


def test_without_space_nothing_is_stored_and_the_registry_is_not_asked(
    actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    problems = actors.refused(submission_of(entry(1)), {"Document1": LETTER})
    assert codes(problems) == ["XDSRepositoryOutOfResources"]
    assert (actors.registry.registered, actors.states()) == ([], [])


def test_while_another_writes_the_catalogue_for_too_long_the_repository_is_busy(tmp_path: Path) -> None:
    """ITI TF-3 Table 4.2.4.1-2, XDSRepositoryBusy; nothing is stored, and the same message succeeds later."""
    engine = connect(f"sqlite:///{tmp_path / 'catalogue.db'}", busy_timeout_s=0.05)
    upgrade(engine)
    store = Documents(engine, tmp_path / "store")
    actors = Actors(engine, store, Registry())
    other = sqlite3.connect(tmp_path / "catalogue.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (problem,) = wired(actors).problems
    assert problem.code == "XDSRepositoryBusy"
    assert "send it again later" in problem.context and "incident" in problem.context
    assert (actors.registry.registered, stored_files(tmp_path)) == ([], [])
    other.rollback()
    other.close()
    assert wired(actors).succeeded
    store.close()


def test_a_catalogue_without_room_is_a_repository_out_of_resources(actors: Actors, tmp_path: Path) -> None:
    """ITI TF-3 Table 4.2.4.1-2, XDSRepositoryOutOfResources."""

    def small(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1").close()

    actors.engine.dispose()
    event.listen(actors.engine, "connect", small)
    long = replace(entry(1), mime_type=MimeType("text/plain; x=" + "x" * 100_000))
    (problem,) = answered(actors.provide, submission_of(long), {"Document1": "a@x"}, {"a@x": LETTER}).problems
    assert problem.code == "XDSRepositoryOutOfResources"
    assert (actors.registry.registered, actors.states(), stored_files(tmp_path)) == ([], [], [])


def stored_files(directory: Path) -> list[Path]:
    return [path for path in (directory / "store").rglob("*") if path.is_file()]


def wired(actors: Actors) -> Outcome:
    """The outcome of one document that comes over the wire."""
    return answered(actors.provide, submission_of(entry(1)), {"Document1": "a@x"}, {"a@x": LETTER})


def answered(
    provide: Provide, submission: Submission, content_ids: Mapping[str, str], documents: Mapping[str, Document]
) -> Outcome:
    """Over the service's operation; the response is checked against its schema."""
    body = etree.fromstring(xdsb.encode_provide(submission, content_ids))
    return answered_to(provide, body, documents)


def answered_to(provide: Provide, body: etree._Element, documents: Mapping[str, Document]) -> Outcome:
    operations = service(provide=provide, retrieve=lambda _: iter(()), describe=lambda *_: None).operations
    (operation,) = (one for one in operations if one.action == PROVIDE)
    reply = operation.answer(Call(body=body, documents=documents, message_id="urn:uuid:1", mtom=True))
    response = etree.fromstring(b"".join(reply.body))
    assert catalog.validate(response, "rs") == []
    assert reply.documents == ()
    return rs.decode_outcome(response)


def test_a_request_of_the_wire_is_stored_and_registered(actors: Actors) -> None:
    outcome = answered(
        actors.provide,
        submission_of(entry(1), entry(2)),
        {"Document1": "a@x", "Document2": "b@x"},
        {"a@x": LETTER, "b@x": IMAGE},
    )
    assert outcome == Outcome()
    assert (actors.given("1.2.3.1"), actors.given("1.2.3.2")) == (LETTER.read(), IMAGE.read())
    registered = actors.registry.registered[0].document_entries[0]
    assert registered.extra.slots == (Slot(name="urn:example:ward", values=("7B",)),)


def test_several_documents_of_one_id_are_refused(actors: Actors) -> None:
    body = etree.fromstring(xdsb.encode_provide(submission_of(entry(1)), {"Document1": "a@x", "Document2": "b@x"}))
    body[-1].set("id", "Document1")
    outcome = answered_to(actors.provide, body, {"a@x": LETTER, "b@x": IMAGE})
    assert (outcome.status, codes(outcome.problems)) == (ResponseStatus.FAILURE, ["XDSRepositoryError"])
    assert actors.registry.registered == []


def without_ids(body: etree._Element) -> None:
    del body[-1].attrib["id"]
    body[-2].set("id", "")


def without_anything_right(body: etree._Element) -> None:
    body.remove(body[0])
    without_ids(body)


SCHEMA_FAULTS: dict[str, tuple[Callable[[etree._Element], None], list[str]]] = {
    "no SubmitObjectsRequest": (
        lambda body: body.remove(body[0]),
        ["ProvideAndRegisterDocumentSetRequest: lcm:SubmitObjectsRequest is missing"],
    ),
    "no RegistryObjectList": (
        lambda body: body[0].remove(body[0][0]),
        ["SubmitObjectsRequest: rim:RegistryObjectList is missing"],
    ),
    "Documents without ids": (
        without_ids,
        ["Document 1: the attribute id is missing or empty", "Document 2: the attribute id is missing or empty"],
    ),
    "nothing right": (
        without_anything_right,
        [
            "Document 1: the attribute id is missing or empty",
            "Document 2: the attribute id is missing or empty",
            "ProvideAndRegisterDocumentSetRequest: lcm:SubmitObjectsRequest is missing",
        ],
    ),
}


@pytest.mark.parametrize(("change", "contexts"), SCHEMA_FAULTS.values(), ids=SCHEMA_FAULTS)
def test_a_request_that_its_schema_refuses_is_refused_before_anything_is_stored(
    actors: Actors, change: Callable[[etree._Element], None], contexts: list[str]
) -> None:
    """ITI TF-2 3.41.4.1.2: XDSRepositoryMetadataError, for each fault that keeps documents and metadata from being matched."""
    content_ids = {"Document1": "a@x", "Document2": "b@x"}
    body = etree.fromstring(xdsb.encode_provide(submission_of(entry(1), entry(2)), content_ids))
    change(body)
    assert catalog.validate(body, "xdsb") != []
    outcome = answered_to(actors.provide, body, {"a@x": LETTER, "b@x": IMAGE})
    assert [(one.code, one.context) for one in outcome.problems] == [
        ("XDSRepositoryMetadataError", context) for context in contexts
    ]
    assert (outcome.status, actors.registry.registered, actors.states()) == (ResponseStatus.FAILURE, [], [])


def test_documents_come_as_parts_and_inline_in_one_message(actors: Actors) -> None:
    """ITI TF-2 Appendix V.3.6: optimised, not optimised, or both."""
    content_ids = {"Document1": "a@x", "Document2": "b@x"}
    body = etree.fromstring(xdsb.encode_provide(submission_of(entry(1), entry(2)), content_ids))
    body[-1].remove(body[-1][0])
    body[-1].text = "\n " + base64.encodebytes(IMAGE.read()).decode()
    assert answered_to(actors.provide, body, {"a@x": LETTER}) == Outcome()
    assert (actors.given("1.2.3.1"), actors.given("1.2.3.2")) == (LETTER.read(), IMAGE.read())


def test_a_reference_to_no_part_is_a_fault_of_the_framing(actors: Actors) -> None:
    with pytest.raises(SoapFault, match="no part of that Content-ID"):
        answered(actors.provide, submission_of(entry(1)), {"Document1": "a@x"}, {})


def test_a_refusal_of_warnings_alone_is_a_failure_with_an_error(actors: Actors) -> None:
    """ITI TF-3 4.2.4.2."""
    actors.registry.answer = raising(Failure([WARNING]))
    outcome = answered(actors.provide, submission_of(entry(1)), {"Document1": "a@x"}, {"a@x": LETTER})
    assert outcome.status is ResponseStatus.FAILURE
    assert codes(outcome.problems) == ["XDSExtraMetadataNotSaved", "XDSRepositoryError"]


def test_what_nobody_foresaw_is_an_incident_whose_traceback_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        raise RuntimeError("secret of the house")

    with caplog.at_level(logging.ERROR):
        outcome = answered(broken, submission_of(entry(1)), {"Document1": "a@x"}, {"a@x": LETTER})
    (problem,) = outcome.problems
    assert (outcome.status, problem.code) == (ResponseStatus.FAILURE, "XDSRepositoryError")
    assert "secret" not in problem.context
    assert problem.context.rpartition(" ")[2] in caplog.text
    assert "secret of the house" in caplog.text
