"""Studies as FHIR ImagingStudy over HTTP, in R4 or R5: read, and searched for (hl7.org/fhir/R4/http.html, imagingstudy.html#search).

What is searched for is matched as QIDO-RS does it; what a token says of a system is compared with the resource.
"""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from imaging.dicomweb.resources import JSON, Handler, Refusal, Request, one_of, reply
from imaging.dicomweb.wado_rs import Find, whole
from imaging.dicomweb.web import Route
from imaging.fhir import Json, Release
from imaging.instances import InstanceError
from soap.replying import HttpReply
from xds.values import is_oid

FHIR = "application/fhir+json"
_VERSIONS: dict[Release, str] = {"R4": "4.0.1", "R5": "5.0.0"}
_STUDY_SYSTEM = "urn:dicom:uid"
_DEFAULT_COUNT, _MAX_COUNT = 10, 50
_PARAMETERS = {
    "_id": "the Study Instance UID",
    "identifier": f"{_STUDY_SYSTEM}|urn:oid:UID, or an accession number, with its issuer as urn:oid:OID",
    "patient:identifier": "the local patient id, with its issuer as urn:oid:OID",
    "started": "the day of the study, with eq, ge, gt, le or lt before it; it may come twice",
    "modality": "of one of its series",
    "_count": f"studies on a page, at most {_MAX_COUNT}; {_DEFAULT_COUNT} where it is not said",
    "_offset": "studies before the page",
    "_format": "json",
}
#: Those that FHIR has a name and a type for.
_SEARCHED = {
    "_id": ("_id", "token"),
    "identifier": ("identifier", "token"),
    "patient:identifier": ("patient", "reference"),
    "started": ("started", "date"),
    "modality": ("modality", "token"),
}
#: Makes the resource of a study of the headers of its instances, in a `release`.
Make = Callable[..., Json]


def routes(*, find: Find, search: Handler, make: Make) -> tuple[Route, ...]:
    """Below /fhir. `find` finds the instances of a study, `search` is QIDO-RS's handler of studies."""
    return (
        Route(form="/metadata", transaction="FHIR", get=_capabilities),
        Route(form="/ImagingStudy", transaction="FHIR", get=_searching(find, search, make)),
        Route(form="/ImagingStudy/{study}", transaction="FHIR", get=_reading(find, make)),
    )


def outcome(status: int, text: str) -> HttpReply:
    """A refusal as an OperationOutcome."""
    codes = {400: "invalid", 404: "not-found", 405: "not-supported", 406: "not-supported"}
    issue = {"severity": "error", "code": codes.get(status, "exception"), "diagnostics": text}
    content = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}, ensure_ascii=False)
    return reply(content.encode("utf-8", "replace"), FHIR, status=status)


def _reading(find: Find, make: Make) -> Handler:
    def read(request: Request) -> HttpReply:
        release = _release(request, "_format")
        return _reply(_resource(request.place["study"], find, make, release), release)

    return read


def _searching(find: Find, search: Handler, make: Make) -> Handler:
    def searched(request: Request) -> HttpReply:
        release = _release(request, *_PARAMETERS)
        wanted = _read(request)
        answer = search(Request(query=wanted.query, accept=JSON, base=request.base))
        found = json.loads(b"".join(answer.pieces) or b"[]")
        uids = [one["0020000D"]["Value"][0] for one in found[: wanted.count]]
        entries = [
            {"fullUrl": f"{request.base}/ImagingStudy/{one['id']}", "resource": one, "search": {"mode": "match"}}
            for one in _resources(uids, find, make, release)
            if wanted.fits(one)
        ]
        links = [{"relation": "self", "url": _url(request, wanted.offset)}]
        if len(found) > wanted.count:
            links.append({"relation": "next", "url": _url(request, wanted.offset + wanted.count)})
        bundle: Json = {"resourceType": "Bundle", "type": "searchset", "link": links}
        # FHIR has no empty arrays.
        return _reply({**bundle, "entry": entries} if entries else bundle, release)

    return searched


def _resources(uids: Sequence[str], find: Find, make: Make, release: Release) -> Iterator[Json]:
    for uid in uids:
        try:
            yield _resource(uid, find, make, release)
        except Refusal as refusal:
            # All of it is rejected.
            if refusal.status != 404:
                raise


def _resource(uid: str, find: Find, make: Make, release: Release) -> Json:
    stored = whole(find(Request(place={"study": uid})))
    try:
        headers = [one.header() for one in stored]
    except (InstanceError, OSError) as error:
        raise Refusal(500, f"study {uid} has an instance that can not be read: {type(error).__name__}") from None
    made = make(headers, release=release)
    # A UID has the form of an id.
    return {"resourceType": made["resourceType"], "id": uid, **made}


# --- what is asked for ------------------------------------------------------------------------------------------------


def _release(request: Request, *allowed: str) -> Release:
    """Refusal (406) for what is neither FHIR's JSON nor one of the releases, (400) for a parameter that there is not here."""
    for name, value in request.query:
        if name not in allowed and name != "patient.identifier":
            raise Refusal(400, f"there is no parameter {name[:64]!r} here; there are {', '.join(allowed)}")
        if name == "_format" and value not in ("json", FHIR, "application/json"):
            raise Refusal(406, f"_format is {value[:40]!r}; json is what there is")
    one_of(request, (FHIR, "application/json"))
    version = re.search(r'fhirVersion\s*=\s*"?([^",;\s]*)', request.accept)
    if version is None:
        return "R4"
    for release, number in _VERSIONS.items():
        if version[1].split(".")[0] == number.split(".")[0]:
            return release
    raise Refusal(406, f"fhirVersion is {version[1][:20]!r}; 4.0 and 5.0 are what there is")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A search: the query for QIDO-RS, one study more than the page has, and the tokens that a resource must have."""

    query: Sequence[tuple[str, str]]
    count: int
    offset: int
    identifier: tuple[str, str] | None
    patient: tuple[str, str] | None

    def fits(self, resource: Any) -> bool:
        patient = resource["subject"].get("identifier", {})
        return (self.identifier is None or any(map(_matcher(self.identifier), resource["identifier"]))) and (
            self.patient is None or _matcher(self.patient)(patient)
        )


def _read(request: Request) -> _Wanted:
    given: dict[str, str] = {}
    days: list[str] = []
    for name, value in request.query:
        name = "patient:identifier" if name == "patient.identifier" else name
        if name == "started":
            days.append(value)
        elif name in given:
            raise Refusal(400, f"the parameter {name} comes twice")
        else:
            given[name] = value
    count = max(1, min(_MAX_COUNT, _number("_count", given.get("_count", str(_DEFAULT_COUNT)))))
    offset = _number("_offset", given.get("_offset", "0"))
    identifier = _token(given["identifier"]) if "identifier" in given else None
    patient = _token(given["patient:identifier"]) if "patient:identifier" in given else None
    query = [("limit", str(count + 1)), ("offset", str(offset))]
    if "_id" in given:
        query.append(("StudyInstanceUID", _literal(given["_id"])))
    if identifier is not None and identifier[0] == _STUDY_SYSTEM:
        query.append(("StudyInstanceUID", _study_uid(identifier[1])))
    elif identifier is not None:
        query.append(("AccessionNumber", _literal(identifier[1])))
    if patient is not None:
        query.append(("PatientID", _literal(patient[1])))
    if "modality" in given:
        codes = [_token(one)[1] for one in given["modality"].split(",")]
        query.append(("ModalitiesInStudy", ",".join(map(_literal, codes))))
    if days:
        query.append(("StudyDate", _range(days)))
    return _Wanted(query=query, count=count, offset=offset, identifier=identifier, patient=patient)


def _token(text: str) -> tuple[str, str]:
    """System, which may be empty, and value (hl7.org/fhir/R4/search.html#token)."""
    system, _, value = text.rpartition("|")
    if not value:
        raise Refusal(400, f"{text[:80]!r} has no value: a token is system|value, or a value alone")
    return system, value


def _literal(value: str) -> str:
    """Refusal for what QIDO-RS would take for a pattern or a list."""
    if not value or re.search(r"[*?\\,]", value):
        raise Refusal(400, f"{value[:80]!r} is no value that can be searched for: it is empty, or has one of * ? \\ ,")
    return value


def _study_uid(value: str) -> str:
    uid = value.removeprefix("urn:oid:")
    if not is_oid(uid):
        raise Refusal(400, f"identifier: {value[:80]!r} is not urn:oid:UID")
    return uid


def _matcher(token: tuple[str, str]) -> Callable[[Any], bool]:
    """Whether an Identifier is the one of a token; one without a system may be of any."""
    system, value = token
    values = {value, value.removeprefix("urn:oid:")} if system == _STUDY_SYSTEM else {value}

    def matches(identifier: Any) -> bool:
        same = identifier.get("value", "").removeprefix("urn:oid:" if system == _STUDY_SYSTEM else "")
        return same in values and (not system or identifier.get("system", system) == system)

    return matches


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise Refusal(400, f"{name} is {text[:40]!r}; it must be a whole number")
    return int(text)


def _range(days: Sequence[str]) -> str:
    """A range of StudyDate that lies within all of these (hl7.org/fhir/R4/search.html#date)."""
    first, last = date.min, date.max
    for text in days:
        found = re.fullmatch(r"(eq|ge|gt|le|lt)?(\d{4})(?:-(\d\d))?(?:-(\d\d))?", text, re.ASCII)
        try:
            if found is None:
                raise ValueError
            prefix, *parts = found.groups()
            begin, end = _span(*(int(part) for part in parts if part))
            if prefix in (None, "eq", "ge", "gt"):
                first = max(first, end + timedelta(days=1) if prefix == "gt" else begin)
            if prefix in (None, "eq", "le", "lt"):
                last = min(last, begin - timedelta(days=1) if prefix == "lt" else end)
        except (ValueError, OverflowError):
            form = "a year, month or day, with eq, ge, gt, le or lt before it"
            raise Refusal(400, f"started is {text[:40]!r}; it must be {form}") from None
    return "-".join(one.isoformat().replace("-", "") for one in (first, last))


def _span(year: int, month: int = 0, day: int = 0) -> tuple[date, date]:
    """The first and the last day of a year, a month or a day. ValueError for none of the calendar."""
    if day:
        return date(year, month, day), date(year, month, day)
    begin = date(year, month or 1, 1)
    return begin, date(year, month or 12, monthrange(year, month or 12)[1])


# --- what is answered -------------------------------------------------------------------------------------------------


def _reply(resource: Json, release: Release) -> HttpReply:
    version = ".".join(_VERSIONS[release].split(".")[:2])
    content = json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return reply(content, f"{FHIR}; fhirVersion={version}")


def _url(request: Request, offset: int) -> str:
    kept = [(name, value) for name, value in request.query if name != "_offset"]
    return f"{request.base}/ImagingStudy?{urlencode([*kept, *([('_offset', str(offset))] if offset else [])])}"


def _capabilities(request: Request) -> HttpReply:
    release = _release(request, "_format")
    resource = {
        "type": "ImagingStudy",
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "searchParam": [
            {"name": name, "type": kind, "documentation": _PARAMETERS[key]} for key, (name, kind) in _SEARCHED.items()
        ],
    }
    statement: Json = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": datetime.now(UTC).date().isoformat(),
        "kind": "instance",
        "implementation": {"description": "xdsi, Imaging Document Source", "url": request.base},
        "fhirVersion": _VERSIONS[release],
        "format": ["json"],
        "rest": [{"mode": "server", "resource": [resource]}],
    }
    return _reply(statement, release)
