"""RAD-129 QIDO-RS: searching for studies, series and instances (PS3.18 10.6, matching as in PS3.4 C.2.2.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from sqlalchemy import Engine, Select, func, select

from imaging import dicom_json, searching
from imaging.archive import LEVELS, UID_KEYWORDS, UID_TAGS, Level, text
from imaging.dicomweb.behind import IS_HERE, Behind
from imaging.dicomweb.resources import JSON, Handler, Refusal, Request, json_array, one_of, warning
from imaging.matching import KEYS, UnusableKey, condition
from imaging.publication.rejections import Rejected
from imaging.searching import ANSWERED, Counts
from imaging.tables import instance, series, study
from soap.replying import HttpReply

_MAX_OFFSET = 2**31 - 1
#: These are answered only where they are asked for.
_EXTRA = frozenset(
    f"{tag_for_keyword(keyword):08X}"
    for keyword in (
        *("InstitutionName", "PatientAge", "Laterality", "SeriesDate", "SeriesTime", "Manufacturer", "StationName"),
        *("ProtocolName", "ImageType", "ContentDate", "ContentTime", "AcquisitionNumber"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    matching: Sequence[tuple[str, str]]
    include: frozenset[str]
    fuzzy: bool
    limit: int
    offset: int
    ignored: tuple[str, ...]


def search(
    level: Level, *, reading: Engine, rejected: Rejected, max_results: int, behind: Behind | None = None
) -> Handler:
    """The handler of one level's searches. `reading` has the index, and reads in AUTOCOMMIT; `max_results` bounds one answer.

    What is stored here comes first, then what the archive `behind` has of studies that are not.
    """

    def handler(request: Request) -> HttpReply:
        one_of(request, (JSON, "application/json"))
        query = _read(request, level, max_results)
        rejected(())  # notes that came this moment count too
        statement = _statement(level, request, query, behind)
        with reading.connect() as connection:
            rows = connection.execute(statement.limit(query.limit + 1).offset(query.offset)).all()
            more, rows = len(rows) > query.limit, rows[: query.limit]
            counts = searching.counts(connection.execute, rows)
            skipped = 0
            if behind and not rows and query.offset:
                skipped = (
                    query.offset
                    - connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
                )
        answers = [_answer(level, row, counts, query.include, request.base) for row in rows]
        warnings = list(_ignored(query))
        if behind and not more:
            wanted = query.limit - len(rows)
            there = behind.search(level, _asked(request, query), query.fuzzy, skipped, wanted + 1)
            more = len(there.found) > wanted
            answers += [_told(level, match, query.include, request.base) for match in there.found[:wanted]]
            if there.literal:
                warnings.append("fuzzymatching: the archive behind this source compares names letter by letter")
            if there.passed_over:
                passed_over = ", ".join(there.passed_over)
                warnings.append(
                    f"{passed_over}: the archive behind this source cannot search for it, and its matches are left out"
                )
        if more:
            warnings.append(
                f"there are more than these {query.limit} results; ask with offset={query.offset + query.limit}"
            )
        headers = tuple(map(warning, warnings))
        return json_array(answers, headers=headers) if answers else HttpReply(204, "", 0, iter([b""]), headers)

    return handler


def _ignored(query: _Query) -> Iterator[str]:
    if query.ignored:
        yield f"includefield: {', '.join(query.ignored)[:200]} cannot be given"


def _asked(request: Request, query: _Query) -> dict[str, str]:
    """What the archive is asked for."""
    asked = {UID_KEYWORDS[one]: request.place[one] for one in LEVELS if one in request.place}
    for keyword, value in query.matching:
        if value and asked.setdefault(keyword, value.strip()) != value.strip():
            raise Refusal(
                400, f"{keyword} is asked for with two values, of which the archive behind this source takes one"
            )
    return asked


def _read(request: Request, level: Level, max_results: int) -> _Query:
    numbers = {"limit": max_results, "offset": 0}
    fuzzy, matching, include, ignored = False, [], set[str](), []
    for name, value in request.query:
        lowered = name.lower()
        if lowered in numbers:
            numbers[lowered] = _whole(lowered, value)
        elif lowered == "fuzzymatching":
            if value not in ("true", "false"):
                raise Refusal(400, f"fuzzymatching is {value[:40]!r}; it must be true or false")
            fuzzy = value == "true"
        elif lowered == "includefield":
            for one in filter(None, value.split(",")):
                tag = "all" if one == "all" else _tag(one)
                include.add(tag)
                if tag not in _ANSWERED and tag != "all":
                    ignored.append(one)
        else:
            matching.append((_key(name, level, request), value))
    return _Query(
        matching=matching,
        include=frozenset(include),
        fuzzy=fuzzy,
        limit=min(numbers["limit"], max_results),
        offset=numbers["offset"],
        ignored=tuple(ignored),
    )


def _whole(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,10}", value, re.ASCII) or int(value) > _MAX_OFFSET:
        raise Refusal(400, f"{name} is {value[:40]!r}; it must be a whole number from 0 to {_MAX_OFFSET}")
    return int(value)


def _keyword(name: str) -> str:
    keyword = keyword_for_tag(name) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else name
    if not keyword or tag_for_keyword(keyword) is None:
        raise Refusal(
            400, f"{name[:64]!r} is neither a parameter nor a DICOM attribute (keyword or 8 hexadecimal digits)"
        )
    return keyword


def _tag(path: str) -> str:
    """The tag of the first attribute of a path: a sequence is answered whole."""
    first = path.split(".")[0]
    if re.fullmatch(r"[0-9A-Fa-f]{8}", first):
        return first.upper()
    return f"{tag_for_keyword(_keyword(first)):08X}"


def _key(name: str, level: Level, request: Request) -> str:
    keyword = ".".join(map(_keyword, name.split(".")[:3]))
    key = KEYS.get(keyword)
    if key is None or LEVELS.index(key.level) > LEVELS.index(level):
        usable = [one for one, its in KEYS.items() if LEVELS.index(its.level) <= LEVELS.index(level)]
        raise Refusal(400, f"{level} level: {name[:64]!r} cannot be searched for; {', '.join(usable)} can")
    return keyword


def _statement(level: Level, request: Request, query: _Query, behind: Behind | None) -> Select[Any]:
    try:
        conditions = [condition(keyword, value, query.fuzzy) for keyword, value in query.matching if value]
    except UnusableKey as error:
        raise Refusal(400, str(error)) from None
    if behind:
        of_here = select(instance.c.study_instance_uid).where(IS_HERE).correlate(None)
        conditions.append(study.c.study_instance_uid.in_(of_here))
    if "study" in request.place:
        conditions.append(study.c.study_instance_uid == request.place["study"])
    if "series" in request.place:
        conditions.append(series.c.series_instance_uid == request.place["series"])
    return searching.matches(level, conditions)


def _answer(level: Level, row: Any, counts: Counts, include: frozenset[str], base: str) -> dicom_json.Json:
    """One match (PS3.18 tables 10.6.3-3 to -5)."""
    url = f"{base}/studies/{row.study_instance_uid}"
    if level != "study":
        url += f"/series/{row.series_instance_uid}"
    if level == "instance":
        url += f"/instances/{row.sop_instance_uid}"
    found = searching.attributes(level, row, counts)
    found["00081190"] = dicom_json.texts("UR", [url])
    return _shown(found, include)


def _told(level: Level, match: dicom_json.Json, include: frozenset[str], base: str) -> dicom_json.Json:
    """A match of the archive, of which this source gives what it gives of its own."""
    names = ("studies", "series", "instances")
    url = base + "".join(
        f"/{name}/{text(match, UID_TAGS[one])}" for name, one in zip(names, _down_to(level), strict=False)
    )
    found = {tag: value for tag, value in match.items() if tag in _ANSWERED}
    found.setdefault("00080056", dicom_json.texts("CS", ["ONLINE"]))
    found["00081190"] = dicom_json.texts("UR", [url])
    return _shown(found, include)


def _down_to(level: Level) -> Sequence[Level]:
    return LEVELS[: LEVELS.index(level) + 1]


def _shown(found: dicom_json.Json, include: frozenset[str]) -> dicom_json.Json:
    if "all" not in include:
        found = {tag: value for tag, value in found.items() if tag not in _EXTRA or tag in include}
    return dict(sorted(found.items()))


#: What includefield may ask for and get.
_ANSWERED = frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in (*ANSWERED["instance"], "RetrieveURL"))
