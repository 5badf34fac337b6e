"""The rules of an XDS-I.b manifest, numbered; each yields what breaks it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from pydicom.dataset import Dataset

from imaging.kos.mado import check_described
from imaging.kos.manifest import (
    IDENTITY,
    KEY_OBJECT_SELECTION,
    MANIFEST_TITLE,
    OFFSET,
    OWN_UIDS,
    Finding,
    Manifest,
    ManifestError,
    StudyReference,
    first_of,
    is_described,
    is_manifest,
    is_uid,
    items_of,
    listed_in,
    studies_of,
    title_of,
    value_of,
)
from imaging.kos.part10 import parse


def check(
    manifest: Dataset | bytes,
    *,
    locations: Container[str] | None = None,
    images: Sequence[Dataset] = (),
    strict: bool = False,
) -> list[Finding]:
    """Every rule of an XDS-I.b manifest that this one breaks.

    `locations` are the RetrieveLocationUIDs of the configured sources (rule 7), `images` headers of the listed instances
    (rule 12); either is not looked at if absent. `strict` makes an error of rule 10. Rule 14 is `check_document_entry`.
    """
    try:
        dataset = parse(manifest) if isinstance(manifest, bytes) else manifest
        return list(_findings(dataset, locations=locations, images=images, strict=strict))
    except ManifestError as error:
        return [_error(1, str(error))]
    except Exception as error:  # as in `read`
        return [_error(1, f"The manifest can not be parsed: {type(error).__name__}")]


def check_document_entry(
    manifest: Manifest,
    *,
    unique_id: str,
    mime_type: str,
    format_code: str,
    format_code_scheme: str,
    source_patient_id: str,
) -> Iterator[Finding]:
    """Rule 14: what the DocumentEntry says of the manifest (RAD TF-3 4.68.4.1.2).

    `source_patient_id` is a CX or its first component.
    """
    for attribute, value, expected in (
        ("uniqueId", unique_id, manifest.sop_instance_uid),
        ("mimeType", mime_type, "application/dicom"),
        ("formatCode", format_code, KEY_OBJECT_SELECTION),
        ("formatCode.codingScheme", format_code_scheme, "1.2.840.10008.2.6.1"),
        ("sourcePatientId", source_patient_id.partition("^")[0], manifest.patient.id),
    ):
        if value != expected:
            yield _error(14, f"DocumentEntry.{attribute} is {_shown(value)}, not {_shown(expected)}.")


def _error(rule: int, text: str) -> Finding:
    return Finding(rule=rule, level="error", text=text)


def _warning(rule: int, text: str) -> Finding:
    return Finding(rule=rule, level="warning", text=text)


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:80] + "...")


def _findings(
    dataset: Dataset, *, locations: Container[str] | None, images: Sequence[Dataset], strict: bool
) -> Iterator[Finding]:
    studies = studies_of(dataset)
    yield from check_class(dataset)
    yield from _check_title(dataset)
    yield from check_own_uids(dataset)
    yield from check_evidence(studies)
    yield from _check_locations(studies, locations)
    yield from _check_places(dataset, studies)
    yield from _check_tree(dataset, studies, strict=strict)
    yield from _check_patient(dataset, images)
    if is_described(dataset):
        yield from check_described(dataset, studies)
    if not (
        value_of(dataset, "AccessionNumber")
        or first_of(items_of(dataset, "ReferencedRequestSequence"), "AccessionNumber")
    ):
        yield _warning(13, "There is no accession number.")
    offset = OFFSET.fullmatch(value_of(dataset, "TimezoneOffsetFromUTC"))
    minutes = int(offset[1] + "1") * (int(offset[2]) * 60 + int(offset[3])) if offset else None
    if minutes is None or not -12 * 60 <= minutes <= 14 * 60:
        yield _warning(16, f"TimezoneOffsetFromUTC is {_shown(value_of(dataset, 'TimezoneOffsetFromUTC'))}.")


def check_class(dataset: Dataset) -> Iterator[Finding]:
    for keyword, expected in (("SOPClassUID", KEY_OBJECT_SELECTION), ("Modality", "KO")):
        if (value := value_of(dataset, keyword)) != expected:
            yield _error(2, f"{keyword} is {_shown(value)}, not {expected}: it is no Key Object Selection.")


def _check_title(dataset: Dataset) -> Iterator[Finding]:
    code, scheme = title_of(dataset)
    if is_manifest(dataset) and (code, scheme) != (MANIFEST_TITLE, "DCM"):
        yield _warning(4, f"The title is ({code}, {scheme}), not (113030, DCM, Manifest).")
    elif not is_manifest(dataset):
        yield _error(4, f"The title ({_shown(code)}, {_shown(scheme)}) is none of a manifest.")
    template = (items_of(dataset, "ContentTemplateSequence") or [Dataset()])[0]
    if (value_of(template, "MappingResource"), value_of(template, "TemplateIdentifier")) != ("DCMR", "2010"):
        yield _warning(11, "ContentTemplateSequence is not DCMR, 2010.")


def check_own_uids(dataset: Dataset) -> Iterator[Finding]:
    for keyword in OWN_UIDS:
        if not is_uid(value := value_of(dataset, keyword)):
            yield _error(5, f"{keyword} {_shown(value)} of the manifest is not a UID.")


def check_evidence(studies: Sequence[StudyReference]) -> Iterator[Finding]:
    """Rule 5: whatever is listed can be named when it is retrieved."""
    if not studies:
        yield _error(5, "CurrentRequestedProcedureEvidenceSequence lists no study.")
    for study in studies:
        if not is_uid(study.study_instance_uid):
            yield _error(5, f"StudyInstanceUID {_shown(study.study_instance_uid)} is not a UID.")
        if not study.series:
            yield _error(5, f"Study {_shown(study.study_instance_uid)} lists no series.")
        for series in study.series:
            if not is_uid(series.series_instance_uid):
                yield _error(5, f"SeriesInstanceUID {_shown(series.series_instance_uid)} is not a UID.")
            if not series.instances:
                yield _error(5, f"Series {_shown(series.series_instance_uid)} lists no instance.")
            for instance in series.instances:
                for value in (instance.sop_class_uid, instance.sop_instance_uid):
                    if not is_uid(value):
                        yield _error(5, f"Series {_shown(series.series_instance_uid)}: {_shown(value)} is not a UID.")


def _check_locations(studies: Sequence[StudyReference], locations: Container[str] | None) -> Iterator[Finding]:
    for series in (series for study in studies for series in study.series):
        where = f"Series {_shown(series.series_instance_uid)}"
        if not series.retrieve_ae_title:
            yield _error(6, f"{where} has no RetrieveAETitle.")
        if not series.retrieve_location_uid:
            yield _error(6, f"{where} has no RetrieveLocationUID.")
        elif locations is not None and series.retrieve_location_uid not in locations:
            yield _warning(
                7, f"{where}: RetrieveLocationUID {_shown(series.retrieve_location_uid)} is no known source."
            )


def _check_places(dataset: Dataset, studies: Sequence[StudyReference]) -> Iterator[Finding]:
    """Rules 3, 8 and 9: where the manifest itself stands among what it lists."""
    own, own_series, own_study = (value_of(dataset, keyword) for keyword in OWN_UIDS)
    if own in listed_in(studies):
        yield _error(3, f"The manifest {_shown(own)} lists itself as evidence.")
    if own_study not in {study.study_instance_uid for study in studies}:
        yield _error(8, f"StudyInstanceUID {_shown(own_study)} is no listed study.")
    shared = [s for study in studies for s in study.series if s.series_instance_uid == own_series]
    if any(i.sop_class_uid != KEY_OBJECT_SELECTION for series in shared for i in series.instances):
        yield _error(9, f"SeriesInstanceUID {_shown(own_series)} is a listed series.")


def _check_tree(dataset: Dataset, studies: Sequence[StudyReference], *, strict: bool) -> Iterator[Finding]:
    """Rules 10 and 15. Content items of other kinds, and nested ones, are of no interest."""
    referenced: set[str] = set()
    waiting = items_of(dataset, "ContentSequence")
    while waiting:
        item = waiting.pop()
        referenced.update(value_of(sop, "ReferencedSOPInstanceUID") for sop in items_of(item, "ReferencedSOPSequence"))
        waiting.extend(items_of(item, "ContentSequence"))
    if differing := referenced ^ listed_in(studies):
        text = f"{len(differing)} instances are in the content tree or in the evidence but not in both."
        yield Finding(rule=10, level="error" if strict else "warning", text=text)
    if value_of(dataset, "SOPInstanceUID") in referenced:
        yield _error(15, "The manifest refers to itself in its content tree.")


def _check_patient(dataset: Dataset, images: Sequence[Dataset]) -> Iterator[Finding]:
    for keyword in IDENTITY:
        own = value_of(dataset, keyword).rstrip("^= ")
        if differing := sum(value_of(image, keyword).rstrip("^= ") not in (own, "") for image in images):
            # An id may have been coerced where the images came to.
            report = _warning if keyword == "PatientID" else _error
            yield report(12, f"{keyword} differs from {differing} of {len(images)} images.")
