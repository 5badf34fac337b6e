"""ITI-43 with more documents than memory would hold, on its way out and at the client; and to a peer that does without MTOM."""

from __future__ import annotations

import base64
import hashlib
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from lxml import etree

from benchmarks.messages import SIMPLE, envelope
from repository.client import client
from repository.documents import Documents
from repository.iti43_retrieve import retrieve
from repository.schema import connect, upgrade
from repository.service import RETRIEVE, service
from schemas import xdsb
from schemas.ns import XDSB
from server.compose import soap_client
from server.config import Config
from server.embedded import serving
from soap import replying
from soap.operations import Call
from xds.messages import Document, DocumentRequest, Retrieved
from xds.problems import Problem
from xds.transactions import Retrieve

OUR_ID = "1.2.3.4.77"
MEBIBYTE = 1024 * 1024
NUMBER, SIZE = 2000, 30_000


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def requests(numbers: Sequence[int]) -> list[DocumentRequest]:
    return [DocumentRequest(repository_unique_id=OUR_ID, document_unique_id=f"1.2.{one}") for one in numbers]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """With 2,000 documents, together sixty megabytes, in its repository."""
    directory = tmp_path_factory.mktemp("many")
    config = Config()
    config = replace(
        config,
        server=replace(config.server, directory=str(directory)),
        repository=replace(config.repository, unique_id=OUR_ID),
    )
    engine = connect(config.database_url("repository"))
    upgrade(engine)
    store = Documents(engine, config.content_directory("repository"))
    store.commit(store.stage({f"1.2.{one}": Document.of(content(one), "text/plain") for one in range(NUMBER)}))
    store.close()
    return config


@pytest.fixture
def store(config: Config) -> Iterator[Documents]:
    engine = connect(config.database_url("repository"))
    made = Documents(engine, config.content_directory("repository"))
    yield made
    made.close()


class Opened:
    """Counts how many documents are open at once."""

    def __init__(self, answers: Retrieve) -> None:
        self.answers, self.streams, self.most = answers, list[BinaryIO](), 0

    def __call__(self, requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        for one in self.answers(requests):
            assert isinstance(one, Retrieved)
            yield replace(one, document=replace(one.document, open=partial(self._open, one.document)))

    def _open(self, document: Document) -> BinaryIO:
        self.streams = [*(one for one in self.streams if not one.closed), document.open()]
        self.most = max(self.most, len(self.streams))
        return self.streams[-1]


def test_thousands_of_documents_go_out_one_after_the_other(store: Documents) -> None:
    """Of sixty megabytes at most a small part is ever in memory, and one document is open at once."""
    opened = Opened(partial(retrieve, store=store, repository_unique_id=OUR_ID, max_memory_bytes=MEBIBYTE))
    never = partial(pytest.fail, "not asked for")
    offered = service(provide=never, retrieve=opened, describe=lambda *_: None)  # type: ignore[arg-type]
    (operation,) = (one for one in offered.operations if one.action == RETRIEVE)
    body = etree.fromstring(xdsb.encode_retrieve_request(requests(range(NUMBER))))
    tracemalloc.start()
    try:
        reply = operation.answer(Call(body=body, documents={}, message_id=None, mtom=True))
        answer = replying.mtom("", reply.body, reply.documents)
        sent = sum(map(len, answer.pieces))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent == answer.length
    assert sent > NUMBER * SIZE
    assert opened.most == 1
    assert peak < 12 * MEBIBYTE


def test_the_client_holds_no_more_than_one_message_of_them(config: Config, tmp_path: Path) -> None:
    """`max_documents` in each message; what was read of one is gone before the next is asked for."""
    spooled: list[int] = []
    with serving(config) as served:
        own = replace(config, server=replace(config.server, directory=str(tmp_path)))
        _, fetch = client(soap_client(served.endpoints["repository"], own), max_documents=20)
        digests = []
        for number, one in enumerate(fetch(requests(range(200)))):
            assert isinstance(one, Retrieved)
            digests.append(hashlib.sha1(b"".join(one.document.chunks())).digest())
            if number % 10 == 0:
                spooled.append(sum(path.stat().st_size for path in tmp_path.rglob("*.part")))
    assert digests == [hashlib.sha1(content(number)).digest() for number in range(200)]
    assert max(spooled) <= 20 * SIZE


def post(url: str, body: bytes) -> tuple[int, str, bytes]:
    """As plain XML; the HTTP status, Content-Type and body of the answer."""
    request = urllib.request.Request(url, body, {"Content-Type": SIMPLE})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


@pytest.mark.parametrize("packaging", ["lenient", "strict"])
def test_who_asks_without_multipart_gets_base64_or_a_fault(config: Config, packaging: str) -> None:
    """ITI TF-2 Appendix V.3.6 demands MTOM in both directions; server.packaging says whether that is held to."""
    config = replace(config, server=replace(config.server, packaging=packaging))
    asked = [*requests([3, 7]), *requests([NUMBER])]
    with serving(config) as served:
        body = envelope(RETRIEVE, xdsb.encode_retrieve_request(asked))
        status, content_type, answer = post(served.endpoints["repository"], body)
    assert content_type == SIMPLE
    if packaging == "strict":
        assert (status, b"multipart/related (MTOM)" in answer) == (400, True)
        return
    response = etree.fromstring(answer).find(f".//{{{XDSB}}}RetrieveDocumentSetResponse")
    assert (status, response is not None) == (200, True)
    assert response is not None
    assert "PartialSuccess" in response[0].get("status", "")
    documents = [one.text or "" for one in response.iter(f"{{{XDSB}}}Document")]
    assert [base64.b64decode(one) for one in documents] == [content(3), content(7)]
