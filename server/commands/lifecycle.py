"""Commands of a Document Administrator: new versions of metadata, statuses, relations, removal (ITI-57, ITI-62)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import click

from registry.client import Client
from server import show
from server.commands.documents import code_of, spooling
from server.options import Refused, json_option, url_option, worded
from xds.messages import DocumentRequest, Outcome
from xds.metadata import Association, DocumentEntry, Folder, ObjectRef, Submission, SubmissionSet, has_member
from xds.problems import ErrorCode, Failure
from xds.queries import GetAssociations, GetDocuments, GetFolders, ReturnType, StoredQuery
from xds.values import Code, Identifier, LanguageCode, Oid, Text, Timestamp
from xds.vocabulary import AssociationType, Status

_CODES = ("class_code", "type_code", "format_code", "practice_setting_code", "healthcare_facility_type_code")
source_option = click.option(
    "--source-id", default="1.3.6.1.4.1.21367.13.3", show_default=True, help="OID of the administrator's system."
)


def _submission_set(patient_id: Identifier | None, source_id: str) -> SubmissionSet:
    return SubmissionSet(
        entry_uuid="SubmissionSet",
        content_type_code=Code.of("UPDATE", "1.3.6.1.4.1.21367.100.1", "Change of metadata"),
        patient_id=patient_id,
        source_id=Oid(source_id),
        submission_time=Timestamp.at(datetime.now(UTC)),
        unique_id=Oid(f"2.25.{uuid.uuid4().int}"),
    )


@contextmanager
def _remote(registry: str) -> Iterator[Client]:
    from registry.client import client
    from server.compose import soap_client

    with spooling() as config:
        yield client(soap_client(registry, config))


def _find(remote: Client, entry_uuid: str) -> DocumentEntry | Folder:
    """The object of that entryUUID, whichever it is. Refused where there is none."""
    from schemas import rim

    queries: tuple[StoredQuery, ...] = (
        GetDocuments(entry_uuid=(entry_uuid,)),
        GetFolders(entry_uuid=(entry_uuid,)),
    )
    for query in queries:
        for found in rim.decode_fragments(remote.query(query).fragments):
            if isinstance(found, DocumentEntry | Folder):
                return found
    raise Refused(f"the registry has no document and no folder with the entryUUID {entry_uuid}")


def _done(what: str, outcome: Outcome, json_output: bool) -> None:
    if json_output:
        show.as_json({"done": what, "warnings": [str(one) for one in outcome.problems]})
    else:
        click.echo(what)
        for warning in outcome.problems:
            click.echo(f"warning: {warning}", err=True)


@click.command()
@click.argument("entry_uuid")
@click.option("--title", help="New title.")
@click.option("--comments", help="New comments.")
@click.option("--language", help="New languageCode.")
@click.option("--class-code", help="code^display^scheme")
@click.option("--type-code", help="code^display^scheme")
@click.option("--format-code", help="code^display^scheme")
@click.option("--practice-setting-code", help="code^display^scheme")
@click.option("--healthcare-facility-type-code", help="code^display^scheme")
@click.option("--confidentiality-code", multiple=True, help="code^display^scheme; replaces all there are.")
@click.option("--event-code", multiple=True, help="code^display^scheme; replaces all there are.")
@click.option("--no-propagation", is_flag=True, help="Leave folders and relations with the old version.")
@source_option
@url_option("registry")
@json_option
@worded
def update(
    entry_uuid: str,
    title: str | None,
    comments: str | None,
    language: str | None,
    confidentiality_code: tuple[str, ...],
    event_code: tuple[str, ...],
    no_propagation: bool,
    source_id: str,
    registry: str,
    json_output: bool,
    **codes: str | None,
) -> None:
    """Make a new version of a document's metadata, some of it changed (ITI-57). The old version is kept.

    \b
    xdsi update urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60 --title 'Corrected title'
    xdsi update urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60 --confidentiality-code 'R^Restricted^2.16.840.1.113883.5.25'
    """
    changes: dict[str, object] = {name: code_of(text) for name, text in codes.items() if name in _CODES and text}
    if title is not None:
        changes["title"] = Text.of(title)
    if comments is not None:
        changes["comments"] = Text.of(comments)
    if language is not None:
        changes["language_code"] = LanguageCode(language)
    if confidentiality_code:
        changes["confidentiality_code"] = tuple(code_of(one) for one in confidentiality_code)
    if event_code:
        changes["event_code_list"] = tuple(code_of(one) for one in event_code)
    if not changes:
        raise Refused("nothing is to be changed; see --help for what can be")
    with _remote(registry) as remote:
        found = _find(remote, entry_uuid)
        if not isinstance(found, DocumentEntry):
            raise Refused(f"{entry_uuid} is a {type(found).__name__}; this command changes documents")
        outcome = remote.update(_new_version(found, changes, source_id, propagate=not no_propagation))
    _done(f"{found.logical_id}: version {int(found.version or '1') + 1}", outcome, json_output)


def _new_version(found: DocumentEntry, changes: dict[str, object], source_id: str, *, propagate: bool) -> Submission:
    member = has_member("SubmissionSet", "New", entry_uuid="Member", submission_set_status="Original")
    member = replace(member, previous_version=found.version, association_propagation="yes" if propagate else "no")
    return Submission(
        submission_sets=(_submission_set(found.patient_id, source_id),),
        document_entries=(replace(found, entry_uuid="New", version=None, **changes),),  # type: ignore[arg-type]
        associations=(member,),
    )


def _change_status(entry_uuid: str, status: Status, source_id: str, registry: str, json_output: bool) -> None:
    """ITI-57 with an UpdateAvailabilityStatus association."""
    with _remote(registry) as remote:
        found = _find(remote, entry_uuid)
        trigger = Association(
            entry_uuid="Trigger",
            association_type=AssociationType.UPDATE_AVAILABILITY_STATUS,
            source_object="SubmissionSet",
            target_object=entry_uuid,
            original_status=found.availability_status,
            new_status=str(status),
        )
        submission = Submission(
            submission_sets=(_submission_set(found.patient_id, source_id),), associations=(trigger,)
        )
        outcome = remote.update(submission)
    _done(f"{entry_uuid}: {status.name.capitalize()}", outcome, json_output)


@click.command()
@click.argument("entry_uuid")
@source_option
@url_option("registry")
@json_option
@worded
def deprecate(entry_uuid: str, source_id: str, registry: str, json_output: bool) -> None:
    """Set a document or folder to Deprecated (ITI-57).

    \b
    xdsi deprecate urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60
    """
    _change_status(entry_uuid, Status.DEPRECATED, source_id, registry, json_output)


@click.command()
@click.argument("entry_uuid")
@source_option
@url_option("registry")
@json_option
@worded
def approve(entry_uuid: str, source_id: str, registry: str, json_output: bool) -> None:
    """Set a Deprecated document or folder to Approved again (ITI-57).

    \b
    xdsi approve urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60
    """
    _change_status(entry_uuid, Status.APPROVED, source_id, registry, json_output)


@click.command()
@click.argument("entry_uuids", nargs=-1, required=True)
@click.option("--with-associations", is_flag=True, help="And every association that begins or ends at one of them.")
@click.option("--with-documents", is_flag=True, help="And, before, the documents from their repository (ITI-86).")
@url_option("registry")
@url_option("repository")
@json_option
@worded
def remove(
    entry_uuids: tuple[str, ...],
    with_associations: bool,
    with_documents: bool,
    registry: str,
    repository: str,
    json_output: bool,
) -> None:
    """Remove metadata from a registry (ITI-62). The documents stay in their repositories, unless --with-documents.

    The documents go first: what fails after that can be done again.

    \b
    xdsi remove urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60 --with-associations --with-documents
    """
    from schemas import rim

    ids = list(entry_uuids)
    with _remote(registry) as remote:
        if with_documents:
            documents = _documents_of(remote, entry_uuids)
            _remove_documents(documents, repository)
            click.echo(f"{len(documents)} documents removed", err=True)
        if with_associations:
            query = GetAssociations(uuid=entry_uuids, return_type=ReturnType.OBJECT_REF, metadata_level=2)
            found = rim.decode_fragments(remote.query(query).fragments)
            ids += [one.entry_uuid for one in found if one.entry_uuid not in ids]
        outcome = remote.remove([ObjectRef(entry_uuid=one) for one in ids])
    _done(f"{len(ids)} objects removed", outcome, json_output)


def _documents_of(remote: Client, entry_uuids: tuple[str, ...]) -> list[DocumentRequest]:
    """Where the documents of those of the objects are that are DocumentEntries."""
    from schemas import rim

    query = GetDocuments(entry_uuid=entry_uuids, metadata_level=2)
    return [
        DocumentRequest(
            repository_unique_id=str(one.repository_unique_id or ""), document_unique_id=str(one.unique_id or "")
        )
        for one in rim.decode_fragments(remote.query(query).fragments)
        if isinstance(one, DocumentEntry)
    ]


def _remove_documents(requests: list[DocumentRequest], repository: str) -> None:
    """One after the other, for the schema of the request allows one. A document that is gone already is as good as removed."""
    from repository.client import removal
    from server.compose import soap_client

    with spooling() as config:
        remove_documents = removal(soap_client(repository, config))
        for request in requests:
            try:
                remove_documents([request])
            except Failure as failure:
                if {one.code for one in failure.problems} != {ErrorCode.DOCUMENT_UNIQUE_ID_ERROR}:
                    raise


COMMANDS: tuple[click.Command, ...] = (update, deprecate, approve, remove)
