"""A remote registry, with the same functions as a local one."""

from __future__ import annotations

from registry.service import REGISTER, STORED_QUERY
from schemas import lcm, rs
from schemas import query as wire
from soap.client import SoapClient
from xds.messages import Outcome, QueryResult
from xds.metadata import Submission
from xds.problems import Failure
from xds.queries import StoredQuery
from xds.transactions import Query, Register
from xds.vocabulary import ResponseStatus


def client(soap: SoapClient) -> tuple[Register, Query]:
    """ITI-42 and ITI-18 at a remote registry.

    Both raise Failure for what the registry refuses, SoapFault for a fault, OSError where there is no answer, and ValueError for an
    answer that is none.
    """

    def register(submission: Submission) -> Outcome:
        with soap.call(REGISTER, [lcm.encode_submission(submission)], mtom=False) as received:
            return _accepted(rs.decode_outcome(received.body))

    def query(asked: StoredQuery) -> QueryResult:
        with soap.call(STORED_QUERY, [wire.encode_query(asked)], mtom=False) as received:
            result = wire.decode_result(received.body)
        _accepted(result.outcome)
        return result

    return register, query


def _accepted(outcome: Outcome) -> Outcome:
    if outcome.status is ResponseStatus.FAILURE:
        raise Failure(outcome.problems)
    return outcome
