"""Which instances were stored before there was an index: it is asked for at each start, and must not be looked for in all of them."""

import sqlalchemy as sa
from alembic import op

revision = "r0007"
down_revision = "r0006"


def upgrade() -> None:
    op.create_table(
        "undescribed",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_undescribed")),
    )
    undescribed, instance, described = (
        sa.table(name, sa.column("sop_instance_uid")) for name in ("undescribed", "instance", "described_instance")
    )
    uid = instance.c.sop_instance_uid
    known = sa.exists().where(described.c.sop_instance_uid == uid)
    op.execute(undescribed.insert().from_select(["sop_instance_uid"], sa.select(uid).where(~known)))
