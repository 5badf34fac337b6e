"""The Imaging Document Source's table of instances: the stored instances. What is published of them is in imaging/publication_tables.py."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})

_UID = String(64)

instance = Table(
    "instance",
    metadata,
    Column("sop_instance_uid", _UID, primary_key=True),
    Column("study_instance_uid", _UID, nullable=False),
    Column("series_instance_uid", _UID, nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("series_number", Integer, nullable=False),
    Column("instance_number", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha1", String(40), nullable=False),
    Column("key", String(64), nullable=False),
    Index("ix_instance_study", "study_instance_uid", "series_instance_uid"),
)
