"""The Minimal Lower Layer Protocol: bytes in, messages out (HL7 v2.3.1 Implementation Guide, Appendix C; ITI TF-2 3.8).

A message stands between 0x0B and 0x1C 0x0D. No socket and no clock is here.
"""

from __future__ import annotations

from collections.abc import Iterator

_START, _END = b"\x0b", b"\x1c\x0d"


class FrameError(ValueError):
    """What came is no MLLP, or passes a limit: the connection cannot go on."""


def frame(message: bytes) -> bytes:
    """A message as it is sent."""
    return _START + message + _END


class FrameReader:
    """Finds the messages in what is received. What stands between frames is skipped, up to `max_garbage_bytes` in a row."""

    def __init__(self, *, max_message_bytes: int, max_garbage_bytes: int = 1024) -> None:
        self._max_message_bytes, self._max_garbage_bytes = max_message_bytes, max_garbage_bytes
        self._buffer = bytearray()
        self._inside = False
        self._garbage = 0
        self._looked = 0

    def receive_data(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with these bytes, to be taken one after the other to the end.

        FrameError for a limit that is passed, once the messages before it have been taken.
        """
        self._buffer += data
        return self._messages()

    @property
    def idle(self) -> bool:
        """Whether nothing of a message has come yet."""
        return not self._inside

    def _messages(self) -> Iterator[bytes]:
        while self._begin():
            message = self._finish()
            if message is None:
                return
            yield message

    def _begin(self) -> bool:
        """Skips to the beginning of a message; False when more bytes are needed."""
        if self._inside:
            return True
        at = self._buffer.find(_START)
        skipped = len(self._buffer) if at < 0 else at
        self._garbage += skipped
        if self._garbage > self._max_garbage_bytes:
            raise FrameError(
                f"more than the limit of {self._max_garbage_bytes} bytes without the beginning of a message"
            )
        del self._buffer[: skipped + 1]
        if at >= 0:
            self._inside, self._garbage, self._looked = True, 0, 0
        return self._inside

    def _finish(self) -> bytes | None:
        """The message that has begun; None when more bytes are needed."""
        # The last byte looked at may be the first half of the end.
        at = self._buffer.find(_END, max(0, self._looked - 1))
        self._looked = len(self._buffer)
        # Half an end is no part of the message: the limit must not depend on how the bytes are cut.
        size = at if at >= 0 else len(self._buffer) - self._buffer.endswith(_END[:1])
        if size > self._max_message_bytes:
            raise FrameError(f"a message is larger than the limit of {self._max_message_bytes} bytes")
        if at < 0:
            return None
        # 0x0B is no text: where it stands in a message, the one before it has lost its end, and nobody may take it for whole.
        message = bytes(self._buffer[:at]).rpartition(_START)[2]
        del self._buffer[: at + len(_END)]
        self._inside = False
        return message
