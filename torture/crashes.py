"""One submission, and the server killed at each of its steps on disk in turn: every durable step is a crash point that is tried."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torture import sources as load
from torture.kills import Domain, settle
from torture.serving import Disk, until

#: KILL: the processes die. POWER: what was not synced is gone as well.
Crash = Literal["KILL", "POWER"]


def documents() -> tuple[bytes, ...]:
    """Ones that go to the catalogue, the other of them without bytes, and two that become files; nobody has seen them before."""
    return os.urandom(20_000), os.urandom(200_000), b"", os.urandom(100_000)


@dataclass(slots=True, kw_only=True)
class Crashes:
    """What came of them. `steps` are the calls of one submission that was let be."""

    steps: list[str]
    crashed: int = 0
    acknowledged: int = 0
    stored: int = 0
    faults: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def steps_of(disk: Disk, work: Callable[[], object]) -> list[str]:
    """The calls that change something on disk while `work` runs, as `CALL PATH`, in their order."""
    before = len(disk.counted())
    disk.fail(f"COUNT any * {disk.below}")
    work()
    disk.work()
    return disk.counted()[before:]


def every_step(steps: Sequence[str]) -> Iterator[int]:
    """All of them, and what comes after the last."""
    return iter(range(1, len(steps) + 2))


def every_promise(steps: Sequence[str]) -> Iterator[int]:
    """Those at which something becomes durable, gets its name or loses it, and what comes after each."""
    promises = {n for n, step in enumerate(steps, 1) if step.split()[0] in ("sync", "rename", "unlink")}
    return iter(sorted(promises | {n + 1 for n in promises}))


def crash_at_each_step_of_the_sweep(domain: Domain, disk: Disk, crash: Crash) -> Crashes:
    """Submissions that end after their registration, and before it; then the server dies at each step of settling them."""
    sources = domain.sources
    sources.ledger.append(sources.submit(documents()))
    result = Crashes(steps=[])

    def settle_and_die(number: int) -> bool:
        disk.fail(f"{crash} any {number} {disk.below}")
        until(lambda: domain.repository.has_died or load.unsettled(domain.repository.data) == 0, "swept, or dead")
        crashed = domain.repository.dies(within_s=0.5)
        disk.work()
        if crashed:
            result.crashed += 1
            domain.repository.start()
        return crashed

    def leave_behind() -> None:
        """Of one the registry has an entry, of the other one none: by where the processes died."""
        for where in ("sync 1 registry.sqlite", "write 1 registry.sqlite"):
            disk.fail(f"KILL {where}")
            sources.ledger.append(sources.submit(documents()))
            domain.repository.is_dead()
            disk.work()
            domain.repository.start()

    number = 1
    leave_behind()
    while settle_and_die(number):
        leave_behind()
        number += 1
    settle(domain)
    return _audited(domain, result)


def crash_at_each_step(
    domain: Domain,
    disk: Disk,
    crash: Crash,
    *,
    at: Callable[[Sequence[str]], Iterator[int]] = every_step,
    refused: bool = False,
) -> Crashes:
    """Submits, and crashes at the n-th step for each n that `at` gives of all the steps, counted from 1; then looks at what is there.

    `refused`: the registry refuses the submission, so that what is interrupted is its removal.
    """
    sources = domain.sources

    def submit() -> load.Sent:
        sent = sources.submit(documents(), spoiled=refused)
        sources.ledger.append(sent)
        return sent

    # What is only done once is done before.
    sources.ledger.append(sources.submit(documents()))
    submit()
    result = Crashes(steps=steps_of(disk, submit))
    for number in at(result.steps):
        disk.fail(f"{crash} any {number} {disk.below}")
        sent = submit()
        # The last steps come after the answer.
        crashed = domain.repository.dies(within_s=60.0 if sent.told == "unknown" else 0.5)
        disk.work()
        if crashed:
            result.crashed += 1
            domain.repository.start()
        step = result.steps[number - 1] if number <= len(result.steps) else "after the last"
        result.faults += [f"step {number}, {step}: {one}" for one in load.audit(sources, [sent], settled=False).faults]
    settle(domain)
    return _audited(domain, result)


def _audited(domain: Domain, result: Crashes) -> Crashes:
    """With what is there in the end."""
    sources = domain.sources
    whole = load.audit(sources, sources.ledger, settled=True)
    result.faults += whole.faults
    result.stored = whole.whole
    result.acknowledged = load.told(sources.ledger)["acknowledged"]
    unknown = load.unknown_entries(sources, sources.ledger)
    result.faults += [f"in the registry, and not as it was sent: {uid}" for uid in unknown]
    result.orphans = load.orphans(domain.repository.data)
    return result
