"""A PACS that is asked by DICOMweb (PS3.18 10.4, 10.6)."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import quote, urlencode

from pydicom.dataset import Dataset

from imaging import dicom_json
from imaging.archive import (
    LEVELS,
    UID_KEYWORDS,
    UID_TAGS,
    Archived,
    ArchiveError,
    Fetched,
    Matches,
    Search,
    taken,
    text,
)
from imaging.dicom_json import Json
from imaging.index import INSTANCE_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES
from imaging.instances import Instance, InstanceError, row_of
from soap.client import HttpResponse
from soap.multipart import Event, MultipartError, MultipartReader, PartBegin, PartData, PartEnd, parse_content_type
from soap.operations import Limits
from xds.values import is_oid

_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_JSON = "application/dicom+json"
_PLURALS = {"study": "studies", "series": "series", "instance": "instances"}
_ATTRIBUTES = {"study": STUDY_ATTRIBUTES, "series": SERIES_ATTRIBUTES, "instance": INSTANCE_ATTRIBUTES}

Get = Callable[[str, Mapping[str, str]], AbstractContextManager[HttpResponse]]
"""GETs (URL, headers). OSError where there is no answer."""


class DicomwebArchive:
    """An Archive over HTTP."""

    #: Each instance has a request of its own.
    batch = 1

    def __init__(
        self,
        url: str,
        get: Get,
        staging: Path,
        *,
        max_bytes: int = 8 * 1024**3,
        max_metadata_bytes: int = 256 * 1024**2,
        limits: Limits | None = None,
    ) -> None:
        """`url` is the base of its DICOMweb. An instance larger than `max_bytes` is not fetched."""
        self._url, self._get, self._staging = url.rstrip("/"), get, staging
        self._max_bytes, self._max_metadata_bytes, self._limits = max_bytes, max_metadata_bytes, limits or Limits()

    def fetch(self, study_uid: str, series_uid: str, uids: Sequence[str]) -> Mapping[str, Fetched | ArchiveError]:
        """As Archive has it. What one instance suffers is the answer for it alone."""
        outcomes: dict[str, Fetched | ArchiveError] = {}
        for uid in uids:
            try:
                found = self._instance(study_uid, series_uid, uid)
            except ArchiveError as error:
                outcomes[uid] = error
            else:
                if found is not None:
                    outcomes[uid] = found
        return outcomes

    def _instance(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> Fetched | None:
        if not all(map(is_oid, (study_uid, series_uid, sop_instance_uid))):
            return None
        url = f"{self._url}/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}"
        path = self._staging / f"{secrets.token_hex(16)}.archived"
        try:
            with self._get(url, {"Accept": _AS_STORED}) as response:
                if response.status in (404, 410):
                    return None
                _expect(response, url, "multipart/related")
                size, sha1 = self._first_part(response, path, url)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, MultipartError):
                raise ArchiveError(f"{url}: {error}") from error
            raise
        return taken(path, size=size, sha1=sha1, wanted=(study_uid, series_uid, sop_instance_uid), origin=self._url)

    def of_study(self, study_uid: str) -> list[Instance]:
        """As Archive has it."""
        if not is_oid(study_uid):
            return []
        url = f"{self._url}/studies/{study_uid}/metadata"
        try:
            found = [
                Archived(**row_of(one, size=0, sha1=""), path=Path(), described=one) for one in self._headers(url)[0]
            ]
        except InstanceError as error:
            raise ArchiveError(f"{url}: {error}") from error
        return sorted(found, key=lambda one: (one.series_number, one.series_instance_uid, one.instance_number))

    def search(self, search: Search) -> Matches:
        """As Archive has it: QIDO-RS, page by page."""
        path, parameters = _asked(search)
        found: dict[tuple[str, ...], Json] = {}
        literal = False
        while len(found) < search.most:
            asked = [*parameters, ("offset", len(found)), ("limit", search.most - len(found))]
            # Not every server decodes these, which need not be encoded (RFC 3986, 3.4).
            page = urlencode(asked, quote_via=quote, safe="*?,")
            url = f"{self._url}{path}?{page}"
            headers, warnings = self._headers(url)
            literal = literal or (search.fuzzy and "fuzzy" in warnings.lower())
            shown = {_key(one, search): one for one in _matches(headers, search, url)}
            new = {key: one for key, one in shown.items() if key not in found}
            if not new:
                # There are no more, or it does not know what an offset is.
                break
            found |= new
        return Matches(list(found.values())[: search.most], literal)

    def _headers(self, url: str) -> tuple[list[Dataset], str]:
        """The data sets of an answer in DICOM JSON, and its Warning; none where the archive has nothing."""
        with self._get(url, {"Accept": _JSON}) as response:
            if response.status in (204, 404):
                return [], response.headers.get("warning", "")
            _expect(response, url, _JSON, "application/json")
            content = bytearray()
            for chunk in response.chunks():
                content += chunk
                if len(content) > self._max_metadata_bytes:
                    raise ArchiveError(f"{url}: more than {self._max_metadata_bytes} bytes of metadata")
        try:
            # Large values stay where they are: neither a manifest nor a list is made of them.
            found = [Dataset.from_json(one, bulk_data_uri_handler=_left_there) for one in json.loads(content)]
        except Exception as error:
            # pydicom says what it can not read in many kinds of exceptions.
            raise ArchiveError(f"{url}: what came is no {_JSON}: {type(error).__name__}") from error
        return found, response.headers.get("warning", "")

    def _first_part(self, response: HttpResponse, path: Path, url: str) -> tuple[int, str]:
        """Size and SHA-1 of what the first part has, which is in the file then."""
        boundary = parse_content_type(response.headers.get("content-type", "")).parameters.get("boundary", "")
        reader = MultipartReader(boundary, self._limits)
        digest, size, parts = hashlib.sha1(usedforsecurity=False), 0, 0
        with path.open("xb") as file, closing(_events(response, reader)) as events:
            for event in events:
                if isinstance(event, PartBegin):
                    parts += 1
                elif isinstance(event, PartEnd):
                    return size, digest.hexdigest()
                elif isinstance(event, PartData):
                    size += len(event.data)
                    if size > self._max_bytes:
                        raise ArchiveError(f"{url}: more than {self._max_bytes} bytes")
                    digest.update(event.data)
                    file.write(event.data)
        raise ArchiveError(f"{url}: no instance in the answer")


def _asked(search: Search) -> tuple[str, list[tuple[str, str]]]:
    """The path of a search, with the UIDs that it is below, and the query."""
    keys, path = dict(search.keys), ""
    for level in LEVELS[: LEVELS.index(search.level)]:
        if not is_oid(keys.get(UID_KEYWORDS[level], "")):
            break
        path += f"/{_PLURALS[level]}/{quote(keys.pop(UID_KEYWORDS[level]))}"
    shown = [one for level in LEVELS[: LEVELS.index(search.level) + 1] for one in _ATTRIBUTES[level]]
    parameters = [*keys.items(), ("includefield", ",".join(dict.fromkeys(shown)))]
    if search.fuzzy:
        parameters.append(("fuzzymatching", "true"))
    return f"{path}/{_PLURALS[search.level]}", parameters


def _matches(headers: Sequence[Dataset], search: Search, url: str) -> Iterator[Json]:
    """What has the UIDs that it must have. ArchiveError for what has not."""
    given = {
        UID_KEYWORDS[level]: search.keys[UID_KEYWORDS[level]] for level in LEVELS if UID_KEYWORDS[level] in search.keys
    }
    for header in headers:
        match = dicom_json.encode(header)
        for level in LEVELS[: LEVELS.index(search.level) + 1]:
            keyword = UID_KEYWORDS[level]
            tag = UID_TAGS[level]
            if not text(match, tag) and is_oid(given.get(keyword, "")):
                match[tag] = dicom_json.texts("UI", [given[keyword]])
            if not is_oid(text(match, tag)):
                raise ArchiveError(f"{url}: a match has no {keyword}")
        yield match


def _key(match: Json, search: Search) -> tuple[str, ...]:
    return tuple(text(match, UID_TAGS[level]) for level in LEVELS[: LEVELS.index(search.level) + 1])


def _events(response: HttpResponse, reader: MultipartReader) -> Generator[Event, None, None]:
    for chunk in response.chunks():
        yield from reader.receive_data(chunk)
    reader.receive_eof()


def _expect(response: HttpResponse, url: str, *media_types: str) -> None:
    content_type = response.headers.get("content-type", "")
    if response.status != 200 or content_type.partition(";")[0].strip().lower() not in media_types:
        raise ArchiveError(f"{url}: HTTP {response.status}, Content-Type {content_type[:80]!r}")


def _left_there(*_: object) -> bytes:
    return b""
