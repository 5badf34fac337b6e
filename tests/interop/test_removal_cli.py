"""Removal, holds and several repositories as a user commands them (docs/repository.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repository.objects import Objects, Service
from server.config import Config, Registry
from server.embedded import serving
from tests.interop.test_lifecycle_cli import PATIENT, Shell

OUR_ID = Config().repository.unique_id
SOUTH = "1.2.3.4.78"


@contextmanager
def domain(directory: Path, *, repository: Mapping[str, Any] | None = None, **registry: Any) -> Iterator[Shell]:
    data = directory / "data"
    config = Config()
    config = replace(
        config,
        server=replace(config.server, directory=str(data)),
        registry=replace(config.registry, patients="open", **registry),
        repository=replace(config.repository, **(repository or {})),
    )
    with serving(config) as served:
        yield Shell(directory, data, served.endpoints)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with domain(tmp_path) as made:
        yield made


def everything(shell: Shell) -> list[str]:
    found = shell.found("--patient", PATIENT, "--all", "--all-versions", "--deprecated")
    return [str(one["entry_uuid"]) for one in found]


def retrieved(shell: Shell, unique_id: str) -> bool:
    return bool(json.loads(shell.run("retrieve", unique_id, "--json").stdout)["documents"])


def test_a_document_goes_with_its_metadata_and_a_held_one_stays_with_them(shell: Shell) -> None:
    letter = shell.submit("one")
    ids, unique_id = everything(shell), letter["unique_id"]
    held = shell.run("repository", "hold", unique_id, "--until", "2099-01-01", "--reason", "Case 17").stdout
    assert held == "1 held\n"
    refused = shell.run("remove", *ids, "--with-documents", status=1).stderr
    assert f"XDSRemoveDocumentsError: document {unique_id}: it is held until 2099-01-01: Case 17" in refused
    assert (everything(shell), retrieved(shell, unique_id)) == (ids, True)
    assert shell.run("repository", "release", unique_id).stdout == "1 released\n"
    done = shell.run("remove", *ids, "--with-documents").stdout
    assert done == f"{len(ids)} objects removed, and 1 document\n"
    assert everything(shell) == []
    assert "XDSDocumentUniqueIdError" in shell.run("retrieve", unique_id, status=1).stderr


def test_what_the_registry_would_refuse_costs_no_document(shell: Shell) -> None:
    letter = shell.submit("one")
    entry = letter["entry_uuid"]
    assert (
        "refers to what is to be removed; nothing was removed"
        in shell.run("remove", entry, "--with-documents", status=1).stderr
    )
    assert (
        "which is not to be removed; nothing was removed"
        in shell.run("remove", entry, "--with-associations", "--with-documents", status=1).stderr
    )
    shell.run("update", entry, "--title", "Better")
    (new,) = (one for one in shell.found("--patient", PATIENT) if one["class"] == "DocumentEntry")
    alone = shell.run("remove", new["entry_uuid"], "--with-documents", status=1).stderr
    assert f"{entry} has the document {letter['unique_id']} too; nothing was removed" in alone
    assert retrieved(shell, letter["unique_id"])


def test_after_a_failure_between_documents_and_metadata_the_same_command_ends_it(tmp_path: Path) -> None:
    """The documents have gone, the metadata stay, and still say what is to be removed."""
    others = ",".join(sorted(Registry().offered - {"remove-metadata"}))
    with domain(tmp_path, options=others) as shell:
        letter = shell.submit("one")
        ids = everything(shell)
        stopped = shell.run("remove", *ids, "--with-documents", status=1).stderr
        assert stopped.startswith(
            "xdsi: 1 document removed, but not their metadata: SOAP fault Sender (ActionNotSupported)"
        )
        assert "XDSDocumentUniqueIdError" in shell.run("retrieve", letter["unique_id"], status=1).stderr
        assert everything(shell) == ids
    with domain(tmp_path) as shell:
        assert shell.run("remove", *ids, "--with-documents").stdout == f"{len(ids)} objects removed, and 1 document\n"
        assert everything(shell) == []


def test_documents_are_removed_whatever_a_registry_says_of_them(shell: Shell) -> None:
    one, two = (shell.submit(text)["unique_id"] for text in ("one", "two"))
    refused = shell.run("remove-documents", one, "9.9", status=1).stderr
    assert "XDSDocumentUniqueIdError: document 9.9 is not in this repository; its documents stay" in refused
    assert shell.run("remove-documents", one, f"{OUR_ID}/{two}").stdout == "2 documents removed\n"
    assert "XDSDocumentUniqueIdError" in shell.run("retrieve", one, two, status=1).stderr


def test_several_repositories_are_asked_each_for_its_own(shell: Shell, tmp_path: Path) -> None:
    """One of them is named in the configuration, one on the command line, and one does not answer."""
    north_url = shell.environment["XDSI_REPOSITORY_URL"]
    north = shell.submit("one")["unique_id"]
    config = replace(
        Config(),
        server=replace(Config().server, directory=str(tmp_path / "south"), actors="repository"),
        repository=replace(Config().repository, unique_id=SOUTH, registry_url=shell.environment["XDSI_REGISTRY_URL"]),
    )
    with serving(config) as served:
        south_url = served.endpoints["repository"]
        shell.environment["XDSI_REPOSITORY_URL"] = south_url
        south = shell.submit("two")["unique_id"]
        (tmp_path / "xdsi.toml").write_text(f'[repository]\nothers = "{SOUTH}={south_url}"\n')
        named = ("--config", "xdsi.toml", "--repository", f"{OUR_ID}={north_url}")
        wanted = (f"{SOUTH}/{south}", north, f"{SOUTH}/{north}", "1.2.3.4.79/5.5", "1.2.3.4.80/6.6")
        done = shell.run(
            "retrieve", *wanted, *named, "--repository", "1.2.3.4.80=http://127.0.0.1:9/repository", "--json", status=1
        )
        answer = json.loads(done.stdout)
        assert {(one["unique_id"], Path(tmp_path / one["file"]).read_text()) for one in answer["documents"]} == {
            (north, "one"),
            (south, "two"),
        }
        reasons = [one.partition(":")[0] for one in answer["problems"]]
        assert reasons == ["XDSDocumentUniqueIdError", "XDSUnknownRepositoryId", "XDSRepositoryError"]
        assert [line.startswith("xdsi: XDS") for line in done.stderr.splitlines()] == [True] * 3
        # A removal begins nowhere if it could not go everywhere.
        refused = shell.run("remove-documents", north, "1.2.3.4.79/5.5", *named, status=1).stderr
        assert "say where repository 1.2.3.4.79 is: --repository 1.2.3.4.79=URL" in refused
        assert shell.run("remove-documents", north, f"{SOUTH}/{south}", *named).stdout == "2 documents removed\n"


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_the_stored_documents_are_counted_and_read_while_the_server_runs(shell: Shell) -> None:
    shell.submit("one")
    shell.submit("two" * 50_000)
    counts = json.loads(shell.run("repository", "status", "--json").stdout)
    assert counts == [
        {"state": "available", "place": "catalogue", "documents": 1, "size": 3},
        {"state": "available", "place": "files", "documents": 1, "size": 150_000},
    ]
    assert "2 documents" in shell.run("repository", "status").stdout
    whole = shell.run("repository", "scrub").stdout
    assert whole == "2 documents read, 150,003 bytes: 0 damaged, 0 orphans, 0 unsettled\n"


def test_a_scrub_names_what_is_damaged_and_what_is_nobodys(shell: Shell, tmp_path: Path) -> None:
    letter = shell.submit("two" * 50_000)
    content = tmp_path / "data" / "repository" / "content"
    (file,) = [path for path in content.rglob("*") if path.is_file()]
    file.write_bytes(b"two" * 49_999 + b"twO")
    stray = "0123" + "a" * 28
    (content / "01" / "23").mkdir(parents=True)
    (content / "01" / "23" / stray).write_bytes(b"stray")
    found = json.loads(shell.run("repository", "scrub", "--json", status=1).stdout)
    assert found["orphans"] == [{"place": "files", "copy": stray}]
    (damaged,) = found["damaged"]
    assert (damaged["document_unique_id"], damaged["copy"]) == (letter["unique_id"], file.name)
    assert damaged["fault"].startswith("its bytes have the SHA-256 ")
    told = shell.run("repository", "scrub", status=1).stdout
    assert letter["unique_id"] in told and stray in told
    assert told.endswith("1 document read, 150,000 bytes: 1 damaged, 1 orphan, 0 unsettled\n")


def test_documents_in_an_object_storage_are_submitted_retrieved_and_removed(
    tmp_path: Path, object_storage: Service
) -> None:
    """Over SOAP, with `[repository] store = "s3"`; small ones stay in the catalogue."""
    settings = {
        "store": "s3",
        "s3_endpoint": object_storage.endpoint,
        "s3_bucket": object_storage.bucket,
        "s3_prefix": tmp_path.name,
        "s3_access_key_id": object_storage.access_key_id,
        "s3_secret_access_key": object_storage.secret_access_key,
    }
    with domain(tmp_path, repository=settings) as shell:
        shell.environment |= {f"XDSI__REPOSITORY__{name.upper()}": value for name, value in settings.items()}
        small, large = shell.submit("one"), shell.submit("two" * 50_000)
        counts = json.loads(shell.run("repository", "status", "--json").stdout)
        assert {one["place"]: one["size"] for one in counts} == {"catalogue": 3, "objects": 150_000}
        for letter, text in ((small, "one"), (large, "two" * 50_000)):
            shell.run("retrieve", letter["unique_id"], "--out", "got")
            assert text in {path.read_text() for path in (tmp_path / "got").iterdir()}
        assert "0 damaged, 0 orphans" in shell.run("repository", "scrub").stdout
        shell.run("remove", *everything(shell), "--with-documents")
        assert "XDSDocumentUniqueIdError" in shell.run("retrieve", large["unique_id"], status=1).stderr
        assert json.loads(shell.run("repository", "status", "--json").stdout) == []
    assert list(Objects(replace(object_storage, prefix=tmp_path.name)).names()) == []
