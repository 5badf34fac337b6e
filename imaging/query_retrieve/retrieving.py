"""C-MOVE and C-GET: each instance in a sub-operation of its own, on another association or on the one that asks for it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from imaging.archive import ArchiveError
from imaging.archive.association import Peer, Peering
from imaging.instances import Instance, InstanceError
from imaging.pixels.transfer import NotGivenError, Transfer
from imaging.query_retrieve.answers import CANCELLED, PENDING, Exchange, Tally
from imaging.query_retrieve.sending import Channel, ConnectionEnded, Originator, Unsendable, grouped
from xds.messages import Document

_log = logging.getLogger("xdsi.imaging")
_Given = tuple[Instance, Callable[[], Document]]


class Retrieving:
    """The sub-operations of one request."""

    def __init__(self, exchange: Exchange, chosen: Sequence[Instance], transfer: Transfer, *, timeout_s: float) -> None:
        """`timeout_s` is how long the other side may take for a piece of an instance, or to answer."""
        self._exchange, self._chosen, self._transfer, self._timeout_s = exchange, chosen, transfer, timeout_s
        self._tally = Tally(remaining=len(chosen))
        #: Why what was not sent was not, the last time.
        self._reason = ""

    def get(self) -> None:
        """Sends all on the association that asks, and says how it went. ConnectionEnded, NobodyWaits."""
        self._send(Channel(self._exchange.association, timeout_s=self._timeout_s), self._chosen, None)
        self._conclude("C-GET", self._exchange.caller)

    def move(self, peer: Peer, directory: Path) -> None:
        """Sends all on associations with the peer, and says how it went. `directory` is for what comes on them.

        NobodyWaits.
        """
        originator = Originator(ae_title=self._exchange.caller, message_id=self._exchange.message_id)
        for group, contexts in grouped(self._chosen):
            if self._exchange.is_cancelled:
                break
            before = self._tally.remaining
            try:
                with Peering(peer, directory, 1).associated(contexts) as association:
                    # It may say nothing while an instance is sent, or re-encoded.
                    association.network_timeout = None
                    self._send(Channel(association, timeout_s=self._timeout_s), group, originator)
            except (ArchiveError, ConnectionEnded) as error:
                rest = group[before - self._tally.remaining :]
                _log.warning("%d instances were not sent to %s: %s", len(rest), peer.ae_title, error)
                # Where the peer is is nobody's business.
                self._reason = str(error).removeprefix(f"{peer}: ")
                for one in rest:
                    self._tally.fail(one.sop_instance_uid)
        self._conclude("C-MOVE", peer.ae_title)

    def _send(self, channel: Channel, group: Iterable[Instance], originator: Originator | None) -> None:
        for stored, given in _ahead((self._given(one, channel) for one in group), self._transfer.at_once):
            if self._exchange.is_cancelled:
                return
            try:
                status = channel.store(stored, given(), originator)
                if not self._tally.end(stored.sop_instance_uid, status):
                    self._say(stored, f"it was answered with status {status:04X}")
            except ConnectionEnded:
                raise
            except (Unsendable, NotGivenError, InstanceError, OSError) as error:
                self._tally.fail(stored.sop_instance_uid)
                self._say(stored, str(error) if not isinstance(error, OSError) else "its file cannot be read")
            if self._tally.remaining:
                self._exchange.respond(PENDING, tally=self._tally)

    def _given(self, stored: Instance, channel: Channel) -> _Given:
        """What waits for the instance in a syntax that the other side takes."""
        try:
            return stored, self._transfer.begun(stored, self._syntaxes(stored, channel))
        except (Unsendable, NotGivenError, InstanceError, OSError) as error:
            return stored, _failing(error)

    def _syntaxes(self, stored: Instance, channel: Channel) -> Sequence[str]:
        if stored.path.stat().st_size != stored.size:
            raise Unsendable("its file is damaged")
        return channel.syntaxes(stored.sop_class_uid)

    def _say(self, stored: Instance, reason: str) -> None:
        self._reason = reason
        _log.warning("instance %s was not sent to %r: %s", stored.sop_instance_uid, self._exchange.caller, reason)

    def _conclude(self, service: str, destination: str) -> None:
        tally = self._tally
        if self._exchange.is_cancelled and tally.remaining:
            ending = "cancelled"
            self._exchange.respond(CANCELLED, tally=tally, identifier=tally.identifier)
        else:
            ending = f"status {tally.status:04X}"
            self._exchange.respond(tally.status, self._reason, tally=tally, identifier=tally.identifier)
        _log.info(
            "%s of %r: %d instances sent to %r, %d failed, %d not tried (%s)",
            service,
            self._exchange.caller,
            tally.completed + tally.warned,
            destination,
            len(tally.failed),
            tally.remaining,
            ending,
        )


def _failing(error: Exception) -> Callable[[], Document]:
    def fail() -> Document:
        raise error

    return fail


def _ahead(givings: Iterator[_Given], most: int) -> Iterator[_Given]:
    """Each in its turn, when so many after it have begun."""
    begun: deque[_Given] = deque()
    for one in givings:
        begun.append(one)
        if len(begun) > most:
            yield begun.popleft()
    yield from begun
