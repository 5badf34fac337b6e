"""Every limit of the section [limits]: what passes it is refused with a text that names the limit, and others go on being served."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import fields
from urllib.parse import urlsplit

import pytest

from benchmarks.messages import BOUNDARY, MTOM, multipart
from server.config import Limits
from torture.big import Content, Message, post, provide
from torture.kills import Domain, one_process

LIMITS = {
    "connections": 8,
    "head_bytes": 4_000,
    "head_fields": 30,
    "head_s": 1.0,
    "body_idle_s": 1.0,
    "body_bytes_per_s": 3_000,
    "body_grace_s": 2.0,
    "message_bytes": 1_500_000,
    "envelope_bytes": 60_000,
    "document_bytes": 1_000_000,
    "parts": 5,
    "part_header_bytes": 600,
    "preamble_bytes": 700,
    "depth": 40,
    "attributes": 20,
    "namespaces": 90,
    "tags": 1_200,
}
HEAD = f"POST /repository HTTP/1.1\r\nHost: x\r\nContent-Type: {MTOM}\r\n".encode()
TAIL = f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    toml = "[limits]\n" + "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
    with one_process(tmp_path_factory.mktemp("limited"), toml=toml) as served:
        yield served
        # Whatever was refused: what is within the limits is served, and nothing of the rest has stayed.
        assert served.sources.submit([b"within", b"w" * 900_000]).told == "acknowledged"
        assert not any((served.repository.data / "repository" / "staging").iterdir())


@pytest.fixture
def url(domain: Domain) -> str:
    return domain.repository.url


class Raw:
    """A connection on which bytes are written as a test wants them."""

    def __init__(self, url: str) -> None:
        self._socket = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port or 80), timeout=60)

    def send(self, data: bytes) -> Raw:
        self._socket.sendall(data)
        return self

    def answer(self) -> str:
        """All that comes until the server closes the connection or the answer is complete."""
        found = b""
        while data := self._socket.recv(65536):
            found += data
            head, end, body = found.partition(b"\r\n\r\n")
            length = next(
                (int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:")), -1
            )
            if end and len(body) == length:
                break
        return found.decode("latin-1")

    def is_closed(self) -> bool:
        """Whether the server closes the connection. A guard of 60 s."""
        try:
            return self._socket.recv(65536) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def raw(url: str) -> Iterator[Callable[[], Raw]]:
    made: list[Raw] = []

    def connect() -> Raw:
        made.append(Raw(url))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def whole(root: bytes, *documents: bytes) -> Message:
    content = multipart(root, [(f"d{n}@x", one) for n, one in enumerate(documents)])
    return Message(document_unique_id="", length=len(content), pieces=iter((content,)))


def xml(inside: str) -> bytes:
    return (
        f'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body>{inside}</s:Body></s:Envelope>'.encode()
    )


def part(header: str) -> Message:
    content = f"--{BOUNDARY}\r\n{header}\r\n\r\nx\r\n".encode() + TAIL
    return Message(document_unique_id="", length=len(content), pieces=iter((content,)))


def before_the_first_part(size: int) -> Message:
    content = b"p" * size + b"\r\n" + multipart(xml("<a/>"))
    return Message(document_unique_id="", length=len(content), pieces=iter((content,)))


#: What passes each limit of a message, and what the refusal says.
REFUSED: dict[str, tuple[Callable[[], Message], int, str]] = {
    "message_bytes": (
        lambda: whole(xml("<a/>"), b"x" * 800_000, b"x" * 800_000),
        413,
        "the message is larger than the limit of 1500000 bytes",
    ),
    "envelope_bytes": (lambda: whole(b" " * 60_001), 413, "the SOAP envelope is larger than the limit of 60000 bytes"),
    "document_bytes": (lambda: provide(Content(1_000_001)), 413, "is larger than the limit of 1000000 bytes"),
    "parts": (lambda: whole(xml("<a/>"), *[b"x"] * 5), 413, "the message has more than 5 parts"),
    "part_header_bytes": (lambda: part(f"X: {'x' * 600}"), 413, "the headers of part 1 are longer than 600 bytes"),
    "preamble_bytes": (lambda: before_the_first_part(800), 413, "no boundary within the first 700 bytes"),
    "depth": (lambda: whole(xml("<a>" * 39 + "</a>" * 39)), 413, "nested deeper than the limit of 40 elements"),
    "attributes": (
        lambda: whole(xml("<a " + " ".join(f"a{n}='1'" for n in range(21)) + "/>")),
        413,
        "more than the limit of 20 attributes",
    ),
    "namespaces": (lambda: whole(xml('<a xmlns="u"/>' * 100)), 413, "more than the limit of 90 namespaces"),
    "tags": (lambda: whole(xml("<a/>" * 1_300)), 413, "more than the limit of 1200 tags"),
}


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("limit", REFUSED)
def test_a_message_beyond_a_limit_is_refused_with_its_name(url: str, limit: str, framing: str) -> None:
    message, status, words = REFUSED[limit]
    answered, text = post(url, message(), framing)  # type: ignore[arg-type]
    assert (answered, words in text) == (status, True), text
    assert "soap:Sender" in text


def test_a_message_of_a_declared_length_beyond_the_limit_is_refused_before_it_comes(raw: Callable[[], Raw]) -> None:
    answer = raw().send(HEAD + b"Content-Length: 1500001\r\nExpect: 100-continue\r\n\r\n").answer()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "the message is larger than the limit of 1500000 bytes" in answer


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (HEAD + b"X: " + b"x" * 4_000 + b"\r\n\r\n", "header fields are longer than the limit of 4000 bytes"),
        (HEAD + b"X: " + b"x" * 9_000, "header fields are longer than the limit of 4000 bytes"),
        (b"GET /" + b"x" * 9_000, "header fields are longer than the limit of 4000 bytes"),
        (b"GET /" + b"x" * 4_000 + b" HTTP/1.1\r\n\r\n", "header fields are longer than the limit of 4000 bytes"),
        (HEAD + b"X: y\r\n" * 30 + b"\r\n", "more than the limit of 30 header fields"),
    ],
    ids=["one field", "one endless field", "endless request line", "request line", "fields"],
)
def test_a_head_beyond_a_limit_is_refused_with_its_name(raw: Callable[[], Raw], head: bytes, words: str) -> None:
    answer = raw().send(head).answer()
    assert answer.startswith("HTTP/1.1 431 ")
    assert words in answer


@pytest.mark.parametrize("end", [b"0\r\nX: ", b"5;x="], ids=["after the last chunk", "beside a chunk"])
def test_what_surrounds_the_chunks_of_a_body_has_an_end_too(raw: Callable[[], Raw], end: bytes) -> None:
    connection = raw().send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n--\r\n" + end)
    closed = False
    # Ten times what may come without getting on.
    for _ in range(40):
        try:
            connection.send(b"x" * 1_000)
        except ConnectionError:
            closed = True
            break
    assert closed or connection.is_closed()


def test_a_head_within_the_limits_is_taken_also_when_it_comes_after_another_message(raw: Callable[[], Raw]) -> None:
    """What was counted of one request does not count for the next, on the same connection."""
    connection = raw()
    for _ in range(5):
        answer = connection.send(b"GET /repository HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 3_000 + b"\r\n\r\n").answer()
        assert answer.startswith("HTTP/1.1 404 ")


def test_a_head_that_comes_too_slowly_is_refused_with_the_name_of_the_limit(raw: Callable[[], Raw]) -> None:
    """Slowloris: a byte now and then, for ever."""
    answer = raw().send(HEAD).answer()
    assert answer.startswith("HTTP/1.1 408 ")
    assert "have not come within the limit of 1.0 s" in answer


def test_a_second_head_that_comes_too_slowly_is_refused_too(raw: Callable[[], Raw]) -> None:
    connection = raw().send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.answer().startswith("HTTP/1.1 200 ")
    assert connection.send(b"GET / HT").answer().startswith("HTTP/1.1 408 ")


@pytest.mark.parametrize("first", [b"", b"\r\n"], ids=["nothing", "line ends"])
def test_a_connection_on_which_no_request_comes_is_closed(raw: Callable[[], Raw], first: bytes) -> None:
    connection = raw().send(first)
    assert "408" in connection.answer() or connection.is_closed()


def test_a_body_that_pauses_too_long_is_refused_with_the_name_of_the_limit(raw: Callable[[], Raw]) -> None:
    answer = raw().send(HEAD + b"Content-Length: 1000\r\n\r\n--").answer()
    assert answer.startswith("HTTP/1.1 408 ")
    assert "no bytes for the limit of 1.0 s" in answer


def test_a_body_that_comes_too_slowly_is_refused_with_the_name_of_the_limit(raw: Callable[[], Raw]) -> None:
    """A few bytes at a time, never pausing as long as `body_idle_s`: after `body_grace_s` the average counts."""
    connection = raw().send(HEAD + b"Content-Length: 100000\r\n\r\n")
    connection._socket.settimeout(0.3)
    answer = ""
    for _ in range(200):
        connection.send(b"x")
        try:
            answer = connection.answer()
            break
        except TimeoutError:
            continue
    assert answer.startswith("HTTP/1.1 408 ")
    assert "the body comes at less than the limit of 3000 bytes/s" in answer


def test_what_is_left_of_a_refused_message_is_not_read_for_ever(raw: Callable[[], Raw]) -> None:
    """The answer has gone out; the connection is closed although the client goes on sending a little."""
    connection = raw().send(HEAD + b"Content-Length: 1500001\r\n\r\n")
    assert connection.answer().startswith("HTTP/1.1 413 ")
    connection._socket.settimeout(0.2)
    closed = False
    for _ in range(200):
        try:
            connection.send(b"x")
            closed = connection.is_closed()
            break
        except TimeoutError:
            continue
        except ConnectionError:
            closed = True
            break
    assert closed


def test_a_client_that_closes_after_each_message_reads_why_it_is_refused(raw: Callable[[], Raw]) -> None:
    """It goes on sending, and reads only then: were the connection closed with bytes unread, the answer would be taken back."""
    connection = raw().send(HEAD + b"Connection: close\r\nContent-Length: 20000000\r\n\r\n")
    for _ in range(20):
        connection.send(bytes(1_000_000))
    assert "the message is larger than the limit of 1500000 bytes" in connection.answer()
    assert connection.is_closed()


def test_more_connections_than_the_limit_are_told_so_and_the_others_served(raw: Callable[[], Raw]) -> None:
    request = b"GET /repository?wsdl HTTP/1.1\r\nHost: x\r\n\r\n"
    connections = [raw() for _ in range(LIMITS["connections"])]  # type: ignore[call-overload]
    for one in connections:
        assert one.send(request).answer().startswith("HTTP/1.1 200 ")
    answer = raw().send(request).answer()
    assert answer.startswith("HTTP/1.1 503 ")
    assert "more than the limit of 8 connections" in answer
    for one in connections:
        assert one.send(request).answer().startswith("HTTP/1.1 200 ")


def test_every_limit_that_can_be_configured_is_tried_here() -> None:
    by_hand = {"connections", "head_bytes", "head_fields", "head_s", "body_idle_s", "body_bytes_per_s", "body_grace_s"}
    assert by_hand | REFUSED.keys() == LIMITS.keys() == {one.name for one in fields(Limits)}
