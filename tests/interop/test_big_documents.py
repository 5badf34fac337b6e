"""Documents of any size go in and out of a running server in constant memory, however they are framed; and what breaks off leaves nothing.

`make torture` does the same with 4 GB.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.messages import MTOM, patient, submission
from torture import sources as load
from torture.big import MEBIBYTE, Content, Framing, Memory, connect, inline, post, post_inline, provide, retrieved
from torture.kills import Domain, one_process
from torture.serving import until
from torture.sources import REPOSITORY
from xds.messages import Document

#: What a document of any size may take of the server's memory, and many at once.
MOST_MIB = 32
MOST_OF_MANY_MIB = 64
BIG = Content(100 * MEBIBYTE)
SUCCESS = "ResponseStatusType:Success"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    with one_process(tmp_path_factory.mktemp("big")) as served:
        # What every process needs once is not counted as the price of a large document.
        served.sources.submit([b"small", os.urandom(MEBIBYTE)])
        yield served


@pytest.fixture
def url(domain: Domain) -> str:
    return domain.repository.url


@pytest.fixture
def memory(domain: Domain) -> Memory:
    return Memory(domain.repository.pid)


def nothing_is_left(domain: Domain) -> bool:
    """No part of a message in the spool, and no row that waits."""
    data = domain.repository.data
    return load.unsettled(data) == 0 and load.orphans(data) == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_big_document_goes_in_and_out_in_constant_memory(
    domain: Domain, url: str, memory: Memory, framing: Framing
) -> None:
    message = provide(BIG)
    with memory.watched():
        status, text = post(url, message, framing)
        answer = retrieved(url, REPOSITORY, [message.document_unique_id])
    assert (status, SUCCESS in text) == (200, True), text
    assert answer.documents == [(BIG.sha1, BIG.size)]
    assert memory.rise < MOST_MIB


def test_a_part_in_base64_is_decoded_as_it_comes(url: str, memory: Memory) -> None:
    content = Content(40 * MEBIBYTE)
    message = provide(content, encoding="base64")
    with memory.watched():
        status, text = post(url, message)
    assert (status, SUCCESS in text) == (200, True), text
    assert retrieved(url, REPOSITORY, [message.document_unique_id]).documents == [(content.sha1, content.size)]
    assert memory.rise < MOST_MIB


def test_many_big_documents_at_once_take_no_more_memory_than_their_pieces(url: str, memory: Memory) -> None:
    contents = [Content(10 * MEBIBYTE, seed) for seed in range(12)]
    messages = [provide(content) for content in contents]
    with memory.watched(), ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(lambda message: post(url, message), messages))
        given = list(pool.map(lambda one: retrieved(url, REPOSITORY, [one.document_unique_id]).documents, messages))
    assert all(SUCCESS in text for _, text in answers), answers
    assert given == [[(content.sha1, content.size)] for content in contents]
    assert memory.rise < MOST_OF_MANY_MIB


def test_a_document_that_comes_slowly_is_taken(url: str) -> None:
    """In thousands of small pieces, each of them sent for itself."""
    content = Content(300_000)
    message = provide(content)
    connection = connect(url)
    connection.putrequest("POST", "/repository")
    connection.putheader("Content-Type", MTOM)
    connection.putheader("Content-Length", str(message.length))
    connection.endheaders()
    pause = threading.Event()
    for piece in message.pieces:
        for at in range(0, len(piece), 256):
            connection.send(piece[at : at + 256])
            pause.wait(0.001)
    response = connection.getresponse()
    assert SUCCESS in response.read().decode()
    connection.close()
    assert retrieved(url, REPOSITORY, [message.document_unique_id]).documents == [(content.sha1, content.size)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_document_that_breaks_off_leaves_nothing(domain: Domain, url: str, framing: Framing) -> None:
    message = provide(Content(30 * MEBIBYTE))
    pieces = (piece for piece, _ in zip(message.pieces, range(60), strict=False))

    def breaking() -> Iterator[bytes]:
        yield from pieces
        # The server has begun to write it.
        until(lambda: any((domain.repository.data / "repository" / "staging").iterdir()), "it is spooled")
        raise ConnectionAbortedError

    connection = connect(url)
    headers = {"Content-Type": MTOM, **({"Content-Length": str(message.length)} if framing == "length" else {})}
    with pytest.raises(ConnectionAbortedError):
        connection.request("POST", "/repository", breaking(), headers, encode_chunked=framing == "chunked")
    connection.close()
    until(lambda: nothing_is_left(domain), "nothing is left of it")
    assert "XDSDocumentUniqueIdError" in retrieved(url, REPOSITORY, [message.document_unique_id]).root.decode()


def test_a_reader_that_takes_its_time_costs_neither_memory_nor_others_their_answers(url: str, memory: Memory) -> None:
    """More of them than there are threads, all of which stop in the middle until somebody else has been served."""
    message, small = provide(BIG), provide(Content(10_000, seed=7))
    assert SUCCESS in post(url, message)[1] and SUCCESS in post(url, small)[1]
    readers = 10
    stopped, go_on = threading.Semaphore(0), threading.Event()

    def paused(total: int) -> None:
        if total > MEBIBYTE and not go_on.is_set():
            stopped.release()
            assert go_on.wait(120)

    with memory.watched(), ThreadPoolExecutor(readers) as pool:
        reading = [
            pool.submit(retrieved, url, REPOSITORY, [message.document_unique_id], paused=paused) for _ in range(readers)
        ]
        for _ in range(readers):
            assert stopped.acquire(timeout=120)
        assert retrieved(url, REPOSITORY, [small.document_unique_id]).documents[0][1] == 10_000
        go_on.set()
        assert {one.result().documents[0] for one in reading} == {(BIG.sha1, BIG.size)}
    assert memory.rise < MOST_OF_MANY_MIB


def test_a_reader_that_leaves_is_forgotten(domain: Domain, url: str) -> None:
    message = provide(BIG)
    assert SUCCESS in post(url, message)[1]

    class Enough(Exception):
        pass

    def paused(total: int) -> None:
        if total > 5 * MEBIBYTE:
            raise Enough

    with pytest.raises(Enough):
        retrieved(url, REPOSITORY, [message.document_unique_id], paused=paused)
    opened = f"/proc/{domain.repository.pid}/fd"

    def is_closed() -> bool:
        return not any("/repository/content/" in _target(f"{opened}/{one}") for one in os.listdir(opened))

    until(is_closed, "the server has closed the document")


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("size", [0, 1, 2])
def test_hardly_any_bytes_are_a_document_too(url: str, size: int) -> None:
    content = Content(size)
    whole = b"".join(content.pieces())
    for message, sent in ((one := provide(content), post(url, one)), (two := inline(whole), post_inline(url, two))):
        assert SUCCESS in sent[1], sent
        assert retrieved(url, REPOSITORY, [message.document_unique_id]).documents == [(content.sha1, size)]


def test_a_document_may_stand_in_the_envelope_as_long_as_that_is_not_too_large(url: str) -> None:
    """Also one whose base64 is longer than the 10,000,000 bytes that libxml2 allows a text by default."""
    content = os.urandom(9_000_000)
    message = inline(content)
    assert message.length > 10_000_000
    status, text = post_inline(url, message)
    assert (status, SUCCESS in text) == (200, True), text
    given = retrieved(url, REPOSITORY, [message.document_unique_id]).documents
    assert given == [(hashlib.sha1(content).hexdigest(), len(content))]
    status, text = post_inline(url, inline(os.urandom(13_000_000)))
    assert (status, "the SOAP envelope is larger than the limit of 16777216 bytes" in text) == (413, True), text


def test_thousands_of_documents_come_in_one_answer(domain: Domain, url: str, memory: Memory) -> None:
    """ITI TF-2 3.43.4.2: in the order of the requests, each with its bytes."""
    wanted: dict[str, tuple[str, int]] = {}
    for number in range(20):
        one = submission(patient(number % 5), documents=100)
        contents = {entry.entry_uuid: os.urandom(2_000) for entry in one.document_entries}
        domain.sources.provide(one, {name: Document.of(content, "text/plain") for name, content in contents.items()})
        for entry in one.document_entries:
            content = contents[entry.entry_uuid]
            wanted[str(entry.unique_id)] = hashlib.sha1(content).hexdigest(), len(content)
    with memory.watched():
        answer = retrieved(url, REPOSITORY, wanted)
    assert SUCCESS in answer.root.decode()
    assert answer.documents == list(wanted.values())
    assert memory.rise < MOST_OF_MANY_MIB


def test_base64_of_the_test_is_base64() -> None:
    content = Content(100_000)
    pieces = b"".join(provide(content, encoding="base64").pieces)
    body = pieces.split(b"<d@x>\r\n\r\n")[1].rpartition(b"\r\n--")[0]
    assert base64.b64decode(body) == b"".join(content.pieces())
