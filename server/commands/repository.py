"""Commands about the documents that a repository keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server import show
from server.config import load
from server.options import Refused, config_option, json_option, worded
from xds.values import UniqueId

if TYPE_CHECKING:
    from repository.holds import Holds


@contextmanager
def _open_holds(config_path: Path | None) -> Iterator[Holds]:
    """Those of the repository of this configuration."""
    from repository import schema
    from repository.holds import Holds
    from server.compose import now

    config = load(config_path)
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = schema.connect(config.database_url("repository"))
    try:
        schema.upgrade(engine)
        yield Holds(engine, today=lambda: now().date())
    finally:
        engine.dispose()


@click.group()
def repository() -> None:
    """The documents that the repository keeps."""


@repository.command("hold")
@click.argument("unique_id", nargs=-1, required=True)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The last day of it; without, until it is released.")
@click.option("--reason", required=True, help="What whoever wants to remove the document is told.")
@config_option
@worded
def hold(unique_id: tuple[str, ...], until: datetime | None, reason: str, config_path: Path | None) -> None:
    """Let nobody remove documents (ITI-86), whether they are there already or not.

    \b
    xdsi repository hold 1.2.3.4.5 --until 2035-12-31 --reason "law case 7/26"
    """
    from repository.holds import Hold

    for one in unique_id:
        if (fault := UniqueId(one).fault) is not None:
            raise Refused(f"{one!r} {fault}")
    with _open_holds(config_path) as holds:
        for one in unique_id:
            day = None if until is None else until.date()
            holds.hold(Hold(document_unique_id=one, until=day, reason=reason))
    click.echo(f"{len(unique_id)} held")


@repository.command("release")
@click.argument("unique_id", nargs=-1, required=True)
@config_option
@worded
def release(unique_id: tuple[str, ...], config_path: Path | None) -> None:
    """End holds of documents.

    \b
    xdsi repository release 1.2.3.4.5
    """
    with _open_holds(config_path) as holds:
        unknown = [one for one in unique_id if not holds.release(one)]
    click.echo(f"{len(unique_id) - len(unknown)} released")
    if unknown:
        raise Refused(f"not held: {', '.join(unknown)}")


@repository.command("holds")
@config_option
@json_option
@worded
def list_holds(config_path: Path | None, json_output: bool) -> None:
    """List the documents that are held.

    \b
    xdsi repository holds --json
    """
    with _open_holds(config_path) as holds:
        found = holds.all()
    rows = [
        {
            "document_unique_id": one.document_unique_id,
            "until": None if one.until is None else one.until.isoformat(),
            "reason": one.reason,
        }
        for one in found
    ]
    if json_output:
        show.as_json(rows)
    else:
        cells = [(row["document_unique_id"], row["until"] or "", row["reason"]) for row in rows]
        show.as_table(show.counted(len(rows), "hold"), ("document", "until", "reason"), cells)


COMMANDS: tuple[click.Command, ...] = (repository,)
