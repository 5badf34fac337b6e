"""The registry's SOAP operations: ITI-42 and ITI-18, and those of its options."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from database.connections import DatabaseLost, DatabaseUnreachable, is_full
from schemas import lcm, rs
from schemas import query as wire
from schemas.ns import LCM, QUERY, clark
from soap.operations import Call, Operation, Reply, Service
from xds.messages import Outcome, QueryResult
from xds.metadata import Submission
from xds.problems import ErrorCode, Failure, Problem
from xds.transactions import Query, Remove

_log = logging.getLogger("xdsi.registry")
REGISTER = "urn:ihe:iti:2007:RegisterDocumentSet-b"
STORED_QUERY = "urn:ihe:iti:2007:RegistryStoredQuery"
MULTI_PATIENT_QUERY = "urn:ihe:iti:2009:MultiPatientStoredQuery"
REGISTER_ON_DEMAND = "urn:ihe:iti:2010:RegisterOnDemandDocumentEntry"
#: Not the request's with "Response" behind it (ITI TF-2 3.61).
REGISTER_ON_DEMAND_RESPONSE = "urn:ihe:iti:2010:RegisterOnDemandDocumentResponse"
UPDATE = "urn:ihe:iti:2010:UpdateDocumentSet"
RESTRICTED_UPDATE = "urn:ihe:iti:2018:RestrictedUpdateDocumentSet"
REMOVE = "urn:ihe:iti:2010:DeleteDocumentSet"

#: A transaction that takes a submission: it answers at once, or when the disk has what it wrote.
Submit = Callable[[Submission], Outcome | Future[Outcome]]


def service(
    *,
    register: Submit,
    query: Query,
    describe: Callable[[str, str | None], bytes | None],
    register_on_demand: Submit | None = None,
    multi_patient: bool = False,
    update: Submit | None = None,
    restricted_update: Submit | None = None,
    remove: Remove | None = None,
    more: Iterable[Operation] = (),
) -> Service:
    """The Document Registry as a SOAP service. A refusal is a response with every problem; what nobody foresaw, an incident.

    A transaction that is None is not offered. `more` are operations of other origin that are answered at the same address.
    """
    operations = [
        _submission("DocumentRegistry_RegisterDocumentSet-b", "ITI-42", REGISTER, register),
        _query("DocumentRegistry_RegistryStoredQuery", "ITI-18", STORED_QUERY, query, multi_patient=False),
    ]
    if multi_patient:
        name = "DocumentRegistry_MultiPatientStoredQuery"
        operations.append(_query(name, "ITI-51", MULTI_PATIENT_QUERY, query, multi_patient=True))
    if register_on_demand is not None:
        name, response = "DocumentRegistry_RegisterOnDemandDocumentEntry", REGISTER_ON_DEMAND_RESPONSE
        operations.append(_submission(name, "ITI-61", REGISTER_ON_DEMAND, register_on_demand, response))
    if update is not None:
        operations.append(_submission("DocumentRegistry_UpdateDocumentSet", "ITI-57", UPDATE, update))
    if restricted_update is not None:
        name = "UpdateResponder_RestrictedUpdateDocumentSet"
        operations.append(_submission(name, "ITI-92", RESTRICTED_UPDATE, restricted_update))
    if remove is not None:
        operations.append(_removal(remove))
    return Service(name="DocumentRegistry", describe=describe, operations=(*operations, *more))


def _submission(name: str, transaction: str, action: str, take: Submit, reply_action: str | None = None) -> Operation:
    """An operation that takes lcm:SubmitObjectsRequest and answers rs:RegistryResponse."""
    return Operation(
        name=name,
        transaction=transaction,
        action=action,
        element=clark(LCM, "SubmitObjectsRequest"),
        reply_action=reply_action or f"{action}Response",
        mtom=False,
        answer=lambda call: _outcome(transaction, lambda: take(lcm.decode_submission(call.body))),
    )


def _removal(remove: Remove) -> Operation:
    return Operation(
        name="DocumentRegistry_DeleteDocumentSet",
        transaction="ITI-62",
        action=REMOVE,
        element=clark(LCM, "RemoveObjectsRequest"),
        reply_action=f"{REMOVE}Response",
        mtom=False,
        answer=lambda call: _outcome("ITI-62", lambda: remove(lcm.decode_remove(call.body))),
    )


def _outcome(transaction: str, work: Callable[[], Outcome | Future[Outcome]]) -> Reply:
    try:
        outcome = work()
    except Exception as error:
        outcome = _refused(transaction, error)
    if isinstance(outcome, Future):
        return _later(transaction, outcome)
    return Reply(body=[rs.encode_outcome(outcome)], status=lambda: outcome.status, codes=lambda: outcome.codes)


def _later(transaction: str, future: Future[Outcome]) -> Reply:
    """The answer that the future holds when it is done."""
    outcome = Outcome()

    def body() -> Iterator[bytes]:
        nonlocal outcome
        try:
            outcome = future.result()
        except Exception as error:
            outcome = _refused(transaction, error)
        yield rs.encode_outcome(outcome)

    return Reply(body=body(), ready=future, status=lambda: outcome.status, codes=lambda: outcome.codes)


def _refused(transaction: str, error: Exception) -> Outcome:
    problems = error.problems if isinstance(error, Failure) else [unforeseen(transaction, error)]
    return Outcome.of(problems)


def _query(name: str, transaction: str, action: str, query: Query, *, multi_patient: bool) -> Operation:
    def answer(call: Call) -> Reply:
        try:
            result = query(wire.decode_query(call.body, multi_patient=multi_patient))
        except Failure as failure:
            result = QueryResult(outcome=Outcome.of(failure.problems))
        except Exception as error:
            result = QueryResult(outcome=Outcome.of([unforeseen(transaction, error)]))
        outcome = result.outcome
        return Reply(body=wire.encode_result(result), status=lambda: outcome.status, codes=lambda: outcome.codes)

    return Operation(
        name=name,
        transaction=transaction,
        action=action,
        element=clark(QUERY, "AdhocQueryRequest"),
        reply_action=f"{action}Response",
        mtom=False,
        answer=answer,
    )


def unforeseen(transaction: str, error: Exception) -> Problem:
    """The problem that stands for an exception; its traceback stays in the log."""
    number = uuid.uuid4()
    # An outage of the database makes thousands of these, all alike: a line for each is enough.
    outage = isinstance(error, DatabaseLost)
    said = f": {' '.join(str(error).split())}" if outage else ""
    _log.error("incident %s in %s%s", number, transaction, said, exc_info=None if outage else error)
    logged = f"the registry's log has it as incident {number}"
    if isinstance(error, DatabaseUnreachable):
        context = f"the registry's database cannot be reached; nothing was stored; {logged}"
        return Problem(code=ErrorCode.REGISTRY_ERROR, context=context)
    if outage:
        context = f"the connection to the registry's database was lost; whether this was stored is not known; {logged}"
        return Problem(code=ErrorCode.REGISTRY_ERROR, context=context)
    if is_full(error):
        context = f"the registry's database has no room left; nothing was stored; {logged}"
        return Problem(code=ErrorCode.REGISTRY_OUT_OF_RESOURCES, context=context)
    return Problem(code=ErrorCode.REGISTRY_ERROR, context=f"internal error; {logged}")
