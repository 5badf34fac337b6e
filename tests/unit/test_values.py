"""The data types of ITI TF-3 Table 4.2.3.1.7-2: what they accept, and what they say of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from xds import values
from xds.values import Code, Identifier, ReferenceId, Text, Timestamp, escape_hl7, unescape_hl7

GOOD = [
    (values.Identifier, "st3465^^^&1.3.6.1.4.1.21367.2005.3.7&ISO"),
    (values.Identifier, "a\\S\\b^^^&1.2&ISO"),
    (values.ReferenceId, "A123^^^&1.2.3&ISO^urn:ihe:iti:xds:2013:accession"),
    (values.ReferenceId, "1.2.3^^^^urn:ihe:iti:xds:2016:studyInstanceUID"),
    (values.ReferenceId, "A1^^^NS&1.2.3&ISO^urn:ihe:iti:xds:2013:order^1.2.9"),
    (values.Person, "4711^Muster^Ann^^^^^^&1.2.3.4&ISO"),
    (values.Person, "^Muster^Ann"),
    (values.Person, "4711"),
    (values.Organization, "North Clinic"),
    (values.Organization, "North Clinic^^^^^&1.2.3.4.5&ISO^^^^45"),
    (values.Organization, "North Clinic^^^^^^^^^1.2.3"),
    (values.Telecommunication, "^^Internet^ann@example.org"),
    (values.Telecommunication, "^PRN^PH^^41^31^1234567"),
    (values.Recipient, "North Clinic|^Muster^Ann|^^Internet^ann@example.org"),
    (values.Recipient, "|^Muster"),
    (values.Timestamp, "2024"),
    (values.Timestamp, "20240229235959"),
    (values.Timestamp, "20161231235960"),
    (values.Oid, "1.2.840.10008"),
    (values.Oid, "0.9"),
    (values.OidUrn, "urn:oid:1.2.3"),
    (values.UniqueId, "1.2.3^ext"),
    (values.LanguageCode, "de-CH"),
    (values.MimeType, "text/xml; charset=utf-8"),
    (values.Sha1, "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709"),
    (values.Size, "0"),
    (values.PidField, "PID-5|Muster^Ann"),
]

BAD = [
    (values.Identifier, "st3465", "is not of the form id^^^&OID&ISO"),
    (values.Identifier, "^^^&1.2.3&ISO", "is not of the form id^^^&OID&ISO"),
    (values.Identifier, "a^^^&1.2.3&ISO^PI", "is not of the form id^^^&OID&ISO"),
    (values.Identifier, "a^^^NS&1.2.3&ISO", "assigning authority 'NS&1.2.3&ISO' is not of the form &OID&ISO"),
    (values.Identifier, "a^^^&1.2.3&DNS", "assigning authority '&1.2.3&DNS' is not of the form &OID&ISO"),
    (values.Identifier, "a^^^&1.02.3&ISO", "assigning authority '&1.02.3&ISO' is not of the form &OID&ISO"),
    (values.ReferenceId, "1.2.3", "is not of the form id^^^authority^typeCode"),
    (values.ReferenceId, "1^^^&x&ISO^t", "assigning authority '&x&ISO' of no namespace is not of the form &OID&ISO"),
    (values.Person, "^^Ann", "has neither an identifier (XCN.1) nor a family name (XCN.2)"),
    (values.Person, "1^Muster^^^^^^^1.2.3", "assigning authority '1.2.3' is not of the form &OID&ISO"),
    (values.Organization, "^^^^^&1.2&ISO^^^^45", "has no organization name (XON.1)"),
    (
        values.Organization,
        "Clinic^^^^^^^^^45",
        "has the identifier '45' (XON.10), no OID, without an assigning authority (XON.6)",
    ),
    (
        values.Telecommunication,
        "^PRN^PH",
        "has neither an address (XTN.4) nor a local number (XTN.7) nor an unformatted number (XTN.12)",
    ),
    (values.Recipient, "||", "is not of the form organization|person|telecommunication"),
    (values.Recipient, "a|b|c|d", "is not of the form organization|person|telecommunication"),
    (values.Timestamp, "202", "is not a time of 4, 6, 8, 10, 12 or 14 digits"),
    (values.Timestamp, "20240101120000.5", "is not a time of 4, 6, 8, 10, 12 or 14 digits"),
    (values.Timestamp, "20240101+0100", "is not a time of 4, 6, 8, 10, 12 or 14 digits"),
    (values.Timestamp, "20230229", "is not a moment of the calendar"),
    (values.Timestamp, "202413", "is not a moment of the calendar"),
    (values.Oid, "1", "is not an OID of at most 64 characters"),
    (values.Oid, "3.1", "is not an OID of at most 64 characters"),
    (values.Oid, "1.2\n", "is not an OID of at most 64 characters"),
    (values.Oid, "1." + "1" * 63, "is not an OID of at most 64 characters"),
    (values.OidUrn, "1.2.3", "is not urn:oid: followed by an OID"),
    (values.UniqueId, "x" * 257, "is not an identifier of 1 to 256 characters"),
    (values.UniqueId, "1.2\n3", "holds a control character"),
    (values.LanguageCode, "en_US", "is not a language tag of RFC 5646"),
    (values.MimeType, "text", "is not a MIME type"),
    (values.Sha1, "da39", "is not a SHA-1 of 40 hexadecimal digits"),
    (values.Size, "-1", "is not a number of bytes from 0 to 2^63-1"),
    (values.Size, "9223372036854775808", "is not a number of bytes from 0 to 2^63-1"),
    (values.Size, "٣", "is not a number of bytes from 0 to 2^63-1"),
    (values.PidField, "PID5|x", "is not of the form PID-n|value"),
]


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_a_good_value_has_no_fault_and_prints_back_unchanged(kind: type[values.Value], text: str) -> None:
    assert kind(text).fault is None
    assert str(kind(text)) == text


@pytest.mark.parametrize(("kind", "text", "fault"), BAD)
def test_a_bad_value_says_what_is_wrong(kind: type[values.Value], text: str, fault: str) -> None:
    assert kind(text).fault == fault
    assert str(kind(text)) == text


def test_a_time_of_less_precision_begins_with_its_first_moment() -> None:
    """ITI TF-2 3.18.4.1.2.3.4: times are compared as if they were padded."""
    assert Timestamp("2024").earliest == "20240101000000"
    assert Timestamp("202402").earliest == "20240201000000"
    assert Timestamp("2024022912").earliest == "20240229120000"


def test_a_moment_is_written_in_utc() -> None:
    assert Timestamp.at(datetime(2026, 2, 1, 9, 15, tzinfo=timezone(timedelta(hours=1)))) == "20260201081500"
    assert Timestamp.at(datetime(2026, 2, 1, 9, 15, 7, 999999, tzinfo=UTC)) == "20260201091507"


def test_an_identifier_escapes_the_delimiters_of_hl7() -> None:
    """HL7 v2.5 2.7.1."""
    identifier = Identifier.of("a^b&c|d~e\\f", "1.2.3")
    assert identifier == "a\\S\\b\\T\\c\\F\\d\\R\\e\\E\\f^^^&1.2.3&ISO"
    assert identifier.authority == "1.2.3"
    assert identifier.fault is None


def test_a_reference_id_may_lack_an_authority() -> None:
    assert ReferenceId.of("1.2.3", "urn:x:t") == "1.2.3^^^^urn:x:t"
    assert ReferenceId.of("A1", "urn:x:t", "1.2").type_code == "urn:x:t"


def test_two_codes_are_compared_by_code_and_scheme() -> None:
    assert Code.of("N", "1.2", "Normal").key == Code("N", "1.2").key == "N^^1.2"


def test_a_text_reads_as_its_first_string() -> None:
    assert str(Text.of("letter")) == "letter"
    assert str(Text()) == ""


def test_composed_and_decomposed_letters_compare_equal() -> None:
    assert values.normal("Mu\u0308ller") == values.normal("M\u00fcller")


@pytest.mark.parametrize("text", ["", "plain", r"a\b", "^|&~\\", r"\E\ ", "\\T\\"])
def test_escapes_of_hl7_are_undone(text: str) -> None:
    assert unescape_hl7(escape_hl7(text)) == text


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("20260201103000.123+0100", None, "20260201093000"),
        ("202602010015-0330", None, "202602010345"),
        ("2026020123-0330", None, "202602020230"),
        ("20260201", timezone(timedelta(hours=5)), "20260201"),
        ("20260701120000", ZoneInfo("Europe/Vienna"), "20260701100000"),
        ("20260701120000", None, "20260701120000"),
        ("20260701120000+0000", ZoneInfo("Europe/Vienna"), "20260701120000"),
        ("20261399", None, None),
        ("00010101000000+1400", None, None),
        ("20260101000000+9900", None, None),
        ("yesterday", None, None),
        ("", None, None),
    ],
)
def test_a_time_of_hl7_is_told_in_utc(text: str, zone: tzinfo | None, utc: str | None) -> None:
    assert Timestamp.of_hl7(text, zone) == utc
