"""multipart/related event by event, and the spool that takes its parts."""

from __future__ import annotations

import base64
import hashlib
import quopri
from pathlib import Path

import pytest

from soap.fault import SoapFault
from soap.multipart import (
    End,
    Event,
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
    content_id,
    parse_content_type,
)
from soap.operations import Limits
from soap.receiving import Receiver
from soap.replying import mtom
from soap.spool import Spool
from xds.messages import Document

BIG = 1 << 40


def events(content: bytes, boundary: str = "b", limits: Limits | None = None, chunk: int = 0) -> list[Event]:
    reader = MultipartReader(boundary, limits or Limits())
    chunk = chunk or max(1, len(content))
    found = [e for at in range(0, len(content), chunk) for e in reader.receive_data(content[at : at + chunk])]
    reader.receive_eof()
    return found


def data_of(found: list[Event]) -> bytes:
    return b"".join(event.data for event in found if isinstance(event, PartData))


def test_a_part_is_told_as_begin_data_end() -> None:
    """RFC 2046 5.1.1: the line end before a boundary belongs to the boundary."""
    assert events(b"--b\r\nContent-ID: <a@x>\r\nX-Y: z\r\n\r\nbytes\r\n\r\n--b--\r\n") == [
        PartBegin({"content-id": "<a@x>", "x-y": "z"}, "a@x"),
        PartData(b"bytes\r\n"),
        PartEnd(),
        End(),
    ]


@pytest.mark.parametrize("name", ["Content-ID", "Content-Id", "content-id", "CONTENT-ID"])
def test_header_names_have_any_case(name: str) -> None:
    (begin, *_) = events(f"--b\r\n{name}: <a>\r\n\r\n\r\n--b--".encode())
    assert begin == PartBegin({"content-id": "<a>"}, "a")


def test_a_folded_header_is_one_header() -> None:
    """RFC 5322 2.2.3."""
    (begin, *_) = events(b"--b\r\nContent-Type: application/xop+xml;\r\n\ttype=x\r\n\r\n\r\n--b--")
    assert isinstance(begin, PartBegin)
    assert parse_content_type(begin.headers["content-type"]).parameters == {"type": "x"}


def test_a_part_may_have_no_headers() -> None:
    assert events(b"--b\r\n\r\nx\r\n--b--") == [PartBegin({}, None), PartData(b"x"), PartEnd(), End()]


def test_white_space_may_follow_a_boundary() -> None:
    """RFC 2046 5.1.1: transport padding."""
    assert data_of(events(b"--b  \t\r\n\r\nx\r\n--b--  \r\n")) == b"x"


@pytest.mark.parametrize(
    "boundary", ["uuid:6f0b4b5e+id=1", "----=_Part_1_2.3", "(')+_,-./:=?", "b" * 70, "MIME boundary"]
)
def test_a_boundary_may_hold_what_peers_put_there(boundary: str) -> None:
    content = f"--{boundary}\r\n\r\nx\r\n--{boundary}--".encode()
    assert data_of(events(content, parse_content_type(f'a/b; boundary="{boundary}"').parameters["boundary"])) == b"x"


def test_no_character_of_binary_content_is_changed() -> None:
    content = bytes(range(256)) * 40 + b"\r\n-\r\n--\r\n--c\r\n"
    for chunk in (1, 2, 7, 4096):
        assert data_of(events(b"--b\r\n\r\n" + content + b"\r\n--b--", chunk=chunk)) == content


def test_what_follows_the_last_boundary_is_nothing() -> None:
    assert events(b"--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\nepilogue")[-1] == End()


@pytest.mark.parametrize("size", [0, 1, 20])
def test_a_message_that_ends_early_is_no_message(size: int) -> None:
    with pytest.raises(MultipartError, match="ends before its closing boundary"):
        events(b"--b\r\n\r\nx\r\n--b--"[:size] if size < 10 else b"--b\r\n\r\nxxxxxxxxxxxxxxxxxxx")


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(("surplus", "refused"), [(0, False), (1, True)])
def test_a_limit_is_the_same_whatever_the_pieces(chunk: int, surplus: int, refused: bool) -> None:
    limits = Limits(part_header_bytes=30, preamble_bytes=30)
    headers = b"--b\r\nA: " + b"x" * (27 + surplus) + b"\r\n\r\ny\r\n--b--"
    # Two bytes of the preamble are the line end before the boundary.
    preamble = b"x" * (28 + surplus) + b"\r\n--b\r\n\r\ny\r\n--b--"
    for content in (headers, preamble):
        if refused:
            with pytest.raises(MultipartError) as caught:
                events(content, limits=limits, chunk=chunk)
            assert caught.value.http_status == 413
        else:
            assert data_of(events(content, limits=limits, chunk=chunk)) == b"y"


@pytest.mark.parametrize(
    ("text", "media_type", "parameters"),
    [
        ("Text/XML", "text/xml", {}),
        ('a/b; x="1;2"; Y=3', "a/b", {"x": "1;2", "y": "3"}),
        ('a/b;x="q\\"q\\\\";y', "a/b", {"x": 'q"q\\'}),
        ("a/b; action=; z = 1 ", "a/b", {"action": "", "z": "1"}),
        ('a/b; x=""; x="second"', "a/b", {"x": ""}),
        ('a/b; x="open', "a/b", {"x": '"open'}),
    ],
)
def test_the_parameters_of_a_content_type(text: str, media_type: str, parameters: dict[str, str]) -> None:
    parsed = parse_content_type(text)
    assert (parsed.media_type, parsed.parameters) == (media_type, parameters)


def test_a_content_id_has_brackets_or_not() -> None:
    assert [content_id(text) for text in ("<a@b>", " <a@b> ", "a@b", "<a", "")] == ["a@b", "a@b", "a@b", "<a", ""]


# --- the parts of a message -------------------------------------------------------------------------------------------

ROOT = b"--b\r\nContent-ID: <r>\r\n\r\n"


def received(content: bytes, directory: Path, parameters: str = '; start="<r>"') -> tuple[bytes, dict[str, bytes]]:
    """The root, and the other parts by Content-ID."""
    with Spool(directory) as spool:
        receiver = Receiver(f"multipart/related; boundary=b{parameters}", spool, Limits())
        receiver.receive_data(content)
        return bytes(receiver._root), {name: one.read() for name, one in receiver.documents.items()}


def test_a_part_without_content_id_can_not_be_included(tmp_path: Path) -> None:
    assert received(ROOT + b"<a/>\r\n--b\r\n\r\nx\r\n--b--", tmp_path) == (b"<a/>", {})


def test_a_part_before_the_root_adds_nothing_to_it(tmp_path: Path) -> None:
    """RFC 2387 3.2: start names the root; a part without a name in front of it is no part of it."""
    content = b"--b\r\n\r\n<evil/>\r\n--b\r\nContent-ID: <d>\r\n\r\nx\r\n" + ROOT + b"<a/>\r\n--b--"
    assert received(content, tmp_path) == (b"<a/>", {"d": b"x"})


def test_the_first_part_is_the_root_where_nothing_names_it(tmp_path: Path) -> None:
    content = b"--b\r\n\r\n<a/>\r\n--b\r\nContent-ID: d\r\n\r\nx\r\n--b--"
    assert received(content, tmp_path, "") == (b"<a/>", {"d": b"x"})


def test_a_root_in_base64_is_decoded(tmp_path: Path) -> None:
    content = b"--b\r\nContent-ID: <r>\r\nContent-Transfer-Encoding: base64\r\n\r\nPGEv\r\nPg==\r\n--b--"
    assert received(content, tmp_path) == (b"<a/>", {})


# --- the spool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 50_000])
def test_a_part_has_its_size_and_hash_wherever_it_went(size: int, tmp_path: Path) -> None:
    content = bytes(index % 251 for index in range(size))
    with Spool(tmp_path, memory_bytes=1000) as spool:
        sink = spool.sink(name="d", mime_type="a/b", max_bytes=BIG)
        for at in range(0, size, 333):
            sink.write(content[at : at + 333])
        document = sink.close()
        assert (document.size, document.sha1) == (size, hashlib.sha1(content).hexdigest())
        assert document.read() == content == document.read()
        assert (document.path is not None) == (size > 1000)
        if document.path is not None:
            assert document.path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_taken_over_stays(tmp_path: Path) -> None:
    with Spool(tmp_path, memory_bytes=1) as spool:
        sink = spool.sink(name="d", mime_type="a/b", max_bytes=BIG)
        sink.write(b"kept")
        path = sink.close().path
        assert path is not None
        path.rename(tmp_path / "taken")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"kept"]


def test_many_small_parts_fill_no_more_memory_than_allowed(tmp_path: Path) -> None:
    with Spool(tmp_path, memory_bytes=100, total_memory_bytes=250) as spool:
        documents = []
        for _ in range(5):
            sink = spool.sink(name="d", mime_type="a/b", max_bytes=BIG)
            sink.write(b"x" * 50)
            sink.write(b"y" * 50)
            documents.append(sink.close())
        assert [one.path is None for one in documents] == [True, True, False, False, False]
        assert {one.read() for one in documents} == {b"x" * 50 + b"y" * 50}


@pytest.mark.parametrize("chunk", [1, 2, 7, 4096])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_transfer_encoding_is_undone_in_pieces_of_any_size(chunk: int, encoding: str, tmp_path: Path) -> None:
    """RFC 2045 6.7, 6.8."""
    content = bytes(range(256)) * 20
    encoded = base64.encodebytes(content) if encoding == "base64" else quopri.encodestring(content)
    with Spool(tmp_path) as spool:
        sink = spool.sink(name="d", mime_type="a/b", transfer_encoding=encoding, max_bytes=BIG)
        for at in range(0, len(encoded), chunk):
            sink.write(encoded[at : at + chunk])
        assert sink.close().read() == content


@pytest.mark.parametrize("pieces", [[b"SGVsbG8=SGVs"], [b"SGVsbG8=", b"SGVs"], [b"SGVsbG8"], [b"SG=sbG8="]])
def test_padding_ends_base64_whatever_the_pieces(pieces: list[bytes], tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        sink = spool.sink(name="d", mime_type="a/b", transfer_encoding="base64", max_bytes=BIG)
        with pytest.raises(SoapFault, match="base64"):
            for piece in pieces:
                sink.write(piece)
            sink.close()


def test_an_endless_line_of_quoted_printable_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        sink = spool.sink(name="d", mime_type="a/b", transfer_encoding="quoted-printable", max_bytes=BIG)
        with pytest.raises(SoapFault, match="65536 bytes"):
            for _ in range(10):
                sink.write(b"x" * 10_000)


# --- the writer -------------------------------------------------------------------------------------------------------


def test_what_is_written_can_be_read_and_has_the_length_it_says(tmp_path: Path) -> None:
    """ITI TF-2 Appendix V.3.6."""
    documents = [("a@x", Document.of(b"\r\n--", "a/b")), ("b@x", Document.of(b"", "c/d"))]
    reply = mtom("<h/>", [b"<b/>"], documents)
    content = b"".join(reply.pieces)
    assert len(content) == reply.length
    with Spool(tmp_path) as spool:
        receiver = Receiver(reply.content_type, spool, Limits())
        receiver.receive_data(content)
        assert {name: (one.read(), one.mime_type) for name, one in receiver.documents.items()} == {
            "a@x": (b"\r\n--", "a/b"),
            "b@x": (b"", "c/d"),
        }
        assert receiver.envelope().body.tag == "b"


def test_a_mime_type_can_not_end_its_header() -> None:
    reply = mtom("", [b"<b/>"], [("a@x", Document.of(b"", "a/b\r\nX-Evil: 1\r\n\r\n"))])
    assert b"Content-Type: a/bX-Evil: 1\r\n" in b"".join(reply.pieces)


@pytest.mark.parametrize("said", [3, 9])
def test_a_document_that_changed_its_size_breaks_the_message(said: int) -> None:
    whole = Document.of(b"12345", "a/b")
    changed = Document(size=said, sha1=whole.sha1, mime_type="a/b", open=whole.open)
    with pytest.raises(OSError, match="has become one of 5"):
        list(mtom("", [b"<b/>"], [("a@x", changed)]).pieces)
