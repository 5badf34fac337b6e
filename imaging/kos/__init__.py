"""Manifests, i.e. Key Object Selection documents that list the instances of a study: built, read and checked.

Clauses: IHE RAD TF-3 4.68 (what XDS-I.b demands), DICOM PS3.3 A.35.4 (the object), PS3.16 TID 2010 (its content).
"""

from imaging.kos.building import Content, build
from imaging.kos.checking import check, check_document_entry
from imaging.kos.key_images import KeyImages, key_images_content, read_key_images
from imaging.kos.mado import Described
from imaging.kos.manifest import (
    KEY_OBJECT_SELECTION,
    MANIFEST_TITLE,
    Finding,
    InstanceReference,
    Manifest,
    ManifestError,
    Patient,
    SeriesReference,
    StudyReference,
)
from imaging.kos.part10 import read_part10
from imaging.kos.reading import read

__all__ = [
    "KEY_OBJECT_SELECTION",
    "MANIFEST_TITLE",
    "Content",
    "Described",
    "Finding",
    "InstanceReference",
    "KeyImages",
    "Manifest",
    "ManifestError",
    "Patient",
    "SeriesReference",
    "StudyReference",
    "build",
    "check",
    "check_document_entry",
    "key_images_content",
    "read",
    "read_key_images",
    "read_part10",
]
