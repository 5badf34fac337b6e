"""The registry's SOAP operations: ITI-42 and ITI-18."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from schemas import lcm, rs
from schemas import query as wire
from schemas.ns import LCM, QUERY, clark
from soap.operations import Call, Operation, Reply, Service
from xds.messages import Outcome, QueryResult
from xds.problems import ErrorCode, Failure, Problem
from xds.transactions import Query, Register

_log = logging.getLogger("xdsi.registry")
REGISTER = "urn:ihe:iti:2007:RegisterDocumentSet-b"
STORED_QUERY = "urn:ihe:iti:2007:RegistryStoredQuery"


def service(*, register: Register, query: Query, describe: Callable[[str, str | None], bytes | None]) -> Service:
    """The Document Registry as a SOAP service. A refusal is a response with every problem; what nobody foresaw, an incident."""

    def answer_register(call: Call) -> Reply:
        try:
            outcome = register(lcm.decode_submission(call.body))
        except Failure as failure:
            outcome = Outcome.of(failure.problems)
        except Exception:
            outcome = Outcome.of([incident("ITI-42")])
        return Reply(body=[rs.encode_outcome(outcome)])

    def answer_query(call: Call) -> Reply:
        try:
            result = query(wire.decode_query(call.body))
        except Failure as failure:
            result = QueryResult(outcome=Outcome.of(failure.problems))
        except Exception:
            result = QueryResult(outcome=Outcome.of([incident("ITI-18")]))
        return Reply(body=wire.encode_result(result))

    return Service(
        name="DocumentRegistry",
        describe=describe,
        operations=(
            Operation(
                name="DocumentRegistry_RegisterDocumentSet-b",
                action=REGISTER,
                element=clark(LCM, "SubmitObjectsRequest"),
                reply_action=f"{REGISTER}Response",
                mtom=False,
                answer=answer_register,
            ),
            Operation(
                name="DocumentRegistry_RegistryStoredQuery",
                action=STORED_QUERY,
                element=clark(QUERY, "AdhocQueryRequest"),
                reply_action=f"{STORED_QUERY}Response",
                mtom=False,
                answer=answer_query,
            ),
        ),
    )


def incident(transaction: str) -> Problem:
    """The problem that stands for the exception being handled; its traceback stays in the log."""
    number = uuid.uuid4()
    _log.exception("incident %s in %s", number, transaction)
    context = f"internal error; the registry's log has it as incident {number}"
    return Problem(code=ErrorCode.REGISTRY_ERROR, context=context)
