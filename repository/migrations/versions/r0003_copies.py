"""Copies that several documents share, and the bytes of small documents in the catalogue."""

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision = "r0002"


def upgrade() -> None:
    # What there is was stored as a file under the key of its document.
    op.add_column("stored_document", sa.Column("sha256", sa.String(64), nullable=True))
    op.add_column("stored_document", sa.Column("place", sa.String(16), nullable=False, server_default="files"))
    op.add_column("stored_document", sa.Column("copy", sa.String(32), nullable=False, server_default=""))
    op.execute("UPDATE stored_document SET copy = key")
    op.create_index("stored_document_copy", "stored_document", ["copy"])
    available = sa.text("state = 'available'")
    op.create_index(
        "stored_document_sha256", "stored_document", ["sha256"], sqlite_where=available, postgresql_where=available
    )
    op.create_table(
        "small_copy",
        sa.Column("copy", sa.String(32), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("small documents have no files to go back to")
