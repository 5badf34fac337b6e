"""Two PostgreSQL servers under Patroni with synchronous replication, and the etcd that elects: started, killed, restarted, ended here."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg

from benchmarks.postgres import programs

#: How long the key of a leader that says nothing more is believed: what an outage consists of, mostly. Patroni takes no less than 20.
LEADER_TTL_S = 20
LOOP_S = 5
_HOST = "127.0.0.1"
_pause = threading.Event().wait


def missing() -> list[str]:
    """What of Debian's packages is not installed."""
    needed = {"etcd": "etcd-server", "patroni": "patroni"}
    absent = [package for program, package in needed.items() if shutil.which(program) is None]
    return absent + ([] if programs() else ["postgresql"])


def until(true: Callable[[], bool], what: str, *, timeout_s: float) -> float:
    """Asks until the answer is yes, and says after how many seconds that was. TimeoutError with `what` where it stays no."""
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        _pause(0.1)
    return time.monotonic() - started


class Machine:
    """A directory and a user for processes that are all ended at the end. PostgreSQL refuses to run as root: then it runs as postgres."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.make(".")

    def make(self, name: str) -> Path:
        made = self.directory / name
        made.mkdir(mode=0o700, exist_ok=True)
        self._own(made)
        return made

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        self._own(path)
        return path

    def start(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        user = {} if self.user is None else {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
        with (self.directory / log).open("ab") as out:
            started: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
                **user,  # type: ignore[call-overload]
            )
            return started

    def read(self, log: str) -> str:
        path = self.directory / log
        return path.read_text(errors="replace") if path.exists() else ""

    def _own(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)


class Node:
    """One PostgreSQL server and the Patroni that looks after it."""

    def __init__(self, machine: Machine, name: str, settings: dict[str, object], port: int, rest: int) -> None:
        self.machine, self.name, self.port, self.rest = machine, name, port, rest
        self._data = machine.directory / name
        self._config = machine.write(f"{name}.json", json.dumps(settings))
        self._patroni: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._patroni = self.machine.start("patroni", str(self._config), log=f"{self.name}.log")

    def said(self) -> str:
        """What Patroni and its server have logged so far."""
        return self.machine.read(f"{self.name}.log")

    def kill(self) -> int:
        """SIGKILL to Patroni, the postmaster and every backend; gives their number. As near to a machine's end as one machine has it."""
        parents = [one for one in (self._process(), self._postmaster()) if one is not None]
        for one in parents:
            # So that nobody begins a new process while the old ones are counted.
            one.suspend()
        doomed = {one.pid: one for parent in parents for one in (parent, *parent.children(recursive=True))}
        for one in doomed.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        if self._patroni is not None:
            self._patroni.wait()
            self._patroni = None
        psutil.wait_procs(list(doomed.values()), timeout=30)
        return len(doomed)

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """While the context lasts, the standby takes nothing from its primary: whoever waits for it waits."""
        postmaster = self._postmaster()
        assert postmaster is not None
        receivers = [one for one in postmaster.children() if "walreceiver" in " ".join(one.cmdline())]
        assert len(receivers) == 1, receivers
        receivers[0].suspend()
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                # It must not hear now what waits in its socket: it ends, as it does when a connection ends.
                receivers[0].terminate()
                receivers[0].resume()

    def stop(self) -> None:
        """Lets Patroni end its server; what is left after that is killed."""
        if self._patroni is not None:
            self._patroni.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._patroni.wait(timeout=30)
        self.kill()

    def _process(self) -> psutil.Process | None:
        return None if self._patroni is None or self._patroni.poll() is not None else psutil.Process(self._patroni.pid)

    def _postmaster(self) -> psutil.Process | None:
        """The one whose number stands in our directory, if it still is a server of this directory."""
        try:
            found = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
            return found if str(self._data) in " ".join(found.cmdline()) else None
        except (OSError, ValueError, IndexError, psutil.Error):
            return None


class Cluster:
    """The pair."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        numbers = _free_ports(6)
        self._etcd_port, peers = numbers[0], numbers[1]
        self._passwords = {name: secrets.token_hex(16) for name in ("postgres", "replicator", "xdsi")}
        url, peer = f"http://{_HOST}:{self._etcd_port}", f"http://{_HOST}:{peers}"
        self._etcd = machine.start(
            "etcd", "--name", "etcd", "--data-dir", str(machine.make("etcd")),
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"etcd={peer}",
            log="etcd.log",
        )  # fmt: skip
        self.nodes = [self._node(f"node{n}", numbers[2 * n], numbers[2 * n + 1]) for n in (1, 2)]

    @property
    def url(self) -> str:
        """What the registry is given: both servers; it looks for the one that can be written to."""
        hosts = "&".join(f"host={_HOST}:{node.port}" for node in self.nodes)
        return f"postgresql://xdsi:{self._passwords['xdsi']}@/registry?{hosts}&target_session_attrs=read-write"

    def start(self) -> float:
        """Starts both, and gives the seconds until they were a synchronous pair with an empty database."""
        started = time.monotonic()
        until(self._etcd_is_healthy, "etcd answers", timeout_s=30)
        self.nodes[0].start()
        until(lambda: self._roles().get("node1") == "leader", "node1 leads", timeout_s=60)
        self.nodes[1].start()
        self.wait_for_pair()
        with psycopg.connect(self._conninfo(self.nodes[0]), autocommit=True) as connection:
            password = psycopg.sql.Literal(self._passwords["xdsi"])
            connection.execute(psycopg.sql.SQL("CREATE ROLE xdsi LOGIN PASSWORD {}").format(password))
            connection.execute("CREATE DATABASE registry OWNER xdsi")
        return time.monotonic() - started

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        self._etcd.terminate()
        self._etcd.wait(timeout=30)

    def primary(self) -> Node:
        """The node that leads."""
        roles = self._roles()
        return next(node for node in self.nodes if roles.get(node.name) == "leader")

    def standby(self) -> Node:
        """The one that follows."""
        primary = self.primary()
        return next(node for node in self.nodes if node is not primary)

    def wait_for_pair(self) -> float:
        """The seconds until every commit waits for the other server again."""
        return until(self._is_pair, "one leads, the other follows synchronously", timeout_s=180)

    def _is_pair(self) -> bool:
        """Patroni says so, and so does the server that leads: it is he who makes commits wait."""
        roles = self._roles()
        if sorted(roles.values()) != ["leader", "sync_standby"]:
            return False
        try:
            with psycopg.connect(self._conninfo(self.primary()), autocommit=True, connect_timeout=5) as connection:
                sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"
                return connection.execute(sql).fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def _roles(self) -> dict[str, str]:
        """Which node is what, as the first Patroni that answers has it."""
        for node in self.nodes:
            try:
                answer = httpx.get(f"http://{_HOST}:{node.rest}/cluster", timeout=5, trust_env=False).json()
            except (httpx.HTTPError, ValueError):
                continue
            members = answer.get("members", [])
            return {one["name"]: one["role"] for one in members if one.get("state") in ("running", "streaming")}
        return {}

    def _etcd_is_healthy(self) -> bool:
        if self._etcd.poll() is not None:
            raise RuntimeError(f"etcd did not start: {self._machine.read('etcd.log')[-3000:]}")
        try:
            answer = httpx.get(f"http://{_HOST}:{self._etcd_port}/health", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def _conninfo(self, node: Node) -> str:
        return f"host={_HOST} port={node.port} user=postgres password={self._passwords['postgres']} dbname=postgres"

    def _node(self, name: str, port: int, rest: int) -> Node:
        def account(user: str) -> dict[str, str]:
            return {"username": user, "password": self._passwords[user]}

        binaries = programs()
        assert binaries is not None, missing()
        directory = self._machine.directory
        settings: dict[str, object] = {
            "scope": "xdsi",
            "name": name,
            "restapi": {"listen": f"{_HOST}:{rest}", "connect_address": f"{_HOST}:{rest}"},
            "etcd3": {"hosts": f"{_HOST}:{self._etcd_port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": LEADER_TTL_S,
                    "loop_wait": LOOP_S,
                    "retry_timeout": 5,
                    "synchronous_mode": True,
                    # Bytes. In synchronous mode only the standby that commits wait for is promoted, however far behind it is.
                    "maximum_lag_on_failover": 1024**3,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"{_HOST}:{port}",
                "connect_address": f"{_HOST}:{port}",
                "data_dir": str(directory / name),
                "bin_dir": str(binaries),
                "pgpass": str(directory / f"{name}.pgpass"),
                "authentication": {"superuser": account("postgres"), "replication": account("replicator")},
                "pg_hba": [
                    f"host replication replicator {_HOST}/32 scram-sha-256",
                    f"host all all {_HOST}/32 scram-sha-256",
                ],
                "parameters": {
                    "unix_socket_directories": "",
                    "password_encryption": "scram-sha-256",
                    "shared_buffers": "128MB",
                    "max_connections": 100,
                    "wal_log_hints": "on",
                },
            },
        }
        return Node(self._machine, name, settings, port, rest)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind((_HOST, 0))
            found.append(one.getsockname()[1])
        return found


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A pair with an empty database `registry`, until the context ends."""
    with tempfile.TemporaryDirectory(prefix="xdsi-torture-", ignore_cleanup_errors=True) as made:
        machine = Machine(Path(made))
        cluster = Cluster(machine)
        try:
            yield cluster
        except BaseException:
            for node in cluster.nodes:
                print(f"--- {node.name}\n{node.said()[-3000:]}")
            raise
        finally:
            # An interrupt must not come between the ends of two processes.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            cluster.stop()
            signal.signal(signal.SIGINT, before)
