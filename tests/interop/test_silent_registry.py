"""A registry that does not answer a repository, or not in time, or with nonsense: whether it has registered is found out later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from server.config import Config
from torture import sources as load
from torture.deaf import Manner, Relay
from torture.kills import Domain, settle, two_servers
from torture.sources import Sent


def documents() -> tuple[bytes, bytes]:
    """One that goes to the catalogue and one that becomes a file; nobody has seen them before."""
    return os.urandom(5), os.urandom(120_000)


class Between:
    """A repository, its registry, and what stands between."""

    def __init__(self, domain: Domain, relay: Relay) -> None:
        self.domain, self.relay, self.sources = domain, relay, domain.sources

    def submit(self, manner: Manner) -> Sent:
        """One submission, of which the repository hears in this manner."""
        self.relay.manner = manner
        try:
            return self.sources.submit(documents())
        finally:
            self.relay.manner = "pass"


@contextmanager
def repository_before(directory: Path, *, patience_s: float) -> Iterator[Between]:
    """The repository waits so long for its registry, and takes for lost what is twice as old."""
    relays: list[Relay] = []

    @contextmanager
    def relayed(url: str) -> Iterator[str]:
        with Relay(url).relaying() as relay:
            relays.append(relay)
            yield relay.url

    with two_servers(directory, grace_s=2 * patience_s, between=relayed) as domain:
        yield Between(domain, relays[0])


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    with repository_before(tmp_path_factory.mktemp("apart"), patience_s=2.0) as made:
        yield made
        assert load.orphans(made.domain.repository.data) == []
        assert load.unknown_entries(made.sources, made.sources.ledger) == []


MANNERS = [manner for manner in get_args(Manner) if manner not in ("pass", "held")]


def test_the_source_hears_that_the_registry_is_not_available_and_the_sweep_finds_out_what_it_has_registered(
    between: Between,
) -> None:
    """ITI TF-3 4.2.4.1, XDSRegistryNotAvailable. What it has registered becomes retrievable, everything else goes."""
    sources = between.sources
    sent = {manner: between.submit(manner) for manner in MANNERS}
    sources.ledger += sent.values()
    for manner, one in sent.items():
        assert one.codes == ("XDSRegistryNotAvailable",), (manner, one)
        assert "incident" in one.text and "127.0.0.1" not in one.text
    settle(between.domain)
    assert load.audit(sources, list(sent.values()), settled=True).faults == []
    retrieved = sources.retrieved(list(sent.values()))
    assert {manner for manner, one in sent.items() if set(one.documents) <= retrieved} == {
        manner for manner in MANNERS if manner.endswith("registered")
    }


def test_nothing_of_an_unanswered_registration_is_given_out_before_the_registry_is_asked(between: Between) -> None:
    """The source was told of a failure. While the registry stays silent, the sweep decides nothing."""
    sources = between.sources
    between.relay.manner = "silent, registered"
    try:
        sent = sources.submit(documents())
        sources.ledger.append(sent)
        assert (sent.told, sources.retrieved([sent])) == ("unknown", set())
    finally:
        between.relay.manner = "pass"
    settle(between.domain)
    assert sources.retrieved([sent]) == set(sent.documents)


def test_the_same_submission_may_come_again_after_a_lost_answer(between: Between) -> None:
    """It is refused as a duplicate, and the documents of the first time stay."""
    sources = between.sources
    between.relay.manner = "cut, registered"
    try:
        sent = sources.submit(documents(), again=True)
    finally:
        between.relay.manner = "pass"
    assert sent.told in ("stored", "unknown")
    sources.ledger.append(sent)
    settle(between.domain)
    assert load.audit(sources, [sent], settled=True).faults == []
    assert sources.retrieved([sent]) == set(sent.documents)


def test_submissions_that_wait_for_a_silent_registry_hold_up_no_retrieval(tmp_path: Path) -> None:
    """More of them than there are threads. Who retrieves meanwhile has an answer before one of them has."""
    with repository_before(tmp_path, patience_s=60.0) as between, ThreadPoolExecutor(20) as pool:
        stored = between.submit("pass")
        between.relay.manner = "held"
        waiting = [pool.submit(between.sources.submit, documents()) for _ in range(20)]
        for _ in range(Config().repository.threads):
            assert between.relay.holding.acquire(timeout=60)
        assert between.sources.retrieved([stored]) == set(stored.documents)
        assert not any(one.done() for one in waiting)
        between.relay.let_go.set()
        assert {one.result().told for one in waiting} == {"acknowledged"}
