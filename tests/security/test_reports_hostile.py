"""Hostile report senders: what they send is bounded, refused by name, and leaves nothing stored."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.mllp import frame
from feeds.reports import observations
from tests.ris import BOTH, PDF, Ris, Site, embedded, mdm, msh, order, oru, reporting, site, text, txa
from xds.values import Identifier

LIMIT_BYTES = 8 * 1024 * 1024
CDA = b'<ClinicalDocument xmlns="urn:hl7-org:v3">%b</ClinicalDocument>'


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(reporting(tmp_path_factory.mktemp("reports"), message_bytes=LIMIT_BYTES, connections=4)) as made:
        yield made


@pytest.fixture(scope="module")
def patient(here: Site) -> Identifier:
    return here.patient()


def ed(value: str) -> str:
    return f"OBX|1|ED|1^Report||{value}||||||F"


def cda(content: bytes) -> str:
    return embedded(content, "^text^xml")


GOOD = base64.b64encode(PDF).decode()
REFUSED = [
    # What the message is.
    ([order()] + ["OBX|1|TX|1||x||||||F"] * 20_001, "the segment OBX is there more than 20000 times", "AE"),
    ([order(str(n)) for n in range(101)], "the segment OBR is there more than 100 times", "AE"),
    ([order(), "ZDS|1.2" + " " * 20_000], "the segment ZDS is longer than the limit of 16384 characters", "AR"),
    (["\r" * 50_000], "segments; the limit is 40000", "AR"),
    ([order(), "PID|2||P2^^^AFF", *text("x")], "the segment PID is there more than 1 times; once is right", "AE"),
    ([order(), *text("x"), msh("ORU^R01"), order()], "the frame has a second segment MSH", "AE"),
    (text("x"), "the segment OBR is missing", "AE"),
    ([order()], "the message has no report: no OBX holds a text or a document", "AE"),
    ([order(), *text("x"), order(), *text("y")], "two reports of the message have the same number", "AE"),
    ([order("", accession="").replace("O77", ""), *text("x")], "the report has no number (OBR-3 or OBR-2)", "AE"),
    ([order(status="Q"), *text("x")], "the status 'Q' (OBR-25) is not known", "AE"),
    ([order(), "ZDS|../../etc/passwd", *text("x")], "the Study Instance UID '../../etc/passwd' is no UID", "AE"),
    ([order().replace("O77^RIS", "~".join(["1"] * 40)), *text("x")], "has more than the limit of 32 repetitions", "AE"),
    # What its documents are.
    ([order(), ed(f"^application^pdf^Base64^{GOOD[:-1]}")], "OBX-5 is not Base64 as it says", "AE"),
    ([order(), ed(f"^application^pdf^Base64^{GOOD[:9]}!{GOOD[9:]}")], "OBX-5 is not Base64 as it says", "AE"),
    ([order(), ed(f"^application^pdf^Base64^{GOOD}=AAAA")], "OBX-5 is not Base64 as it says", "AE"),
    ([order(), ed(f"^application^pdf^Base64^{GOOD}\xe4")], "OBX-5 is not Base64 as it says", "AE"),
    ([order(), ed("^application^pdf^Hex^ABC")], "OBX-5 is not Hex as it says", "AE"),
    ([order(), ed("^application^pdf^Quoted^ABC")], "the encoding 'Quoted' in OBX-5 is none of A, Hex, Base64", "AE"),
    ([order(), ed("^application^pdf^Base64")], "OBX-5 of type ED has 4 components", "AE"),
    (
        [order(), ed("^application^pdf^Base64^" + base64.b64encode(b"MZ\x90").decode())],
        "has not the beginning of a PDF",
        "AE",
    ),
    ([order(), embedded(b"\x89PNG", "^image^png")], "OBX-5 is 'image/png'; text, PDF and CDA are supported", "AE"),
    ([order(), embedded(PDF), embedded(PDF)], "the report has 2 documents (PDF, OBX-5); one is right", "AE"),
    ([order(), *[embedded(PDF)] * 9], "the report has 9 observations of type ED; the limit is 8", "AE"),
    ([order(), "OBX|1|RP|1^Report||http://127.0.0.1/x^RIS^application^pdf||||||F"], "which is not followed", "AE"),
    ([order(), cda(b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + CDA % b"&a;")], "has a document type declaration", "AE"),
    (
        [order(), cda(b"\xef\xbb\xbf<?xml version='1.0'?><!-- --><!DOCTYPE x>" + CDA % b"")],
        "document type declaration",
        "AE",
    ),
    ([order(), cda(CDA % (b"<a>" * 150 + b"</a>" * 150))], "nested deeper than the limit of 100 elements", "AE"),
    ([order(), cda(CDA % (b"<a/>" * 1_000_001))], "more than the limit of 1000000 tags", "AE"),
    ([order(), cda(b"<ClinicalDocument>")], "OBX-5 cannot be read as CDA", "AE"),
    ([order(), cda(b"<ClinicalDocument/>")], "no ClinicalDocument of urn:hl7-org:v3", "AE"),
]


@pytest.mark.parametrize(("segments", "reason", "code"), REFUSED, ids=[reason for _, reason, _ in REFUSED])
def test_what_cannot_be_a_report_is_refused_by_name(
    here: Site, patient: Identifier, segments: list[str], reason: str, code: str
) -> None:
    said, told, place = here.ris.outcome(oru(patient, *segments))
    assert (said, reason in told) == (code, True), told
    assert re.fullmatch(r"[A-Z]{3}\^[0-9]+\^[0-9]+\^[0-9]{3}", place)
    assert here.entries(patient, BOTH) == []


@pytest.mark.parametrize(
    ("message", "reason", "place"),
    [
        (
            mdm("T01", Identifier("p")),
            "the event 'T01' is not supported; T02, T04, T06, T08, T10, T11 are",
            "MSH^1^9^201",
        ),
        (
            oru(Identifier("p"), head=msh("ADT^A04")),
            "the message type 'ADT' is not supported; ORU, MDM are",
            "MSH^1^9^200",
        ),
        ("hello", "the message does not begin with the segment MSH", "MSH^1^1^100"),
    ],
)
def test_other_messages_are_rejected(here: Site, message: str, reason: str, place: str) -> None:
    assert here.ris.outcome(message) == ("AR", reason, place)


def test_a_document_without_a_number_or_a_txa_is_refused(here: Site, patient: Identifier) -> None:
    assert here.ris.outcome(mdm("T02", patient, *text("x")))[1:] == ("the segment TXA is missing", "TXA^1^0^100")
    nameless = txa("").replace("F88", "").replace("O77", "")
    assert here.ris.outcome(mdm("T02", patient, nameless, *text("x")))[2] == "TXA^1^12^101"


def test_a_patient_without_an_id_that_is_known_is_refused(here: Site, patient: Identifier) -> None:
    sent = oru(patient, order(), *text("x"))
    for pid_3, code in (
        ("", "101"),
        ('""', "101"),
        ("12^^^^SS", "101"),
        ("1^^^AFF~2^^^AFF", "102"),
        ("7^^^HOSP", "204"),
        ("7^^^AFF&x.org&DNS", "101"),
    ):
        message = re.sub(r"\rPID\|1\|\|[^|]*", lambda _, told=pid_3: f"\rPID|1||{told}", sent)
        said, told, place = here.ris.outcome(message)
        assert (said, place) == ("AE", f"PID^1^3^{code}"), told


def test_a_text_beyond_the_limit_is_refused(here: Site, patient: Identifier) -> None:
    many = ["OBX|1|TX|1||" + "x" * 500_000] * 9
    assert (
        "the text is longer than the limit of 4194304 characters" in here.ris.outcome(oru(patient, order(), *many))[1]
    )
    long = embedded(b"x" * 4_194_305, "^text^plain")
    assert "the text is longer than the limit of 4194304 bytes" in here.ris.outcome(oru(patient, order(), long))[1]


def test_spacing_commands_do_not_make_a_long_text_of_a_short_one() -> None:
    assert len(observations.formatted("\\.sp9999\\\\.sk9999\\" * 100, "utf-8")) == 2000


def test_a_message_beyond_the_limit_ends_its_connection_and_no_other(here: Site, patient: Identifier) -> None:
    with socket.create_connection(("127.0.0.1", here.config.reports.port), timeout=60) as connection:
        try:
            connection.sendall(frame(b"MSH|" + b"x" * (LIMIT_BYTES + 1)))
            assert connection.recv(4096) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert here.ris.outcome(oru(patient, order()))[0] == "AE"


def test_what_no_xml_can_hold_is_replaced(here: Site) -> None:
    known = here.patient()
    sent = oru(known, order().replace("CT Chest", "CT \x01Chest"), *text("a\x07b\\X00\\c\ufffe"))
    assert here.ris.outcome(sent)[0] == "AA"
    entry = here.only(known)
    assert str(entry.title) == "CT \ufffdChest"
    assert "a\ufffdb\ufffdc\ufffd".encode() in here.bytes_of(entry)


def test_markup_in_a_message_is_text_in_the_document(here: Site) -> None:
    known = here.patient()
    sent = oru(known, order().replace("CT Chest", "</title><x>"), *text("</text>]]>\\T\\<script>"))
    assert here.ris.outcome(sent)[0] == "AA"
    assert b"&lt;/text&gt;]]&gt;&amp;&lt;script&gt;" in here.bytes_of(here.only(known))


@settings(max_examples=150)
@given(
    segments=st.lists(
        st.one_of(
            st.sampled_from(
                [order(), order(status="X"), *text("x"), embedded(PDF), "ZDS|1.2.3", "ORC|RE", "OBX", "OBR|"]
            ),
            st.builds(
                lambda name, fields: f"{name}|" + "|".join(fields),
                st.sampled_from(["OBX", "OBR", "ORC", "IPC", "ZDS", "TXA", "PV1"]),
                st.lists(st.text(st.sampled_from('aED1.^&~\\"FX0 =\u20ac'), max_size=12), max_size=34),
            ),
        ),
        max_size=6,
    )
)
def test_whatever_comes_is_answered_and_nothing_is_unforeseen(
    here: Site, patient: Identifier, segments: list[str]
) -> None:
    """Of a patient whom the registry does not know, so that nothing is stored."""
    ghost = Identifier.of("GHOST", "1.2.3.10")
    ris = here.ris
    code, told, _ = ris.outcome(oru(ghost, *segments))
    assert code in ("AA", "AE", "AR")
    assert "internal error" not in told


def test_other_senders_are_still_answered(here: Site) -> None:
    known = here.patient()
    ris = Ris(here.config.reports.port)
    assert ris.outcome(oru(known, order(), *text("Normal.")))[0] == "AA"
    ris.close()
