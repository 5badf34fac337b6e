"""Runs the steps on the connection that registry.schema.upgrade gives."""

from alembic import context

from registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # A repository may keep its own table of versions in the same database.
    version_table="registry_version",
)
with context.begin_transaction():
    context.run_migrations()
