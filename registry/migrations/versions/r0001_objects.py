"""Objects, what queries compare of them, the known patients, and the registry's own settings.

On PostgreSQL the tables of objects are partitioned by the hash of the patient, so that they can be spread over disks or servers.
"""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None

PARTITIONS = 8
UUID = VALUE = CODE = sa.String()


def upgrade() -> None:
    op.create_table(
        "registry_object",
        sa.Column("entry_uuid", UUID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("patient_id", VALUE, nullable=False),
        sa.Column("unique_id", VALUE),
        sa.Column("logical_id", UUID),
        sa.PrimaryKeyConstraint("entry_uuid", name="pk_registry_object"),
    )
    op.create_index("ix_registry_object_unique_id", "registry_object", ["unique_id"])
    op.create_index("ix_registry_object_logical_id", "registry_object", ["logical_id"])
    _create(
        "document_entry",
        sa.Column("object_type", UUID, nullable=False),
        sa.Column("unique_id", VALUE, nullable=False),
        sa.Column("hash", sa.String()),
        sa.Column("size", sa.String()),
        sa.Column("class_code", CODE, nullable=False),
        sa.Column("type_code", CODE, nullable=False),
        sa.Column("format_code", CODE, nullable=False),
        sa.Column("healthcare_facility_type_code", CODE, nullable=False),
        sa.Column("practice_setting_code", CODE, nullable=False),
        sa.Column("event_code_list", sa.Text(), nullable=False),
        sa.Column("confidentiality_code", sa.Text(), nullable=False),
        sa.Column("author_person", sa.Text(), nullable=False),
        sa.Column("reference_id_list", sa.Text(), nullable=False),
        sa.Column("creation_time", sa.String()),
        sa.Column("service_start_time", sa.String()),
        sa.Column("service_stop_time", sa.String()),
        sa.Column("source_patient_id", VALUE),
        sa.Column("document_availability", VALUE),
    )
    _create(
        "submission_set",
        sa.Column("unique_id", VALUE, nullable=False),
        sa.Column("source_id", VALUE, nullable=False),
        sa.Column("submission_time", sa.String(), nullable=False),
        sa.Column("content_type_code", CODE, nullable=False),
        sa.Column("author_person", sa.Text(), nullable=False),
    )
    _create(
        "folder",
        sa.Column("unique_id", VALUE, nullable=False),
        sa.Column("last_update_time", sa.String(), nullable=False),
        sa.Column("code_list", sa.Text(), nullable=False),
    )
    _create(
        "association",
        sa.Column("association_type", VALUE, nullable=False),
        sa.Column("source_object", UUID, nullable=False),
        sa.Column("target_object", UUID, nullable=False),
    )
    op.create_index("ix_association_source_object", "association", ["source_object"])
    op.create_index("ix_association_target_object", "association", ["target_object"])
    op.create_table(
        "patient",
        sa.Column("patient_id", VALUE, nullable=False),
        sa.Column("subsumed_by", VALUE),
        sa.PrimaryKeyConstraint("patient_id", name="pk_patient"),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_setting"),
    )


def _create(name: str, *columns: sa.Column[object]) -> None:
    """A table of objects, with what every object has."""
    op.create_table(
        name,
        sa.Column("patient_id", VALUE, nullable=False),
        sa.Column("entry_uuid", UUID, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("logical_id", UUID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("latest", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("patient_id", "entry_uuid", name=f"pk_{name}"),
        postgresql_partition_by="HASH (patient_id)",
    )
    if op.get_context().dialect.name == "postgresql":
        for number in range(PARTITIONS):
            op.execute(
                f"CREATE TABLE {name}_{number} PARTITION OF {name}"
                f" FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number})"
            )
