"""A Storage SCP (PS3.4 Annex B): images that modalities and archives send over DIMSE become stored instances, bit for bit."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, AllTransferSyntaxes, MediaStorageDirectoryStorage
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext, PresentationContextTuple
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from database.connections import DatabaseLost, is_full
from imaging.dimse import of_service, status_of
from imaging.instances import DifferentInstance, InstanceError, Instances, read_header
from imaging.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from imaging.query_retrieve.service import QueryRetrieve, take_roles
from imaging.receiving.arrivals import Arrival, Bounds, Messages, Server, SharedPort
from imaging.receiving.mpps import MODALITY_PERFORMED_PROCEDURE_STEP, Mpps
from imaging.receiving.storage_commitment import STORAGE_COMMITMENT, Commitment

_log = logging.getLogger("xdsi.imaging")

# PS3.4 B.2.3, table B.2-1.
_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_DOES_NOT_MATCH = 0xA900
_CANNOT_UNDERSTAND = 0xC000
_VERIFICATION = UID("1.2.840.10008.1.1")
#: So many connections more than associations are taken: their associations are refused with the reason.
_MORE_CONNECTIONS = 8
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a Storage SCP listens.

    `called`: the AE title that it must be called by; empty: any. `calling`: who may call; empty: anybody. `unknown`: whether private and
    unknown SOP classes and transfer syntaxes are taken. `idle_s`: how long an association may say nothing; `message_s`: how long a PDU
    may take to come, and a response that we wait for. Sizes in bytes.
    """

    ae_title: str = "XDSI"
    host: str = "127.0.0.1"
    port: int = 0
    called: str = ""
    calling: frozenset[str] = frozenset()
    associations: int = 16
    pdu_bytes: int = 128 * 1024
    object_bytes: int = 4 * 1024**3
    unknown: bool = True
    idle_s: float = 60.0
    message_s: float = 30.0


class StoreScp:
    """Listens, and stores what comes. What is answered with success is durable. It is started once; `port` is the one it listens on.

    Several processes may do so on one `shared` port.
    """

    def __init__(
        self,
        instances: Instances,
        settings: Settings,
        *,
        commitment: Commitment,
        mpps: Mpps | None = None,
        query_retrieve: QueryRetrieve | None = None,
        shared: SharedPort | None = None,
    ) -> None:
        self._instances, self._settings, self._commitment = instances, settings, commitment
        self._mpps, self._query_retrieve, self._shared = mpps, query_retrieve, shared
        self.port = settings.port
        self._directory = instances.staging / "dimse" / str(os.getpid())
        self._ae = _application_entity(settings)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to listen. OSError where the address cannot be had."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(self._directory.parent)
        settings = self._settings
        server: Any = self._ae.make_server(
            (settings.host, settings.port),
            contexts=[build_context(_VERIFICATION)],
            evt_handlers=[
                (evt.EVT_SOP_COMMON, self._negotiate),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_N_ACTION, self._commitment.take),
                *([(evt.EVT_N_CREATE, self._mpps.create), (evt.EVT_N_SET, self._mpps.set)] if self._mpps else []),
                *(self._query_retrieve.handlers if self._query_retrieve else []),
                (evt.EVT_CONN_CLOSE, _drop),
                (evt.EVT_ABORTED, _drop),
            ],
            server_class=Server,
            directory=self._directory,
            bounds=Bounds(
                pdu_bytes=settings.pdu_bytes,
                object_bytes=settings.object_bytes,
                pdu_s=settings.message_s,
                connections=settings.associations + _MORE_CONNECTIONS,
            ),
            acted=self._commitment.answered,
            shared=self._shared,
        )
        self._server, self.port = server, server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="xdsi-dimse", daemon=True)
        self._thread.start()
        _log.info("Storage SCP %s listens on %s:%d", settings.ae_title, settings.host, self.port)

    def close(self) -> None:
        """Ends the associations. What was answered is stored; what was under way is not, and its sender knows."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join(timeout=30)
        associations = list(self._server.active_associations)
        for association in associations:
            association.abort()
        for association in associations:
            association.join(timeout=30)
            association.dul.join(timeout=30)
        self._commitment.close()
        self._server = None

    def _negotiate(self, event: evt.Event) -> dict[UID, SOPClassCommonExtendedNegotiation]:
        """Says what is supported of that which this peer proposes, and that it is storage (PS3.7 D.3.3.6)."""
        association = event.assoc
        proposed = _proposed(association.requestor.requested_contexts, unknown=self._settings.unknown)
        storage = [build_context(uid, syntaxes) for uid, syntaxes in proposed.items() if syntaxes]
        asking = self._query_retrieve
        association.acceptor.supported_contexts = [
            build_context(_VERIFICATION),
            build_context(STORAGE_COMMITMENT),
            *([build_context(MODALITY_PERFORMED_PROCEDURE_STEP)] if self._mpps else []),
            *([*asking.contexts(), *take_roles(storage)] if asking else storage),
        ]
        return {UID(uid): of_service(uid) for uid in proposed} | (asking.services() if asking else {})

    def _store(self, event: evt.Event) -> Dataset:
        """Stores the data set of a C-STORE; its status, with a comment that says what is wrong."""
        request = event.request
        arrival = request.DataSet if isinstance(request, C_STORE) else None
        try:
            if not isinstance(request, C_STORE) or not isinstance(arrival, Arrival):
                return status_of(_CANNOT_UNDERSTAND, "the request has no data set")
            status, comment = self._outcome(request, event.context, arrival)
        except (OSError, DatabaseLost) as error:
            _log.error("an instance could not be stored: %s", type(error).__name__)
            status, comment = _OUT_OF_RESOURCES, _of_storage(error)
        except Exception as error:
            if is_full(error):
                status, comment = _OUT_OF_RESOURCES, "the database is full"
            else:
                _log.exception("an instance could not be stored")
                status, comment = _CANNOT_UNDERSTAND, "it could not be stored; the log of the server says why"
        finally:
            if isinstance(arrival, Arrival):
                arrival.drop()
        messages = event.assoc.dimse
        if isinstance(messages, Messages):
            messages.answers[status] += 1
        return status_of(status, comment)

    def _outcome(self, request: C_STORE, context: PresentationContextTuple, arrival: Arrival) -> tuple[int, str]:
        arrival.finish()
        if arrival.error:
            return _OUT_OF_RESOURCES, arrival.error
        if request.AffectedSOPClassUID != context.abstract_syntax:
            return _DOES_NOT_MATCH, "the SOP class is not that of the presentation context"
        try:
            header = read_header(arrival.path)
            for keyword, wanted in (
                ("SOPClassUID", request.AffectedSOPClassUID),
                ("SOPInstanceUID", request.AffectedSOPInstanceUID),
            ):
                if str(header.get(keyword, "") or "").strip() not in ("", str(wanted)):
                    return _DOES_NOT_MATCH, f"{keyword} of data set and command differ"
            self._instances.take(arrival.path, header, size=arrival.size, sha1=arrival.sha1)
        except DifferentInstance as error:
            _log.warning("an instance was refused: %s", error)
            return _CANNOT_UNDERSTAND, error.short
        except InstanceError as error:
            _log.warning("an instance was refused: %s", error)
            return _CANNOT_UNDERSTAND, str(error)
        return _SUCCESS, ""


def _clear(directory: Path) -> None:
    """Removes what had come in part when former processes ended."""
    for one in directory.iterdir():
        if one.is_file():
            one.unlink()
        elif one.name == str(os.getpid()) or not Path(f"/proc/{one.name}").exists():
            for left in one.iterdir():
                left.unlink()


def _application_entity(settings: Settings) -> AE:
    ae = AE(settings.ae_title)
    ae.maximum_associations = settings.associations
    ae.maximum_pdu_size = settings.pdu_bytes
    ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = settings.message_s
    ae.network_timeout = settings.idle_s
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    if settings.called:
        ae.ae_title, ae.require_called_aet = settings.called, True
    ae.require_calling_aet = sorted(settings.calling)
    return ae


def _proposed(contexts: Iterable[PresentationContext], *, unknown: bool) -> dict[str, list[str]]:
    """The storage SOP classes of the contexts, each with the transfer syntaxes that we take, in the peer's order."""
    found: dict[str, list[str]] = {}
    for context in contexts:
        uid = str(context.abstract_syntax)
        service = uid_to_service_class(uid)
        other = unknown and service is ServiceClass and uid != MediaStorageDirectoryStorage
        if service is StorageServiceClass or other:
            taken = [str(one) for one in context.transfer_syntax if unknown or one in AllTransferSyntaxes]
            known = found.setdefault(uid, [])
            known += [one for one in taken if one not in known]
    return found


def _drop(event: evt.Event) -> None:
    """The connection has ended."""
    association: Association = event.assoc
    messages = association.dimse
    if isinstance(messages, Messages) and messages.drop():
        stored, answers = messages.answers[_SUCCESS], messages.answers.total()
        caller = str(association.requestor.ae_title).strip()
        _log.info("association of %r: %d instances stored, %d refused", caller, stored, answers - stored)


def _of_storage(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"{error.strerror}"
    return "it could not be written to disk" if isinstance(error, OSError) else "the database cannot be reached"
