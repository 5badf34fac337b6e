"""Fetching what is asked for of the archive: in threads, several instances of a series together, and each of them once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future

from imaging.archive import Archive, ArchiveError, Fetched

#: UIDs of the study, of the series, and of the instance.
Place = tuple[str, str, str]
Outcomes = Mapping[str, Fetched | ArchiveError]


class Kept:
    """What was fetched last, for who asks for the next frame of it. It may be used from several threads at once."""

    def __init__(self, max_bytes: int, max_age_s: float = 300.0) -> None:
        """`max_bytes` of all together. Archives change what they know of patients, so that nothing is kept for long."""
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[Place, tuple[float, Fetched]] = OrderedDict()
        self._size = 0

    def get(self, place: Place) -> Fetched | None:
        """None where it is not kept."""
        with self._lock:
            since, found = self._kept.get(place, (0.0, None))
            return found if time.monotonic() - since < self._max_age_s else None

    def put(self, fetched: Fetched) -> None:
        """Keeps one more, and no longer those that there is no room for."""
        place = (fetched.study_instance_uid, fetched.series_instance_uid, fetched.sop_instance_uid)
        oldest = time.monotonic() - self._max_age_s
        with self._lock:
            if place in self._kept:
                self._size -= self._kept.pop(place)[1].size
            self._kept[place] = (time.monotonic(), fetched)
            self._size += fetched.size
            while self._kept:
                since, first = next(iter(self._kept.values()))
                if since > oldest and self._size <= self._max_bytes:
                    break
                self._size -= first.size
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Keeps nothing."""
        with self._lock:
            self._kept.clear()
            self._size = 0


class Fetching:
    """What one request needs. Each batch is begun when something of the one before it is asked for."""

    def __init__(self, archive: Archive, executor: Executor, kept: Kept, wanted: Iterable[Place]) -> None:
        self._archive, self._executor, self._kept = archive, executor, kept
        of_series: dict[tuple[str, str], list[str]] = {}
        self._here: dict[Place, Fetched] = {}
        for place in dict.fromkeys(wanted):
            if (found := kept.get(place)) is not None:
                self._here[place] = found
            else:
                of_series.setdefault(place[:2], []).append(place[2])
        size = archive.batch
        self._batches = [
            (study, series, uids[start : start + size])
            for (study, series), uids in of_series.items()
            for start in range(0, len(uids), size)
        ]
        self._number = {
            (study, series, uid): number for number, (study, series, uids) in enumerate(self._batches) for uid in uids
        }
        self._begun: dict[int, Future[Outcomes]] = {}

    def begin(self, place: Place) -> Callable[[], Fetched | None]:
        """What waits for one of the instances; None for one that the archive does not have. ArchiveError, or another OSError."""
        if (here := self._here.get(place)) is not None:
            return lambda: here
        number = self._number[place]
        for one in (number, number + 1):
            if one not in self._begun and one < len(self._batches):
                self._begun[one] = self._executor.submit(self._archive.fetch, *self._batches[one])
        future = self._begun[number]

        def come() -> Fetched | None:
            outcome = future.result().get(place[2])
            if isinstance(outcome, ArchiveError):
                raise outcome
            if outcome is not None:
                self._kept.put(outcome)
            return outcome

        return come


Fetch = Callable[[Iterable[Place]], Fetching]
"""Prepares to fetch these."""
