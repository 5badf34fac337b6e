"""Several processes behind one listening socket: forked before any thread exists, replaced when they die, ended together."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_log = logging.getLogger("xdsi.server")
#: If the first worker to end does so sooner than this after its start, so would its replacement: then all end. Later, while a database
#: is away perhaps, the replacement waits as long.
_TOO_SOON_S = 1.0
#: Read by prometheus_client when it is imported: where several processes count together.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def run(
    count: int,
    work: Callable[[int], None],
    *,
    pin: bool = False,
    gone: Callable[[int], None] = lambda pid: None,
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Runs `work(number)` in `count` processes until this one is told to end (SIGTERM, SIGINT); then tells them, and waits.

    `pin` keeps each on a processor of its own, where there are as many: the threads of an interpreter run one at a time anyhow, and
    taking turns across processors costs them a fifth of their time (docs/performance.md).
    `gone` is told the process id of each worker that has ended; `ending` is called when no more of them will be started.

    RuntimeError where a worker ends as soon as it has started for the first time.
    """
    workers: dict[int, tuple[int, float]] = {}
    told = False
    began = time.monotonic()
    processors = _processors() if pin else []

    def end(signum: int, _: FrameType | None) -> None:
        nonlocal told
        told = True
        ending()
        for pid in workers:
            os.kill(pid, signal.SIGTERM)

    def start(number: int) -> None:
        pid = os.fork()
        if pid == 0:
            _child(work, number, processors[number] if len(processors) >= count else None)
        workers[pid] = (number, time.monotonic())

    before = {one: signal.signal(one, end) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in range(count):
            start(number)
        while workers:
            pid, status = os.wait()
            number, since = workers.pop(pid, (-1, 0.0))
            gone(pid)
            if told or number < 0:
                continue
            _log.error("worker %d (process %d) ended with status %d", number, pid, os.waitstatus_to_exitcode(status))
            if time.monotonic() - began < _TOO_SOON_S:
                end(signal.SIGTERM, None)
                raise RuntimeError("a worker ended as soon as it had started; the log says why")
            if time.monotonic() - since < _TOO_SOON_S:
                time.sleep(_TOO_SOON_S)
            if not told:
                start(number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def share_metrics(directory: Path) -> Callable[[int], None]:
    """Makes room for what several processes count (server/metrics.py, which must not have been imported yet).

    What comes back is to be told of each process that has ended.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    os.environ[METRICS_VARIABLE] = str(directory)

    def gone(pid: int) -> None:
        from server.metrics import forget

        forget(str(directory), pid)

    return gone


def _processors() -> list[int]:
    """Those that this process may run on; none where the system cannot say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _child(work: Callable[[int], None], number: int, processor: int | None) -> None:
    """The life of a worker. It never returns to the caller's frames."""
    status = 1
    try:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_DFL)
        if processor is not None:
            os.sched_setaffinity(0, {processor})
        work(number)
        status = 0
    except BaseException:
        _log.exception("worker %d", number)
    finally:
        os._exit(status)
