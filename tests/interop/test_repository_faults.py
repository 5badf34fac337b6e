"""A repository whose processes are killed and whose disk fails: what it has acknowledged is there, and nothing is by half.

The short form of what `make torture` does at length (docs/reliability.md).
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.messages import patient, submission
from torture import sources as load
from torture.crashes import crash_at_each_step, documents, every_promise
from torture.kills import TOPOLOGIES, Domain, kill_again_and_again, one_process, settle
from torture.serving import Disk, compiled

INCIDENT = r"incident [0-9a-f]{8}-[0-9a-f]{4}-"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compiled(tmp_path_factory.mktemp("faults"))
    except FileNotFoundError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))


@pytest.fixture(scope="module")
def disk(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return Disk(tmp_path_factory.mktemp("failing") / "data", library)


@pytest.fixture(scope="module")
def domain(disk: Disk) -> Iterator[Domain]:
    """Repository and registry on a disk that can be told to fail."""
    with one_process(disk.below.parent, disk=disk, grace_s=2.0) as served:
        yield served
        # Whatever failed in between: in the end there is nothing too much, and nothing too little. What could not be removed of
        # unfinished messages goes when the server has been started again.
        sources = served.sources
        served.repository.kill()
        served.repository.start()
        settle(served)
        assert load.audit(sources, sources.ledger, settled=True).faults == []
        assert load.unknown_entries(sources, sources.ledger) == []
        assert load.orphans(served.repository.data) == []


@contextmanager
def failing(disk: Disk, *rules: str) -> Iterator[None]:
    disk.fail(*rules)
    try:
        yield
    finally:
        disk.work()


def submitted(domain: Domain, **how: bool) -> load.Sent:
    sent = domain.sources.submit(documents(), **how)
    domain.sources.ledger.append(sent)
    return sent


# --- processes that die -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_was_acknowledged_outlives_a_kill_under_load(topology: str, tmp_path: Path) -> None:
    with TOPOLOGIES[topology](tmp_path) as domain:
        result = kill_again_and_again(domain, 2, random.Random(5))
    assert (result.faults, result.orphans, result.kills) == ([], [], 2)


def test_whatever_promise_of_the_disk_is_the_last_before_the_power_goes_nothing_is_lost_or_by_half(
    library: Path, tmp_path: Path
) -> None:
    """Every sync, rename and unlink of a submission, and the step after it; what was not synced is gone with the power."""
    disk = Disk(tmp_path / "data", library)
    with one_process(tmp_path, disk=disk, grace_s=2.0) as domain:
        result = crash_at_each_step(domain, disk, "POWER", at=every_promise)
    assert (result.faults, result.orphans) == ([], [])
    assert result.crashed > 10


def test_a_submission_that_is_cut_off_twice_is_whole_in_the_end(library: Path, tmp_path: Path) -> None:
    """First in the middle of staging, then sent once more and registered, but not yet committed."""
    disk = Disk(tmp_path / "data", library)
    with one_process(tmp_path, disk=disk, grace_s=2.0) as domain:
        sources = domain.sources
        given = documents()
        one = submission(patient(1), documents=len(given))
        for where in ("rename 1 repository/", "sync 1 registry.sqlite"):
            disk.fail(f"KILL {where}")
            sent = sources.send(one, given)
            domain.repository.is_dead()
            disk.work()
            domain.repository.start()
        settle(domain)
        assert load.audit(sources, [sent], settled=True).faults == []
        assert sources.retrieved([sent]) == set(sent.documents)
        assert load.orphans(domain.repository.data) == []


# --- a disk that fails ------------------------------------------------------------------------------------------------

OF_THE_REPOSITORY = ("repository/", "repository.sqlite")
FULL = "XDSRepositoryOutOfResources"
BROKEN = "XDSRepositoryError"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("ENOSPC write * repository/", FULL),
        ("ENOSPC write 2 repository/", FULL),
        ("ENOSPC create * repository/", FULL),
        ("ENOSPC mkdir * repository/", FULL),
        ("ENOSPC rename 2 repository/", FULL),
        ("ENOSPC sync 2 repository/", FULL),
        ("ENOSPC write * repository.sqlite", FULL),
        ("ENOSPC write 3 repository.sqlite", FULL),
        ("EIO write * repository/", BROKEN),
        ("EIO create * repository/", BROKEN),
        ("EIO mkdir 1 repository/", BROKEN),
        ("EIO rename 2 repository/", BROKEN),
        ("EIO sync 1 repository/", BROKEN),
        ("EIO sync 3+ repository/", BROKEN),
        ("EIO write * repository.sqlite", BROKEN),
        ("EIO sync 1 repository.sqlite", BROKEN),
        ("LOSE sync 1 repository/", BROKEN),
        ("LOSE sync 1 repository.sqlite", BROKEN),
        ("ENOSPC write * registry.sqlite", "XDSRegistryOutOfResources"),
        ("ENOSPC write 4 registry.sqlite", "XDSRegistryOutOfResources"),
        ("EIO write * registry.sqlite", "XDSRegistryError"),
        ("EIO sync 1 registry.sqlite", "XDSRegistryError"),
        ("LOSE sync 1 registry.sqlite", "XDSRegistryError"),
    ],
)
def test_a_fault_of_the_disk_is_told_by_its_code_and_leaves_nothing_by_half(
    domain: Domain, disk: Disk, rule: str, code: str
) -> None:
    """ITI TF-3 4.2.4.1: no room is XDS...OutOfResources; for the rest there is a number, under which the log knows more."""
    before = submitted(domain)
    with failing(disk, rule):
        sent = submitted(domain)
    assert (sent.told, set(sent.codes)) == ("refused", {code}), sent.text
    if not code.endswith("OutOfResources"):
        assert "incident" in sent.text
    assert str(disk.below) not in sent.text
    after = submitted(domain)
    assert (before.told, after.told) == ("acknowledged", "acknowledged"), after.text
    assert load.audit(domain.sources, [before, sent, after], settled=False).faults == []


def test_a_disk_that_takes_half_of_every_write_is_no_fault(domain: Domain, disk: Disk) -> None:
    with failing(disk, f"SHORT write * {disk.below}"):
        sent = submitted(domain)
    assert sent.told == "acknowledged", sent.text
    assert load.audit(domain.sources, [sent], settled=True).faults == []


def test_a_document_that_cannot_be_read_is_not_given_out_and_can_be_read_later(domain: Domain, disk: Disk) -> None:
    sent = submitted(domain)
    with failing(disk, "EIO read * repository/content"), pytest.raises(ValueError, match="XDSRepositoryError"):
        domain.sources.retrieved([sent])
    assert domain.sources.retrieved([sent]) == set(sent.documents)


def test_a_fault_after_the_registration_changes_nothing_for_the_source(domain: Domain, disk: Disk) -> None:
    """The registry has spoken: what the catalogue cannot note now, the sweep does."""
    with failing(disk, "EIO write 60+ repository.sqlite", "EIO sync 2+ repository.sqlite"):
        sent = submitted(domain)
        assert sent.told == "acknowledged", sent.text
        assert load.audit(domain.sources, [sent], settled=False).faults == []
    settle(domain)
    assert load.audit(domain.sources, [sent], settled=True).faults == []


@pytest.mark.parametrize("settled_before", [False, True], ids=["at once", "after the sweep"])
@pytest.mark.parametrize("fault", ["EIO", "LOSE"])
def test_a_registration_whose_commit_failed_is_whole_or_absent_also_after_a_crash(
    domain: Domain, disk: Disk, fault: str, settled_before: bool
) -> None:
    """What was written before the sync failed may be read again by the next process."""
    with failing(disk, f"{fault} sync 1 registry.sqlite"):
        sent = submitted(domain)
    assert sent.codes == ("XDSRegistryError",), sent.text
    if settled_before:
        settle(domain)
    domain.repository.kill()
    domain.repository.start()
    settle(domain)
    assert load.audit(domain.sources, [sent], settled=True).faults == []


def test_a_disk_that_fails_now_and_then_loses_nothing_under_load(domain: Domain, disk: Disk) -> None:
    """Every twentieth call that changes something fails, of files and both databases."""
    begin = len(domain.sources.ledger)
    with (
        failing(disk, f"EIO any p0.01 {disk.below}", f"ENOSPC any p0.01 {disk.below}"),
        domain.sources.at_work(3, random.Random(6)),
    ):
        domain.sources.wait_for(20)
    new = domain.sources.ledger[begin:]
    assert any(one.told == "refused" for one in new)
    domain.repository.kill()
    domain.repository.start()
    settle(domain)
    assert load.audit(domain.sources, new, settled=True).faults == []


def test_a_disk_that_is_really_full_takes_documents_again_when_there_is_room(tmp_path: Path) -> None:
    """Files and both databases on a file system of six megabytes, which then has more."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, timeout=60).returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        with one_process(place, grace_s=2.0) as domain:
            sent = [submitted(domain) for _ in range(60)]
            codes = {code for one in sent if one.told != "acknowledged" for code in one.codes}
            assert sent[0].told == "acknowledged"
            assert codes and codes <= {FULL, "XDSRegistryOutOfResources"}, {one.text for one in sent}
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True, timeout=60)
            sent += [submitted(domain) for _ in range(3)]
            assert [one.told for one in sent[-3:]] == ["acknowledged"] * 3
            settle(domain)
            assert load.audit(domain.sources, sent, settled=True).faults == []
            assert load.orphans(domain.repository.data) == []
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=60)
