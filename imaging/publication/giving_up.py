"""Ending a submission to which there is never a verdict: by what the registry has of it, for sending it for ever helps nobody."""

from __future__ import annotations

from imaging.publication.publication_rows import Publication
from imaging.publication.publications import Publications
from imaging.publication.rad68_provide import PublishError
from schemas import rim
from xds.metadata import DocumentEntry
from xds.problems import Failure
from xds.queries import GetDocuments
from xds.transactions import Query
from xds.vocabulary import Status


def give_up(study_instance_uid: str, *, publications: Publications, query: Query) -> bool:
    """Ends the submission of a study that is under way. True if the registry has what it was to do: then it has succeeded.

    Else the study is published with another submission next. PublishError where none is under way, or another attempt has begun
    meanwhile; Failure, or whatever the transport raises, where the registry does not say what it has: then nothing is changed.
    """
    under_way = publications.submitting(study_instance_uid)
    if under_way is None:
        raise PublishError(f"study {study_instance_uid} has no submission without a verdict")
    if _is_done(under_way, query):
        publications.succeeded(under_way)
        return True
    if not publications.refused(under_way):
        raise PublishError(
            f"the submission of study {study_instance_uid} is being sent again at this moment; wait for its end"
        )
    publications.retry(study_instance_uid)
    return False


def _is_done(submission: Publication, query: Query) -> bool:
    """Whether its documents are registered, or, for a withdrawal, none of those is Approved any more."""
    asked = tuple(one.document_unique_id for one in submission.documents) or submission.ends
    result = query(GetDocuments(unique_id=asked))
    if not result.outcome.succeeded:
        raise Failure(result.outcome.problems)
    entries = [one for one in rim.decode_fragments(result.fragments) if isinstance(one, DocumentEntry)]
    if submission.documents:
        return bool(entries)
    return all(one.availability_status != Status.APPROVED for one in entries)
