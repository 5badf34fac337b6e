"""What the rows of publication say: what has come, where each study stands, what is submitted and which documents are published."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Study(StrEnum):
    """Where a study stands: `waiting` for its end, `failed` and to be tried again, `published`, or `withdrawn` with all its instances."""

    WAITING = "waiting"
    FAILED = "failed"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


class State(StrEnum):
    """Where a submission stands: `submitting` until there is a verdict."""

    SUBMITTING = "submitting"
    DONE = "done"
    REFUSED = "refused"


class Standing(StrEnum):
    """Where a document stands."""

    SUBMITTING = "submitting"
    PUBLISHED = "published"
    REPLACED = "replaced"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"


class Step(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An instance that has come and was not looked at yet. `note` is its SOP Instance UID if it is a Key Object Selection, else ""."""

    number: int
    study_instance_uid: str
    note: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One instance that a rejection note lists; `code` is the note's title."""

    sop_instance_uid: str
    note: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A study of which instances have come. Times in seconds since 1970; `revision` grows with each change of the row.

    `patient_id` and `source_patient_id` are what an explicit publication gave, or "". `ready`: its procedure steps say that it is complete.
    """

    study_instance_uid: str
    last_at: float
    state: str
    revision: int
    patient_id: str
    source_patient_id: str
    tries: int
    next_at: float
    reason: str
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A document that was decided. `key` says which of the study's documents it is, and is that of the one that replaces it.

    `listed` is a digest of what it says, `instances` how many it lists, `ended_by` the submission that replaces or withdraws it, once that
    is decided; `content` is empty once it is published.
    """

    document_unique_id: str
    submission_unique_id: str
    study_instance_uid: str
    key: str
    state: str = Standing.SUBMITTING
    entry_uuid: str
    patient_id: str
    mime_type: str
    instances: int
    listed: str
    sha1: str
    ended_by: str = ""
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A submission that was decided: of `documents`, or, without any, of the withdrawal (ITI-57) of those that it `ends`.

    `ends` has the uniqueIds of what it replaces or withdraws. `completes`: whether the study is what it should be when it has been carried
    out; else it is looked at once more. `submission` is its metadata as text, empty once it has ended.
    """

    submission_unique_id: str
    study_instance_uid: str
    state: str = State.SUBMITTING
    completes: bool
    revision: int = 0
    tries: int = 0
    decided_at: float
    submission: str
    documents: tuple[Published, ...] = ()
    ends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A study and the state of its publication. `last_at` in seconds since 1970; "" for what there is not.

    `instances` are those that are stored here, or, of a study of the archive, those that are listed.

    `document_unique_id` is its manifest, one of `documents` that are published.
    """

    study_instance_uid: str
    patient_id: str
    instances: int
    last_at: float
    state: str
    document_unique_id: str
    documents: int
    tries: int
    reason: str
