"""The commands of a document's life, each as a user runs it against a served domain (docs/registry.md, section 6)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from server.config import Config
from server.embedded import serving
from tests.unit.test_cda import REPORT

PATIENT, OTHER = "life^^^&1.2.3.11&ISO", "other^^^&1.2.3.11&ISO"


class Shell:
    def __init__(self, directory: Path, data: Path, endpoints: dict[str, str]) -> None:
        self.directory = directory
        self.environment = {
            "PATH": "/usr/bin:/bin",
            # The commands of this tree, whichever one is installed.
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": "200",
            "XDSI_REGISTRY_URL": endpoints["registry"],
            "XDSI_REPOSITORY_URL": endpoints["repository"],
            "XDSI__SERVER__DIRECTORY": str(data),
        }

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "server.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.environment,
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def found(self, *arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run("query", *arguments, "--json").stdout)
        return rows

    def submit(self, text: str, *arguments: str) -> dict[str, Any]:
        (self.directory / "letter.txt").write_text(text)
        submitted = json.loads(self.run("submit", "letter.txt", "--patient", PATIENT, *arguments, "--json").stdout)
        (entry,) = self.found("--unique-id", submitted["documents"][0]["unique_id"])
        return entry


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    data = tmp_path / "data"
    config = replace(Config(), server=replace(Config().server, directory=str(data)))
    with serving(config) as domain:
        made = Shell(tmp_path, data, domain.endpoints)
        made.run("patients", "add", PATIENT, OTHER)
        yield made


def test_a_document_lives_from_its_submission_to_its_removal(shell: Shell) -> None:
    letter = shell.submit("one", "--title", "Letter", "--new-folder", "Episode")
    addendum = shell.submit("two", "--appends", letter["entry_uuid"])
    corrected = shell.submit("three", "--replaces", letter["entry_uuid"])
    statuses = {one["entry_uuid"]: one["availability_status"].rpartition(":")[2] for one in shell.found(
        "--patient", PATIENT, "--deprecated"
    )}  # fmt: skip
    assert statuses == {
        letter["entry_uuid"]: "Deprecated",
        addendum["entry_uuid"]: "Deprecated",
        corrected["entry_uuid"]: "Approved",
    }
    refused = shell.run("submit", "letter.txt", "--patient", PATIENT, "--appends", letter["entry_uuid"], status=1)
    assert "XDSRegistryDeprecatedDocumentError" in refused.stderr
    (folder,) = shell.found("--patient", PATIENT, "--folders")
    members = {one["entry_uuid"] for one in shell.found("--folder-contents", folder["entry_uuid"])}
    assert {letter["entry_uuid"], corrected["entry_uuid"]} <= members
    related = {one["class"] for one in shell.found("--related-to", corrected["entry_uuid"])}
    assert related == {"DocumentEntry", "Association"}


def test_a_new_version_hides_the_old_one(shell: Shell) -> None:
    letter = shell.submit("one", "--title", "Letter")
    done = shell.run("update", letter["entry_uuid"], "--title", "Better", "--event-code", "CT^CT^1.2.840.10008.2.16.4")
    assert "version 2" in done.stdout
    (now,) = shell.found("--patient", PATIENT, "--deprecated")
    assert (now["title"], now["version"], now["logical_id"]) == ("Better", "2", letter["entry_uuid"])
    assert len(shell.found("--patient", PATIENT, "--deprecated", "--all-versions")) == 2
    assert "nothing is to be changed" in shell.run("update", now["entry_uuid"], status=1).stderr


def test_a_document_is_withdrawn_and_brought_back(shell: Shell) -> None:
    letter = shell.submit("one")
    shell.run("deprecate", letter["entry_uuid"])
    assert shell.found("--patient", PATIENT) == []
    assert "XDSMetadataUpdateOperationError" in shell.run("deprecate", letter["entry_uuid"], status=1).stderr
    shell.run("approve", letter["entry_uuid"])
    assert len(shell.found("--patient", PATIENT)) == 1


def test_a_merge_moves_documents_and_closes_the_old_id(shell: Shell) -> None:
    letter = shell.submit("one")
    assert "merged into" in shell.run("patients", "merge", PATIENT, OTHER).stdout
    (moved,) = shell.found("--patient", OTHER)
    assert (moved["entry_uuid"], moved["patient_id"]) == (letter["entry_uuid"], OTHER)
    assert shell.found("--patient", PATIENT) == []
    refused = shell.run("submit", "letter.txt", "--patient", PATIENT, status=1)
    assert "XDSUnknownPatientId" in refused.stderr
    assert "has been merged into" in shell.run("patients", "merge", PATIENT, OTHER, status=1).stderr


def test_removal_is_all_or_nothing(shell: Shell) -> None:
    letter = shell.submit("one")
    assert "ReferencesExistException" in shell.run("remove", letter["entry_uuid"], status=1).stderr
    everything = [one["entry_uuid"] for one in shell.found("--patient", PATIENT, "--all")]
    assert shell.run("remove", *everything).stdout == f"{len(everything)} objects removed\n"
    assert shell.found("--patient", PATIENT, "--all") == []


def test_documents_go_with_their_metadata_unless_they_are_held(shell: Shell) -> None:
    entry = shell.submit("to be forgotten")
    unique_id = entry["unique_id"]
    shell.run("repository", "hold", unique_id, "--reason", "law case 7", "--until", "2999-12-31")
    (held,) = json.loads(shell.run("repository", "holds", "--json").stdout)
    assert held == {"document_unique_id": unique_id, "until": "2999-12-31", "reason": "law case 7"}
    everything = [one["entry_uuid"] for one in shell.found("--patient", PATIENT, "--all")]
    refusal = shell.run("remove", *everything, "--with-documents", status=1)
    assert f"document {unique_id}: it is held until 2999-12-31: law case 7" in refusal.stderr
    assert [one["unique_id"] for one in shell.found("--unique-id", unique_id)] == [unique_id]
    shell.run("retrieve", unique_id, "--out", "kept")
    assert "1 released" in shell.run("repository", "release", unique_id).stdout
    # The SubmissionSet would be left without anything: what the registry would refuse is not begun.
    alone = shell.run("remove", entry["entry_uuid"], "--with-associations", "--with-documents", status=1)
    assert "which is not to be removed; nothing was removed" in alone.stderr
    shell.run("retrieve", unique_id, "--out", "kept")
    done = shell.run("remove", *everything, "--with-documents")
    assert done.stdout == f"{len(everything)} objects removed, and 1 document\n"
    assert shell.found("--unique-id", unique_id) == []
    assert "XDSDocumentUniqueIdError" in shell.run("retrieve", unique_id, status=1).stderr
    assert "not held" in shell.run("repository", "release", unique_id, status=1).stderr


# --- reports ----------------------------------------------------------------------------------------------------------


def submitted(shell: Shell, name: str, *arguments: str) -> dict[str, Any]:
    made = json.loads(shell.run("submit", name, "--patient", PATIENT, *arguments, "--json").stdout)
    (entry,) = shell.found("--unique-id", made["documents"][0]["unique_id"])
    return entry


def test_a_cda_report_says_itself_what_it_is(shell: Shell) -> None:
    """What is given on the command line goes before what its header says, and that before the defaults."""
    (shell.directory / "report.xml").write_text(REPORT)
    entry = submitted(shell, "report.xml", "--language", "en-GB")
    assert (entry["unique_id"], entry["mime_type"], entry["title"]) == ("1.2.3.4.5^R17", "text/xml", "CT of the chest")
    assert (entry["language_code"], entry["type_code"]["code"]) == ("en-GB", "24627-2")
    assert entry["class_code"]["code"] == "REPORTS", "the header has none: the default"
    study = "1.2.840.99.1^^^^urn:ihe:iti:xds:2016:studyInstanceUID"
    assert [one["unique_id"] for one in shell.found("--patient", PATIENT, "--reference-id", study)] == ["1.2.3.4.5^R17"]


def test_a_pdf_report_is_found_by_the_study_that_it_is_about(shell: Shell) -> None:
    (shell.directory / "report.pdf").write_bytes(b"%PDF-1.7\n")
    entry = submitted(shell, "report.pdf", "--accession", "A-17^1.2.3.9", "--study-uid", "1.2.840.99.1")
    assert entry["mime_type"] == "application/pdf"
    accession = "A-17^^^&1.2.3.9&ISO^urn:ihe:iti:xds:2013:accession"
    found = shell.found("--patient", PATIENT, "--reference-id", accession)
    assert [one["unique_id"] for one in found] == [entry["unique_id"]]
    refused = shell.run("submit", "report.pdf", "--patient", PATIENT, "--study-uid", "x", status=1).stderr
    assert refused == "xdsi: --study-uid: 'x' is no UID\n"


def test_a_nifti_volume_is_an_image_document_and_comes_back_as_it_was(shell: Shell) -> None:
    volume = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2, 3, 1]))
    nibabel.save(volume, shell.directory / "brain.nii.gz")
    entry = submitted(shell, "brain.nii.gz", "--study-uid", "1.2.840.99.1")
    assert (entry["mime_type"], entry["class_code"]["code"], entry["type_code"]["code"]) == (
        "application/x-nifti",
        "IMAGES",
        "18748-4",
    )
    study = "1.2.840.99.1^^^^urn:ihe:iti:xds:2016:studyInstanceUID"
    assert [one["unique_id"] for one in shell.found("--patient", PATIENT, "--reference-id", study)] == [
        entry["unique_id"]
    ]
    shell.run("retrieve", entry["unique_id"], "--out", "got")
    (got,) = (shell.directory / "got").iterdir()
    assert got.read_bytes() == (shell.directory / "brain.nii.gz").read_bytes()


def test_a_cda_document_that_can_not_be_read_is_refused(shell: Shell) -> None:
    (shell.directory / "bad.xml").write_text(f"<!DOCTYPE x>{REPORT}")
    refused = shell.run("submit", "bad.xml", "--patient", PATIENT, status=1).stderr
    assert refused.startswith("xdsi: bad.xml: ") and "document type declaration" in refused
