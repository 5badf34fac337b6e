"""Connections to a database, and statements run on them: SQLite (WAL, synchronous=FULL) or PostgreSQL.

Reads are single statements in AUTOCOMMIT. A write is one transaction that excludes every other write of the same patients and
identifiers from its first statement on, so that what it has checked is still so when it commits.
"""

from __future__ import annotations

import fcntl
import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Engine, NullPool, PoolProxiedConnection, create_engine, event, make_url
from sqlalchemy.sql import Executable

from database.statements import Prepared

Row = tuple[Any, ...]
#: Statements are built once for each shape: so many are more than there are shapes in use.
_MAX_PREPARED = 4096
#: What libpq is told where the URL says nothing else (docs/reliability.md): of several servers the one that takes writes is used, and
#: a machine that is gone without a word is given up after seconds (tcp_user_timeout: milliseconds) instead of hours.
_LIBPQ = {
    "target_session_attrs": "read-write",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}


#: Most keys that PostgreSQL is asked to lock one by one: it has room for max_locks_per_transaction * max_connections locks (6400 by
#: default), of all transactions together.
_MAX_LOCKS = 512
#: Everybody's lock: shared by those who lock keys, exclusive for those who have too many of them.
_WHOLE = 0
_LOCK = (
    "SELECT count(CASE k WHEN 0 THEN pg_advisory_xact_lock_shared(k) ELSE pg_advisory_xact_lock(k) END)"
    " FROM unnest(%s::bigint[]) AS k"
)


class DatabaseLost(Exception):
    """The connection to the database was lost during a commit: whether it was stored is not known."""


class DatabaseUnreachable(DatabaseLost):
    """There is no connection to the database, or it was lost before a commit: nothing was stored."""


def open_engine(url: str, *, connections: int = 16, busy_timeout_s: float = 30.0) -> Engine:
    """An engine for an actor's database. `sqlite:///PATH` or `postgresql://...`; the latter goes through psycopg 3.

    `busy_timeout_s` is how long a writer waits for one that is no writer of ours (SQLite).
    """
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.update_query_dict({name: _LIBPQ[name] for name in _LIBPQ if name not in parsed.query})
    engine = create_engine(parsed, pool_size=connections, max_overflow=connections, pool_reset_on_return=None)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_set_up_sqlite, busy_timeout_s))
    else:
        event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _set_up_postgresql(connection: Any, _: object) -> None:
    # Every statement looks up by key. Its plan is made once, perhaps when the tables were small and reading them whole was cheapest:
    # so only such plans are allowed as are right when they are large.
    for name, value in (
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
    ):
        connection.execute(f"SET {name} = {value}")
    connection.commit()


def _set_up_sqlite(busy_timeout_s: float, connection: Any, _: object) -> None:
    # The driver must not begin transactions of its own: a write begins with IMMEDIATE.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={int(busy_timeout_s * 1000)}",
        "case_sensitive_like=ON",
        "cache_size=-65536",
        "mmap_size=1073741824",
        "temp_store=MEMORY",
        # 64 MB of log: pages of indexes, which change with every registration, are copied back sixteen times less often.
        "wal_autocheckpoint=16384",
    ):
        connection.execute(f"PRAGMA {pragma}")


class Connection:
    """A connection of the driver, on which statements are run."""

    def __init__(self, driver: Any, prepared: Callable[[Executable], Prepared]) -> None:
        self._driver, self._prepared = driver, prepared

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """The answer to one SELECT."""
        text, values = self._prepared(statement).bind(parameters)
        found: list[Row] = self._driver.execute(text, values).fetchall()
        return found

    def run(self, statement: Executable, parameters: Mapping[str, Any]) -> int:
        """Changes rows, and says how many."""
        text, values = self._prepared(statement).bind(parameters)
        count: int = self._driver.execute(text, values).rowcount
        return count

    def run_many(self, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Runs the statement for each of the rows."""
        if not rows:
            return
        prepared = self._prepared(statement)
        text, _ = prepared.bind(rows[0])
        fixed = prepared.fixed
        with self._cursor() as cursor:
            cursor.executemany(text, [{**fixed, **row} for row in rows] if fixed else rows)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        cursor = self._driver.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


class Database:
    """A database as an actor uses it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._statements: dict[Executable, Prepared] = {}
        self._readers: deque[Any] = deque()
        self._lock_file: IO[str] | None = None
        if self.is_sqlite:
            self._reading = engine
        else:
            self._reading = create_engine(engine.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            event.listen(self._reading, "connect", _set_up_postgresql)

    def dispose(self) -> None:
        """Closes the connections."""
        self._close_readers()
        self.engine.dispose()
        self._reading.dispose()
        if self._lock_file is not None:
            self._lock_file.close()

    def prepared(self, statement: Executable) -> Prepared:
        """The statement as the driver takes it, made once."""
        found = self._statements.get(statement)
        if found is None:
            if len(self._statements) >= _MAX_PREPARED:
                self._statements.clear()
            found = self._statements[statement] = Prepared(statement, self.engine.dialect.name)
        return found

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """The answer to one SELECT. Connections that were lost are replaced once; DatabaseUnreachable where there is none to be had."""
        try:
            return self._rows(statement, parameters)
        except Exception as error:
            if not self._is_lost(error):
                raise
        # The others that wait for use are of the same server.
        self._close_readers()
        try:
            return self._rows(statement, parameters)
        except Exception as error:
            if self._is_lost(error):
                raise DatabaseUnreachable(str(error)) from error
            raise

    def _rows(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        driver = self._take_reader()
        try:
            found = Connection(driver, self.prepared).rows(statement, parameters)
        except Exception as error:
            if self._is_lost(error):
                driver.close()
            else:
                self._readers.append(driver)
            raise
        self._readers.append(driver)
        return found

    def _take_reader(self) -> Any:
        """A connection that reads in AUTOCOMMIT: one more than there are threads that read at once is never made.

        They are kept here and not in SQLAlchemy's pool, whose checks take as long as a small query.
        """
        try:
            return self._readers.pop()
        except IndexError:
            fairy = self._reading.raw_connection()
            driver = fairy.driver_connection
            fairy.detach()
            return driver

    def _close_readers(self) -> None:
        with suppress(IndexError):
            while True:
                self._readers.pop().close()

    def _is_lost(self, error: BaseException) -> bool:
        dbapi = self.engine.dialect.dbapi
        if self.is_sqlite or dbapi is None or not isinstance(error, dbapi.Error):
            return False
        # Of psycopg: what the server says when it shuts down (class 57 but for a cancelled query) or is a standby (25006, which is no
        # OperationalError), and no answer at all.
        state = getattr(error, "sqlstate", None) or ""
        if state == "25006":
            return True
        return isinstance(error, dbapi.OperationalError) and state[:2] in ("", "08", "57") and state != "57014"

    @contextmanager
    def transaction(self, keys: Iterable[str], *, durable: bool = True) -> Iterator[Connection]:
        """One transaction, committed at its end and rolled back when it is left by an exception.

        No other transaction with one of the same keys runs at the same time, in whichever process. One that is not `durable` is not
        waited for until it is on disk: everybody sees it, and when the power goes it may never have been. DatabaseLost where the connection
        broke during the commit: the transaction was rolled back, or else committed without our hearing of it. DatabaseUnreachable where
        it broke before, or there was none.
        """
        with ExitStack() as stack:
            if self.is_sqlite:
                stack.enter_context(self._file_lock())
            fairy = self._begun(sorted(keys), durable)
            stack.callback(fairy.close)
            driver: Any = fairy.driver_connection
            committing = False
            try:
                yield Connection(driver, self.prepared)
                committing = True
                driver.commit() if not self.is_sqlite else driver.execute("COMMIT")
            except BaseException as error:
                self._give_up(fairy, error)
                if committing and self.is_sqlite:
                    _bury(driver)
                if self._is_lost(error):
                    raise (DatabaseLost if committing else DatabaseUnreachable)(str(error)) from error
                raise

    def _begun(self, keys: Sequence[str], durable: bool) -> PoolProxiedConnection:
        """A connection in a transaction. Those of the pool that were lost while nobody used them are thrown away, as often as there are."""
        stale = 0 if self.is_sqlite else 2 * self.engine.pool.size()  # type: ignore[attr-defined]
        while True:
            fairy = None
            try:
                fairy = self.engine.raw_connection()
                self._begin(fairy.driver_connection, keys, durable)
            except BaseException as error:
                if fairy is not None:
                    self._give_up(fairy, error)
                    fairy.close()
                if not self._is_lost(error):
                    raise
                if fairy is None or stale == 0:
                    raise DatabaseUnreachable(str(error)) from error
                stale -= 1
            else:
                return fairy

    def _give_up(self, fairy: PoolProxiedConnection, error: BaseException) -> None:
        """Rolls back, so that the connection is fit for the next transaction; where it is lost, nobody gets it again."""
        lost = self._is_lost(error)
        if not lost:
            driver: Any = fairy.driver_connection
            try:
                driver.rollback()
            except Exception as also:
                if not self._is_lost(also):
                    raise
                lost = True
        if lost:
            fairy.invalidate()

    def _begin(self, driver: Any, keys: Iterable[str], durable: bool) -> None:
        if self.is_sqlite:
            driver.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            # The write lock is taken before the first look, so that no check can be overtaken.
            driver.execute("BEGIN IMMEDIATE")
            return
        if not durable:
            driver.execute("SET LOCAL synchronous_commit = off")
        # In one order for everybody, so that no two wait for each other: that of all first.
        numbers = sorted({_number(key) for key in keys})
        if len(numbers) > _MAX_LOCKS:
            driver.execute("SELECT pg_advisory_xact_lock(%s)", (_WHOLE,))
        elif numbers:
            driver.execute(_LOCK, ([_WHOLE, *numbers],))

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        """SQLite has one writer: processes wait in the kernel for their turn, instead of asking for it again and again."""
        path = self.engine.url.database
        if not path or path == ":memory:":
            yield
            return
        if self._lock_file is None:
            self._lock_file = Path(f"{path}.lock").open("a")  # noqa: SIM115
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def _bury(driver: sqlite3.Connection) -> None:
    """Puts something over a transaction whose COMMIT has failed.

    Where only the sync failed, the log holds it whole: a process that reads the log after a crash would take it for committed, long
    after everybody was told that it is not. What is written next goes to the same place, so something is written at once.
    """
    try:
        (version,) = driver.execute("PRAGMA user_version").fetchone()
        driver.execute("BEGIN IMMEDIATE")
        driver.execute(f"PRAGMA user_version = {int(version)}")
        driver.execute("COMMIT")
    except sqlite3.Error:
        # The disk still fails. The next transaction that succeeds does the same.
        if driver.in_transaction:
            driver.rollback()


def _number(key: str) -> int:
    """A key as the 64-bit number that PostgreSQL locks."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


def is_full(error: BaseException) -> bool:
    """Whether the database has no room left (SQLITE_FULL; PostgreSQL class 53)."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
    return str(getattr(error, "sqlstate", "") or "").startswith("53")
