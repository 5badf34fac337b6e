"""Every step on disk of one submission is tried as the last one before the processes die, or the machine loses its power."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from torture.crashes import Crash, crash_at_each_step, crash_at_each_step_of_the_sweep
from torture.kills import one_process
from torture.serving import Disk, compiled


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compiled(tmp_path_factory.mktemp("faults"))
    except FileNotFoundError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))


@pytest.mark.parametrize(("crash", "refused"), [("KILL", False), ("POWER", False), ("KILL", True), ("POWER", True)])
def test_nothing_is_lost_or_there_by_half_whatever_step_is_the_last(
    library: Path, tmp_path: Path, crash: Crash, refused: bool
) -> None:
    """Files and catalogue of the repository, and the registry's database, which are below one directory here."""
    disk = Disk(tmp_path / "server" / "data", library)
    with one_process(tmp_path / "server", disk=disk, grace_s=2.0) as domain:
        result = crash_at_each_step(domain, disk, crash, refused=refused)
    kinds = Counter(step.split()[0] for step in result.steps)
    print(
        f"\n{crash} at each of {len(result.steps)} steps ({dict(kinds)}) of a submission that is {'refused' if refused else 'accepted'}:"
        f" crashes {result.crashed}, acknowledged {result.acknowledged}, stored {result.stored},"
        f" faults {len(result.faults)}, orphans {len(result.orphans)}"
    )
    assert result.crashed >= len(result.steps) * 0.8
    assert result.faults == []
    assert result.orphans == []


@pytest.mark.parametrize("crash", ["KILL"])
def test_the_sweep_may_be_cut_off_at_each_of_its_steps(library: Path, tmp_path: Path, crash: Crash) -> None:
    disk = Disk(tmp_path / "server" / "data", library)
    with one_process(tmp_path / "server", disk=disk, grace_s=4.0) as domain:
        result = crash_at_each_step_of_the_sweep(domain, disk, crash)
    print(
        f"\n{crash} at each step of the sweep: crashes {result.crashed}, stored {result.stored},"
        f" faults {len(result.faults)}, orphans {len(result.orphans)}"
    )
    assert result.crashed > 5
    assert result.faults == []
    assert result.orphans == []
