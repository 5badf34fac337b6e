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
    from repository.documents import Documents
    from repository.holds import Holds


@contextmanager
def _open_documents(config_path: Path | None) -> Iterator[Documents]:
    """The content store of this configuration."""
    from server.compose import open_documents

    config = load(config_path)
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    documents = open_documents(config)
    try:
        yield documents
    finally:
        documents.close()


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
        holds = Holds(engine, today=lambda: now().date())
        try:
            yield holds
        finally:
            holds.close()
    finally:
        engine.dispose()


@click.group()
def repository() -> None:
    """The documents that the repository keeps."""


@repository.command("status")
@config_option
@json_option
@worded
def status(config_path: Path | None, json_output: bool) -> None:
    """Count the stored documents by state, and by the place of their bytes.

    Pending and quarantined documents wait for the registry's word, removed ones for their bytes to go: the sweep settles them.

    \b
    xdsi repository status
    """
    with _open_documents(config_path) as documents:
        found = documents.catalogue.counts()
    counts = sorted(found, key=lambda one: (one.state, one.place))
    if json_output:
        show.as_json(counts)
    else:
        cells = [(one.state.value, one.place, one.documents, one.size) for one in counts]
        total = sum(one.documents for one in counts)
        show.as_table(show.counted(total, "document"), ("state", "place", "documents", "bytes"), cells)


@repository.command("scrub")
@config_option
@json_option
@worded
def scrub_command(config_path: Path | None, json_output: bool) -> None:
    """Read all stored documents, and report what is damaged and what is nobody's. Nothing is changed.

    It may run while the server does. The exit status is 1 where anything was found.

    \b
    xdsi repository scrub
    xdsi repository scrub --json > scrub.json
    """
    from repository.catalogue import Stored
    from repository.scrub import scrub

    with _open_documents(config_path) as documents:
        total = sum(one.documents for one in documents.catalogue.counts())
        with show.progress("documents", total) as step:

            def looked_at(stored: Stored) -> None:
                step()

            report = scrub(documents, looked_at=looked_at)
    if json_output:
        show.as_json(
            {
                "documents": report.documents,
                "bytes": report.size,
                "unsettled": report.unsettled,
                "damaged": report.damaged,
                "orphans": report.orphans,
            }
        )
    else:
        if report.damaged:
            damaged = [(one.document_unique_id, one.place, one.copy, one.fault) for one in report.damaged]
            show.as_table(
                show.counted(len(damaged), "damaged document"), ("document", "place", "copy", "fault"), damaged
            )
        if report.orphans:
            orphans = [(one.place, one.copy) for one in report.orphans]
            show.as_table(show.counted(len(orphans), "orphan"), ("place", "copy"), orphans)
        click.echo(
            f"{show.counted(report.documents, 'document')} read, {report.size:,} bytes: {len(report.damaged)} damaged,"
            f" {show.counted(len(report.orphans), 'orphan')}, {report.unsettled} unsettled"
        )
    if not report.whole:
        raise SystemExit(1)


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
