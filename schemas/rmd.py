"""rmd:RemoveDocumentsRequest (ITI TF-2 3.86, supplement Remove Metadata and Documents), to text and back."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from schemas.ns import RMD, XDSB
from schemas.xdsb import decode_document_request, document_request_text, missing_ids
from xds.messages import DocumentRequest
from xds.problems import ErrorCode, Failure, fail


def decode_remove_request(element: etree._Element) -> tuple[DocumentRequest, ...]:
    """What is to be removed, in order; the schema allows one, peers send several.

    Failure (XDSRemoveDocumentsError without any, XDSRepositoryError where an id is missing, naming which request lacks what).
    """
    requests = tuple(decode_document_request(child) for child in element.iterchildren(f"{{{XDSB}}}DocumentRequest"))
    if not requests:
        raise fail(ErrorCode.REMOVE_DOCUMENTS_ERROR, "RemoveDocumentsRequest: it holds no DocumentRequest")
    problems = [problem for number, request in enumerate(requests, 1) for problem in missing_ids(number, request)]
    if problems:
        raise Failure(problems)
    return requests


def encode_remove_request(requests: Iterable[DocumentRequest]) -> bytes:
    rows = "".join(f"<xds:DocumentRequest>{document_request_text(one)}</xds:DocumentRequest>" for one in requests)
    return (
        f'<rmd:RemoveDocumentsRequest xmlns:rmd="{RMD}" xmlns:xds="{XDSB}">{rows}</rmd:RemoveDocumentsRequest>'.encode()
    )
