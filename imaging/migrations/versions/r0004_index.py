"""Studies, series and what is told of instances, for QIDO-RS. Instances.complete_index fills them from the stored files."""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision = "r0003"

_UID = sa.String(length=64)


def _texts(**lengths: int) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(length=length), nullable=False) for name, length in lengths.items()]


def upgrade() -> None:
    op.create_table(
        "study",
        sa.Column("study_instance_uid", _UID, nullable=False),
        *_texts(patient_name=324, patient_id=64, issuer_of_patient_id=64, patient_birth_date=8, patient_sex=16),
        *_texts(study_date=8, study_time=13, accession_number=64, study_id=64, study_description=64),
        *_texts(referring_physician_name=324),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_study")),
    )
    op.create_index("ix_study_study_date", "study", ["study_date", "study_instance_uid"], unique=False)
    for column in ("patient_id", "patient_name", "accession_number"):
        op.create_index(f"ix_study_{column}", "study", [column], unique=False)
    op.create_table(
        "series",
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("series_instance_uid", _UID, nullable=False),
        *_texts(modality=16),
        sa.Column("series_number", sa.Integer(), nullable=False),
        *_texts(series_description=64, body_part_examined=16),
        *_texts(performed_procedure_step_start_date=8, performed_procedure_step_start_time=13),
        *_texts(scheduled_procedure_step_id=64, requested_procedure_id=64),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", "series_instance_uid", name=op.f("pk_series")),
    )
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"], unique=False)
    op.create_table(
        "described_instance",
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_described_instance")),
    )
