"""ITI-86 Remove Documents: what is removed, what is refused, and what stays (supplement Remove Metadata and Documents 3.86).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from benchmarks.messages import new_oid, patient, submission
from repository import iti43_retrieve
from repository.client import client, removal
from repository.documents import Documents
from repository.holds import Hold, Holds
from repository.iti86_remove import MAX_DOCUMENTS, remove
from repository.schema import connect, upgrade
from repository.sweep import sweep
from repository.tables import State, retention_hold
from schemas import catalog, rmd
from server.compose import Domain, soap_client
from server.config import Config
from soap.envelope import parse_document
from xds.messages import Document, DocumentRequest, Outcome, QueryResult, Retrieved
from xds.problems import Failure, Problem
from xds.queries import FindDocuments
from xds.transactions import RemoveDocuments, Retrieve
from xds.values import Identifier, UniqueId

OURS = "1.3.6.1.4.1.21367.2010.1.2.1125"
LETTER = Document.of(b"Dear colleague,", "text/plain")
SCAN = Document.of(bytes(range(256)) * 400, "image/png")
UNKNOWN, ELSEWHERE, REFUSED = "XDSDocumentUniqueIdError", "XDSUnknownRepositoryId", "XDSRemoveDocumentsError"


def asked(unique_id: str, repository: str = OURS) -> DocumentRequest:
    return DocumentRequest(repository_unique_id=repository, document_unique_id=unique_id)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect(f"sqlite:///{tmp_path / 'catalogue.db'}")
    upgrade(made)
    yield made
    made.dispose()


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> Iterator[Documents]:
    made = Documents(engine, tmp_path / "store", in_catalogue_bytes=-1)
    made.commit(made.stage({"1.2.1": LETTER, "1.2.2": SCAN}))
    yield made
    made.close()


@pytest.fixture
def holds(engine: Engine) -> Iterator[Holds]:
    made = Holds(engine, today=lambda: date(2026, 5, 1))
    yield made
    made.close()


@pytest.fixture
def removing(store: Documents, holds: Holds) -> RemoveDocuments:
    return partial(remove, store=store, holds=holds, repository_unique_id=OURS)


def files(store: Documents) -> list[Path]:
    return [path for path in store.staging.parent.rglob("*") if path.is_file()]


def refused(action: Callable[[], object]) -> list[tuple[str, str | None]]:
    with pytest.raises(Failure) as failure:
        action()
    return [(str(one.code), one.location) for one in failure.value.problems]


def test_a_removed_document_is_known_no_more_and_its_bytes_are_gone(
    removing: RemoveDocuments, store: Documents
) -> None:
    """[T 50000, 50001]"""
    assert removing([asked("1.2.1")]).succeeded
    assert store.get("1.2.1") is None
    scan = store.get("1.2.2")
    assert scan is not None and scan.read() == SCAN.read()
    assert [path.stat().st_size for path in files(store)] == [SCAN.size]
    assert store.unsettled() == []
    (answer,) = iti43_retrieve.retrieve([asked("1.2.1")], store=store, repository_unique_id=OURS)
    assert isinstance(answer, Problem) and answer.code == UNKNOWN


def test_several_documents_go_together_each_named_once_or_twice(removing: RemoveDocuments, store: Documents) -> None:
    assert removing([asked("1.2.1"), asked("1.2.2"), asked("1.2.1")]).succeeded
    assert files(store) == []


def test_a_wrong_repository_is_an_error_and_nothing_is_removed(removing: RemoveDocuments, store: Documents) -> None:
    """[T 50002, 50003]"""
    request = [asked("1.2.1"), asked("1.2.2", repository="1.2.3.4.78")]
    assert refused(lambda: removing(request)) == [(ELSEWHERE, "1.2.2")]
    assert len(files(store)) == 2


def test_every_problem_is_told_at_once(removing: RemoveDocuments, store: Documents, holds: Holds) -> None:
    holds.hold(Hold(document_unique_id="1.2.2", until=date(2026, 5, 1), reason="law case 7"))
    request = [asked("9.9"), asked("1.2.1", repository="1.5"), asked("1.2.2"), asked("1.2.1")]
    found = refused(lambda: removing(request))
    assert found == [(ELSEWHERE, "1.2.1"), (UNKNOWN, "9.9"), (REFUSED, "1.2.2")]
    assert len(files(store)) == 2


@pytest.mark.parametrize(
    ("until", "held"), [(None, True), (date(2026, 5, 2), True), (date(2026, 5, 1), True), (date(2026, 4, 30), False)]
)
def test_a_held_document_stays_until_the_end_of_the_last_day(
    removing: RemoveDocuments, holds: Holds, until: date | None, held: bool
) -> None:
    holds.hold(Hold(document_unique_id="1.2.1", until=until, reason="law case 7"))
    if held:
        with pytest.raises(Failure) as failure:
            removing([asked("1.2.1")])
        (problem,) = failure.value.problems
        assert problem.context.startswith("document 1.2.1: it is held until ")
        assert problem.context.endswith(": law case 7")
        assert (str(until) if until else "somebody releases it") in problem.context
        assert holds.release("1.2.1") and not holds.release("1.2.1")
    assert removing([asked("1.2.1")]).succeeded


def test_a_later_hold_takes_the_place_of_an_earlier_one(holds: Holds) -> None:
    for until in (date(2026, 6, 1), None, date(2027, 1, 1)):
        holds.hold(Hold(document_unique_id="1.2.1", until=until, reason="a"))
    assert [one.until for one in holds.all()] == [date(2027, 1, 1)]


@pytest.mark.parametrize("settle", ["quarantine", None])
def test_a_document_whose_registration_has_not_ended_is_not_removed(
    removing: RemoveDocuments, store: Documents, settle: str | None
) -> None:
    """The registry may have registered it, or be about to."""
    staged = store.stage({"1.2.9": LETTER})
    if settle is not None:
        getattr(store, settle)(staged)
    assert refused(lambda: removing([asked("1.2.9")])) == [(REFUSED, "1.2.9")]


def test_a_removed_uniqueid_may_come_again(removing: RemoveDocuments, store: Documents) -> None:
    """Also with other bytes: nobody can retrieve the former ones any more."""
    removing([asked("1.2.1")])
    store.commit(store.stage({"1.2.1": SCAN}))
    again = store.get("1.2.1")
    assert again is not None and again.read() == SCAN.read()


def test_bytes_that_cannot_go_now_go_with_the_sweep(
    removing: RemoveDocuments, store: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the answer nobody is given the document, whatever happens to its file."""

    def fails(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "not now")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fails)
        assert removing([asked("1.2.1")]).succeeded
    assert store.get("1.2.1") is None
    assert [one.state for one in store.unsettled()] == [State.REMOVED]

    def nobody_asks(query: object) -> QueryResult:
        raise AssertionError("the registry has nothing to say about it")

    swept = sweep(store=store, query=nobody_asks, repository_unique_id=OURS, now=lambda: 0.0, began=0.0)
    assert (swept.discarded, swept.left) == (1, 0)
    assert [path.stat().st_size for path in files(store)] == [SCAN.size]


def test_a_request_is_bounded(removing: RemoveDocuments) -> None:
    with pytest.raises(Failure, match=f"{MAX_DOCUMENTS + 1} documents; the limit is {MAX_DOCUMENTS}"):
        removing([asked("1.2.1")] * (MAX_DOCUMENTS + 1))


def test_many_documents_are_removed_in_one_request(removing: RemoveDocuments, store: Documents) -> None:
    names = [f"1.3.{n}" for n in range(MAX_DOCUMENTS)]
    store.commit(store.stage(dict.fromkeys(names, LETTER)))
    assert removing([asked(one) for one in names]).succeeded
    assert len(files(store)) == 2


def test_many_holds_are_looked_up(engine: Engine, holds: Holds) -> None:
    names = [f"1.3.{n}" for n in range(1200)]
    with engine.begin() as connection:
        rows = [{"document_unique_id": one, "until": None, "reason": "a"} for one in names]
        connection.execute(insert(retention_hold), rows)
    assert holds.of([*names, "1.4"]).keys() == set(names)


# --- over SOAP --------------------------------------------------------------------------------------------------------


def test_the_message_is_the_schemas() -> None:
    content = rmd.encode_remove_request([asked("1.2.1")])
    assert catalog.validate(parse_document(content), "rmd") == []
    assert rmd.decode_remove_request(parse_document(content)) == (asked("1.2.1"),)


@pytest.fixture
def remote(domain: Domain, config: Config) -> tuple[RemoveDocuments, Retrieve, DocumentRequest]:
    """A document of its own in the served repository."""
    soap = soap_client(domain.endpoints["repository"], config)
    provide, retrieve = client(soap)
    made = submission(patient(86))
    entry = replace(made.document_entries[0], unique_id=UniqueId(new_oid()), hash=None, size=None)
    assert provide(replace(made, document_entries=(entry,)), {entry.entry_uuid: LETTER}).succeeded
    return removal(soap), retrieve, asked(str(entry.unique_id), config.repository.unique_id)


def retrieved(retrieve: Retrieve, request: DocumentRequest) -> bytes | str:
    (answer,) = retrieve([request])
    return answer.document.read() if isinstance(answer, Retrieved) else str(answer.code)


def test_a_document_is_removed_over_soap_and_its_metadata_stays(
    remote: tuple[RemoveDocuments, Retrieve, DocumentRequest],
    domain: Domain,
    config: Config,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[T 50000, 50001]; what went is in the audit log, and nothing of the patient."""
    from registry.client import client as registry_client

    caplog.set_level(logging.INFO, "xdsi.audit")
    removing, retrieve, request = remote
    assert retrieved(retrieve, request) == LETTER.read()
    assert removing([request]) == Outcome()
    assert retrieved(retrieve, request) == UNKNOWN
    assert refused(lambda: removing([request])) == [(UNKNOWN, request.document_unique_id)]
    lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "xdsi.audit"]
    assert [(one["repository"], one["outcome"], one["documents"]) for one in lines] == [
        (config.repository.unique_id, "Success", {request.document_unique_id: "removed"}),
        (config.repository.unique_id, "Failure", {request.document_unique_id: UNKNOWN}),
    ]
    registry = registry_client(soap_client(domain.endpoints["registry"], config))
    found = registry.query(FindDocuments(patient_id=Identifier(str(patient(86)))))
    assert any(request.document_unique_id in fragment for fragment in found.fragments)


def test_a_request_without_ids_is_refused(domain: Domain, config: Config) -> None:
    removing = removal(soap_client(domain.endpoints["repository"], config))
    assert refused(lambda: removing([])) == [(REFUSED, None)]
    assert refused(lambda: removing([asked("")])) == [("XDSRepositoryError", None)]
