"""The Imaging Document Source's tables of instances: what is stored, and what can be searched for.

What is published of them is in imaging/publication/publication_tables.py.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

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

# As the header of the first instance of a study says. Names are folded (index.folded_name), times are HHMMSS.FFFFFF, "" is nothing;
# `attributes` is DICOM JSON.
study = Table(
    "study",
    metadata,
    Column("study_instance_uid", _UID, primary_key=True),
    Column("patient_name", String(324), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("issuer_of_patient_id", String(64), nullable=False),
    Column("patient_birth_date", String(8), nullable=False),
    Column("patient_sex", String(16), nullable=False),
    Column("study_date", String(8), nullable=False),
    Column("study_time", String(13), nullable=False),
    Column("accession_number", String(64), nullable=False),
    Column("study_id", String(64), nullable=False),
    Column("study_description", String(64), nullable=False),
    Column("referring_physician_name", String(324), nullable=False),
    Column("attributes", Text, nullable=False),
    Index("ix_study_patient_id", "patient_id"),
    Index("ix_study_patient_name", "patient_name"),
    Index("ix_study_study_date", "study_date", "study_instance_uid"),
    Index("ix_study_accession_number", "accession_number"),
)

series = Table(
    "series",
    metadata,
    Column("study_instance_uid", _UID, primary_key=True),
    Column("series_instance_uid", _UID, primary_key=True),
    Column("modality", String(16), nullable=False),
    Column("series_number", Integer, nullable=False),
    Column("series_description", String(64), nullable=False),
    Column("body_part_examined", String(16), nullable=False),
    Column("performed_procedure_step_start_date", String(8), nullable=False),
    Column("performed_procedure_step_start_time", String(13), nullable=False),
    Column("scheduled_procedure_step_id", String(64), nullable=False),
    Column("requested_procedure_id", String(64), nullable=False),
    Column("attributes", Text, nullable=False),
    Index("ix_series_series_instance_uid", "series_instance_uid"),
)

# What is answered of an instance beside the columns of `instance`.
described_instance = Table(
    "described_instance",
    metadata,
    Column("sop_instance_uid", _UID, primary_key=True),
    Column("attributes", Text, nullable=False),
)

# Those that were stored before there was an index, until they are described.
undescribed = Table("undescribed", metadata, Column("sop_instance_uid", _UID, primary_key=True))
