"""The catalogue of documents as SQL tables. Nobody but catalogue.py and holds.py reads or writes them."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table, Text


class State(StrEnum):
    """How far the registration of a stored document has come."""

    #: The bytes are durable, or about to be; the registry has not been heard yet.
    PENDING = "pending"
    #: The registry has registered it.
    AVAILABLE = "available"
    #: The source was told of a failure, and nobody knows whether the registry has registered it all the same.
    QUARANTINED = "quarantined"
    #: Nobody is given it any more: its bytes are going.
    REMOVED = "removed"


metadata = MetaData()

stored_document = Table(
    "stored_document",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("document_unique_id", String(256), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha1", String(40), nullable=False),
    Column("sha256", String(64)),  # unknown of documents that were stored by version 0.1.0 before 2026-12
    Column("mime_type", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("staged_at", BigInteger, nullable=False),  # seconds since 1970
    # Where the bytes are: the name of a place, and that of a copy in it, which several documents may share.
    Column("place", String(16), nullable=False),
    Column("copy", String(32), nullable=False),
)

Index("stored_document_unique_id", stored_document.c.document_unique_id)
Index("stored_document_copy", stored_document.c.copy)
# A uniqueId names the same octets for ever (ITI TF-2 3.43.4.2): one document of it can be available, whoever races.
_available = stored_document.c.state == State.AVAILABLE.value
Index(
    "stored_document_available",
    stored_document.c.document_unique_id,
    unique=True,
    sqlite_where=_available,
    postgresql_where=_available,
)
Index("stored_document_sha256", stored_document.c.sha256, sqlite_where=_available, postgresql_where=_available)
_unsettled = stored_document.c.state != State.AVAILABLE.value
Index(
    "stored_document_unsettled",
    stored_document.c.staged_at,
    sqlite_where=_unsettled,
    postgresql_where=_unsettled,
)

#: The bytes of small documents, by the name of the copy.
small_copy = Table(
    "small_copy",
    metadata,
    Column("copy", String(32), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

#: Documents that nobody may remove: until the end of a day (ISO 8601), or for ever.
retention_hold = Table(
    "retention_hold",
    metadata,
    Column("document_unique_id", String(256), primary_key=True),
    Column("until", String(10)),
    Column("reason", Text, nullable=False),
)
