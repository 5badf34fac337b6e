"""Listens for HL7 v2 messages over MLLP, in a thread of its own: many connections, one message at a time on each."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from feeds.mllp import FrameError, FrameReader, frame

_log = logging.getLogger("xdsi.feeds")
_READ_BYTES = 64 * 1024


class Listener:
    """A server that gives each message to `answer` and sends back what it returns, on the connection that the message came on.

    `port` 0 takes a free one, which is then in `port`. `idle_s` is how long a connection may say nothing, `message_s` how long a message
    may take to come. A connection beyond `max_connections` is closed at once.
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
    ) -> None:
        self.host, self.port = host, port
        self._answer, self._tls = answer, tls
        self._max_connections, self._max_message_bytes = max_connections, max_message_bytes
        self._idle_s, self._message_s = idle_s, message_s
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="xdsi-feed")
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="xdsi-mllp", daemon=True)

    def start(self) -> None:
        """Begins to listen. OSError where the address cannot be had."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)
        except BaseException:
            self._stop_loop()
            raise

    def close(self) -> None:
        """Ends the connections and the thread. What is being answered is answered first."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=30)
        self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self._executor.shutdown()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, self.host, self.port, ssl=self._tls, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        _log.info("HL7 v2 feed listens on %s:%d", self.host, self.port)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            _log.warning("a connection more than the limit of %d was closed", self._max_connections)
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except FrameError as error:
            _log.warning("a connection was closed: %s", error)
        except TimeoutError:
            _log.info("a connection was closed: nothing came within the time")
        except OSError:
            _log.info("a connection broke")
        except asyncio.CancelledError:
            # The listener ends. Raised on, it would be reported as a failure of this connection.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
                reply = await loop.run_in_executor(self._executor, self._answer, message)
                writer.write(frame(reply))
                begun = None
            async with asyncio.timeout(self._message_s):
                await writer.drain()
            if frames.idle:
                begun = None
            elif begun is None:
                begun = loop.time()
