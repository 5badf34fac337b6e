"""The repository's SOAP operations: ITI-41, ITI-43 and ITI-86."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from uuid import uuid4

from repository.iti86_remove import Removal
from repository.trouble import code_of
from schemas import rmd, rs, xdsb
from schemas.ns import RMD, XDSB, clark
from soap import xop
from soap.client import new_content_id
from soap.fault import SoapFault
from soap.operations import Call, Operation, Reply, Service
from xds.messages import Document, Outcome, Retrieved
from xds.metadata import Submission
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.transactions import Provide, RemoveDocuments, Retrieve
from xds.vocabulary import ResponseStatus

_log = logging.getLogger("xdsi.repository")
PROVIDE = "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b"
RETRIEVE = "urn:ihe:iti:2007:RetrieveDocumentSet"
REMOVE = "urn:ihe:iti:2017:RemoveDocuments"


def service(
    *,
    provide: Provide,
    retrieve: Retrieve,
    describe: Callable[[str, str | None], bytes | None],
    remove: RemoveDocuments | None = None,
    audit: Callable[[Removal], None] = lambda removal: None,
    submitting: Executor | None = None,
) -> Service:
    """The Document Repository as a SOAP service. A refusal is a response with every problem; what nobody foresaw, an incident.

    ITI-86 is not offered where `remove` is None; `audit` hears of every removal that was asked for, before the sender does. Submissions
    wait in the threads of `submitting` for the disk and for the registry, so that one that does not answer holds up no retrieval;
    without it in the thread that answers.
    """
    removal = () if remove is None else (_removal(remove, audit),)
    return Service(
        name="DocumentRepository",
        describe=describe,
        operations=(
            Operation(
                name="DocumentRepository_ProvideAndRegisterDocumentSet-b",
                transaction="ITI-41",
                action=PROVIDE,
                element=clark(XDSB, "ProvideAndRegisterDocumentSetRequest"),
                reply_action=f"{PROVIDE}Response",
                mtom=True,
                answer=lambda call: _provide(call, provide, submitting),
            ),
            Operation(
                name="DocumentRepository_RetrieveDocumentSet",
                transaction="ITI-43",
                action=RETRIEVE,
                element=clark(XDSB, "RetrieveDocumentSetRequest"),
                reply_action=f"{RETRIEVE}Response",
                mtom=True,
                answer=lambda call: _retrieve(call, retrieve),
            ),
            *removal,
        ),
    )


def _removal(remove: RemoveDocuments, audit: Callable[[Removal], None]) -> Operation:
    return Operation(
        name="DocumentRepository_RemoveDocuments",
        transaction="ITI-86",
        action=REMOVE,
        element=clark(RMD, "RemoveDocumentsRequest"),
        reply_action=f"{REMOVE}Response",
        mtom=False,
        answer=lambda call: _answered(_remove(call, remove, audit)),
    )


def _remove(call: Call, remove: RemoveDocuments, audit: Callable[[Removal], None]) -> Outcome:
    try:
        requests = rmd.decode_remove_request(call.body)
    except Failure as failure:
        return _refusal(failure)
    try:
        outcome = remove(requests)
    except Failure as failure:
        outcome = _refusal(failure)
    except Exception:
        outcome = Outcome.of([_incident("ITI-86")])
    audit(Removal(message_id=call.message_id, requests=requests, outcome=outcome))
    return outcome


def _answered(outcome: Outcome) -> Reply:
    return Reply(body=[rs.encode_outcome(outcome)], status=lambda: outcome.status, codes=lambda: outcome.codes)


def _provide(call: Call, provide: Provide, submitting: Executor | None) -> Reply:
    try:
        submission, documents = _read(call)
    except SoapFault:
        # A reference to no part is a fault of the framing (ITI TF-2 Appendix V.3.6).
        raise
    except Failure as failure:
        return _answered(_refusal(failure))
    except Exception:
        return _answered(Outcome.of([_incident("ITI-41")]))
    if submitting is None:
        return _answered(_provided(submission, documents, provide))
    future = submitting.submit(_provided, submission, documents, provide)
    return Reply(
        body=_later(future),
        ready=future,
        status=lambda: future.result().status,
        codes=lambda: future.result().codes,
    )


def _read(call: Call) -> tuple[Submission, dict[str, Document]]:
    """The submission, and its documents by their ids. Failure where two have the same."""
    submission, elements = xdsb.decode_provide(call.body)
    repeated = [name for name, count in Counter(name for name, _ in elements).items() if count > 1]
    if repeated:
        raise Failure(
            Problem(code=ErrorCode.REPOSITORY_ERROR, context=f"Document {name}: several Documents have this id")
            for name in repeated
        )
    return submission, {name: xop.resolve(element, call.documents) for name, element in elements}


def _provided(submission: Submission, documents: Mapping[str, Document], provide: Provide) -> Outcome:
    try:
        return provide(submission, documents)
    except Failure as failure:
        return _refusal(failure)
    except Exception:
        return Outcome.of([_incident("ITI-41")])


def _later(future: Future[Outcome]) -> Iterator[bytes]:
    yield rs.encode_outcome(future.result())


def _retrieve(call: Call, retrieve: Retrieve) -> Reply:
    retrieved: list[tuple[Retrieved, str]] = []
    problems: list[Problem] = []
    try:
        # The status stands before the documents: all of them have been checked before the first byte goes out.
        for answer in retrieve(xdsb.decode_retrieve_request(call.body)):
            if isinstance(answer, Problem):
                problems.append(answer)
            else:
                retrieved.append((answer, new_content_id()))
        outcome = Outcome.of(problems, results=len(retrieved))
    except Failure as failure:
        retrieved, outcome = [], _refusal(failure)
    except Exception:
        retrieved, outcome = [], Outcome.of([_incident("ITI-43")])
    return Reply(
        body=xdsb.encode_retrieve_response(outcome, retrieved),
        documents=[(content_id, one.document) for one, content_id in retrieved],
        status=lambda: outcome.status,
        codes=lambda: outcome.codes,
    )


def _refusal(failure: Failure) -> Outcome:
    """Failure with the problems as they are; a response that says Failure holds at least one error (ITI TF-3 4.2.4.2)."""
    problems = failure.problems
    if not errors(problems):
        problems += (Problem(code=ErrorCode.REPOSITORY_ERROR, context="refused without a reason"),)
    return Outcome(status=ResponseStatus.FAILURE, problems=problems)


def _incident(transaction: str) -> Problem:
    """The problem that stands for the exception being handled; its traceback stays in the log."""
    number = uuid4()
    _log.exception("incident %s in %s", number, transaction)
    code, reason = code_of(sys.exception())
    return Problem(code=code, context=f"{reason}; the repository's log has it as incident {number}")
