"""The repository's own database: opening it, and bringing its tables to the form that this version of the program needs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event

_MIGRATIONS = Path(__file__).parent / "migrations"


def connect(url: str, *, busy_timeout_s: float = 30.0) -> Engine:
    """An engine for `sqlite:///...` or `postgresql+psycopg://...`. A commit on it is on disk when it returns.

    `busy_timeout_s` is how long a writer waits for another one (SQLite).
    """
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _durable)
    return engine


def upgrade(engine: Engine) -> None:
    """Create the tables, or bring those of an older version up to date; nothing happens where they are."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _durable(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL").close()
    connection.execute("PRAGMA synchronous=FULL").close()
