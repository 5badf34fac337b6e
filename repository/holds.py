"""Retention holds: documents that nobody may remove, until a day or until somebody releases them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import ColumnElement, Engine, delete, insert, select

from repository.tables import retention_hold

_row = retention_hold.c
#: The longest list that one statement takes.
_MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a document is held. `until` is the last day of it; None is for ever."""

    document_unique_id: str
    until: date | None
    reason: str


class Holds:
    """The holds of a repository. `today` tells which of them still count."""

    def __init__(self, engine: Engine, *, today: Callable[[], date]) -> None:
        self._engine, self._today = engine, today

    def hold(self, one: Hold) -> None:
        """Holds a document, which need not be there yet; an earlier hold of it is replaced."""
        until = None if one.until is None else one.until.isoformat()
        with self._engine.begin() as connection:
            connection.execute(delete(retention_hold).where(_row.document_unique_id == one.document_unique_id))
            row = {"document_unique_id": one.document_unique_id, "until": until, "reason": one.reason}
            connection.execute(insert(retention_hold), row)

    def release(self, document_unique_id: str) -> bool:
        """Whether there was a hold."""
        with self._engine.begin() as connection:
            gone = connection.execute(delete(retention_hold).where(_row.document_unique_id == document_unique_id))
            return gone.rowcount > 0

    def all(self) -> list[Hold]:
        """Every hold that counts, by uniqueId."""
        return self._found()

    def of(self, document_unique_ids: Iterable[str]) -> dict[str, Hold]:
        """The holds of these documents that count."""
        wanted = list(document_unique_ids)
        found = [
            hold
            for start in range(0, len(wanted), _MOST)
            for hold in self._found(_row.document_unique_id.in_(wanted[start : start + _MOST]))
        ]
        return {one.document_unique_id: one for one in found}

    def _found(self, *conditions: ColumnElement[bool]) -> list[Hold]:
        today = self._today().isoformat()
        counts = _row.until.is_(None) | (_row.until >= today)
        statement = select(retention_hold).where(counts, *conditions).order_by(_row.document_unique_id)
        with self._engine.connect() as connection:
            return [
                Hold(
                    document_unique_id=row.document_unique_id,
                    until=None if row.until is None else date.fromisoformat(row.until),
                    reason=row.reason,
                )
                for row in connection.execute(statement)
            ]
