"""Group commit: one thread writes, and what has come in while one group was being committed becomes the next one.

Many clients wait for the disk together: a group is one transaction of the database. What two jobs touch in common keeps them apart, so that
each is as if it were alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from database.connections import DatabaseLost
from xds.problems import Failure

T = TypeVar("T")
#: Most jobs in one transaction.
_MAX_GROUP = 48


class Touched(Protocol):
    """What a job reads and changes, as keys: no other job with one of them runs at the same time."""

    @property
    def keys(self) -> frozenset[str]: ...


F = TypeVar("F", bound=Touched)


@dataclass(slots=True, kw_only=True)
class Job(Generic[F, T]):
    """A unit of work. It may be run several times. `alone` gives it a transaction of its own.

    Where all jobs of a group are not `durable`, the database may forget them when the power goes, and tells nobody that it might.
    """

    footprint: F
    work: Callable[[Any], T]
    alone: bool = False
    durable: bool = True
    future: Future[T] = field(default_factory=Future)


Transact = Callable[[Sequence[Job[F, Any]]], Sequence[tuple[Any, Failure | None]]]
"""One transaction: what came of each job, which is stored when this returns. A Failure has stored nothing of its job."""


#: Told how many jobs a commit held, and how many wait for the next.
Committed = Callable[[int, int], None]


class Writer(Generic[F]):
    """The writer of one database in this process. `committed` is told how many jobs each commit held, and how many wait."""

    def __init__(
        self,
        name: str,
        transact: Transact[F],
        *,
        again: Callable[[Job[F, Any], BaseException], bool] = lambda job, error: False,
        committed: Committed = lambda jobs, waiting: None,
    ) -> None:
        """`again` says whether a job that failed alone is to be run once more; it may change the job's footprint."""
        self._name, self._transact, self._again, self._committed = name, transact, again, committed
        self._waiting: list[Job[F, Any]] = []
        self._arrived = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, job: Job[F, T]) -> Future[T]:
        """The result is there when the work is stored. What it raises has stored nothing."""
        with self._arrived:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_groups, name=self._name, daemon=True)
                self._thread.start()
            self._waiting.append(job)
            self._arrived.notify()
        return job.future

    def close(self) -> None:
        """Finishes what waits to be written."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        if self._thread is not None:
            self._thread.join()

    def _write_groups(self) -> None:
        """The thread's life."""
        while self._waits():
            if group := self._next_group():
                self._run(group)

    def _waits(self) -> bool:
        """Whether there is work; comes back when there is, or when the writer is closed."""
        with self._arrived:
            while not self._waiting and not self._closed:
                self._arrived.wait()
            return bool(self._waiting)

    def _next_group(self) -> list[Job[F, Any]]:
        """The oldest waiting job, and whatever after it has nothing to do with it."""
        with self._arrived:
            group: list[Job[F, Any]] = []
            taken: set[str] = set()
            left: list[Job[F, Any]] = []
            for job in self._waiting:
                apart = not group or not (job.alone or group[0].alone or not job.footprint.keys.isdisjoint(taken))
                if apart and len(group) < _MAX_GROUP:
                    group.append(job)
                else:
                    left.append(job)
                # What comes later and touches what waits must wait too.
                taken |= job.footprint.keys
            self._waiting = left
        # From here on nobody can cancel it.
        return [job for job in group if job.future.set_running_or_notify_cancel()]

    def _run(self, group: Sequence[Job[F, Any]]) -> None:
        """Writes the group, and tells each of it how it went."""
        try:
            results = self._transact(group)
        except BaseException as error:
            # Of whatever kind it is: a writer that ended here would leave everybody waiting.
            if len(group) == 1 and self._again(group[0], error):
                self._run(group)
            elif len(group) == 1 or isinstance(error, DatabaseLost):
                for job in group:
                    job.future.set_exception(error)
            else:
                # One of them is at fault: each is tried alone.
                for job in group:
                    self._run([job])
            return
        self._committed(len(group), len(self._waiting))
        for job, (result, failure) in zip(group, results, strict=True):
            if failure is not None:
                job.future.set_exception(failure)
            else:
                job.future.set_result(result)
