"""Hostile patient identity sources: what they send is bounded, refused by name, and disturbs nobody else."""

from __future__ import annotations

import logging
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds import adt
from feeds.adt import Authority
from feeds.listener import Listener
from feeds.mllp import FrameReader, frame
from registry.iti64_link_change import change_link
from registry.patients import feed, list_patients
from registry.schema import upgrade
from registry.store import Store, open_engine
from tests.counting import calls_of
from xds.patients import LinkChanged, PatientAdded, PatientEvent, PatientsMerged
from xds.transactions import Feed

OURS = (Authority(namespace="AFF", universal_id="1.2.3.4"),)
MOMENT = datetime(2024, 1, 2, 3, 4, 6, tzinfo=UTC)


def ignore(event: PatientEvent) -> None:
    """A registry that takes everything and keeps nothing."""


def header(control_id: str = "M1", event: str = "A04") -> str:
    return f"MSH|^~\\&|ADT1|NORTH|XDSREG|AFFDOM|20240102||ADT^{event}|{control_id}|P|2.3.1"


def admit(number: str, control_id: str = "M1") -> bytes:
    return f"{header(control_id)}\rEVN|A04\rPID|||{number}^^^AFF||Muster^Ann\rPV1||N\r".encode()


def answers(to: Feed) -> Callable[[bytes], bytes]:
    return partial(
        adt.answer, feed=to, authorities=OURS, now=lambda: MOMENT, new_control_id=lambda: uuid.uuid4().hex[:20]
    )


class Client:
    def __init__(self, listener: Listener) -> None:
        self.socket = socket.create_connection((listener.host, listener.port), timeout=10)
        self._frames = FrameReader(max_message_bytes=1_000_000)
        self._received: list[bytes] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> bytes | None:
        """The next acknowledgement; None where the listener has closed the connection."""
        while not self._received:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._received += self._frames.receive_data(data)
        return self._received.pop(0)

    def msa(self) -> str:
        reply = self.reply()
        assert reply is not None, "the listener closed the connection"
        return reply.decode().split("\r")[1]


@contextmanager
def listening(answer: Callable[[bytes], bytes], **limits: float) -> Iterator[Listener]:
    listener = Listener(answer, **limits)  # type: ignore[arg-type]
    listener.start()
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    upgrade(engine)
    made = Store(engine)
    yield made
    made.close()


def registry(store: Store) -> Feed:
    return feed(
        store,
        change_link=partial(change_link, store=store, now=lambda: MOMENT, new_uuid=lambda: f"urn:uuid:{uuid.uuid4()}"),
    )


def known(store: Store) -> set[str]:
    return {one.identifier for one, _ in list_patients(store)}


def assert_serves(listener: Listener) -> None:
    """Whatever happened, another source is answered."""
    with Client(listener) as other:
        other.send(frame(admit("other", "OTHER")))
        assert other.msa() == "MSA|AA|OTHER"


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_messages_in_pieces_reach_the_registry(store: Store, size: int) -> None:
    stream = b"".join(b"\r\n??" + frame(admit(f"p{n}", f"M{n}")) for n in range(3))
    with listening(answers(registry(store))) as listener, Client(listener) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(stream), size):
            client.send(stream[at : at + size])
        assert [client.msa() for _ in range(3)] == ["MSA|AA|M0", "MSA|AA|M1", "MSA|AA|M2"]
    assert known(store) == {"p0", "p1", "p2"}


def test_two_messages_in_one_write_are_two(store: Store) -> None:
    with listening(answers(registry(store))) as listener, Client(listener) as client:
        client.send(frame(admit("p1", "M1")) + frame(admit("p2", "M2")))
        assert [client.msa(), client.msa()] == ["MSA|AA|M1", "MSA|AA|M2"]
    assert known(store) == {"p1", "p2"}


@pytest.mark.parametrize("cut", [b"", b"\x1c", b"\x1c\n", b"\r"])
def test_a_message_whose_end_block_never_comes_is_not_believed(store: Store, cut: bytes) -> None:
    with listening(answers(registry(store))) as listener, Client(listener) as client:
        client.send(b"\x0b" + admit("half") + cut)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.reply() is None
        assert_serves(listener)
    assert known(store) == {"other"}


def test_a_message_that_lost_its_end_is_not_joined_to_the_next(store: Store) -> None:
    with listening(answers(registry(store))) as listener, Client(listener) as client:
        client.send(b"\x0b" + admit("half", "HALF") + frame(admit("whole", "WHOLE")))
        assert client.msa() == "MSA|AA|WHOLE"
    assert known(store) == {"whole"}


def test_an_oversized_message_ends_the_connection_and_those_before_it_are_answered(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(answers(registry(store)), max_message_bytes=2000) as listener, Client(listener) as client:
        client.send(frame(admit("p1")) + b"\x0b" + admit("secret") + b"x" * 4000)
        assert client.msa() == "MSA|AA|M1"
        assert client.reply() is None
        assert_serves(listener)
    assert known(store) == {"p1", "other"}
    assert "a message is larger than the limit of 2000 bytes" in caplog.text
    assert "secret" not in caplog.text


def test_endless_garbage_ends_the_connection(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with listening(answers(registry(store))) as listener, Client(listener) as client:
        # The sockets of both sides hold some megabytes; what is sent after those was read by someone.
        with pytest.raises(OSError):
            for _ in range(1000):
                client.send(b"GET / HTTP/1.1\r\n" * 4096)
        assert_serves(listener)
    assert "without the beginning of a message" in caplog.text
    assert "HTTP" not in caplog.text


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_connection_that_says_nothing_is_closed() -> None:
    with listening(answers(ignore), idle_s=0.1) as listener, Client(listener) as client:
        begun = time.monotonic()
        assert client.reply() is None
        assert time.monotonic() - begun > 0.09


def test_a_message_that_never_ends_is_not_waited_for() -> None:
    with listening(answers(ignore), message_s=0.1) as listener, Client(listener) as client:
        client.send(b"\x0b" + admit("slow"))
        assert client.reply() is None


def test_a_sender_of_one_byte_now_and_then_gains_no_time() -> None:
    """The time is the message's, not the byte's."""
    with listening(answers(ignore), message_s=0.2) as listener, Client(listener) as client:
        client.socket.settimeout(0.02)
        begun, ended = time.monotonic(), False
        while not ended and time.monotonic() - begun < 30:
            try:
                client.send(b"x" if ended else b"\x0bx")
                ended = client.socket.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


def test_the_time_of_a_message_begins_with_it_and_not_with_the_one_before(store: Store) -> None:
    """A long, busy connection is not slow."""
    with listening(answers(registry(store)), message_s=1.0) as listener, Client(listener) as client:
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < 1.3:
            one = frame(admit("p1", f"M{count}"))
            client.send(one[:50])
            client.send(one[50:])
            assert client.msa() == f"MSA|AA|M{count}"
            count += 1
        assert count > 3


def test_a_peer_that_does_not_read_its_answers_does_not_keep_its_place() -> None:
    big = b"MSH|\rMSA|AA|BIG\r" + b"x" * 4_000_000
    with listening(lambda _: big, message_s=0.2, max_connections=1) as listener, Client(listener) as deaf:
        deaf.send(frame(b"one") * 20)
        deadline = time.monotonic() + 10
        served = False
        while not served and time.monotonic() < deadline:
            with Client(listener) as other:
                other.socket.settimeout(2)
                try:
                    other.send(frame(b"two"))
                    served = other.socket.recv(1) == b"\x0b"
                except OSError:
                    continue
        assert served


# --- connections ------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_closed_and_the_others_served(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(answers(registry(store)), max_connections=2) as listener:
        with Client(listener) as first, Client(listener) as second:
            for client, number in ((first, "p1"), (second, "p2")):
                client.send(frame(admit(number)))
                assert client.msa() == "MSA|AA|M1"
            for _ in range(5):
                with Client(listener) as third:
                    assert third.reply() is None
            first.send(frame(admit("p3")))
            assert first.msa() == "MSA|AA|M1"
        deadline, again = time.monotonic() + 10, None
        while again is None and time.monotonic() < deadline:
            with Client(listener) as later:
                try:
                    later.send(frame(admit("p4")))
                except OSError:
                    continue
                again = later.reply()
        assert again is not None
    assert known(store) == {"p1", "p2", "p3", "p4"}
    assert "the limit of 2" in caplog.text


def test_a_hundred_connections_at_once_are_each_answered_in_order(store: Store) -> None:
    with listening(answers(registry(store))) as listener:
        clients = [Client(listener) for _ in range(100)]
        try:
            for number, client in enumerate(clients):
                client.send(b"".join(frame(admit(f"c{number}-{n}", f"C{number}-{n}")) for n in range(4)))
            for number, client in enumerate(clients):
                assert [client.msa() for _ in range(4)] == [f"MSA|AA|C{number}-{n}" for n in range(4)]
        finally:
            for client in clients:
                client.socket.close()
    assert known(store) == {f"c{number}-{n}" for number in range(100) for n in range(4)}


def test_connections_that_are_reset_in_the_middle_disturb_nobody(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(answers(registry(store)), max_connections=30) as listener:
        for number in range(60):
            with Client(listener) as client:
                try:
                    client.send(b"\x0b" + admit("reset")[: number + 1] if number % 2 else frame(admit("sent")))
                except OSError:
                    continue
                # Closing then sends RST and not FIN.
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        deadline, served = time.monotonic() + 10, False
        while not served and time.monotonic() < deadline:
            with Client(listener) as other:
                try:
                    other.send(frame(admit("other")))
                except OSError:
                    continue
                served = other.reply() is not None
        assert served
    assert known(store) <= {"sent", "other"}
    assert not any(record.exc_info for record in caplog.records)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_messages_that_are_being_answered_when_the_listener_ends_are_answered_first(store: Store) -> None:
    """An acknowledgement that never comes would be sent again, or worse, not."""
    take, entered, go_on = registry(store), threading.Semaphore(0), threading.Event()

    def slowly(event: PatientEvent) -> None:
        entered.release()
        assert go_on.wait(10)
        take(event)

    listener = Listener(answers(slowly))
    listener.start()
    clients = [Client(listener) for _ in range(4)]
    idle = Client(listener)
    closing = threading.Thread(target=listener.close)
    try:
        for number, client in enumerate(clients):
            client.send(frame(admit(f"p{number}")) + frame(admit("too late", "LATE")))
        assert all(entered.acquire(timeout=10) for _ in clients)
        closing.start()
        # The end has begun as soon as the one with nothing to say is closed.
        assert idle.reply() is None
        go_on.set()
        assert [client.msa() for client in clients] == ["MSA|AA|M1"] * 4
        assert [client.reply() for client in clients] == [None] * 4
        closing.join(10)
        assert not closing.is_alive()
    finally:
        go_on.set()
        for client in (*clients, idle):
            client.socket.close()
    assert known(store) == {"p0", "p1", "p2", "p3"}
    with pytest.raises(OSError):
        socket.create_connection((listener.host, listener.port), timeout=2)


def test_what_is_acknowledged_while_the_listener_ends_is_what_was_stored(store: Store) -> None:
    """Under load: no acknowledgement without its patient, and no patient without its acknowledgement."""
    listener = Listener(answers(registry(store)))
    listener.start()
    acknowledged: set[str] = set()
    begun = threading.Semaphore(0)

    def source(number: int) -> None:
        with Client(listener) as client:
            for n in range(10_000):
                try:
                    client.send(frame(admit(f"s{number}-{n}")))
                except OSError:
                    return
                if (reply := client.reply()) is None:
                    return
                assert b"MSA|AA|" in reply
                acknowledged.add(f"s{number}-{n}")
                begun.release()

    sources = [threading.Thread(target=source, args=(number,)) for number in range(8)]
    for one in sources:
        one.start()
    assert all(begun.acquire(timeout=10) for _ in range(40))
    listener.close()
    for one in sources:
        one.join(10)
    assert len(acknowledged) >= 40
    assert known(store) == acknowledged


def test_half_a_message_and_a_peer_that_does_not_read_do_not_keep_the_listener_from_ending() -> None:
    entered = threading.Semaphore(0)

    def big(message: bytes) -> bytes:
        entered.release()
        return b"x" * 8_000_000

    listener = Listener(big, message_s=0.3)
    listener.start()
    with Client(listener) as half, Client(listener) as deaf, Client(listener) as refused:
        half.send(b"\x0b" + admit("half"))
        deaf.send(frame(b"one"))
        refused.send(b"-" * 5000)
        assert entered.acquire(timeout=10)
        listener.close()
        assert half.reply() is None
        listener.close()


def test_an_address_that_is_taken_is_an_error_and_leaves_no_thread() -> None:
    with listening(answers(ignore)) as listener:
        before = threading.active_count()
        second = Listener(answers(ignore), port=listener.port)
        with pytest.raises(OSError):
            second.start()
        second.close()
        assert threading.active_count() == before
        assert_serves(listener)


# --- contents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delimiter", ["|", "^", "~", "&", "\\", "\r", "\n", "\rPID", "\rMSH|", "\r|", "~a^^^AFF", "\t"]
)
@pytest.mark.parametrize("place", ["MSH", "PID", "PID-3", "MRG"])
def test_a_quarter_of_a_megabyte_of_delimiters_costs_little(delimiter: str, place: str) -> None:
    many = delimiter * (250_000 // len(delimiter))
    lines = {
        "MSH": [header(event="A40") + many, "PID|||p1^^^AFF", "MRG|p2^^^AFF"],
        "PID": [header(event="A40"), "PID" + many, "MRG|p2^^^AFF"],
        "PID-3": [header(event="A40"), f"PID|||p1^^^AFF{many}", "MRG|p2^^^AFF"],
        "MRG": [header(event="A40"), "PID|||p1^^^AFF", f"MRG|p2^^^AFF{many}"],
    }[place]
    events: list[PatientEvent] = []
    message = "\r".join(lines).encode()
    reply = answers(events.append)(message)
    assert calls_of(lambda: answers(ignore)(message)) < 5_000 + 3 * message.count(b"\r")
    assert re.search(rb"\rMSA\|A[AER]\|M1", reply)
    assert len(reply) < 2000
    assert len(events) <= 1


@pytest.mark.parametrize("field", range(3, 13))
def test_a_long_field_of_the_header_is_not_sent_back_whole(field: int) -> None:
    fields = header().split("|")
    fields[field - 1] += "x" * 10_000
    reply = answers(ignore)(("|".join(fields) + "\rPID|||p1^^^AFF\r").encode())
    assert reply.startswith(b"MSH|^~\\&|")
    assert len(reply) < 2000


@pytest.mark.parametrize("character", ["\x0b", "\x1c", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e"])
@pytest.mark.parametrize("field", [3, 4, 5, 6, 9, 10, 11, 12, 18])
def test_an_acknowledgement_and_the_log_have_no_control_characters_of_the_sender(
    caplog: pytest.LogCaptureFixture, character: str, field: int
) -> None:
    """0x0B and 0x1C would forge a frame, others a line of the log."""
    caplog.set_level(logging.INFO, "xdsi.feeds")
    fields = [*header().split("|"), *[""] * 6]
    fields[field - 1] += f"{character}x"
    reply = answers(ignore)(("|".join(fields) + "\rPID|||p1^^^AFF\r").encode())
    text = reply.decode()
    assert all(one.isprintable() or one == "\r" for one in text)
    assert [line[:3] for line in text.split("\r")][:2] == ["MSH", "MSA"]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.isprintable()


def test_an_error_of_one_message_is_no_error_of_the_next(store: Store) -> None:
    bad = [
        b"",
        b"\xff" * 1000,
        b"MSH",
        b"MSH|",
        b"MSH|^~\\&",
        b"MSH|^~\\&|" + b"|" * 1000,
        bytes(range(0x20, 256)),
        b"\r" * 99,
    ]
    with listening(answers(registry(store))) as listener, Client(listener) as client:
        for number, one in enumerate(bad):
            client.send(frame(one) + frame(admit(f"p{number}", f"M{number}")))
            assert client.msa().startswith("MSA|AR|")
            assert client.msa() == f"MSA|AA|M{number}"
    assert known(store) == {f"p{number}" for number in range(len(bad))}


LINES = st.sampled_from(
    [
        *(header(event=event) for event in ("A01", "A08", "A40", "A43", "A99")),
        header() + "||||||8859/1",
        header() + "||||||UNICODE UTF-8",
        "PID|||p1^^^AFF",
        "PID|||p1^^^AFF~l1^^^&2.5.6&ISO",
        "MRG|p2^^^AFF~l2^^^&2.5.6&ISO",
        "MRG|p2^^^&1.2.3.4&ISO",
        "MSH|",
        "PV1||N",
        "",
    ]
).map(str.encode)


def _spoiled(told: tuple[list[bytes], list[tuple[int, bytes]]]) -> bytes:
    lines, changes = told
    message = bytearray(b"\r".join(lines))
    for at, inserted in changes:
        place = at % (len(message) + 1)
        message[place : place + at % 3] = inserted
    return bytes(message)


MESSAGES = st.tuples(
    st.lists(LINES, max_size=6),
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from([b"|", b"^", b"~", b"&", b"\\", b"\r", b"\n", b"\x00", b"\xfc", b"\xc3\xbc", b'""', b" "])
            | st.binary(max_size=4),
        ),
        max_size=6,
    ),
).map(_spoiled)
WELL_FORMED = re.compile(
    r"MSH\|\^~\\&(\|[^|\r]*){4}\|[0-9]{14}\|\|ACK(\^[A-Z][A-Z0-9]{2})?\|[^|\r]+\|[^|\r]+\|[^|\r]+(\|{6}[^|\r]+)?"
)


@settings(max_examples=500, deadline=None)
@given(MESSAGES | st.binary(max_size=200))
def test_every_message_has_a_well_formed_answer_and_tells_only_whole_ids(message: bytes) -> None:
    """HL7 v2.3.1 2.13.1: AA has no ERR, and what is not AA has one and has told the registry nothing."""
    events: list[PatientEvent] = []
    reply = answers(events.append)(message)
    charset = reply.split(b"\r")[0].split(b"|")
    named = charset[17].decode() if len(charset) > 17 else ""
    text = reply.decode({"": "ascii", "UNICODE UTF-8": "utf-8"}.get(named, named.lower().replace("8859/", "iso8859-")))
    msh, msa, *err, end = text.split("\r")
    assert WELL_FORMED.fullmatch(msh), msh
    assert end == ""
    code = msa.split("|")[1]
    assert code in ("AA", "AE", "AR")
    if code == "AA":
        assert err == []
    else:
        assert len(err) == 1 and re.fullmatch(r"ERR\|[A-Z]{3}\^[0-9]\^[0-9]{1,2}\^[0-9]{3}", err[0]), err
        assert not err[0].endswith("^207"), "an incident"
        assert events == []
    for event in events:
        match event:
            case PatientAdded(patient_id=one):
                ids = [one]
            case PatientsMerged(surviving=one, subsumed=other):
                ids = [one, other]
            case LinkChanged():
                ids = [
                    event.patient_id,
                    event.source_patient_id,
                    event.old_patient_id,
                    event.old_source_patient_id,
                ]
        assert all(one.unkeepable is None and one.fault is None for one in ids)


def test_a_hostile_source_leaves_nothing_of_patients_in_the_log(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = admit("secret-id").replace(b"Muster", b"secret-name")
    hostile = [
        frame(secret),
        frame(secret.replace(b"A04", b"A40")),
        frame(secret.replace(b"MSH|", b"MSX|")),
        frame(secret.replace(b"^^^AFF", b"^^^&x&ISO")),
        frame(secret.replace(b"secret-id", b"secret-\x01id")),
        frame(secret.replace(b"PV1", b"PID|||secret-id\rPV1")),
        secret * 20,
    ]
    with listening(answers(registry(store))) as listener:
        for sent in hostile:
            with Client(listener) as client:
                client.send(sent)
                client.socket.shutdown(socket.SHUT_WR)
                client.reply()
    told = "\n".join(f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    assert "M1: AA" in told and "M1: AE" in told and "without the beginning" in told
    assert "secret" not in told
