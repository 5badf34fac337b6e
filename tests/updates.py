"""What the tests of ITI-57 share: a registry that takes it, its requests, and the codes that refuse them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.registries import BOTH, Updating, combined, into_folder, new_uuid, only_a_set, related, valid
from registry.iti57_update import update
from registry.store import Store
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, Submission
from xds.queries import GetAssociations, GetDocuments
from xds.values import Identifier
from xds.vocabulary import AssociationType, Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
UPDATE, VERSION = "XDSMetadataUpdateError", "XDSMetadataVersionError"
OPERATION, RECONCILIATION = "XDSMetadataUpdateOperationError", "XDSPatientIDReconciliationError"
DUPLICATE_IN_MESSAGE, INVALID = "XDSRegistryDuplicateUniqueIdInMessage", "XDSInvalidRequestException"


class Iti57(Updating):
    """A registry that takes ITI-57."""

    def update(self, *parts: Submission, store: Store | None = None) -> Outcome:
        made = combined(*parts)
        return update(made, store=store or self.store, now=lambda: self.moment, new_uuid=new_uuid)

    def association(self, kind: str, source: str, target: str) -> Association:
        (found,) = (
            one
            for one in self.ask(GetAssociations(uuid=(source,), association_status=BOTH, metadata_level=2))
            if (one.association_type, one.source_object, one.target_object) == (kind, source, target)
        )
        assert isinstance(found, Association)
        return found

    def status(self, entry_uuid: str) -> str | None:
        (found,) = self.ask(GetDocuments(entry_uuid=(entry_uuid,), metadata_level=2))
        assert isinstance(found, DocumentEntry)
        return found.availability_status

    def document(self) -> DocumentEntry:
        return self.registered(valid(self.p1))

    def document_in_folder(self) -> tuple[DocumentEntry, Folder]:
        folder = self.folder()
        return self.registered(into_folder(valid(self.p1), folder.entry_uuid)), folder

    def with_addendum(self) -> tuple[DocumentEntry, DocumentEntry]:
        document = self.document()
        return document, self.registered(related(valid(self.p1), AssociationType.APND, document.entry_uuid))


def status_change(
    patient_id: Identifier,
    target: str,
    original: str | None = APPROVED,
    new: str | None = DEPRECATED,
    name: str = "Change",
    **changes: Any,
) -> Submission:
    """A request that changes the target's status, some attributes of the association that says so changed."""
    made = Association(
        entry_uuid=name,
        association_type=AssociationType.UPDATE_AVAILABILITY_STATUS,
        source_object="SubmissionSet",
        target_object=target,
        original_status=original,
        new_status=new,
    )
    return replace(only_a_set(patient_id), associations=(replace(made, **changes),))


def new_link(
    patient_id: Identifier, kind: str, source: str, target: str, name: str = "Link", **changes: Any
) -> Submission:
    """A request that submits an association, some of its attributes changed."""
    made = Association(entry_uuid=name, association_type=kind, source_object=source, target_object=target)
    trigger = Association(
        entry_uuid=f"submit-{name}",
        association_type=AssociationType.SUBMIT_ASSOCIATION,
        source_object="SubmissionSet",
        target_object=name,
    )
    return replace(only_a_set(patient_id), associations=(replace(made, **changes), trigger))
