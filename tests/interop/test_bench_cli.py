"""`xdsi bench load`: a registry is filled, and what it answers is there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from registry import bulk
from registry.iti18_stored_query import stored_query
from registry.store import Store, open_engine
from server.commands.bench import COMMANDS
from server.population import parts
from xds.queries import FindDocuments
from xds.vocabulary import Status


def run(*arguments: str | Path, status: int = 0, **environment: str) -> Result:
    (bench,) = COMMANDS
    done = CliRunner().invoke(bench, [str(one) for one in arguments], env={"COLUMNS": "120", **environment})
    assert done.exit_code == status, done.output
    assert status != 1 or done.stderr.startswith("xdsi: ")
    return done


def shown(done: Result) -> dict[str, str]:
    """The table's rows."""
    rows = [line.strip("│\n ").split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    return {row[0].strip(): row[1].strip() for row in rows}


def test_a_registry_is_filled_and_its_queries_find_all(database: str) -> None:
    """Every document of every patient, whatever its status."""
    told = shown(run("load", "--documents", "60", "--database", database, "--seed", "3"))
    assert told["DocumentEntry"] == "60"
    assert int(told["objects"]) > 150
    assert int(told["bytes in the database"].replace(",", "")) > 100_000
    store = Store(open_engine(database))
    both = tuple(str(one) for one in Status)
    patients = {one.patient_id for part in parts(60, 3) for one in part.histories()}
    found = [stored_query(FindDocuments(patient_id=one, status=both), store=store).fragments for one in patients]
    store.close()
    assert sum(len(list(one)) for one in found) == 60


def test_a_registry_that_has_objects_is_not_added_to_unless_asked(database: str) -> None:
    run("load", "--documents", "5", "--database", database)
    refused = run("load", "--documents", "5", "--database", database, "--seed", "2", status=1)
    assert "--add" in refused.stderr
    again = run("load", "--documents", "5", "--database", database, "--add", status=1)
    assert "seed 1" in again.stderr
    run("load", "--documents", "5", "--database", database, "--add", "--seed", "2")
    store = Store(open_engine(database))
    assert not bulk.is_empty(store)
    store.close()


def test_the_configuration_says_which_registry_is_filled(tmp_path: Path) -> None:
    config = tmp_path / "xdsi.toml"
    config.write_text(f'[server]\ndirectory = "{tmp_path / "data"}"\n')
    run("load", "--documents", "5", "--config", config)
    with sqlite3.connect(tmp_path / "data" / "registry.sqlite") as connection:
        (count,) = connection.execute("SELECT count(*) FROM document_entry").fetchone()
    connection.close()
    assert count == 5
    assert "not both" in run("load", "--documents", "5", "--config", config, "--database", "sqlite://", status=1).stderr


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all.sqlite", "oracle://x"])
def test_a_database_that_cannot_be_opened_is_told_in_one_line(url: str) -> None:
    done = run("load", "--documents", "5", "--database", url, status=1)
    assert len(done.stderr.strip().splitlines()) == 1
