"""ITI-8 Patient Identity Feed: what a real TCP client of a real listener is told for each message, and what the registry hears."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import pytest

from feeds import adt
from feeds.adt import Authority
from feeds.listener import Listener
from feeds.mllp import FrameReader, frame
from xds.patients import PatientAdded, PatientEvent, PatientsMerged
from xds.problems import ErrorCode, Failure, fail
from xds.transactions import Feed
from xds.values import Identifier

OURS = (Authority(namespace="AFF", universal_id="1.2.3.4"), Authority(namespace="SECOND", universal_id="1.2.3.5"))
HEADER = "MSH|^~\\&|ADT1|NORTH|XDSREG|AFFDOM|20240102030405||{kind}|MSG00001|P|2.3.1"
NO_EVENTS: list[PatientEvent] = []


def cx(number: str) -> str:
    return f"{number}^^^&1.2.3.4&ISO"


P100, P200, P300, P999 = (Identifier(cx(number)) for number in ("p100", "p200", "p300", "p999"))


class Registry:
    """Knows patients and refuses merges as ITI TF-2 3.8.4.2.3 demands. `events` are those that it took."""

    def __init__(self, *known: Identifier) -> None:
        self.known = set(known)
        self.merged: dict[Identifier, Identifier] = {}
        self.events: list[PatientEvent] = []

    def take(self, event: PatientEvent) -> None:
        match event:
            case PatientAdded(patient_id=patient_id):
                self.known.add(patient_id)
            case PatientsMerged(surviving=surviving, subsumed=subsumed):
                self._merge(surviving, subsumed)
        self.events.append(event)

    def _merge(self, surviving: Identifier, subsumed: Identifier) -> None:
        if surviving == subsumed:
            raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"patient {surviving!r} cannot be merged into itself")
        for role, one in (("surviving", surviving), ("subsumed", subsumed)):
            if one in self.merged:
                text = f"the {role} patient {one!r} has been merged into {self.merged[one]!r}"
                raise fail(ErrorCode.UNKNOWN_PATIENT_ID, text)
            if one not in self.known:
                raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"the {role} patient {one!r} is not known to this registry")
        self.merged[subsumed] = surviving


class Client:
    """A patient identity source with one connection."""

    def __init__(self, listener: Listener) -> None:
        self.socket = socket.create_connection((listener.host, listener.port), timeout=10)
        self._frames = FrameReader(max_message_bytes=100_000)

    def reply(self) -> bytes:
        """The next acknowledgement."""
        while data := self.socket.recv(4096):
            for message in self._frames.receive_data(data):
                return message
        raise AssertionError("the listener closed the connection")

    def ask(self, message: bytes) -> bytes:
        self.socket.sendall(frame(message))
        return self.reply()


@contextmanager
def served(feed: Feed, authorities: Sequence[Authority] = OURS) -> Iterator[Callable[[bytes], list[str]]]:
    """Asks a listener over one connection, and gives the segments of its acknowledgements."""
    answer = partial(
        adt.answer,
        feed=feed,
        authorities=authorities,
        now=lambda: datetime(2024, 1, 2, 3, 4, 6, tzinfo=UTC),
        new_control_id=lambda: "ACK00001",
    )
    listener = Listener(answer)
    listener.start()
    client = Client(listener)

    def ask(message: bytes) -> list[str]:
        reply = client.ask(message)
        assert reply.endswith(b"\r")
        return reply.decode().split("\r")[:-1]

    try:
        yield ask
    finally:
        client.socket.close()
        listener.close()


def message(
    event: str, *segments: str, header: str = HEADER, kind: str | None = None, end: str = "\r", charset: str = "utf-8"
) -> bytes:
    lines = [header.format(kind=kind or f"ADT^{event}"), f"EVN|{event}|20240102030405", *segments]
    return "".join(line + end for line in lines).encode(charset)


def admit(pid_3: str = "p100^^^&1.2.3.4&ISO", event: str = "A04") -> bytes:
    return message(event, f"PID|||{pid_3}||Muster^Ann||19700101|F", "PV1||O")


def merge(pid_3: str = P100, mrg_1: str = P200) -> bytes:
    return message("A40", f"PID|||{pid_3}||Muster^Ann", f"MRG|{mrg_1}", kind="ADT^A40^ADT_A39")


def added(*numbers: str) -> list[PatientEvent]:
    return [PatientAdded(patient_id=Identifier(number)) for number in numbers]


# --- events -----------------------------------------------------------------------------------------------------------


def test_an_admission_is_acknowledged_as_the_standard_shows_it() -> None:
    """ITI TF-2 3.8.4.1, TF-2x C.1.3: sender and receiver exchanged, MSH-11 and MSH-12 as they came, MSA-2 the request's MSH-10."""
    registry = Registry()
    with served(registry.take) as ask:
        assert ask(admit()) == [
            "MSH|^~\\&|XDSREG|AFFDOM|ADT1|NORTH|20240102030406||ACK^A04|ACK00001|P|2.3.1",
            "MSA|AA|MSG00001",
        ]
    assert registry.events == added(P100)


@pytest.mark.parametrize("event", ["A01", "A04", "A05"])
@pytest.mark.parametrize("structure", ["", "^ADT_A01"])
def test_each_event_that_admits_makes_the_patient_known(event: str, structure: str) -> None:
    """ITI TF-2 3.8.4.1.2: A01, A04, A05; the third component of MSH-9 may be there."""
    registry = Registry()
    sent = message(event, f"PID|||{P100}", "PV1||N", kind=f"ADT^{event}{structure}")
    with served(registry.take) as ask:
        header, *rest = ask(sent)
    assert header.split("|")[8] == f"ACK^{event}"
    assert rest == ["MSA|AA|MSG00001"]
    assert registry.events == added(P100)


def test_a_patient_told_twice_is_accepted_twice() -> None:
    """ITI TF-2 3.8.4.1.3: a known patient is no error."""
    registry = Registry()
    with served(registry.take) as ask:
        assert [ask(admit())[1:], ask(admit(event="A01"))[1:]] == [["MSA|AA|MSG00001"]] * 2
    assert registry.known == {P100}


def test_an_update_is_acknowledged_and_tells_nothing() -> None:
    """ITI TF-2 3.8.4.1.3: A08 does not change a Patient ID."""
    registry = Registry()
    with served(registry.take) as ask:
        header, *rest = ask(admit(event="A08"))
    assert (header.split("|")[8], rest) == ("ACK^A08", ["MSA|AA|MSG00001"])
    assert registry.events == NO_EVENTS


def test_a_merge_names_the_surviving_and_the_subsumed_patient() -> None:
    """ITI TF-2 3.8.4.2: PID-3 survives, MRG-1 is subsumed."""
    registry = Registry(P100, P200)
    with served(registry.take) as ask:
        header, *rest = ask(merge(P100, P200))
    assert (header.split("|")[8], rest) == ("ACK^A40", ["MSA|AA|MSG00001"])
    assert registry.events == [PatientsMerged(surviving=P100, subsumed=P200)]


def test_a_survivor_can_be_subsumed_later() -> None:
    """ITI TF-2 3.8.4.2.3: merges form chains."""
    registry = Registry(P100, P200, P300)
    with served(registry.take) as ask:
        assert [ask(merge(P100, P200))[1], ask(merge(P300, P100))[1]] == ["MSA|AA|MSG00001"] * 2
    assert registry.merged == {P200: P100, P100: P300}


def test_several_messages_on_one_connection_are_answered_in_their_order() -> None:
    registry = Registry()
    sent = [admit().replace(b"MSG00001", f"M{number}".encode()) for number in range(20)]
    with served(registry.take) as ask:
        assert [ask(one)[1] for one in sent] == [f"MSA|AA|M{number}" for number in range(20)]


# --- identifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pid_3", "expected"),
    [
        ("p1^^^AFF&1.2.3.4&ISO", [cx("p1")]),
        ("p1^^^&1.2.3.4&ISO^PI", [cx("p1")]),
        ("p1^^^AFF", [cx("p1")]),
        ("p1^^^SECOND", ["p1^^^&1.2.3.5&ISO"]),
        ("p1^^^OTHERNAME&1.2.3.4&ISO", [cx("p1")]),
        ("p1^^^&1.2.3.4", [cx("p1")]),
        ("p1", [cx("p1")]),
        ("p1^^^^PI", [cx("p1")]),
        ("p1^^^&2.9.9&ISO", []),
        ("p1^^^UNKNOWN", []),
        ("p1^^^AFF&example.org&DNS", []),
        ("p1^^^&2.9.9&ISO~p2^^^AFF~p3^^^UNKNOWN", [cx("p2")]),
        ("p1^^^AFF~p2^^^SECOND", [cx("p1"), "p2^^^&1.2.3.5&ISO"]),
        ("p1^^^AFF~p1^^^&1.2.3.4&ISO", [cx("p1")]),
        ('""~p2^^^AFF', [cx("p2")]),
        ("p\\T\\1^^^AFF", [cx("p\\T\\1")]),
    ],
)
def test_the_assigning_authority_is_completed_and_ids_of_others_are_ignored(pid_3: str, expected: list[str]) -> None:
    """ITI TF-2 3.8.4.1.2.3, 3.8.4.1.3: `namespace&OID&ISO`, either half alone, or nothing; kept is `id^^^&OID&ISO`."""
    registry = Registry()
    with served(registry.take) as ask:
        assert ask(admit(pid_3))[1:] == ["MSA|AA|MSG00001"]
    assert registry.events == added(*expected)


def test_without_configured_authorities_every_oid_is_one_of_ours() -> None:
    registry = Registry()
    with served(registry.take, ()) as ask:
        assert ask(admit("p1^^^&2.7.8&ISO~p2^^^NAME"))[1:] == ["MSA|AA|MSG00001"]
        assert ask(admit("p1"))[2] == "ERR|PID^1^3^101"
    assert registry.events == added("p1^^^&2.7.8&ISO")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code", "place", "words"),
    [
        (merge(P100, P999), "AE", "MRG^1^1^204", "subsumed"),
        (merge(P999, P100), "AE", "PID^1^3^204", "surviving"),
        (merge(P100, P100), "AE", "PID^1^3^204", "itself"),
        (merge(P100, P300), "AE", "MRG^1^1^204", "has been merged"),
        (merge(P300, P100), "AE", "PID^1^3^204", "has been merged"),
        (merge(P200, P300), "AE", "MRG^1^1^204", "has been merged"),
        (merge("p100^^^&2.9.9&ISO", P200), "AE", "PID^1^3^204", "no identifier of this affinity domain"),
        (merge(P100, "p200^^^&2.9.9&ISO"), "AE", "MRG^1^1^204", "no identifier of this affinity domain"),
        (merge(P100, f"{P200}~{P300}"), "AE", "MRG^1^1^102", "2 identifiers"),
        (merge(f"{P100}~{P300}", P200), "AE", "PID^1^3^102", "2 identifiers"),
        (merge(P100, ""), "AE", "MRG^1^1^101", "MRG-1 is missing"),
        (merge("", P100), "AE", "PID^1^3^101", "PID-3 is missing"),
        (message("A40", f"PID|||{P100}"), "AE", "MRG^1^0^100", "segment MRG is missing"),
        (
            message("A40", f"PID|||{P100}", f"MRG|{P200}", f"PID|||{P200}", f"MRG|{P300}"),
            "AE",
            "PID^2^0^100",
            "2 times",
        ),
    ],
)
def test_a_merge_that_cannot_be_leaves_the_registry_unchanged(sent: bytes, code: str, place: str, words: str) -> None:
    """ITI TF-2 3.8.4.2.3: wrong authority, identical, already subsumed, not known; one pair in a message."""
    registry = Registry(P100, P200, P300)
    registry.take(PatientsMerged(surviving=P200, subsumed=P300))
    registry.events.clear()
    with served(registry.take) as ask:
        header, msa, err = ask(sent)
    assert header.split("|")[8] == "ACK^A40"
    assert msa.split("|")[:3] == ["MSA", code, "MSG00001"]
    assert words in msa.split("|")[3]
    assert err == f"ERR|{place}"
    assert (registry.events, registry.merged) == (NO_EVENTS, {P300: P200})


def test_the_negative_acknowledgement_of_the_standard_s_example() -> None:
    """An unknown subsumed patient: AE, and ERR-1 with MRG^1^1^204."""
    registry = Registry(P100)
    with served(registry.take) as ask:
        assert ask(merge(P100, P999)) == [
            "MSH|^~\\&|XDSREG|AFFDOM|ADT1|NORTH|20240102030406||ACK^A40|ACK00001|P|2.3.1",
            "MSA|AE|MSG00001|the subsumed patient 'p999\\S\\\\S\\\\S\\\\T\\1.2.3.4\\T\\ISO' is not known to this registry",
            "ERR|MRG^1^1^204",
        ]


HEADERS = [
    (HEADER.replace("{kind}", "ORU^R01"), "AR", "MSH^1^9^200", "ACK^R01"),
    (HEADER.replace("{kind}", "ADT"), "AR", "MSH^1^9^201", "ACK"),
    (HEADER.replace("{kind}", "ADT^A02"), "AR", "MSH^1^9^201", "ACK^A02"),
    (HEADER.replace("{kind}", "QBP^Q23"), "AR", "MSH^1^9^200", "ACK^Q23"),
    (HEADER.replace("{kind}", "ADT^<script>"), "AR", "MSH^1^9^201", "ACK"),
    (HEADER.replace("MSG00001", ""), "AE", "MSH^1^10^101", "ACK^A04"),
    (HEADER.replace("|P|", "|X|"), "AR", "MSH^1^11^202", "ACK^A04"),
    (HEADER.replace("|P|", "||"), "AR", "MSH^1^11^202", "ACK^A04"),
    (HEADER.replace("|2.3.1", "|3.0"), "AR", "MSH^1^12^203", "ACK^A04"),
    (HEADER.replace("|2.3.1", ""), "AR", "MSH^1^12^203", "ACK^A04"),
    (HEADER + "||||||KLINGON", "AE", "MSH^1^18^103", "ACK^A04"),
    (HEADER + "||||||8859/12", "AE", "MSH^1^18^103", "ACK^A04"),
]


@pytest.mark.parametrize(("header", "code", "place", "acknowledges"), HEADERS)
def test_a_header_that_is_not_supported_is_refused_with_its_field(
    header: str, code: str, place: str, acknowledges: str
) -> None:
    """HL7 v2.3.1 2.13.1, table 0357: AR for what a message is, AE for what it lacks."""
    registry = Registry()
    with served(registry.take) as ask:
        msh, msa, err = ask(message("A04", f"PID|||{P100}", header=header, kind="ADT^A04"))
    assert msh.split("|")[2:6] == ["XDSREG", "AFFDOM", "ADT1", "NORTH"]
    assert msh.split("|")[8] == acknowledges
    assert (msa.split("|")[1], err) == (code, f"ERR|{place}")
    assert msa.split("|")[3]
    assert registry.events == NO_EVENTS


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        (message("A04", "PV1||O"), "PID^1^0^100"),
        (message("A08", "PV1||O"), "PID^1^0^100"),
        (message("A04", "PID"), "PID^1^0^100"),
        (message("A04", "PID|1"), "PID^1^3^101"),
        (admit(""), "PID^1^3^101"),
        (admit('""'), "PID^1^3^101"),
        (admit("^^^&1.2.3.4&ISO"), "PID^1^3^101"),
        (admit("p1^^^AFF~" * 40), "PID^1^3^102"),
        (message("A04", f"PID|||{P100}", f"PID|||{P200}"), "PID^2^0^100"),
        (admit() + admit("p200^^^AFF").replace(b"PID", b"PIX"), "MSH^2^0^100"),
    ],
)
def test_a_message_without_what_it_must_have_is_refused_with_the_place(sent: bytes, place: str) -> None:
    """ITI TF-2 3.8.4.1.2: MSH, EVN, PID once, and in PID the field 3."""
    registry = Registry()
    with served(registry.take) as ask:
        _, msa, err = ask(sent)
    assert msa.startswith("MSA|AE|MSG00001|")
    assert err == f"ERR|{place}"
    assert registry.events == NO_EVENTS


def test_other_separators_are_refused_in_an_acknowledgement_that_is_whole() -> None:
    registry = Registry()
    sent = b"MSH#^~\\&#AD|T1#NORTH#XDSREG#AFFDOM#2024##ADT^A04#MSG|1#P#2.3.1\rPID###p1\r"
    with served(registry.take) as ask:
        msh, msa, err = ask(sent)
    assert msh.split("|")[4:6] == ["AD\\F\\T1", "NORTH"]
    assert msa.startswith("MSA|AR|MSG\\F\\1|the separators ")
    assert err == "ERR|MSH^1^2^102"
    assert registry.events == NO_EVENTS


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"hello", b"PID|||p1^^^AFF\r", b"MSH", bytes(range(256))])
def test_what_has_no_msh_is_rejected_without_a_control_id(sent: bytes) -> None:
    """HL7 v2.3.1 2.13.1: there is nothing to acknowledge but that it came. 0x0B begins a frame anew, so the last is cut."""
    registry = Registry()
    with served(registry.take) as ask:
        msh, msa, err = ask(sent.replace(b"\x1c\x0d", b""))
    assert msh == "MSH|^~\\&|||||20240102030406||ACK|ACK00001|P|2.3.1"
    assert msa == "MSA|AR||the message does not begin with the segment MSH"
    assert err == "ERR|MSH^1^1^100"


@pytest.mark.parametrize(
    ("problem", "code", "number"),
    [
        (ErrorCode.UNKNOWN_PATIENT_ID, "AE", "204"),
        (ErrorCode.PATIENT_ID_RECONCILIATION_ERROR, "AE", "204"),
        (ErrorCode.REGISTRY_METADATA_ERROR, "AE", "102"),
        (ErrorCode.REGISTRY_ERROR, "AE", "207"),
        (ErrorCode.REGISTRY_BUSY, "AR", "207"),
        (ErrorCode.REGISTRY_NOT_AVAILABLE, "AR", "207"),
        (ErrorCode.REGISTRY_OUT_OF_RESOURCES, "AR", "207"),
    ],
)
def test_each_refusal_of_the_registry_has_its_error_code(problem: ErrorCode, code: str, number: str) -> None:
    """HL7 table 0357: 204 unknown key identifier, 102 data type error, 207 application internal error."""

    def refuse(event: PatientEvent) -> None:
        raise fail(problem, "a | b ^ c & d ~ e \\ f\r\nZZZ|forged")

    with served(refuse) as ask:
        assert ask(admit())[1:] == [
            f"MSA|{code}|MSG00001|a \\F\\ b \\S\\ c \\T\\ d \\R\\ e \\E\\ fZZZ\\F\\forged",
            f"ERR|PID^1^3^{number}",
        ]


def test_every_problem_of_a_refusal_is_told() -> None:
    def refuse(event: PatientEvent) -> None:
        raise Failure([*fail("XDSRegistryError", "first").problems, *fail("XDSUnknownPatientId", "second").problems])

    with served(refuse) as ask:
        assert ask(admit())[1:] == ["MSA|AE|MSG00001|first; second", "ERR|PID^1^3^204"]


def test_what_nobody_foresaw_is_an_incident_that_only_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: PatientEvent) -> None:
        raise RuntimeError("secret of the house")

    with served(broken) as ask:
        _, msa, err = ask(admit())
    assert msa.startswith("MSA|AR|MSG00001|internal error; the log has it as incident ")
    assert "secret" not in msa
    assert err == "ERR|MSH^1^9^207"
    incident = next(record for record in caplog.records if record.exc_info)
    assert msa.rsplit(" ", 1)[1] in incident.getMessage()
    assert "secret of the house" in str(incident.exc_info)


# --- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_may_end_with_cr_lf_or_both(end: str) -> None:
    """HL7 demands CR; senders that write LF are understood, and answered with CR."""
    registry = Registry(P100, P200)
    with served(registry.take) as ask:
        assert ask(message("A04", f"PID|||{P300}", "PV1||O", end=end))[1:] == ["MSA|AA|MSG00001"]
        assert ask(message("A40", f"PID|||{P100}", f"MRG|{P200}", end=end))[1:] == ["MSA|AA|MSG00001"]
    assert registry.events == [*added(P300), PatientsMerged(surviving=P100, subsumed=P200)]


@pytest.mark.parametrize(
    ("named", "charset"),
    [("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1"), ("8859/15", "iso8859-15"), ("", "utf-8"), ("", "latin-1")],
)
def test_the_character_set_of_msh_18_is_understood(named: str, charset: str) -> None:
    """HL7 table 0211. A sender that names none and is not ASCII is taken for UTF-8, or else Latin-1."""
    registry = Registry()
    with served(registry.take) as ask:
        sent = message("A04", "PID|||jürgen^^^AFF||Müller", header=HEADER + f"||||||{named}", charset=charset)
        assert ask(sent)[1:] == ["MSA|AA|MSG00001"]
    assert registry.events == added(cx("jürgen"))


@pytest.mark.parametrize("named", ["ASCII", "UNICODE UTF-8"])
def test_a_message_that_is_not_in_its_character_set_is_refused(named: str) -> None:
    registry = Registry()
    sent = message("A04", "PID|||jürgen^^^AFF", header=HEADER + f"||||||{named}", charset="latin-1")
    with served(registry.take) as ask:
        _, msa, err = ask(sent)
    assert msa.startswith("MSA|AE|MSG00001|") and named in msa
    assert err == "ERR|MSH^1^18^102"
    assert registry.events == NO_EVENTS


@pytest.mark.parametrize(
    ("named", "charset", "answered"),
    [
        ("8859/1", "latin-1", "8859/1"),
        ("UNICODE UTF-8", "utf-8", "UNICODE UTF-8"),
        ("", "utf-8", "UNICODE UTF-8"),
        ("", "latin-1", "UNICODE UTF-8"),
    ],
)
def test_an_acknowledgement_names_its_character_set_where_it_is_not_ascii(
    named: str, charset: str, answered: str
) -> None:
    """HL7 v2.3.1 2.24.1.18: MSH-18 empty means ASCII."""
    header = HEADER.replace("NORTH", "SÜD") + f"||||||{named}"
    sent = message("A04", f"PID|||{P100}", header=header, charset=charset)
    reply = adt.answer(
        sent,
        feed=Registry().take,
        authorities=OURS,
        now=lambda: datetime(2024, 1, 2, tzinfo=UTC),
        new_control_id=lambda: "1",
    )
    fields = reply.decode({"8859/1": "latin-1"}.get(answered, "utf-8")).split("\r")[0].split("|")
    assert (fields[5], fields[17]) == ("SÜD", answered)


def test_a_unicode_line_separator_ends_no_segment() -> None:
    registry = Registry()
    header = HEADER.replace("NORTH", "NO\u2028R\x85TH")
    with served(registry.take) as ask:
        assert ask(message("A04", f"PID|||{P100}||A\u2028MRG|x", header=header))[1:] == ["MSA|AA|MSG00001"]
    assert registry.events == added(P100)


def test_the_log_has_control_ids_and_outcomes_and_nothing_of_the_patient(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xdsi.feeds")
    with served(Registry(P100).take) as ask:
        ask(admit())
        ask(merge(P100, P999))
        ask(admit(event="A99"))
    assert [record.getMessage() for record in caplog.records if "MSG" in record.getMessage()] == [
        "A04 MSG00001: AA",
        "A40 MSG00001: AE",
        "message MSG00001: AR",
    ]
    assert not any(word in caplog.text for word in ("p100", "p999", "Muster", "19700101"))
