"""Objects, what queries compare of them, and the known patients."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "association",
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("entry_uuid", sa.String(length=45), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("association_type", sa.String(length=256), nullable=False),
        sa.Column("source_object", sa.String(length=45), nullable=False),
        sa.Column("target_object", sa.String(length=45), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "entry_uuid", name=op.f("pk_association")),
    )
    op.create_index("ix_association_source_object", "association", ["source_object"], unique=False)
    op.create_index("ix_association_target_object", "association", ["target_object"], unique=False)
    op.create_table(
        "document_entry",
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("entry_uuid", sa.String(length=45), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("object_type", sa.String(length=45), nullable=False),
        sa.Column("unique_id", sa.String(length=256), nullable=False),
        sa.Column("hash", sa.String(length=40), nullable=True),
        sa.Column("size", sa.String(length=20), nullable=True),
        sa.Column("class_code", sa.String(length=520), nullable=False),
        sa.Column("type_code", sa.String(length=520), nullable=False),
        sa.Column("format_code", sa.String(length=520), nullable=False),
        sa.Column("healthcare_facility_type_code", sa.String(length=520), nullable=False),
        sa.Column("practice_setting_code", sa.String(length=520), nullable=False),
        sa.Column("creation_time", sa.String(length=14), nullable=True),
        sa.Column("service_start_time", sa.String(length=14), nullable=True),
        sa.Column("service_stop_time", sa.String(length=14), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "entry_uuid", name=op.f("pk_document_entry")),
    )
    op.create_table(
        "folder",
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("entry_uuid", sa.String(length=45), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("unique_id", sa.String(length=256), nullable=False),
        sa.Column("last_update_time", sa.String(length=14), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "entry_uuid", name=op.f("pk_folder")),
    )
    op.create_table(
        "object_value",
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("entry_uuid", sa.String(length=45), nullable=False),
        sa.Column("attribute", sa.String(length=32), nullable=False),
        sa.Column("value", sa.String(length=520), nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "entry_uuid", "attribute", "value", name=op.f("pk_object_value")),
    )
    op.create_table(
        "patient",
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("subsumed_by", sa.String(length=256), nullable=True),
        sa.ForeignKeyConstraint(["subsumed_by"], ["patient.patient_id"], name=op.f("fk_patient_subsumed_by")),
        sa.PrimaryKeyConstraint("patient_id", name=op.f("pk_patient")),
    )
    op.create_table(
        "registry_object",
        sa.Column("entry_uuid", sa.String(length=45), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("unique_id", sa.String(length=256), nullable=True),
        sa.PrimaryKeyConstraint("entry_uuid", name=op.f("pk_registry_object")),
    )
    op.create_index("ix_registry_object_unique_id", "registry_object", ["unique_id"], unique=False)
    op.create_table(
        "submission_set",
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("entry_uuid", sa.String(length=45), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("unique_id", sa.String(length=256), nullable=False),
        sa.Column("source_id", sa.String(length=256), nullable=False),
        sa.Column("submission_time", sa.String(length=14), nullable=False),
        sa.Column("content_type", sa.String(length=520), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "entry_uuid", name=op.f("pk_submission_set")),
    )
