"""Fetching what is asked for of the archive: in threads, several instances of a series together, and each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future

from imaging.archive import Archive, ArchiveError, Fetched

#: UIDs of the study, of the series, and of the instance.
Place = tuple[str, str, str]
Outcomes = Mapping[str, Fetched | ArchiveError]


class Fetching:
    """What one request needs. Each batch is begun when something of the one before it is asked for."""

    def __init__(self, archive: Archive, executor: Executor, wanted: Iterable[Place]) -> None:
        self._archive, self._executor = archive, executor
        of_series: dict[tuple[str, str], list[str]] = {}
        for study, series, uid in dict.fromkeys(wanted):
            of_series.setdefault((study, series), []).append(uid)
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
        number = self._number[place]
        for one in (number, number + 1):
            if one not in self._begun and one < len(self._batches):
                self._begun[one] = self._executor.submit(self._archive.fetch, *self._batches[one])
        future = self._begun[number]

        def come() -> Fetched | None:
            outcome = future.result().get(place[2])
            if isinstance(outcome, ArchiveError):
                raise outcome
            return outcome

        return come


Fetch = Callable[[Iterable[Place]], Fetching]
"""Prepares to fetch these."""
