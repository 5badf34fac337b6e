"""RetrieveImagingDocumentSetRequest of XDS-I.b: an ImagingRequest to text and back (RAD TF-2 4.69.4.1)."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from schemas.ns import XDSB, XDSI
from schemas.rim import escape
from schemas.xdsb import decode_document_request, document_request_text, missing_ids
from xds.messages import ImagingRequest, SeriesRequest, StudyRequest
from xds.problems import ErrorCode, Failure, Problem
from xds.values import is_oid


def _children(element: etree._Element, local: str) -> Iterator[etree._Element]:
    """By local name: peers put the children of SeriesRequest into either namespace (RAD TF-2 4.69.4.1.2)."""
    return (child for child in element.iterchildren(tag=etree.Element) if etree.QName(child).localname == local)


def decode_imaging_request(element: etree._Element) -> ImagingRequest:
    """The request. Failure (XDSRepositoryError) with every reason why it cannot be answered as a whole.

    Transfer syntaxes that are blank or no UIDs are dropped, repeated ones kept once, in the order of the message.
    """
    studies = tuple(
        StudyRequest(
            study_instance_uid=study.get("studyInstanceUID", "").strip(),
            series=tuple(
                SeriesRequest(
                    series_instance_uid=series.get("seriesInstanceUID", "").strip(),
                    documents=tuple(decode_document_request(one) for one in _children(series, "DocumentRequest")),
                )
                for series in _children(study, "SeriesRequest")
            ),
        )
        for study in _children(element, "StudyRequest")
    )
    syntaxes = [
        (uid.text or "").strip()
        for uid_list in _children(element, "TransferSyntaxUIDList")
        for uid in _children(uid_list, "TransferSyntaxUID")
    ]
    request = ImagingRequest(
        studies=studies, transfer_syntax_uids=tuple(dict.fromkeys(uid for uid in syntaxes if is_oid(uid)))
    )
    problems = list(_unusable(request, syntaxes))
    if problems:
        raise Failure(problems)
    return request


def _unusable(request: ImagingRequest, syntaxes: list[str]) -> Iterator[Problem]:
    def problem(context: str) -> Problem:
        return Problem(code=ErrorCode.REPOSITORY_ERROR, context=f"RetrieveImagingDocumentSetRequest: {context}")

    if not request.studies:
        yield problem("it holds no StudyRequest")
    for study in request.studies:
        if not study.series:
            yield problem(f"the StudyRequest of {study.study_instance_uid!r} holds no SeriesRequest")
        for series in study.series:
            if not series.documents:
                yield problem(f"the SeriesRequest of {series.series_instance_uid!r} holds no DocumentRequest")
    for number, (_, _, document) in enumerate(request.documents, 1):
        yield from missing_ids(number, document)
    if not syntaxes:
        yield problem("TransferSyntaxUIDList is missing or empty")
    elif not request.transfer_syntax_uids:
        yield problem(f"TransferSyntaxUIDList holds no UID, only {', '.join(map(repr, syntaxes[:5]))}")


def encode_imaging_request(request: ImagingRequest) -> bytes:
    studies = "".join(
        f'<iherad:StudyRequest studyInstanceUID="{escape(study.study_instance_uid)}">'
        + "".join(
            f'<iherad:SeriesRequest seriesInstanceUID="{escape(series.series_instance_uid)}">'
            + "".join(
                f"<xds:DocumentRequest>{document_request_text(document)}</xds:DocumentRequest>"
                for document in series.documents
            )
            + "</iherad:SeriesRequest>"
            for series in study.series
        )
        + "</iherad:StudyRequest>"
        for study in request.studies
    )
    syntaxes = "".join(
        f"<iherad:TransferSyntaxUID>{escape(uid)}</iherad:TransferSyntaxUID>" for uid in request.transfer_syntax_uids
    )
    return (
        f'<iherad:RetrieveImagingDocumentSetRequest xmlns:iherad="{XDSI}" xmlns:xds="{XDSB}">{studies}'
        f"<iherad:TransferSyntaxUIDList>{syntaxes}</iherad:TransferSyntaxUIDList>"
        "</iherad:RetrieveImagingDocumentSetRequest>"
    ).encode()
