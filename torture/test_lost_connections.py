"""Connections that are lost while nobody uses them are nobody's trouble, and a server that takes no writes is no database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest
import sqlalchemy as sa

from benchmarks import postgres
from database.connections import Database, DatabaseLost, DatabaseUnreachable, open_engine

_ONE = sa.select(sa.literal(1))
_TABLE = sa.Table("written", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True))
_WRITE = sa.insert(_TABLE)
_COUNT = sa.select(sa.func.count()).select_from(_TABLE)
_THREADS = 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with postgres.serving(fsync="off") as made:
        yield made


@pytest.fixture
def server(cluster: postgres.Cluster) -> Iterator[psycopg.Connection]:
    """The server, from its administrator's side."""
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (name text PRIMARY KEY); TRUNCATE written")
        yield connection


@pytest.fixture
def database(cluster: postgres.Cluster, server: psycopg.Connection) -> Iterator[Database]:
    made = Database(open_engine(cluster.url()))
    yield made
    made.dispose()


def _write(database: Database, name: str) -> None:
    with database.transaction([name]) as connection:
        connection.run_many(_WRITE, [{"name": name}])


def _end_all_others(server: psycopg.Connection) -> int:
    sql = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'xdsi'"
    found = server.execute(sql + " AND backend_type = 'client backend'").fetchone()
    assert found is not None
    return int(found[0])


def test_idle_connections_that_the_server_has_ended_are_replaced_without_an_error(
    database: Database, server: psycopg.Connection
) -> None:
    """As after a failover: all at once are of a server that is no more."""
    meet = Barrier(_THREADS)

    def both(number: int) -> None:
        with database.transaction([f"held {number}"]):
            meet.wait(timeout=30)
        database.rows(_ONE, {})

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(both, range(_THREADS)))
    assert _end_all_others(server) > _THREADS
    for number in range(_THREADS):
        _write(database, f"after {number}")
        assert database.rows(_COUNT, {}) == [(number + 1,)]


def test_a_connection_lost_before_the_commit_has_stored_nothing_and_says_so(
    database: Database, server: psycopg.Connection
) -> None:
    with pytest.raises(DatabaseUnreachable), database.transaction(["a"]) as connection:
        connection.run_many(_WRITE, [{"name": "a"}])
        _end_all_others(server)
        connection.rows(_COUNT, {})
    assert database.rows(_COUNT, {}) == [(0,)]
    _write(database, "a")
    assert database.rows(_COUNT, {}) == [(1,)]


def test_a_connection_lost_in_the_commit_leaves_the_outcome_unknown(
    cluster: postgres.Cluster, database: Database, server: psycopg.Connection
) -> None:
    """A deferred trigger ends the connection in the middle of the COMMIT."""
    server.execute(
        "CREATE OR REPLACE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER dying AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION die()"
    )
    try:
        with pytest.raises(DatabaseLost) as caught:
            _write(database, "a")
        assert caught.type is DatabaseLost
    finally:
        server.execute("DROP TRIGGER dying ON written")
    _write(database, "b")
    assert database.rows(_COUNT, {}) == [(1,)]


def test_a_server_that_takes_no_writes_is_left_and_found_again_when_it_does(
    database: Database, server: psycopg.Connection
) -> None:
    """What a standby says (SQLSTATE 25006) must not come from the same connection for ever."""
    _write(database, "before")
    try:
        server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        _reload(server, "on")
        for _ in range(3):
            with pytest.raises(DatabaseUnreachable):
                _write(database, "meanwhile")
    finally:
        server.execute("SET default_transaction_read_only = off")
        server.execute("ALTER SYSTEM RESET default_transaction_read_only")
        server.execute("RESET default_transaction_read_only")
        _reload(server, "off")
    _write(database, "after")
    assert database.rows(_COUNT, {}) == [(2,)]


def _reload(server: psycopg.Connection, expected: str) -> None:
    """Until every session is told, which is when this one is."""
    server.execute("SELECT pg_reload_conf()")
    for _ in range(10_000):
        if server.execute("SHOW default_transaction_read_only").fetchone() == (expected,):
            return
    raise TimeoutError(expected)


def test_a_cancelled_statement_is_not_taken_for_a_lost_connection(
    database: Database, server: psycopg.Connection
) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled), database.transaction(["a"]) as connection:
        connection.rows(sa.text("SET LOCAL statement_timeout = 1; SELECT pg_sleep(5)"), {})
