"""A real PACS of one's own on free loopback ports: Orthanc with its DICOMweb plugin (Debian: orthanc, orthanc-dicomweb, gcc, libc6-dev)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.limits import free_port

_PLUGINS = Path("/usr/share/orthanc/plugins")
_AE_TITLE = "ORTHANC"
_pause = threading.Event().wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """Where it listens, and what it is called."""

    base: str
    dicomweb: str
    port: int
    ae_title: str

    def store(self, content: bytes) -> None:
        """Stores a Part-10 file by its REST API."""
        request = urllib.request.Request(f"{self.base}/instances", content, {"Content-Type": "application/dicom"})
        urllib.request.urlopen(request, timeout=60).close()


def program() -> str | None:
    found = shutil.which("Orthanc") or ("/usr/sbin/Orthanc" if os.access("/usr/sbin/Orthanc", os.X_OK) else None)
    return found if found and (_PLUGINS / "libOrthancDicomWeb.so").exists() else None


def loopback_only(directory: Path) -> Path:
    """The library that keeps a server on loopback, compiled. FileNotFoundError where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (Debian: gcc, libc6-dev)")
    made = directory / "loopback.so"
    source = Path(__file__).with_name("loopback.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, source, "-ldl"], check=True)
    return made


@contextlib.contextmanager
def serving(peers: dict[str, Sequence[object]] | None = None) -> Iterator[Orthanc]:
    """A PACS until the context ends. `peers` are DICOM modalities that it knows, as [AE title, host, port] by name."""
    orthanc = program()
    if orthanc is None:
        raise FileNotFoundError("Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)")
    with tempfile.TemporaryDirectory(prefix="xdsi-orthanc-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        http, dicom = free_port(), free_port()
        settings = {
            "Name": "PACS",
            "StorageDirectory": str(directory / "content"),
            "IndexDirectory": str(directory / "content"),
            "Plugins": [str(_PLUGINS / "libOrthancDicomWeb.so")],
            "HttpPort": http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": _AE_TITLE,
            "DicomPort": dicom,
            "DicomCheckCalledAet": False,
            **dict.fromkeys(("DicomAlwaysAllowFind", "DicomAlwaysAllowGet", "DicomAlwaysAllowMove"), True),
            "UnknownSopClassAccepted": True,
            "DicomModalities": {one: list(peer) for one, peer in (peers or {}).items()},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
        }
        (directory / "orthanc.json").write_text(json.dumps(settings))
        # Without TCP_NODELAY it would take 40 ms for each small answer.
        environment = {**os.environ, "TCP_NODELAY": "1", "LD_PRELOAD": str(loopback_only(directory))}
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [orthanc, str(directory / "orthanc.json")], env=environment, stdout=log, stderr=log
            )
        try:
            base = f"http://127.0.0.1:{http}"
            _until_it_answers(base, process, directory / "log")
            yield Orthanc(base=base, dicomweb=f"{base}/dicom-web", port=dicom, ae_title=_AE_TITLE)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _until_it_answers(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{base}/system", timeout=5).close()
        except OSError:
            _pause(0.1)
        else:
            return
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
