"""No acknowledged registration is lost when the primary of a synchronous PostgreSQL pair is killed in the middle of the load."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from torture import clients as load
from torture.cluster import Cluster, missing, running

ROUNDS = int(os.environ.get("XDSI_TORTURE_ROUNDS", "3"))
SEED = int(os.environ.get("XDSI_TORTURE_SEED", str(time.time_ns() % 1_000_000)))
REGISTERING_CLIENTS = 4
#: No answer may take longer, whatever happens to the database; a client that had none for so long counts as hung.
LONGEST_ANSWER_S = 15.0
#: Patroni believes a silent leader for 20 s, and needs up to 5 s to see that it is gone; then the other one is promoted.
LONGEST_OUTAGE_S = 60.0
#: How long the standby hears nothing before the primary is killed. Commits then wait for it, and some are in doubt.
DEAF_S = 1.0
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """One kill, and what followed."""

    killed: str
    processes: int
    registrations_out_s: float
    queries_out_s: float
    pair_again_s: float
    rewound: bool


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if absent := missing():
        reason = f"not installed (Debian: apt-get install --no-install-recommends {' '.join(absent)})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with running() as pair:
        print(f"\nseed {SEED}; a synchronous pair after {pair.start():.1f} s")
        yield pair


@contextlib.contextmanager
def _serving(database_url: str, directory: Path) -> Iterator[str]:
    """The endpoint of `xdsi serve` in two worker processes; its log is server.log in the directory."""
    environment = {
        **os.environ,
        "XDSI__REGISTRY__DATABASE": database_url,
        "XDSI__REGISTRY__PATIENTS": "open",
        "XDSI__SERVER__DIRECTORY": str(directory / "data"),
    }
    server_log = directory / "server.log"
    command = [sys.executable, "-m", "server.cli", "serve", "--actors", "registry", "--workers", "2", "--port", "0"]
    with server_log.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=_ROOT, stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True
        )
    try:
        yield _endpoint(process, server_log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _endpoint(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    found = ""
    for line in process.stdout:
        if line.startswith("registry"):
            found = line.split()[1]
        if line.strip() == "ready":
            # Whatever else it says there is read, so that it never waits for a reader.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found
    raise RuntimeError(f"the registry did not start: {log.read_text()[-3000:]}")


def test_no_acknowledged_registration_is_lost_when_the_primary_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Each round kills the one, then the other. RegistryResponse Success means stored (ITI TF-2 3.42.4.1.3): on both servers."""
    chance = random.Random(SEED)
    failovers: list[Failover] = []
    with _serving(cluster.url, tmp_path) as url:
        clients = load.Clients(url, tmp_path / "spool", give_up_s=2 * LONGEST_ANSWER_S)
        ledger = clients.ledger
        for turn in range(2 * ROUNDS):
            begin = len(ledger.registrations)
            with clients.at_work(REGISTERING_CLIENTS):
                # Every second time the standby is behind when the primary goes.
                deaf_s = DEAF_S if turn % 4 in (1, 2) else 0.0
                failovers.append(_fail_over(cluster, ledger, chance.randint(100, 800), deaf_s))
            answers = ledger.registrations[begin:]
            started = time.monotonic()
            found = load.audit(clients.registry, answers)
            _print(f"round {turn // 2 + 1}", failovers[-1], answers, found, time.monotonic() - started)
            _check(answers, found)
        # What came in before a server was rewound is still there after it.
        assert load.missing(clients.registry, ledger.registrations) == []
    _check_ledger(ledger, failovers)
    _print_sum(ledger, failovers, tmp_path / "server.log")


def test_the_same_without_synchronous_commits_loses_registrations_and_the_audit_sees_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """That nothing was lost above says something only because this is seen."""
    with _serving(f"{cluster.url}&options=-c%20synchronous_commit%3Dlocal", tmp_path) as url:
        clients = load.Clients(url, tmp_path / "spool", give_up_s=2 * LONGEST_ANSWER_S)
        with clients.at_work(REGISTERING_CLIENTS):
            failover = _fail_over(cluster, clients.ledger, 100, DEAF_S)
        answers = clients.ledger.registrations
        started = time.monotonic()
        found = load.audit(clients.registry, answers)
    _print("without synchronous commits", failover, answers, found, time.monotonic() - started)
    assert any(one.told == "acknowledged" and one.unique_id not in found.whole for one in answers)


def test_registrations_go_on_without_loss_when_the_standby_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Commits wait until Patroni has seen that nobody listens; then one server is enough, until the other is back."""
    with _serving(cluster.url, tmp_path) as url:
        clients = load.Clients(url, tmp_path / "spool", give_up_s=LONGEST_OUTAGE_S)
        ledger = clients.ledger
        with clients.at_work(REGISTERING_CLIENTS):
            ledger.wait_for(100, since_s=time.monotonic(), timeout_s=120)
            standby, killed_s = cluster.standby(), time.monotonic()
            standby.kill()
            ledger.wait_for(100, since_s=killed_s, timeout_s=120)
            standby.start()
            pair_again_s = cluster.wait_for_pair()
            ledger.wait_for(100, since_s=time.monotonic(), timeout_s=120)
        answers = ledger.registrations
        found = load.audit(clients.registry, answers)
    _check(answers, found)
    assert ledger.vanished == []
    assert {one.told for one in answers} == {"acknowledged"}
    slowest = max(one.took_s for one in answers)
    print(
        f"standby killed: acknowledged {len(answers)}, lost 0, no errors; slowest answer {slowest:.1f} s;"
        f" follows again after {pair_again_s:.1f} s"
    )
    assert slowest < LONGEST_OUTAGE_S


def _fail_over(cluster: Cluster, ledger: load.Ledger, registrations: int, deaf_s: float) -> Failover:
    """Kills the primary after so many registrations; the load goes on until the killed one follows the other again.

    Before the end its standby hears nothing for `deaf_s` seconds.
    """
    ledger.wait_for(registrations, since_s=time.monotonic(), timeout_s=120)
    primary, standby = cluster.primary(), cluster.standby()
    with standby.deaf() if deaf_s else contextlib.nullcontext():
        threading.Event().wait(deaf_s)
        processes = primary.kill()
        # What is sent from here on finds no primary.
        killed_s = time.monotonic()
    ledger.wait_for(registrations, since_s=killed_s, timeout_s=120)
    before = len(primary.said())
    primary.start()
    pair_again_s = cluster.wait_for_pair()
    # Commits wait for the other server again from here on, and it must do so for some time.
    ledger.wait_for(registrations, since_s=time.monotonic(), timeout_s=120)
    assert cluster.primary() is standby
    return Failover(
        killed=primary.name + (" (standby deaf)" if deaf_s else ""),
        processes=processes,
        registrations_out_s=ledger.outage_s(ledger.registrations, killed_s),
        queries_out_s=ledger.outage_s(ledger.queries, killed_s),
        pair_again_s=pair_again_s,
        rewound="pg_rewind: Done!" in primary.said()[before:],
    )


def _check(answers: list[load.Answer], found: load.Audit) -> None:
    lost = [one for one in answers if one.told == "acknowledged" and one.unique_id not in found.whole]
    assert lost == [], f"{len(lost)} acknowledged submissions are lost"
    assert found.by_half == {}, "submissions were stored by half"
    # Who was told that nothing was stored will send it again, perhaps with other content.
    kept = [one for one in answers if one.told == "refused" and one.unique_id in found.whole]
    assert kept == [], "submissions were stored of which the sender was told that they were not"


def _check_ledger(ledger: load.Ledger, failovers: list[Failover]) -> None:
    assert ledger.vanished == [], "acknowledged submissions were not there for who asked next"
    answers = [*ledger.registrations, *ledger.queries]
    improper = {one.text for one in answers if not one.is_proper}
    assert improper == set(), "errors without an incident, or with what is inside"
    slowest = max(answers, key=lambda one: one.took_s)
    assert slowest.took_s < LONGEST_ANSWER_S, slowest
    for one in failovers:
        assert one.registrations_out_s < LONGEST_OUTAGE_S, one


def _print(which: str, failover: Failover, answers: list[load.Answer], found: load.Audit, seconds: float) -> None:
    told = {kind: [one for one in answers if one.told == kind] for kind in ("acknowledged", "refused", "unknown")}
    lost = sum(1 for one in told["acknowledged"] if one.unique_id not in found.whole)
    stored = sum(1 for one in told["refused"] + told["unknown"] if one.unique_id in found.whole)
    print(
        f"{which}, {failover.killed} killed ({failover.processes} processes):"
        f" acknowledged {len(told['acknowledged'])}, refused {len(told['refused'])}, unknown {len(told['unknown'])},"
        f" lost {lost}, by half {len(found.by_half)}, stored although unacknowledged {stored};\n"
        f"    registrations out for {failover.registrations_out_s:.1f} s, queries for {failover.queries_out_s:.1f} s,"
        f" slowest answer {max(one.took_s for one in answers):.2f} s;"
        f" killed server follows again after {failover.pair_again_s:.1f} s ({'pg_rewind' if failover.rewound else 'no rewind needed'});"
        f" asked for all in {seconds:.0f} s"
    )


def _print_sum(ledger: load.Ledger, failovers: list[Failover], server_log: Path) -> None:
    count = ledger.count()
    outages = sorted(one.registrations_out_s for one in failovers)
    texts: dict[str, int] = {}
    for one in [*ledger.registrations, *ledger.queries]:
        if one.text:
            text = load.without_number(one.text)
            texts[text] = texts.get(text, 0) + 1
    print(
        f"in all: {len(failovers)} failovers, acknowledged {count['acknowledged']}, lost 0, refused {count['refused']},"
        f" unknown {count['unknown']}; {len(ledger.queries)} queries meanwhile;"
        f" outages {outages[0]:.1f} to {outages[-1]:.1f} s; the server's log has {server_log.stat().st_size // 1024} KiB"
    )
    for text, number in sorted(texts.items(), key=lambda one: -one[1]):
        print(f"    {number} x {text}")
