"""Which documents a study has: a function of its listed instances and the configuration."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from pydicom.dataset import Dataset

from imaging import kos
from imaging.instances import Instance
from imaging.kos.mado import TEMPORARY_TITLE
from imaging.kos.manifest import Coded
from imaging.publication import mado, mado_fhir
from imaging.publication.code_map import CodeMap
from imaging.publication.mapping import ImagingDefaults, readable
from imaging.publication.publication_rows import Published
from imaging.publication.rad68_provide import document_entry, new_uid
from imaging.publication.rejections import key_object
from xds.metadata import DocumentEntry
from xds.values import Code, Identifier, LanguageCode, MimeType, Text, Timestamp, UniqueId

_log = logging.getLogger("xdsi.imaging")
MANIFEST, MADO_KOS, MADO_FHIR, KEY_IMAGES = "manifest", "mado-kos", "mado-fhir", "key-images"
#: Those that list the whole study, the one that most can read first.
WHOLE = (MANIFEST, MADO_KOS, MADO_FHIR)
#: The forms of a study's manifest that can be configured, and the document's key.
FORMS = {"xds-i": MANIFEST, "mado-kos": MADO_KOS, "mado-fhir": MADO_FHIR}
FHIR_JSON = "application/fhir+json"
_MADO_FHIR_FORMAT = Code.of("urn:ihe:rad:MADO:fhir-manifest:2026", "1.3.6.1.4.1.19376.1.2.7.1", "MADO FHIR manifest")

#: ebRIM's FreeFormText has 1,024.
_MAX_COMMENTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the source says of itself in manifests and their metadata."""

    source_id: str
    retrieve_ae_title: str
    retrieve_location_uid: str
    retrieve_url: str | None = None
    defaults: ImagingDefaults
    codes: CodeMap
    #: Of FORMS.
    forms: Sequence[str] = ("xds-i",)
    mado_title: Coded = TEMPORARY_TITLE
    #: Whether the codes that are proposed for DICOM are written in manifests of MADO, and not the temporary ones.
    mado_final: bool = False
    #: Whether what a key image note selects is published as a manifest of its own.
    key_images: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the documents of one publication are made of: the listed instances, their headers by SOP Instance UID, and whose they are."""

    listed: Sequence[Instance]
    headers: Mapping[str, Dataset]
    patient_id: Identifier
    local_id: Identifier
    now: datetime
    source: Source
    #: The uniqueIds of the study's documents by their keys: of those that are published, and those that are made already.
    unique_ids: dict[str, str]

    def one_per_series(self, listed: Sequence[Instance]) -> list[Dataset]:
        """The metadata are made of attributes that a series has in common."""
        series: dict[str, Dataset] = {}
        for one in listed:
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
    #: The key of the document that it is another form of.
    transforms: str = ""


def in_order(published: Iterable[Published]) -> list[Published]:
    """As people look for them: what lists the study first."""
    return sorted(published, key=lambda one: (WHOLE.index(one.key) if one.key in WHOLE else len(WHOLE), one.key))


def manifest_of(published: Iterable[Published]) -> str:
    """The uniqueId of the one that lists the study, of several forms the first; "" where there is none."""
    return next((one.document_unique_id for one in in_order(published) if one.key in WHOLE), "")


def documents_of(listed: Sequence[Instance], source: Source) -> list[Wanted]:
    """The documents of a study of which these instances are to be listed; none where there is none."""
    if not listed:
        return []
    keys = [key for form, key in FORMS.items() if form in source.forms]
    described = MADO_KOS if MADO_KOS in keys else ""
    whole: dict[str, Callable[[Material], Made]] = {
        MANIFEST: _manifest,
        MADO_KOS: _mado_kos,
        MADO_FHIR: partial(_mado_fhir, described=described),
    }
    wanted = [
        Wanted(
            key=key,
            listed=_digest(listed),
            instances=len(listed),
            make=whole[key],
            transforms=described if key == MADO_FHIR else "",
        )
        for key in keys
    ]
    if source.key_images:
        wanted += _of_notes(listed)
    return wanted


def _of_notes(listed: Sequence[Instance]) -> Iterator[Wanted]:
    """One for each key image note that selects something that is listed; of a note over several studies the part of this one."""
    stored = {one.sop_instance_uid: one for one in listed}
    for one in listed:
        note = _note(one)
        selected = [stored[uid] for uid in note.listed(stored)] if note is not None else []
        if note is not None and selected:
            yield Wanted(
                key=f"{KEY_IMAGES}:{one.sop_instance_uid}",
                listed=_digest(selected),
                instances=len(selected),
                make=partial(_key_images, note=note, selected=selected),
            )


def _note(one: Instance) -> kos.KeyImages | None:
    header = key_object(one)
    try:
        return None if header is None else kos.read_key_images(header)
    except Exception as error:  # pydicom parses sequences when they are asked for
        _log.warning("key image note %s can not be parsed: %s", one.sop_instance_uid, type(error).__name__)
        return None


def _manifest(material: Material) -> Made:
    content = _built(material, material.listed, kos.Content())
    return Made(content=content, entry=_entry(material, content, material.listed))


def _mado_kos(material: Material) -> Made:
    source = material.source
    described = kos.Described(
        title=source.mado_title,
        final=source.mado_final,
        modality=mado.modality,
        regions=mado.regions,
        other_patient_ids=[(material.patient_id.identifier, material.patient_id.authority)],
        generated_issuer=source.source_id,
    )
    content = _built(material, material.listed, described.content())
    entry = _entry(material, content, material.listed)
    return Made(content=content, entry=mado.described_entry(entry, material.one_per_series(material.listed)))


def _mado_fhir(material: Material, *, described: str) -> Made:
    """Its entry has a uniqueId of its own: the Bundle's identifier is that of the Key Object Selection `described`, if there is one."""
    source, defaults = material.source, material.source.defaults
    unique_id, entry = new_uid(), _mado_kos(material).entry
    about = mado_fhir.About(
        identifier=material.unique_ids[described] if described else unique_id,
        patient_id=material.patient_id,
        local_id=material.local_id,
        retrieve_url=source.retrieve_url or "",
        retrieve_location_uid=source.retrieve_location_uid,
        institution=defaults.institution,
        confidentiality=defaults.confidentiality_code.code,
        language=defaults.language_code,
        time_zone=defaults.time_zone,
        accession_issuer=defaults.accession_issuer,
        now=material.now,
    )
    bundle = mado_fhir.document([material.headers[one.sop_instance_uid] for one in material.listed], about)
    return Made(
        content=json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode(),
        entry=replace(
            entry,
            unique_id=UniqueId(unique_id),
            mime_type=MimeType(FHIR_JSON),
            format_code=_MADO_FHIR_FORMAT,
            creation_time=Timestamp.at(material.now),
        ),
    )


def _key_images(material: Material, *, note: kos.KeyImages, selected: Sequence[Instance]) -> Made:
    content = _built(material, selected, kos.key_images_content(note, {one.sop_instance_uid for one in selected}))
    entry = _entry(material, content, selected)
    language, comments = LanguageCode(note.language), readable(note.description, _MAX_COMMENTS)
    return Made(
        content=content,
        entry=replace(
            entry,
            title=Text.of(readable(note.title.meaning, 128) or note.title.value),
            comments=Text.of(comments) if comments else Text(),
            language_code=language if language and language.fault is None else entry.language_code,
            reference_id_list=_entry(material, content, material.listed).reference_id_list,
        ),
    )


def _built(material: Material, listed: Sequence[Instance], content: kos.Content) -> bytes:
    source, defaults = material.source, material.source.defaults
    return kos.build(
        [material.headers[one.sop_instance_uid] for one in listed],
        retrieve_ae_title=source.retrieve_ae_title,
        retrieve_location_uid=source.retrieve_location_uid,
        retrieve_url=source.retrieve_url,
        now=material.now,
        new_uid=new_uid,
        institution=defaults.institution or None,
        accession_issuer=defaults.accession_issuer or None,
        patient_id_issuer=defaults.source_patient_issuer or None,
        content=content,
    )


def _entry(material: Material, content: bytes, listed: Sequence[Instance]) -> DocumentEntry:
    return document_entry(
        content,
        material.one_per_series(listed),
        patient_id=material.patient_id,
        defaults=material.source.defaults,
        source_patient_id=material.local_id,
        codes=material.source.codes,
    )


def _digest(listed: Sequence[Instance]) -> str:
    lines = sorted(f"{one.series_instance_uid} {one.sop_instance_uid}\n" for one in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
