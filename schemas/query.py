"""query:AdhocQueryRequest and Response: stored queries and their results, to text and back (ITI TF-2 3.18.4.1).

The parameters of each stored query are one table, read in both directions. Unknown parameters are ignored, as the standard wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from lxml import etree

from schemas import rs
from schemas.ns import QUERY, RIM, RS
from schemas.rim import escape
from xds.messages import QueryResult
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.queries import (
    FindDocuments,
    FindSubmissionSets,
    GetAll,
    GetDocuments,
    GetSubmissionSetAndContents,
    ReturnType,
    StoredQuery,
)
from xds.values import Identifier, Timestamp
from xds.vocabulary import ON_DEMAND, STABLE, Status

#: How many values one request may list, over all its parameters.
MAX_VALUES = 10_000

Syntax = Literal["patient", "text", "time", "code", "uuid", "status", "type"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a stored query: the slot's name, the syntax of its values, whether several are OR, repeated slots AND."""

    name: str
    syntax: Syntax
    required: bool = False
    many: bool = False
    and_or: bool = False


def _code(name: str, and_or: bool = False) -> Parameter:
    return Parameter(name, "code", many=True, and_or=and_or)


def _statuses(name: str) -> Parameter:
    return Parameter(name, "status", required=True, many=True)


_DE, _SS = "$XDSDocumentEntry", "$XDSSubmissionSet"
_ENTRY_FILTER = {
    "format_code": _code(f"{_DE}FormatCode"),
    "confidentiality_code": _code(f"{_DE}ConfidentialityCode", and_or=True),
    "object_type": Parameter(f"{_DE}Type", "type", many=True),
}

PARAMETERS: dict[type[StoredQuery], dict[str, Parameter]] = {
    FindDocuments: {
        "patient_id": Parameter(f"{_DE}PatientId", "patient", required=True),
        "status": _statuses(f"{_DE}Status"),
        "class_code": _code(f"{_DE}ClassCode"),
        "type_code": _code(f"{_DE}TypeCode"),
        "practice_setting_code": _code(f"{_DE}PracticeSettingCode"),
        "creation_time_from": Parameter(f"{_DE}CreationTimeFrom", "time"),
        "creation_time_to": Parameter(f"{_DE}CreationTimeTo", "time"),
        "service_start_time_from": Parameter(f"{_DE}ServiceStartTimeFrom", "time"),
        "service_start_time_to": Parameter(f"{_DE}ServiceStartTimeTo", "time"),
        "service_stop_time_from": Parameter(f"{_DE}ServiceStopTimeFrom", "time"),
        "service_stop_time_to": Parameter(f"{_DE}ServiceStopTimeTo", "time"),
        "healthcare_facility_type_code": _code(f"{_DE}HealthcareFacilityTypeCode"),
        "event_code_list": _code(f"{_DE}EventCodeList", and_or=True),
        "author_person": Parameter(f"{_DE}AuthorPerson", "text", many=True),
        **_ENTRY_FILTER,
    },
    FindSubmissionSets: {
        "patient_id": Parameter(f"{_SS}PatientId", "patient", required=True),
        "status": _statuses(f"{_SS}Status"),
        "source_id": Parameter(f"{_SS}SourceId", "text", many=True),
        "submission_time_from": Parameter(f"{_SS}SubmissionTimeFrom", "time"),
        "submission_time_to": Parameter(f"{_SS}SubmissionTimeTo", "time"),
        "author_person": Parameter(f"{_SS}AuthorPerson", "text"),
        "content_type": _code(f"{_SS}ContentType"),
    },
    GetAll: {
        "patient_id": Parameter("$patientId", "patient", required=True),
        "document_entry_status": _statuses(f"{_DE}Status"),
        "submission_set_status": _statuses(f"{_SS}Status"),
        "folder_status": _statuses("$XDSFolderStatus"),
        **_ENTRY_FILTER,
    },
    GetDocuments: {
        "entry_uuid": Parameter(f"{_DE}EntryUUID", "uuid", many=True),
        "unique_id": Parameter(f"{_DE}UniqueId", "text", many=True),
    },
    GetSubmissionSetAndContents: {
        "entry_uuid": Parameter(f"{_SS}EntryUUID", "uuid"),
        "unique_id": Parameter(f"{_SS}UniqueId", "text"),
        **_ENTRY_FILTER,
    },
}
#: Attributes of which exactly one must be given.
_EITHER: dict[type[StoredQuery], tuple[str, str]] = {
    GetDocuments: ("entry_uuid", "unique_id"),
    GetSubmissionSetAndContents: ("entry_uuid", "unique_id"),
}
_QUERIES: dict[str, type[StoredQuery]] = {kind.query_id: kind for kind in PARAMETERS}
_KNOWN: dict[str, frozenset[str]] = {
    "status": frozenset(str(status) for status in Status),
    "type": frozenset({STABLE, ON_DEMAND}),
}
#: Attributes that hold a tuple although the standard allows a single value.
_TUPLES = {kind: {f.name for f in fields(kind) if str(f.type).startswith(("tuple", "Codes"))} for kind in PARAMETERS}


# --- request to query -------------------------------------------------------------------------------------------------


def decode_query(element: etree._Element) -> StoredQuery:
    """The stored query in an AdhocQueryRequest. Failure with every fault of its parameters (ITI TF-2 3.18.4.1.2.3, 3.18.4.1.3)."""
    adhoc = element.find(f"{{{RIM}}}AdhocQuery")
    query_id = "" if adhoc is None else adhoc.get("id", "").strip().lower()
    kind = _QUERIES.get(query_id)
    if adhoc is None or kind is None:
        raise fail(
            ErrorCode.UNKNOWN_STORED_QUERY, f"AdhocQuery id {query_id!r} is no stored query that this registry knows"
        )
    problems: list[Problem] = []
    return_type = _return_type(element, problems)
    slots = _slots(adhoc)
    values: dict[str, Any] = {}
    for field, parameter in PARAMETERS[kind].items():
        groups = _read(parameter, slots.get(parameter.name, []), problems)
        if groups:
            values[field] = _value(kind, field, parameter, groups)
        elif parameter.required and not any(parameter.name in problem.context for problem in problems):
            problems.append(_missing(f"Parameter {parameter.name} is missing"))
    _check_either(kind, values, problems)
    if problems:
        raise Failure(problems)
    return kind(return_type=return_type, **values)


def _return_type(element: etree._Element, problems: list[Problem]) -> ReturnType:
    option = element.find(f"{{{QUERY}}}ResponseOption")
    given = "RegistryObject" if option is None else option.get("returnType", "RegistryObject")
    try:
        return ReturnType(given)
    except ValueError:
        allowed = " or ".join(ReturnType)
        problems.append(
            Problem(code=ErrorCode.REGISTRY_ERROR, context=f"ResponseOption: returnType {given!r} is not {allowed}")
        )
        return ReturnType.OBJECT_REF


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


def _read(parameter: Parameter, slots: list[list[str]], problems: list[Problem]) -> tuple[tuple[str, ...], ...]:
    """The values of a parameter in their AND groups; what is wrong with them goes to `problems`."""
    if not slots:
        return ()
    name, groups = parameter.name, []
    for texts in slots:
        try:
            values = [value for text in texts for value in split_values(text)]
        except ValueError as reason:
            problems.append(Problem(code=ErrorCode.REGISTRY_ERROR, context=f"Parameter {name}: {reason}"))
            continue
        faults = [fault for value in values if (fault := _fault(parameter.syntax, value))]
        problems += [Problem(code=ErrorCode.REGISTRY_ERROR, context=f"Parameter {name}: {fault}") for fault in faults]
        known = _KNOWN.get(parameter.syntax)
        kept = tuple(value for value in values if known is None or value in known)
        if kept and not faults:
            groups.append(kept)
    if len(groups) > 1 and not parameter.and_or:
        problems.append(_number(f"Parameter {name} is given {len(groups)} times; it may be given once"))
    count = sum(len(group) for group in groups)
    if not parameter.many and count > 1:
        problems.append(_number(f"Parameter {name} has {count} values; it takes one"))
    if count > MAX_VALUES:
        problems.append(_number(f"Parameter {name} has {count} values; the limit is {MAX_VALUES}"))
    return tuple(groups)


def _fault(syntax: Syntax, value: str) -> str | None:
    if syntax == "time":
        fault = Timestamp(value).fault
        return fault and f"{value!r} {fault}"
    if syntax == "code":
        code, separator, scheme = value.partition("^^")
        if not (code and separator and scheme):
            return f"{value!r} is not of the form code^^codingScheme"
    if syntax == "patient":
        fault = Identifier(value).fault
        return fault and f"{value!r} {fault}"
    return None


def _value(kind: type[StoredQuery], field: str, parameter: Parameter, groups: tuple[tuple[str, ...], ...]) -> Any:
    if parameter.syntax == "code":
        return groups
    flat = tuple(value for group in groups for value in group)
    if parameter.syntax == "uuid":
        flat = tuple(value.lower() for value in flat)
    if field in _TUPLES[kind]:
        return flat
    makes = {"patient": Identifier, "time": Timestamp}
    return makes.get(parameter.syntax, str)(flat[0])


def _check_either(kind: type[StoredQuery], values: dict[str, Any], problems: list[Problem]) -> None:
    if kind not in _EITHER:
        return
    names = [PARAMETERS[kind][field].name for field in _EITHER[kind]]
    given = [field for field in _EITHER[kind] if field in values]
    if len(given) > 1:
        problems.append(_number(f"Parameters {names[0]} and {names[1]} exclude each other; both are given"))
    elif not given and not problems:
        problems.append(_missing(f"One of the parameters {names[0]} and {names[1]} is required"))


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


# --- query to request -------------------------------------------------------------------------------------------------


def encode_query(query: StoredQuery) -> bytes:
    """The AdhocQueryRequest, as a document of its own. Parameters at their default of "no condition" are left out."""
    slots = []
    for field, parameter in PARAMETERS[type(query)].items():
        value = getattr(query, field)
        if value is None or value == ():
            continue
        groups = value if parameter.syntax == "code" else (value if isinstance(value, tuple) else (value,),)
        slots += [_slot(parameter, group) for group in groups]
    return (
        f'<query:AdhocQueryRequest xmlns:query="{QUERY}" xmlns:rim="{RIM}">'
        f'<query:ResponseOption returnComposedObjects="true" returnType="{query.return_type}"/>'
        f'<rim:AdhocQuery id="{query.query_id}">{"".join(slots)}</rim:AdhocQuery></query:AdhocQueryRequest>'
    ).encode()


def _slot(parameter: Parameter, values: Iterable[str]) -> str:
    def written(value: str) -> str:
        if parameter.syntax == "time":
            return value
        quoted = "'" + value.replace("'", "''") + "'"
        return f"({quoted})" if parameter.many else quoted

    rows = "".join(f"<rim:Value>{escape(written(value))}</rim:Value>" for value in values)
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
