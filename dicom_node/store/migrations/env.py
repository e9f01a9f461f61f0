"""Alembic's entry: it migrates over the connection, and inside the transaction, that `Database.upgrade` gives it."""

from alembic import context

from dicom_node.store.columns import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
