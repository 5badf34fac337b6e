"""ITI-43 as a Document Consumer asks for it: of repositories that refuse many documents at once, and of several repositories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from repository.client import client, routed
from repository.service import RETRIEVE, service
from server.compose import soap_client
from server.config import Config
from server.http import bind, in_thread, router
from soap.endpoint import Endpoint
from soap.fault import SoapFault
from soap.operations import Call, Limits, Reply, Service
from xds.messages import Document, DocumentRequest, Retrieved
from xds.problems import Problem, fail
from xds.transactions import Retrieve

OUR_ID = "1.2.3.4.77"
LETTER = Document.of(b"Dear colleague,\r\nthank you.\r\n", "text/plain")


def asked(*unique_ids: str, repository: str = OUR_ID) -> list[DocumentRequest]:
    return [DocumentRequest(repository_unique_id=repository, document_unique_id=one) for one in unique_ids]


class Remote:
    """A repository that has every document but those that end with 404, and counts what each message asks for.

    Of a message with more than `most` documents it says what `refusal` says.
    """

    def __init__(self, most: int = 1_000_000, refusal: Exception | None = None) -> None:
        self.most, self.refusal = most, refusal
        self.messages: list[int] = []

    def __call__(self, requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        if self.refusal is not None and len(requests) > self.most:
            raise self.refusal
        for one in requests:
            if one.document_unique_id.endswith("404"):
                uid = one.document_unique_id
                yield Problem(code="XDSDocumentUniqueIdError", context=f"document {uid} is not here", location=uid)
            else:
                yield Retrieved(request=one, document=LETTER, new_document_unique_id="2.25.1")

    def hear(self, call: Call) -> None:
        """What it says of a message before it looks at the documents: that is where a fault comes from."""
        self.messages.append(len(call.body))
        if isinstance(self.refusal, SoapFault) and len(call.body) > self.most:
            raise self.refusal


def hearing(of: Remote) -> Service:
    never = partial(pytest.fail, "not asked for")
    made = service(provide=never, retrieve=of, describe=lambda *_: None)  # type: ignore[arg-type]
    (operation,) = (one for one in made.operations if one.action == RETRIEVE)

    def answer(call: Call) -> Reply:
        of.hear(call)
        return operation.answer(call)

    return replace(made, operations=(replace(operation, answer=answer),))


@contextmanager
def remote(of: Remote, directory: Path, **settings: int) -> Iterator[Retrieve]:
    """Our client of it, over real HTTP."""
    config = Config()
    config = replace(config, server=replace(config.server, port=0, directory=str(directory)))
    with ThreadPoolExecutor(2) as executor, TemporaryDirectory(dir=directory) as spool:
        endpoint = Endpoint(
            hearing(of),
            address="http://x/repository",
            spool_directory=Path(spool),
            limits=Limits(),
            executor=executor,
        )
        listening = bind(config)
        with in_thread(router({"/repository": endpoint}), config, listening):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/repository"
            yield client(soap_client(url, config), **settings)[1]


def described(answers: Iterator[Retrieved | Problem]) -> list[str]:
    return [
        f"{one.code} {one.location}" if isinstance(one, Problem) else one.request.document_unique_id for one in answers
    ]


IDS = [f"1.2.{number}" for number in range(1, 11)]


def test_no_message_asks_for_more_than_the_cap(tmp_path: Path) -> None:
    repository = Remote()
    with remote(repository, tmp_path, max_documents=4) as fetch:
        assert described(fetch(asked(*IDS))) == IDS
    assert repository.messages == [4, 4, 2]


REFUSALS = {
    "an error without location": fail("XDSRepositoryError", "too many documents"),
    "a fault": SoapFault("Receiver", "too many documents"),
    "HTTP 413": SoapFault("Sender", "too many documents", http_status=413),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_of_a_repository_that_refuses_many_half_as_many_are_asked_for(refusal: Exception, tmp_path: Path) -> None:
    """Its cap is found once, and kept to for the rest."""
    repository = Remote(most=3, refusal=refusal)
    with remote(repository, tmp_path) as fetch:
        assert described(fetch(asked(*IDS))) == IDS
    assert repository.messages == [10, 5, 2, 2, 2, 2, 2]


def test_what_is_refused_alone_is_no_matter_of_numbers(tmp_path: Path) -> None:
    """An error is then each document's own; a fault ends the retrieval."""
    repository = Remote(most=0, refusal=fail("XDSRepositoryBusy", "later"))
    with remote(repository, tmp_path) as fetch:
        assert described(fetch(asked("1.2.1", "1.2.2"))) == ["XDSRepositoryBusy 1.2.1", "XDSRepositoryBusy 1.2.2"]
    repository = Remote(most=0, refusal=SoapFault("Receiver", "broken"))
    with remote(repository, tmp_path) as fetch, pytest.raises(SoapFault, match="broken"):
        list(fetch(asked("1.2.1", "1.2.2")))
    assert repository.messages == [2, 1]


def test_documents_that_are_not_there_are_asked_for_once(tmp_path: Path) -> None:
    """Each has its own error: nothing is said against the message as a whole."""
    repository = Remote()
    with remote(repository, tmp_path) as fetch:
        assert described(fetch(asked("1.404", "2.404"))) == [
            "XDSDocumentUniqueIdError 1.404",
            "XDSDocumentUniqueIdError 2.404",
        ]
    assert repository.messages == [2]


def test_the_ids_of_what_was_made_on_demand_come_along(tmp_path: Path) -> None:
    with remote(Remote(), tmp_path) as fetch:
        (one,) = fetch(asked("1.2.1"))
    assert isinstance(one, Retrieved)
    assert (one.new_document_unique_id, one.new_repository_unique_id) == ("2.25.1", None)


def test_each_document_is_asked_of_its_own_repository_and_has_its_own_error(tmp_path: Path) -> None:
    """One that is broken, one that is not there, and one whose address nobody knows keep no one from the others."""
    north, broken = Remote(), Remote(most=0, refusal=SoapFault("Receiver", "broken"))
    config = replace(Config(), server=replace(Config().server, directory=str(tmp_path)))
    _, nobody = client(soap_client("http://127.0.0.1:9/repository", config))
    with remote(north, tmp_path) as of_north, remote(broken, tmp_path) as of_broken:
        fetch = routed({"1.1": of_north, "1.2": of_broken, "1.3": nobody})
        requests = [
            *asked("1.404", "5.1", repository="1.1"),
            *asked("5.2", repository="1.2"),
            *asked("5.3", repository="1.3"),
            *asked("5.4", repository="1.4"),
            *asked("5.5", repository="1.1"),
        ]
        answers = list(fetch(requests))
    assert described(iter(answers)) == [
        "XDSDocumentUniqueIdError 1.404",
        "5.1",
        "XDSRepositoryError 5.2",
        "XDSRepositoryError 5.3",
        "XDSUnknownRepositoryId 5.4",
        "5.5",
    ]
    contexts = [one.context for one in answers if isinstance(one, Problem)]
    assert contexts[1].startswith("document 5.2: repository 1.2 cannot be asked: SOAP fault Receiver")
    assert "no answer from http://127.0.0.1:9/repository" in contexts[2]
    assert contexts[3] == "document 5.4: the address of repository 1.4 is not known; known are 1.1, 1.2, 1.3"
    assert north.messages == [2, 1]


def test_one_address_may_stand_for_all_repositories_that_are_not_named(tmp_path: Path) -> None:
    """A gateway, for example."""
    gateway, north = Remote(), Remote()
    with remote(gateway, tmp_path) as of_gateway, remote(north, tmp_path) as of_north:
        fetch = routed({"": of_gateway, "1.1": of_north})
        requests = [*asked("5.1", repository="1.1"), *asked("5.2", repository="1.2"), *asked("5.3", repository="1.3")]
        assert described(fetch(requests)) == ["5.1", "5.2", "5.3"]
    assert (gateway.messages, north.messages) == ([1, 1], [1])
