"""How results are shown: tables for people, JSON for programs, progress on long work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from xds.values import Text

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


class Step(Protocol):
    def __call__(self, amount: int = 1) -> None: ...


def plain(value: object) -> Plain:
    """A metadata object as JSON holds it: attributes without a value are left out, a Text is its first string."""
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if is_dataclass(value):
        named = {one.name: getattr(value, one.name) for one in fields(value)}
        return {
            name: plain(one) for name, one in named.items() if one not in (None, (), False, Text()) and name != "extra"
        }
    return str(value)


def as_json(value: object) -> None:
    """Prints it, and nothing else."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=2))


def counted(number: int, noun: str) -> str:
    """`1 object`, `2 objects`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def as_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table; numbers stand on the right, and ids in one piece, to be copied."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=column == "id")
    for row in rows:
        # What peers and files call things is text, whatever brackets it has.
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    Console().print(table)


@contextmanager
def progress(label: str, total: int | None, *, unit: str = "files") -> Iterator[Step]:
    """A progress bar on the standard error; nothing where that is no terminal."""
    console = Console(stderr=True)
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def step(amount: int = 1) -> None:
            bar.advance(task, amount)

        yield step
