"""RAD-108 STOW-RS over real HTTP (PS3.18 10.5)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from imaging import kos
from server.compose import Domain, now
from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import STUDY, Answer, ask, ct, encoded, multipart, read


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    config = configured(tmp_path)
    config = replace(
        config,
        server=replace(config.server, actors="imaging"),
        limits=replace(config.limits, document_bytes=100_000, message_bytes=1_000_000, parts=20),
    )
    with serving(config) as served:
        yield served


def store(domain: Domain, parts: list[bytes], *, study: str = "", part_type: str = "application/dicom") -> Answer:
    body, content_type = multipart(parts, part_type)
    url = f"{domain.endpoints['dicomweb']}/studies{study and '/' + study}"
    return ask(url, method="POST", body=body, Content_Type=content_type)


def left_over(domain: Domain) -> list[Path]:
    return list(domain.parts["instances"].staging.iterdir())


def reasons(answer: Answer, tag: str = "00081198") -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.json[tag]["Value"]]


def test_what_is_stored_is_given_back_bit_for_bit(domain: Domain) -> None:
    sent = ct(3)
    answer = store(domain, sent, study=STUDY)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert answer.json["00081190"]["Value"] == [f"{domain.endpoints['dicomweb']}/studies/{STUDY}"]
    items = answer.json["00081199"]["Value"]
    assert [item["00081155"]["Value"][0] for item in items] == [str(read(one).SOPInstanceUID) for one in sent]
    given = [ask(item["00081190"]["Value"][0], "application/dicom").body for item in items]
    assert given == sent
    assert left_over(domain) == []


def test_the_same_instance_may_come_again(domain: Domain) -> None:
    assert [store(domain, ct(1)).status for _ in range(2)] == [200, 200]


def test_instances_of_a_study_may_come_at_the_same_time(domain: Domain) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda one: store(domain, [one, ct(1)[0]]), ct(16)[1:]))
    assert {answer.status for answer in answers} == {200}
    (study,) = ask(f"{domain.endpoints['dicomweb']}/studies").json
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([1], [16])


def test_each_failure_has_its_reason(domain: Domain) -> None:
    """PS3.18 table I.2-2: another study, other bytes, no identifiers, no DICOM; the rest is stored."""
    assert store(domain, ct(1)).status == 200
    changed = read(ct(1)[0])
    changed.PatientID = "another"
    nameless = read(ct(2)[1])
    nameless.SOPInstanceUID = ""
    other = ct(1, study_instance_uid=f"{STUDY}.9", series_instance_uid=f"{STUDY}.9.1")[0]
    nowhere = read(ct(2)[1])
    del nowhere.SeriesInstanceUID
    parts = [encoded(changed), other, ct(2)[1], encoded(nowhere), b"no DICOM", encoded(nameless), b""]
    answer = store(domain, parts, study=STUDY)
    assert answer.status == 202
    assert len(answer.json["00081199"]["Value"]) == 1
    assert reasons(answer) == [0x0110, 0xA900, 0x0110]
    assert reasons(answer, "0008119A") == [0xC000, 0xC000, 0xC000]
    comments = [item["00000902"]["Value"][0] for item in answer.json["00081198"]["Value"]]
    assert comments == [
        "the SOP Instance UID is stored with another data set",
        "it is of another study than the one posted to",
        "SeriesInstanceUID is missing",
    ]
    assert left_over(domain) == []


def test_a_rejection_note_that_is_stored_hides_what_it_lists(domain: Domain) -> None:
    """From this moment on (IOCM): neither found, nor counted, nor given."""
    sent = ct(3)
    assert store(domain, sent).status == 200
    first = read(sent[0])
    content = kos.build(
        [first], retrieve_ae_title="XDSI", retrieve_location_uid="1.2.3", now=now(), new_uid=lambda: str(generate_uid())
    )
    note = read(content)
    note.ConceptNameCodeSequence[0].CodeValue = "113001"
    assert store(domain, [encoded(note)]).status == 200
    web = domain.endpoints["dicomweb"]
    of_study = f"{web}/studies/{STUDY}/series/{first.SeriesInstanceUID}"
    assert [one["00080018"]["Value"][0] for one in ask(f"{of_study}/instances").json] == [
        str(read(one).SOPInstanceUID) for one in sent[1:]
    ]
    (series,) = ask(f"{web}/series?SeriesInstanceUID={first.SeriesInstanceUID}").json
    assert series["00201209"]["Value"] == [2]
    assert [content for _, content in ask(of_study).parts] == sent[1:]
    refused = ask(f"{of_study}/instances/{first.SOPInstanceUID}")
    assert (refused.status, refused.text) == (
        404,
        f"instance {first.SOPInstanceUID} is rejected: 113001 Rejected for Quality Reasons\n",
    )


def test_nothing_stored_is_a_conflict(domain: Domain) -> None:
    answer = store(domain, [b"no DICOM"])
    assert answer.status == 409
    assert set(answer.json) == {"0008119A"}


def test_a_part_of_another_media_type_fails_alone(domain: Domain) -> None:
    body, content_type = multipart(ct(1))
    body = body.removesuffix(b"--B--\r\n") + b"--B\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--B--\r\n"
    url = f"{domain.endpoints['dicomweb']}/studies"
    answer = ask(url, method="POST", body=body, Content_Type=content_type)
    assert (answer.status, reasons(answer, "0008119A")) == (202, [0xC000])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b"x", "application/dicom", 415, 'it must be multipart/related; type="application/dicom"'),
        (b"x", "nothing", 415, "must be multipart/related"),
        (b"x", 'multipart/related; type="application/dicom+json"; boundary=B', 415, "application/dicom+json"),
        (b"x", 'multipart/related; type="application/dicom"', 400, "no parameter boundary"),
        (b"", 'multipart/related; type="application/dicom"; boundary=B', 400, "ends before its closing boundary"),
        (b"--B--\r\n", "multipart/related; boundary=B", 400, "no parts"),
        (b"--B\r\n\r\nhalf", "multipart/related; boundary=B", 400, "ends before its closing boundary"),
        (b"--B\r\nno colon\r\n\r\nx\r\n--B--", "multipart/related; boundary=B", 400, "without a colon"),
        (b"--B\r\nContent-Type: nothing\r\n\r\nx\r\n--B--", "multipart/related; boundary=B", 415, "no media type"),
        (b"--B\r\n\r\n" + bytes(100_001) + b"\r\n--B--", "multipart/related; boundary=B", 413, "limit of 100000 bytes"),
        (bytes(1_000_001), "multipart/related; boundary=B", 413, "limit of 1000000 bytes"),
        (b"--B\r\n\r\nx\r\n" * 21 + b"--B--", "multipart/related; boundary=B", 413, "more than 20 parts"),
        (bytes(100_000), "multipart/related; boundary=B", 413, "no boundary within the first 65536 bytes"),
    ],
)
def test_what_is_no_message_is_refused(domain: Domain, body: bytes, content_type: str, status: int, words: str) -> None:
    answer = ask(f"{domain.endpoints['dicomweb']}/studies", method="POST", body=body, Content_Type=content_type)
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert left_over(domain) == []


def test_a_message_that_breaks_off_stores_nothing(domain: Domain) -> None:
    body, content_type = multipart(ct(3))
    url = f"{domain.endpoints['dicomweb']}/studies"
    assert ask(url, method="POST", body=body[:-6], Content_Type=content_type).status == 400
    assert ask(url).status == 204
    assert left_over(domain) == []


def test_a_study_that_is_no_uid_is_refused(domain: Domain) -> None:
    answer = store(domain, ct(1), study="..")
    assert (answer.status, ask(f"{domain.endpoints['dicomweb']}/studies").status) == (400, 204)


def test_stored_instances_are_counted_by_transaction(domain: Domain) -> None:
    store(domain, ct(1))
    store(domain, [b"no DICOM"])
    web = domain.endpoints["dicomweb"]
    ask(f"{web}/studies")
    ask(f"{web}/studies/{STUDY}")
    ask(f"{web.removesuffix('/dicomweb')}/wado?requestType=X")
    metrics = ask(f"{web.removesuffix('/dicomweb')}/metrics").text
    for transaction, ending in (
        *(("RAD-108", "success"), ("RAD-108", "failure"), ("RAD-129", "success"), ("RAD-107", "success")),
        ("RAD-55", "failure"),
    ):
        labels = f'ending="{ending}",service="ImagingDocumentSource",transaction="{transaction}"'
        assert f"xdsi_exchanges_total{{{labels}}} 1.0" in metrics
