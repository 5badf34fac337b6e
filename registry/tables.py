"""The registry's tables. Every key begins with the patient, so that a large registry can be partitioned, or spread, by patient.

An object's row has what queries compare, the facts that may change, and `body`: the ebRIM text that never changes (schemas.rim.render),
compressed (registry/bodies.py). Times are padded to 14 digits with the first moment of the period that they name. Columns that hold
several values hold a JSON array. Texts that queries compare are in Unicode NFC. On PostgreSQL the tables of objects are partitioned by
the hash of the patient (registry/migrations).
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, SmallInteger, String, Table, Text

from schemas.attributes import Kind
from xds.vocabulary import Status

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# Without lengths: the rules say what is too long, and an administrator may decide otherwise.
_UUID = _VALUE = _CODE = String()


def _identity() -> list[Column[object]]:
    """What every object has. `status` is "Approved" or "Deprecated"; `latest` is 0 where a newer version replaced this one."""
    return [
        Column("patient_id", _VALUE, primary_key=True),
        Column("entry_uuid", _UUID, primary_key=True),
        Column("status", String(10), nullable=False),
        Column("logical_id", _UUID, nullable=False),
        Column("version", Integer, nullable=False),
        Column("latest", SmallInteger, nullable=False),
        Column("body", LargeBinary, nullable=False),
    ]


#: Every object, by its id: entryUUIDs are unique over all classes, and a Get query knows no patient.
registry_object = Table(
    "registry_object",
    metadata,
    Column("entry_uuid", _UUID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("patient_id", _VALUE, nullable=False),
    Column("unique_id", _VALUE),
    # Of versions after the first: the first has its own id for a logicalID.
    Column("logical_id", _UUID),
    Index("ix_registry_object_unique_id", "unique_id"),
    Index("ix_registry_object_logical_id", "logical_id"),
)

document_entry = Table(
    "document_entry",
    metadata,
    *_identity(),
    Column("object_type", _UUID, nullable=False),
    Column("unique_id", _VALUE, nullable=False),
    Column("hash", String()),
    Column("size", String()),
    Column("class_code", _CODE, nullable=False),
    Column("type_code", _CODE, nullable=False),
    Column("format_code", _CODE, nullable=False),
    Column("healthcare_facility_type_code", _CODE, nullable=False),
    Column("practice_setting_code", _CODE, nullable=False),
    Column("event_code_list", Text, nullable=False),
    Column("confidentiality_code", Text, nullable=False),
    Column("author_person", Text, nullable=False),
    Column("reference_id_list", Text, nullable=False),
    Column("creation_time", String()),
    Column("service_start_time", String()),
    Column("service_stop_time", String()),
    Column("source_patient_id", _VALUE),
    Column("document_availability", _VALUE),
)

submission_set = Table(
    "submission_set",
    metadata,
    *_identity(),
    Column("unique_id", _VALUE, nullable=False),
    Column("source_id", _VALUE, nullable=False),
    Column("submission_time", String(), nullable=False),
    Column("content_type_code", _CODE, nullable=False),
    Column("author_person", Text, nullable=False),
)

folder = Table(
    "folder",
    metadata,
    *_identity(),
    Column("unique_id", _VALUE, nullable=False),
    Column("last_update_time", String(), nullable=False),
    Column("code_list", Text, nullable=False),
)

association = Table(
    "association",
    metadata,
    *_identity(),
    Column("association_type", _VALUE, nullable=False),
    Column("source_object", _UUID, nullable=False),
    Column("target_object", _UUID, nullable=False),
    Index("ix_association_source_object", "source_object"),
    Index("ix_association_target_object", "target_object"),
)

#: Patients that the feed has told of. A merged one names the one that it was merged into, directly.
patient = Table(
    "patient",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("subsumed_by", _VALUE),
)

#: What the registry must remember about itself: the dictionary that bodies are compressed with.
setting = Table(
    "setting",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

#: The word in the column `status` for each availabilityStatus, and back.
SHORT_STATUS: Mapping[str, str] = {str(status): status.name.capitalize() for status in Status}
STATUS_URN: Mapping[str, str] = {short: urn for urn, short in SHORT_STATUS.items()}

BY_KIND: Mapping[Kind, Table] = {
    "DocumentEntry": document_entry,
    "SubmissionSet": submission_set,
    "Folder": folder,
    "Association": association,
}
