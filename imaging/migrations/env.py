"""Runs the steps on the connection that imaging.schema.upgrade gives."""

from alembic import context

from imaging.publication import publication_tables  # noqa: F401  its tables belong to the metadata
from imaging.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Other actors may keep their own tables of versions in the same database.
    version_table="imaging_version",
)
with context.begin_transaction():
    context.run_migrations()
