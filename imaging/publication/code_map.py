"""Codes of a manifest's metadata by modality, procedure and body part, as the affinity domain's own TOML file says.

[[type_code]]                       # the first one that fits; also [[practice_setting_code]]
modality = "CT"
body_part = "CHEST"
code = { code = "24627-2", scheme = "2.16.840.1.113883.6.1", display = "CT Chest" }

[[event_code_list]]                 # each one that fits is added
procedure = "CTCH1"
procedure_scheme = "99HOSP"
code = { code = "77477000", scheme = "2.16.840.1.113883.6.96", display = "Computed tomography" }
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from imaging.publication.mapping import text
from xds.values import Code, is_oid

_CONDITIONS = ("modality", "body_part", "procedure", "procedure_scheme")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A code, and what must hold for it. A condition that is "" always holds.

    `modality` and `body_part` are compared with Modality (0008,0060) and BodyPartExamined (0018,0015) of one series, `procedure` and
    `procedure_scheme` with CodeValue and CodingSchemeDesignator of one item of its ProcedureCodeSequence (0008,1032).
    """

    code: Code
    modality: str = ""
    body_part: str = ""
    procedure: str = ""
    procedure_scheme: str = ""

    def fits(self, header: Dataset) -> bool:
        return (
            self.modality in ("", text(header, "Modality"))
            and _plain(self.body_part) in ("", _plain(text(header, "BodyPartExamined")))
            and (not (self.procedure or self.procedure_scheme) or any(map(self._fits_procedure, _procedures(header))))
        )

    def _fits_procedure(self, item: Dataset) -> bool:
        return self.procedure in ("", text(item, "CodeValue")) and self.procedure_scheme in (
            "",
            text(item, "CodingSchemeDesignator"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeMap:
    """The rules by attribute of the DocumentEntry, in their order."""

    type_code: tuple[Rule, ...] = ()
    event_code_list: tuple[Rule, ...] = ()
    practice_setting_code: tuple[Rule, ...] = ()


def fitting(rules: Sequence[Rule], headers: Sequence[Dataset]) -> Iterator[Code]:
    """The codes of the rules that fit one of the series, in the order of the rules."""
    return (rule.code for rule in rules if any(map(rule.fits, headers)))


def read(path: Path) -> CodeMap:
    """ValueError with the file and the entry where it can not be used."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    known = CodeMap.__slots__
    if unknown := sorted(set(content) - set(known)):
        raise ValueError(f"{path}: there is no {unknown[0]!r}; there are {', '.join(known)}")
    return CodeMap(**{name: tuple(_rules(path, name, content.get(name, []))) for name in known})


def _rules(path: Path, name: str, entries: object) -> Iterator[Rule]:
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {name} is written as [[{name}]]")
    for number, entry in enumerate(entries, 1):
        where = f"{path}: {name} {number}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is no table")
        if unknown := sorted(set(entry) - {*_CONDITIONS, "code"}):
            raise ValueError(f"{where} has {unknown[0]!r}; it may have {', '.join(_CONDITIONS)} and code")
        conditions = {one: entry[one] for one in _CONDITIONS if one in entry}
        if not conditions or not all(isinstance(value, str) and value for value in conditions.values()):
            raise ValueError(f"{where}: one or more of {', '.join(_CONDITIONS)} say as text when it fits")
        yield Rule(code=_code(where, entry.get("code")), **conditions)


def _code(where: str, value: object) -> Code:
    parts: Mapping[str, object] = value if isinstance(value, dict) else {}
    code, scheme, display = (parts.get(key) for key in ("code", "scheme", "display"))
    if not (isinstance(code, str) and code and isinstance(scheme, str) and isinstance(display, str) and display):
        raise ValueError(f"{where}: code is {{ code = ..., scheme = ..., display = ... }}, all of them text")
    if not is_oid(scheme):
        raise ValueError(f"{where}: the scheme {scheme!r} is no OID")
    return Code.of(code, scheme, display)


def _procedures(header: Dataset) -> list[Dataset]:
    return list(header.get("ProcedureCodeSequence") or ())


def _plain(body_part: str) -> str:
    return re.sub(r"[ _-]", "", body_part.upper())
