"""An MLLP reader gives the same messages in whatever pieces the bytes come, and a listener answers each of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.listener import Listener
from feeds.mllp import FrameError, FrameReader, frame

SIZES = (1, 2, 7, 4096)
# Halves of the frame's own bytes come often. A message holds no 0x0B and no 0x1C 0x0D.
TEXT = (
    st.lists(st.sampled_from([b"\x1c", b"\r", b"\r\n", b"MSH|", b"a"]) | st.binary(max_size=20), max_size=10)
    .map(b"".join)
    .map(lambda text: text.replace(b"\x0b", b"").replace(b"\x1c\r", b""))
    .filter(lambda text: b"\x1c\r" not in text)
)
GARBAGE = st.binary(max_size=40).map(lambda garbage: garbage.replace(b"\x0b", b""))


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def read(parts: list[bytes], *, max_message_bytes: int = 100_000, max_garbage_bytes: int = 1024) -> list[bytes | str]:
    """The messages, and at last the error where there is one."""
    reader = FrameReader(max_message_bytes=max_message_bytes, max_garbage_bytes=max_garbage_bytes)
    found: list[bytes | str] = []
    try:
        for part in parts:
            found.extend(reader.receive_data(part))
    except FrameError as error:
        found.append(str(error))
    return found


@settings(max_examples=300)
@given(st.lists(st.tuples(GARBAGE, TEXT), min_size=1, max_size=5), st.data())
def test_the_messages_do_not_depend_on_the_pieces(told: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """Garbage between frames is skipped, and no byte of a message is lost."""
    stream = b"".join(garbage + frame(text) for garbage, text in told)
    expected = [text for _, text in told]
    assert read([stream]) == expected
    for size in SIZES:
        assert read(pieces(stream, size)) == expected
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    assert read([stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]) == expected


@settings(max_examples=300)
@given(st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"ab"]) | st.binary(max_size=8), max_size=30))
def test_whatever_comes_the_outcome_does_not_depend_on_the_pieces(parts: list[bytes]) -> None:
    """Limits too: neither a message nor its refusal may hang on how the network cuts the bytes."""
    stream = b"".join(parts)
    small = {"max_message_bytes": 12, "max_garbage_bytes": 9}
    expected = read([stream], **small)
    for size in SIZES:
        assert read(pieces(stream, size), **small) == expected
    assert read(parts, **small) == expected


@settings(max_examples=200)
@given(TEXT, TEXT)
def test_a_message_after_a_lost_end_block_is_never_joined_to_the_one_before(lost: bytes, text: bytes) -> None:
    """0x0B begins a frame anew: half a message must not be taken for whole."""
    for size in SIZES:
        assert read(pieces(b"\x0b" + lost + frame(text), size)) == [text]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("length", "fits"), [(100, True), (101, False)])
def test_the_limit_of_a_message_is_exact(size: int, length: int, fits: bool) -> None:
    text = b"x" * length
    outcome = read(pieces(frame(text), size), max_message_bytes=100)
    assert outcome == ([text] if fits else ["a message is larger than the limit of 100 bytes"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("length", "fits"), [(50, True), (51, False)])
def test_the_limit_of_garbage_is_exact_and_counts_anew_after_each_message(size: int, length: int, fits: bool) -> None:
    stream = (b"-" * length + frame(b"one")) * 3
    outcome = read(pieces(stream, size), max_garbage_bytes=50)
    if fits:
        assert outcome == [b"one"] * 3
    else:
        assert outcome == ["more than the limit of 50 bytes without the beginning of a message"]


def test_a_message_before_the_one_that_passes_a_limit_is_given() -> None:
    outcome = read([frame(b"one") + frame(b"x" * 50)], max_message_bytes=10)
    assert outcome == [b"one", "a message is larger than the limit of 10 bytes"]


# --- over TCP ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """Sends back what it gets, with a word before it."""
    made = Listener(lambda message: b"had " + message)
    made.start()
    yield made
    made.close()


@settings(max_examples=60)
@given(told=st.lists(st.tuples(GARBAGE, TEXT), min_size=1, max_size=4), size=st.sampled_from(SIZES))
def test_a_listener_answers_each_message_in_its_order_however_it_is_sent(
    listener: Listener, told: list[tuple[bytes, bytes]], size: int
) -> None:
    """MLLP: the answers come on the same connection, in the order of the messages."""
    stream = b"".join(garbage + frame(text) for garbage, text in told)
    reader = FrameReader(max_message_bytes=100_000)
    answers: list[bytes] = []
    with socket.create_connection((listener.host, listener.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces(stream, size):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(4096):
            answers += reader.receive_data(data)
    assert answers == [b"had " + text for _, text in told]
