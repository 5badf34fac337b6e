"""Statements compiled once to the text that the driver takes.

SQLAlchemy writes the SQL, once for each shape of a statement; running it costs only the driver. Nothing of a query ever becomes SQL text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import Executable

_EXPANDING = re.compile(r"IN \(__\[POSTCOMPILE_(\w+)\]\)")
#: Lists are padded with their last value to one of these lengths, so that few texts come of them.
_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: So many texts of one statement are kept.
_MAX_TEXTS = 256
#: The longest list that one statement takes.
MAX_LIST = _LENGTHS[-1]

_DIALECTS: Mapping[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.dialect(paramstyle="pyformat"),  # type: ignore[no-untyped-call]
}


def among(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The column is one of the values that are bound, as a list, under `name`."""
    return column.in_(bindparam(name, expanding=True))


def chunks(values: Iterable[str]) -> list[list[str]]:
    """The values, each once and in their order, in lists that a statement can take."""
    unique = list(dict.fromkeys(values))
    return [unique[start : start + MAX_LIST] for start in range(0, len(unique), MAX_LIST)]


class Prepared:
    """A statement as the driver takes it: `text` and `parameters` for given values."""

    def __init__(self, statement: Executable, dialect_name: str) -> None:
        compiled = statement.compile(  # type: ignore[attr-defined]
            dialect=_DIALECTS[dialect_name], compile_kwargs={"render_postcompile": False}
        )
        self._text: str = str(compiled)
        self.fixed: dict[str, Any] = {k: v for k, v in compiled.params.items() if v is not None}
        self._lists: tuple[str, ...] = tuple(dict.fromkeys(_EXPANDING.findall(self._text)))
        self._arrays = dialect_name == "postgresql"
        if self._arrays:
            self._text = _EXPANDING.sub(r"= ANY(%(\1)s)", self._text)
        self._texts: dict[tuple[int, ...], str] = {}

    def bind(self, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The text and the values to run it with. ValueError for a list of more than MAX_LIST values."""
        values = {**self.fixed, **parameters}
        if self._arrays or not self._lists:
            return self._text, values
        lengths = []
        for name in self._lists:
            given: Sequence[Any] = values.pop(name)
            length = next((one for one in _LENGTHS if one >= len(given)), 0)
            if length == 0:
                raise ValueError(f"{len(given)} values for {name}; one statement takes {MAX_LIST}")
            lengths.append(length)
            padded = (*given, *[given[-1] if given else None] * (length - len(given)))
            values.update({f"{name}__{n}": value for n, value in enumerate(padded)})
        shape = tuple(lengths)
        text = self._texts.get(shape)
        if text is None:
            # The lengths are the client's choice: what it makes us keep is bounded.
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            text = self._texts[shape] = self._expanded(shape)
        return text, values

    def _expanded(self, lengths: tuple[int, ...]) -> str:
        by_name = dict(zip(self._lists, lengths, strict=True))
        return _EXPANDING.sub(
            lambda match: "IN (" + ", ".join(f":{match[1]}__{n}" for n in range(by_name[match[1]])) + ")", self._text
        )
