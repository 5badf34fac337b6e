"""Loading DICOM files from folders into the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imaging.instances import Instance, InstanceError, Instances


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What came of the files: `refused` has each with its reason; files that are no DICOM at all are only counted."""

    added: tuple[Instance, ...]
    known: tuple[Instance, ...]
    refused: tuple[tuple[Path, str], ...]
    not_dicom: int

    @property
    def instances(self) -> tuple[Instance, ...]:
        return self.added + self.known


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that are named, and those in the folders that are named, in a stable order. DICOMDIR is no instance."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file() and one.name.upper() != "DICOMDIR")
        else:
            yield path


def load(
    paths: Iterable[Path],
    *,
    instances: Instances,
    progress: Callable[[Path], None] = lambda path: None,
    threads: int = 8,
) -> LoadReport:
    """Stores every DICOM file that is found. `progress` is told of each file when it is done, in their order.

    As many files as there are `threads` wait for the disk together. OSError for a path that cannot be read.
    """
    added: list[Instance] = []
    known: list[Instance] = []
    refused: list[tuple[Path, str]] = []
    not_dicom = 0
    found = list(files_below(paths))
    with ThreadPoolExecutor(threads, thread_name_prefix="xdsi-load") as executor:
        try:
            for path, outcome in zip(found, executor.map(partial(_stored, instances), found), strict=True):
                if outcome is None:
                    not_dicom += 1
                elif isinstance(outcome, InstanceError):
                    refused.append((path, str(outcome)))
                else:
                    stored, new = outcome
                    (added if new else known).append(stored)
                progress(path)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return LoadReport(added=tuple(added), known=tuple(known), refused=tuple(refused), not_dicom=not_dicom)


def _stored(instances: Instances, path: Path) -> tuple[Instance, bool] | InstanceError | None:
    """What came of one file; None where it is no DICOM."""
    if not _looks_like_dicom(path):
        return None
    try:
        return instances.add(path)
    except InstanceError as error:
        return error


def _looks_like_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
