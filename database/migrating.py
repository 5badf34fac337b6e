"""Bringing an actor's tables to the form that this version of the program needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

#: One process at a time, of whichever actor: who comes later finds the tables there (PostgreSQL).
_LOCK = 7238460175103382921


def upgrade(engine: Engine, migrations: Path, revision: str = "head") -> None:
    """Creates the tables, or brings those of an older version up to date; nothing happens where they are.

    `migrations` is a directory of alembic's, which runs its steps on `context.config.attributes["connection"]`.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
