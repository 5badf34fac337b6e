"""What a manifest says, for those who retrieve by it."""

from __future__ import annotations

from itertools import chain
from typing import BinaryIO

from pydicom.dataset import Dataset

from imaging.kos.checking import check_class, check_evidence, check_own_uids
from imaging.kos.manifest import Manifest, ManifestError, Patient, first_of, items_of, studies_of, title_of, value_of
from imaging.kos.part10 import MAX_BYTES, parse


def read(content: bytes | BinaryIO, *, max_bytes: int = MAX_BYTES) -> Manifest:
    """What a manifest says. It may be of several studies, several locations for a series, and any title.

    `max_bytes` bounds the file and what it inflates to. Raises ManifestError if a rule is broken without which nothing
    could be retrieved (1, 2 and 5 of `check`): the rest is for `check` to say.
    """
    dataset = parse(content, max_bytes=max_bytes)
    try:
        broken = chain(check_class(dataset), check_own_uids(dataset), check_evidence(studies_of(dataset)))
        for finding in broken:
            raise ManifestError(f"{finding.text} (rule {finding.rule})")
        return _manifest(dataset)
    except ManifestError:
        raise
    except Exception as error:  # sequences are parsed when they are asked for, and whatever is wrong in them shows here
        raise ManifestError(f"The manifest can not be parsed: {type(error).__name__} (rule 1)") from error


def _manifest(dataset: Dataset) -> Manifest:
    qualifiers = [
        q
        for q in items_of(dataset, "IssuerOfPatientIDQualifiersSequence")
        if value_of(q, "UniversalEntityIDType") == "ISO"
    ]
    offset = value_of(dataset, "TimezoneOffsetFromUTC")
    created = value_of(dataset, "InstanceCreationDate") + value_of(dataset, "InstanceCreationTime")
    return Manifest(
        sop_instance_uid=value_of(dataset, "SOPInstanceUID"),
        series_instance_uid=value_of(dataset, "SeriesInstanceUID"),
        study_instance_uid=value_of(dataset, "StudyInstanceUID"),
        title=title_of(dataset)[0],
        patient=Patient(
            id=value_of(dataset, "PatientID"),
            issuer=first_of(qualifiers, "UniversalEntityID") or value_of(dataset, "IssuerOfPatientID"),
            name=value_of(dataset, "PatientName"),
            birth_date=value_of(dataset, "PatientBirthDate"),
            sex=value_of(dataset, "PatientSex"),
        ),
        accession_number=value_of(dataset, "AccessionNumber"),
        created=(created or value_of(dataset, "ContentDate") + value_of(dataset, "ContentTime")) + offset,
        timezone_offset=offset,
        study_date=value_of(dataset, "StudyDate"),
        study_time=value_of(dataset, "StudyTime"),
        study_description=value_of(dataset, "StudyDescription"),
        institution_name=value_of(dataset, "InstitutionName"),
        studies=studies_of(dataset),
    )
