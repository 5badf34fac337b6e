"""The ebRIM text of an object as it is stored: compressed with a dictionary that the database keeps.

An object's text is some seven kilobytes, nearly all of it the same in every object. The dictionary is made of typical objects when the
database is, and never changes afterwards: without it nothing can be read.
"""

from __future__ import annotations

import threading
from typing import Final

import zstandard

from schemas import rim
from xds.metadata import Association, Author, DocumentEntry, Folder, SubmissionSet, has_member
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    Organization,
    Person,
    PidField,
    ReferenceId,
    Sha1,
    Size,
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_STUDY_INSTANCE_UID, AssociationType

#: An object's text is at most as long as the message that brought it.
MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class Bodies:
    """Texts to bytes and back."""

    def __init__(self, dictionary: bytes) -> None:
        self.dictionary = dictionary
        self._dictionary = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        # Neither direction may be used by two threads at once.
        self._local = threading.local()

    def blob(self, text: str) -> bytes:
        """What is stored for a text."""
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=3, dict_data=self._dictionary, write_checksum=False)
            self._local.compressor = compressor
        return bytes(compressor.compress(text.encode()))

    def text(self, blob: bytes) -> str:
        """The text that was stored."""
        decompressor = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor(dict_data=self._dictionary)
        return str(decompressor.decompress(blob, max_output_size=MAX_BODY_BYTES), "utf-8")


def new_dictionary() -> bytes:
    """The text of typical objects, the most frequent class last, where the compressor finds it cheapest."""
    return "".join(rim.render(one) for one in _typical()).encode()


def _typical() -> tuple[Association | Folder | SubmissionSet | DocumentEntry, ...]:
    uuid = "urn:uuid:00000000-0000-4000-8000-000000000000"
    loinc, snomed = "2.16.840.1.113883.6.1", "2.16.840.1.113883.6.96"
    author = Author(
        author_person=Person("^Muster^Ann^^^Dr^^^&1.2.3.4&ISO"),
        author_institution=(Organization("General Hospital^^^^^^^^^1.2.3.4"),),
        author_role=("Attending",),
        author_specialty=("Radiology",),
    )
    entry = DocumentEntry(
        entry_uuid=uuid,
        logical_id=uuid,
        version="1",
        author=(author,),
        class_code=Code.of("REPORTS", "1.3.6.1.4.1.19376.1.2.6.1", "Reports"),
        comments=Text.of("Comment"),
        confidentiality_code=(Code.of("N", "2.16.840.1.113883.5.25", "Normal"),),
        creation_time=Timestamp("20240102030405"),
        event_code_list=(Code.of("CT", "1.2.840.10008.2.16.4", "Computed Tomography"),),
        format_code=Code.of(
            "urn:ihe:iti:xds:2017:mimeTypeSufficient", "1.3.6.1.4.1.19376.1.2.3", "mimeType Sufficient"
        ),
        hash=Sha1("da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        healthcare_facility_type_code=Code.of("22232009", snomed, "Hospital"),
        language_code=LanguageCode("en-US"),
        legal_authenticator=Person("^Muster^Ann^^^Dr^^^&1.2.3.4&ISO"),
        mime_type=MimeType("application/pdf"),
        practice_setting_code=Code.of("394802001", snomed, "General medicine"),
        reference_id_list=(
            ReferenceId.of("1", REFERENCE_ACCESSION, "1.2.3.4"),
            ReferenceId.of("1.2.840", REFERENCE_STUDY_INSTANCE_UID),
        ),
        repository_unique_id=Oid("1.2.3.4"),
        service_start_time=Timestamp("20240102030405"),
        service_stop_time=Timestamp("20240102030405"),
        size=Size("10000"),
        source_patient_id=Identifier("1^^^&1.2.3.4&ISO"),
        source_patient_info=(
            PidField("PID-3|1^^^&1.2.3.4&ISO"),
            PidField("PID-5|Muster^Ann"),
            PidField("PID-7|19700101"),
            PidField("PID-8|F"),
        ),
        title=Text.of("Discharge letter", "en-US"),
        type_code=Code.of("11488-4", loinc, "Consultation note"),
        unique_id=UniqueId("2.25.1"),
    )
    folder = Folder(
        entry_uuid=uuid,
        logical_id=uuid,
        version="1",
        code_list=(Code.of("EP", loinc, "Episode"),),
        title=Text.of("Episode"),
        unique_id=UniqueId("2.25.1"),
    )
    submission_set = SubmissionSet(
        entry_uuid=uuid,
        logical_id=uuid,
        version="1",
        author=(author,),
        content_type_code=Code.of("11488-4", loinc, "Consultation note"),
        source_id=Oid("1.2.3.4"),
        submission_time=Timestamp("20240102030405"),
        title=Text.of("Submission"),
        unique_id=Oid("2.25.1"),
    )
    relation = Association(
        entry_uuid=uuid,
        logical_id=uuid,
        version="1",
        association_type=AssociationType.RPLC,
        source_object=uuid,
        target_object=uuid,
    )
    member = has_member(uuid, uuid, entry_uuid=uuid, submission_set_status="Original")
    return relation, folder, submission_set, member, entry
