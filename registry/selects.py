"""The SELECTs of stored queries, each built once for the shape of its conditions (ITI TF-2 3.18.4.1.2.3.7).

A `Search` collects the conditions on one class of object: their shape, which decides the statement, and the values to bind. Nothing of a
query ever becomes SQL text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    false,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
)

from database.statements import among, chunks
from registry.columns import holds, holds_like, json_value
from registry.tables import BY_KIND, SHORT_STATUS, patient, registry_object
from schemas.attributes import Kind
from xds.queries import Codes
from xds.values import Timestamp, normal
from xds.vocabulary import ON_DEMAND

Bound = tuple[Select[Any], dict[str, Any]]
#: "whole" rows have the body; "keys" are the same rows with NULL in its place.
Columns = Literal["whole", "keys"]
#: What a condition is, the column it is on, the name its values are bound under, and how many they are.
Condition = tuple[str, str, str, int]

#: Where the columns of a row are. A Folder has lastUpdateTime after these, an Association its source and target.
ENTRY_UUID, PATIENT_ID, STATUS, BODY, MORE = range(5)
SOURCE_OBJECT, TARGET_OBJECT = range(4, 6)
_MORE: dict[Kind, tuple[str, ...]] = {
    "DocumentEntry": (),
    "SubmissionSet": (),
    "Folder": ("last_update_time",),
    "Association": ("source_object", "target_object"),
}


class Search:
    """Conditions that objects of a class must all meet."""

    __slots__ = ("_bound", "_shape", "kind")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._shape: list[Condition] = []
        self._bound: dict[str, Any] = {}

    def bound(self, columns: Columns, most: int, dialect: str) -> Bound:
        """The statement that gives at most so many rows of a database of this kind, and the values to run it with."""
        return _statement(self.kind, columns, tuple(self._shape), dialect), {**self._bound, "most": most}

    # --- one value or one of several --------------------------------------------------------------------------------

    def equal(self, column: str, value: object) -> Search:
        """The column is the value."""
        self._shape.append(("=", column, column, 1))
        self._bound[column] = value
        return self

    def one_of(self, column: str, values: Iterable[str], condition: str = "in") -> Search:
        """The column is one of the values; with "not in" none of them."""
        # The drivers take a str, and of its subclasses they make what they like.
        lists = chunks(map(str, values)) or [[]]
        name = f"{column} {condition}".replace(" ", "_")
        self._shape.append((condition, column, name, len(lists)))
        for n, chunk in enumerate(lists):
            self._bound[f"{name}_{n}"] = chunk
        return self

    def status(self, statuses: Iterable[str]) -> Search:
        """Its status is one of these, given as URNs."""
        return self.one_of("status", [SHORT_STATUS.get(one, one) for one in statuses])

    def latest(self, metadata_level: int) -> Search:
        """At level 1, it is the latest version of its logical object."""
        return self.equal("latest", 1) if metadata_level == 1 else self

    def code(self, column: str, groups: Codes, *, exclude: bool = False) -> Search:
        """A code of which the object has one is among those given, if any are."""
        if groups:
            self.one_of(column, [normal(code) for group in groups for code in group], "not in" if exclude else "in")
        return self

    def available(self, values: Sequence[str]) -> Search:
        """Its documentAvailability is one of the values, if any are given. An entry without one is Online (ITI TF-3 4.2.3.2)."""
        if values:
            online = any(value.endswith(":Online") for value in values)
            self.one_of("document_availability", values, "in or null" if online else "in")
        return self

    # --- several values of the object -------------------------------------------------------------------------------

    def values(self, column: str, groups: Codes, *, exclude: bool = False) -> Search:
        """Of each group, the object has one value; with `exclude`, it does not have one of each."""
        names: list[int] = []
        for n, group in enumerate(groups):
            padded = _padded([json_value(value) for value in group])
            names.append(len(padded))
            self._bound |= {f"{column}_{exclude}_{n}_{m}": value for m, value in enumerate(padded)}
        if groups:
            # The lengths of the groups are part of the shape: they stand one after the other in its name.
            lengths = "+".join(map(str, names))
            self._shape.append((f"holds {lengths}", column, f"{column}_{exclude}", int(exclude)))
        return self

    def authors(self, patterns: Sequence[str], *, exclude: bool = False) -> Search:
        """One of the authors is LIKE one of the patterns, if any are given; with `exclude`, none is."""
        if patterns:
            # Only % and _ are wildcards; a backslash is a backslash (ITI TF-2 3.18.4.1.2.3.5).
            padded = _padded([normal(pattern).replace("\\", "\\\\") for pattern in patterns])
            name = f"author_{exclude}"
            self._shape.append(("unlike" if exclude else "like", "author_person", name, len(padded)))
            self._bound |= {f"{name}_{n}": pattern for n, pattern in enumerate(padded)}
        return self

    # --- times ------------------------------------------------------------------------------------------------------

    def time(self, column: str, start: Timestamp | None, end: Timestamp | None, *, unless: str = "") -> Search:
        """`start <= time < end`, either of which may be None. It is not asked of objects that are `unless`: "null" or "on demand"."""
        for condition, name, time in ((">=", f"{column}_from", start), ("<", f"{column}_to", end)):
            if time is not None:
                self._shape.append((f"{condition} {unless}", column, name, 1))
                self._bound[name] = time.earliest
        return self

    # --- ids --------------------------------------------------------------------------------------------------------

    def identified(self, column: str, values: Iterable[str]) -> Search:
        """Its entry_uuid, unique_id or logical_id is one of the values, and its patient is not known."""
        unique = list(dict.fromkeys(map(str, values)))
        self._shape.append(("id", column, f"id_{column}", 1))
        self._bound[f"id_{column}"] = unique
        return self


def _padded(values: list[str]) -> list[str]:
    """The values, the last one repeated up to a power of two, so that few statements come of them."""
    return values + values[-1:] * ((1 << (len(values) - 1).bit_length()) - len(values))


# --- statements -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _statement(kind: Kind, columns: Columns, shape: tuple[Condition, ...], dialect: str) -> Select[Any]:
    table = BY_KIND[kind]
    body: ColumnElement[Any] = table.c.body if columns == "whole" else null().label("body")
    more = [table.c[name] for name in _MORE[kind]]
    wanted = [table.c.entry_uuid, table.c.patient_id, table.c.status, body, *more]
    conditions = [_condition(kind, one) for one in shape if one[0] != "id"]
    ids = [_identified(name, parameter) for what, name, parameter, _ in shape if what == "id"]
    most = bindparam("most", type_=Integer)
    if ids:
        return _joined(kind, wanted, conditions, dialect).where(*ids).limit(most)
    return select(*wanted).where(and_(*conditions)).limit(most)


def _identified(name: str, parameter: str) -> ColumnElement[bool]:
    here = among(registry_object.c[name], parameter)
    if name != "logical_id":
        return here
    # The first version of a logical object has the logicalID for an id.
    return or_(here, and_(registry_object.c.logical_id.is_(None), among(registry_object.c.entry_uuid, parameter)))


def _joined(
    kind: Kind, wanted: Sequence[ColumnElement[Any]], conditions: Sequence[ColumnElement[bool]], dialect: str
) -> Select[Any]:
    """The objects of a class beside their ids: entryUUIDs and uniqueIds are known to the one table that is not spread by patient."""
    table = BY_KIND[kind]
    same = and_(table.c.patient_id == registry_object.c.patient_id, table.c.entry_uuid == registry_object.c.entry_uuid)
    if dialect == "sqlite":
        return select(*wanted).select_from(registry_object.join(table, same)).where(and_(true(), *conditions))
    # PostgreSQL keeps the plan that it made when the tables were nearly empty, and a join might then be the wrong way round. This form
    # can be run in one way only: first the ids, then for each its object by the primary key.
    each = select(*wanted).where(same, *conditions).offset(literal_column("0")).lateral("each_object")
    return select(*each.c).select_from(registry_object.join(each, true()))


def _condition(kind: Kind, condition: Condition) -> ColumnElement[bool]:
    what, name, parameter, count = condition
    column: ColumnElement[Any] = BY_KIND[kind].c[name]
    match what.split(" ", 1):
        case ["="]:
            return column == bindparam(parameter)
        case ["in"]:
            return _one_of(column, parameter, count)
        case ["in", "or null"]:
            return or_(column.is_(None), _one_of(column, parameter, count))
        case ["not", "in"]:
            # Not NOT IN, which is no `= ANY`.
            return and_(*(among(column, f"{parameter}_{n}").is_(false()) for n in range(count)))
        case ["holds", lengths]:
            held = [
                or_(*(holds(column, f"{parameter}_{n}_{m}") for m in range(int(length))))
                for n, length in enumerate(lengths.split("+"))
            ]
            return not_(and_(*held)) if count else and_(*held)
        case ["like"]:
            return or_(*(holds_like(column, f"{parameter}_{n}") for n in range(count)))
        case ["unlike"]:
            return not_(or_(*(holds_like(column, f"{parameter}_{n}") for n in range(count))))
        case [">=" | "<" as side, unless]:
            return _in_time(kind, column, parameter, side, unless)
    raise AssertionError(what)


def _one_of(column: ColumnElement[Any], parameter: str, lists: int) -> ColumnElement[bool]:
    return or_(*(among(column, f"{parameter}_{n}") for n in range(lists)))


def _in_time(kind: Kind, column: ColumnElement[Any], parameter: str, side: str, unless: str) -> ColumnElement[bool]:
    limit: ColumnElement[Any] = bindparam(parameter)
    inside = column >= limit if side == ">=" else column < limit
    match unless:
        case "null":
            return or_(column.is_(None), inside)
        case "on demand":
            return or_(BY_KIND[kind].c.object_type == literal(ON_DEMAND), inside)
    return inside


def bodies(kind: Kind, patient_id: str | None, entry_uuids: Sequence[str], dialect: str) -> Bound:
    """entryUUID and body of objects, of one patient where it is known."""
    bound: dict[str, Any] = {"ids": entry_uuids}
    if patient_id is not None:
        bound["patient"] = patient_id
    return _bodies(kind, patient_id is not None, dialect), bound


@lru_cache(maxsize=16)
def _bodies(kind: Kind, of_patient: bool, dialect: str) -> Select[Any]:
    table = BY_KIND[kind]
    wanted = [table.c.entry_uuid, table.c.body]
    if of_patient:
        here = table.c.patient_id == bindparam("patient")
        return select(*wanted).where(here, among(table.c.entry_uuid, "ids"))
    return _joined(kind, wanted, [], dialect).where(among(registry_object.c.entry_uuid, "ids"))


_KNOWN_PATIENTS = select(patient.c.patient_id).where(
    among(patient.c.patient_id, "ids"), patient.c.subsumed_by.is_(None)
)


def known_patients(patient_ids: Sequence[str]) -> Bound:
    """Those of the patients that the feed has told of and not merged away."""
    return _KNOWN_PATIENTS, {"ids": patient_ids}
