"""The tables of publication.

`arrived` has each instance that was not looked at yet: a trigger of the database writes it in the transaction that adds the instance, so
that no crash can part the two. `arrival` has a row for each study, `publication` one for each submission, `published_document` one for each
document that was submitted, and `rejected` one for each instance that a rejection note lists. `performed_step` has what modalities say of
their procedure steps, `performed_step_study` the studies of each, and `performed_instance` what it names until all of that is stored.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, String, Table, Text, text

from imaging.tables import metadata

_UID = String(64)

arrived = Table(
    "arrived",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("study_instance_uid", _UID, nullable=False),
    Column("note", _UID, nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_arrived_note", "note", sqlite_where=text("note <> ''"), postgresql_where=text("note <> ''")),
)

arrival = Table(
    "arrival",
    metadata,
    Column("study_instance_uid", _UID, primary_key=True),
    Column("last_at", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("source_patient_id", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ready", Boolean, nullable=False),
    Index("ix_arrival_state", "state"),
)

publication = Table(
    "publication",
    metadata,
    Column("submission_unique_id", _UID, primary_key=True),
    Column("study_instance_uid", _UID, nullable=False),
    Column("state", String(16), nullable=False),
    Column("completes", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("decided_at", Float, nullable=False),
    Column("submission", Text, nullable=False),
    Index("ix_publication_study", "study_instance_uid", "state"),
)

published_document = Table(
    "published_document",
    metadata,
    Column("document_unique_id", _UID, primary_key=True),
    Column("submission_unique_id", _UID, nullable=False),
    Column("study_instance_uid", _UID, nullable=False),
    Column("key", String(80), nullable=False),
    Column("state", String(16), nullable=False),
    Column("entry_uuid", String(64), nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("mime_type", String(64), nullable=False),
    Column("instances", Integer, nullable=False),
    Column("listed", String(64), nullable=False),
    Column("sha1", String(40), nullable=False),
    Column("ended_by", _UID, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index("ix_published_document_study", "study_instance_uid", "state"),
    Index("ix_published_document_submission", "submission_unique_id"),
)

rejected = Table(
    "rejected",
    metadata,
    Column("sop_instance_uid", _UID, primary_key=True),
    Column("note", _UID, primary_key=True),
    Column("code", String(16), nullable=False),
)

performed_step = Table(
    "performed_step",
    metadata,
    Column("sop_instance_uid", _UID, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("settled", Boolean, nullable=False),
    Column("begun_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Index("ix_performed_step_changed_at", "changed_at"),
)

performed_step_study = Table(
    "performed_step_study",
    metadata,
    Column("step", _UID, primary_key=True),
    Column("study_instance_uid", _UID, primary_key=True),
    Index("ix_performed_step_study_study_instance_uid", "study_instance_uid"),
)

performed_instance = Table(
    "performed_instance",
    metadata,
    Column("step", _UID, primary_key=True),
    Column("sop_instance_uid", _UID, primary_key=True),
)
