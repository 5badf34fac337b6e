"""Assembles documents by a command: it is given the uniqueId as its one argument, and writes the document to its standard output."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from repository.on_demand import Assemble
from repository.trouble import code_of
from xds.messages import Document
from xds.problems import ErrorCode, fail
from xds.values import is_oid

_log = logging.getLogger("xdsi.repository")
_CHUNK_BYTES = 64 * 1024
#: The command ends with this status where it knows no document of the uniqueId.
UNKNOWN_STATUS = 3
#: The command sees nothing of the server's own environment.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def by_command(command: Path, directory: Path, *, timeout_s: float, max_bytes: int) -> Assemble:
    """Runs `command` without a shell for each document; what it writes is spooled to `directory` until nobody needs it any more.

    None for a uniqueId that is no OID, without running anything, and where the command ends with status 3. Failure
    (XDSRepositoryError) where it ends with another status, is not done after `timeout_s`, or writes more than `max_bytes`; whatever it
    has started and left in its process group ends with it.
    """

    def assemble(unique_id: str) -> Document | None:
        if not is_oid(unique_id):
            return None
        path = directory / f"{secrets.token_hex(16)}.part"
        try:
            status, size, sha1 = _run(command, unique_id, path, timeout_s, max_bytes)
            if status not in (0, UNKNOWN_STATUS):
                raise _Failed(f"the command ended with status {status}")
        except (_Failed, OSError) as error:
            path.unlink(missing_ok=True)
            code, reason = (ErrorCode.REPOSITORY_ERROR, str(error)) if isinstance(error, _Failed) else code_of(error)
            _log.error("a document was not assembled on demand: %s", error)
            raise fail(code, f"document {unique_id} could not be assembled: {reason}") from error
        if status == UNKNOWN_STATUS:
            path.unlink()
            return None
        return Document.passing(path, size=size, sha1=sha1, mime_type="application/octet-stream")

    return assemble


class _Failed(Exception):
    """Why a document was not assembled, as the end of a sentence."""


def _run(command: Path, unique_id: str, path: Path, timeout_s: float, max_bytes: int) -> tuple[int, int, str]:
    """The exit status, and the size and SHA-1 of what the command has written to the file. _Failed where a limit was passed."""
    digest, size = hashlib.sha1(usedforsecurity=False), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, _started(command, unique_id) as process:
        for chunk in _output(process, timeout_s):
            size += len(chunk)
            if size > max_bytes:
                raise _Failed(f"the command wrote more than the limit of {max_bytes} bytes")
            file.write(chunk)
            digest.update(chunk)
    return process.returncode, size, digest.hexdigest()


@contextmanager
def _started(command: Path, unique_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """The running command, in a process group of its own, none of which is left at the end; then it has its returncode."""
    try:
        process = subprocess.Popen(  # noqa: S603  # an OID is no argument that could do harm
            [command, unique_id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise _Failed(f"the command cannot be run ({error.strerror})") from error
    try:
        yield process
    finally:
        # Nobody has waited for the process yet, so that its number is still its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def _output(process: subprocess.Popen[bytes], timeout_s: float) -> Iterator[bytes]:
    """What the command writes, as it comes, until it has closed its output and ended. _Failed where that takes longer."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_s
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    try:
        while _ready(output, deadline, timeout_s) and (chunk := os.read(output, _CHUNK_BYTES)):
            yield chunk
        _ready(ended, deadline, timeout_s)
    finally:
        os.close(ended)


def _ready(descriptor: int, deadline: float, timeout_s: float) -> bool:
    """True once the descriptor can be read. _Failed at the deadline."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        left = deadline - time.monotonic()
        if left > 0 and selector.select(left):
            return True
    raise _Failed(f"the command took longer than the limit of {timeout_s} s")
