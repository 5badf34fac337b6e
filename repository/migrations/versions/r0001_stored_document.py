"""The catalogue of stored documents."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "stored_document",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("document_unique_id", sa.String(256), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha1", sa.String(40), nullable=False),
        sa.Column("mime_type", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("staged_at", sa.BigInteger, nullable=False),
    )
    op.create_index("stored_document_unique_id", "stored_document", ["document_unique_id"])
    available, unsettled = sa.text("state = 'available'"), sa.text("state != 'available'")
    op.create_index(
        "stored_document_available",
        "stored_document",
        ["document_unique_id"],
        unique=True,
        sqlite_where=available,
        postgresql_where=available,
    )
    op.create_index(
        "stored_document_unsettled",
        "stored_document",
        ["staged_at"],
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )


def downgrade() -> None:
    op.drop_table("stored_document")
