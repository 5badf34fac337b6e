"""The affinity domain's patient ids of the images' local ones, by configuration (RAD TF-3 4.68.4.1.2.3)."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable
from pathlib import Path

from imaging.publication.rad68_provide import PublishError
from xds.values import Identifier

PatientOf = Callable[[Identifier], Identifier]
"""The affinity domain's id of a local one, `id^^^&OID&ISO` both. PublishError where it is not known."""

SAME = "same"


def patient_map(setting: str, *, source_patient_issuer: str = "") -> PatientOf:
    """By `imaging.patient_map`: "same", a TOML or CSV file, or "" for none.

    The file is read each time, so that what is added to it is known. ValueError for one that can not be used.
    """
    if setting == SAME:
        return lambda local: _same(local, source_patient_issuer)
    if not setting:
        return _unknown
    path = Path(setting)
    read(path)
    return lambda local: _found(local, read(path)) or _unknown(local)


def read(path: Path) -> dict[str, Identifier]:
    """Local ids, with their issuer or without, to those of the affinity domain. ValueError with the file and the entry."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    pairs = _toml(path, content) if path.suffix == ".toml" else _csv(path, content)
    for local, value in pairs.items():
        if not isinstance(value, str) or (fault := Identifier(value).fault):
            reason = fault if isinstance(value, str) else "is not a string"
            raise ValueError(f"{path}: the patient id {value!r} of {local!r} {reason}")
    return {local: Identifier(value) for local, value in pairs.items()}


def _toml(path: Path, content: str) -> dict[str, str]:
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None


def _csv(path: Path, content: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, row in enumerate(csv.reader(content.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if len(cells) != 2:
            raise ValueError(f"{path}: line {number} has {len(cells)} cells; a local id and a patient id are right")
        if pairs.setdefault(cells[0], cells[1]) != cells[1]:
            raise ValueError(f"{path}: line {number} gives {cells[0]!r} another patient id than a line before it")
    return pairs


def _found(local: Identifier, known: dict[str, Identifier]) -> Identifier | None:
    """An id with its issuer says more than one without."""
    return known.get(str(local)) or known.get(local.identifier)


def _same(local: Identifier, issuer: str) -> Identifier:
    if local.authority != issuer:
        raise PublishError(
            f"Patient ID {local} is not of {issuer or 'imaging.source_patient_issuer, which is empty'}:"
            ' with imaging.patient_map = "same" that is who assigns the affinity domain\'s ids'
        )
    return local


def _unknown(local: Identifier) -> Identifier:
    raise PublishError(
        f"no patient id of the affinity domain is known for Patient ID {local}: add it to imaging.patient_map,"
        " or give it with `xdsi publish --patient`"
    )
