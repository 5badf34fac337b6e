"""`xdsi studies --give-up`: a submission to which there is never a verdict is ended by what the registry has of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from server.compose import Domain
from server.config import Config, to_toml
from server.embedded import serving
from tests.publication import APPROVED, DEPRECATED, Case, source_config, uids
from xds.messages import Document, Outcome
from xds.metadata import Submission
from xds.problems import Failure, fail


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return source_config(tmp_path_factory.mktemp("giving-up"))


@pytest.fixture(scope="module")
def domain(config: Config) -> Iterator[Domain]:
    with serving(config) as served:
        yield served


@pytest.fixture
def case(config: Config, domain: Domain) -> Case:
    return Case(config, domain)


class Xdsi:
    """The program, with the configuration and the registry of the served domain."""

    def __init__(self, config: Config, domain: Domain, directory: Path) -> None:
        self.path, self.registry = directory / "xdsi.toml", domain.endpoints["registry"]
        self.path.write_text(to_toml(config))

    def give_up(self, study: str, registry: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server.cli", "studies", "--config", str(self.path), "--json"]
        options = ["--registry", registry or self.registry, "--give-up", study]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


@pytest.fixture
def xdsi(config: Config, domain: Domain, tmp_path: Path) -> Xdsi:
    return Xdsi(config, domain, tmp_path)


def silent(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
    raise fail("XDSRegistryError", "an internal fault, each time")


def test_a_submission_that_is_not_registered_is_ended_and_another_one_is_made(case: Case, xdsi: Xdsi) -> None:
    images = case.arrive()
    case.look(replace(case.publisher, provide=silent))
    first = case.publications.submitting(case.study)
    assert first is not None
    done = xdsi.give_up(case.study)
    assert done.returncode == 0, done.stderr
    assert f"{case.study}: the registry has nothing of it; another submission is made next" in done.stderr
    (row,) = (one for one in json.loads(done.stdout) if one["study"] == case.study)
    assert (row["state"], row["reason"]) == ("failed", "to be submitted anew")
    assert case.publications.submitting(case.study) is None
    case.look()
    (entry,) = case.entries()
    assert case.listed() == uids(images)
    assert entry.unique_id != first.documents[0].document_unique_id


def test_one_that_is_registered_has_succeeded_and_is_replaced_as_any(case: Case, xdsi: Xdsi) -> None:
    images = case.arrive()

    def deaf(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        case.publisher.provide(submission, documents)
        return silent(submission, documents)

    case.look(replace(case.publisher, provide=deaf))
    done = xdsi.give_up(case.study)
    assert f"{case.study}: the registry has what it was to do" in done.stderr
    assert (case.overview().state, case.overview().documents) == ("published", 1)
    images += case.arrive(1)
    case.look()
    assert case.listed() == uids(images)
    assert len(case.entries(DEPRECATED)) == 1


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_withdrawal_is_ended_in_the_same_way(case: Case, xdsi: Xdsi, carried_out: bool) -> None:
    images = case.arrive()
    case.look()
    case.reject(images, "113039")
    update = case.publisher.update
    assert update is not None

    def deaf(submission: Submission) -> Outcome:
        if carried_out:
            update(submission)
        raise fail("XDSRegistryError", "an internal fault, each time")

    case.look(replace(case.publisher, update=deaf))
    assert len(case.entries(APPROVED)) == (0 if carried_out else 1)
    assert xdsi.give_up(case.study).returncode == 0
    assert case.publications.submitting(case.study) is None
    case.look()
    assert (case.overview().state, case.entries(APPROVED)) == ("withdrawn", [])


def test_where_there_is_nothing_to_end_or_nobody_to_ask_nothing_is_changed(case: Case, xdsi: Xdsi) -> None:
    case.arrive()
    done = xdsi.give_up(case.study)
    assert done.returncode == 1
    assert done.stderr == f"xdsi: study {case.study} has no submission without a verdict\n"
    with pytest.raises(Failure):
        replace(case.publisher, provide=silent).publish(case.study)
    before = case.publications.submitting(case.study)
    done = xdsi.give_up(case.study, "http://127.0.0.1:9/registry")
    assert (done.returncode, case.publications.submitting(case.study)) == (1, before)
    assert "no answer from http://127.0.0.1:9/registry" in done.stderr
