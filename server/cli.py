"""The `xdsi` command."""

from __future__ import annotations

import gc
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.commands import (
    bench,
    codes,
    demo,
    documents,
    export,
    imaging,
    lifecycle,
    patients,
    query,
    removal,
    repository,
)
from server.config import ACTORS, Config, ConfigError, load, to_toml
from server.options import config_option, worded

if TYPE_CHECKING:
    from server.compose import Domain


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xdsi")
def main() -> None:
    """An IHE XDS.b / XDS-I.b affinity domain: registry, repository, imaging source, and their clients.

    \b
    xdsi demo                          see the main job done
    xdsi serve                         run all actors on 127.0.0.1:8080
    xdsi patients add 'p1^^^&1.2.3&ISO'
    xdsi submit letter.pdf --patient 'p1^^^&1.2.3&ISO'
    xdsi query --patient 'p1^^^&1.2.3&ISO'
    """


@main.command()
@config_option
@click.option("--actors", help="Any of registry,repository,imaging; all by default.")
@click.option("--port", type=int, help="TCP port; 0 takes a free one.")
@click.option("--host", help="Address to listen on.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without any security.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that serve.")
@worded
def serve(
    config_path: Path | None,
    actors: str | None,
    port: int | None,
    host: str | None,
    insecure: bool,
    workers: int | None,
) -> None:
    """Run the actors until interrupted.

    \b
    xdsi serve --config xdsi.toml
    xdsi serve --actors registry --port 8081 --workers 4
    """
    from server import logs
    from server.compose import clear_spools, compose
    from server.http import base_url, bind, server
    from server.imaging import dimse_port
    from server.sharing import Counts, Share
    from server.workers import run, share_metrics

    config = _overridden(
        load(config_path), actors=actors, port=port, host=host, insecure=insecure or None, workers=workers
    )
    logs.set_up(config.server.log_level, "json" if config.server.log_format == "json" else "text")
    listening = bind(config)
    url = base_url(config, listening)
    clear_spools(config)

    workers = config.server.workers
    counts, dimse = Counts(workers), dimse_port(config) if workers > 1 else None

    def work(number: int) -> None:
        domain = compose(config, url, listen=number == 0, dimse=dimse.of(number) if dimse else None)
        if number == 0:
            _announce(domain)
        running = server(domain.app, config, share=Share(counts, number) if workers > 1 else None)

        def end(*_: object) -> None:
            # Also of use when uvicorn, done, raises the signal once more that ended it: there is something to close after that.
            running.should_exit = True

        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, end)
        try:
            # The event loop only moves bytes: it should not wait 5 ms for a thread that computes.
            sys.setswitchinterval(0.0005)
            _spare_what_stays()
            running.run(sockets=[listening])
        finally:
            domain.close()

    def ending() -> None:
        for one in (listening, dimse.listening) if dimse else (listening,):
            one.close()

    if workers == 1:
        work(0)
    else:
        gone = share_metrics(Path(config.server.directory).absolute() / "metrics")
        # The tables are made by one process, before there are several.
        compose(config, url, listen=False).close()
        run(workers, work, pin=config.server.pin_workers, gone=gone, ending=ending)


def _spare_what_stays() -> None:
    """The collector need not look at what was loaded for good, nor after every few hundred objects: a message makes thousands."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


def _announce(domain: Domain) -> None:
    for name, address in domain.endpoints.items():
        click.echo(f"{name:<11} {address}")
    click.echo("ready", nl=True)
    sys.stdout.flush()


def _overridden(config: Config, **values: object) -> Config:
    given = {name: value for name, value in values.items() if value is not None}
    if "actors" in given:
        unknown = [name for name in str(given["actors"]).split(",") if name.strip() not in ACTORS]
        if unknown:
            raise ConfigError(f"--actors: {unknown[0]!r} is none of {', '.join(ACTORS)}")
    return replace(config, server=replace(config.server, **given))  # type: ignore[arg-type]


@main.command("config")
@config_option
@worded
def config_command(config_path: Path | None) -> None:
    """Print the effective configuration with the meaning of each key.

    \b
    xdsi config > xdsi.toml
    XDSI__SERVER__PORT=9000 xdsi config --config xdsi.toml
    """
    click.echo(to_toml(load(config_path)))


@main.group()
def db() -> None:
    """The databases."""


@db.command()
@config_option
@worded
def upgrade(config_path: Path | None) -> None:
    """Bring the tables of all actors to the form that this version needs; `serve` does so by itself.

    \b
    xdsi db upgrade --config xdsi.toml
    """
    from server.compose import compose

    config = load(config_path)
    compose(config, "http://127.0.0.1").close()
    for actor in config.actors:
        click.echo(f"{actor}: {config.database_url(actor)} is up to date")


for module in (patients, codes, documents, repository, query, lifecycle, removal, imaging, export, demo, bench):
    for command in module.COMMANDS:
        main.add_command(command)


if __name__ == "__main__":
    main()
