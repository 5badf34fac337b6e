"""Runs the steps on the connection that repository.schema.upgrade gives."""

from alembic import context

from repository.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # A registry may keep its own table of versions in the same database.
    version_table="repository_version",
)
with context.begin_transaction():
    context.run_migrations()
