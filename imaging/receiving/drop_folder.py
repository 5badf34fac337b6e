"""A watched folder: DICOM files that are put into it are stored and removed; what is refused is moved aside, with the reason."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imaging.instances import InstanceError, Instances

_log = logging.getLogger("xdsi.imaging")
REFUSED = "refused"
#: Deepest folder below the watched one that is looked into.
_MAX_DEPTH = 32
_THREADS = 4
_NO_LINKS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class _State:
    """What changes when a file is written to, or replaced."""

    inode: int
    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look has done: how many files were stored, were there already, were refused, and are not finished yet."""

    added: int = 0
    known: int = 0
    refused: int = 0
    waiting: int = 0


class DropFolder:
    """Looks at a folder when it is told to. A file that is the same at two looks is finished, and taken."""

    def __init__(self, directory: Path, instances: Instances) -> None:
        """`directory` is made where it is not there. Files may lie in folders below it; links are left alone."""
        self._directory, self._instances = directory, instances
        self._seen: dict[Path, _State] = {}
        #: Held while a name among the refused ones is chosen and taken.
        self._refusing = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def look(self) -> Seen:
        """Takes what is finished. OSError where the folder cannot be read."""
        now = dict(_files(self._directory, self._directory / REFUSED))
        finished = [path for path, state in now.items() if self._seen.get(path) == state]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="xdsi-drop") as executor:
            outcomes = list(executor.map(self._take, finished))
        # A file that could neither be taken nor moved is tried again at each look.
        self._seen = {path: state for path, state in now.items() if path.exists()}
        seen = Seen(
            added=outcomes.count("added"),
            known=outcomes.count("known"),
            refused=outcomes.count("refused"),
            waiting=len(now) - len(finished),
        )
        if seen.added or seen.known or seen.refused:
            _log.info("drop folder: %d added, %d known, %d refused", seen.added, seen.known, seen.refused)
        return seen

    def _take(self, path: Path) -> str:
        """Whether the file was added, known or refused; empty where the machine failed, or it has gone, and it is left where it is."""
        try:
            parent = _opened_folder(self._directory, path.parent)
        except OSError:
            return ""
        try:
            added = self._stored(parent, path.name)
            os.unlink(path.name, dir_fd=parent)
        except InstanceError as error:
            with self._refusing:
                return self._refuse(parent, path, str(error))
        except FileNotFoundError:
            return ""
        except Exception as error:
            # The database or the disk: the file is as good as before.
            _log.error("a file in the drop folder could not be stored: %s", type(error).__name__)
            return ""
        finally:
            os.close(parent)
        return "added" if added else "known"

    def _stored(self, parent: int, name: str) -> bool:
        """Whether it is new. A copy of what is open now is stored, whatever becomes of the name."""
        try:
            descriptor = os.open(name, _NO_LINKS, dir_fd=parent)
        except PermissionError:
            raise InstanceError("it may not be read") from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InstanceError("it is no file")
            _, new = self._instances.add_stream(file)
        return new

    def _refuse(self, parent: int, path: Path, reason: str) -> str:
        """Moves the file to the folder of the refused ones, beside a text with the reason."""
        refused = self._directory / REFUSED
        try:
            refused.mkdir(mode=0o700, exist_ok=True)
            name = path.name[:100]
            while os.path.lexists(refused / name) or os.path.lexists(refused / f"{name}.txt"):
                name = f"{secrets.token_hex(4)}-{path.name[:100]}"
            there = _opened_folder(self._directory, refused)
            try:
                _write_new(there, f"{name}.txt", f"{path.relative_to(self._directory)}: {reason}\n")
                os.rename(path.name, name, src_dir_fd=parent, dst_dir_fd=there)
            finally:
                os.close(there)
        except OSError as error:
            _log.error("a refused file in the drop folder could not be moved: %s", error.strerror)
            return ""
        return "refused"


def _files(directory: Path, refused: Path, depth: int = 0) -> Iterator[tuple[Path, _State]]:
    """The regular files below a folder, but for the refused ones. No link is followed; what goes meanwhile is not there."""
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if path != refused and depth < _MAX_DEPTH:
                    yield from _files(path, refused, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield path, _State(found.st_ino, found.st_size, found.st_mtime_ns)


def _opened_folder(directory: Path, folder: Path) -> int:
    """A descriptor of a folder below the directory, through no link: none of its parents can have become one since it was looked at."""
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for name in folder.relative_to(directory).parts:
        try:
            there = os.open(name, _NO_LINKS | os.O_DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = there
    return here


def _write_new(folder: int, name: str, text: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode(errors="replace"))
