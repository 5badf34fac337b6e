"""What the tests of DIMSE share: a Storage SCP of their own, and a requester that sends files as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE

from imaging import part10, schema
from imaging.instances import Instances
from imaging.receiving.storage_commitment import Commitment, Peer
from imaging.receiving.store_scp import Settings, StoreScp


@dataclass(frozen=True)
class Source:
    """A source that listens."""

    instances: Instances
    scp: StoreScp
    directory: Path

    @property
    def port(self) -> int:
        return self.scp.port

    @property
    def left_over(self) -> list[Path]:
        """Files that are neither stored nor on their way."""
        return [path for path in self.instances.staging.rglob("*") if path.is_file()]

    @property
    def files(self) -> int:
        return sum(1 for path in (self.directory / "imaging/content").rglob("*") if path.is_file())


@contextmanager
def source(directory: Path, *, peers: dict[str, Peer] | None = None, **settings: Any) -> Iterator[Source]:
    """A source with a Storage SCP on a free port; the same directory has the same instances again."""
    engine = schema.connect(f"sqlite:///{directory / 'imaging.sqlite'}")
    schema.upgrade(engine)
    instances = Instances(engine, directory / "imaging")
    commitment = Commitment(instances, ae_title="XDSI", peers=peers or {})
    scp = StoreScp(instances, Settings(**settings), commitment=commitment)
    scp.start()
    try:
        yield Source(instances, scp, directory)
    finally:
        scp.close()
        instances.close()


def data_set_bytes(path: Path) -> bytes:
    """The bytes after the File Meta Information."""
    with path.open("rb") as file:
        offset = part10.data_set_offset(file)
        assert offset is not None
        file.seek(offset)
        return file.read()


def requester(*classes: tuple[str, str], ae_title: str = "TESTER") -> AE:
    """Proposes each SOP class in each transfer syntax."""
    ae = AE(ae_title)
    for sop_class, syntax in dict.fromkeys(classes):
        ae.add_requested_context(sop_class, syntax)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    return ae


def send(port: int, path: Path, *, called: str = "XDSI", ae_title: str = "TESTER") -> Dataset:
    """Sends the data set of a file as it is, byte for byte; the status that came, empty where nothing was accepted."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return send_bytes(
        port,
        data_set_bytes(path),
        sop_class=header.SOPClassUID,
        uid=header.SOPInstanceUID,
        syntax=header.file_meta.TransferSyntaxUID,
        called=called,
        ae_title=ae_title,
    )


def send_bytes(
    port: int,
    content: bytes,
    *,
    sop_class: str,
    uid: str,
    syntax: str,
    called: str = "XDSI",
    ae_title: str = "TESTER",
    context_class: str | None = None,
) -> Dataset:
    """Sends these bytes in a C-STORE that says what it is told to."""
    association = requester((context_class or sop_class, syntax), ae_title=ae_title).associate(
        "127.0.0.1", port, ae_title=called
    )
    if not association.is_established:
        return Dataset()
    try:
        if not association.accepted_contexts:
            return Dataset()
        request = C_STORE()
        request.MessageID, request.Priority = 7, 0
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, uid
        request.DataSet = io.BytesIO(content)
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            pass
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        status = Dataset()
        if answer is not None:
            status.Status = answer.Status
            if answer.ErrorComment:
                status.ErrorComment = str(answer.ErrorComment)
        return status
    finally:
        if association.is_established:
            association.release()
