"""`python -m benchmarks.ingest`: one CT series sent by dcmtk's storescu to our Storage SCP, to dcmtk's storescp, and to Orthanc.

What we answer with success is on disk; storescp and Orthanc do not wait for it. `raw` is the bare disk: fsynced files of the same size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import limits
from imaging.phantom import write_series

#: Without it dcmtk waits for delayed acknowledgements, and sends some twenty files a second to whomever.
_QUICK = {**os.environ, "TCP_NODELAY": "1"}
_pause = threading.Event().wait
#: Starts a receiver on a port, with a directory for it.
Receiver = Callable[[int, Path], Sequence[str]]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def xdsi(port: int, directory: Path, workers: int = 1) -> Sequence[str]:
    """Our whole server with its Storage SCP, in so many processes."""
    (directory / "xdsi.toml").write_text(
        f'[server]\nport = 0\nactors = "imaging"\ndirectory = "{directory}"\nlog_level = "warning"\n'
        f"workers = {workers}\n[imaging]\ndimse_port = {port}\n"
    )
    return (sys.executable, "-m", "server.cli", "serve", "--config", str(directory / "xdsi.toml"))


def storescp(port: int, directory: Path) -> Sequence[str]:
    """dcmtk's receiver, which writes what comes as it comes, one process for each association."""
    return ("storescp", "--fork", "+B", "-od", str(directory), str(port))


def orthanc(port: int, directory: Path) -> Sequence[str]:
    """Orthanc on loopback, with its SQLite index."""
    settings = {
        "StorageDirectory": str(directory),
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "HttpServerEnabled": False,
        "RemoteAccessAllowed": False,
    }
    (directory / "orthanc.json").write_text(json.dumps(settings))
    return ("Orthanc", str(directory / "orthanc.json"))


@contextmanager
def receiving(receiver: Receiver) -> Iterator[int]:
    """The port of a receiver that listens until the context ends."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="xdsi-ingest-", ignore_cleanup_errors=True) as name:
        command = receiver(port, Path(name))
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(command, env=_QUICK, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(port, process)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True).returncode == 0:
            return
        if process.poll() is not None:
            break
        _pause(0.1)
    raise SystemExit(f"{process.args!r} does not listen")


def send(port: int, folders: Sequence[Path]) -> float:
    """Seconds that as many storescu as there are folders take to send them, each on an association of its own."""

    def of(folder: Path) -> None:
        subprocess.run(["storescu", "+sd", "127.0.0.1", str(port), folder], env=_QUICK, check=True, capture_output=True)

    start = time.perf_counter()
    with ThreadPoolExecutor(len(folders)) as executor:
        list(executor.map(of, folders))
    return time.perf_counter() - start


def split(paths: Sequence[Path], directory: Path, parts: int) -> list[Path]:
    """Folders with links to the files, as many in each."""
    folders = [directory / f"{parts}-{number}" for number in range(parts)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for path in paths[number::parts]:
            (folder / path.name).hardlink_to(path)
    return folders


def main() -> None:
    """Prints a table."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    arguments.add_argument("--slices", type=int, default=500)
    arguments.add_argument("--runs", type=int, default=3, help="the best of so many is told")
    given = arguments.parse_args()
    receivers: dict[str, Receiver] = {"xdsi": xdsi, "xdsi, 2 processes": partial(xdsi, workers=2), "storescp": storescp}
    if shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        receivers["Orthanc"] = orthanc
    with tempfile.TemporaryDirectory(prefix="xdsi-ingest-") as name:
        directory = Path(name)
        (directory / "series").mkdir()
        paths = write_series(directory / "series", slices=given.slices, patient_id="BENCH", patient_name="Bench^Mark")
        size = sum(path.stat().st_size for path in paths)
        raw = limits.fsynced_files_per_second(directory, size // len(paths))
        print(f"{len(paths)} files, {size / 1e6:.0f} MB; the bare disk: {raw:.0f} fsynced files/s of that size\n")
        print("| receiver | associations | files/s | MB/s | xdsi to it |\n|---|---|---|---|---|")
        for associations in (1, 4):
            folders = split(paths, directory, associations)
            ours = 0.0
            for label, receiver in receivers.items():
                seconds = float("inf")
                for _ in range(given.runs):
                    # Each run into an empty store: nothing is a duplicate.
                    with receiving(receiver) as port:
                        seconds = min(seconds, send(port, folders))
                rate = len(paths) / seconds
                ours = ours or rate
                print(f"| {label} | {associations} | {rate:.0f} | {size / 1e6 / seconds:.0f} | {ours / rate:.2f} |")


if __name__ == "__main__":
    main()
