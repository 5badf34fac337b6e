"""Connections shared fairly by several processes that listen on one socket: who has the fewest takes the next one.

Left alone, whichever process wakes first takes all connections of a burst, and half of the processors have nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
from dataclasses import dataclass
from types import FrameType

import uvicorn

_log = logging.getLogger("xdsi.server")
#: For so long a connection is left to a process that has fewer; it may be busy, or gone.
_LEAVE_S = 0.002
#: For so long nobody is let in after accepting has failed, which it does while there are too many open files.
_FAILED_S = 0.1


class Counts:
    """How many connections each of the processes has; shared by all that are forked after it was made."""

    def __init__(self, processes: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 4 * processes)).cast("i")

    def tell(self, process: int, connections: int) -> None:
        self._numbers[process] = connections

    def has_the_fewest(self, process: int) -> bool:
        return self._numbers[process] <= min(self._numbers)


@dataclass(frozen=True, slots=True)
class Share:
    """One process of several, and how many connections each has."""

    counts: Counts
    process: int

    def tell(self, connections: int) -> None:
        """Says how many connections this process has now."""
        self.counts.tell(self.process, connections)

    def should_leave(self) -> bool:
        """Whether another process should take the next connection."""
        return not self.counts.has_the_fewest(self.process)


class Server(uvicorn.Server):
    """uvicorn's, but for signals: the first lets requests finish, any second one does not wait for them."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)


class SharingServer(Server):
    """One of several processes."""

    def __init__(self, config: uvicorn.Config, share: Share) -> None:
        super().__init__(config)
        self.share = share
        self._arriving: set[asyncio.Task[object]] = set()
        self.tell()

    def tell(self) -> None:
        """Says how many connections this process has now."""
        self.share.tell(len(self.server_state.connections) + len(self._arriving))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self.servers = [Acceptor(self, one) for one in sockets or []]  # type: ignore[misc]

    async def on_tick(self, counter: int) -> bool:
        self.tell()
        return await super().on_tick(counter)

    def take(self, connection: socket.socket) -> None:
        """Serves an accepted connection."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        arriving = loop.create_task(loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arrived)
        self.tell()

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _arrived(self, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        # A peer that went away meanwhile, or failed its TLS handshake, is nobody's trouble.
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("a connection ended as it began: %s", type(error).__name__)


class Acceptor:
    """Takes connections from a listening socket, one at a time. For uvicorn it is an asyncio server."""

    def __init__(self, server: SharingServer, listening: socket.socket) -> None:
        self._server, self._listening = server, listening
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._listening.fileno(), self._ready)

    def _ready(self) -> None:
        if self._server.share.should_leave():
            self._pause(_LEAVE_S)
        else:
            self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.error("no connection can be accepted: %s", error.strerror)
            self._pause(_FAILED_S)
            return
        self._server.take(connection)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._later = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._later = None
        self._watch()
        # What is still there nobody else has taken.
        self._accept()

    def close(self) -> None:
        """Lets nobody in any more. The socket is the caller's."""
        if self._later is not None:
            self._later.cancel()
        else:
            self._loop.remove_reader(self._listening.fileno())

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""
