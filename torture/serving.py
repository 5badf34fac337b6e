"""A real `xdsi serve` that is killed and started again at the same address, on a disk that can be told to fail (faults.c)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_SOURCE = Path(__file__).with_name("faults.c")
_pause = threading.Event().wait


def until(true: Callable[[], bool], what: str, *, timeout_s: float = 120.0) -> None:
    """Asks until the answer is yes. TimeoutError with `what` where it stays no: a guard against hanging, not a measurement."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        _pause(0.02)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def compiled(directory: Path) -> Path:
    """The library of faults. FileNotFoundError where there is no C compiler (Debian: gcc, libc6-dev)."""
    library = directory / "faults.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (Debian: apt-get install gcc libc6-dev)")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=120)
    return library


class Disk:
    """The faults of what is below a directory. Without rules it works."""

    def __init__(self, below: Path, library: Path) -> None:
        self.below = below
        self._library, self._rules = library, below.parent / f"{below.name}.faults"
        self._spare = below.parent / f"{below.name}.spare"
        self._spare.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "XDSI_FAULTS": str(self._rules),
            "XDSI_FAULTS_BELOW": str(self.below),
            "XDSI_FAULTS_SPARE": str(self._spare),
        }

    def fail(self, *rules: str) -> None:
        """From now on these rules hold, and no others: `ACTION CALL WHEN PART`, see faults.c. Counting begins anew."""
        new = self._rules.with_suffix(".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.replace(self._rules)

    def work(self) -> None:
        """No faults from now on."""
        self.fail()

    def counted(self) -> list[str]:
        """The calls of COUNT so far, as `CALL PATH`."""
        log = Path(f"{self._rules}.log")
        return log.read_text().splitlines() if log.exists() else []


class Server:
    """`xdsi serve` with a configuration of its own, always at the same port; everything of it is in one directory."""

    def __init__(self, directory: Path, toml: str, *arguments: str, disk: Disk | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.data = directory, directory / "data"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.starts = 0
        self._disk, self._process = disk, None
        config = directory / "xdsi.toml"
        config.write_text(f'[server]\nport = {port}\ndirectory = "{self.data}"\n{toml}')
        self._command = [sys.executable, "-m", "server.cli", "serve", "--config", str(config), *arguments]
        self._process: subprocess.Popen[str] | None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Comes back when it serves."""
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), **({} if self._disk is None else self._disk.environment)}
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                cwd=self.directory,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        self.starts += 1
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError(f"the server did not start: {self.log[-3000:]}")

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.is_dead()

    @property
    def has_died(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def dies(self, *, within_s: float) -> bool:
        """Whether it comes to its end so soon."""
        try:
            self.is_dead(timeout_s=within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def is_dead(self, *, timeout_s: float = 120.0) -> None:
        """Waits for its end."""
        assert self._process is not None and self._process.stdout is not None
        self._process.wait(timeout=timeout_s)
        self._process.stdout.close()
        self._process = None

    def end(self) -> None:
        """As an administrator ends it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self.is_dead()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
