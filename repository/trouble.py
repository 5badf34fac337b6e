"""Which of the standard's codes stands for an exception that nobody foresaw: no room, too much at once, or neither."""

from __future__ import annotations

import errno

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from xds.problems import ErrorCode

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
#: Another writer is at work, or all connections are taken: the same request may succeed later.
_BUSY_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED")
_BUSY_POSTGRESQL = frozenset({"40001", "40P01", "53300", "55P03", "57014"})
_FULL_SQLITE = ("SQLITE_FULL", "SQLITE_NOMEM")


def code_of(error: BaseException | None) -> tuple[ErrorCode, str]:
    """The code (ITI TF-3 Table 4.2.4.1-2), and what the sender is told of it."""
    if isinstance(error, PoolTimeoutError) or _is_busy(error):
        return ErrorCode.REPOSITORY_BUSY, "the repository is busy; send it again later"
    if isinstance(error, MemoryError) or is_full(error):
        return ErrorCode.REPOSITORY_OUT_OF_RESOURCES, "the repository has no room left"
    return ErrorCode.REPOSITORY_ERROR, "internal error"


def _is_busy(error: BaseException | None) -> bool:
    sqlite, postgresql = _driver_says(error)
    return sqlite.startswith(_BUSY_SQLITE) or postgresql in _BUSY_POSTGRESQL


def is_full(error: BaseException | None) -> bool:
    """Whether a file system or a database has no room left (SQLITE_FULL; PostgreSQL class 53), or this process."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    sqlite, postgresql = _driver_says(error)
    return sqlite.startswith(_FULL_SQLITE) or postgresql.startswith("53")


def _driver_says(error: BaseException | None) -> tuple[str, str]:
    """The name that SQLite gives its error, and the SQLSTATE of PostgreSQL; "" where there is none."""
    driver = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(driver, "sqlite_errorname", None) or ""), str(getattr(driver, "sqlstate", None) or "")
