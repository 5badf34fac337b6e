"""The text of a stored query's parameter: a number, a string in quotes, or a list of these (ITI TF-2 3.18.4.1.2.3.5)."""

from __future__ import annotations

from collections.abc import Iterator


def split_values(text: str) -> Iterator[str]:
    """The values in the text of one Value element: `'a'`, `('a','b')` or a bare number. `''` inside quotes is one quote.

    ValueError for text that is none of these, with what is wrong and where.
    """
    at, end = _skip_space(text, 0), len(text.rstrip())
    in_list = text.startswith("(", at)
    if in_list:
        if end <= at + 1 or text[end - 1] != ")":
            raise ValueError(f"the list {text[:80]!r} is not closed by a parenthesis")
        at, end = _skip_space(text, at + 1), end - 1
        end = len(text[:end].rstrip())
    if at >= end:
        raise ValueError(f"{text[:80]!r} holds no value")
    while True:
        value, at = _one_value(text, at, end)
        yield value
        at = _skip_space(text, at)
        if at >= end:
            return
        if not in_list or text[at] != ",":
            raise ValueError(
                f"{text[:80]!r} has {text[at]!r} at character {at + 1}, where a comma or the end should be"
            )
        at = _skip_space(text, at + 1)


def quoted(value: str) -> str:
    """A string as `split_values` reads it."""
    return "'" + value.replace("'", "''") + "'"


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _one_value(text: str, at: int, end: int) -> tuple[str, int]:
    if at < end and text[at] == "'":
        parts, start = [], at + 1
        while (close := text.find("'", start, end)) >= 0:
            parts.append(text[start:close])
            if not text.startswith("''", close):
                return "'".join(parts), close + 1
            start = close + 2
        raise ValueError(f"the string that begins at character {at + 1} of {text[:80]!r} is not closed by a quote")
    stop = at
    while stop < end and text[stop].isdigit() and text[stop].isascii():
        stop += 1
    if stop == at:
        raise ValueError(f"{text[:80]!r} has neither a quoted string nor a number at character {at + 1}")
    return text[at:stop], stop
