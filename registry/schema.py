"""Bringing the registry's tables to the form that this version of the program needs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from database import migrating


def upgrade(engine: Engine) -> None:
    """Creates the tables, or brings those of an older version up to date; nothing happens where they are."""
    migrating.upgrade(engine, Path(__file__).parent / "migrations")
