"""Performed procedure steps, and studies that are complete by them."""

import sqlalchemy as sa
from alembic import op

revision = "r0006"
down_revision = "r0005"

_UID = sa.String(length=64)


def upgrade() -> None:
    op.create_table(
        "performed_step",
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("begun_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_performed_step")),
    )
    op.create_index("ix_performed_step_changed_at", "performed_step", ["changed_at"], unique=False)
    op.create_table(
        "performed_step_study",
        sa.Column("step", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.PrimaryKeyConstraint("step", "study_instance_uid", name=op.f("pk_performed_step_study")),
    )
    studies = "ix_performed_step_study_study_instance_uid"
    op.create_index(studies, "performed_step_study", ["study_instance_uid"], unique=False)
    op.create_table(
        "performed_instance",
        sa.Column("step", _UID, nullable=False),
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.PrimaryKeyConstraint("step", "sop_instance_uid", name=op.f("pk_performed_instance")),
    )
    with op.batch_alter_table("arrival") as table:
        table.add_column(sa.Column("ready", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("arrival") as table:
        table.alter_column("ready", server_default=None)
