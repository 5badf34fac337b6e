"""Retention holds: documents that nobody may remove, until a day or until somebody releases them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine, bindparam, delete, insert, or_, select

from database.connections import Database, Row
from database.statements import among, chunks
from repository.tables import retention_hold

_row = retention_hold.c
_COUNTS = or_(_row.until.is_(None), _row.until >= bindparam("today"))
_ALL = select(_row.document_unique_id, _row.until, _row.reason).where(_COUNTS).order_by(_row.document_unique_id)
_OF = _ALL.where(among(_row.document_unique_id, "values"))
_RELEASE = delete(retention_hold).where(_row.document_unique_id == bindparam("unique_id"))
_HOLD = insert(retention_hold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a document is held. `until` is the last day of it; None is for ever."""

    document_unique_id: str
    until: date | None
    reason: str


class Holds:
    """The holds of a repository. `today` tells which of them still count."""

    def __init__(self, engine: Engine, *, today: Callable[[], date]) -> None:
        self._database, self._today = Database(engine), today

    def close(self) -> None:
        """Closes the connections."""
        self._database.dispose()

    def hold(self, one: Hold) -> None:
        """Holds a document, which need not be there yet; an earlier hold of it is replaced."""
        unique_id, until = one.document_unique_id, None if one.until is None else one.until.isoformat()
        with self._database.transaction([f"document {unique_id}"]) as connection:
            connection.run(_RELEASE, {"unique_id": unique_id})
            connection.run(_HOLD, {"document_unique_id": unique_id, "until": until, "reason": one.reason})

    def release(self, document_unique_id: str) -> bool:
        """Whether there was a hold."""
        with self._database.transaction([f"document {document_unique_id}"]) as connection:
            return connection.run(_RELEASE, {"unique_id": document_unique_id}) > 0

    def all(self) -> list[Hold]:
        """Every hold that counts, by uniqueId."""
        return [_hold(row) for row in self._database.rows(_ALL, {"today": self._now()})]

    def of(self, document_unique_ids: Iterable[str]) -> dict[str, Hold]:
        """The holds of these documents that count."""
        today = self._now()
        found = (
            _hold(row)
            for chunk in chunks(document_unique_ids)
            for row in self._database.rows(_OF, {"today": today, "values": chunk})
        )
        return {one.document_unique_id: one for one in found}

    def _now(self) -> str:
        return self._today().isoformat()


def _hold(row: Row) -> Hold:
    unique_id, until, reason = row
    return Hold(document_unique_id=unique_id, until=None if until is None else date.fromisoformat(until), reason=reason)
