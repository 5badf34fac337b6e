"""Images that several processes receive on one port."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from imaging.phantom import write_series
from tests.dimse import requester, send
from tests.interop.test_serving import children, free_port, served, sockets_of, until


def test_processes_share_the_associations_and_survive_one_another(tmp_path: Path) -> None:
    """What each has stored both give; one that dies in the middle is replaced, and what had come to it in part goes."""
    (tmp_path / "series").mkdir()
    paths = write_series(tmp_path / "series", slices=8, patient_id="P1", patient_name="A^B")
    port = free_port()
    toml = f"[imaging]\ndimse_port = {port}\ndimse_associations = 8\n"
    asking = requester((CTImageStorage, ExplicitVRLittleEndian))
    with served(tmp_path, toml, "--workers", "2", "--actors", "imaging") as (process, at):
        until(lambda: (tmp_path / "log").read_text().count("Started server") == 2)
        started = time.monotonic()
        workers = children(process.pid)
        before = [sockets_of(one) for one in workers]
        associations = [asking.associate("127.0.0.1", port) for _ in range(8)]
        assert [one.is_established for one in associations] == [True] * 8
        # Of each association it has the connection, and a pair of sockets to be woken by.
        taken = [sockets_of(one) - less for one, less in zip(workers, before, strict=True)]
        assert min(taken) >= 6, taken
        assert asking.associate("127.0.0.1", port).is_rejected
        answers = [
            one.send_c_store(pydicom.dcmread(path)).Status for one, path in zip(associations, paths, strict=True)
        ]
        assert answers == [0] * 8
        assert listed(at["dicomweb"]) == 8

        parts = tmp_path / "data" / "imaging" / "staging" / "dimse" / str(workers[0])
        (parts / "left.part").write_bytes(b"what had come")
        # One that ends within a second of the start is taken for one that can not start.
        until(lambda: time.monotonic() > started + 1.5)
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len(children(process.pid)) == 2 and workers[0] not in children(process.pid))
        until(lambda: not (parts / "left.part").exists())
        for one in associations:
            one.abort()
        assert send(port, paths[0]).Status == 0
        assert listed(at["dicomweb"]) == 8


def listed(dicomweb: str) -> int:
    with urllib.request.urlopen(f"{dicomweb}/instances", timeout=60) as answer:
        return len(json.load(answer))
