"""A remote repository, with the same functions as a local one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from repository.service import PROVIDE, REMOVE, RETRIEVE
from schemas import rmd, rs, xdsb
from soap import xop
from soap.client import Received, SoapClient, new_content_id
from xds.messages import Document, DocumentRequest, Outcome, Retrieved
from xds.metadata import Submission
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.transactions import Provide, RemoveDocuments, Retrieve
from xds.vocabulary import ResponseStatus


def client(soap: SoapClient) -> tuple[Provide, Retrieve]:
    """ITI-41 and ITI-43 at a remote repository.

    Provide raises Failure for what the repository refuses. Both raise SoapFault for a fault, OSError where there is no answer, and
    ValueError for an answer that is none. A retrieved document can be read until its iterator has ended.
    """

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        content_ids = {document_id: new_content_id() for document_id in documents}
        body = xdsb.encode_provide(submission, content_ids)
        parts = [(content_ids[document_id], document) for document_id, document in documents.items()]
        with soap.call(PROVIDE, [body], parts, mtom=True) as received:
            outcome = rs.decode_outcome(received.body)
        if outcome.status is ResponseStatus.FAILURE:
            raise Failure(outcome.problems)
        return outcome

    def retrieve(requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        if requests:
            with soap.call(RETRIEVE, [xdsb.encode_retrieve_request(requests)], mtom=True) as received:
                yield from _answers(requests, received)

    return provide, retrieve


def removal(soap: SoapClient) -> RemoveDocuments:
    """ITI-86 at a remote repository. Failure for what it refuses; otherwise it raises as `client` does."""

    def remove(requests: Sequence[DocumentRequest]) -> Outcome:
        with soap.call(REMOVE, [rmd.encode_remove_request(requests)], mtom=False) as received:
            outcome = rs.decode_outcome(received.body)
        if outcome.status is ResponseStatus.FAILURE:
            raise Failure(outcome.problems)
        return outcome

    return remove


def _answers(requests: Sequence[DocumentRequest], received: Received) -> Iterator[Retrieved | Problem]:
    """What the response says about each request, in the order of the requests, which need not be that of the response."""
    outcome, responses = xdsb.decode_retrieve_response(received.body)
    found: dict[tuple[str, str], list[Document]] = {}
    for answered, mime_type, element in responses:
        document = replace(xop.resolve(element, received.documents), mime_type=mime_type)
        found.setdefault(_key(answered), []).append(document)
    asked = {request.document_unique_id for request in requests}
    located = {problem.location: problem for problem in errors(outcome.problems) if problem.location in asked}
    # A repository need not say which document it means: what has no location of ours explains all that is missing.
    general = next((problem for problem in errors(outcome.problems) if problem.location not in asked), None)
    for request in requests:
        documents = found.get(_key(request))
        if documents:
            # The last one stays: a repository may answer once what it was asked twice.
            document = documents.pop(0) if len(documents) > 1 else documents[0]
            yield Retrieved(request=request, document=document)
        else:
            yield _missing(request, located.get(request.document_unique_id) or general)


def _missing(request: DocumentRequest, problem: Problem | None) -> Problem:
    location = request.document_unique_id
    if problem is not None:
        return replace(problem, location=location)
    context = (
        f"document {location}: repository {request.repository_unique_id} answered neither with it nor with an error"
    )
    return Problem(code=ErrorCode.REPOSITORY_ERROR, context=context, location=location)


def _key(request: DocumentRequest) -> tuple[str, str]:
    return request.repository_unique_id, request.document_unique_id
