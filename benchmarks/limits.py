"""What the machine itself can do: the figures beside which the server's are printed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

_BLOCK = 512 * 1024


def sqlite_commits_per_second(directory: Path, seconds: float = 2.0) -> float:
    """Durable commits of one row each, one after the other: WAL, synchronous=FULL."""
    with contextlib.closing(sqlite3.connect(directory / "limit.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, body TEXT)")
        count, start, body = 0, time.perf_counter(), "x" * 8000
        while time.perf_counter() - start < seconds:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO row (body) VALUES (?)", (body,))
            database.execute("COMMIT")
            count += 1
        return count / (time.perf_counter() - start)


def fsynced_files_per_second(directory: Path, size: int, seconds: float = 2.0) -> float:
    """Files of `size` bytes written, synced, renamed and their directory synced, one after the other."""
    import os

    target, content = directory / "limit-files", b"x" * size
    target.mkdir()
    count, start = 0, time.perf_counter()
    folder = os.open(target, os.O_RDONLY)
    while time.perf_counter() - start < seconds:
        part = target / f"{count}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target / str(count))
        os.fsync(folder)
        count += 1
    elapsed = time.perf_counter() - start
    os.close(folder)
    shutil.rmtree(target)
    return count / elapsed


def parses_per_second(message: bytes, seconds: float = 1.0) -> float:
    """lxml parses of the same message."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        etree.fromstring(message)
        count += 1
    return count / (time.perf_counter() - start)


def sha1_mb_per_second(megabytes: int = 512) -> float:
    block, digest = b"\x5a" * (1024 * 1024), hashlib.sha1(usedforsecurity=False)
    start = time.perf_counter()
    for _ in range(megabytes):
        digest.update(block)
    digest.hexdigest()
    return megabytes * 1.048576 / (time.perf_counter() - start)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float = 20.0) -> None:
    """Until something listens there. RuntimeError when the process ends first or the time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port} after {timeout_s} s")


def download_mb_per_second(port: int, path: str) -> float:
    """One GET, read to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    start, size = time.perf_counter(), 0
    connection.request("GET", path)
    response = connection.getresponse()
    buffer = bytearray(_BLOCK)
    while count := response.readinto(buffer):
        size += count
    elapsed = time.perf_counter() - start
    connection.close()
    return size / 1e6 / elapsed


_STATIC = """
import sys
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    import os
    size = os.path.getsize(sys.argv[2])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
    with open(sys.argv[2], "rb") as file:
        while chunk := file.read(512 * 1024):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="off")
"""


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def static_uvicorn_mb_per_second(file: Path) -> float:
    """The same file from a bare application in the same web server."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _STATIC, str(port), str(file)])
    with _ended(process):
        wait_for(port, process)
        return max(download_mb_per_second(port, "/") for _ in range(2))


def static_nginx_mb_per_second(file: Path, directory: Path) -> float | None:
    """The same file from nginx, or None where it is not installed."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        return None
    port = free_port()
    configuration = directory / "nginx.conf"
    user = "user root; " if directory.owner() == "root" else ""
    configuration.write_text(
        f"{user}daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; sendfile on; client_body_temp_path {directory}; proxy_temp_path {directory};\n"
        f"fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};\n"
        f"server {{ listen 127.0.0.1:{port}; root {file.parent}; }} }}\n"
    )
    process = subprocess.Popen([nginx, "-c", str(configuration), "-e", str(directory / "nginx.log")])
    with _ended(process):
        wait_for(port, process)
        return max(download_mb_per_second(port, f"/{file.name}") for _ in range(2))
