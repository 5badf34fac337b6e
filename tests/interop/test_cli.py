"""The commands, each as a user runs it, against a served domain; and how they fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.compose import Domain
from server.config import Config
from server.demo import real_objects

PATIENT = "cli^^^&1.2.3.10&ISO"


class Shell:
    def __init__(self, domain: Domain, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": "200",
            "XDSI_REGISTRY_URL": domain.endpoints["registry"],
            "XDSI_REPOSITORY_URL": domain.endpoints["repository"],
            "XDSI_IMAGING_URL": domain.endpoints["imaging"],
        }

    def run(self, *arguments: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "server.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env={**self.environment, **environment},
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, **environment: str) -> Any:
        return json.loads(self.run(*arguments, "--json", **environment).stdout)


@pytest.fixture
def shell(domain: Domain, tmp_path: Path) -> Shell:
    return Shell(domain, tmp_path)


def test_a_file_is_submitted_found_and_retrieved(shell: Shell) -> None:
    content = bytes(range(256)) * 1000
    (shell.directory / "letter.bin").write_bytes(content)
    submitted = shell.json(
        "submit", "letter.bin", "--patient", PATIENT, "--title", "Letter", "--mime-type", "application/pdf"
    )
    unique_id = submitted["documents"][0]["unique_id"]
    (found,) = shell.json("query", "--unique-id", unique_id)
    assert (found["title"], found["mime_type"], found["size"]) == ("Letter", "application/pdf", str(len(content)))
    assert "Letter" in shell.run("query", "--patient", PATIENT).stdout
    contents = shell.json("query", "--contents-of", submitted["submission_set"])
    assert {one["class"] for one in contents} == {"SubmissionSet", "DocumentEntry", "Association"}
    retrieved = shell.json("retrieve", unique_id, "--out", "got")
    assert (shell.directory / retrieved["documents"][0]["file"]).read_bytes() == content


def test_a_study_is_published_and_its_images_are_retrieved_and_drawn(shell: Shell, config: Config) -> None:
    folder = str(real_objects()[0][0])
    same_store = {"XDSI__SERVER__DIRECTORY": config.server.directory}
    loaded = shell.json("load", folder, **same_store)
    (published,) = shell.json(
        "publish", folder, "--patient", PATIENT, "--source-patient", "M7^^^&1.2.3.11&ISO", **same_store
    )
    assert published["study"] in loaded["studies"]
    (listed,) = (one for one in shell.json("studies", **same_store) if one["study"] == published["study"])
    assert (listed["state"], listed["manifest"]) == ("published", published["manifest"])
    assert published["study"] in shell.run("studies", **same_store, COLUMNS="300").stdout
    # Nothing has changed, so that nothing is published.
    assert shell.json("publish", "--study", published["study"], **same_store) == [published]
    shell.json("retrieve", published["manifest"])
    (manifest,) = shell.directory.glob("document-1*")
    images = shell.json("retrieve-images", manifest.name, "--out", "images", "--contact-sheet", "sheet.png")
    assert len(images["documents"]) == published["instances"]
    assert (shell.directory / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_patients_are_made_known_once(shell: Shell) -> None:
    own = {"XDSI__SERVER__DIRECTORY": str(shell.directory / "data")}
    assert "added" in shell.run("patients", "add", PATIENT, **own).stdout
    assert "was known" in shell.run("patients", "add", PATIENT, **own).stdout
    assert shell.json("patients", "list", **own) == [{"patient_id": PATIENT, "subsumed_by": None}]
    assert "is up to date" in shell.run("db", "upgrade", **own).stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("query", "--patient", "nobody"),
            "refused: XDSRegistryError: Parameter $XDSDocumentEntryPatientId: 'nobody' is not of the form",
        ),
        (("query",), "give --patient"),
        (("retrieve", "1.2.3.404"), "XDSDocumentUniqueIdError: document 1.2.3.404 is not in this repository"),
        (("retrieve", "1.2.3", "--repository-id", "1.2"), "XDSUnknownRepositoryId"),
        (
            ("query", "--unique-id", "1.2", "--registry", "http://127.0.0.1:9/registry"),
            "no answer from http://127.0.0.1:9/registry",
        ),
        (("submit", "pyproject.toml", "--patient", "x"), "refused: XDSRegistryMetadataError"),
        (("patients", "add", "x"), "patient id 'x' is not of the form"),
        (("serve", "--host", "192.0.2.1"), "no security is configured"),
        (("config", "--config", "missing.toml"), "missing.toml: No such file or directory"),
    ],
)
def test_a_failure_is_one_line_and_exit_status_1(shell: Shell, arguments: tuple[str, ...], reason: str) -> None:
    (shell.directory / "pyproject.toml").write_text("content")
    done = shell.run(*arguments, status=1, XDSI__SERVER__DIRECTORY=str(shell.directory / "own"))
    assert reason in done.stderr
    assert done.stderr.startswith("xdsi: ")


def test_serve_says_where_it_listens_and_when_it_is_ready(shell: Shell) -> None:
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--actors", "registry,repository"]
    process = subprocess.Popen(command, cwd=shell.directory, stdout=subprocess.PIPE, text=True, env=shell.environment)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("registry    http://127.0.0.1:")
        assert lines[1].startswith("repository  http://127.0.0.1:")
        assert lines[2] == "ready\n"
    finally:
        process.terminate()
        process.communicate(timeout=40)
    assert process.returncode in (0, -15)


def test_the_demo_verifies_every_step(shell: Shell) -> None:
    done = shell.json("demo", "--out", "demo")
    assert [step["verdict"] for step in done["steps"]] == ["verified"] * 6
    assert (shell.directory / "demo" / "contact-sheet.png").exists()
