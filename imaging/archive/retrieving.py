"""C-GET and C-MOVE (PS3.4 C.4): how instances come from a PACS over DIMSE, and what is made of what comes."""

from __future__ import annotations

import fcntl
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext

from imaging.archive import ArchiveError, Fetched, taken
from imaging.archive.association import PDU_BYTES, PENDING, SUCCESS, Peer, Peering, said
from imaging.dimse import of_service
from imaging.receiving.arrivals import Arrival, Server

# Study Root Query/Retrieve (PS3.4 C.6.2).
_MOVE, _GET = UID("1.2.840.10008.5.1.4.1.2.2.2"), UID("1.2.840.10008.5.1.4.1.2.2.3")
_VERIFICATION = UID("1.2.840.10008.1.1")
# PS3.4 B.2.3.
_OUT_OF_RESOURCES, _DOES_NOT_MATCH, _CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
#: The plain ones first.
_SYNTAXES = [ExplicitVRLittleEndian, *(one for one in AllTransferSyntaxes if one != ExplicitVRLittleEndian)]
#: For so many SOP classes there are presentation contexts on one association: 128 at most (PS3.8 9.3.2.2).
CLASSES_AT_ONCE = 127 // len(AllTransferSyntaxes)
#: So many instances that nobody has asked for are refused before the association is.
_MAX_SURPLUS = 4


class Retrieval:
    """Instances of one series that are under way; `classes` are the SOP classes that they may have, as far as anybody knows.

    It may be told of what comes from several threads.
    """

    def __init__(
        self, study_uid: str, series_uid: str, wanted: Sequence[str], *, classes: Sequence[str], origin: Peer
    ) -> None:
        self.study_uid, self.series_uid, self.wanted, self.classes = study_uid, series_uid, wanted, classes
        #: By which what comes is known to be of this request.
        self.message_id = 1 + secrets.randbelow(65535)
        self._origin = origin
        self._lock = threading.Lock()
        self._outcomes: dict[str, Fetched | ArchiveError] = {}
        self._surplus = 0

    @property
    def identifier(self) -> Dataset:
        """What is asked for, at IMAGE level."""
        asked = Dataset()
        asked.QueryRetrieveLevel = "IMAGE"
        asked.StudyInstanceUID, asked.SeriesInstanceUID = self.study_uid, self.series_uid
        asked.SOPInstanceUID = self.missing
        return asked

    @property
    def within_s(self) -> float:
        """How long it may take."""
        return self._origin.timeout_s * (1 + len(self.wanted))

    def take(self, event: evt.Event) -> int:
        """Takes a C-STORE; its status."""
        request = event.request
        arrival = request.DataSet if isinstance(request, C_STORE) else None
        if not isinstance(request, C_STORE) or not isinstance(arrival, Arrival):
            return _CANNOT_UNDERSTAND
        arrival.finish()
        uid = str(request.AffectedSOPInstanceUID or "")
        with self._lock:
            is_wanted = uid in self.wanted and uid not in self._outcomes and self._is_of_this(request)
            self._surplus += not is_wanted
            if not is_wanted:
                arrival.drop()
                if self._surplus > _MAX_SURPLUS:
                    event.assoc.abort(block=False)
                return _CANNOT_UNDERSTAND
            if arrival.error:
                arrival.drop()
                self._outcomes[uid] = ArchiveError(f"{self._origin}: instance {uid}: {arrival.error}")
                return _OUT_OF_RESOURCES
            try:
                place = (self.study_uid, self.series_uid, uid)
                self._outcomes[uid] = taken(
                    arrival.path, size=arrival.size, sha1=arrival.sha1, wanted=place, origin=str(self._origin)
                )
            except ArchiveError as error:
                self._outcomes[uid] = error
                return _DOES_NOT_MATCH
            return SUCCESS

    @property
    def missing(self) -> list[str]:
        """What has not come, well or ill."""
        with self._lock:
            return [uid for uid in self.wanted if uid not in self._outcomes]

    def ended(self, ending: str) -> dict[str, Fetched | ArchiveError]:
        """What has become of each: what has not come has failed, for the reason that is given. Nothing more is taken."""
        missing = self.missing
        with self._lock:
            # Associations are told of us longer than they last.
            outcomes, self._outcomes, self.wanted = self._outcomes, {}, ()
        if self._surplus:
            ending += f"; {self._surplus} instances came that were not asked for"
        failed = {uid: ArchiveError(f"{self._origin}: instance {uid} did not come: {ending}") for uid in missing}
        return {**outcomes, **failed}

    def _is_of_this(self, request: C_STORE) -> bool:
        """Whether it belongs to our request, as far as it says (PS3.7 9.1.1.1). Some archives say that they are the originator."""
        originator = str(request.MoveOriginatorApplicationEntityTitle or "").strip()
        message_id = request.MoveOriginatorMessageID
        return originator in ("", self._origin.calling, self._origin.ae_title) and message_id in (None, self.message_id)


class Retrieve(Protocol):
    """Asks for what is wanted, and comes back when the archive has said that it is done, or nothing more: how it ended."""

    def __call__(self, retrieval: Retrieval) -> str: ...


def getting(peering: Peering) -> Retrieve:
    """C-GET: instances come on the association that asks for them."""

    def get(retrieval: Retrieval) -> str:
        # The archive may choose among encodings only where each has a presentation context of its own. Some take the first one
        # whatever they have: these are asked again, and have the choice before.
        ending = offering([build_context(one, each) for one in retrieval.classes for each in _SYNTAXES], retrieval)
        if retrieval.missing:
            ending = offering([build_context(one, _SYNTAXES[::-1]) for one in retrieval.classes], retrieval)
        return ending

    def offering(contexts: Sequence[PresentationContext], retrieval: Retrieval) -> str:
        offered = [build_context(_GET), *contexts]
        with peering.associated(offered, storage=retrieval.classes, stored=retrieval.take) as association:
            answers = association.send_c_get(retrieval.identifier, _GET, msg_id=retrieval.message_id)
            return _until_done(answers, "C-GET", retrieval.within_s)

    return get


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a PACS sends what C-MOVE asks for: an address of ours, which it knows by our AE title."""

    host: str
    port: int


def moving(peering: Peering, destination: Destination) -> Retrieve:
    """C-MOVE: instances come on associations that the archive asks for. It is listened for them as long as one move takes.

    The address is one, so one move is made at a time, whatever process makes it: a lock beside the data sets says whose turn it is.
    """

    def move(retrieval: Retrieval) -> str:
        with (
            _turn(peering.directory / "move.lock"),
            _listening(peering, destination, retrieval),
            peering.associated([build_context(_MOVE)]) as association,
        ):
            # Meanwhile it need say nothing on this one.
            association.dimse_timeout = retrieval.within_s
            called = peering.peer.calling
            answers = association.send_c_move(retrieval.identifier, called, _MOVE, msg_id=retrieval.message_id)
            return _until_done(answers, "C-MOVE", retrieval.within_s)

    return move


def _until_done(answers: Iterator[tuple[Dataset, Dataset | None]], service: str, within_s: float) -> str:
    """How it ended, with what the archive has counted."""
    until = time.monotonic() + within_s
    for status, _ in answers:
        if status.get("Status") not in PENDING or time.monotonic() > until:
            break
    counted = [
        f"{status.get(f'NumberOf{name}Suboperations')} {name.lower()}"
        for name in ("Completed", "Failed", "Warning")
        if status.get(f"NumberOf{name}Suboperations") is not None
    ]
    return f"{service}: {said(status)}" + (f", sub-operations: {', '.join(counted)}" if counted else "")


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """Waits until nobody else has the lock. Whoever has it is bounded in time."""
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _listening(peering: Peering, destination: Destination, retrieval: Retrieval) -> Iterator[None]:
    """A Storage SCP for one move, which the archive alone may call. OSError where the address cannot be had."""
    peer = peering.peer

    def negotiate(event: evt.Event) -> dict[UID, SOPClassCommonExtendedNegotiation]:
        """Whatever the archive proposes is storage, in each encoding that it has: what is not wanted is not taken."""
        found: dict[str, list[str]] = {}
        for context in event.assoc.requestor.requested_contexts:
            found.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))
        event.assoc.acceptor.supported_contexts = [
            build_context(uid, list(dict.fromkeys(syntaxes))) for uid, syntaxes in found.items()
        ]
        return {UID(uid): of_service(uid) for uid in found}

    ae = AE(peer.calling)
    ae.maximum_associations, ae.maximum_pdu_size = 4, PDU_BYTES
    ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = ae.network_timeout = peer.timeout_s
    ae.require_called_aet, ae.require_calling_aet = True, [peer.ae_title]
    server: Any = ae.make_server(
        (destination.host, destination.port),
        contexts=[build_context(_VERIFICATION)],
        evt_handlers=[(evt.EVT_SOP_COMMON, negotiate), (evt.EVT_C_STORE, retrieval.take)],
        server_class=Server,
        directory=peering.directory,
        bounds=peer.bounds,
        acted=lambda _: None,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="xdsi-move", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(timeout=30)
        associations = list(server.active_associations)
        for association in associations:
            association.abort()
        for association in associations:
            association.join(timeout=30)
            association.dul.join(timeout=30)
