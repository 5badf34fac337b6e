"""ITI-86 Remove Documents as messages of the wire, on both databases: who else is at work, what is kept for how long, the audit trail.

What is removed and what is refused is in test_iti86_remove.py.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from lxml import etree
from sqlalchemy import Engine, make_url, select

from benchmarks.messages import SIMPLE, envelope, multipart, patient, submission
from registry.client import client as registry_client
from repository.client import client, removal
from repository.documents import Documents
from repository.holds import Hold, Holds
from repository.iti43_retrieve import retrieve
from repository.iti86_remove import MAX_DOCUMENTS, Removal, log_removal, remove
from repository.schema import connect, upgrade
from repository.service import REMOVE, service
from repository.tables import retention_hold, stored_document
from schemas import catalog, rim, rmd, rs
from schemas.ns import RMD, XDSB
from server.compose import Domain, soap_client
from server.config import Config
from server.embedded import serving
from soap.operations import Call, Operation
from xds.messages import Document, DocumentRequest, Outcome
from xds.problems import Failure, Problem
from xds.queries import GetDocuments
from xds.vocabulary import ResponseStatus

OUR_ID = "1.2.3.4.77"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LETTER = Document.of(b"Dear colleague,\r\nthank you.\r\n", "text/plain")
SCAN = Document.of(bytes(range(256)) * 6000, "application/dicom")


def asked(unique_id: str, repository: str = OUR_ID) -> DocumentRequest:
    return DocumentRequest(repository_unique_id=repository, document_unique_id=unique_id)


@dataclass
class Repository:
    """Its store, its holds, a clock that stands still, and what the audit has heard."""

    engine: Engine
    store: Documents
    moment: datetime = NOW
    retention_days: int = 0
    heard: list[Removal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.holds = Holds(self.engine, today=lambda: self.moment.date())

    def hold(self, unique_id: str) -> None:
        self.holds.hold(Hold(document_unique_id=unique_id, until=None, reason="Case 17"))

    def remove(self, requests: Sequence[DocumentRequest]) -> Outcome:
        return remove(
            requests,
            store=self.store,
            holds=self.holds,
            repository_unique_id=OUR_ID,
            retention_days=self.retention_days,
            now=self.moment.timestamp,
        )

    @property
    def operation(self) -> Operation:
        never = partial(pytest.fail, "not asked for")
        offered = service(
            provide=never,  # type: ignore[arg-type]
            retrieve=never,  # type: ignore[arg-type]
            describe=lambda *_: None,
            remove=self.remove,
            audit=self.heard.append,
        )
        (operation,) = (one for one in offered.operations if one.action == REMOVE)
        return operation

    def answered(self, body: bytes) -> Outcome:
        """To a message of the wire; the response is checked against its schema."""
        reply = self.operation.answer(
            Call(body=etree.fromstring(body), documents={}, message_id="urn:uuid:7", mtom=False)
        )
        response = etree.fromstring(b"".join(reply.body))
        assert catalog.validate(response, "rs") == []
        assert reply.documents == ()
        return rs.decode_outcome(response)

    def told(self, *requests: DocumentRequest) -> list[tuple[str, str | None]]:
        """The code and location of each problem of a refused message; and not one row has changed."""
        before = self.rows()
        outcome = self.answered(rmd.encode_remove_request(requests))
        assert outcome.status is ResponseStatus.FAILURE
        assert self.rows() == before
        return [(one.code, one.location) for one in outcome.problems]

    def reason(self, unique_id: str) -> str:
        """Why a document is not removed."""
        with pytest.raises(Failure) as refused:
            self.remove([asked(unique_id)])
        (problem,) = refused.value.problems
        assert problem.code == "XDSRemoveDocumentsError"
        return problem.context

    def rows(self) -> list[tuple[object, ...]]:
        with self.engine.connect() as connection:
            return [
                tuple(row)
                for table in (stored_document, retention_hold)
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]

    def retrieved(self, unique_id: str) -> str:
        """`found`, or the code of the problem in ITI-43."""
        (answer,) = retrieve([asked(unique_id)], store=self.store, repository_unique_id=OUR_ID)
        return str(answer.code) if isinstance(answer, Problem) else "found"


@pytest.fixture
def repository(database: str, tmp_path: Path) -> Iterator[Repository]:
    """With the documents 1.2.1 and 1.2.2; on SQLite and on PostgreSQL."""
    url = make_url(database)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = connect(url.render_as_string(hide_password=False))
    upgrade(engine)
    store = Documents(engine, tmp_path / "store", now=NOW.timestamp, in_catalogue_bytes=-1)
    store.commit(store.stage({"1.2.1": LETTER, "1.2.2": SCAN}))
    made = Repository(engine, store)
    yield made
    made.holds.close()
    store.close()


def files(tmp_path: Path) -> list[int]:
    """The sizes of all files of the store."""
    return sorted(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file())


# --- the transaction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(), ("1.2.1",)], ids=["alone", "beside a right one"])
def test_another_repositorys_document_is_refused_and_no_document_disappears(
    repository: Repository, others: tuple[str, ...]
) -> None:
    """3.86.4.1.3 [T 50002, 50003]: XDSUnknownRepositoryId."""
    requests = [*map(asked, others), asked("1.2.2", repository="1.2.3.4.78")]
    assert repository.told(*requests) == [("XDSUnknownRepositoryId", "1.2.2")]
    assert (repository.retrieved("1.2.1"), repository.retrieved("1.2.2")) == ("found", "found")


def test_every_problem_is_told_at_once_and_nothing_goes(repository: Repository) -> None:
    repository.hold("1.2.1")
    repository.store.stage({"1.2.5": LETTER})
    repository.store.quarantine(repository.store.stage({"1.2.6": SCAN}))
    requests = [asked(one) for one in ("1.2.1", "1.2.2", "9.9", "1.2.5", "1.2.6")]
    assert repository.told(asked("1.2.2", repository="1.5"), *requests) == [
        ("XDSUnknownRepositoryId", "1.2.2"),
        ("XDSRemoveDocumentsError", "1.2.1"),
        ("XDSDocumentUniqueIdError", "9.9"),
        ("XDSRemoveDocumentsError", "1.2.5"),
        ("XDSRemoveDocumentsError", "1.2.6"),
    ]


def test_a_document_whose_registration_is_not_settled_says_so(repository: Repository) -> None:
    repository.store.stage({"1.2.5": LETTER})
    repository.store.quarantine(repository.store.stage({"1.2.6": SCAN}))
    assert repository.reason("1.2.5").startswith("document 1.2.5: it is being registered; it can be removed when")
    assert repository.reason("1.2.6").startswith("document 1.2.6: the registry gave no answer to its registration")


def test_of_many_who_remove_one_document_one_succeeds(repository: Repository) -> None:
    def attempt(_: int) -> str:
        try:
            return str(repository.remove([asked("1.2.1"), asked("1.2.2")]).status.name)
        except Failure as failure:
            return "/".join(sorted({str(one.code) for one in failure.problems}))

    with ThreadPoolExecutor(6) as pool:
        answers = sorted(pool.map(attempt, range(6)))
    assert answers == ["SUCCESS"] + ["XDSDocumentUniqueIdError"] * 5
    assert repository.rows() == []


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ("<x:Other/>", "RemoveDocumentsRequest: it holds no DocumentRequest"),
        (
            "<x:DocumentRequest><x:DocumentUniqueId>1.2.1</x:DocumentUniqueId></x:DocumentRequest>",
            "DocumentRequest 1: RepositoryUniqueId is missing or empty",
        ),
        (
            f"<x:DocumentRequest><x:RepositoryUniqueId>{OUR_ID}</x:RepositoryUniqueId><x:DocumentUniqueId> </x:DocumentUniqueId>"
            "</x:DocumentRequest>",
            "DocumentRequest 1: DocumentUniqueId is missing or empty",
        ),
        (
            f"<x:DocumentRequest><x:RepositoryUniqueId>{OUR_ID}</x:RepositoryUniqueId><x:DocumentUniqueId>1.2.1</x:DocumentUniqueId>"
            "<x:DocumentUniqueId>1.2.2</x:DocumentUniqueId></x:DocumentRequest>",
            "DocumentRequest 1: it has 2 DocumentUniqueIds, not one",
        ),
    ],
    ids=["something else", "no repository", "no document", "two documents in one request"],
)
def test_a_message_that_does_not_say_what_is_meant_removes_nothing(
    repository: Repository, inside: str, problem: str
) -> None:
    before = repository.rows()
    outcome = repository.answered(
        f'<r:RemoveDocumentsRequest xmlns:r="{RMD}" xmlns:x="{XDSB}">{inside}</r:RemoveDocumentsRequest>'.encode()
    )
    assert [(one.code, one.context) for one in outcome.problems] == [("XDSRepositoryError", problem)]
    assert repository.rows() == before


def test_the_requests_are_found_in_the_namespace_of_the_root_too(repository: Repository) -> None:
    body = rmd.encode_remove_request([asked("1.2.1")]).replace(b"xds:", b"rmd:").replace(b"xmlns:rmd:", b"xmlns:")
    assert repository.answered(body).succeeded
    assert repository.retrieved("1.2.1") == "XDSDocumentUniqueIdError"


def test_what_nobody_foresaw_is_an_incident_and_the_trail_says_that_nobody_knows(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Documents, document_unique_ids: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(Documents, "remove", broken)
    (problem,) = repository.answered(rmd.encode_remove_request([asked("1.2.1")])).problems
    assert problem.code == "XDSRepositoryError"
    assert "secret" not in problem.context and problem.context.rpartition(" ")[2] in caplog.text
    assert [one.fates for one in repository.heard] == [{"1.2.1": "unknown"}]


# --- holds and retention -----------------------------------------------------------------------------------------------


def test_a_retention_time_counts_from_when_the_document_was_stored(repository: Repository) -> None:
    repository.retention_days = 30
    reason = repository.reason("1.2.1")
    assert reason.startswith("document 1.2.1: it is kept until 2026-03-31T12:00:00Z, as every document is for 30 days")
    repository.moment = NOW + timedelta(days=30)
    assert repository.remove([asked("1.2.1")]).succeeded


# --- the trail ---------------------------------------------------------------------------------------------------------


def test_the_audit_hears_of_every_removal_with_what_became_of_each_document(repository: Repository) -> None:
    repository.hold("1.2.1")
    repository.answered(rmd.encode_remove_request([asked("1.2.1"), asked("1.2.2")]))
    repository.answered(rmd.encode_remove_request([asked("1.2.2")]))
    assert [(one.message_id, one.outcome.status.name, one.fates) for one in repository.heard] == [
        ("urn:uuid:7", "FAILURE", {"1.2.1": "XDSRemoveDocumentsError", "1.2.2": "kept"}),
        ("urn:uuid:7", "SUCCESS", {"1.2.2": "removed"}),
    ]


def test_the_audit_log_has_one_line_that_no_sender_can_break(caplog: pytest.LogCaptureFixture) -> None:
    hostile = "1.2\n2026-01-01 INFO xdsi.audit forged\u2028" + "x" * 10_000
    removal = Removal(message_id=hostile, requests=(asked(hostile), asked("1.2.2")), outcome=Outcome())
    with caplog.at_level(logging.INFO, logger="xdsi.audit"):
        log_removal(removal, repository_unique_id=OUR_ID)
    (record,) = caplog.records
    line = record.getMessage()
    assert len(line.splitlines()) == 1 and len(line) < 2000
    assert json.loads(line) == {
        "transaction": "ITI-86",
        "repository": OUR_ID,
        "message": hostile[:256],
        "outcome": "Success",
        "number": 2,
        "documents": {hostile[:256]: "removed", "1.2.2": "removed"},
    }


def test_a_message_may_name_so_many_documents_and_no_more(repository: Repository) -> None:
    many = [asked(f"9.{number}") for number in range(MAX_DOCUMENTS + 1)]
    outcome = repository.answered(rmd.encode_remove_request(many))
    assert [(one.code, one.context) for one in outcome.problems] == [
        ("XDSRemoveDocumentsError", "the request names 1001 documents; the limit is 1000")
    ]
    outcome = repository.answered(rmd.encode_remove_request(many[:MAX_DOCUMENTS]))
    assert len(outcome.problems) == MAX_DOCUMENTS


# --- over SOAP, in a domain --------------------------------------------------------------------------------------------


def provided(domain: Domain, config: Config) -> tuple[str, DocumentRequest]:
    """The entryUUID of a document that was submitted, and the request for it."""
    made = submission(patient(86))
    entry = made.document_entries[0]
    provide, _ = client(soap_client(domain.endpoints["repository"], config))
    assert provide(made, {entry.entry_uuid: LETTER}).succeeded
    registry = registry_client(soap_client(domain.endpoints["registry"], config))
    (found,) = rim.decode_fragments(registry.query(GetDocuments(unique_id=(str(entry.unique_id),))).fragments)
    return found.entry_uuid, asked(str(entry.unique_id), config.repository.unique_id)


def post(url: str, body: bytes, content_type: str = SIMPLE) -> tuple[int, str, str]:
    """The HTTP status, Content-Type and body of the answer."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_request_and_response_are_simple_soap(domain: Domain, config: Config) -> None:
    """3.86.4.1.2, ITI TF-2 Appendix V.3.2."""
    _, request = provided(domain, config)
    status, content_type, answer = post(
        domain.endpoints["repository"], envelope(REMOVE, rmd.encode_remove_request([request]))
    )
    assert (status, content_type) == (200, "application/soap+xml; charset=UTF-8")
    assert "urn:ihe:iti:2017:RemoveDocumentsResponse" in answer
    assert 'status="urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"' in answer


def test_a_repository_that_does_not_offer_it_supports_no_such_action(tmp_path: Path) -> None:
    config = Config()
    config = replace(
        config,
        server=replace(config.server, directory=str(tmp_path), packaging="strict"),
        repository=replace(config.repository, options=""),
    )
    body = envelope(REMOVE, rmd.encode_remove_request([asked("1.2.1")]))
    with serving(config) as served:
        status, _, answer = post(served.endpoints["repository"], body)
    assert (status, "wsa:ActionNotSupported" in answer) == (400, True)


def test_a_strict_repository_refuses_a_removal_in_multipart(tmp_path: Path) -> None:
    config = Config()
    config = replace(config, server=replace(config.server, directory=str(tmp_path), packaging="strict"))
    body = multipart(envelope(REMOVE, rmd.encode_remove_request([asked("1.2.1")])))
    content_type = (
        'multipart/related; type="application/xop+xml"; boundary="' + body[2 : body.index(b"\r\n")].decode() + '"'
    )
    with serving(config) as served:
        status, _, answer = post(served.endpoints["repository"], body, content_type)
    assert (status, "a single XML entity" in answer) == (400, True)


def test_a_refusal_at_a_remote_repository_is_a_failure_with_its_problems(domain: Domain, config: Config) -> None:
    remove = removal(soap_client(domain.endpoints["repository"], config))
    with pytest.raises(Failure) as refused:
        remove([asked("9.9.1", config.repository.unique_id), asked("9.9.2", "1.5")])
    assert [(one.code, one.location) for one in refused.value.problems] == [
        ("XDSUnknownRepositoryId", "9.9.2"),
        ("XDSDocumentUniqueIdError", "9.9.1"),
    ]
