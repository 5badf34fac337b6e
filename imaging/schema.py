"""The source's own database: opening it, and bringing its tables to the form that this version of the program needs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from database import migrating
from database.connections import open_engine


def connect(url: str, *, busy_timeout_s: float = 30.0) -> Engine:
    """An engine for `sqlite:///PATH` or `postgresql://...`. A commit on it is on disk when it returns."""
    return open_engine(url, busy_timeout_s=busy_timeout_s)


def upgrade(engine: Engine) -> None:
    """Creates the tables, or brings those of an older version up to date; nothing happens where they are."""
    migrating.upgrade(engine, Path(__file__).parent / "migrations")
