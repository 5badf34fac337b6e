"""Commands about the documents of the repository of this configuration: which of them must not be removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server import show
from server.config import load
from server.options import Refused, config_option, json_option, worded

if TYPE_CHECKING:
    from repository.retention import Retention


@contextmanager
def open_retention(config_path: Path | None) -> Iterator[Retention]:
    """The repository's database, brought up to date."""
    from repository import schema
    from repository.retention import Retention
    from server.compose import now

    config = load(config_path)
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = schema.connect(config.database_url("repository"))
    try:
        schema.upgrade(engine)
        yield Retention(engine, now=now, retention_days=config.repository.retention_days)
    finally:
        engine.dispose()


@click.group()
def repository() -> None:
    """The documents that the repository keeps."""


@repository.command("hold")
@click.argument("unique_id")
@click.option(
    "--until", help="Day (YYYY-MM-DD, in UTC) from which it may be removed again; not given: until `release`."
)
@click.option("--reason", required=True, help="Why; whoever tries to remove it is told. No patient's data belong here.")
@config_option
@worded
def hold(unique_id: str, until: str | None, reason: str, config_path: Path | None) -> None:
    """Keep a document from being removed (ITI-86), or change how long and why it is kept.

    \b
    xdsi repository hold 1.2.3.4.100.1 --until 2030-01-01 --reason 'Case 17 is not closed'
    """
    moment = None if until is None else datetime.strptime(until, "%Y-%m-%d").replace(tzinfo=UTC)
    with open_retention(config_path) as retention:
        retention.hold(unique_id, until=moment, reason=reason)
    click.echo(f"{unique_id}: held until {until or 'it is released'}")


@repository.command("release")
@click.argument("unique_id")
@config_option
@worded
def release(unique_id: str, config_path: Path | None) -> None:
    """Let a held document be removed again.

    \b
    xdsi repository release 1.2.3.4.100.1
    """
    with open_retention(config_path) as retention:
        if not retention.release(unique_id):
            raise Refused(f"document {unique_id} is not held")
    click.echo(f"{unique_id}: released")


@repository.command("holds")
@config_option
@json_option
@worded
def holds(config_path: Path | None, json_output: bool) -> None:
    """List the documents that are held.

    \b
    xdsi repository holds --json
    """
    with open_retention(config_path) as retention:
        found = retention.holds()
    rows = [
        {
            "unique_id": one.document_unique_id,
            "until": None if one.until is None else one.until.date().isoformat(),
            "reason": one.reason,
            "placed_at": one.placed_at.isoformat(),
        }
        for one in found
    ]
    if json_output:
        show.as_json(rows)
    else:
        columns = ("uniqueId", "until", "reason", "placed at")
        show.as_table(
            show.counted(len(rows), "hold"),
            columns,
            [(row["unique_id"], row["until"] or "released", row["reason"], row["placed_at"]) for row in rows],
        )


COMMANDS: tuple[click.Command, ...] = (repository,)
