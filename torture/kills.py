"""The servers of a repository killed again and again under load, and what was found each time they were up again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from torture import sources as load
from torture.serving import Disk, Server, until

#: How old a document must be before the sweep removes it: longer than any registration takes on a slow, busy machine.
GRACE_S = 8.0
SOURCES = 5
_pause = threading.Event().wait

_REGISTRY = '[registry]\npatients = "open"\n'


def repository_toml(grace_s: float = GRACE_S) -> str:
    """The section of a repository that sweeps once a second."""
    return f'[repository]\nunique_id = "{load.REPOSITORY}"\nsweep_interval_s = 1\nsweep_grace_s = {grace_s}\n'


@dataclass(slots=True)
class Domain:
    """The servers of one repository and its registry."""

    servers: tuple[Server, ...]
    sources: load.Sources

    @property
    def repository(self) -> Server:
        return self.servers[0]


@contextmanager
def one_process(
    directory: Path, *arguments: str, disk: Disk | None = None, grace_s: float = GRACE_S, toml: str = ""
) -> Iterator[Domain]:
    """Repository and registry in one server. `toml` is more of the configuration."""
    actors = ("--actors", "registry,repository", *arguments)
    server = Server(directory, _REGISTRY + repository_toml(grace_s) + toml, *actors, disk=disk)
    domain = Domain((server,), load.Sources(server.url, server.url, directory / "spool"))
    try:
        server.start()
        yield domain
    finally:
        server.end()


@contextmanager
def two_servers(
    directory: Path, *, grace_s: float = GRACE_S, between: Callable[[str], AbstractContextManager[str]] = nullcontext
) -> Iterator[Domain]:
    """A repository in front of a registry that is another server. `between` may put something at another URL before the registry's."""
    registry = Server(directory / "registry", _REGISTRY, "--actors", "registry")
    with between(registry.url) as url:
        toml = repository_toml(grace_s) + f'registry_url = "{url}/registry"\nregistry_timeout_s = {grace_s / 2}\n'
        repository = Server(directory / "repository", toml, "--actors", "repository")
        domain = Domain((repository, registry), load.Sources(repository.url, registry.url, directory / "spool"))
        try:
            registry.start()
            repository.start()
            yield domain
        finally:
            repository.end()
            registry.end()


TOPOLOGIES: dict[str, Callable[[Path], AbstractContextManager[Domain]]] = {
    "one process": one_process,
    "two workers": lambda directory: one_process(directory, "--workers", "2"),
    "registry apart": two_servers,
}


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of so many kills."""

    kills: int = 0
    faults: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0


def kill_again_and_again(domain: Domain, kills: int, chance: random.Random) -> Result:
    """So many kills under load, with an audit of the new submissions after each restart, and of all of them when the sweep is done."""
    result, seen, began = Result(), 0, time.monotonic()
    sources = domain.sources
    for _ in range(kills):
        with sources.at_work(SOURCES, chance):
            sources.wait_for(chance.randrange(1, 25))
            _pause(chance.random() * 0.05)
            # Mostly the repository; where the registry is apart, sometimes that one.
            victim = chance.choice((domain.repository, *domain.servers))
            victim.kill()
        result.kills += 1
        victim.start()
        new = sources.ledger[seen:]
        seen = len(sources.ledger)
        result.faults += load.audit(sources, new, settled=False).faults
    settle(domain)
    whole = load.audit(sources, sources.ledger, settled=True)
    result.faults += whole.faults
    result.faults += [
        f"in the registry, and not as it was sent: {uid}" for uid in load.unknown_entries(sources, sources.ledger)
    ]
    result.orphans = load.orphans(domain.repository.data)
    result.slowest_s = max(one.took_s for one in sources.ledger if one.told == "acknowledged")
    result.seconds = time.monotonic() - began
    return result


def settle(domain: Domain) -> None:
    """Waits until the running server's sweep has settled whatever was left, which takes its grace time."""
    data = domain.repository.data
    until(lambda: load.unsettled(data) == 0, "the sweep has settled everything")
    until(lambda: not any((data / "repository" / "staging").iterdir()), "the sweep has cleared the staging directory")


def printed(name: str, domain: Domain, result: Result) -> str:
    """The figures of a run, for people."""
    count = load.told(domain.sources.ledger)
    documents = sum(len(one.documents) for one in domain.sources.ledger if one.told in ("acknowledged", "stored"))
    lost = sum("lost" in one for one in result.faults)
    half = sum("half" in one for one in result.faults)
    return (
        f"{name}: kills {result.kills}, submissions {len(domain.sources.ledger)},"
        f" acknowledged {count['acknowledged']} ({documents} documents), lost {lost}, half {half},"
        f" other faults {len(result.faults) - lost - half}, orphans {len(result.orphans)};"
        f" slowest answer {result.slowest_s:.1f} s; {result.seconds:.0f} s in all\n    {dict(count)}"
    )
