"""Which documents a study has: a function of its listed instances and the configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from imaging import kos
from imaging.instances import Instance
from imaging.publication.code_map import CodeMap
from imaging.publication.mapping import ImagingDefaults
from imaging.publication.publication_rows import Published
from imaging.publication.rad68_provide import document_entry, new_uid
from xds.metadata import DocumentEntry
from xds.values import Identifier

MANIFEST = "manifest"
#: Those that list the whole study, the one that most can read first.
WHOLE = (MANIFEST,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the source says of itself in manifests and their metadata."""

    source_id: str
    retrieve_ae_title: str
    retrieve_location_uid: str
    retrieve_url: str | None = None
    defaults: ImagingDefaults
    codes: CodeMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the documents of one publication are made of: the listed instances, their headers by SOP Instance UID, and whose they are."""

    listed: Sequence[Instance]
    headers: Mapping[str, Dataset]
    patient_id: Identifier
    local_id: Identifier
    now: datetime
    source: Source

    @property
    def one_per_series(self) -> list[Dataset]:
        """The metadata are made of attributes that a series has in common."""
        series: dict[str, Dataset] = {}
        for one in self.listed:
            series.setdefault(one.series_instance_uid, self.headers[one.sop_instance_uid])
        return list(series.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A document and what is said of it."""

    content: bytes
    entry: DocumentEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A document that a study is to have.

    `key` says which one it is, in each of its publications the same. `listed` is a digest of what it says: one that is published with the
    same need not be made.
    """

    key: str
    listed: str
    instances: int
    make: Callable[[Material], Made]


def manifest_of(published: Iterable[Published]) -> str:
    """The uniqueId of the one that lists the study, of several forms the first; "" where there is none."""
    by_key = {one.key: one.document_unique_id for one in published}
    return next((by_key[key] for key in WHOLE if key in by_key), "")


def documents_of(listed: Sequence[Instance]) -> list[Wanted]:
    """The documents of a study of which these instances are to be listed; none where there is none."""
    if not listed:
        return []
    return [Wanted(key=MANIFEST, listed=_digest(listed), instances=len(listed), make=_manifest)]


def _manifest(material: Material) -> Made:
    source, defaults = material.source, material.source.defaults
    content = kos.build(
        list(material.headers.values()),
        retrieve_ae_title=source.retrieve_ae_title,
        retrieve_location_uid=source.retrieve_location_uid,
        retrieve_url=source.retrieve_url,
        now=material.now,
        new_uid=new_uid,
        institution=defaults.institution or None,
        accession_issuer=defaults.accession_issuer or None,
        patient_id_issuer=defaults.source_patient_issuer or None,
    )
    entry = document_entry(
        content,
        material.one_per_series,
        patient_id=material.patient_id,
        defaults=defaults,
        source_patient_id=material.local_id,
        codes=source.codes,
    )
    return Made(content=content, entry=entry)


def _digest(listed: Sequence[Instance]) -> str:
    lines = sorted(f"{one.series_instance_uid} {one.sop_instance_uid}\n" for one in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
