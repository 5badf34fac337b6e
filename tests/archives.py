"""What the tests of archives share: real PACS, Orthanc and dcmtk's dcmqrscp, and how an archive asks them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom

from benchmarks.limits import free_port
from benchmarks.orthanc import loopback_only
from imaging.archive import Archive, ArchiveError, Fetched
from imaging.archive.association import Peer, Peering
from imaging.archive.dimse import DimseArchive
from imaging.archive.retrieving import Destination, getting, moving

#: What a PACS is told that we are called.
CALLING = "XDSI"
_pause = threading.Event().wait


@dataclass(frozen=True)
class Pacs:
    """A PACS that speaks DIMSE, and the port to which it sends what CALLING asks for."""

    name: str
    ae_title: str
    port: int
    move_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> str:
        """The configuration's `archive_dimse`."""
        return f"{self.ae_title}@127.0.0.1:{self.port}"


@contextmanager
def dcmqrscp(paths: Sequence[Path], *options: str) -> Iterator[Pacs]:
    """dcmtk's image archive on loopback, which has copies of these files."""
    port, move_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="xdsi-dcmqrscp-", ignore_cleanup_errors=True) as name:
        directory, content = Path(name), Path(name, "content")
        content.mkdir()
        for number, path in enumerate(paths):
            shutil.copy(path, content / f"{number}.dcm")
        (directory / "config").write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
            f"HostTable BEGIN\nhere = ({CALLING}, 127.0.0.1, {move_port})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nQRSCP {content} RW (200, 1024mb) ANY\nAETable END\n"
        )
        files = sorted(map(str, content.iterdir()))
        subprocess.run(["dcmqridx", content, *files], check=True, capture_output=True)
        environment = {**os.environ, "LD_PRELOAD": str(loopback_only(directory)), "TCP_NODELAY": "1"}
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                ["dcmqrscp", "-c", directory / "config", *options],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            _until_it_listens(port, process, directory / "log")
            yield Pacs("dcmqrscp", "QRSCP", port, move_port, process)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            _pause(0.05)
        else:
            return
    raise RuntimeError(f"dcmqrscp did not start: {log.read_text(errors='replace')[-2000:]}")


def dimse_archive(pacs: Pacs, directory: Path, retrieve: str = "get", **settings: float) -> DimseArchive:
    peer = Peer(ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.port, calling=CALLING, **settings)  # type: ignore[arg-type]
    peering = Peering(peer, directory, 4)
    destination = Destination(host="127.0.0.1", port=pacs.move_port)
    return DimseArchive(peering, getting(peering) if retrieve == "get" else moving(peering, destination))


def fetched(archive: Archive, study: str, series: str, instance: str) -> Fetched | None:
    """One instance; its error is raised."""
    outcome = archive.fetch(study, series, [instance]).get(instance)
    if isinstance(outcome, ArchiveError):
        raise outcome
    return outcome


def uids(path: Path) -> tuple[str, str, str]:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPInstanceUID)


def by_series(paths: Sequence[Path]) -> Mapping[tuple[str, str], dict[str, Path]]:
    """The files by SOP Instance UID, by study and series."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in paths:
        study, series, uid = uids(path)
        found.setdefault((study, series), {})[uid] = path
    return found
