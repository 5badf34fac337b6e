"""ITI-43 Retrieve Document Set: the rules at the repository, and both transactions over SOAP with our own client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from benchmarks.messages import patient
from benchmarks.messages import submission as new_submission
from registry.client import client as registry_client
from repository.client import client
from repository.documents import Documents
from repository.iti41_provide_and_register import provide_and_register
from repository.iti43_retrieve import retrieve
from repository.schema import connect, upgrade
from repository.service import RETRIEVE, service
from schemas import catalog, rim, xdsb
from schemas.ns import XDSB
from server.compose import Domain, soap_client
from server.config import Config
from soap.client import HttpResponse, SoapClient
from soap.endpoint import Endpoint
from soap.operations import Call, Limits, Reply
from xds.messages import Document, DocumentRequest, Outcome, Retrieved
from xds.metadata import Association, DocumentEntry, Submission
from xds.problems import Failure, Problem, fail
from xds.queries import GetDocuments
from xds.transactions import Provide, Retrieve
from xds.values import MimeType, UniqueId
from xds.vocabulary import AssociationType, ResponseStatus, Status

OUR_ID = "1.3.6.1.4.1.21367.2010.1.2.1125"
LETTER = Document.of(b"Dear colleague,\r\nthank you.\r\n", "text/plain; charset=ISO-8859-1")
SCAN = Document.of(bytes(range(256)) * 6000, "application/dicom")


def asked(unique_id: str, repository: str = OUR_ID, home: str | None = None) -> DocumentRequest:
    return DocumentRequest(repository_unique_id=repository, document_unique_id=unique_id, home_community_id=home)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Documents]:
    engine = connect(f"sqlite:///{tmp_path / 'catalogue.db'}")
    upgrade(engine)
    store = Documents(engine, tmp_path / "store")
    store.commit(store.stage({"1.2.1": LETTER, "1.2.2": SCAN}))
    yield store
    store.close()


@pytest.fixture
def local(store: Documents) -> Retrieve:
    return partial(retrieve, store=store, repository_unique_id=OUR_ID)


def described(answers: Iterable[Retrieved | Problem]) -> list[tuple[str, ...]]:
    """A Retrieved as its uniqueId, mimeType and SHA-1; a Problem as its code and location. The bytes are read in turn."""
    return [
        (str(one.code), str(one.location))
        if isinstance(one, Problem)
        else (
            one.request.document_unique_id,
            one.document.mime_type,
            hashlib.sha1(b"".join(one.document.chunks())).hexdigest(),
        )
        for one in answers
    ]


GOT_LETTER = ("1.2.1", LETTER.mime_type, LETTER.sha1)
GOT_SCAN = ("1.2.2", SCAN.mime_type, SCAN.sha1)


def test_each_request_is_answered_for_itself_and_in_its_order(local: Retrieve) -> None:
    """ITI TF-2 3.43.4.1.3 [T 12021]: several documents and repositories, and one twice."""
    requests = [asked("1.2.2"), asked("9.9"), asked("1.2.1", repository="1.5"), asked("1.2.1"), asked("1.2.2")]
    assert described(local(requests)) == [
        GOT_SCAN,
        ("XDSDocumentUniqueIdError", "9.9"),
        ("XDSUnknownRepositoryId", "1.2.1"),
        GOT_LETTER,
        GOT_SCAN,
    ]


def test_a_damaged_document_is_an_error_and_the_others_are_given_out(local: Retrieve, store: Documents) -> None:
    for path in (store.staging.parent / "content").rglob("*"):
        if path.is_file() and path.stat().st_size == SCAN.size:
            path.write_bytes(bytes(SCAN.size))
    assert described(local([asked("1.2.2"), asked("1.2.1")])) == [("XDSRepositoryError", "1.2.2"), GOT_LETTER]


def test_small_documents_fill_no_more_memory_than_allowed(store: Documents) -> None:
    answers = list(
        retrieve(
            [asked("1.2.1"), asked("1.2.2")], store=store, repository_unique_id=OUR_ID, max_memory_bytes=LETTER.size
        )
    )
    assert described(answers) == [GOT_LETTER, GOT_SCAN]
    # What is in memory stays readable without its file, the rest is read from it.
    for path in (store.staging.parent / "content").rglob("*"):
        if path.is_file():
            path.unlink()
    letter, scan = (one.document for one in answers if isinstance(one, Retrieved))
    assert letter.read() == LETTER.read()
    with pytest.raises(FileNotFoundError):
        scan.read()


def test_a_home_community_comes_back_if_and_only_if_it_was_asked_with(local: Retrieve) -> None:
    reply = answer_of(local, [asked("1.2.1", home="urn:oid:1.2.3"), asked("1.2.2")])
    responses = etree.fromstring(b"".join(reply.body)).findall("xds:DocumentResponse", {"xds": XDSB})
    homes = [response.findtext("xds:HomeCommunityId", None, {"xds": XDSB}) for response in responses]
    assert homes == ["urn:oid:1.2.3", None]


def answer_of(retrieve: Retrieve, requests: Sequence[DocumentRequest]) -> Reply:
    """The reply of the service's operation; its body is checked against the schema."""

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        raise AssertionError("not asked for")

    operations = service(provide=provide, retrieve=retrieve, describe=lambda *_: None).operations
    (operation,) = (one for one in operations if one.action == RETRIEVE)
    body = etree.fromstring(xdsb.encode_retrieve_request(requests))
    reply = operation.answer(Call(body=body, documents={}, message_id="urn:uuid:1", mtom=True))
    content = list(reply.body)
    assert catalog.validate(etree.fromstring(b"".join(content)), "xdsb") == []
    return Reply(body=content, documents=reply.documents)


@pytest.mark.parametrize(
    ("unique_ids", "status", "documents"),
    [
        (["1.2.1", "1.2.2"], ResponseStatus.SUCCESS, 2),
        (["1.2.1", "9.9"], ResponseStatus.PARTIAL_SUCCESS, 1),
        (["9.8", "9.9"], ResponseStatus.FAILURE, 0),
    ],
)
def test_the_status_says_whether_all_some_or_none_were_found(
    local: Retrieve, unique_ids: list[str], status: ResponseStatus, documents: int
) -> None:
    """ITI TF-2 3.43.4.2.2 [T 12021, 12029, 15816]."""
    reply = answer_of(local, [asked(unique_id) for unique_id in unique_ids])
    outcome, responses = xdsb.decode_retrieve_response(etree.fromstring(b"".join(reply.body)))
    assert (outcome.status, len(responses), len(reply.documents)) == (status, documents, documents)


def answer_to(retrieve: Retrieve, inside: str) -> tuple[Outcome, list[str]]:
    """The outcome of a message of the wire, and the names of the children of each DocumentResponse, space-separated."""

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        raise AssertionError("not asked for")

    operations = service(provide=provide, retrieve=retrieve, describe=lambda *_: None).operations
    (operation,) = (one for one in operations if one.action == RETRIEVE)
    body = etree.fromstring(f'<x:RetrieveDocumentSetRequest xmlns:x="{XDSB}">{inside}</x:RetrieveDocumentSetRequest>')
    reply = operation.answer(Call(body=body, documents={}, message_id="urn:uuid:1", mtom=True))
    response = etree.fromstring(b"".join(reply.body))
    assert catalog.validate(response, "xdsb") == []
    outcome, _ = xdsb.decode_retrieve_response(response)
    answers = response.findall("x:DocumentResponse", {"x": XDSB})
    return outcome, [" ".join(etree.QName(child).localname for child in one) for one in answers]


REPOSITORY, DOCUMENT = (
    f"<x:RepositoryUniqueId>{OUR_ID}</x:RepositoryUniqueId>",
    "<x:DocumentUniqueId>1.2.1</x:DocumentUniqueId>",
)
HOME = "<x:HomeCommunityId>urn:oid:1.2.3</x:HomeCommunityId>"


@pytest.mark.parametrize(
    "inside",
    [
        HOME + REPOSITORY + DOCUMENT,
        DOCUMENT + REPOSITORY + HOME,
        f"\n  {HOME}\n  {REPOSITORY}\n  <x:DocumentUniqueId>\n 1.2.1 </x:DocumentUniqueId>\n",
    ],
    ids=["in order", "the other way round", "with white space"],
)
def test_a_response_has_its_elements_in_the_order_of_the_schema(local: Retrieve, inside: str) -> None:
    """ITI TF-2 3.43.4.2.2; in the request their order is not held to."""
    outcome, answers = answer_to(local, f"<x:DocumentRequest>{inside}</x:DocumentRequest>")
    assert (outcome, answers) == (Outcome(), ["HomeCommunityId RepositoryUniqueId DocumentUniqueId mimeType Document"])


def test_the_new_ids_stand_between_the_old_ones_and_the_document() -> None:
    """ITI TF-2 3.43.4.2.2."""

    def made(requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        yield Retrieved(
            request=requests[0], document=LETTER, new_repository_unique_id="1.9", new_document_unique_id="2.25.1"
        )

    _, answers = answer_to(made, f"<x:DocumentRequest>{REPOSITORY}{DOCUMENT}</x:DocumentRequest>")
    assert answers == [
        "RepositoryUniqueId DocumentUniqueId NewRepositoryUniqueId NewDocumentUniqueId mimeType Document"
    ]


@pytest.mark.parametrize(
    ("inside", "context"),
    [
        ("", "RetrieveDocumentSetRequest: it holds no DocumentRequest"),
        (
            f"<x:DocumentRequest>{DOCUMENT}</x:DocumentRequest>",
            "DocumentRequest 1: RepositoryUniqueId is missing or empty",
        ),
        (
            f"<x:DocumentRequest>{REPOSITORY}</x:DocumentRequest>",
            "DocumentRequest 1: DocumentUniqueId is missing or empty",
        ),
        (
            f"<x:DocumentRequest>{REPOSITORY}<x:DocumentUniqueId/></x:DocumentRequest>",
            "DocumentRequest 1: DocumentUniqueId is missing or empty",
        ),
        (
            f"<x:DocumentRequest>{REPOSITORY}{DOCUMENT}{DOCUMENT}</x:DocumentRequest>",
            "DocumentRequest 1: it has 2 DocumentUniqueIds, not one",
        ),
    ],
    ids=["nothing", "no repository", "no document", "empty", "two documents"],
)
def test_a_message_that_does_not_say_what_is_meant_is_refused(local: Retrieve, inside: str, context: str) -> None:
    outcome, answers = answer_to(local, inside)
    assert [(one.code, one.context) for one in outcome.problems] == [("XDSRepositoryError", context)]
    assert (outcome.status, answers) == (ResponseStatus.FAILURE, [])


def test_an_error_says_which_document_it_is_about(local: Retrieve) -> None:
    """ITI TF-2 3.43.4.2.3: location is the DocumentUniqueId; the severity is Error."""
    reply = answer_of(local, [asked("9.9"), asked("1.2.1", repository="1.5")])
    outcome, _ = xdsb.decode_retrieve_response(etree.fromstring(b"".join(reply.body)))
    assert outcome.problems == (
        Problem(code="XDSDocumentUniqueIdError", context="document 9.9 is not in this repository", location="9.9"),
        Problem(
            code="XDSUnknownRepositoryId",
            context=f"document 1.2.1: repository 1.5 is not this one, {OUR_ID}",
            location="1.2.1",
        ),
    )


@pytest.mark.parametrize(
    "mime_type",
    ["text/plain; charset=ISO-8859-1", 'multipart/related; type="a/b"; x=<&>', "TEXT/Plain ;Charset = utf-8"],
)
def test_the_mime_type_comes_back_to_the_letter(store: Documents, local: Retrieve, mime_type: str) -> None:
    """ITI TF-2 3.43.4.2.2 [T 12360]."""
    store.commit(store.stage({"1.2.9": replace(LETTER, mime_type=mime_type)}))
    reply = answer_of(local, [asked("1.2.9")])
    _, ((_, given, _),) = xdsb.decode_retrieve_response(etree.fromstring(b"".join(reply.body)))
    assert given == mime_type


def test_a_document_stays_the_same_when_its_entry_is_deprecated(domain: Domain, config: Config) -> None:
    """ITI TF-2 3.43.4.1.3: whatever becomes of the entry, the uniqueId gives the same octets."""
    provide, fetch = client(soap_client(domain.endpoints["repository"], config))
    registry = registry_client(soap_client(domain.endpoints["registry"], config))
    first, second = new_submission(patient(43)), new_submission(patient(43))
    old, new = first.document_entries[0], second.document_entries[0]
    provide(first, {old.entry_uuid: LETTER})
    (registered,) = rim.decode_fragments(registry.query(GetDocuments(unique_id=(str(old.unique_id),))).fragments)
    replacement = Association(
        entry_uuid="Replacement",
        association_type=AssociationType.RPLC,
        source_object=new.entry_uuid,
        target_object=registered.entry_uuid,
    )
    provide(replace(second, associations=(*second.associations, replacement)), {new.entry_uuid: SCAN})
    (deprecated,) = rim.decode_fragments(registry.query(GetDocuments(unique_id=(str(old.unique_id),))).fragments)
    assert isinstance(deprecated, DocumentEntry) and deprecated.availability_status == Status.DEPRECATED
    requests = [asked(str(one.unique_id), config.repository.unique_id) for one in (old, new)]
    assert [isinstance(one, Retrieved) and one.document.read() for one in fetch(requests)] == [
        LETTER.read(),
        SCAN.read(),
    ]


def test_a_request_that_lacks_an_id_is_refused_as_a_whole(local: Retrieve) -> None:
    reply = answer_of(local, [asked("1.2.1"), asked("1.2.2", repository="")])
    outcome, responses = xdsb.decode_retrieve_response(etree.fromstring(b"".join(reply.body)))
    assert (outcome.status, [one.code for one in outcome.problems]) == (ResponseStatus.FAILURE, ["XDSRepositoryError"])
    assert (responses, reply.documents) == ([], [])


def test_what_fails_half_way_gives_an_incident_and_no_document(caplog: pytest.LogCaptureFixture) -> None:
    def broken(requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        yield Retrieved(request=requests[0], document=LETTER)
        raise RuntimeError("secret of the house")

    reply = answer_of(broken, [asked("1.2.1"), asked("1.2.2")])
    outcome, responses = xdsb.decode_retrieve_response(etree.fromstring(b"".join(reply.body)))
    (problem,) = outcome.problems
    assert (outcome.status, problem.code, responses) == (ResponseStatus.FAILURE, "XDSRepositoryError", [])
    assert "secret" not in problem.context and problem.context.rpartition(" ")[2] in caplog.text


@dataclass
class Response:
    status: int
    headers: Mapping[str, str]
    body: list[bytes]

    def chunks(self) -> Iterator[bytes]:
        return iter(self.body)


def remote(
    provide: Provide, retrieve: Retrieve, spool: Path, own_spool: Path, executor: ThreadPoolExecutor
) -> tuple[Provide, Retrieve]:
    """Our client at an endpoint of ours, with the HTTP between them left out."""
    endpoint = Endpoint(
        service(provide=provide, retrieve=retrieve, describe=lambda *_: None),
        address="http://x/repository",
        spool_directory=spool,
        limits=Limits(),
        executor=executor,
        packaging="strict",
    )

    @contextmanager
    def transport(url: str, headers: Mapping[str, str], body: Iterable[bytes]) -> Iterator[HttpResponse]:
        incoming = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
        events, sent = iter([*incoming, {"type": "http.request", "body": b"", "more_body": False}]), list[Any]()

        async def receive() -> Any:
            return next(events)

        async def send(event: Any) -> None:
            sent.append(event)

        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        asyncio.run(endpoint({"method": "POST", "headers": raw, "query_string": b""}, receive, send))
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        yield Response(sent[0]["status"], answered, [event.get("body", b"") for event in sent[1:]])

    return client(SoapClient("http://x/repository", transport, own_spool))


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def own_spool(tmp_path: Path) -> Path:
    path = tmp_path / "client"
    path.mkdir()
    return path


def entry(number: int, mime_type: str) -> DocumentEntry:
    return DocumentEntry(
        entry_uuid=f"Document{number}", unique_id=UniqueId(f"1.3.{number}"), mime_type=MimeType(mime_type)
    )


def test_what_is_provided_over_soap_is_retrieved_over_soap_to_the_byte(
    store: Documents, own_spool: Path, executor: ThreadPoolExecutor
) -> None:
    registered: list[Submission] = []

    def register(submission: Submission) -> Outcome:
        registered.append(submission)
        return Outcome()

    provide, fetch = remote(
        partial(provide_and_register, store=store, register=register, repository_unique_id=OUR_ID),
        partial(retrieve, store=store, repository_unique_id=OUR_ID),
        store.staging,
        own_spool,
        executor,
    )
    submission = Submission(document_entries=(entry(1, "text/xml"), entry(2, "application/pdf")))
    assert provide(submission, {"Document1": LETTER, "Document2": SCAN}).succeeded
    assert [one.size for one in registered[0].document_entries] == [str(LETTER.size), str(SCAN.size)]
    requests = [asked("1.3.2"), asked("9.9"), asked("1.3.1"), asked("1.3.2")]
    assert described(fetch(requests)) == [
        ("1.3.2", "application/pdf", SCAN.sha1),
        ("XDSDocumentUniqueIdError", "9.9"),
        ("1.3.1", "text/xml", LETTER.sha1),
        ("1.3.2", "application/pdf", SCAN.sha1),
    ]
    assert (list(store.staging.iterdir()), list(own_spool.iterdir())) == ([], [])


def test_a_refusal_over_soap_is_the_failure_that_it_was(
    store: Documents, own_spool: Path, executor: ThreadPoolExecutor
) -> None:
    def register(submission: Submission) -> Outcome:
        raise fail("XDSUnknownPatientId", "P1^^^&1.2.3.4&ISO")

    provide, _ = remote(
        partial(provide_and_register, store=store, register=register, repository_unique_id=OUR_ID),
        partial(retrieve, store=store, repository_unique_id=OUR_ID),
        store.staging,
        own_spool,
        executor,
    )
    with pytest.raises(Failure, match="XDSUnknownPatientId: P1"):
        provide(Submission(document_entries=(entry(1, "text/xml"),)), {"Document1": SCAN})
    assert store.get("1.3.1") is None
    assert list(store.staging.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ([], [("XDSRepositoryError", "1.2.1"), ("XDSRepositoryError", "1.2.2")]),
        (
            [Problem(code="XDSRepositoryBusy", context="later")],
            [("XDSRepositoryBusy", "1.2.1"), ("XDSRepositoryBusy", "1.2.2")],
        ),
        (
            [
                Problem(code="XDSDocumentUniqueIdError", context="gone", location="1.2.2"),
                Retrieved(request=asked("1.2.1"), document=LETTER),
            ],
            [GOT_LETTER, ("XDSDocumentUniqueIdError", "1.2.2")],
        ),
        (
            [Retrieved(request=asked("1.2.2"), document=SCAN), Retrieved(request=asked("1.2.1"), document=LETTER)],
            [GOT_LETTER, GOT_SCAN],
        ),
    ],
    ids=["nothing", "one error for all", "error by location", "in another order"],
)
def test_the_client_finds_an_answer_to_each_request_whatever_the_repository_says(
    own_spool: Path,
    executor: ThreadPoolExecutor,
    said: list[Retrieved | Problem],
    understood: list[tuple[str, ...]],
) -> None:
    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        raise AssertionError("not asked for")

    _, fetch = remote(provide, lambda _: iter(said), own_spool, own_spool, executor)
    assert described(fetch([asked("1.2.1"), asked("1.2.2")])) == understood
