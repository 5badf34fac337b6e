"""rmd:RemoveDocumentsRequest of ITI-86, to text and back (IHE supplement Remove Metadata and Documents, 3.86.4.1.2)."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from schemas import xdsb
from schemas.ns import RMD, XDSB
from xds.messages import DocumentRequest


def decode_remove_documents(element: etree._Element) -> tuple[DocumentRequest, ...]:
    """What is to be removed, in order. Failure (XDSRepositoryError) where an id is missing, naming which request lacks what.

    A DocumentRequest belongs to the namespace of ITI-43; in that of the root it is taken too.
    """
    return xdsb.decode_document_requests(element, (XDSB, RMD))


def encode_remove_documents(requests: Iterable[DocumentRequest]) -> bytes:
    rows = xdsb.document_requests_text(requests)
    return (
        f'<rmd:RemoveDocumentsRequest xmlns:rmd="{RMD}" xmlns:xds="{XDSB}">{rows}</rmd:RemoveDocumentsRequest>'.encode()
    )
