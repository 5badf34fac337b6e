"""The command that asks a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from server import show
from server.commands.documents import spooling
from server.options import Refused, json_option, url_option, worded
from xds.metadata import Association, ObjectRef
from xds.queries import (
    Codes,
    FindDocuments,
    FindDocumentsByReferenceId,
    FindFolders,
    FindSubmissionSets,
    GetAll,
    GetAssociations,
    GetDocuments,
    GetFolderAndContents,
    GetRelatedDocuments,
    GetSubmissionSetAndContents,
    ReturnType,
    StoredQuery,
)
from xds.values import Identifier, Timestamp
from xds.vocabulary import ON_DEMAND, RELATIONSHIPS, STABLE, Status

ANY_TYPE = (STABLE, ON_DEMAND)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says."""

    patient: str | None
    submission_sets: bool
    folders: bool
    everything: bool
    unique_id: tuple[str, ...]
    entry_uuid: tuple[str, ...]
    contents_of: str | None
    folder_contents: str | None
    associations_of: tuple[str, ...]
    related_to: str | None
    reference_id: tuple[str, ...]
    class_code: tuple[str, ...]
    type_code: tuple[str, ...]
    format_code: tuple[str, ...]
    author: tuple[str, ...]
    created_from: str | None
    created_to: str | None
    on_demand: bool
    deprecated: bool
    all_versions: bool
    object_ref: bool

    def query(self) -> StoredQuery:
        """The stored query that the options amount to. Refused where they amount to none."""
        return self._get() or self._find()

    def _get(self) -> StoredQuery | None:
        common: dict[str, Any] = {"return_type": self._return_type, "metadata_level": self._level}
        if self.unique_id or self.entry_uuid:
            return GetDocuments(entry_uuid=self.entry_uuid, unique_id=self.unique_id, **common)
        if self.contents_of:
            return GetSubmissionSetAndContents(**_by_id(self.contents_of), object_type=ANY_TYPE, **common)
        if self.folder_contents:
            return GetFolderAndContents(**_by_id(self.folder_contents), object_type=ANY_TYPE, **common)
        if self.associations_of:
            return GetAssociations(uuid=self.associations_of, **common)
        if self.related_to:
            types = tuple(sorted(str(one) for one in RELATIONSHIPS))
            return GetRelatedDocuments(
                **_by_id(self.related_to), association_types=types, object_type=ANY_TYPE, **common
            )
        return None

    def _find(self) -> StoredQuery:
        if self.patient is None:
            raise Refused("give --patient, or what to get: --unique-id, --entry-uuid, --contents-of ...")
        patient_id, status = Identifier(self.patient), self._status
        common: dict[str, Any] = {"return_type": self._return_type, "metadata_level": self._level}
        if self.everything:
            return GetAll(
                patient_id=patient_id,
                document_entry_status=status,
                submission_set_status=status,
                folder_status=status,
                object_type=ANY_TYPE,
                **common,
            )
        if self.submission_sets:
            return FindSubmissionSets(patient_id=patient_id, status=status, **common)
        if self.folders:
            return FindFolders(patient_id=patient_id, status=status, **common)
        conditions: dict[str, Any] = {
            "patient_id": patient_id,
            "status": status,
            "class_code": _any_of(self.class_code),
            "type_code": _any_of(self.type_code),
            "format_code": _any_of(self.format_code),
            "author_person": self.author,
            "creation_time_from": Timestamp(self.created_from) if self.created_from else None,
            "creation_time_to": Timestamp(self.created_to) if self.created_to else None,
            "object_type": ANY_TYPE if self.on_demand else (STABLE,),
            **common,
        }
        if self.reference_id:
            return FindDocumentsByReferenceId(reference_id_list=_any_of(self.reference_id), **conditions)
        return FindDocuments(**conditions)

    @property
    def _return_type(self) -> ReturnType:
        return ReturnType.OBJECT_REF if self.object_ref else ReturnType.LEAF_CLASS

    @property
    def _level(self) -> int:
        return 2 if self.all_versions else 1

    @property
    def _status(self) -> tuple[str, ...]:
        return tuple(str(one) for one in Status) if self.deprecated else (str(Status.APPROVED),)


def _by_id(text: str) -> dict[str, Any]:
    return {"entry_uuid" if text.startswith("urn:uuid:") else "unique_id": text}


def _any_of(values: tuple[str, ...]) -> Codes:
    return (values,) if values else ()


@click.command()
@click.option(
    "--patient", help="What this patient has: documents, unless one of the three options below says otherwise."
)
@click.option("--submission-sets", is_flag=True, help="FindSubmissionSets.")
@click.option("--folders", is_flag=True, help="FindFolders.")
@click.option("--all", "everything", is_flag=True, help="GetAll.")
@click.option("--unique-id", multiple=True, help="GetDocuments by uniqueId.")
@click.option("--entry-uuid", multiple=True, help="GetDocuments by entryUUID.")
@click.option("--contents-of", help="GetSubmissionSetAndContents of the set with this uniqueId or entryUUID.")
@click.option("--folder-contents", help="GetFolderAndContents of the folder with this uniqueId or entryUUID.")
@click.option("--associations-of", multiple=True, help="GetAssociations of the objects with these entryUUIDs.")
@click.option("--related-to", help="GetRelatedDocuments of the document with this uniqueId or entryUUID.")
@click.option("--reference-id", multiple=True, help="FindDocumentsByReferenceId: id^^^authority^type; one of several.")
@click.option("--class-code", multiple=True, help="code^^scheme; one of several.")
@click.option("--type-code", multiple=True, help="code^^scheme; one of several.")
@click.option("--format-code", multiple=True, help="code^^scheme; one of several.")
@click.option("--author", multiple=True, help="Author person; % and _ are wildcards.")
@click.option("--created-from", help="Not before this time, YYYY[MM[DD...]].")
@click.option("--created-to", help="Before this time.")
@click.option("--on-demand", is_flag=True, help="On-Demand documents too.")
@click.option("--deprecated", is_flag=True, help="Deprecated objects too.")
@click.option("--all-versions", is_flag=True, help="Older versions too (Metadata-Level 2).")
@click.option("--object-ref", is_flag=True, help="Ids only.")
@url_option("registry")
@json_option
@worded
def query(registry: str, json_output: bool, **asked: object) -> None:
    """Ask a registry (ITI-18).

    \b
    xdsi query --patient 'p100^^^&1.2.3.4&ISO' --class-code 'IMAGES^^1.3.6.1.4.1.19376.1.2.6.1'
    xdsi query --unique-id 1.2.3.4.100.1 --json
    xdsi query --related-to urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60
    """
    from registry.client import client
    from schemas import rim
    from server.compose import soap_client

    with spooling() as config:
        result = client(soap_client(registry, config)).query(Asked(**asked).query())  # type: ignore[arg-type]
        found = list(rim.decode_fragments(result.fragments))
    if json_output:
        show.as_json([{"class": type(one).__name__, **(_fields(one))} for one in found])
        return
    rows = [_row(one) for one in found]
    show.as_table(show.counted(len(rows), "object"), ("class", "title or type", "uniqueId", "status", "id"), rows)


def _fields(one: object) -> dict[str, show.Plain]:
    fields = show.plain(one)
    return fields if isinstance(fields, dict) else {}


def _row(one: object) -> tuple[str, str, str, str, str]:
    if isinstance(one, ObjectRef):
        return "ObjectRef", "", "", "", one.entry_uuid
    if isinstance(one, Association):
        kind = one.association_type.rpartition(":")[2]
        return "Association", kind, "", (one.availability_status or "").rpartition(":")[2], one.entry_uuid
    title, unique, status = (getattr(one, name) for name in ("title", "unique_id", "availability_status"))
    return (
        type(one).__name__,
        str(title),
        str(unique),
        str(status or "").rpartition(":")[2],
        str(getattr(one, "entry_uuid", "")),
    )


COMMANDS: tuple[click.Command, ...] = (query,)
