"""rmd:RemoveDocumentsRequest (ITI TF-2 3.86, supplement Remove Metadata and Documents), to text and back."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from schemas.ns import RMD, XDSB
from schemas.xdsb import decode_document_requests, document_requests_text
from xds.messages import DocumentRequest
from xds.problems import ErrorCode, fail


def decode_remove_request(element: etree._Element) -> tuple[DocumentRequest, ...]:
    """What is to be removed, in order; the schema allows one, peers send several, some of them in the namespace of the root.

    Failure (XDSRemoveDocumentsError without any, XDSRepositoryError where an id is missing, naming which request lacks what).
    """
    if len(element) == 0:
        raise fail(ErrorCode.REMOVE_DOCUMENTS_ERROR, "RemoveDocumentsRequest: it holds no DocumentRequest")
    return decode_document_requests(element, (XDSB, RMD))


def encode_remove_request(requests: Iterable[DocumentRequest]) -> bytes:
    rows = document_requests_text(requests)
    return (
        f'<rmd:RemoveDocumentsRequest xmlns:rmd="{RMD}" xmlns:xds="{XDSB}">{rows}</rmd:RemoveDocumentsRequest>'.encode()
    )
