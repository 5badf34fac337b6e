"""Associations that we ask a PACS for: with the bounds of those that come to us, and what a status of it means."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket

from imaging.archive import ArchiveError
from imaging.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from imaging.receiving.arrivals import TELLING, Arrival, BoundedSocket, Bounds, Messages, UpperLayer

PDU_BYTES = 128 * 1024
#: Most bytes of the answers on one association that are no instances.
_MAX_ANSWERS = 256 * 1024 * 1024
#: Most messages with instances that may wait: the archive has to wait for the answer to each (PS3.7 D.3.3.3).
_MAX_STORES = 8
#: How often it is looked whether an association has ended, in seconds.
_LOOK_S = 0.1
_MOMENT_S = 0.001
# PS3.7 Annex C, PS3.4 C.4.
_MEANINGS = {
    0x0110: "processing failure",
    0x0117: "invalid object instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
    0xA700: "out of resources",
    0xA701: "out of resources, matches cannot be counted",
    0xA702: "out of resources, sub-operations cannot be performed",
    0xA801: "move destination unknown",
    0xA900: "identifier does not match the SOP class",
    0xB000: "sub-operations complete, with failures or warnings",
    0xFE00: "cancelled",
}
SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
Stored = Callable[[evt.Event], int]
"""Takes a C-STORE; its status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A PACS, and what we call ourselves to it. `timeout_s` is its longest silence, `max_bytes` its longest data set."""

    ae_title: str
    host: str
    port: int
    calling: str
    timeout_s: float = 60.0
    max_bytes: int = 8 * 1024**3

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def bounds(self) -> Bounds:
        return Bounds(pdu_bytes=PDU_BYTES, object_bytes=self.max_bytes, pdu_s=self.timeout_s, connections=8)


class Peering:
    """Gives associations with one PACS, so many at once."""

    def __init__(self, peer: Peer, directory: Path, connections: int) -> None:
        """Data sets that come go to `directory`."""
        self.peer, self.directory = peer, directory
        self._free = threading.BoundedSemaphore(connections)

    @contextmanager
    def associated(
        self, contexts: Sequence[PresentationContext], *, storage: Sequence[str] = (), stored: Stored | None = None
    ) -> Iterator[Association]:
        """An association with these presentation contexts, on which instances of the SOP classes `storage` may come to `stored`.

        ArchiveError where there is none.
        """
        peer = self.peer
        if not self._free.acquire(timeout=peer.timeout_s):
            raise ArchiveError(f"{peer}: all associations were in use for {peer.timeout_s:.0f} s")
        try:
            association = _Requester(peer, self.directory).associate(
                peer.host,
                peer.port,
                ae_title=peer.ae_title,
                contexts=list(contexts),
                max_pdu=PDU_BYTES,
                ext_neg=[build_role(UID(one), scp_role=True) for one in storage],
                evt_handlers=[(evt.EVT_C_STORE, stored)] if stored else [],
            )
            try:
                if not association.is_established:
                    raise ArchiveError(f"{peer}: {_refused(association)}")
                yield association
                association.release()
            except (RuntimeError, ValueError) as error:
                # pynetdicom says so of an association that has ended meanwhile, and of what has no presentation context on it.
                raise ArchiveError(f"{peer}: {error}") from error
            finally:
                if association.is_established:
                    association.abort()
                if isinstance(association.dimse, Messages):
                    association.dimse.drop()
        finally:
            self._free.release()


def said(status: Dataset) -> str:
    """What a status of the archive means; what it is when none came."""
    code = status.get("Status")
    if code is None:
        return "it did not answer, or ended the association"
    meaning = "unable to process" if code >> 12 == 0xC else _MEANINGS.get(code, "")
    comment = str(status.get("ErrorComment", "") or "")[:64]
    return f"status {code:04X}" + (f" ({meaning})" if meaning else "") + (f" {comment!r}" if comment else "")


def _refused(association: Association) -> str:
    if association.is_rejected:
        primitive: Any = association.acceptor.primitive
        return f"it rejected the association: {getattr(primitive, 'reason_str', 'no reason')}"
    if association.rejected_contexts and not association.accepted_contexts:
        return "it accepted none of the presentation contexts"
    return "no association could be made"


class _Answers(Messages):
    """What comes on an association that we have asked for: answers, which need not be waited for, and instances."""

    def __init__(self, association: Association, directory: Path, bounds: Bounds) -> None:
        super().__init__(association, directory, bounds, lambda _: None)
        self._came = self._kept = 0

    def get_msg(self, block: bool = False) -> Any:
        """The next message; where `block`, for as long as the association lives and the archive is not silent for too long."""
        if not block:
            # Whoever asks for something waits for the answer: pynetdicom's own loop, which may run meanwhile, would take it away.
            time.sleep(_MOMENT_S)
            return None, None
        until = time.monotonic() + (self.dimse_timeout or 60.0)
        while True:
            # In this order: what came before the end is looked at.
            ended = self.dul.peek_next_pdu() is not None or not self.dul.is_alive()
            seen = self._came
            try:
                return self.msg_queue.get(timeout=_LOOK_S)
            except queue.Empty:
                if self._came > seen:
                    until = time.monotonic() + (self.dimse_timeout or 60.0)
                if ended or time.monotonic() > until:
                    return None, None

    def _too_much(self, length: int, *, command: bool) -> bool:
        self._came += length
        message = self.message
        if isinstance(message, C_STORE_RQ):
            if isinstance(message.data_set, Arrival) and not command:
                return message.data_set.endless
            if self.msg_queue.qsize() >= _MAX_STORES:
                return True
        self._kept += length
        return self._kept > _MAX_ANSWERS


class _Socket(BoundedSocket):
    """Ours, once it is connected."""

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        if not self._is_connected:
            time.sleep(_MOMENT_S)
            return False
        return super().ready

    def connect(self, primitive: Any) -> None:
        made = self.socket
        super().connect(primitive)
        if self.socket is None:
            # It is forgotten there, and not closed.
            if made is not None:
                made.close()
        else:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(self.pdu_s)


class _Requester(AE):
    """Asks for associations whose socket and messages are ours."""

    def __init__(self, peer: Peer, directory: Path) -> None:
        super().__init__(peer.calling)
        self._peer, self._directory = peer, directory
        self.acse_timeout = self.dimse_timeout = self.network_timeout = peer.timeout_s
        self.connection_timeout = min(10.0, peer.timeout_s)
        self.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME

    def _create_socket(self, assoc: Association, address: Any, tls_args: Any) -> AssociationSocket:
        bounds = self._peer.bounds
        assoc.dul = UpperLayer(assoc)
        assoc.acse_timeout, assoc.network_timeout = self.acse_timeout, self.network_timeout
        for event, handler in TELLING:
            assoc.unbind(event, handler)
        assoc.dimse = _Answers(assoc, self._directory, bounds)
        assoc.dimse_timeout = self.dimse_timeout
        connection = _Socket(assoc, address=address)
        connection.max_bytes = max(connection.max_bytes, bounds.pdu_bytes + 64)
        connection.pdu_s = bounds.pdu_s
        return connection
