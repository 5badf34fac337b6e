"""The Imaging Document Source's SOAP operation: RAD-69."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from schemas import xdsb, xdsi
from schemas.ns import XDSI, clark
from soap.client import new_content_id
from soap.operations import Call, Operation, Reply, Service
from xds.messages import Outcome, Retrieved
from xds.problems import ErrorCode, Failure, Problem
from xds.transactions import RetrieveImages

_log = logging.getLogger("xdsi.imaging")
RETRIEVE_IMAGES = "urn:ihe:rad:2009:RetrieveImagingDocumentSet"
# RAD-69 is answered with the action of ITI-43.
RETRIEVE_RESPONSE = "urn:ihe:iti:2007:RetrieveDocumentSetResponse"


def service(*, retrieve_images: RetrieveImages, describe: Callable[[str, str | None], bytes | None]) -> Service:
    """The Imaging Document Source as a SOAP service. A refusal is a response with every problem; what nobody foresaw, an incident."""

    def answer(call: Call) -> Reply:
        retrieved: list[tuple[Retrieved, str]] = []
        problems: list[Problem] = []
        try:
            for one in retrieve_images(xdsi.decode_imaging_request(call.body)):
                if isinstance(one, Problem):
                    problems.append(one)
                else:
                    retrieved.append((one, new_content_id()))
        except Failure as failure:
            retrieved, problems = [], list(failure.problems)
        except Exception:
            retrieved, problems = [], [_incident()]
        outcome = Outcome.of(problems, results=len(retrieved))
        return Reply(
            body=xdsb.encode_retrieve_response(outcome, retrieved),
            documents=[(content_id, one.document) for one, content_id in retrieved],
            status=lambda: outcome.status,
        )

    return Service(
        name="ImagingDocumentSource",
        describe=describe,
        operations=(
            Operation(
                name="ImagingDocumentSource_RetrieveImagingDocumentSet",
                transaction="RAD-69",
                action=RETRIEVE_IMAGES,
                element=clark(XDSI, "RetrieveImagingDocumentSetRequest"),
                reply_action=RETRIEVE_RESPONSE,
                mtom=True,
                answer=answer,
            ),
        ),
    )


def _incident() -> Problem:
    """The problem that stands for the exception being handled; its traceback stays in the log."""
    number = uuid.uuid4()
    _log.exception("incident %s in RAD-69", number)
    context = f"internal error; the imaging source's log has it as incident {number}"
    return Problem(code=ErrorCode.REPOSITORY_ERROR, context=context)
