"""The versions of a report: each is registered once, the newest is Approved, whatever is sent again, late, or cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

import server.reports
from registry.client import client as registry_client
from schemas import rim
from server.compose import Domain, compose, soap_client
from server.config import Config, ConfigError
from server.embedded import serving
from server.http import base_url, bind, in_thread, router
from tests.conftest import configured
from tests.ris import BOTH, PDF, Ris, Site, embedded, free_port, mdm, msh, order, oru, reporting, site, text, txa
from xds.messages import Outcome, QueryResult
from xds.metadata import Association, DocumentEntry
from xds.queries import GetAssociations
from xds.transactions import Provide
from xds.values import Identifier
from xds.vocabulary import AssociationType, Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(reporting(tmp_path_factory.mktemp("reports"))) as made:
        yield made


def body(site: Site, entry: DocumentEntry) -> str:
    (found,) = etree.fromstring(site.bytes_of(entry)).iterfind(".//{*}nonXMLBody/{*}text")
    return found.text or ""


def versions(site: Site, patient: Identifier) -> dict[str, str]:
    """The end of each version's status, by its text."""
    return {body(site, one): str(one.availability_status).rpartition(":")[2] for one in site.entries(patient, BOTH)}


def relations(site: Site, entry: DocumentEntry) -> list[tuple[str, str]]:
    """Type and target of the associations between documents that begin at an entry."""
    query = registry_client(soap_client(site.domain.endpoints["registry"], site.config)).query
    found = rim.decode_fragments(query(GetAssociations(uuid=(entry.entry_uuid,))).fragments)
    return [
        (one.association_type, one.target_object)
        for one in found
        if isinstance(one, Association) and one.source_object == entry.entry_uuid
    ]


def result(patient: Identifier, said: str, *, status: str = "F", at: str = "20260201113000+0000") -> str:
    return oru(patient, order(status=status, at=at), *text(said))


def test_a_corrected_report_replaces_the_one_before(here: Site) -> None:
    patient = here.patient()
    assert here.ris.outcome(result(patient, "Left"))[0] == "AA"
    first = here.only(patient)
    assert here.ris.outcome(result(patient, "Right", status="C", at="20260201120000+0000")) == ("AA", "", "")
    assert versions(here, patient) == {"Left": "Deprecated", "Right": "Approved"}
    assert relations(here, here.only(patient)) == [(AssociationType.RPLC, first.entry_uuid)]


def test_a_message_that_comes_again_stores_nothing_twice(here: Site) -> None:
    """The sender has seen no acknowledgement: another control id and time, on another connection."""
    patient = here.patient()
    sent = result(patient, "Once")
    assert here.ris.outcome(sent) == ("AA", "", "")
    again = Ris(here.config.reports.port)
    head = msh("ORU^R01^ORU_R01", at="20260201180000+0000", control_id="M2")
    assert again.outcome(sent.replace(msh("ORU^R01^ORU_R01"), head)) == ("AA", "stored already", "")
    again.close()
    assert here.ris.outcome(result(patient, "Twice", status="C", at="20260201120000+0000"))[0] == "AA"
    # Also when it has been replaced in the meantime.
    assert here.ris.outcome(sent) == ("AA", "stored already", "")
    assert versions(here, patient) == {"Once": "Deprecated", "Twice": "Approved"}


def test_the_same_message_on_many_connections_is_one_document(here: Site) -> None:
    patient = here.patient()
    sent = result(patient, "Once")

    def send(_: int) -> str:
        ris = Ris(here.config.reports.port)
        try:
            return ris.outcome(sent)[0]
        finally:
            ris.close()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(send, range(12))) == {"AA"}
    assert versions(here, patient) == {"Once": "Approved"}


def test_versions_that_come_at_the_same_time_leave_one_approved(here: Site) -> None:
    patient = here.patient()

    def send(number: int) -> str:
        ris = Ris(here.config.reports.port)
        try:
            return ris.outcome(result(patient, f"Version {number}", at=f"202602011130{number:02}+0000"))[0]
        finally:
            ris.close()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(send, range(12))) == {"AA"}
    assert [body(here, one) for one in here.entries(patient)] == ["Version 11"]


def test_an_older_version_that_comes_late_replaces_nothing(here: Site) -> None:
    patient = here.patient()
    assert here.ris.outcome(result(patient, "New", status="C", at="20260201120000+0000"))[0] == "AA"
    code, told, _ = here.ris.outcome(result(patient, "Old"))
    assert (code, told) == ("AA", "not stored: a version of 20260201120000 is registered")
    assert versions(here, patient) == {"New": "Approved"}


def test_a_cancelled_result_is_deprecated(here: Site) -> None:
    patient = here.patient()
    assert here.ris.outcome(result(patient, "Wrong patient"))[0] == "AA"
    cancelled = oru(patient, order(status="X", at="20260201120000+0000"))
    assert here.ris.outcome(cancelled) == ("AA", "", "")
    assert versions(here, patient) == {"Wrong patient": "Deprecated"}
    assert here.ris.outcome(cancelled) == ("AA", "nothing to cancel: no version of the report is Approved", "")


def test_a_cancellation_that_is_older_than_what_is_registered_cancels_nothing(here: Site) -> None:
    patient = here.patient()
    assert here.ris.outcome(result(patient, "Newer", at="20260201120000+0000"))[0] == "AA"
    code, told, _ = here.ris.outcome(oru(patient, order(status="X", at="20260201113000+0000")))
    assert (code, told) == ("AA", "not cancelled: a version of 20260201120000 is registered")
    assert versions(here, patient) == {"Newer": "Approved"}


def test_a_preliminary_report_is_not_stored(here: Site) -> None:
    patient = here.patient()
    for sent in (
        result(patient, "Draft", status="P"),
        oru(patient, order(status=""), *text("Draft", status="P")),
        mdm("T02", patient, txa("D1", status="DI"), *text("Draft")),
        mdm("T02", patient, txa("D1", available="UN"), *text("Draft")),
    ):
        assert here.ris.outcome(sent) == ("AA", "not stored: the report is preliminary", "")
    assert here.entries(patient, BOTH) == []


def test_a_preliminary_report_may_be_stored_until_the_final_one_comes(tmp_path: Path) -> None:
    with site(reporting(tmp_path, preliminary=True)) as early:
        patient = early.patient()
        assert early.ris.outcome(result(patient, "Draft", status="P"))[0] == "AA"
        assert early.only(patient).legal_authenticator is None
        assert early.ris.outcome(result(patient, "Final"))[0] == "AA"
        assert versions(early, patient) == {"Draft": "Deprecated", "Final": "Approved"}


# --- MDM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "second"),
    [("T10", txa("D2", parent="D1^RIS")), ("T10", txa("D1")), ("T08", txa("D1")), ("T06", txa("D2", parent="D1^RIS"))],
)
def test_a_replacement_an_edit_and_an_addendum_replace_the_document_that_they_name(
    here: Site, event: str, second: str
) -> None:
    patient = here.patient()
    sent = mdm("T02", patient, txa("D1"), *text("One"))
    assert here.ris.outcome(sent)[0] == "AA"
    assert here.ris.outcome(mdm(event, patient, second, *text("Two"))) == ("AA", "", "")
    assert versions(here, patient) == {"One": "Deprecated", "Two": "Approved"}
    assert here.ris.outcome(sent) == ("AA", "stored already", "")


def test_a_document_that_comes_after_its_replacement_stays_away(here: Site) -> None:
    patient = here.patient()
    replacing = mdm("T10", patient, txa("D2", parent="D1^RIS", at="20260201120000+0000"), *text("Two"))
    assert here.ris.outcome(mdm("T02", patient, txa("D1", at="20260201110000+0000"), *text("One")))[0] == "AA"
    assert here.ris.outcome(replacing)[0] == "AA"
    late = mdm("T08", patient, txa("D1", at="20260201113000+0000"), *text("Edited"))
    assert here.ris.outcome(late) == ("AA", "not stored: a version of 20260201120000 is registered", "")
    assert versions(here, patient) == {"One": "Deprecated", "Two": "Approved"}


@pytest.mark.parametrize("sent", [("T11", txa("D1")), ("T04", txa("D1", available="CA"))])
def test_a_cancelled_document_is_deprecated(here: Site, sent: tuple[str, str]) -> None:
    patient = here.patient()
    assert here.ris.outcome(mdm("T02", patient, txa("D1"), embedded(PDF)))[0] == "AA"
    assert here.ris.outcome(mdm(sent[0], patient, sent[1])) == ("AA", "", "")
    assert [one.availability_status for one in here.entries(patient, BOTH)] == [DEPRECATED]


def test_an_addendum_may_be_appended_and_goes_with_its_document(tmp_path: Path) -> None:
    with site(reporting(tmp_path, addendum="append")) as appending:
        patient = appending.patient()
        assert appending.ris.outcome(mdm("T02", patient, txa("D1"), *text("One")))[0] == "AA"
        first = appending.only(patient)
        addendum = mdm("T06", patient, txa("D2", parent="D1^RIS"), *text("And"))
        assert appending.ris.outcome(addendum) == ("AA", "", "")
        assert appending.ris.outcome(addendum) == ("AA", "stored already", "")
        assert versions(appending, patient) == {"One": "Approved", "And": "Approved"}
        (second,) = (one for one in appending.entries(patient) if one.unique_id != first.unique_id)
        assert relations(appending, second) == [(AssociationType.APND, first.entry_uuid)]
        assert appending.ris.outcome(mdm("T11", patient, txa("D1")))[0] == "AA"
        assert versions(appending, patient) == {"One": "Deprecated", "And": "Deprecated"}


# --- what is not there ------------------------------------------------------------------------------------------------


@contextmanager
def serving_at(config: Config, port: int) -> Iterator[Domain]:
    """As `serving`, on a port that is known before."""
    local = replace(config, server=replace(config.server, port=port))
    listening = bind(local)
    domain = compose(local, base_url(local, listening))
    try:
        with in_thread(domain.app, local, listening):
            yield domain
    finally:
        domain.close()


def test_a_repository_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """AR until it answers: the sender keeps the message, and sends it again."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    far = configured(tmp_path / "far")
    near = reporting(tmp_path / "near")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    near = replace(
        near,
        server=replace(near.server, actors="imaging"),
        reports=replace(near.reports, repository_url=f"{url}/repository", registry_url=f"{url}/registry"),
    )
    with serving(near):
        ris = Ris(near.reports.port)
        patient = Identifier.of("P1", "1.2.3.10")
        sent = result(patient, "Normal.")
        code, told, _ = ris.outcome(sent)
        assert (code, told) == ("AR", "the repository or the registry does not answer; send the message again")
        with serving_at(far, port) as there:
            code, told, place = ris.outcome(sent)
            assert (code, place) == ("AE", "PID^1^3^204")
            assert told.startswith("XDSUnknownPatientId: ")
            site_there = Site(near, there, ris)
            patient = site_there.patient()
            sent = result(patient, "Normal.")
            assert ris.outcome(sent) == ("AA", "", "")
            assert ris.outcome(sent) == ("AA", "stored already", "")
            assert versions(site_there, patient) == {"Normal.": "Approved"}
            assert ris.outcome(oru(patient, order(status="X", at="20260201120000+0000"))) == ("AA", "", "")
            assert versions(site_there, patient) == {"Normal.": "Deprecated"}
        ris.close()


def test_a_registry_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """The registry behind the repository of this process: its code is in the answer, and nothing is stored."""
    config = reporting(tmp_path)
    config = replace(
        config,
        server=replace(config.server, actors="repository"),
        repository=replace(config.repository, registry_url=f"http://127.0.0.1:{free_port()}/registry"),
    )
    with serving(config):
        ris = Ris(config.reports.port)
        assert ris.outcome(result(Identifier.of("P1", "1.2.3.10"), "Normal."))[0] == "AR"
        ris.close()


def test_what_reports_need_is_asked_for_when_the_server_starts(tmp_path: Path) -> None:
    config = reporting(tmp_path)
    for broken, reason in (
        (replace(config, registry=replace(config.registry, assigning_authorities="")), "which patient ids"),
        (replace(config, reports=replace(config.reports, host="0.0.0.0")), "reports.host is '0.0.0.0'"),
        (replace(config, reports=replace(config.reports, code_map=str(tmp_path / "none"))), "reports.code_map: "),
    ):
        with pytest.raises(ConfigError, match=reason):
            started(broken, provide=lambda submission, documents: Outcome())
    with pytest.raises(ConfigError, match=r"reports\.repository_url is empty"):
        started(config, provide=None)


def started(config: Config, provide: Provide | None) -> None:
    domain = Domain(app=router({}), endpoints={})
    listener = server.reports.listener(
        config, domain, provide, lambda query: QueryResult(), None, answered=lambda event, code: None
    )
    listener.close()
