"""A remote registry, with the same functions as a local one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.service import (
    MULTI_PATIENT_QUERY,
    REGISTER,
    REGISTER_ON_DEMAND,
    REMOVE,
    RESTRICTED_UPDATE,
    STORED_QUERY,
    UPDATE,
)
from schemas import lcm, rs
from schemas import query as wire
from soap.client import SoapClient
from xds.messages import Outcome, QueryResult
from xds.metadata import ObjectRef, Submission
from xds.problems import Failure
from xds.queries import MultiPatientQuery, StoredQuery
from xds.transactions import Query, Register, Remove
from xds.vocabulary import ResponseStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The transactions of a remote registry.

    Each raises Failure for what the registry refuses, SoapFault for a fault, OSError where there is no answer, and ValueError for an
    answer that is none.
    """

    register: Register
    query: Query
    register_on_demand: Register
    update: Register
    restricted_update: Register
    remove: Remove


def client(soap: SoapClient) -> Client:
    """ITI-42, ITI-18 and ITI-51 (by the kind of query), ITI-61, ITI-57, ITI-92 and ITI-62 at a remote registry."""

    def submitting(action: str) -> Register:
        def submit(submission: Submission) -> Outcome:
            with soap.call(action, [lcm.encode_submission(submission)], mtom=False) as received:
                return _accepted(rs.decode_outcome(received.body))

        return submit

    def query(asked: StoredQuery) -> QueryResult:
        action = MULTI_PATIENT_QUERY if isinstance(asked, MultiPatientQuery) else STORED_QUERY
        with soap.call(action, [wire.encode_query(asked)], mtom=False) as received:
            result = wire.decode_result(received.body)
        _accepted(result.outcome)
        return result

    def remove(refs: Sequence[ObjectRef]) -> Outcome:
        with soap.call(REMOVE, [lcm.encode_remove(refs)], mtom=False) as received:
            return _accepted(rs.decode_outcome(received.body))

    return Client(
        register=submitting(REGISTER),
        query=query,
        register_on_demand=submitting(REGISTER_ON_DEMAND),
        update=submitting(UPDATE),
        restricted_update=submitting(RESTRICTED_UPDATE),
        remove=remove,
    )


def _accepted(outcome: Outcome) -> Outcome:
    if outcome.status is ResponseStatus.FAILURE:
        raise Failure(outcome.problems)
    return outcome
