"""A multipart reader gives the same events in whatever pieces the bytes come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from soap.multipart import Event, MultipartReader, PartData
from soap.operations import Limits

BOUNDARY = "b"
# Bytes that look like the beginning of a boundary come often.
CONTENT = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n-", b"\r\n--", b"x", b"\x00", b"\r\n\r\n"])
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)


def message(parts: list[bytes]) -> bytes:
    heads = (f"Content-ID: <{number}@x>\r\n\r\n".encode() for number in range(len(parts)))
    return b"".join(b"--b\r\n" + head + part + b"\r\n" for head, part in zip(heads, parts, strict=True)) + b"--b--\r\n"


def events(pieces: list[bytes]) -> list[Event]:
    """What the reader gives, neighbouring data joined."""
    reader = MultipartReader(BOUNDARY, Limits())
    joined: list[Event] = []
    for piece in pieces:
        for event in reader.receive_data(piece):
            if isinstance(event, PartData) and joined and isinstance(joined[-1], PartData):
                joined[-1] = PartData(joined[-1].data + event.data)
            else:
                joined.append(event)
    reader.receive_eof()
    return joined


@settings(max_examples=300)
@given(st.lists(CONTENT.filter(lambda part: b"\r\n--b" not in b"\r\n" + part), min_size=1, max_size=4), st.data())
def test_the_events_do_not_depend_on_the_pieces(parts: list[bytes], data: st.DataObject) -> None:
    whole = message(parts)
    expected = events([whole])
    assert [event.data for event in expected if isinstance(event, PartData)] == [part for part in parts if part]
    for size in (1, 2, 7):
        assert events([whole[at : at + size] for at in range(0, len(whole), size)]) == expected
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    assert events([whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]) == expected
