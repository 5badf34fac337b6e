"""A remote repository, with the same functions as a local one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from repository.service import PROVIDE, REMOVE, RETRIEVE
from schemas import rmd, rs, xdsb
from soap import xop
from soap.client import Received, SoapClient, new_content_id
from soap.fault import SoapFault
from xds.messages import Document, DocumentRequest, Outcome, Retrieved
from xds.metadata import Submission
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.transactions import Provide, RemoveDocuments, Retrieve
from xds.vocabulary import ResponseStatus

#: Documents that are asked for in one message, unless said otherwise: some repositories refuse more.
MAX_DOCUMENTS = 100


def client(soap: SoapClient, *, max_documents: int = MAX_DOCUMENTS) -> tuple[Provide, Retrieve]:
    """ITI-41 and ITI-43 at a remote repository.

    Provide raises Failure for what the repository refuses. Both raise SoapFault for a fault, OSError where there is no answer, and
    ValueError for an answer that is none.

    Retrieve asks for at most `max_documents` in each message, and for half as many each time that the repository refuses a message
    as a whole. A retrieved document can be read until the next one is asked for.
    """

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        content_ids = {document_id: new_content_id() for document_id in documents}
        body = xdsb.encode_provide(submission, content_ids)
        parts = [(content_ids[document_id], document) for document_id, document in documents.items()]
        with soap.call(PROVIDE, [body], parts, mtom=True) as received:
            return _accepted(rs.decode_outcome(received.body))

    def retrieve(requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        at, size = 0, max_documents
        while at < len(requests):
            asked = requests[at : at + size]
            try:
                with soap.call(RETRIEVE, [xdsb.encode_retrieve_request(asked)], mtom=True) as received:
                    yield from _answers(asked, received)
            except (SoapFault, _RefusedAsAWhole) as refusal:
                # A fault of addressing has nothing to do with how many they are.
                if len(asked) == 1 or getattr(refusal, "subcode", None):
                    raise
                # Nothing of it has been given yet: the refusal stands before the first document.
                size = len(asked) // 2
            else:
                at += len(asked)

    return provide, retrieve


class _RefusedAsAWhole(Exception):
    """The repository names no document of several: perhaps they are too many for it."""


def removal(soap: SoapClient) -> RemoveDocuments:
    """ITI-86 at a remote repository. Failure for what it refuses; SoapFault, OSError and ValueError as above."""

    def remove(requests: Sequence[DocumentRequest]) -> Outcome:
        with soap.call(REMOVE, [rmd.encode_remove_request(requests)], mtom=False) as received:
            return _accepted(rs.decode_outcome(received.body))

    return remove


def routed(repositories: Mapping[str, Retrieve]) -> Retrieve:
    """ITI-43 at several repositories, by repositoryUniqueId; "" is the one to be asked for all that have no other.

    They are asked one after the other, in the order of the requests, so that those for one repository should stand together. A
    repository that does not answer, or answers with a fault, is a Problem for each of its documents and keeps nobody from the others.
    """

    def retrieve(requests: Sequence[DocumentRequest]) -> Iterator[Retrieved | Problem]:
        for repository, group in groupby(requests, key=lambda one: one.repository_unique_id):
            of_one = list(group)
            ask = repositories.get(repository, repositories.get(""))
            if ask is None:
                yield from (_nowhere(one, repositories) for one in of_one)
                continue
            answered = 0
            try:
                for answer in ask(of_one):
                    answered += 1
                    yield answer
            except (SoapFault, Failure, OSError, ValueError) as error:
                for one in of_one[answered:]:
                    uid = one.document_unique_id
                    context = f"document {uid}: repository {repository} cannot be asked: {error}"
                    yield Problem(code=ErrorCode.REPOSITORY_ERROR, context=context, location=uid)

    return retrieve


def _nowhere(request: DocumentRequest, repositories: Mapping[str, Retrieve]) -> Problem:
    uid = request.document_unique_id
    context = (
        f"document {uid}: the address of repository {request.repository_unique_id} is not known;"
        f" known are {', '.join(repositories) or 'none'}"
    )
    return Problem(code=ErrorCode.UNKNOWN_REPOSITORY_ID, context=context, location=uid)


def _accepted(outcome: Outcome) -> Outcome:
    if outcome.status is ResponseStatus.FAILURE:
        raise Failure(outcome.problems)
    return outcome


def _answers(requests: Sequence[DocumentRequest], received: Received) -> Iterator[Retrieved | Problem]:
    """What the response says about each request, in the order of the requests, which need not be that of the response."""
    outcome, responses = xdsb.decode_retrieve_response(received.body)
    found: dict[tuple[str, str], list[Retrieved]] = {}
    for answered, mime_type, element in responses:
        document = replace(xop.resolve(element, received.documents), mime_type=mime_type)
        repository, unique_id = xdsb.decode_new_ids(element)
        one = Retrieved(
            request=answered,
            document=document,
            new_repository_unique_id=repository,
            new_document_unique_id=unique_id,
        )
        found.setdefault(_key(answered), []).append(one)
    asked = {request.document_unique_id for request in requests}
    located = {problem.location: problem for problem in errors(outcome.problems) if problem.location in asked}
    # A repository need not say which document it means: what has no location of ours explains all that is missing.
    general = next((problem for problem in errors(outcome.problems) if problem.location not in asked), None)
    if general is not None and not found and not located and len(requests) > 1:
        raise _RefusedAsAWhole
    for request in requests:
        answers = found.get(_key(request))
        if answers:
            # The last one stays: a repository may answer once what it was asked twice.
            yield replace(answers.pop(0) if len(answers) > 1 else answers[0], request=request)
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
