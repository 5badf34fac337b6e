"""C-STORE as the one who sends (PS3.4 Annex B): the bytes of a data set as they are in its file, piece by piece."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from imaging.instances import Instance
from xds.messages import Document

_MAX_PDU_BYTES = 128 * 1024
#: What is before the value of a PDV that is alone in its PDU (PS3.8 9.3.5), in bytes.
_PDV_HEAD_BYTES = 6
#: So many PDUs may wait for the connection.
_MAX_QUEUED = 8
_MOMENT_S = 0.001
#: Most presentation contexts of an association (PS3.8 9.3.2.2).
_MAX_CONTEXTS = 128
#: These are offered for every SOP class.
_PLAIN = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))


class Unsendable(ValueError):
    """An instance that cannot be sent on an association, with the reason; others may."""


class ConnectionEnded(OSError):
    """Nothing more can be sent on the association."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Originator:
    """Who has asked for a C-MOVE, and with which message (PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


class Channel:
    """Sends instances on an association, where the other side takes them."""

    def __init__(self, association: Association, *, timeout_s: float) -> None:
        """`timeout_s` is how long a piece, or an answer, may be waited for."""
        self.association, self._timeout_s = association, timeout_s
        self._contexts: dict[str, dict[str, int]] = {}
        for one in association.accepted_contexts:
            if one.as_scu and one.context_id is not None:
                syntaxes = self._contexts.setdefault(str(one.abstract_syntax), {})
                syntaxes.setdefault(str(one.transfer_syntax[0]), one.context_id)
        self._message_id = 0

    def syntaxes(self, sop_class_uid: str) -> Sequence[str]:
        """Those in which the other side takes instances of the class. Unsendable where there are none."""
        if found := list(self._contexts.get(sop_class_uid, ())):
            return found
        raise Unsendable(f"SOP class {sop_class_uid} was not negotiated")

    def store(self, stored: Instance, document: Document, originator: Originator | None = None) -> int:
        """Sends the instance as the document, a Part-10 file, has it: the status that came.

        Unsendable where the document is in no syntax that the other side takes; ConnectionEnded; another OSError of its file.
        """
        with document.open() as stream:
            syntax = at_data_set(stream)
            context_id = self._contexts.get(stored.sop_class_uid, {}).get(syntax)
            if context_id is None:
                raise Unsendable(f"SOP class {stored.sop_class_uid} in transfer syntax {syntax} was not negotiated")
            self._message_id = self._message_id % 65_535 + 1
            self._send_command(stored, context_id, originator)
            for piece, is_last in pieces(stream, self._piece_bytes):
                self._send(context_id, (b"\x02" if is_last else b"\x00") + piece)
        _, answer = self.association.dimse.get_msg(block=True)
        if not isinstance(answer, C_STORE) or answer.MessageIDBeingRespondedTo != self._message_id:
            raise ConnectionEnded("it did not answer a C-STORE, or ended the association")
        return int(answer.Status or 0)

    @property
    def _piece_bytes(self) -> int:
        # It says 0 for any.
        longest = min(self.association.dimse.maximum_pdu_size or _MAX_PDU_BYTES, _MAX_PDU_BYTES)
        # Every fragment has an even length (PS3.8 E.1).
        fitting = (longest - _PDV_HEAD_BYTES) // 2 * 2
        if fitting <= 0:
            raise ConnectionEnded(f"its longest PDU has {longest} bytes, into which nothing fits")
        return fitting

    def _send_command(self, stored: Instance, context_id: int, originator: Originator | None) -> None:
        request = C_STORE()
        request.MessageID, request.Priority = self._message_id, 0
        request.AffectedSOPClassUID = UID(stored.sop_class_uid)
        request.AffectedSOPInstanceUID = UID(stored.sop_instance_uid)
        if originator is not None:
            request.MoveOriginatorApplicationEntityTitle = originator.ae_title
            request.MoveOriginatorMessageID = originator.message_id
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        # A data set follows, of which this message knows nothing.
        message.command_set.CommandDataSetType = 0x0001
        for one in message.encode_msg(context_id, self._piece_bytes + _PDV_HEAD_BYTES):
            self._queue(one)

    def _send(self, context_id: int, value: bytes) -> None:
        piece = P_DATA()
        piece.presentation_data_value_list.append((context_id, value))
        self._queue(piece)

    def _queue(self, piece: P_DATA) -> None:
        """Leaves it to the connection, once there is room."""
        await_room(self.association, self._timeout_s)
        self.association.dul.send_pdu(piece)


def await_room(association: Association, timeout_s: float) -> None:
    """Waits until the connection has sent most of what was left to it before. ConnectionEnded where it does not, or is there no more."""
    waiting = association.dul.to_provider_queue
    until = time.monotonic() + timeout_s
    while waiting.qsize() >= _MAX_QUEUED and not has_ended(association):
        if time.monotonic() > until:
            raise ConnectionEnded(f"it took nothing for {timeout_s:.0f} s")
        time.sleep(_MOMENT_S)
    if has_ended(association):
        raise ConnectionEnded("it ended the association")


def has_ended(association: Association) -> bool:
    """Whether the other side, or we, have ended the association, or it wants to be released."""
    upper = association.dul
    return not association.is_established or not upper.is_alive() or upper.peek_next_pdu() is not None


def at_data_set(stream: BinaryIO) -> str:
    """Reads a Part-10 file to where its data set begins: the transfer syntax."""
    read_preamble(stream, False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    return str(meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))


def pieces(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """What is left of it in pieces of so many bytes, an even number, and whether each is the last.

    A data set of odd length, as some deflated ones are, has a zero after it (PS3.5 A.5).
    """
    piece = stream.read(size)
    while following := stream.read(size):
        yield piece, False
        piece = following
    yield piece + b"\0" * (len(piece) % 2), True


def grouped(
    chosen: Iterable[Instance], most: int = _MAX_CONTEXTS
) -> Iterator[tuple[list[Instance], list[PresentationContext]]]:
    """Instances in their order, so many together as one association has presentation contexts for.

    Each SOP class has one for every syntax in which it is stored, and two uncompressed ones.
    """
    group: list[Instance] = []
    offered: dict[tuple[str, str], None] = {}
    for one in chosen:
        sop_class = one.sop_class_uid
        wanted = dict.fromkeys((sop_class, syntax) for syntax in (one.transfer_syntax_uid, *_PLAIN))
        if group and len(offered | wanted) > most:
            yield group, _contexts(offered)
            group, offered = [], {}
        group.append(one)
        offered |= wanted
    if group:
        yield group, _contexts(offered)


def _contexts(offered: Mapping[tuple[str, str], None]) -> list[PresentationContext]:
    return [build_context(sop_class, syntax) for sop_class, syntax in offered]
