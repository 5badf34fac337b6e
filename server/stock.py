"""What a repository has in stock, counted now and then for those who watch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from repository.catalogue import Count
from repository.documents import Documents

#: Counting reads the whole catalogue: it may take this part of the time.
_SHARE = 0.01


class Stock:
    """Counts the documents of a store whenever it is asked to, but not so often that it would be felt."""

    def __init__(
        self, store: Documents, told: Callable[[Sequence[Count], int], None], *, now: Callable[[], float]
    ) -> None:
        """`told` hears the counts, and how many bytes are in staging. `now` gives seconds."""
        self._store, self._told, self._now = store, told, now
        self._not_before = float("-inf")

    def tell(self) -> None:
        """Counts, unless the last time is too short ago for what it took."""
        began = self._now()
        if began < self._not_before:
            return
        self._told(self._store.catalogue.counts(), self._store.staging_bytes())
        ended = self._now()
        self._not_before = ended + (ended - began) / _SHARE
