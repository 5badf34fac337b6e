"""The Minimal Lower Layer Protocol: bytes in, messages out (HL7 v2.3.1 Implementation Guide, Appendix C; ITI TF-2 3.8).

A message stands between 0x0B and 0x1C 0x0D. No socket and no clock is here.
"""

from __future__ import annotations

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

    def receive_data(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes. FrameError for a limit that is passed."""
        self._buffer += data
        messages: list[bytes] = []
        while self._step(messages):
            pass
        return messages

    @property
    def idle(self) -> bool:
        """Whether nothing of a message has come yet."""
        return not self._inside

    def _step(self, messages: list[bytes]) -> bool:
        """Goes one step on; False when more bytes are needed."""
        if not self._inside:
            at = self._buffer.find(_START)
            skipped = len(self._buffer) if at < 0 else at
            self._garbage += skipped
            if self._garbage > self._max_garbage_bytes:
                raise FrameError(
                    f"more than the limit of {self._max_garbage_bytes} bytes without the beginning of a message"
                )
            del self._buffer[: skipped + 1]
            if at < 0:
                return False
            self._inside, self._garbage, self._looked = True, 0, 0
        # The last byte looked at may be the first half of the end.
        at = self._buffer.find(_END, max(0, self._looked - 1))
        self._looked = len(self._buffer)
        if (len(self._buffer) if at < 0 else at) > self._max_message_bytes:
            raise FrameError(f"a message is larger than the limit of {self._max_message_bytes} bytes")
        if at < 0:
            return False
        messages.append(bytes(self._buffer[:at]))
        del self._buffer[: at + len(_END)]
        self._inside = False
        return True
