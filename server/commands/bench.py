"""Commands that make large registries, to see how one of that size behaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from registry.store import Store
from server import show
from server.commands.patients import open_store
from server.options import Refused, config_option, worded


@click.group()
def bench() -> None:
    """Synthetic registries of any size."""


@contextmanager
def _opened(config_path: Path | None, database: str | None) -> Iterator[Store]:
    if database is None:
        with open_store(config_path, "") as store:
            yield store
        return
    from registry.bulk import open_store as open_url

    store = open_url(database)
    try:
        yield store
    finally:
        store.close()


@bench.command("load")
@click.option("--documents", type=click.IntRange(min=1), required=True, help="How many DocumentEntries.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same seed, the same objects."
)
@click.option("--database", help="URL of the database, instead of the configuration's.")
@click.option("--add", is_flag=True, help="Even if the database has objects; with a seed that it has not seen.")
@config_option
@worded
def load(documents: int, seed: int, database: str | None, add: bool, config_path: Path | None) -> None:
    """Fill a registry with a synthetic population, as ten years might leave it.

    \b
    xdsi bench load --documents 100000
    xdsi bench load --documents 1000000 --seed 7 --database postgresql://xdsi@127.0.0.1/registry
    """
    from registry import bulk
    from server.population import parts

    if database is not None and config_path is not None:
        raise Refused("give --database or --config, not both")
    with _opened(config_path, database) as store:
        if not add and not bulk.is_empty(store):
            raise Refused("the registry has objects already; --add puts more beside them")
        before = bulk.database_bytes(store)
        try:
            with show.progress("documents", documents, unit="documents") as step:
                loaded = bulk.load(store, parts(documents, seed), progress=step)
        except bulk.AlreadyThere:
            raise Refused(f"the registry has objects of seed {seed} already; give another --seed") from None
        size = bulk.database_bytes(store)
    objects = sum(loaded.counts.values())
    rows: list[tuple[str, object]] = [*loaded.counts.items(), ("objects", objects)]
    rows += [
        ("seconds", f"{loaded.seconds:,.1f}, of which ANALYZE {loaded.analyze_seconds:,.1f}"),
        ("objects/s", f"{objects / loaded.seconds:,.0f}"),
        ("documents/s", f"{documents / loaded.seconds:,.0f}"),
        ("bytes in the database", f"{size:,}"),
        ("bytes per DocumentEntry, with all that comes with it", f"{(size - before) / documents:,.0f}"),
    ]
    show.as_table(
        f"{documents:,} documents of seed {seed}", ("what", "how much"), [(what, _shown(n)) for what, n in rows]
    )


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


COMMANDS: tuple[click.Command, ...] = (bench,)
