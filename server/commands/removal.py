"""Commands that remove: metadata from a registry (ITI-62), documents from repositories (ITI-86), or both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import click

from registry.client import Client
from server import show
from server.commands.documents import spooling
from server.commands.lifecycle import done, remote_registry
from server.commands.repositories import addresses, document_request, repositories_option
from server.config import Config, load
from server.options import Refused, config_option, json_option, url_option, worded
from soap.fault import SoapFault
from xds.messages import DocumentRequest
from xds.metadata import Association, DocumentEntry, ObjectRef
from xds.problems import ErrorCode, Failure
from xds.queries import GetAssociations, GetDocuments, ReturnType
from xds.transactions import RemoveDocuments
from xds.vocabulary import STABLE

_ALL_VERSIONS = 2


@click.command()
@click.argument("entry_uuids", nargs=-1, required=True)
@click.option("--with-associations", is_flag=True, help="And every association that begins or ends at one of them.")
@click.option("--with-documents", is_flag=True, help="And the documents themselves, before their metadata (ITI-86).")
@repositories_option
@url_option("registry")
@config_option
@json_option
@worded
def remove(
    entry_uuids: tuple[str, ...],
    with_associations: bool,
    with_documents: bool,
    repositories: tuple[str, ...],
    registry: str,
    config_path: Path | None,
    json_output: bool,
) -> None:
    """Remove metadata from a registry (ITI-62). The documents stay in their repositories, unless they are to go too.

    \b
    xdsi remove urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60 --with-associations
    xdsi remove urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60 urn:uuid:1c0c7c9e-8b3b-4b71-9d5a-7d4b0f2ac511 \\
        --with-associations --with-documents --repository 1.2.3.4.77=http://127.0.0.1:8080/repository
    """
    from schemas import rim

    ids = list(entry_uuids)
    with remote_registry(registry) as remote:
        if with_associations:
            query = GetAssociations(uuid=entry_uuids, return_type=ReturnType.OBJECT_REF, metadata_level=_ALL_VERSIONS)
            found = rim.decode_fragments(remote.query(query).fragments)
            ids += [one.entry_uuid for one in found if one.entry_uuid not in ids]
        removed = 0
        if with_documents:
            requests = _documents_of(ids, remote)
            _check_that_metadata_may_go(ids, remote)
            removed = _remove_documents(requests, repositories, load(config_path))
        try:
            outcome = remote.remove([ObjectRef(entry_uuid=one) for one in ids])
        except Exception as error:
            if not removed:
                raise
            raise Refused(f"{show.counted(removed, 'document')} removed, but not their metadata: {error}") from None
    what = f"{len(ids)} objects removed"
    done(f"{what}, and {show.counted(removed, 'document')}" if with_documents else what, outcome, json_output)


@click.command("remove-documents")
@click.argument("unique_ids", nargs=-1, required=True)
@click.option("--repository-id", default=Config().repository.unique_id, show_default=True, help="repositoryUniqueId.")
@repositories_option
@config_option
@worded
def remove_documents(
    unique_ids: tuple[str, ...], repository_id: str, repositories: tuple[str, ...], config_path: Path | None
) -> None:
    """Remove documents from repositories (ITI-86), whatever a registry says of them. Its metadata stay as they are.

    \b
    xdsi remove-documents 1.2.3.4.100.1 1.2.3.4.100.2
    xdsi remove-documents 1.2.3.4.77/1.2.3.4.100.1 --repository 1.2.3.4.77=http://127.0.0.1:8080/repository
    """
    requests = [document_request(one, repository_id) for one in unique_ids]
    removed = _remove_documents(requests, repositories, load(config_path), missing_is_removed=False)
    click.echo(f"{show.counted(removed, 'document')} removed")


def _documents_of(ids: Sequence[str], remote: Client) -> list[DocumentRequest]:
    """The documents behind these objects. Refused where an entry that stays has one of them too: it would lose its bytes."""
    entries = _entries(remote, GetDocuments(entry_uuid=tuple(ids), metadata_level=_ALL_VERSIONS))
    found = {_document(one) for one in entries if one.object_type == STABLE}
    if not found:
        raise Refused("none of the objects is a document whose bytes could be removed; nothing was removed")
    unique_ids = tuple(sorted(one.document_unique_id for one in found))
    for one in _entries(remote, GetDocuments(unique_id=unique_ids, metadata_level=_ALL_VERSIONS)):
        if one.entry_uuid not in ids and _document(one) in found:
            raise Refused(f"{one.entry_uuid} has the document {one.unique_id} too; nothing was removed")
    return sorted(found, key=lambda one: (one.repository_unique_id, one.document_unique_id))


def _entries(remote: Client, query: GetDocuments) -> list[DocumentEntry]:
    from schemas import rim

    return [one for one in rim.decode_fragments(remote.query(query).fragments) if isinstance(one, DocumentEntry)]


def _document(entry: DocumentEntry) -> DocumentRequest:
    return DocumentRequest(
        repository_unique_id=str(entry.repository_unique_id or ""), document_unique_id=str(entry.unique_id or "")
    )


def _check_that_metadata_may_go(ids: Sequence[str], remote: Client) -> None:
    """Refused where the registry would refuse ITI-62 after the bytes have gone: by the rules of 3.62.4.1.3."""
    around = _associations(remote, ids)
    for one in around:
        if one.entry_uuid not in ids:
            raise Refused(f"the Association {one.entry_uuid} refers to what is to be removed; nothing was removed")
    ends = {end for one in around for end in (one.source_object, one.target_object)} - set(ids)
    staying = [one for one in _associations(remote, sorted(ends)) if one.entry_uuid not in ids] if ends else []
    alone = ends - {end for one in staying for end in (one.source_object, one.target_object)}
    if alone:
        raise Refused(f"nothing would refer to {min(alone)}, which is not to be removed; nothing was removed")


def _associations(remote: Client, ids: Sequence[str]) -> list[Association]:
    from schemas import rim

    query = GetAssociations(uuid=tuple(ids), metadata_level=_ALL_VERSIONS)
    return [one for one in rim.decode_fragments(remote.query(query).fragments) if isinstance(one, Association)]


def _remove_documents(
    requests: Iterable[DocumentRequest],
    repositories: Sequence[str],
    config: Config,
    *,
    missing_is_removed: bool = True,
) -> int:
    """Asks each repository once for all of its documents; how many are gone. Refused at the first that refuses, saying what has gone."""
    from repository.client import removal
    from server.compose import soap_client

    urls, removed = addresses(repositories, config), 0
    ordered = sorted(requests, key=lambda one: one.repository_unique_id)
    groups = [(name, list(group)) for name, group in groupby(ordered, key=lambda one: one.repository_unique_id)]
    for name, _ in groups:
        _address(name, urls)
    with spooling() as spool:
        for name, group in groups:
            ask = removal(soap_client(_address(name, urls), spool))
            try:
                _remove_from_one(group, ask, missing_is_removed=missing_is_removed)
            except (Failure, SoapFault, OSError, ValueError) as error:
                # Who refuses a message refuses all of it.
                left = "its documents stay" if isinstance(error, Failure) else "some of its documents may be gone"
                gone = f"; {show.counted(removed, 'document')} of other repositories removed before" if removed else ""
                raise Refused(f"repository {name}: {error}; {left}{gone}") from None
            removed += len(group)
    return removed


def _address(repository_unique_id: str, urls: Mapping[str, str]) -> str:
    url = urls.get(repository_unique_id, urls.get(""))
    if url is None:
        raise Refused(f"say where repository {repository_unique_id} is: --repository {repository_unique_id}=URL")
    return url


def _remove_from_one(requests: Sequence[DocumentRequest], ask: RemoveDocuments, *, missing_is_removed: bool) -> None:
    """All in one message, or one after the other where the repository takes no more: the published schema has room for one."""
    try:
        _remove_together(requests, ask, missing_is_removed=missing_is_removed)
    except SoapFault as fault:
        if len(requests) == 1 or fault.subcode:
            raise
        for number, one in enumerate(requests):
            try:
                _remove_together([one], ask, missing_is_removed=missing_is_removed)
            except Failure as failure:
                raise ValueError(f"{failure}, after {show.counted(number, 'document')} of it were removed") from None


def _remove_together(requests: Sequence[DocumentRequest], ask: RemoveDocuments, *, missing_is_removed: bool) -> None:
    """What went at an earlier attempt is not there any more, which is as good as removed."""
    try:
        ask(requests)
    except Failure as failure:
        missing = {one.location for one in failure.problems if one.code == ErrorCode.DOCUMENT_UNIQUE_ID_ERROR}
        left = [one for one in requests if one.document_unique_id not in missing]
        if not missing_is_removed or any(one.location not in missing for one in failure.problems):
            raise
        if left:
            ask(left)


COMMANDS: tuple[click.Command, ...] = (remove, remove_documents)
