"""Holds on documents."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    op.create_table(
        "retention_hold",
        sa.Column("document_unique_id", sa.String(256), primary_key=True),
        sa.Column("until", sa.String(10), nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("retention_hold")
