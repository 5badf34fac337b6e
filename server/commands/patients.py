"""Commands about the patients that a registry knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from registry.store import Store
from server import show
from server.config import AffinityDomain, Config, ConfigError, load
from server.options import config_option, json_option, worded
from xds.values import Identifier

domain_option = click.option(
    "--domain", default="", help="Affinity domain, as [domains.NAME]; the unnamed one if not given."
)


def affinity_domain(config: Config, name: str) -> AffinityDomain:
    """The domain of that name. ConfigError where there is none."""
    for one in config.affinity_domains:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in config.domains) or "none but the unnamed one"
    raise ConfigError(f"there is no affinity domain {name!r}; there are {names}")


@contextmanager
def open_store(config_path: Path | None, domain: str) -> Iterator[Store]:
    """The registry's database, brought up to date."""
    from server.compose import open_registry

    config = load(config_path)
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    store = open_registry(config, affinity_domain(config, domain))
    try:
        yield store
    finally:
        store.close()


@click.group()
def patients() -> None:
    """The patients that the registry knows."""


@patients.command("add")
@click.argument("patient_id", nargs=-1, required=True)
@domain_option
@config_option
@worded
def add(patient_id: tuple[str, ...], domain: str, config_path: Path | None) -> None:
    """Make patients known to the registry of this configuration.

    \b
    xdsi patients add 'p100^^^&1.2.3.4&ISO' --config xdsi.toml
    """
    from registry.patients import add_patient

    with open_store(config_path, domain) as store:
        for one in patient_id:
            new = add_patient(store, Identifier(one))
            click.echo(f"{one}: {'added' if new else 'was known'}")


@patients.command("merge")
@click.argument("subsumed")
@click.argument("surviving")
@domain_option
@config_option
@worded
def merge(subsumed: str, surviving: str, domain: str, config_path: Path | None) -> None:
    """Make everything of the patient SUBSUMED the patient SURVIVING's. It cannot be undone.

    \b
    xdsi patients merge 'p999^^^&1.2.3.4&ISO' 'p100^^^&1.2.3.4&ISO' --config xdsi.toml
    """
    from registry.patients import merge_patients

    with open_store(config_path, domain) as store:
        merge_patients(store, surviving=Identifier(surviving), subsumed=Identifier(subsumed))
    click.echo(f"{subsumed}: merged into {surviving}")


@patients.command("list")
@domain_option
@config_option
@json_option
@worded
def list_(domain: str, config_path: Path | None, json_output: bool) -> None:
    """List the patients that the registry of this configuration knows.

    \b
    xdsi patients list --json
    """
    from registry.patients import list_patients

    with open_store(config_path, domain) as store:
        rows = list_patients(store)
    if json_output:
        show.as_json([{"patient_id": one, "subsumed_by": into} for one, into in rows])
    else:
        show.as_table(
            show.counted(len(rows), "patient"), ("patient id", "merged into"), [(one, into or "") for one, into in rows]
        )


COMMANDS: tuple[click.Command, ...] = (patients,)
