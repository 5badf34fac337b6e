"""Columns that hold several values, and conditions on them that both databases know."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Boolean, ColumnElement, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from xds.values import normal


def json_value(text: str) -> str:
    """One value as it stands in a column of several: in NFC, quoted, a quote inside it as \\u0022, so that no value ends in another."""
    return '"' + json.dumps(normal(text), ensure_ascii=False)[1:-1].replace('\\"', "\\u0022") + '"'


def json_array(texts: Iterable[str]) -> str:
    """The text of a column that holds several values, each once. No value can contain the line feed that separates them."""
    return "[" + ",\n".join(dict.fromkeys(json_value(text) for text in texts)) + "]"


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
