"""Conditions that both databases know, and statements compiled once to the text that the driver takes.

SQLAlchemy writes the SQL, once for each shape of a statement; running it costs only the driver. Nothing of a query ever becomes SQL text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from xds.values import normal


def json_value(text: str) -> str:
    """One value as it stands in a column of several: in NFC, quoted, a quote inside it as \\u0022, so that no value ends in another."""
    return '"' + json.dumps(normal(text), ensure_ascii=False)[1:-1].replace('\\"', "\\u0022") + '"'


def json_array(texts: Iterable[str]) -> str:
    """The text of a column that holds several values, each once. No value can contain the line feed that separates them."""
    return "[" + ",\n".join(dict.fromkeys(json_value(text) for text in texts)) + "]"


def among(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The column is one of the values that are bound, as a list, under `name`."""
    return column.in_(bindparam(name, expanding=True))


def chunks(values: Iterable[str]) -> list[list[str]]:
    """The values, each once and in their order, in lists that a statement can take."""
    unique = list(dict.fromkeys(values))
    return [unique[start : start + MAX_LIST] for start in range(0, len(unique), MAX_LIST)]


class _Condition(ColumnElement[bool]):
    """A condition on a column of several values and a bound parameter, written differently for each database."""

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        self.parameter: ClauseElement = bindparam(name)


class _Holds(_Condition):
    inherit_cache = True


class _HoldsLike(_Condition):
    inherit_cache = True


def holds(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """One of the column's values is the one bound under `name`, which is a `json_value`."""
    return _Holds(column, name)


def holds_like(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    r"""One of the column's values is LIKE the pattern bound under `name`: % and _ are wildcards, \ escapes."""
    return _HoldsLike(column, name)


def _write(element: _Condition, compiler: SQLCompiler, form: str) -> str:
    return form.format(compiler.process(element.column), compiler.process(element.parameter))


@compiles(_Holds, "sqlite")
def _(element: _Condition, compiler: SQLCompiler, **_: Any) -> str:
    return _write(element, compiler, "(instr({}, {}) > 0)")


@compiles(_Holds, "postgresql")
def _(element: _Condition, compiler: SQLCompiler, **_: Any) -> str:
    return _write(element, compiler, "(strpos({}, {}) > 0)")


@compiles(_HoldsLike, "sqlite")
def _(element: _Condition, compiler: SQLCompiler, **_: Any) -> str:
    return _write(element, compiler, "EXISTS (SELECT 1 FROM json_each({}) WHERE value LIKE {} ESCAPE '\\')")


@compiles(_HoldsLike, "postgresql")
def _(element: _Condition, compiler: SQLCompiler, **_: Any) -> str:
    form = "EXISTS (SELECT 1 FROM jsonb_array_elements_text(CAST({} AS jsonb)) AS one WHERE one LIKE {} ESCAPE '\\')"
    return _write(element, compiler, form)


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
