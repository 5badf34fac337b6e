"""Whether the process lives, and whether it can do its work: `/healthz` and `/readyz` for whoever starts, stops and watches it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

_log = logging.getLogger("xdsi.server")
#: A check that takes longer has failed.
_TIMEOUT_S = 5.0
#: An answer is good for so long, however often it is asked for.
_FRESH_S = 1.0

#: Raises what is wrong; its text stays in the log.
Check = Callable[[], object]


def can_be_written(directory: Path) -> Check:
    """Whether files can be made in a directory: it is ours, and the disk has room."""

    def check() -> None:
        free = os.statvfs(directory)
        if not os.access(directory, os.W_OK) or free.f_bavail == 0 or free.f_favail == 0:
            raise OSError(f"{directory} cannot be written")

    return check


def answers(engine: Any) -> Check:
    """Whether a database, as SQLAlchemy's engine, answers."""

    def check() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1").close()

    return check


def http_answers(url: str) -> None:
    """Raises where nobody answers at the URL, whatever the answer is."""
    httpx.get(url, timeout=_TIMEOUT_S)


class Readiness:
    """The checks of the actors of this process, by name."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self._threads = ThreadPoolExecutor(max(1, len(checks)), thread_name_prefix="xdsi-ready")
        self._answer: tuple[bool, bytes] = (False, b"")
        self._answered = float("-inf")
        self._asking = asyncio.Lock()
        self._running: dict[str, asyncio.Future[object]] = {}

    async def answer(self) -> tuple[bool, bytes]:
        """Whether everything is in order, and a JSON object that says of each check whether it is."""
        async with self._asking:
            if time.monotonic() - self._answered > _FRESH_S:
                found = await asyncio.gather(*(self._passes(name) for name in self._checks))
                checks = {name: "ok" if good else "failed" for name, good in zip(self._checks, found, strict=True)}
                ready = all(found)
                self._answer = (ready, json.dumps({"ready": ready, "checks": checks}).encode() + b"\n")
                self._answered = time.monotonic()
            return self._answer

    async def _passes(self, name: str) -> bool:
        # A check that hangs is waited for again, and not begun again: each has one thread at most.
        running = self._running.get(name)
        if running is None:
            loop = asyncio.get_running_loop()
            running = self._running[name] = loop.run_in_executor(self._threads, self._checks[name])
        try:
            await asyncio.wait_for(asyncio.shield(running), _TIMEOUT_S)
        except TimeoutError:
            _log.error("not ready: %s has not answered for %s s", name, _TIMEOUT_S)
            return False
        except Exception as error:
            _log.error("not ready: %s: %s", name, error)
        else:
            del self._running[name]
            return True
        self._running.pop(name, None)
        return False

    def close(self) -> None:
        """Ends the threads that are not busy."""
        self._threads.shutdown(wait=False, cancel_futures=True)
