"""A submission has any number of documents. What was published before is the manifest of its study."""

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "r0005"
down_revision = "r0004"

_UID = sa.String(length=64)
#: Whatever a manifest could be; a withdrawal had a state of its own.
_STANDING = ("submitting", "published", "replaced", "withdrawn", "refused")


def upgrade() -> None:
    op.create_table(
        "published_document",
        sa.Column("document_unique_id", _UID, nullable=False),
        sa.Column("submission_unique_id", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("entry_uuid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.String(length=64), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("listed", sa.String(length=64), nullable=False),
        sa.Column("sha1", sa.String(length=40), nullable=False),
        sa.Column("ended_by", _UID, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("document_unique_id", name=op.f("pk_published_document")),
    )
    op.create_index("ix_published_document_study", "published_document", ["study_instance_uid", "state"], unique=False)
    op.create_index("ix_published_document_submission", "published_document", ["submission_unique_id"], unique=False)
    op.add_column("publication", sa.Column("completes", sa.Boolean(), nullable=False, server_default=sa.false()))
    before = sa.Table("publication", sa.MetaData(), autoload_with=op.get_bind())
    after = sa.Table("published_document", sa.MetaData(), autoload_with=op.get_bind())
    _take_over(before, after)
    with op.batch_alter_table("publication") as table:
        table.alter_column("completes", server_default=None)
        for gone in ("document_unique_id", "entry_uuid", "patient_id", "instances", "listed", "content"):
            table.drop_column(gone)


def _take_over(before: sa.Table, after: sa.Table) -> None:
    """Each manifest becomes a document, and each submission that is under way says which documents it ends."""
    connection, old = op.get_bind(), before.c
    manifest = old.document_unique_id != ""
    copied = ("document_unique_id", "submission_unique_id", "study_instance_uid", "state", "entry_uuid", "patient_id")
    fixed: dict[str, Any] = {"key": "manifest", "mime_type": "application/dicom", "sha1": "", "ended_by": ""}
    names = [*copied, "instances", "listed", "content"]
    values = [old[name] for name in names] + [sa.literal(value).label(name) for name, value in fixed.items()]
    chosen = sa.select(*values).where(manifest, old.state.in_(_STANDING))
    connection.execute(after.insert().from_select([*names, *fixed], chosen))
    under_way = connection.execute(sa.select(before).where(old.state == "submitting")).mappings().all()
    for one in under_way:
        current = sa.and_(after.c.study_instance_uid == one["study_instance_uid"], after.c.state == "published")
        connection.execute(after.update().where(current).values(ended_by=one["submission_unique_id"]))
        if one["document_unique_id"]:
            sha1 = hashlib.sha1(one["content"], usedforsecurity=False).hexdigest()
            this = after.c.document_unique_id == one["document_unique_id"]
            connection.execute(after.update().where(this).values(sha1=sha1))
    connection.execute(before.update().where(manifest).values(completes=True))
    ended = old.state.in_(("published", "replaced", "withdrawn", "withdrawal"))
    connection.execute(before.update().where(ended).values(state="done"))
