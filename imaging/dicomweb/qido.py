"""RAD-129 QIDO-RS: searching for studies, series and instances (PS3.18 10.6, matching as in PS3.4 C.2.2.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from sqlalchemy import ColumnElement, Engine, Select, and_, false, func, or_, select, true

from imaging import dicom_json
from imaging.dicomweb.resources import JSON, Handler, Refusal, Request, json_array, one_of, warning
from imaging.index import INSTANCE_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES, date_of, folded_name, time_of
from imaging.publication import publication_tables
from imaging.publication.rejections import Rejected
from imaging.tables import described_instance, instance, series, study
from soap.replying import HttpReply
from xds.values import is_oid

Level = Literal["study", "series", "instance"]
_LEVELS: tuple[Level, ...] = ("study", "series", "instance")
_MAX_OFFSET = 2**31 - 1
_MAX_WORDS = 20
_MAX_ASTERISKS = 8
_CHUNK_UIDS = 500
#: These are answered only where they are asked for.
_EXTRA = frozenset(
    f"{tag_for_keyword(keyword):08X}"
    for keyword in (
        *("InstitutionName", "PatientAge", "Laterality", "SeriesDate", "SeriesTime", "Manufacturer", "StationName"),
        *("ProtocolName", "ImageType", "ContentDate", "ContentTime", "AcquisitionNumber"),
    )
)


@dataclass(frozen=True, slots=True)
class _Key:
    """An attribute that can be searched for, and how its values are compared."""

    level: Level
    column: ColumnElement[Any]
    kind: Literal["text", "name", "uid", "date", "time", "integer", "code"] = "text"


_REQUEST = "RequestAttributesSequence"
_KEYS = {
    "StudyInstanceUID": _Key("study", study.c.study_instance_uid, "uid"),
    "PatientName": _Key("study", study.c.patient_name, "name"),
    "PatientID": _Key("study", study.c.patient_id),
    "IssuerOfPatientID": _Key("study", study.c.issuer_of_patient_id),
    "PatientBirthDate": _Key("study", study.c.patient_birth_date, "date"),
    "PatientSex": _Key("study", study.c.patient_sex, "code"),
    "StudyDate": _Key("study", study.c.study_date, "date"),
    "StudyTime": _Key("study", study.c.study_time, "time"),
    "AccessionNumber": _Key("study", study.c.accession_number),
    "StudyID": _Key("study", study.c.study_id),
    "StudyDescription": _Key("study", study.c.study_description),
    "ReferringPhysicianName": _Key("study", study.c.referring_physician_name, "name"),
    "ModalitiesInStudy": _Key("study", series.c.modality, "code"),
    "SeriesInstanceUID": _Key("series", series.c.series_instance_uid, "uid"),
    "Modality": _Key("series", series.c.modality, "code"),
    "SeriesNumber": _Key("series", series.c.series_number, "integer"),
    "SeriesDescription": _Key("series", series.c.series_description),
    "BodyPartExamined": _Key("series", series.c.body_part_examined, "code"),
    "PerformedProcedureStepStartDate": _Key("series", series.c.performed_procedure_step_start_date, "date"),
    "PerformedProcedureStepStartTime": _Key("series", series.c.performed_procedure_step_start_time, "time"),
    f"{_REQUEST}.ScheduledProcedureStepID": _Key("series", series.c.scheduled_procedure_step_id),
    f"{_REQUEST}.RequestedProcedureID": _Key("series", series.c.requested_procedure_id),
    "SOPClassUID": _Key("instance", instance.c.sop_class_uid, "uid"),
    "SOPInstanceUID": _Key("instance", instance.c.sop_instance_uid, "uid"),
    "InstanceNumber": _Key("instance", instance.c.instance_number, "integer"),
}


_NOT_REJECTED = instance.c.sop_instance_uid.not_in(select(publication_tables.rejected.c.sop_instance_uid))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    matching: Sequence[tuple[str, str]]
    include: frozenset[str]
    fuzzy: bool
    limit: int
    offset: int
    ignored: tuple[str, ...]


def search(level: Level, *, reading: Engine, rejected: Rejected, max_results: int) -> Handler:
    """The handler of one level's searches. `reading` has the index, and reads in AUTOCOMMIT; `max_results` bounds one answer."""

    def handler(request: Request) -> HttpReply:
        one_of(request, (JSON, "application/json"))
        query = _read(request, level, max_results)
        rejected(())  # notes that came this moment count too
        with reading.connect() as connection:
            rows = connection.execute(_statement(level, request, query)).all()
            more = len(rows) > query.limit
            rows = rows[: query.limit]
            counts = _counts(connection.execute, level, rows)
        if not rows:
            return HttpReply(204, "", 0, iter([b""]), _warnings(query, more))
        answers = (_answer(level, row, counts, query.include, request.base) for row in rows)
        return json_array(answers, headers=_warnings(query, more))

    return handler


def _warnings(query: _Query, more: bool) -> tuple[tuple[str, str], ...]:
    texts = []
    if more:
        texts.append(f"there are more than these {query.limit} results; ask with offset={query.offset + query.limit}")
    if query.ignored:
        texts.append(f"includefield: {', '.join(query.ignored)[:200]} cannot be given")
    return tuple(map(warning, texts))


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
    key = _KEYS.get(keyword)
    if key is None or _LEVELS.index(key.level) > _LEVELS.index(level):
        usable = [one for one, its in _KEYS.items() if _LEVELS.index(its.level) <= _LEVELS.index(level)]
        raise Refusal(400, f"{level} level: {name[:64]!r} cannot be searched for; {', '.join(usable)} can")
    return keyword


def _statement(level: Level, request: Request, query: _Query) -> Select[Any]:
    conditions = [_condition(keyword, value, query.fuzzy) for keyword, value in query.matching if value]
    if "study" in request.place:
        conditions.append(study.c.study_instance_uid == request.place["study"])
    if "series" in request.place:
        conditions.append(series.c.series_instance_uid == request.place["series"])
    columns: list[ColumnElement[Any]] = [study.c.study_instance_uid, study.c.attributes.label("study_attributes")]
    source: Any = study
    # In each order the first column is that of an index, so that not everything is sorted for a page. The newest study is the first.
    order: list[ColumnElement[Any]] = [study.c.study_date.desc(), study.c.study_instance_uid.desc()]
    if level != "study":
        source = study.join(series, series.c.study_instance_uid == study.c.study_instance_uid)
        columns += [series.c.series_instance_uid, series.c.attributes.label("series_attributes")]
        order = [series.c.study_instance_uid, series.c.series_number, series.c.series_instance_uid]
    if level == "instance":
        same = and_(
            instance.c.study_instance_uid == series.c.study_instance_uid,
            instance.c.series_instance_uid == series.c.series_instance_uid,
        )
        of_it = described_instance.c.sop_instance_uid == instance.c.sop_instance_uid
        source = source.join(instance, same).join(described_instance, of_it)
        columns += [instance.c.sop_instance_uid, instance.c.transfer_syntax_uid]
        columns.append(described_instance.c.attributes.label("instance_attributes"))
        order = [instance.c.study_instance_uid, instance.c.series_number, instance.c.series_instance_uid]
        order += [instance.c.instance_number, instance.c.sop_instance_uid]
        conditions.append(_NOT_REJECTED)
    chosen = select(*columns).select_from(source).where(*conditions).order_by(*order)
    return chosen.limit(query.limit + 1).offset(query.offset)


def _condition(keyword: str, value: str, fuzzy: bool) -> ColumnElement[bool]:
    key = _KEYS[keyword]
    compare = _fuzzy if fuzzy and key.kind == "name" else _COMPARISONS[key.kind]
    condition = compare(keyword, key.column, value.strip())
    if keyword != "ModalitiesInStudy":
        return condition
    # It matches where any of the series does (PS3.4 C.2.2.2.2 and table 10.6.1-3 of PS3.18), whatever series is searched for beside it.
    of_study = select(series.c.study_instance_uid).where(condition).correlate(None)
    return study.c.study_instance_uid.in_(of_study)


def _text(_: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    if "*" in value or "?" in value:
        return column.like(_pattern(value), escape="/")
    return column == value


def _pattern(value: str) -> str:
    """For LIKE. Refusal for so many asterisks that comparing would take long."""
    value = re.sub(r"\*+", "*", value)
    if value.count("*") > _MAX_ASTERISKS:
        raise Refusal(400, f"{value[:40]!r} has more than {_MAX_ASTERISKS} asterisks")
    return re.sub(r"[/%_]", r"/\g<0>", value).replace("*", "%").replace("?", "_")


def _code(_: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Codes have neither commas nor backslashes in them, so that several may be given."""
    return or_(*(_text(_, column, one.strip()) for one in re.split(r"[,\\]", value)[:_CHUNK_UIDS]))


def _name(_: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Any of the groups of a name, or all of them; case counts for nothing (PS3.4 C.2.2.2.1 allows that)."""
    pattern = _pattern(folded_name(value))
    return or_(*(column.like(one, escape="/") for one in (pattern, f"{pattern}=%", f"%={pattern}", f"%={pattern}=%")))


def _fuzzy(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Each word is the beginning of a word of the name, whatever the case."""
    words = [word for word in re.split(r"[\s^=,*?]+", folded_name(value)) if word]
    if len(words) > _MAX_WORDS:
        raise Refusal(400, f"{keyword} has more than {_MAX_WORDS} words")
    begins = [
        or_(*(column.like(f"{before}{_pattern(word)}%", escape="/") for before in ("", "%^", "% ", "%=")))
        for word in words
    ]
    return and_(true(), *begins)


def _uid(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    uids = [one.strip() for one in re.split(r"[,\\]", value) if one.strip()]
    for one in uids:
        if not is_oid(one):
            raise Refusal(400, f"{keyword}: {one[:80]!r} is no UID: at most 64 digits and dots, without wildcards")
    return column.in_(uids) if uids else false()


def _date(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    return _range(keyword, column, value, lambda text: (date_of(text), date_of(text)), "YYYYMMDD")


def _time(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    def bounds(text: str) -> tuple[str, str]:
        first = time_of(text)
        digits = re.sub(r"\D", "", text)
        # What is not said of the end may be anything: 10 means until 10:59:59.999999.
        last = digits + "595959999999"[len(digits) :]
        return first, f"{last[:6]}.{last[6:]}" if first else ""

    return _range(keyword, column, value, bounds, "HHMMSS.FFFFFF or its beginning")


def _range(
    keyword: str, column: ColumnElement[Any], value: str, bounds: Callable[[str], tuple[str, str]], form: str
) -> ColumnElement[bool]:
    first, hyphen, last = (one.strip() for one in value.partition("-"))
    first, last = first, last if hyphen else first
    conditions = [column != ""]
    for text, is_end in ((first, False), (last, True)):
        bound = bounds(text)[is_end] if text else ""
        if (text and not bound) or (not first and not last):
            raise Refusal(400, f"{keyword} is {value[:40]!r}; it must be {form}, or a range of them with a hyphen")
        if bound:
            conditions.append(column <= bound if is_end else column >= bound)
    return and_(*conditions)


def _integer(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    if not re.fullmatch(r"[+-]?\d{1,10}", value, re.ASCII) or abs(int(value)) >= 2**31:
        raise Refusal(400, f"{keyword} is {value[:40]!r}; it must be a whole number of 32 bits, without wildcards")
    return column == int(value)


_COMPARISONS: dict[str, Callable[[str, ColumnElement[Any], str], ColumnElement[bool]]] = {
    "text": _text,
    "name": _name,
    "uid": _uid,
    "date": _date,
    "time": _time,
    "integer": _integer,
    "code": _code,
}


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of the studies and series of an answer: modalities, how many series, how many instances (by study, series)."""

    modalities: dict[str, list[str]]
    series: dict[str, int]
    instances: dict[tuple[str, str], int]
    of_studies: dict[str, int]


def _counts(execute: Callable[[Select[Any]], Any], level: Level, rows: Sequence[Any]) -> _Counts:
    counts = _Counts({}, {}, {}, {})
    uids = list(dict.fromkeys(row.study_instance_uid for row in rows))
    for start in range(0, len(uids), _CHUNK_UIDS):
        some = uids[start : start + _CHUNK_UIDS]
        by_study = series.c.study_instance_uid.in_(some)
        for uid, modality in execute(select(series.c.study_instance_uid, series.c.modality).where(by_study)):
            counts.series[uid] = counts.series.get(uid, 0) + 1
            known = counts.modalities.setdefault(uid, [])
            if modality and modality not in known:
                known.append(modality)
        keys = (instance.c.study_instance_uid, instance.c.series_instance_uid)
        counted = select(*keys, func.count()).where(keys[0].in_(some), _NOT_REJECTED).group_by(*keys)
        for uid, series_uid, number in execute(counted):
            counts.instances[uid, series_uid] = number
            counts.of_studies[uid] = counts.of_studies.get(uid, 0) + number
    return counts


def _answer(level: Level, row: Any, counts: _Counts, include: frozenset[str], base: str) -> dicom_json.Json:
    """One match: its own attributes, those of what it belongs to, and what was counted (PS3.18 tables 10.6.3-3 to -5)."""
    uid = row.study_instance_uid
    url = f"{base}/studies/{uid}"
    found = dict(json.loads(row.study_attributes))
    found["00080061"] = dicom_json.texts("CS", sorted(counts.modalities.get(uid, [])))
    found["00201206"] = dicom_json.texts("IS", [counts.series.get(uid, 0)])
    found["00201208"] = dicom_json.texts("IS", [counts.of_studies.get(uid, 0)])
    if level != "study":
        url += f"/series/{row.series_instance_uid}"
        found |= json.loads(row.series_attributes)
        found["00201209"] = dicom_json.texts("IS", [counts.instances.get((uid, row.series_instance_uid), 0)])
    if level == "instance":
        url += f"/instances/{row.sop_instance_uid}"
        found |= json.loads(row.instance_attributes)
        found["00083002"] = dicom_json.texts("UI", [row.transfer_syntax_uid])
    found["00080056"] = dicom_json.texts("CS", ["ONLINE"])
    found["00081190"] = dicom_json.texts("UR", [url])
    if "all" not in include:
        found = {tag: value for tag, value in found.items() if tag not in _EXTRA or tag in include}
    return dict(sorted(found.items()))


#: What includefield may ask for and get.
_ANSWERED = frozenset(
    f"{tag_for_keyword(keyword):08X}"
    for keyword in (
        *(*STUDY_ATTRIBUTES, *SERIES_ATTRIBUTES, *INSTANCE_ATTRIBUTES, "SpecificCharacterSet", "RetrieveURL"),
        *("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
        *("NumberOfSeriesRelatedInstances", "InstanceAvailability", "AvailableTransferSyntaxUID"),
    )
)
