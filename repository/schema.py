"""The repository's own database: opening it, and bringing its tables to the form that this version of the program needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from database import migrating
from database.connections import open_engine


def connect(url: str, *, busy_timeout_s: float = 30.0) -> Engine:
    """An engine for the repository's database, which `sqlite:///PATH` or `postgresql://...` names."""
    engine = open_engine(url, busy_timeout_s=busy_timeout_s)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _erasing)
    return engine


def upgrade(engine: Engine) -> None:
    """Creates the tables, or brings those of an older version up to date; nothing happens where they are."""
    migrating.upgrade(engine, Path(__file__).parent / "migrations")


def _erasing(connection: Any, _: object) -> None:
    # What is deleted may be a document: its bytes are overwritten, and not only forgotten.
    connection.execute("PRAGMA secure_delete=ON")
