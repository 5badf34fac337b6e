"""On-Demand entries in ITI-43: the document is made when it is asked for, by a command; with or without a snapshot that stays."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.messages import new_oid, patient
from benchmarks.registries import on_demand_submission
from registry.client import Client
from registry.client import client as registry_client
from repository.client import client
from repository.documents import Documents
from repository.iti43_retrieve import retrieve
from repository.on_demand import on_demand
from repository.schema import connect, upgrade
from schemas import rim
from server.compose import soap_client
from server.config import Config
from server.embedded import serving
from xds.messages import DocumentRequest, QueryResult, Retrieved
from xds.metadata import Association, DocumentEntry, SubmissionSet
from xds.problems import Problem
from xds.queries import FindDocuments, FindSubmissionSets, GetAssociations, GetDocuments, StoredQuery
from xds.transactions import Retrieve
from xds.values import Identifier, MimeType, Oid, UniqueId, is_oid
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

OUR_ID = "1.2.3.4.77"
#: Counts its runs, so that no two documents are alike.
COUNTING = 'echo run >> "{directory}/runs"; printf "document %s of %s" "$(wc -l < "{directory}/runs")" "$1"'


@dataclass
class Served:
    """A domain whose repository assembles documents."""

    directory: Path
    registry: Client
    fetch: Retrieve
    patient_id: Identifier

    def registered(self, **changes: Any) -> DocumentEntry:
        """A new On-Demand entry, as the registry has it."""
        made = on_demand_submission(self.patient_id, repository_unique_id=Oid(OUR_ID), **changes)
        assert self.registry.register_on_demand(made).succeeded
        return self.entries(made.document_entries[0].unique_id)[-1]

    def entries(self, *unique_ids: str | None) -> list[DocumentEntry]:
        query = GetDocuments(unique_id=tuple(str(one) for one in unique_ids))
        found = rim.decode_fragments(self.registry.query(query).fragments)
        return [one for one in found if isinstance(one, DocumentEntry)]

    def asked(self, unique_id: object) -> tuple[bytes, Retrieved] | Problem:
        """The bytes of a document with all that came, or what is the matter."""
        request = DocumentRequest(repository_unique_id=OUR_ID, document_unique_id=str(unique_id))
        for one in self.fetch([request]):
            return one if isinstance(one, Problem) else (one.document.read(), one)
        raise AssertionError("no answer")

    def refused(self, unique_id: object) -> tuple[str, str]:
        """The code and text."""
        answer = self.asked(unique_id)
        assert isinstance(answer, Problem)
        assert answer.location == str(unique_id)
        return str(answer.code), answer.context

    @property
    def runs(self) -> int:
        """How often the command has run."""
        path = self.directory / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def left_behind(self) -> list[Path]:
        """Files of documents that were made and are not stored, once the server is done with its last answer."""
        deadline = time.monotonic() + 60
        while found := [path for path in self.directory.rglob("*.part") if "client" not in path.parts]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts a domain whose repository runs this shell script for each document."""
    with ExitStack() as stack:

        def start(script: str = COUNTING, **settings: Any) -> Served:
            command = tmp_path / "assemble"
            command.write_text("#!/bin/sh\n" + script.replace("{directory}", str(tmp_path)) + "\n")
            command.chmod(0o755)
            config = Config()
            config = replace(
                config,
                server=replace(config.server, directory=str(tmp_path / "data")),
                registry=replace(config.registry, patients="open"),
                repository=replace(config.repository, unique_id=OUR_ID, on_demand_command=str(command), **settings),
            )
            served = stack.enter_context(serving(config))
            own = replace(config, server=replace(config.server, directory=str(tmp_path / "client")))
            registry = registry_client(soap_client(served.endpoints["registry"], own))
            _, fetch = client(soap_client(served.endpoints["repository"], own))
            return Served(tmp_path, registry, fetch, patient(61))

        yield start


# --- without persistence -----------------------------------------------------------------------------------------------


def test_each_retrieval_gives_a_new_document_with_an_id_of_its_own(serve: Callable[..., Served]) -> None:
    """3.43.4.2.2: NewDocumentUniqueId; no NewRepositoryUniqueId, because nobody keeps it. The mimeType is the entry's."""
    domain = serve()
    entry = domain.registered(mime_type=MimeType("text/plain; charset=utf-8"))
    first, second = domain.asked(entry.unique_id), domain.asked(entry.unique_id)
    assert isinstance(first, tuple) and isinstance(second, tuple)
    assert [first[0], second[0]] == [f"document {n} of {entry.unique_id}".encode() for n in (1, 2)]
    new_ids = {one.new_document_unique_id or "" for _, one in (first, second)}
    assert len(new_ids) == 2 and all(map(is_oid, new_ids)) and str(entry.unique_id) not in new_ids
    assert [one.new_repository_unique_id for _, one in (first, second)] == [None, None]
    assert first[1].document.mime_type == "text/plain; charset=utf-8"
    assert first[1].request.document_unique_id == entry.unique_id
    assert domain.entries(*new_ids) == []
    assert domain.refused(min(new_ids))[0] == "XDSDocumentUniqueIdError"
    assert domain.left_behind() == []


def test_what_is_asked_twice_in_one_message_is_made_once(serve: Callable[..., Served]) -> None:
    domain = serve()
    entry = domain.registered()
    request = DocumentRequest(repository_unique_id=OUR_ID, document_unique_id=str(entry.unique_id))
    answers = [one for one in domain.fetch([request, request]) if isinstance(one, Retrieved)]
    assert (len(answers), len({one.new_document_unique_id for one in answers}), domain.runs) == (2, 1, 1)


def test_the_configuration_may_say_what_is_assembled(serve: Callable[..., Served]) -> None:
    domain = serve(on_demand_mime_type="application/pdf")
    answer = domain.asked(domain.registered().unique_id)
    assert isinstance(answer, tuple)
    assert answer[1].document.mime_type == "application/pdf"


@pytest.mark.parametrize(
    "changes",
    [{"unique_id": UniqueId("urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60")}, {"unique_id": UniqueId("1.2.3^-rf")}],
    ids=["URN", "extension"],
)
def test_only_an_oid_reaches_the_command(serve: Callable[..., Served], changes: dict[str, Any]) -> None:
    domain = serve()
    assert domain.refused(domain.registered(**changes).unique_id)[0] == "XDSDocumentUniqueIdError"
    assert domain.runs == 0


def test_what_is_no_on_demand_entry_of_this_repository_is_not_made(serve: Callable[..., Served]) -> None:
    """Unknown to the registry, or of another repository: no command is run for what somebody made up."""
    domain = serve()
    other = on_demand_submission(domain.patient_id, repository_unique_id=Oid("1.2.3.4.78"))
    domain.registry.register_on_demand(other)
    for unique_id in ("1.2.3.99", other.document_entries[0].unique_id):
        assert domain.refused(unique_id) == (
            "XDSDocumentUniqueIdError",
            f"document {unique_id} is not in this repository",
        )
    assert domain.runs == 0


def test_a_deprecated_on_demand_entry_gives_an_error(serve: Callable[..., Served]) -> None:
    """Supplement On-Demand Documents 3.43.4.1.3. Of several entries of one uniqueId an Approved one is enough."""
    domain = serve()
    entry = domain.registered()
    replacement = on_demand_submission(domain.patient_id, repository_unique_id=Oid(OUR_ID))
    link = Association(
        entry_uuid="Replacement",
        association_type=AssociationType.RPLC,
        source_object=replacement.document_entries[0].entry_uuid,
        target_object=entry.entry_uuid,
    )
    domain.registry.register_on_demand(replace(replacement, associations=(*replacement.associations, link)))
    assert domain.refused(entry.unique_id) == (
        "XDSDocumentUniqueIdError",
        f"document {entry.unique_id} is not assembled: its On-Demand entry is Deprecated",
    )
    assert isinstance(domain.asked(replacement.document_entries[0].unique_id), tuple)
    domain.registered(unique_id=entry.unique_id)
    assert isinstance(domain.asked(entry.unique_id), tuple)


@pytest.mark.parametrize(
    ("script", "settings", "code", "reason"),
    [
        ("exit 3", {}, "XDSDocumentUniqueIdError", "cannot be assembled: it is not known there"),
        ("echo half; exit 1", {}, "XDSRepositoryError", "could not be assembled: the command ended with status 1"),
        ("kill -9 $$", {}, "XDSRepositoryError", "could not be assembled: the command ended with status -9"),
        (
            "echo half; sleep 3600",
            {"on_demand_timeout_s": 0.3},
            "XDSRepositoryError",
            "could not be assembled: the command took longer than the limit of 0.3 s",
        ),
        (
            "exec >&-; sleep 3600",
            {"on_demand_timeout_s": 0.3},
            "XDSRepositoryError",
            "could not be assembled: the command took longer than the limit of 0.3 s",
        ),
        (
            "while echo without an end; do :; done",
            {"on_demand_max_bytes": 100_000},
            "XDSRepositoryError",
            "could not be assembled: the command wrote more than the limit of 100000 bytes",
        ),
    ],
    ids=["unknown there", "fails", "killed", "never ends", "closes and never ends", "writes without end"],
)
def test_a_document_that_is_not_made_is_an_error_and_leaves_nothing(
    serve: Callable[..., Served], script: str, settings: dict[str, Any], code: str, reason: str
) -> None:
    domain = serve("echo $$ > {directory}/group; " + script, **settings)
    entry = domain.registered()
    assert domain.refused(entry.unique_id) == (code, f"document {entry.unique_id} {reason}")
    assert domain.left_behind() == []
    assert alive(int((domain.directory / "group").read_text())) == []


def alive(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_a_command_that_cannot_be_run_is_an_error(serve: Callable[..., Served]) -> None:
    domain = serve()
    entry = domain.registered()
    (domain.directory / "assemble").unlink()
    code, text = domain.refused(entry.unique_id)
    assert (code, "the command cannot be run" in text, str(domain.directory) in text) == (
        "XDSRepositoryError",
        True,
        False,
    )


def test_the_command_gets_one_argument_and_nothing_of_the_servers_environment(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDSI_TEST_PASSWORD", "secret")
    domain = serve('echo "$#"; env; cat; pwd')
    answer = domain.asked(domain.registered().unique_id)
    assert isinstance(answer, tuple)
    lines = answer[0].decode().splitlines()
    assert (lines[0], lines[-1]) == ("1", "/")
    assert "secret" not in answer[0].decode()


def test_a_message_may_ask_for_twenty_of_them(serve: Callable[..., Served]) -> None:
    domain = serve()
    entries = [domain.registered() for _ in range(21)]
    requests = [DocumentRequest(repository_unique_id=OUR_ID, document_unique_id=str(one.unique_id)) for one in entries]
    answers = [one if isinstance(one, Problem) else one.document.read() for one in domain.fetch(requests)]
    assert [type(one) for one in answers] == [bytes] * 20 + [Problem]
    last = answers[-1]
    assert isinstance(last, Problem)
    assert "no more than 20 made on demand" in last.context
    assert domain.runs == 20


def test_a_large_document_comes_whole(serve: Callable[..., Served]) -> None:
    domain = serve("head -c 5000000 /dev/zero")
    answer = domain.asked(domain.registered().unique_id)
    assert isinstance(answer, tuple)
    assert answer[0] == bytes(5_000_000)


def test_a_registry_that_does_not_answer_is_asked_once_for_a_message(tmp_path: Path) -> None:
    """XDSRegistryNotAvailable for each document that is not stored; nobody waits for it once for each of them."""
    engine = connect(f"sqlite:///{tmp_path / 'catalogue.db'}")
    upgrade(engine)
    asked: list[StoredQuery] = []

    def silent(query: StoredQuery) -> QueryResult:
        asked.append(query)
        raise TimeoutError("no answer from 127.0.0.1")

    make = partial(
        on_demand,
        assemble=lambda _: pytest.fail("not asked for"),
        query=silent,
        provide=None,
        repository_unique_id=OUR_ID,
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        new_oid=new_oid,
    )
    requests = [DocumentRequest(repository_unique_id=OUR_ID, document_unique_id=f"1.2.{n}") for n in range(3)]
    store = Documents(engine, tmp_path / "store")
    answers = list(retrieve(requests, store=store, repository_unique_id=OUR_ID, on_demand=make))
    store.close()
    assert [(one.code, one.location) for one in answers if isinstance(one, Problem)] == [
        ("XDSRegistryNotAvailable", f"1.2.{n}") for n in range(3)
    ]
    assert len(asked) == 1
    assert not any("127.0.0.1" in str(one) for one in answers)


# --- with persistence ---------------------------------------------------------------------------------------------------


def test_with_persistence_the_document_is_registered_as_a_snapshot_before_it_is_given_out(
    serve: Callable[..., Served],
) -> None:
    """Option Persistence of Retrieved Documents: NewDocumentUniqueId and NewRepositoryUniqueId; IsSnapshotOf."""
    domain = serve(on_demand_persistence=True)
    entry = domain.registered()
    answer = domain.asked(entry.unique_id)
    assert isinstance(answer, tuple)
    content, one = answer
    assert one.new_repository_unique_id == OUR_ID
    (stable,) = domain.entries(one.new_document_unique_id)
    assert (stable.object_type, stable.availability_status) == (STABLE, Status.APPROVED)
    assert (stable.hash, stable.size) == (hashlib.sha1(content).hexdigest(), str(len(content)))
    assert stable.creation_time is not None
    kept = ("patient_id", "class_code", "type_code", "title", "author", "mime_type", "repository_unique_id")
    assert [getattr(stable, name) for name in kept] == [getattr(entry, name) for name in kept]
    assert relations(domain, stable) == [(AssociationType.IS_SNAPSHOT_OF, entry.entry_uuid)]
    # It stays as it was, while its entry gives another one.
    again = domain.asked(one.new_document_unique_id)
    assert isinstance(again, tuple)
    assert (again[0], again[1].new_document_unique_id) == (content, None)
    assert domain.left_behind() == []


def relations(domain: Served, entry: DocumentEntry) -> list[tuple[str, str]]:
    found = rim.decode_fragments(domain.registry.query(GetAssociations(uuid=(entry.entry_uuid,))).fragments)
    return sorted(
        (one.association_type, one.target_object)
        for one in found
        if isinstance(one, Association) and one.source_object == entry.entry_uuid
    )


def test_a_later_snapshot_takes_the_place_of_the_one_before(serve: Callable[..., Served]) -> None:
    domain = serve(on_demand_persistence=True)
    entry = domain.registered()
    ids = []
    for _ in range(3):
        answer = domain.asked(entry.unique_id)
        assert isinstance(answer, tuple)
        ids.append(answer[1].new_document_unique_id)
    first, second, third = (domain.entries(one)[0] for one in ids)
    assert [one.availability_status for one in (first, second, third)] == [
        Status.DEPRECATED,
        Status.DEPRECATED,
        Status.APPROVED,
    ]
    assert relations(domain, third) == [
        (AssociationType.RPLC, second.entry_uuid),
        (AssociationType.IS_SNAPSHOT_OF, entry.entry_uuid),
    ]
    (still,) = domain.entries(entry.unique_id)
    assert (still.object_type, still.availability_status) == (ON_DEMAND, Status.APPROVED)


def test_snapshots_of_one_entry_that_are_made_at_the_same_time_are_all_registered(serve: Callable[..., Served]) -> None:
    """Each has its place in the chain of replacements, and one of them is Approved."""
    domain = serve(on_demand_persistence=True)
    entry = domain.registered()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: domain.asked(entry.unique_id), range(2)))
    ids = [one[1].new_document_unique_id for one in answers if isinstance(one, tuple)]
    assert len(ids) == 2, answers
    query = FindDocuments(patient_id=domain.patient_id, status=tuple(map(str, Status)))
    found = [
        one for one in rim.decode_fragments(domain.registry.query(query).fragments) if isinstance(one, DocumentEntry)
    ]
    assert {one.unique_id for one in found} == set(ids)


def test_a_snapshot_that_is_refused_is_an_error_with_the_registrys_reason(serve: Callable[..., Served]) -> None:
    domain = serve(on_demand_persistence=True, on_demand_mime_type="no mime type")
    entry = domain.registered()
    code, text = domain.refused(entry.unique_id)
    assert code == "XDSRepositoryError"
    assert "was assembled, but its snapshot could not be registered: XDSRegistryMetadataError" in text
    query = FindDocuments(patient_id=domain.patient_id)
    assert list(domain.registry.query(query).fragments) == []


def test_the_submission_set_of_a_snapshot_is_the_repositorys(serve: Callable[..., Served]) -> None:
    domain = serve(on_demand_persistence=True)
    entry = domain.registered()
    assert isinstance(domain.asked(entry.unique_id), tuple)
    query = FindSubmissionSets(patient_id=domain.patient_id, source_id=(OUR_ID,))
    (found,) = rim.decode_fragments(domain.registry.query(query).fragments)
    assert isinstance(found, SubmissionSet)
    assert (found.content_type_code, found.author, found.source_id) == (entry.type_code, entry.author, OUR_ID)
