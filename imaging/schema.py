"""The source's own database: opening it, and bringing its tables to the form that this version of the program needs."""

from __future__ import annotations

from pathlib import Path
from sqlite3 import Connection

from sqlalchemy import Engine, create_engine, event

from database import migrating


def connect(url: str, *, busy_timeout_s: float = 30.0) -> Engine:
    """An engine for `sqlite:///...` or `postgresql+psycopg://...`. A commit on it is on disk when it returns."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _durable)
    return engine


def upgrade(engine: Engine) -> None:
    """Creates the tables, or brings those of an older version up to date; nothing happens where they are."""
    migrating.upgrade(engine, Path(__file__).parent / "migrations")


def _durable(connection: Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL").close()
    connection.execute("PRAGMA synchronous=FULL").close()
    # LIKE as PostgreSQL has it.
    connection.execute("PRAGMA case_sensitive_like=ON").close()
