"""Storage Commitment Push Model SCP (PS3.4 Annex J, IHE RAD-10): says of instances whether they are stored for good.

The report goes to the requester on its own association where that stays open and silent, else on a new one to where the configuration says
that this AE title is. A report that is not given when the server ends is lost: the requester asks again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION

from imaging.dimse import status_of
from imaging.instances import Instances
from imaging.receiving.arrivals import Messages
from xds.values import is_oid

_log = logging.getLogger("xdsi.imaging")

STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")
_WELL_KNOWN = UID("1.2.840.10008.1.20.1.1")
# PS3.7 Annex C.
_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_INSTANCE = 0x0112
_INVALID_ARGUMENT = 0x0115
_CLASS_INSTANCE_CONFLICT = 0x0119
_NO_SUCH_ACTION = 0x0123
_RESOURCE_LIMITATION = 0x0213
#: Action Type and Event Types of PS3.4 J.3.2 and J.3.3.
_REQUEST = 1
_ALL_STORED, _SOME_FAILED = 1, 2
#: Most reports that wait to be given.
_MAX_WAITING = 256
_THREADS = 4
#: How long a requester has to say that it releases its association, in seconds; then the report comes on it.
_RELEASE_S = 0.5
#: How long it is waited before each attempt to reach a requester that cannot be reached, in seconds.
_WAITS_S = (0.0, 2.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where an application entity listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What is to be said, to whom; `received` is how many messages had come on the association when it was asked."""

    requester: str
    event_type: int
    content: Dataset
    association: Association
    received: int


class Commitment:
    """The SCP. `peers` says where the requesters are, by AE title; `ae_title` is ours."""

    def __init__(
        self, instances: Instances, *, ae_title: str, peers: Mapping[str, Peer], timeout_s: float = 30.0
    ) -> None:
        self._instances, self._ae_title, self._peers, self._timeout_s = instances, ae_title, peers, timeout_s
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="xdsi-commitment")
        self._closing = threading.Event()
        self._lock = threading.Lock()
        #: Reports whose requests were not answered yet, and how many there are in all.
        self._made: dict[Messages, _Report] = {}
        self._waiting = 0

    def take(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answers N-ACTION. What it asks is looked up now; the report follows the answer."""
        request, messages = event.request, event.assoc.dimse
        assert isinstance(request, N_ACTION) and isinstance(messages, Messages)
        if request.RequestedSOPInstanceUID != _WELL_KNOWN:
            return status_of(_NO_SUCH_INSTANCE, "not the well-known SOP Instance of storage commitment"), None
        if request.ActionTypeID != _REQUEST:
            return status_of(_NO_SUCH_ACTION, f"Action Type {request.ActionTypeID} is not 1"), None
        with self._lock:
            if self._waiting >= _MAX_WAITING or self._closing.is_set():
                return status_of(_RESOURCE_LIMITATION, "too many reports wait"), None
            self._waiting += 1
        try:
            event_type, content = self._looked_up(event.action_information)
            report = _Report(
                requester=str(event.assoc.requestor.ae_title).strip(),
                event_type=event_type,
                content=content,
                association=event.assoc,
                received=messages.received,
            )
        except _Wrong as error:
            self._done()
            return status_of(_INVALID_ARGUMENT, str(error)), None
        except Exception:
            self._done()
            _log.exception("a request for storage commitment failed")
            return status_of(_PROCESSING_FAILURE, "the log of the server says why"), None
        with self._lock:
            self._made[messages] = report
        if messages.dropped:
            # The connection has ended meanwhile, and no answer will be given.
            self.answered(messages)
        return status_of(_SUCCESS, ""), None

    def answered(self, messages: Messages) -> None:
        """The request that came with these messages was answered, or its connection has ended: its report may go."""
        with self._lock:
            report = self._made.pop(messages, None)
            if report is not None and not self._closing.is_set():
                self._executor.submit(self._give, report)

    def close(self) -> None:
        """Gives no report any more."""
        with self._lock:
            self._closing.set()
        self._executor.shutdown(cancel_futures=True)

    def _done(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _looked_up(self, asked: Dataset) -> tuple[int, Dataset]:
        """Event type and Event Information (PS3.4 table J.3-2)."""
        transaction = str(asked.get("TransactionUID", "") or "").strip()
        if not is_oid(transaction):
            raise _Wrong("Transaction UID (0008,1195) is missing or no UID")
        wanted = [_reference(item) for item in asked.get("ReferencedSOPSequence") or ()]
        if not wanted:
            raise _Wrong("Referenced SOP Sequence (0008,1199) is missing or empty")
        known = self._instances.find(uid for _, uid in wanted)
        stored: list[Dataset] = []
        failed: list[Dataset] = []
        for sop_class, uid in wanted:
            instance = known.get(uid)
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UID(sop_class), UID(uid)
            if instance is not None and instance.sop_class_uid != sop_class:
                item.FailureReason = _CLASS_INSTANCE_CONFLICT
            elif instance is None:
                item.FailureReason = _NO_SUCH_INSTANCE
            elif not instance.path.is_file() or instance.path.stat().st_size != instance.size:
                _log.error("SOP Instance %s has no whole file", uid)
                item.FailureReason = _PROCESSING_FAILURE
            (failed if "FailureReason" in item else stored).append(item)
        content = Dataset()
        content.TransactionUID = UID(transaction)
        if stored:
            content.ReferencedSOPSequence = stored
        if failed:
            content.FailedSOPSequence = failed
        _log.info("storage commitment: %d instances are stored, %d are not", len(stored), len(failed))
        return (_SOME_FAILED if failed else _ALL_STORED), content

    def _give(self, report: _Report) -> None:
        try:
            if self._on_its_association(report) or self._on_a_new_one(report):
                return
            _log.error("a report of storage commitment was not taken by %r", report.requester)
        except Exception:
            _log.exception("a report of storage commitment was not given to %r", report.requester)
        finally:
            self._done()

    def _on_its_association(self, report: _Report) -> bool:
        """Whether the requester waited for the report, and took it."""
        association = report.association
        self._closing.wait(_RELEASE_S)
        messages = association.dimse
        silent = isinstance(messages, Messages) and messages.received == report.received
        if not silent or not association.is_established or association.dul.peek_next_pdu() is not None:
            return False
        return _sent(association, report)

    def _on_a_new_one(self, report: _Report) -> bool:
        """Whether the requester could be reached where the configuration says, and took it."""
        peer = self._peers.get(report.requester)
        if peer is None:
            _log.error(
                "imaging.dimse_peers does not say where %r is: its report of storage commitment is lost",
                report.requester,
            )
            return False
        for wait_s in _WAITS_S:
            if self._closing.wait(wait_s):
                return False
            association = self._associate(report.requester, peer)
            if association.is_established:
                try:
                    if _sent(association, report):
                        return True
                finally:
                    association.release()
        return False

    def _associate(self, ae_title: str, peer: Peer) -> Association:
        ae = AE(self._ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = self._timeout_s
        ae.add_requested_context(STORAGE_COMMITMENT)
        # The one who asks for this association is the SCP here (PS3.4 J.3.3).
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        return ae.associate(peer.host, peer.port, ae_title=ae_title, ext_neg=[role])


class _Wrong(ValueError):
    """A request that cannot be understood."""


def _reference(item: Dataset) -> tuple[str, str]:
    """SOP class and instance."""
    found = tuple(str(item.get(f"ReferencedSOP{kind}UID", "") or "").strip() for kind in ("Class", "Instance"))
    if not all(is_oid(one) for one in found):
        raise _Wrong("a reference has no SOP Class UID or no SOP Instance UID")
    return found[0], found[1]


def _sent(association: Association, report: _Report) -> bool:
    """Whether the report was answered with success, or a warning."""
    answer, _ = association.send_n_event_report(report.content, report.event_type, STORAGE_COMMITMENT, _WELL_KNOWN)
    status = answer.get("Status")
    return status is not None and (status == _SUCCESS or status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116))
