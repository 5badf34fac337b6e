"""How long documents are kept: holds that an administrator places, and the time that all of them stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from repository.tables import State, retention_hold, stored_document
from xds.problems import ErrorCode, Problem

_DAY_S = 24 * 60 * 60
_hold, _row = retention_hold.c, stored_document.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A document that must not be removed. `until` is None where it is held until somebody releases it."""

    document_unique_id: str
    until: datetime | None
    reason: str
    placed_at: datetime


class Retention:
    """Which documents may be removed. Every method may be called from several threads and processes at once."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime], retention_days: int = 0) -> None:
        """`engine` has the tables of repository.schema; all documents stay for `retention_days` after they were stored."""
        self._engine, self._now, self._retention_days = engine, now, retention_days

    def hold(self, document_unique_id: str, *, until: datetime | None, reason: str) -> None:
        """Hold a document, or change how long and why it is held.

        ValueError where the document is not stored, the time is over, or there is no reason.
        """
        now = self._now()
        if until is not None and until <= now:
            raise ValueError(f"the document cannot be held until {_shown(until)}, which is over")
        if not reason.strip():
            raise ValueError("a hold needs a reason")
        values = {
            "held_until": None if until is None else int(until.timestamp()),
            "reason": reason.strip(),
            "placed_at": int(now.timestamp()),
        }
        with self._engine.begin() as connection:
            changed = connection.execute(
                update(retention_hold).where(_hold.document_unique_id == document_unique_id).values(values)
            )
            if not changed.rowcount:
                connection.execute(insert(retention_hold).values(document_unique_id=document_unique_id, **values))
            # Looked for after the hold is written: nobody is told that a document is held which has just been removed.
            if (
                connection.execute(select(_row.key).where(_row.document_unique_id == document_unique_id)).first()
                is None
            ):
                raise ValueError(f"document {document_unique_id} is not in this repository")

    def release(self, document_unique_id: str) -> bool:
        """Whether there was a hold; now there is none."""
        return self.forget([document_unique_id]) == 1

    def forget(self, document_unique_ids: Iterable[str]) -> int:
        """Drop the holds of these documents; how many there were."""
        with self._engine.begin() as connection:
            chosen = _hold.document_unique_id.in_(list(document_unique_ids))
            return connection.execute(delete(retention_hold).where(chosen)).rowcount

    def holds(self) -> list[Hold]:
        """All holds that are not over, in the order in which they were placed."""
        with self._engine.connect() as connection:
            found = _holds(connection)
        return [one for one in found if one.until is None or one.until > self._now()]

    def obstacles(self, document_unique_ids: Iterable[str]) -> list[Problem]:
        """Why these documents cannot be removed, in their order: at most one reason for each, none where they can."""
        wanted = list(document_unique_ids)
        with self._engine.connect() as connection:
            stored = _stored(connection, wanted)
            held = {one.document_unique_id: one for one in _holds(connection, _hold.document_unique_id.in_(wanted))}
        found = (self._obstacle(one, stored.get(one, {}), held.get(one)) for one in wanted)
        return [problem for problem in found if problem is not None]

    def _obstacle(self, unique_id: str, stored: Mapping[State, int], hold: Hold | None) -> Problem | None:
        """`stored` has the states of the document's rows, each with the time in which it was stored."""
        if not stored:
            code, context = ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"document {unique_id} is not in this repository"
            return Problem(code=code, context=context, location=unique_id)
        reason = next(self._reasons(stored, hold), None)
        if reason is None:
            return None
        context = f"document {unique_id} {reason}"
        return Problem(code=ErrorCode.REMOVE_DOCUMENTS_ERROR, context=context, location=unique_id)

    def _reasons(self, stored: Mapping[State, int], hold: Hold | None) -> Iterator[str]:
        if State.PENDING in stored:
            yield "is being registered, and cannot be removed before that has ended"
        if State.QUARANTINED in stored:
            yield (
                "is in quarantine: the registry gave no answer to its registration;"
                " it cannot be removed before the sweep has asked the registry again"
            )
        if hold is not None and (hold.until is None or hold.until > self._now()):
            until = "it is released" if hold.until is None else _shown(hold.until)
            yield f"is held until {until}: {hold.reason}"
        kept_until = stored.get(State.AVAILABLE, 0) + self._retention_days * _DAY_S
        if self._retention_days and kept_until > self._now().timestamp():
            until = _shown(datetime.fromtimestamp(kept_until, UTC))
            yield f"is kept until {until}: every document stays for {self._retention_days} days after it was stored"


def _stored(connection: Connection, document_unique_ids: list[str]) -> dict[str, dict[State, int]]:
    """Of each that is there, the states of its rows and when it was stored (seconds since 1970)."""
    found: dict[str, dict[State, int]] = {}
    statement = select(_row.document_unique_id, _row.state, _row.staged_at).where(
        _row.document_unique_id.in_(document_unique_ids)
    )
    for row in connection.execute(statement):
        found.setdefault(row.document_unique_id, {})[State(row.state)] = row.staged_at
    return found


def _holds(connection: Connection, *conditions: ColumnElement[bool]) -> list[Hold]:
    statement = select(retention_hold).where(*conditions).order_by(_hold.placed_at, _hold.document_unique_id)
    return [
        Hold(
            document_unique_id=row.document_unique_id,
            until=None if row.held_until is None else datetime.fromtimestamp(row.held_until, UTC),
            reason=row.reason,
            placed_at=datetime.fromtimestamp(row.placed_at, UTC),
        )
        for row in connection.execute(statement)
    ]


def _shown(moment: datetime) -> str:
    """A day, and the time of day where it is not the beginning of it."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text.removesuffix("T00:00:00Z")
