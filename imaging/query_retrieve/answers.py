"""What is answered to a C-FIND, C-MOVE or C-GET (PS3.7 9.3, PS3.4 C.4): responses, and the numbers of sub-operations."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.dsutils import encode

from imaging.dimse import comment_of
from imaging.query_retrieve.sending import ConnectionEnded, await_room

# PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4.
SUCCESS = 0x0000
PENDING, PENDING_IN_PART = 0xFF00, 0xFF01
CANCELLED = 0xFE00
OUT_OF_RESOURCES = 0xA700
CANNOT_COUNT = 0xA701
CANNOT_PERFORM = 0xA702
DESTINATION_UNKNOWN = 0xA801
DOES_NOT_MATCH = 0xA900
SOME_FAILED = 0xB000
UNABLE_TO_PROCESS = 0xC000
#: The longest value of an UI in Explicit VR, in bytes.
_MAX_UIDS_BYTES = 65_534


@dataclass(slots=True)
class Tally:
    """The sub-operations of a retrieval: how many remain, and how the others ended."""

    remaining: int
    completed: int = 0
    warned: int = 0
    failed: list[str] = field(default_factory=list)

    def fail(self, uid: str) -> None:
        """This instance was not sent, or not taken."""
        self.remaining -= 1
        self.failed.append(uid)

    def end(self, uid: str, status: int) -> bool:
        """A C-STORE of the instance was answered; whether it was taken (PS3.4 B.2.3)."""
        if status == SUCCESS:
            self.remaining -= 1
            self.completed += 1
        elif status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116):
            self.remaining -= 1
            self.warned += 1
        else:
            self.fail(uid)
            return False
        return True

    @property
    def status(self) -> int:
        """Of the last response."""
        if not self.failed and not self.warned:
            return SUCCESS
        # Where nothing has succeeded it is a failure (PS3.4 C.4.2.3.1, C.4.3.3.1).
        return SOME_FAILED if self.completed or self.warned else CANNOT_PERFORM

    @property
    def identifier(self) -> Dataset | None:
        """Those that failed, as many as there is room for."""
        if not self.failed:
            return None
        listed, size = [], 0
        for uid in self.failed:
            size += len(uid) + 1
            if size > _MAX_UIDS_BYTES:
                break
            listed.append(uid)
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = listed
        return identifier


class NobodyWaits(Exception):
    """Whoever has asked takes no answers any more."""


class Exchange:
    """One request, and the responses to it."""

    def __init__(self, event: evt.Event, *, timeout_s: float) -> None:
        """`timeout_s` is how long the requester may take nothing of what it is answered."""
        self._event, self._timeout_s, self._cancelled = event, timeout_s, False
        self.association = event.assoc
        self.caller = str(event.assoc.requestor.ae_title).strip()

    @property
    def identifier(self) -> Dataset:
        """What is asked for. It may raise anything."""
        return self._event.identifier

    @property
    def message_id(self) -> int:
        return self._event.message_id

    @property
    def destination(self) -> str:
        """Of a C-MOVE."""
        return str(self._event.move_destination or "").strip()

    @property
    def is_cancelled(self) -> bool:
        # pynetdicom says it once.
        self._cancelled = self._cancelled or self._event.is_cancelled
        return self._cancelled

    def respond(
        self, status: int, comment: str = "", *, identifier: Dataset | None = None, tally: Tally | None = None
    ) -> None:
        """Sends a response. ValueError where the identifier cannot be written; NobodyWaits."""
        request, context = self._event.request, self._event.context
        assert isinstance(request, C_FIND | C_MOVE | C_GET)
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.Status = status
        if comment:
            response.ErrorComment = comment_of(comment)  # type: ignore[assignment]  # pynetdicom says that it is None
        if tally is not None and not isinstance(response, C_FIND):
            if status in (PENDING, CANCELLED):
                response.NumberOfRemainingSuboperations = tally.remaining
            response.NumberOfCompletedSuboperations = tally.completed
            response.NumberOfFailedSuboperations = len(tally.failed)
            response.NumberOfWarningSuboperations = tally.warned
        if identifier is not None:
            syntax = UID(context.transfer_syntax)
            written = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian)
            if written is None:
                raise ValueError("an identifier cannot be written")
            response.Identifier = io.BytesIO(written)
        try:
            await_room(self.association, self._timeout_s)
        except ConnectionEnded as error:
            raise NobodyWaits(str(error)) from None
        self.association.dimse.send_msg(response, context.context_id)
