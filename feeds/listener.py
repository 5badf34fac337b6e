"""Listens for HL7 v2 messages over MLLP, in a thread of its own: many connections, one message at a time on each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from feeds.mllp import FrameError, FrameReader, frame

_log = logging.getLogger("xdsi.feeds")
_READ_BYTES = 64 * 1024
#: How long a peer may take to read the last of what it is sent.
_LINGER_S = 2.0
#: How much of a connection that passed a limit is still read, in pieces of `_READ_BYTES`.
_LINGER_READS = 64


class Listener:
    """A server that gives each message to `answer` and sends back what it returns, on the connection that the message came on.

    `port` 0 takes a free one, which is then in `port`. `idle_s` is how long a connection may say nothing, `message_s` how long a message
    may take to come, an answer to be read, and a TLS handshake. A connection beyond `max_connections` is closed at once. One that passes
    a limit is closed, the messages before that answered. `answer` runs in one of eight threads. A Listener is started once. `name` is for
    the log.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_connections: int = 200,
        max_message_bytes: int = 256 * 1024,
        idle_s: float = 3600.0,
        message_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        name: str = "feed",
    ) -> None:
        self.host, self.port = host, port
        self._answer, self._tls, self._name = answer, tls, name
        self._max_connections, self._max_message_bytes = max_connections, max_message_bytes
        self._idle_s, self._message_s = idle_s, message_s
        self._executor = ThreadPoolExecutor(8, thread_name_prefix=f"xdsi-{name}")
        self._connections: set[asyncio.Task[None]] = set()
        #: Those of them whose message is being answered.
        self._answering: set[asyncio.Task[None]] = set()
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Begins to listen. OSError where the address cannot be had."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="xdsi-mllp", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)
        except BaseException:
            self._stop_loop()
            raise

    def close(self) -> None:
        """Ends the connections and the thread. What is being answered is answered first."""
        if self._loop is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=self._message_s + 30)
        self._stop_loop()

    def _stop_loop(self) -> None:
        assert self._loop is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self._loop = None
        self._executor.shutdown()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._connected,
            self.host,
            self.port,
            ssl=self._tls,
            ssl_handshake_timeout=self._message_s if self._tls else None,
            backlog=256,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        _log.info("listens for HL7 v2 (%s) on %s:%d", self._name, self.host, self.port)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        self._ending = True
        for task in self._connections - self._answering:
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self._message_s)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ending or len(self._connections) >= self._max_connections:
            _log.warning("a connection more than the limit of %d was closed", self._max_connections)
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer, task)
        except FrameError as error:
            _log.warning("a connection was closed: %s", error)
            await _let_finish(reader, writer, min(_LINGER_S, self._message_s))
        except TimeoutError:
            _log.info("a connection was closed: its time was up")
        except OSError:
            _log.info("a connection broke")
        except asyncio.CancelledError:
            # The listener ends. Raised on, it would be reported as a failure of this connection.
            pass
        except Exception:
            _log.exception("a connection was closed")
        finally:
            await _hang_up(writer, min(_LINGER_S, self._message_s))
            # Only now: a peer that does not read counts until its connection is gone.
            self._connections.discard(task)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        frames = FrameReader(max_message_bytes=self._max_message_bytes)
        begun: float | None = None
        while True:
            # A message that has begun must end soon, however slowly its bytes come.
            left = self._idle_s if begun is None else begun + self._message_s - loop.time()
            async with asyncio.timeout(left):
                data = await reader.read(_READ_BYTES)
            if not data:
                return
            for message in frames.receive_data(data):
                await self._reply(message, writer, task)
                begun = None
                if self._ending:
                    return
            if frames.idle:
                begun = None
            elif begun is None:
                begun = loop.time()

    async def _reply(self, message: bytes, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._answering.add(task)
        try:
            reply = await asyncio.get_running_loop().run_in_executor(self._executor, self._answer, message)
            writer.write(frame(reply))
            async with asyncio.timeout(self._message_s):
                await writer.drain()
        finally:
            self._answering.discard(task)


async def _let_finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, linger_s: float) -> None:
    """Ends our side and reads on: closed with bytes unread, the system would take back what the peer has not read yet."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(linger_s):
            for _ in range(_LINGER_READS):
                if not await reader.read(_READ_BYTES):
                    return


async def _hang_up(writer: asyncio.StreamWriter, linger_s: float) -> None:
    """Closes a connection. Closing waits for the peer to read what it was sent, and one that never does must not keep it open."""
    writer.close()
    try:
        async with asyncio.timeout(linger_s):
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.CancelledError):
        writer.transport.abort()
