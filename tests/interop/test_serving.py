"""`xdsi serve` as it is run: several processes, several affinity domains, a feed; and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.messages import SIMPLE, patient, register, submission

ADT = (
    "MSH|^~\\&|ADT1|NORTH|XDSREG|AFFDOM|20240102030405||ADT^A04|M1|P|2.3.1\r"
    "EVN|A04\rPID|||bench1^^^&1.2.3.4&ISO||Muster^Ann\rPV1||N\r"
)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def served(directory: Path, toml: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running server, and its endpoints as it told them."""
    (directory / "xdsi.toml").write_text(f'[server]\nport = 0\ndirectory = "{directory / "data"}"\n{toml}')
    command = [sys.executable, "-m", "server.cli", "serve", "--config", str(directory / "xdsi.toml"), *arguments]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=directory)
    try:
        endpoints: dict[str, str] = {}
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                break
            name, address = line.split()
            endpoints[name] = address
        assert endpoints, (directory / "log").read_text()
        yield process, endpoints
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0
        assert process.stdout is not None
        process.stdout.close()


def post(url: str, body: bytes, content_type: str = SIMPLE) -> str:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read(), "utf-8")


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: object, seconds: float = 60) -> None:
    """Waits for what another process does; there is nothing to be told by."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_several_processes_serve_one_registry_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path, '[registry]\npatients = "open"\n', "--workers", "3", "--actors", "registry") as (process, at):
        for number in range(12):
            assert "Success" in post(at["registry"], register(submission(patient(number), registered=True)))
        workers = children(process.pid)
        assert len(workers) == 3
        until(lambda: "Started server" in (tmp_path / "log").read_text())
        time.sleep(1.0)  # a worker that dies within a second of the start ends the server
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len(children(process.pid)) == 3 and workers[0] not in children(process.pid))
        for number in range(12):
            assert "Success" in post(at["registry"], register(submission(patient(number), registered=True)))


@pytest.mark.parametrize("pinned", [True, False])
def test_workers_have_processors_of_their_own_where_there_are_as_many(tmp_path: Path, pinned: bool) -> None:
    if len(all_of_them := os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one processor: there is nothing to keep apart")
    toml = f"pin_workers = {str(pinned).lower()}\n"
    with served(tmp_path, toml, "--workers", "2", "--actors", "registry") as (process, _):
        until(lambda: (tmp_path / "log").read_text().count("Started server") == 2)
        first, second = (os.sched_getaffinity(one) for one in children(process.pid))
    assert (len(first), len(second), len(first & second)) == ((1, 1, 0) if pinned else (*[len(all_of_them)] * 3,))


def sockets_of(pid: int) -> int:
    with os.scandir(f"/proc/{pid}/fd") as files:
        return sum(os.readlink(one.path).startswith("socket:") for one in files)


def test_workers_share_the_connections(tmp_path: Path) -> None:
    """Also those that come all at once; and one that has stopped does not keep the other from taking them."""
    with served(tmp_path, "", "--workers", "2", "--actors", "registry") as (process, at), ExitStack() as connections:
        until(lambda: (tmp_path / "log").read_text().count("Started server") == 2)
        address = urllib.parse.urlsplit(at["registry"])
        workers = children(process.pid)
        before = [sockets_of(one) for one in workers]

        def taken() -> list[int]:
            return [sockets_of(one) - less for one, less in zip(workers, before, strict=True)]

        def connect(count: int) -> None:
            for _ in range(count):
                made = socket.create_connection((address.hostname or "", address.port or 0))
                connections.enter_context(made)

        connect(32)
        until(lambda: sum(taken()) == 32)
        assert min(taken()) >= 4
        os.kill(workers[0], signal.SIGSTOP)
        try:
            connect(32)
            until(lambda: sum(taken()) == 64)
        finally:
            os.kill(workers[0], signal.SIGCONT)


def test_domains_have_paths_patients_codes_and_strictness_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "codes.toml").write_text('[classCode."1.2.3.4.8.1"]\nOTHER = "Other"\n')
    toml = (
        '[registry]\npatients = "open"\n'
        f'[domains.north]\npatients = "known"\ncodes = "{tmp_path / "codes.toml"}"\n'
        '[domains.south]\npatients = "open"\ncodes = "' + str(tmp_path / "codes.toml") + '"\n'
        '[domains.south.strictness]\ncodes_are_known = "warning"\n'
    )
    message = register(submission(patient(1), registered=True))
    with served(tmp_path, toml, "--actors", "registry") as (_, at):
        assert set(at) == {"registry", "north/registry", "south/registry"}
        assert "ResponseStatusType:Success" in post(at["registry"], message)
        north = post(at["north/registry"], message)
        assert "XDSUnknownPatientId" in north and "REPORTS" in north and "knows 1 code" in north
        south = post(at["south/registry"], message)
        assert "ResponseStatusType:Success" in south and "ErrorSeverityType:Warning" in south and "REPORTS" in south
        # What is registered here is not registered there: each has accepted the same uniqueIds once.
        assert "XDSDuplicateUniqueIdInRegistry" in post(at["south/registry"], message)


def test_a_patient_that_the_feed_tells_of_is_known(tmp_path: Path) -> None:
    port = free_port()
    toml = f'[registry]\nassigning_authorities = "1.2.3.4"\nfeed_port = {port}\n'
    message = register(submission(patient(1), registered=True))
    with served(tmp_path, toml, "--workers", "2", "--actors", "registry") as (_, at):
        assert "XDSUnknownPatientId" in post(at["registry"], message)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"\x0b" + ADT.encode() + b"\x1c\r")
            assert b"MSA|AA|M1" in connection.recv(4096)
        assert "ResponseStatusType:Success" in post(at["registry"], message)


def test_a_transaction_that_is_not_offered_is_not_there(tmp_path: Path) -> None:
    from benchmarks.messages import envelope

    body = b'<l:RemoveObjectsRequest xmlns:l="urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"/>'
    with (
        served(tmp_path, '[registry]\noptions = "multi-patient"\n', "--actors", "registry") as (_, at),
        pytest.raises(urllib.error.HTTPError) as refused,
    ):
        post(at["registry"], envelope("urn:ihe:iti:2010:DeleteDocumentSet", body))
    assert "ActionNotSupported" in str(refused.value.read(), "utf-8")


def test_patients_of_a_domain_are_added_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(f'[server]\ndirectory = "{tmp_path}"\n[domains.north]\n')

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server.cli", "patients", *arguments, "--config", str(tmp_path / "x.toml")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "added" in run("add", "a^^^&1.2&ISO", "--domain", "north").stdout
    assert json.loads(run("list", "--domain", "north", "--json").stdout) != []
    assert json.loads(run("list", "--json").stdout) == []
    assert "there is no affinity domain 'south'; there are north" in run("list", "--domain", "south").stderr


def test_a_feed_that_others_can_reach_needs_to_be_wanted(tmp_path: Path) -> None:
    toml = (
        f'[server]\ndirectory = "{tmp_path}"\nport = 0\n[registry]\nfeed_port = {free_port()}\nfeed_host = "0.0.0.0"\n'
    )
    (tmp_path / "x.toml").write_text(toml)
    command = [sys.executable, "-m", "server.cli", "serve", "--config", str(tmp_path / "x.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "registry.feed_host is '0.0.0.0', which others can reach" in done.stderr
