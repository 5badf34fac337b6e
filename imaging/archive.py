"""A PACS behind this source: what RAD-69 and manifests need of its studies, by DICOMweb (PS3.18 10.4). Nothing of it is stored here.

An instance is fetched into a file, which goes when it has been given. What the archive answers is as hostile as any message.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydicom.dataset import Dataset

from imaging.instances import Instance, InstanceError, read_header, row_of
from soap.client import HttpResponse
from soap.multipart import Event, MultipartError, MultipartReader, PartBegin, PartData, PartEnd, parse_content_type
from soap.operations import Limits
from xds.values import is_oid

_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_JSON = "application/dicom+json"

Get = Callable[[str, Mapping[str, str]], AbstractContextManager[HttpResponse]]
"""GETs (URL, headers). OSError where there is no answer."""


Fetch = Callable[[str, str, str], Callable[[], Instance | None]]
"""Begins to fetch the instance of a study, series and SOP Instance UID: what waits for it, as `Archive.instance`."""


class ArchiveError(OSError):
    """The archive did not answer, or not with what it should have; the text is for the log and names the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived(Instance):
    """An instance of which the header alone has been asked for."""

    described: Dataset

    def header(self) -> Dataset:
        """As the archive told it."""
        return self.described


class Archive:
    """The studies of a PACS. Every method may be called from several threads at once."""

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

    def instance(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> Instance | None:
        """An instance as the archive has it, whose file is the caller's to remove. None where the archive has none of these UIDs.

        ArchiveError.
        """
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
            found = Instance(**row_of(read_header(path), size=size, sha1=sha1), path=path)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, InstanceError | MultipartError):
                raise ArchiveError(f"{url}: {error}") from error
            raise
        # What an archive has under these UIDs need not be what it sends.
        if (found.study_instance_uid, found.series_instance_uid, found.sop_instance_uid) != (
            study_uid,
            series_uid,
            sop_instance_uid,
        ):
            path.unlink()
            raise ArchiveError(f"{url}: another instance came, {found.sop_instance_uid}")
        return found

    def of_study(self, study_uid: str) -> list[Instance]:
        """The instances of a study, each with its header and without a file; none where the archive has no such study. ArchiveError."""
        try:
            found = [
                Archived(**row_of(one, size=0, sha1=""), path=Path(), described=one) for one in self._headers(study_uid)
            ]
        except InstanceError as error:
            raise ArchiveError(f"study {study_uid} of {self._url}: {error}") from error
        return sorted(found, key=lambda one: (one.series_number, one.series_instance_uid, one.instance_number))

    def _headers(self, study_uid: str) -> list[Dataset]:
        if not is_oid(study_uid):
            return []
        url = f"{self._url}/studies/{quote(study_uid)}/metadata"
        with self._get(url, {"Accept": _JSON}) as response:
            if response.status in (204, 404):
                return []
            _expect(response, url, _JSON, "application/json")
            content = bytearray()
            for chunk in response.chunks():
                content += chunk
                if len(content) > self._max_metadata_bytes:
                    raise ArchiveError(f"{url}: more than {self._max_metadata_bytes} bytes of metadata")
        try:
            # Large values stay where they are: they are not what a manifest is made of.
            return [Dataset.from_json(one, bulk_data_uri_handler=_left_there) for one in json.loads(content)]
        except Exception as error:
            # pydicom says what it can not read in many kinds of exceptions.
            raise ArchiveError(f"{url}: what came is no {_JSON}: {type(error).__name__}") from error

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
