"""query:AdhocQueryRequest and Response: stored queries and their results, to text and back (ITI TF-2 3.18.4.1, 3.51.4.1).

Unknown parameters are ignored, as the standard wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lxml import etree

from schemas import rs
from schemas.ns import QUERY, RIM, RS
from schemas.query_parameters import (
    AT_LEAST_ONE,
    AT_MOST_ONE,
    DEFAULTS,
    GROUPED,
    MAX_VALUES,
    PARAMETERS,
    TUPLES,
    Parameter,
    Syntax,
)
from schemas.query_values import quoted, split_values
from schemas.rim import escape
from xds.messages import QueryResult
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.queries import MultiPatientQuery, ReturnType, StoredQuery
from xds.values import Identifier, Timestamp
from xds.vocabulary import ON_DEMAND, STABLE, Status

__all__ = ["decode_query", "decode_result", "encode_query", "encode_result", "split_values"]

#: A value is at most so long: more than four times what ebRIM allows a slot's value.
MAX_VALUE_CHARS = 1024

_QUERIES: dict[str, type[StoredQuery]] = {kind.query_id: kind for kind in PARAMETERS}
_KNOWN: dict[str, frozenset[str]] = {
    "status": frozenset(str(status) for status in Status),
    "type": frozenset({STABLE, ON_DEMAND}),
}


# --- request to query -------------------------------------------------------------------------------------------------


def decode_query(element: etree._Element, *, multi_patient: bool = False) -> StoredQuery:
    """The stored query in an AdhocQueryRequest: one of ITI-51's where `multi_patient`, else one of ITI-18's.

    Failure with every fault of its parameters (ITI TF-2 3.18.4.1.2.3, 3.18.4.1.3).
    """
    adhoc = element.find(f"{{{RIM}}}AdhocQuery")
    query_id = "" if adhoc is None else adhoc.get("id", "").strip().lower()
    kind = _QUERIES.get(query_id)
    if adhoc is None or kind is None:
        raise fail(
            ErrorCode.UNKNOWN_STORED_QUERY, f"AdhocQuery id {query_id!r} is no stored query that this registry knows"
        )
    if issubclass(kind, MultiPatientQuery) is not multi_patient:
        here, there = ("ITI-51", "ITI-18") if multi_patient else ("ITI-18", "ITI-51")
        raise fail(
            ErrorCode.UNKNOWN_STORED_QUERY,
            f"AdhocQuery id {query_id!r} is {kind.__name__}, a query of {there} and not of {here}",
        )
    problems: list[Problem] = []
    return_type = _return_type(element, problems)
    values = _values(kind, _slots(adhoc), problems)
    _check_together(kind, values, problems)
    if problems:
        raise Failure(problems)
    home = adhoc.get("home", "").strip() or None
    return kind(return_type=return_type, home_community_id=home, **values)


def _return_type(element: etree._Element, problems: list[Problem]) -> ReturnType:
    option = element.find(f"{{{QUERY}}}ResponseOption")
    given = "RegistryObject" if option is None else option.get("returnType", "RegistryObject")
    try:
        return ReturnType(given)
    except ValueError:
        allowed = " or ".join(ReturnType)
        problems.append(_wrong(f"ResponseOption: returnType {given!r} is not {allowed}"))
        return ReturnType.OBJECT_REF


def _wrong(context: str) -> Problem:
    return Problem(code=ErrorCode.REGISTRY_ERROR, context=context)


def _missing(context: str) -> Problem:
    return Problem(code=ErrorCode.STORED_QUERY_MISSING_PARAM, context=context)


def _number(context: str) -> Problem:
    return Problem(code=ErrorCode.STORED_QUERY_PARAM_NUMBER, context=context)


def _slots(adhoc: etree._Element) -> dict[str, list[list[str]]]:
    """The texts of the Value elements, by parameter name: one list for each Slot of that name."""
    slots: dict[str, list[list[str]]] = {}
    for slot in adhoc.iterchildren(f"{{{RIM}}}Slot"):
        texts = [value.text or "" for value in slot.iterfind(f"{{{RIM}}}ValueList/{{{RIM}}}Value")]
        if texts:
            slots.setdefault(slot.get("name", ""), []).append(texts)
    return slots


def _values(kind: type[StoredQuery], slots: Mapping[str, list[list[str]]], problems: list[Problem]) -> dict[str, Any]:
    """The attributes that the slots give a value; what is wrong with them goes to `problems`."""
    values: dict[str, Any] = {}
    count = 0
    for field, parameter in PARAMETERS[kind].items():
        given = slots.get(parameter.name)
        before = len(problems)
        groups = () if given is None else _read(parameter, given, problems)
        if groups:
            count += sum(len(group) for group in groups)
            values[field] = _value(kind, field, parameter, groups)
        elif parameter.required and len(problems) == before:
            problems.append(_missing(f"Parameter {parameter.name} is missing"))
    if count > MAX_VALUES:
        problems.append(_number(f"{kind.__name__} lists {count} values; the limit is {MAX_VALUES}"))
    return values


def _read(parameter: Parameter, slots: list[list[str]], problems: list[Problem]) -> tuple[tuple[str, ...], ...]:
    """The values of a parameter in their AND groups; what is wrong with them goes to `problems`."""
    name, groups = parameter.name, []
    for texts in slots:
        try:
            values = [value for text in texts for value in split_values(text)]
        except ValueError as reason:
            problems.append(_wrong(f"Parameter {name}: {reason}"))
            continue
        faults = [fault for value in values if (fault := _fault(parameter.syntax, value))]
        problems += [_wrong(f"Parameter {name}: {fault}") for fault in faults]
        known = _KNOWN.get(parameter.syntax)
        kept = tuple(value for value in values if known is None or value in known)
        if kept and not faults:
            groups.append(kept)
    if len(groups) > 1 and not parameter.and_or:
        problems.append(_number(f"Parameter {name} is given {len(groups)} times; it may be given once"))
    count = sum(len(group) for group in groups)
    if not parameter.many and count > 1:
        problems.append(_number(f"Parameter {name} has {count} values; it takes one"))
    elif count > parameter.most:
        problems.append(_number(f"Parameter {name} has {count} values; the limit is {parameter.most}"))
    return tuple(groups)


def _fault(syntax: Syntax, value: str) -> str | None:
    """What is wrong with one value, with the value; None when nothing is."""
    if len(value) > MAX_VALUE_CHARS:
        return f"{value[:80]!r}... has {len(value)} characters; the limit is {MAX_VALUE_CHARS}"
    fault = None
    match syntax:
        case "time":
            fault = Timestamp(value).fault
        case "patient":
            fault = Identifier(value).fault
        case "code":
            code, _, scheme = value.partition("^^")
            fault = None if code and scheme else "is not of the form code^^codingScheme"
        case "level":
            fault = None if value in ("1", "2") else "is neither 1 nor 2"
    return fault and f"{value!r} {fault}"


def _value(kind: type[StoredQuery], field: str, parameter: Parameter, groups: tuple[tuple[str, ...], ...]) -> Any:
    """The values of a parameter as the attribute holds them."""
    if parameter.syntax in GROUPED:
        return groups
    make = _MAKES.get(parameter.syntax)
    flat = tuple(value if make is None else make(value) for group in groups for value in group)
    return flat if field in TUPLES[kind] else flat[0]


_MAKES: dict[str, Any] = {
    "patient": Identifier,
    "time": Timestamp,
    "level": int,
    # UUIDs are stored in lower case, and compared so.
    "uuid": str.lower,
}


def _check_together(kind: type[StoredQuery], values: Mapping[str, Any], problems: list[Problem]) -> None:
    """What the parameters may be only together, or only alone."""
    names = {field: parameter.name for field, parameter in PARAMETERS[kind].items()}
    for fields in AT_MOST_ONE.get(kind, ()):
        given = [names[field] for field in fields if field in values]
        if len(given) > 1:
            problems.append(_number(f"Parameters {' and '.join(given)} exclude each other; both are given"))
    if "logical_id" in values and values.get("metadata_level", 1) == 1:
        # A logicalID stands for all versions, which level 1 does not know.
        problems.append(_wrong(f"Parameter {names['logical_id']} needs $MetadataLevel 2"))
    needed = AT_LEAST_ONE.get(kind, ())
    if needed and not problems and not any(field in values for field in needed):
        listed = " and ".join(names[field] for field in needed)
        problems.append(_missing(f"One of the parameters {listed} is required"))


# --- query to request -------------------------------------------------------------------------------------------------


def encode_query(query: StoredQuery) -> bytes:
    """The AdhocQueryRequest, as a document of its own. Optional parameters at their default are left out."""
    slots = []
    for field, parameter in PARAMETERS[type(query)].items():
        value = getattr(query, field)
        if value is None or value == () or (value == DEFAULTS[type(query)][field] and not parameter.required):
            continue
        groups = value if parameter.syntax in GROUPED else (value if isinstance(value, tuple) else (value,),)
        slots += [_slot(parameter, group) for group in groups]
    home = "" if query.home_community_id is None else f' home="{escape(query.home_community_id)}"'
    return (
        f'<query:AdhocQueryRequest xmlns:query="{QUERY}" xmlns:rim="{RIM}">'
        f'<query:ResponseOption returnComposedObjects="true" returnType="{query.return_type}"/>'
        f'<rim:AdhocQuery id="{query.query_id}"{home}>{"".join(slots)}</rim:AdhocQuery></query:AdhocQueryRequest>'
    ).encode()


def _slot(parameter: Parameter, values: Iterable[object]) -> str:
    def written(value: str) -> str:
        if parameter.syntax in ("time", "level"):
            return value
        return f"({quoted(value)})" if parameter.many else quoted(value)

    rows = "".join(f"<rim:Value>{escape(written(str(value)))}</rim:Value>" for value in values)
    return f'<rim:Slot name="{parameter.name}"><rim:ValueList>{rows}</rim:ValueList></rim:Slot>'


# --- result -----------------------------------------------------------------------------------------------------------

_OPEN_LIST, _CLOSE_LIST = b"<rim:RegistryObjectList>", b"</rim:RegistryObjectList></query:AdhocQueryResponse>"
#: Fragments are joined into pieces of about this many characters.
_PIECE_CHARS = 64 * 1024


def encode_result(result: QueryResult) -> Iterator[bytes]:
    """The AdhocQueryResponse, in pieces. The RegistryObjectList is there even when it is empty: the schema demands it."""
    yield (
        f'<query:AdhocQueryResponse xmlns:query="{QUERY}" xmlns:rim="{RIM}" xmlns:rs="{RS}"'
        f' status="{result.outcome.status}">{rs.error_list(result.outcome.problems)}'
    ).encode() + _OPEN_LIST
    piece: list[str] = []
    chars = 0
    for fragment in result.fragments:
        piece.append(fragment)
        chars += len(fragment)
        if chars >= _PIECE_CHARS:
            yield "".join(piece).encode()
            piece, chars = [], 0
    yield "".join(piece).encode() + _CLOSE_LIST


def decode_result(element: etree._Element) -> QueryResult:
    """The outcome, and each object of the RegistryObjectList as a fragment. ValueError for a status that IHE does not know."""
    object_list = element.find(f"{{{RIM}}}RegistryObjectList")
    fragments = (
        ()
        if object_list is None
        else tuple(
            etree.tostring(child, encoding="unicode", with_tail=False)
            for child in object_list.iterchildren(tag=etree.Element)
        )
    )
    return QueryResult(outcome=rs.decode_outcome(element), fragments=fragments)
