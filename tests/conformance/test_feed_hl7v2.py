"""ITI-8 and ITI-64 end to end: a TCP client, a listener, and a registry with its database (ITI TF-2 3.8; XAD-PID supplement)."""

from __future__ import annotations

import itertools
import logging
import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.messages import submission
from feeds import adt
from feeds.adt import Authority
from feeds.listener import Listener
from feeds.mllp import FrameReader, frame
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register
from registry.iti64_link_change import change_link
from registry.patients import feed, list_patients
from registry.schema import upgrade
from registry.store import Store, open_engine
from schemas import rim
from xds.messages import Outcome
from xds.metadata import DocumentEntry, Submission
from xds.problems import Failure
from xds.queries import FindDocuments
from xds.values import Identifier
from xds.vocabulary import Status

OURS = (Authority(namespace="AFF", universal_id="1.2.3.4"), Authority(namespace="SECOND", universal_id="1.2.3.5"))
MOMENT = datetime(2024, 1, 2, 3, 4, 6, tzinfo=UTC)
HEADER = "MSH|^~\\&|ADT1|NORTH|XDSREG|AFFDOM|20240102030405||{kind}|MSG00001|P|2.3.1"
BOTH = (str(Status.APPROVED), str(Status.DEPRECATED))


def cx(number: str, authority: str = "1.2.3.4") -> Identifier:
    return Identifier(f"{number}^^^&{authority}&ISO")


P1, P2, P3, P4, GHOST = (cx(number) for number in ("p1", "p2", "p3", "p4", "ghost"))
L1, L2 = cx("l1", "2.5.6.7"), cx("l2", "2.5.6.7")


def new_uuid() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


class Domain:
    """A registry, the listener in front of it, and a patient identity source with one connection."""

    def __init__(self, directory: Path, authorities: tuple[Authority, ...] = OURS) -> None:
        engine = open_engine(f"sqlite:///{directory / f'{uuid.uuid4()}.sqlite'}")
        upgrade(engine)
        self.store = Store(engine)
        numbers = itertools.count(1)
        self.listener = Listener(
            partial(
                adt.answer,
                feed=feed(
                    self.store,
                    change_link=partial(change_link, store=self.store, now=lambda: MOMENT, new_uuid=new_uuid),
                ),
                authorities=authorities,
                now=lambda: MOMENT,
                new_control_id=lambda: f"ACK{next(numbers):05}",
            )
        )
        self.listener.start()
        self.socket = socket.create_connection((self.listener.host, self.listener.port), timeout=10)
        self._frames = FrameReader(max_message_bytes=100_000)
        self._received: list[bytes] = []

    def _register(self, made: Submission) -> Outcome:
        return register(made, store=self.store, now=lambda: MOMENT, new_uuid=new_uuid)

    def close(self) -> None:
        self.socket.close()
        self.listener.close()
        self.store.close()

    def reply(self) -> bytes:
        """The next acknowledgement."""
        while not self._received:
            data = self.socket.recv(4096)
            assert data, "the listener closed the connection"
            self._received += self._frames.receive_data(data)
        return self._received.pop(0)

    def ask(self, sent: bytes, charset: str = "utf-8") -> list[str]:
        """The segments of the acknowledgement."""
        self.socket.sendall(frame(sent))
        *segments, end = self.reply().decode(charset).split("\r")
        assert end == ""
        return segments

    def outcome(self, sent: bytes) -> tuple[str, str, str]:
        """MSA-1, MSA-3 and ERR-1."""
        _, msa, *err = self.ask(sent)
        fields = [*msa.split("|"), ""]
        assert len(err) <= 1
        return fields[1], fields[3], "".join(err).removeprefix("ERR|")

    @property
    def patients(self) -> dict[str, str | None]:
        """Each known patient, and the one that it was merged into."""
        return {str(one): None if into is None else str(into) for one, into in list_patients(self.store)}

    def know(self, *patients: Identifier) -> None:
        for one in patients:
            assert self.outcome(admit(one))[0] == "AA"

    def submit(self, patient_id: Identifier, source: Identifier = L1, documents: int = 1) -> Submission:
        made = submission(patient_id, documents=documents, registered=True)
        entries = tuple(replace(one, source_patient_id=source) for one in made.document_entries)
        made = replace(made, document_entries=entries)
        assert self._register(made).succeeded
        return made

    def refused_submission(self, patient_id: Identifier) -> list[tuple[str, str]]:
        with pytest.raises(Failure) as failure:
            self._register(submission(patient_id, registered=True))
        return [(str(one.code), one.context) for one in failure.value.problems]

    def documents(self, patient_id: Identifier, status: tuple[str, ...] = BOTH) -> list[DocumentEntry]:
        query = FindDocuments(patient_id=patient_id, status=status)
        found = list(rim.decode_fragments(stored_query(query, store=self.store).fragments))
        assert all(isinstance(one, DocumentEntry) for one in found)
        return [one for one in found if isinstance(one, DocumentEntry)]


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    made = Domain(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """One domain for everything that is refused: P3 was merged into P2, and P1 and P4 are known."""
    made = Domain(tmp_path_factory.mktemp("standing"))
    made.know(P1, P2, P3, P4)
    assert made.outcome(merge(P2, P3))[0] == "AA"
    yield made
    made.close()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """One domain for many examples, each with patients of its own."""
    made = Domain(tmp_path_factory.mktemp("busy"))
    yield made
    made.close()


def message(
    event: str, *segments: str, header: str = HEADER, kind: str | None = None, end: str = "\r", charset: str = "utf-8"
) -> bytes:
    lines = [header.format(kind=kind or f"ADT^{event}"), f"EVN|{event}|20240102030405", *segments]
    return "".join(line + end for line in lines).encode(charset)


def admit(pid_3: str, event: str = "A04") -> bytes:
    return message(event, f"PID|||{pid_3}||Muster^Ann||19700101|F", "PV1||N")


def merge(pid_3: str, mrg_1: str) -> bytes:
    return message("A40", f"PID|||{pid_3}||Muster^Ann", f"MRG|{mrg_1}", kind="ADT^A40^ADT_A39")


def relink(pid_3: str, mrg_1: str) -> bytes:
    header = HEADER.replace("2.3.1", "2.5")
    return message("A43", f"PID|||{pid_3}", f"MRG|{mrg_1}", kind="ADT^A43^ADT_A43", header=header)


# --- acknowledgements -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "structure"),
    [("A01", ""), ("A01", "^ADT_A01"), ("A04", ""), ("A04", "^ADT_A01"), ("A05", ""), ("A08", ""), ("A08", "^ADT_A01")],
)
def test_each_event_is_acknowledged_field_by_field(standing: Domain, event: str, structure: str) -> None:
    """ITI TF-2x C.2.3: sender and receiver exchanged, ACK^event, a new control id, MSH-11 and MSH-12 as they came."""
    sent = message(event, f"PID|||{P1}", kind=f"ADT^{event}{structure}")
    msh, msa = (segment.split("|") for segment in standing.ask(sent))
    control_id = msh[9]
    assert msh == [
        "MSH",
        "^~\\&",
        "XDSREG",
        "AFFDOM",
        "ADT1",
        "NORTH",
        "20240102030406",
        "",
        f"ACK^{event}",
        control_id,
        "P",
        "2.3.1",
    ]
    assert msa == ["MSA", "AA", "MSG00001"]
    assert control_id != standing.ask(sent)[0].split("|")[9]


@pytest.mark.parametrize(("processing", "version"), [("P", "2.3.1"), ("T", "2.5"), ("D", "2.3"), ("P^A", "2.5.1^DEU")])
def test_processing_id_and_version_go_back_as_they_came(standing: Domain, processing: str, version: str) -> None:
    header = HEADER.replace("|P|2.3.1", f"|{processing}|{version}")
    msh, msa = standing.ask(message("A04", f"PID|||{P1}", header=header))
    assert (msh.split("|")[10:], msa) == ([processing, version], "MSA|AA|MSG00001")


def test_a_merge_and_a_link_change_are_acknowledged_field_by_field(domain: Domain) -> None:
    domain.know(P1, P2)
    assert domain.ask(merge(P1, P2)) == [
        "MSH|^~\\&|XDSREG|AFFDOM|ADT1|NORTH|20240102030406||ACK^A40|ACK00003|P|2.3.1",
        "MSA|AA|MSG00001",
    ]
    assert domain.ask(relink(f"{P1}~{L2}", f"{P1}~{L1}")) == [
        "MSH|^~\\&|XDSREG|AFFDOM|ADT1|NORTH|20240102030406||ACK^A43|ACK00004|P|2.5",
        "MSA|AA|MSG00001",
    ]


def test_the_standard_s_negative_acknowledgement_is_given_by_a_real_registry(standing: Domain) -> None:
    msh, msa, err = standing.ask(merge(P1, GHOST))
    assert msh.split("|")[8] == "ACK^A40"
    assert msa.split("|")[:3] == ["MSA", "AE", "MSG00001"]
    assert "subsumed patient 'ghost\\S\\\\S\\\\S\\\\T\\1.2.3.4\\T\\ISO' is not known" in msa
    assert err == "ERR|MRG^1^1^204"


# --- patients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["A01", "A04", "A05"])
def test_only_after_its_admission_a_patient_can_have_documents(domain: Domain, event: str) -> None:
    """ITI TF-2 3.8.4.1.3, 3.42.4.1.3.3.1."""
    assert [code for code, _ in domain.refused_submission(P1)] == ["XDSUnknownPatientId"]
    assert domain.outcome(admit(P1, event)) == ("AA", "", "")
    domain.submit(P1)
    assert [one.patient_id for one in domain.documents(P1)] == [P1]


def test_an_update_makes_no_patient_known(domain: Domain) -> None:
    """ITI TF-2 3.8.4.1.3: A08 says nothing about ids."""
    assert domain.outcome(admit(P1, "A08")) == ("AA", "", "")
    assert domain.patients == {}
    assert domain.refused_submission(P1)


def test_a_known_patient_told_again_is_acknowledged_and_nothing_changes(domain: Domain) -> None:
    domain.know(P1)
    before = domain.patients
    assert [domain.outcome(admit(P1, event)) for event in ("A01", "A04", "A05")] == [("AA", "", "")] * 3
    assert domain.patients == before == {P1: None}


def test_telling_of_a_subsumed_patient_again_does_not_undo_the_merge(domain: Domain) -> None:
    """ITI TF-2 3.8.4.2.3: a merge is for good."""
    domain.know(P1, P2)
    domain.outcome(merge(P1, P2))
    domain.ask(admit(P2))
    assert domain.patients == {P1: None, P2: P1}
    assert [code for code, _ in domain.refused_submission(P2)] == ["XDSUnknownPatientId"]


@pytest.mark.parametrize(
    ("pid_3", "known"),
    [
        pytest.param("x^^^AFF&1.2.3.4&ISO", [cx("x")], id="namespace and OID"),
        pytest.param("x^^^AFF", [cx("x")], id="rule 1: namespace alone"),
        pytest.param("x^^^SECOND", [cx("x", "1.2.3.5")], id="rule 1: namespace of the second authority"),
        pytest.param("x^^^&1.2.3.4&ISO", [cx("x")], id="rule 1: OID alone"),
        pytest.param("x", [cx("x")], id="rule 2: no authority"),
        pytest.param("x^^^", [cx("x")], id="rule 2: an empty authority"),
        pytest.param("x^^^^MR", [cx("x")], id="rule 2: an empty authority before a type"),
        pytest.param("x^^^&2.9.9&ISO", [], id="rule 3: another OID"),
        pytest.param("x^^^OTHER", [], id="rule 3: another namespace"),
        pytest.param("x^^^&2.9.9&ISO~y^^^AFF~z^^^OTHER", [cx("y")], id="rule 3: one of ours among others"),
        pytest.param("x^1^M11^AFF&1.2.3.4&ISO^MR^NORTH", [cx("x")], id="rule 4: what else a CX has"),
        pytest.param("x^^^AFF~x^^^&1.2.3.4&ISO~x", [cx("x")], id="rule 5: the same three times"),
        pytest.param("x^^^AFF~y^^^SECOND", [cx("x"), cx("y", "1.2.3.5")], id="rule 6: two authorities"),
        pytest.param("~x^^^AFF~", [cx("x")], id="empty repetitions"),
    ],
)
def test_the_registry_keeps_the_completed_ids_of_its_own_authorities(
    domain: Domain, pid_3: str, known: list[Identifier]
) -> None:
    """ITI TF-2 3.8.4.1.2.3 and 3.8.4.1.3."""
    assert domain.outcome(admit(pid_3)) == ("AA", "", "")
    assert domain.patients == dict.fromkeys(map(str, known))
    for one in known:
        domain.submit(one)


@pytest.mark.parametrize(
    ("pid_3", "mrg_1"), [("p1^^^AFF", "p2"), ("p1", f"{L1}~p2^^^AFF"), (f"p1^^^OTHER~{P1}", f"p2^1^M11^{P2[5:]}^MR")]
)
def test_a_merge_completes_authorities_too(domain: Domain, pid_3: str, mrg_1: str) -> None:
    domain.know(P1, P2)
    assert domain.outcome(merge(pid_3, mrg_1)) == ("AA", "", "")
    assert domain.patients == {P1: None, P2: P1}


def test_an_escaped_delimiter_in_an_id_stays_escaped_as_in_the_metadata(domain: Domain) -> None:
    """HL7 v2.3.1 2.10: `\\T\\` is an ampersand that delimits nothing."""
    escaped = Identifier.of("a&b|c", "1.2.3.4")
    assert escaped == cx("a\\T\\b\\F\\c")
    assert domain.outcome(admit(escaped)) == ("AA", "", "")
    domain.submit(escaped)
    assert domain.patients == {str(escaped): None}


@pytest.mark.parametrize("surviving", [True, False])
@pytest.mark.parametrize("number", ["a\\T\\b", "o'hara", "o\"h'ara", "jörg", "\u00a0x"])
def test_the_unknown_one_of_a_merge_is_found_whatever_its_id_looks_like(
    standing: Domain, number: str, surviving: bool
) -> None:
    """ERR-1 names PID-3 for the surviving and MRG-1 for the subsumed."""
    sent = merge(cx(number), P1) if surviving else merge(P1, cx(number))
    code, _, place = standing.outcome(sent)
    assert (code, place) == ("AE", "PID^1^3^204" if surviving else "MRG^1^1^204")


def test_escapes_and_delimiters_in_other_fields_do_no_harm(domain: Domain) -> None:
    pid = f"PID|||{P1}||O\\T\\Hara^Ann \\X0D\\\\F\\ \\.br\\ \\H\\x\\N\\^^^&&~Second^Name||19700101|F||\\"
    assert domain.outcome(message("A04", pid, "PV1||N", "ZZZ|\\|~^&")) == ("AA", "", "")
    assert domain.patients == {P1: None}


# --- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_end_with_cr_lf_or_both(domain: Domain, end: str) -> None:
    for one in (P1, P2):
        assert domain.outcome(message("A04", f"PID|||{one}", "PV1||O", end=end)) == ("AA", "", "")
    assert domain.outcome(message("A40", f"PID|||{P1}", f"MRG|{P2}", end=end)) == ("AA", "", "")
    assert domain.patients == {P1: None, P2: P1}


@pytest.mark.parametrize(
    ("named", "charset"),
    [("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1"), ("", "utf-8"), ("", "latin-1"), ("8859/1~8859/2", "latin-1")],
)
def test_an_id_is_the_same_in_every_character_set(domain: Domain, named: str, charset: str) -> None:
    """HL7 table 0211, MSH-18; the registry knows text and not bytes."""
    header = HEADER + f"||||||{named}"
    sent = message("A04", "PID|||jürgen^^^AFF||Müller^Jörg", header=header, charset=charset)
    assert domain.outcome(sent) == ("AA", "", "")
    assert domain.patients == {cx("jürgen"): None}
    domain.submit(cx("jürgen"))


@pytest.mark.parametrize(("named", "charset"), [("8859/1", "latin-1"), ("UNICODE UTF-8", "utf-8")])
def test_a_refusal_that_names_the_id_is_in_the_character_set_of_the_request(
    standing: Domain, named: str, charset: str
) -> None:
    sent = message(
        "A40", f"PID|||{P1}", f"MRG|{cx('jürgen')}", header=HEADER + f"||||||{named}", charset=charset, kind="ADT^A40"
    )
    msh, msa, err = standing.ask(sent, charset)
    assert msh.split("|")[17] == named
    assert "jürgen" in msa
    assert err == "ERR|MRG^1^1^204"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "place", "words"),
    [
        (merge(P1, GHOST), "MRG^1^1^204", "is not known"),
        (merge(GHOST, P1), "PID^1^3^204", "is not known"),
        (merge(GHOST, cx("ghost2")), "PID^1^3^204", "is not known"),
        (merge(P1, P1), "PID^1^3^204", "into itself"),
        (merge(GHOST, GHOST), "PID^1^3^204", "into itself"),
        (merge(P1, P3), "MRG^1^1^204", "has been merged into"),
        (merge(P2, P3), "MRG^1^1^204", "has been merged into"),
        (merge(P3, P1), "PID^1^3^204", "has been merged into"),
        (merge(cx("p1", "2.9.9"), P4), "PID^1^3^204", "no identifier of this affinity domain"),
        (merge(P1, cx("p4", "2.9.9")), "MRG^1^1^204", "no identifier of this affinity domain"),
        (merge(P1, "p4^^^OTHER"), "MRG^1^1^204", "no identifier of this affinity domain"),
        (merge(P1, f"{P2}~{P4}"), "MRG^1^1^102", "2 identifiers"),
        (merge(f"{P1}~{P2}", P4), "PID^1^3^102", "2 identifiers"),
        (merge(P1, ""), "MRG^1^1^101", "MRG-1 is missing"),
        (merge("", P1), "PID^1^3^101", "PID-3 is missing"),
        (merge(P1, '""'), "MRG^1^1^101", "MRG-1 is missing"),
        (message("A40", f"PID|||{P1}"), "MRG^1^0^100", "MRG is missing"),
        (message("A40", f"MRG|{P4}"), "PID^1^0^100", "PID is missing"),
        (message("A40", f"PID|||{P1}", f"MRG|{P4}", f"MRG|{P2}"), "MRG^2^0^100", "2 times"),
        (relink(f"{GHOST}~{L1}", f"{P1}~{L1}"), "PID^1^3^204", "is not known"),
        (relink(f"{P3}~{L1}", f"{P1}~{L1}"), "PID^1^3^204", "has been merged into"),
        (relink(L1, f"{P1}~{L1}"), "PID^1^3^204", "no identifier of this affinity domain"),
        (relink(f"{P2}~{L1}", P1), "MRG^1^1^204", "of a local authority"),
        (admit(""), "PID^1^3^101", "PID-3 is missing"),
        (admit("^^^AFF&1.2.3.4&ISO"), "PID^1^3^101", "PID-3 is missing"),
        (message("A04", "PV1||O"), "PID^1^0^100", "PID is missing"),
        (message("A01", "PID"), "PID^1^0^100", "PID is missing"),
        (message("A05", "PID|1|2"), "PID^1^3^101", "PID-3 is missing"),
        (admit("~".join(f"x{n}^^^AFF" for n in range(33))), "PID^1^3^102", "33 repetitions"),
        (admit(cx("x" * 250)), "PID^1^3^102", "256"),
        (admit("a\x01b^^^AFF"), "PID^1^3^102", "no text"),
        (admit("a\x00b^^^AFF"), "PID^1^3^102", "no text"),
    ],
)
def test_what_is_refused_is_ae_with_its_place_and_changes_nothing(
    standing: Domain, sent: bytes, place: str, words: str
) -> None:
    """ITI TF-2 3.8.4.1, 3.8.4.2.3; HL7 table 0357."""
    before = standing.patients
    code, reason, err = standing.outcome(sent)
    assert (code, err) == ("AE", place)
    assert words in reason
    assert standing.patients == before
    assert before == {P1: None, P2: None, P3: P2, P4: None}


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "acknowledges"),
    [
        ("{kind}", "ORU^R01", "AR", "MSH^1^9^200", "ACK^R01"),
        ("{kind}", "QBP^Q23", "AR", "MSH^1^9^200", "ACK^Q23"),
        ("{kind}", "", "AR", "MSH^1^9^200", "ACK"),
        ("{kind}", "ADT", "AR", "MSH^1^9^201", "ACK"),
        ("{kind}", "ADT^A02", "AR", "MSH^1^9^201", "ACK^A02"),
        ("{kind}", "ADT^A24^ADT_A24", "AR", "MSH^1^9^201", "ACK^A24"),
        ("|MSG00001|", "||", "AE", "MSH^1^10^101", "ACK^A04"),
        ("|P|", "|X|", "AR", "MSH^1^11^202", "ACK^A04"),
        ("|P|", "||", "AR", "MSH^1^11^202", "ACK^A04"),
        ("2.3.1", "3.0", "AR", "MSH^1^12^203", "ACK^A04"),
        ("2.3.1", "", "AR", "MSH^1^12^203", "ACK^A04"),
        ("2.3.1", "2.3.1||||||KLINGON", "AE", "MSH^1^18^103", "ACK^A04"),
        ("2.3.1", "2.3.1||||||8859/99", "AE", "MSH^1^18^103", "ACK^A04"),
        ("^~\\&", "^~\\#", "AR", "MSH^1^2^102", "ACK^A04"),
    ],
)
def test_a_header_that_is_not_supported_is_refused_with_its_field(
    standing: Domain, old: str, new: str, code: str, place: str, acknowledges: str
) -> None:
    """ITI TF-2x C.2.3: AR for type, event, processing id and version; AE for what is missing or no value of its table."""
    before = standing.patients
    header = HEADER.replace(old, new)
    msh, msa, err = standing.ask(message("A04", f"PID|||{GHOST}", header=header, kind="ADT^A04"))
    assert msh.split("|")[2:6] == ["XDSREG", "AFFDOM", "ADT1", "NORTH"]
    assert msh.split("|")[8] == acknowledges
    assert msa.split("|")[1:3] == [code, "" if "MSG" in old else "MSG00001"]
    assert msa.split("|")[3]
    assert err == f"ERR|{place}"
    assert standing.patients == before


@pytest.mark.parametrize("named", ["ASCII", "UNICODE UTF-8"])
def test_bytes_that_are_not_in_the_named_character_set_are_refused(standing: Domain, named: str) -> None:
    before = standing.patients
    sent = message("A04", "PID|||jürgen^^^AFF", header=HEADER + f"||||||{named}", charset="latin-1")
    code, reason, place = standing.outcome(sent)
    assert (code, place) == ("AE", "MSH^1^18^102")
    assert named in reason
    assert standing.patients == before


@pytest.mark.parametrize("sent", [b"", b"\r", b"hello", b"EVN|A04\rMSH|^~\\&", b"MSH", b"msh|^~\\&|"])
def test_what_has_no_msh_is_rejected_and_the_connection_goes_on(standing: Domain, sent: bytes) -> None:
    msh, msa, err = standing.ask(sent)
    assert msh.split("|")[8] == "ACK"
    assert msa.startswith("MSA|AR||")
    assert err == "ERR|MSH^1^1^100"
    assert standing.outcome(admit(P1)) == ("AA", "", "")


# --- merges -----------------------------------------------------------------------------------------------------------


def test_after_a_merge_queries_for_the_survivor_find_both_patients_documents(domain: Domain) -> None:
    """ITI TF-2 3.8.4.2.3, 3.18.4.1.2.3.8: patientId is the survivor's, sourcePatientId stays."""
    domain.know(P1, P2)
    first, second = domain.submit(P1, L1), domain.submit(P2, L2)
    assert domain.outcome(merge(P1, P2)) == ("AA", "", "")
    assert domain.documents(P2) == []
    found = {one.unique_id: (one.patient_id, one.source_patient_id) for one in domain.documents(P1)}
    assert found == {
        first.document_entries[0].unique_id: (P1, L1),
        second.document_entries[0].unique_id: (P1, L2),
    }


def test_after_a_merge_a_submission_for_the_subsumed_patient_is_refused(domain: Domain) -> None:
    domain.know(P1, P2)
    domain.outcome(merge(P1, P2))
    problems = domain.refused_submission(P2)
    assert problems and {code for code, _ in problems} == {"XDSUnknownPatientId"}
    assert domain.documents(P1) == []
    domain.submit(P1)
    assert len(domain.documents(P1)) == 1


def test_a_chain_of_merges_ends_at_the_last_survivor(domain: Domain) -> None:
    domain.know(P1, P2, P3)
    for one in (P1, P2, P3):
        domain.submit(one)
    assert domain.outcome(merge(P2, P1))[0] == domain.outcome(merge(P3, P2))[0] == "AA"
    assert [len(domain.documents(one)) for one in (P1, P2, P3)] == [0, 0, 3]
    assert all(one.patient_id == P3 for one in domain.documents(P3))
    assert [bool(domain.refused_submission(one)) for one in (P1, P2)] == [True, True]


def test_a_refused_merge_moves_no_document(domain: Domain) -> None:
    domain.know(P1, P2)
    domain.submit(P2)
    before = domain.documents(P2)
    assert domain.outcome(merge(GHOST, P2))[0] == "AE"
    assert len(before) == 1
    assert domain.documents(P2) == before


NUMBERS = st.sampled_from(["a", "b", "c", "d", "e"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(told=st.lists(st.one_of(st.tuples(NUMBERS), st.tuples(NUMBERS, NUMBERS)), min_size=3, max_size=12))
def test_any_sequence_of_admissions_and_merges_ends_as_the_standard_says(
    busy: Domain, told: list[tuple[str, ...]]
) -> None:
    """ITI TF-2 3.8.4.2.3 as a model: who is known, who stands for whom, and whose documents are found where."""
    prefix = uuid.uuid4().hex
    ids = {number: cx(prefix + number) for number in "abcde"}
    stands_for: dict[str, str] = {}
    for one in told:
        if len(one) == 1:
            assert busy.outcome(admit(ids[one[0]])) == ("AA", "", "")
            if one[0] not in stands_for:
                stands_for[one[0]] = one[0]
                busy.submit(ids[one[0]])
            continue
        surviving, subsumed = one
        active = [stands_for.get(number) == number for number in one]
        code, _, place = busy.outcome(merge(ids[surviving], ids[subsumed]))
        if surviving == subsumed or not active[0]:
            assert (code, place) == ("AE", "PID^1^3^204")
        elif not active[1]:
            assert (code, place) == ("AE", "MRG^1^1^204")
        else:
            assert (code, place) == ("AA", "")
            stands_for = {a: surviving if into == subsumed else into for a, into in stands_for.items()}
    assert {one: into for one, into in busy.patients.items() if one.startswith(prefix)} == {
        ids[one]: None if one == into else ids[into] for one, into in stands_for.items()
    }
    found = {number: len(busy.documents(one)) for number, one in ids.items()}
    assert found == {number: list(stands_for.values()).count(number) for number in ids}


# --- link changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old"),
    [((P2, L1), (P1, L1)), ((P2, L2), (P1, L1))],
    ids=["link change", "merge over XAD-PIDs"],
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_link_change_moves_the_entries_of_one_local_id(
    domain: Domain, new: tuple[str, str], old: tuple[str, str], order: int
) -> None:
    """XAD-PID supplement, conformance test 16101b: new versions for the new patient, the old ones Deprecated."""
    domain.know(P1, P2)
    moved, stays = domain.submit(P1, L1, documents=2), domain.submit(P1, cx("other", "2.5.6.7"))
    assert domain.outcome(relink("~".join(new[::order]), "~".join(old[::order]))) == ("AA", "", "")
    at_new = domain.documents(P2)
    assert {one.unique_id for one in at_new} == {one.unique_id for one in moved.document_entries}
    assert {(one.patient_id, one.source_patient_id, one.version) for one in at_new} == {(*new, "2")}
    assert {one.availability_status for one in at_new} == {Status.APPROVED}
    approved = domain.documents(P1, (str(Status.APPROVED),))
    assert [one.unique_id for one in approved] == [stays.document_entries[0].unique_id]
    deprecated = domain.documents(P1, (str(Status.DEPRECATED),))
    assert sorted(one.logical_id or "" for one in deprecated) == sorted(one.logical_id or "" for one in at_new)


def test_a_merge_of_local_ids_inside_one_patient_changes_the_source_patient_id(domain: Domain) -> None:
    domain.know(P1)
    domain.submit(P1, L1)
    assert domain.outcome(relink(f"{P1}~{L2}", f"{P1}~{L1}")) == ("AA", "", "")
    (found,) = domain.documents(P1, (str(Status.APPROVED),))
    assert (found.source_patient_id, found.version) == (L2, "2")


def test_a_repeated_link_change_is_acknowledged_and_changes_nothing(domain: Domain) -> None:
    domain.know(P1, P2)
    domain.submit(P1, L1)
    sent = relink(f"{P2}~{L1}", f"{P1}~{L1}")
    assert domain.outcome(sent) == ("AA", "", "")
    before = domain.documents(P1), domain.documents(P2)
    assert domain.outcome(sent) == ("AA", "", "")
    assert (domain.documents(P1), domain.documents(P2)) == before
    assert [len(one) for one in before] == [1, 1]


def test_a_link_change_to_an_unknown_patient_moves_nothing(domain: Domain) -> None:
    domain.know(P1)
    domain.submit(P1, L1)
    before = domain.documents(P1)
    code, _, place = domain.outcome(relink(f"{GHOST}~{L1}", f"{P1}~{L1}"))
    assert (code, place) == ("AE", "PID^1^3^204")
    assert domain.documents(P1) == before
    assert len(before) == 1


@pytest.mark.parametrize("number", ["l\x012", "l\x002", "l\ufffe2", "l" * 250])
def test_a_link_change_cannot_make_metadata_that_xml_or_the_standard_does_not_allow(
    domain: Domain, number: str
) -> None:
    """XML 1.0 2.2; ITI TF-3 Table 4.2.3.1.7-2: at most 256 characters. What is stored must stay readable."""
    domain.know(P1, P2)
    domain.submit(P1, L1)
    before = domain.documents(P1)
    code, _, place = domain.outcome(relink(f"{P2}~{cx(number, '2.5.6.7')}", f"{P1}~{L1}"))
    assert (code, place) == ("AE", "PID^1^3^204")
    assert domain.documents(P1) == before
    assert domain.documents(P2) == []


@pytest.mark.parametrize("number", ["p\ufffe2", "p\uffff2"])
def test_a_patient_id_that_no_xml_can_hold_never_becomes_known(domain: Domain, number: str) -> None:
    """XML 1.0 2.2: a survivor of that name would make every answer about its documents unreadable."""
    assert domain.outcome(admit(cx(number)))[::2] == ("AE", "PID^1^3^102")
    assert domain.patients == {}


# --- without authorities, and the log ---------------------------------------------------------------------------------


def test_without_configured_authorities_every_oid_is_one_of_ours_and_a_bare_id_is_refused(tmp_path: Path) -> None:
    made = Domain(tmp_path, ())
    try:
        assert made.outcome(admit("x^^^&2.8.9&ISO~y^^^NAME")) == ("AA", "", "")
        code, _, place = made.outcome(admit("x"))
        assert (code, place) == ("AE", "PID^1^3^101")
        assert made.patients == {cx("x", "2.8.9"): None}
    finally:
        made.close()


def test_the_log_tells_nothing_of_patients(domain: Domain, caplog: pytest.LogCaptureFixture) -> None:
    """House rule 7: message ids, counts, outcomes."""
    caplog.set_level(logging.DEBUG)
    domain.know(P1, P2)
    domain.submit(P1, L1)
    for sent in (
        merge(P1, GHOST),
        merge(P1, P2),
        relink(f"{P1}~{L2}", f"{P1}~{L1}"),
        admit("a\x01b^^^AFF"),
        b"PID|||p1",
    ):
        domain.ask(sent)
    assert [record.getMessage() for record in caplog.records if record.name == "xdsi.feeds"][-6:] == [
        "A04 MSG00001: AA",
        "A40 MSG00001: AE",
        "A40 MSG00001: AA",
        "A43 MSG00001: AA",
        "A04 MSG00001: AE",
        "message : AR",
    ]
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert not any(word in told for word in ("p1^", "p2^", "ghost", "l1^", "l2^", "Muster", "19700101", "1.2.3.4"))
