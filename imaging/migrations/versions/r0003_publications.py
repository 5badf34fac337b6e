"""What has arrived, what is rejected, and what is published. Manifests of before had no known entryUUID, and are not remembered."""

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision = "r0001"

_KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_NOTE = f"CASE WHEN NEW.sop_class_uid = '{_KEY_OBJECT_SELECTION}' THEN NEW.sop_instance_uid ELSE '' END"
_NOW = {"sqlite": "(julianday('now') - 2440587.5) * 86400.0", "postgresql": "extract(epoch from clock_timestamp())"}


def upgrade() -> None:
    op.drop_table("manifest")
    uid = sa.String(length=64)
    op.create_table(
        "arrived",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, autoincrement=True),
        sa.Column("study_instance_uid", uid, nullable=False),
        sa.Column("note", uid, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_arrived")),
    )
    some = sa.text("note <> ''")
    op.create_index("ix_arrived_note", "arrived", ["note"], unique=False, sqlite_where=some, postgresql_where=some)
    op.create_table(
        "arrival",
        sa.Column("study_instance_uid", uid, nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("source_patient_id", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_arrival")),
    )
    op.create_index("ix_arrival_state", "arrival", ["state"], unique=False)
    op.create_table(
        "publication",
        sa.Column("submission_unique_id", uid, nullable=False),
        sa.Column("study_instance_uid", uid, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("document_unique_id", uid, nullable=False),
        sa.Column("entry_uuid", uid, nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("listed", uid, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=False),
        sa.Column("submission", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("submission_unique_id", name=op.f("pk_publication")),
    )
    op.create_index("ix_publication_study", "publication", ["study_instance_uid", "state"], unique=False)
    op.create_table(
        "rejected",
        sa.Column("sop_instance_uid", uid, nullable=False),
        sa.Column("note", uid, nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", "note", name=op.f("pk_rejected")),
    )
    _note_each_instance(op.get_bind().dialect.name)


def _note_each_instance(dialect: str) -> None:
    """Each study that is there has arrived now, and so does every instance from here on."""
    now: sa.ColumnClause[float] = sa.literal_column(_NOW[dialect])
    names = ("study_instance_uid", "note", "at")
    instance = sa.table("instance", *map(sa.column, ("study_instance_uid", "sop_instance_uid", "sop_class_uid")))
    arrived = sa.table("arrived", *map(sa.column, names))
    studies = sa.select(instance.c.study_instance_uid, sa.literal_column("''"), now).distinct()
    op.execute(arrived.insert().from_select(names, studies))
    notes = sa.select(instance.c.study_instance_uid, instance.c.sop_instance_uid, now)
    op.execute(arrived.insert().from_select(names, notes.where(instance.c.sop_class_uid == _KEY_OBJECT_SELECTION)))
    row = (
        f"INSERT INTO arrived (study_instance_uid, note, at) VALUES (NEW.study_instance_uid, {_NOTE}, {_NOW[dialect]});"  # noqa: S608  constants
    )
    if dialect == "sqlite":
        op.execute(f"CREATE TRIGGER instance_arrived AFTER INSERT ON instance BEGIN {row} END")
        return
    function = f"CREATE FUNCTION note_arrived() RETURNS trigger AS $$ BEGIN {row} RETURN NULL; END $$ LANGUAGE plpgsql"
    op.execute(function)
    op.execute("CREATE TRIGGER instance_arrived AFTER INSERT ON instance FOR EACH ROW EXECUTE FUNCTION note_arrived()")
