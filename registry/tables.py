"""The registry's tables. Every key begins with the patient, so that a large registry can be partitioned by patient.

An object's row has what queries compare, the facts that may change, and `body`: the ebRIM text that never changes (schemas.rim.render).
Times are padded to 14 digits with the first moment of the period that they name.
"""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

_UUID = String(45)
_VALUE = String(256)

#: Every object, by its id: entryUUIDs are unique over all classes, and a Get query knows no patient.
registry_object = Table(
    "registry_object",
    metadata,
    Column("entry_uuid", _UUID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("patient_id", _VALUE, nullable=False),
    Column("unique_id", _VALUE),
    Index("ix_registry_object_unique_id", "unique_id"),
)

document_entry = Table(
    "document_entry",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("entry_uuid", _UUID, primary_key=True),
    Column("status", String(64), nullable=False),
    Column("object_type", _UUID, nullable=False),
    Column("unique_id", _VALUE, nullable=False),
    Column("hash", String(40)),
    Column("size", String(20)),
    Column("class_code", String(520), nullable=False),
    Column("type_code", String(520), nullable=False),
    Column("format_code", String(520), nullable=False),
    Column("healthcare_facility_type_code", String(520), nullable=False),
    Column("practice_setting_code", String(520), nullable=False),
    Column("creation_time", String(14)),
    Column("service_start_time", String(14)),
    Column("service_stop_time", String(14)),
    Column("body", Text, nullable=False),
)

submission_set = Table(
    "submission_set",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("entry_uuid", _UUID, primary_key=True),
    Column("status", String(64), nullable=False),
    Column("unique_id", _VALUE, nullable=False),
    Column("source_id", _VALUE, nullable=False),
    Column("submission_time", String(14), nullable=False),
    Column("content_type", String(520), nullable=False),
    Column("body", Text, nullable=False),
)

folder = Table(
    "folder",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("entry_uuid", _UUID, primary_key=True),
    Column("status", String(64), nullable=False),
    Column("unique_id", _VALUE, nullable=False),
    Column("last_update_time", String(14), nullable=False),
    Column("body", Text, nullable=False),
)

association = Table(
    "association",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("entry_uuid", _UUID, primary_key=True),
    Column("status", String(64), nullable=False),
    Column("association_type", _VALUE, nullable=False),
    Column("source_object", _UUID, nullable=False),
    Column("target_object", _UUID, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_association_source_object", "source_object"),
    Index("ix_association_target_object", "target_object"),
)

#: The values of attributes of which an object may have several, as queries compare them.
object_value = Table(
    "object_value",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("entry_uuid", _UUID, primary_key=True),
    Column("attribute", String(32), primary_key=True),
    Column("value", String(520), primary_key=True),
)

#: Patients that the feed has told of. A merged one names the one that it was merged into.
patient = Table(
    "patient",
    metadata,
    Column("patient_id", _VALUE, primary_key=True),
    Column("subsumed_by", _VALUE, ForeignKey("patient.patient_id")),
)

BY_KIND = {
    "DocumentEntry": document_entry,
    "SubmissionSet": submission_set,
    "Folder": folder,
    "Association": association,
}
