"""What pynetdicom is made to do in our way: data sets go straight into files, and sockets, messages and queues have bounds.

Beside it only imaging/archive/association.py and imaging/query_retrieve depend on how pynetdicom is made inside.
"""

from __future__ import annotations

import hashlib
import io
import logging
import queue
import secrets
import select
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseServer
from typing import Any, BinaryIO

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, N_ACTION
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from imaging import part10

_log = logging.getLogger("xdsi.imaging")
#: Longest PDU that is not P-DATA-TF, in bytes: an association request with 128 presentation contexts has room in it.
_MAX_OTHER_PDU = 1024 * 1024
#: Longest command set, and longest data set of a message that is no C-STORE, in bytes.
_MAX_COMMAND = 64 * 1024
_MAX_IN_MEMORY = 16 * 1024 * 1024
#: Most messages that may wait on an association: a peer has to wait for the answer to each (PS3.7 D.3.3.3).
_MAX_WAITING = 8
#: How long it is waited for a message, or for anything on a connection, before it is looked at something else, in seconds.
_MESSAGE_S = 0.005
_CONNECTION_S = 0.02
#: They write each message into pynetdicom's log: what they would make of a data set is a copy in memory.
TELLING = (
    (evt.EVT_DIMSE_RECV, standard_dimse_recv_handler),
    (evt.EVT_DIMSE_SENT, standard_dimse_sent_handler),
    (evt.EVT_PDU_RECV, standard_pdu_recv_handler),
    (evt.EVT_PDU_SENT, standard_pdu_sent_handler),
)
_BUFFER_BYTES = 256 * 1024
#: How often it is looked whether a peer that we wait for has ended the association, in seconds.
_LOOK_S = 0.1
#: For so long a connection is left to a process that has fewer; it may be busy, or gone.
_LEAVE_S = 0.002
#: So long after a connection was taken, its association is counted where it runs.
_BEGINS_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPort:
    """A listening socket that several processes accept from.

    `tell` is told how many associations this process has; `should_leave` says whether another process should take the next one.
    """

    listening: socket.socket
    tell: Callable[[int], None]
    should_leave: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of an association: `pdu_bytes` the longest P-DATA-TF, `object_bytes` the largest data set, `pdu_s` how long a PDU may take."""

    pdu_bytes: int
    object_bytes: int
    pdu_s: float
    connections: int


class Arrival(io.BytesIO):
    """A data set that goes into a file as it comes, behind a header of ours. What passes the limit is not kept."""

    def __init__(self, path: Path, header: bytes, max_bytes: int) -> None:
        super().__init__()
        self.path, self.size, self.error = path, 0, ""
        self._max_bytes, self._came = max_bytes, 0
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("xb", buffering=_BUFFER_BYTES)
            self._put(header)
        except OSError as error:
            self._fail(error.strerror or "no file could be made")

    def write(self, data: Any) -> int:
        self._came += len(data)
        if not self.error and self._came > self._max_bytes:
            self._fail(f"the data set is longer than the limit of {self._max_bytes} bytes")
        if not self.error:
            try:
                self._put(data)
            except OSError as error:
                self._fail(error.strerror or "it could not be written")
        return len(data)

    @property
    def endless(self) -> bool:
        """Whether so much of it has come that it is not worth waiting for its end."""
        return self._came > 2 * self._max_bytes

    @property
    def sha1(self) -> str:
        """Of the file."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Nothing more comes."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._fail(error.strerror or "it could not be written")
        self._file = None

    def drop(self) -> None:
        """Deletes the file, where nobody has moved it."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        self.path.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def _fail(self, reason: str) -> None:
        self.error = reason
        self.drop()


class Messages(DIMSEServiceProvider):
    """The messages of one association. `acted` is called when a response to N-ACTION was given to it, and when it has ended."""

    def __init__(self, association: Association, directory: Path, bounds: Bounds, acted: Callable[[Messages], None]):
        super().__init__(association)
        self._directory, self._bounds, self._acted = directory, bounds, acted
        self._in_memory = 0
        self._ended = self.dropped = False
        #: How many C-STORE requests were answered with which status.
        self.answers: Counter[int] = Counter()
        #: How many messages have come.
        self.received = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Takes what a P-DATA-TF PDU carries, piece by piece. What cannot be understood ends the association."""
        for context_id, data in primitive.presentation_data_value_list:
            if self._ended:
                return
            try:
                self._receive(context_id, data)
            except Exception as error:
                # pynetdicom and pydicom say what they could not read in many kinds of exceptions.
                _log.warning("an association was ended: a message cannot be read (%s)", type(error).__name__)
                self._end()

    def _receive(self, context_id: int, data: bytes) -> None:
        if isinstance(self.message, C_STORE_RQ) and not isinstance(self.message.data_set, Arrival):
            self.message.data_set = self._arrival(self.message, context_id)
        if self._too_much(len(data), command=bool(data[0] & 1)):
            _log.warning("an association was ended: a message is longer than any may be, or too many wait")
            self._end()
            return
        piece = P_DATA()
        piece.presentation_data_value_list.append((context_id, data))
        super().receive_primitive(piece)
        if self.message is None:
            self._in_memory = 0
            self.received += 1

    def get_msg(self, block: bool = False) -> Any:
        """As pynetdicom's; where it waits for a response, requests wait meanwhile, and so does nobody for a peer that has ended."""
        if not block:
            # It is asked again and again: better wait here for a message than sleep.
            try:
                return self.msg_queue.get(timeout=_MESSAGE_S)
            except queue.Empty:
                return None, None
        until = time.monotonic() + (self.dimse_timeout or 30.0)
        requests: list[Any] = []
        try:
            while time.monotonic() < until and self.dul.peek_next_pdu() is None:
                try:
                    came = self.msg_queue.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                if came[1] is None or not came[1].is_valid_request:
                    return came
                requests.append(came)
            return None, None
        finally:
            for one in requests:
                self.msg_queue.put(one)

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Sends a message."""
        if isinstance(primitive, C_STORE) and primitive.MessageIDBeingRespondedTo is not None:
            # Each costs pynetdicom a tenth of the time that an instance takes.
            command = b"\x03" + _store_response(primitive)
            if self.maximum_pdu_size == 0 or len(command) + 5 <= self.maximum_pdu_size:
                whole = P_DATA()
                whole.presentation_data_value_list.append((context_id, command))
                self.dul.send_pdu(whole)
                return
        super().send_msg(primitive, context_id)
        if isinstance(primitive, N_ACTION) and primitive.MessageIDBeingRespondedTo is not None:
            self._acted(self)

    def drop(self) -> bool:
        """Deletes what had come in part when the connection ended, or was never looked at; whether this is the first time."""
        first, self.dropped = not self.dropped, True
        self._ended = True
        left = [self.message and self.message.data_set]
        while True:
            try:
                left.append(getattr(self.msg_queue.get_nowait()[1], "DataSet", None))
            except queue.Empty:
                break
        for one in left:
            if isinstance(one, Arrival):
                one.drop()
        # An answer that waits for the connection is given no more.
        self._acted(self)
        return first

    def _arrival(self, message: DIMSEMessage, context_id: int) -> Arrival:
        command = message.command_set
        accepted = {one.context_id: one for one in self.assoc.accepted_contexts}
        context = accepted.get(context_id)
        sender = self.assoc.requestor if self.assoc.is_acceptor else self.assoc.acceptor
        header = part10.header(
            sop_class_uid=str(command.get("AffectedSOPClassUID", "")),
            sop_instance_uid=str(command.get("AffectedSOPInstanceUID", "")),
            transfer_syntax_uid=str(context.transfer_syntax[0] if context else UID("1.2.840.10008.1.2")),
            source=str(sender.ae_title).strip(),
        )
        return Arrival(self._directory / f"{secrets.token_hex(16)}.part", header, self._bounds.object_bytes)

    def _too_much(self, length: int, *, command: bool) -> bool:
        if self.msg_queue.qsize() >= _MAX_WAITING:
            return True
        arrival = self.message.data_set if self.message is not None else None
        if isinstance(arrival, Arrival) and not command:
            return arrival.endless
        self._in_memory += length
        return self._in_memory > (_MAX_COMMAND if command else _MAX_IN_MEMORY)

    def _end(self) -> None:
        """Ends the association, as at any PDU that nobody could foresee (PS3.8 9.2, Evt19)."""
        self._ended = True
        self.dul.event_queue.put("Evt19")


def _store_response(primitive: C_STORE) -> bytes:
    """The command set of a C-STORE-RSP, in Implicit VR Little Endian (PS3.7 6.3.1 and 9.3.1.2)."""
    elements = [
        _element(0x0002, str(primitive.AffectedSOPClassUID or "").encode()),
        _element(0x0100, struct.pack("<H", 0x8001)),
        _element(0x0120, struct.pack("<H", primitive.MessageIDBeingRespondedTo)),
        # There is no data set.
        _element(0x0800, struct.pack("<H", 0x0101)),
        _element(0x0900, struct.pack("<H", primitive.Status)),
        _element(0x0902, str(primitive.ErrorComment).encode(), b" ") if primitive.ErrorComment else b"",
        _element(0x1000, str(primitive.AffectedSOPInstanceUID or "").encode()),
    ]
    group = b"".join(elements)
    return _element(0x0000, struct.pack("<L", len(group))) + group


def _element(number: int, value: bytes, padding: bytes = b"\0") -> bytes:
    """An element of group 0000, its value of even length."""
    value += padding * (len(value) % 2)
    return struct.pack("<HHL", 0x0000, number, len(value)) + value


class BoundedSocket(AssociationSocket):
    """Reads a PDU at once, within a time, and none that is longer than was agreed on."""

    max_bytes = _MAX_OTHER_PDU
    pdu_s = 30.0

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a moment for it, or until there is something to send."""
        connection, upper = self.socket, self.assoc.dul
        if connection is None or not isinstance(upper, UpperLayer):
            return False
        looking = select.poll()
        try:
            looking.register(connection, select.POLLIN)
            looking.register(upper.woken, select.POLLIN)
            found = {descriptor for descriptor, _ in looking.poll(_CONNECTION_S * 1000)}
            if upper.woken.fileno() in found:
                upper.woken.recv(4096)
            return connection.fileno() in found
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """So many bytes, or fewer where the connection ends. OSError where they are too many, or take too long."""
        if nr_bytes > self.max_bytes:
            raise OSError(f"a PDU of {nr_bytes} bytes came; the limit is {self.max_bytes}")
        connection = self.socket
        assert connection is not None
        until = time.monotonic() + self.pdu_s
        came = bytearray(nr_bytes)
        view, count = memoryview(came), 0
        while count < nr_bytes:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"a PDU took longer than {self.pdu_s} s")
            connection.settimeout(left)
            got = connection.recv_into(view[count:])
            if not got:
                break
            count += got
        connection.settimeout(self.pdu_s)
        view.release()
        return came[:count] if count < nr_bytes else came


class UpperLayer(DULServiceProvider):
    """Ends with its connection, whatever a peer sends, and leaves nothing behind. It waits for something to do, and does not poll."""

    def __init__(self, association: Association) -> None:
        super().__init__(association)
        # The waiting is done where the socket is looked at.
        self._run_loop_delay = 0.0
        self.woken, self._waking = socket.socketpair()
        for one in (self.woken, self._waking):
            one.setblocking(False)

    def send_pdu(self, primitive: Any) -> None:
        """Gives something to the connection, which is idle no more."""
        self._idle_timer.restart()
        super().send_pdu(primitive)
        with suppress(OSError):
            self._waking.send(b"!")

    def run_reactor(self) -> None:
        """The thread's life."""
        try:
            super().run_reactor()
        except Exception as error:
            # pynetdicom lets the thread die at some of what a state does not foresee.
            _log.warning("an association was ended: %s", type(error).__name__)
            if self.socket is not None:
                self.socket.close()
        finally:
            if isinstance(self.assoc.dimse, Messages):
                self.assoc.dimse.drop()
            self.woken.close()
            self._waking.close()
            # Nobody waits for a request for an association any more.
            waiting: Any = self.to_user_queue
            waiting.put(None)


class _Handler(RequestHandler):
    """Gives each association our socket and our messages."""

    server: Server

    def _create_association(self) -> Association:
        bounds = self.server.bounds
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(bounds.pdu_s)
        association = super()._create_association()
        association.dul = UpperLayer(association)
        association.acse_timeout, association.network_timeout = self.ae.acse_timeout, self.ae.network_timeout
        connection = BoundedSocket(association, client_socket=self.request)
        # The length of a PDU does not count what is before and around its values.
        connection.max_bytes = max(bounds.pdu_bytes + 64, _MAX_OTHER_PDU)
        connection.pdu_s = bounds.pdu_s
        association.dul.socket = connection
        for event, handler in TELLING:
            association.unbind(event, handler)
        association.dimse = Messages(association, self.server.directory, bounds, self.server.acted)
        return association


class Server(ThreadedAssociationServer):
    """Listens for associations; `directory` is where their data sets arrive."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None = None,
        *,
        evt_handlers: list[evt.EventHandlerType],
        directory: Path,
        bounds: Bounds,
        acted: Callable[[Messages], None],
        shared: SharedPort | None = None,
    ) -> None:
        self.directory, self.bounds, self.acted, self._shared = directory, bounds, acted, shared
        self._associations, self._accepted_at = 0, 0.0
        super().__init__(ae, address, ae_title, contexts, ssl_context, evt_handlers, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether one more connection is taken: one beyond the number of associations is, and told why it is refused."""
        return len(self.active_associations) < self.bounds.connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that failed before it was an association is nobody's error."""

    def server_bind(self) -> None:
        """Takes the address, or the socket that has it."""
        if self._shared is None:
            super().server_bind()
            return
        if self.socket is not None:
            self.socket.close()
        self._shared.listening.setblocking(False)
        self.socket = self._shared.listening
        self.server_address = self._shared.listening.getsockname()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """A connection. OSError where another process has taken it meanwhile."""
        if self._shared is not None and self._shared.should_leave():
            time.sleep(_LEAVE_S)
        request = super().get_request()
        self._accepted_at = time.monotonic()
        self._count(self._associations + 1)
        return request

    def service_actions(self) -> None:
        """What is done between two connections, and while none comes."""
        super().service_actions()
        if time.monotonic() > self._accepted_at + _BEGINS_S:
            self._count(len(self.active_associations))

    def _count(self, associations: int) -> None:
        self._associations = associations
        if self._shared is not None:
            self._shared.tell(associations)

    def server_close(self) -> None:
        """Closes the socket, which other processes may go on listening on."""
        if self._shared is None:
            super().server_close()
        else:
            self._shared.listening.close()

    def shutdown(self) -> None:
        """Listens no more."""
        BaseServer.shutdown(self)
        self.server_close()
