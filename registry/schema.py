"""Bringing the registry's tables to the form that this version of the program needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Creates the tables, or brings those of an older version up to date; nothing happens where they are."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            # One process at a time: whoever comes later finds the tables there.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7238460175103382921)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
