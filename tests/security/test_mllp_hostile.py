"""Hostile and broken peers of the HL7 v2 listener: each harms its own connection at most, and only for as long as a limit says."""

from __future__ import annotations

import os
import random
import resource
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from feeds import adt
from feeds.adt import Authority
from feeds.listener import Listener
from feeds.mllp import FrameReader, frame
from tests.counting import calls_of
from xds.patients import PatientAdded, PatientEvent

OURS = (Authority(universal_id="1.2.3.4"),)
AA = b"\rMSA|AA|M1\r"


def admit(number: str = "p1", control_id: str = "M1", more: str = "") -> bytes:
    return (
        f"MSH|^~\\&|ADT1|NORTH|XDSREG|AFFDOM|20240102030405||ADT^A04|{control_id}|P|2.3.1\r"
        f"EVN|A04\rPID|||{number}^^^&1.2.3.4&ISO||Muster^Ann\r{more}"
    ).encode()


class Peer:
    """One connection; it may send whatever it likes."""

    def __init__(self, listener: Listener, *, receive_buffer_bytes: int = 0, tls: ssl.SSLContext | None = None) -> None:
        plain = socket.socket()
        try:
            if receive_buffer_bytes:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            plain.settimeout(20)
            plain.connect((listener.host, listener.port))
            self.socket = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        except OSError:
            plain.close()
            raise
        self._frames = FrameReader(max_message_bytes=10_000_000)
        self._replies: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> bytes | None:
        """The next acknowledgement; None where the listener has closed the connection."""
        while not self._replies:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._replies += self._frames.receive_data(data)
        return self._replies.pop(0)

    def ask(self, message: bytes) -> bytes | None:
        self.send(frame(message))
        return self.reply()

    def close(self) -> None:
        self.socket.close()


class Registry:
    """Keeps what it is told, from many threads."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def take(self, event: PatientEvent) -> None:
        assert isinstance(event, PatientAdded)
        self.known.append(event.patient_id.identifier)


def answering(registry: Registry) -> Callable[[bytes], bytes]:
    return partial(
        adt.answer,
        feed=registry.take,
        authorities=OURS,
        now=lambda: datetime(2024, 1, 2, tzinfo=UTC),
        new_control_id=lambda: "1",
    )


@contextmanager
def listening(answer: Callable[[bytes], bytes], **limits: Any) -> Iterator[Listener]:
    listener = Listener(answer, **limits)
    listener.start()
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def listener(registry: Registry) -> Iterator[Listener]:
    with listening(answering(registry), max_message_bytes=100_000) as made:
        yield made


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_frame_may_come_in_fragments(listener: Listener, registry: Registry, size: int) -> None:
    whole = frame(admit())
    with closing(Peer(listener)) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(whole), size):
            peer.send(whole[at : at + size])
        reply = peer.reply()
    assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1"]


def test_two_messages_in_one_segment_are_answered_in_their_order(listener: Listener, registry: Registry) -> None:
    with closing(Peer(listener)) as peer:
        peer.send(frame(admit("p1", "M1")) + b"\r\n" + frame(admit("p2", "M2")))
        replies = [peer.reply(), peer.reply()]
    assert [reply and reply.split(b"\r")[1] for reply in replies] == [b"MSA|AA|M1", b"MSA|AA|M2"]
    assert registry.known == ["p1", "p2"]


def test_a_message_that_lost_its_end_is_not_acknowledged_and_harms_no_other(
    listener: Listener, registry: Registry
) -> None:
    """What follows it is not read as its segments, either."""
    with closing(Peer(listener)) as peer:
        peer.send(b"\x0b" + admit("lost", "M0"))
        reply = peer.ask(admit("p1", "M1"))
    assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1"]


def test_a_peer_that_leaves_within_a_message_tells_nothing(listener: Listener, registry: Registry) -> None:
    with closing(Peer(listener)) as peer:
        peer.send(b"\x0b" + admit("lost"))
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.reply() is None
    assert registry.known == []


def test_an_oversized_message_ends_the_connection_after_what_came_before(
    listener: Listener, registry: Registry
) -> None:
    with closing(Peer(listener)) as peer, closing(Peer(listener)) as other:
        peer.send(frame(admit()) + b"\x0b" + b"x" * 100_001)
        reply = peer.reply()
        assert reply is not None and reply.endswith(AA)
        assert peer.reply() is None
        reply = other.ask(admit("p2"))
        assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1", "p2"]


def test_a_message_of_the_limit_is_answered(listener: Listener, registry: Registry) -> None:
    fitting = admit(more="ZZZ|")
    with closing(Peer(listener)) as peer:
        reply = peer.ask(fitting + b"z" * (100_000 - len(fitting)))
    assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1"]


def test_binary_garbage_ends_its_connection_and_no_other(listener: Listener, registry: Registry) -> None:
    noise = random.Random(1)
    with closing(Peer(listener)) as other:
        for _ in range(20):
            with closing(Peer(listener)) as peer:
                peer.send(noise.randbytes(5000).replace(b"\x0b", b""))
                assert peer.reply() is None
        reply = other.ask(admit())
    assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1"]


def test_binary_garbage_in_a_frame_is_rejected_and_the_connection_goes_on(
    listener: Listener, registry: Registry
) -> None:
    noise = random.Random(2)
    with closing(Peer(listener)) as peer:
        for _ in range(20):
            content = noise.randbytes(5000).replace(b"\x0b", b"").replace(b"\x1c", b"")
            reply = peer.ask(content)
            assert reply is not None and b"\rMSA|AR||" in reply
        reply = peer.ask(admit())
    assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1"]


def test_binary_garbage_in_segments_is_refused_or_harmless(listener: Listener) -> None:
    noise = random.Random(3)
    with closing(Peer(listener)) as peer:
        for _ in range(100):
            content = noise.randbytes(300).replace(b"\x0b", b"").replace(b"\x1c", b"")
            reply = peer.ask(admit()[:-1].rsplit(b"PID", 1)[0] + b"PID|||" + content)
            assert reply is not None and b"\rMSA|A" in reply
            assert b"incident" not in reply


@pytest.mark.parametrize("delimiter", ["|", "^", "~", "&", "\\", "\r", "\n", "PID|||x\r"])
def test_delimiters_without_end_cost_little(delimiter: str, registry: Registry) -> None:
    """The library that parses makes objects for each delimiter; it sees no more than a few of them."""
    hostile = admit(more="PV1|") + (delimiter * 250_000)[:250_000].encode()
    crowded = admit(number=delimiter * 15_000)
    repeated = admit(more=("PID|" + delimiter * 15_000 + "\r") * 15)
    behind = admit()[:-1] + b"|" + (delimiter * 250_000)[:250_000].encode()
    answer = answering(registry)
    for message in (hostile, crowded, repeated, behind):
        assert b"\rMSA|A" in answer(message)
        assert calls_of(lambda: answer(message)) < 5_000  # noqa: B023


def test_a_segment_is_bounded(listener: Listener, registry: Registry) -> None:
    with closing(Peer(listener)) as peer:
        reply = peer.ask(admit("p" * 50_000))
    assert reply is not None and b"MSA|AR|M1|the segment PID is longer than the limit of" in reply
    assert registry.known == []


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_message_without_its_end_ends_the_connection_in_time(registry: Registry) -> None:
    with listening(answering(registry), message_s=0.2, idle_s=60) as listener, closing(Peer(listener)) as peer:
        peer.send(b"\x0b" + admit())
        assert peer.reply() is None
    assert registry.known == []


def test_a_slow_client_cannot_prolong_its_message_by_sending_a_little(registry: Registry) -> None:
    """Each byte comes well within the idle time; the message as a whole does not come within its own."""
    with listening(answering(registry), message_s=0.3, idle_s=60) as listener, closing(Peer(listener)) as slow:
        slow.send(b"\x0b")
        slow.socket.settimeout(0.02)
        for _ in range(1000):
            try:
                slow.send(b"x")
                assert slow.socket.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
        else:
            pytest.fail("the connection outlived 1000 bytes")
        with closing(Peer(listener)) as other:
            reply = other.ask(admit())
    assert reply is not None and reply.endswith(AA)


def test_a_silent_connection_is_closed_when_its_time_is_up(registry: Registry) -> None:
    with listening(answering(registry), idle_s=0.2) as listener, closing(Peer(listener)) as peer:
        reply = peer.ask(admit())
        assert reply is not None and reply.endswith(AA)
        assert peer.reply() is None


def test_a_peer_that_never_reads_loses_its_connection(registry: Registry) -> None:
    """Its acknowledgements stay in the listener's memory only until the time for them is up; then its place is free."""
    with (
        listening(lambda message: b"R" * 500_000, max_connections=1, message_s=0.2) as listener,
        closing(Peer(listener, receive_buffer_bytes=4096)) as deaf,
    ):
        with pytest.raises(ConnectionError):
            while True:
                deaf.send(frame(b"m") * 1000)
        assert asked_until_answered(listener, b"m").startswith(b"R")


def test_a_slow_answer_holds_up_its_own_connection_only() -> None:
    go = threading.Event()

    def answer(message: bytes) -> bytes:
        if message == b"slow":
            assert go.wait(20)
        return message

    with listening(answer) as listener, closing(Peer(listener)) as slow, closing(Peer(listener)) as other:
        slow.send(frame(b"slow") + frame(b"after it"))
        assert [other.ask(b"fast") for _ in range(3)] == [b"fast"] * 3
        go.set()
        assert [slow.reply(), slow.reply()] == [b"slow", b"after it"]


# --- many -------------------------------------------------------------------------------------------------------------


def asked_until_answered(listener: Listener, message: bytes) -> bytes:
    """The answer of the first new connection that is not closed at once: a place becomes free a moment after its peer has left."""
    for _ in range(10_000):
        with closing(Peer(listener)) as peer:
            try:
                reply = peer.ask(message)
            except ConnectionError:
                continue
            if reply is not None:
                return reply
    raise AssertionError("no place became free")


def test_two_hundred_connections_are_served_together(registry: Registry) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 600:
        pytest.skip("fewer than 600 files may be open")
    with listening(answering(registry), max_connections=200) as listener, ExitStack() as stack:
        peers = [stack.enter_context(closing(Peer(listener))) for _ in range(200)]
        for turn in range(2):
            for number, peer in enumerate(peers):
                peer.send(frame(admit(f"p{turn}-{number}", f"M{number}")))
            replies = [peer.reply() for peer in peers]
            assert [reply and reply.split(b"\r")[1] for reply in replies] == [
                f"MSA|AA|M{number}".encode() for number in range(200)
            ]
    assert sorted(registry.known) == sorted(f"p{turn}-{number}" for turn in range(2) for number in range(200))


def test_a_connection_beyond_the_limit_is_closed_and_a_freed_place_is_taken(registry: Registry) -> None:
    with listening(answering(registry), max_connections=2) as listener:
        with closing(Peer(listener)) as first, closing(Peer(listener)) as second:
            for peer in (first, second):
                reply = peer.ask(admit())
                assert reply is not None and reply.endswith(AA)
            with closing(Peer(listener)) as third:
                assert third.reply() is None
            reply = first.ask(admit())
            assert reply is not None and reply.endswith(AA)
        assert asked_until_answered(listener, admit()).endswith(AA)


# --- beginning and end ------------------------------------------------------------------------------------------------


def test_a_message_that_is_being_answered_when_the_listener_closes_is_acknowledged() -> None:
    """Otherwise a patient would be stored, and the sender told nothing."""
    begun, go = threading.Event(), threading.Event()

    def answer(message: bytes) -> bytes:
        begun.set()
        assert go.wait(20)
        return message

    listener = Listener(answer)
    listener.start()
    with closing(Peer(listener)) as peer, closing(Peer(listener)) as silent:
        peer.send(frame(b"m1") + frame(b"m2"))
        assert begun.wait(20)
        closer = threading.Thread(target=listener.close)
        closer.start()
        # An idle connection ends at once: when it has, the listener is known to be ending.
        assert silent.reply() is None
        go.set()
        assert [peer.reply(), peer.reply()] == [b"m1", None]
        closer.join(20)
    assert not closer.is_alive()
    with pytest.raises(ConnectionError):
        Peer(listener)


def test_a_failure_of_the_answer_ends_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    def answer(message: bytes) -> bytes:
        if message == b"bad":
            raise RuntimeError("nobody foresaw this")
        return message

    with listening(answer) as listener, closing(Peer(listener)) as peer, closing(Peer(listener)) as other:
        assert peer.ask(b"bad") is None
        assert other.ask(b"good") == b"good"
    assert [record.name for record in caplog.records if record.exc_info] == ["xdsi.feeds"]


def test_a_listener_can_be_closed_twice_and_without_a_start() -> None:
    before = threading.active_count()
    Listener(bytes).close()
    listener = Listener(bytes)
    listener.start()
    listener.close()
    listener.close()
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_told_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with listening(bytes) as listener:
        second = Listener(bytes, port=listener.port)
        with pytest.raises(OSError, match="in use"):
            second.start()
        second.close()
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of localhost, signed by itself; and its key."""
    directory = tmp_path_factory.mktemp("tls")
    program = "/usr/bin/openssl"
    if not Path(program).exists():
        reason = "openssl is not installed (Debian: apt-get install openssl)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    made = directory / "certificate.pem", directory / "key.pem"
    command = (
        f"{program} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -out {made[0]} -keyout {made[1]}"
    )
    subprocess.run([*command.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return made


def test_messages_may_come_over_tls(registry: Registry, certificate: tuple[Path, Path]) -> None:
    """ITI TF-2 3.19: the transport of a node of an ATNA domain."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=certificate[0])
    with listening(answering(registry), tls=context) as listener, closing(Peer(listener, tls=trusting)) as peer:
        reply = peer.ask(admit())
    assert reply is not None and reply.endswith(AA)
    assert registry.known == ["p1"]


def test_a_peer_that_never_shakes_hands_is_closed_in_time(registry: Registry, certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with listening(answering(registry), tls=context, message_s=0.3) as listener, closing(Peer(listener)) as peer:
        assert peer.reply() is None
    assert registry.known == []
