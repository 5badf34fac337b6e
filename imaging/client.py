"""A remote Imaging Document Source, with the same function as a local one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from imaging.service import RETRIEVE_IMAGES
from schemas import xdsb, xdsi
from soap import xop
from soap.client import SoapClient
from xds.messages import Document, DocumentRequest, ImagingRequest, Retrieved, SeriesRequest, StudyRequest
from xds.problems import ErrorCode, Problem
from xds.transactions import RetrieveImages

Named = tuple[StudyRequest, SeriesRequest, DocumentRequest]


def client(soap: SoapClient, *, batch: int = 50) -> RetrieveImages:
    """RAD-69 at a remote source, `batch` instances in each message.

    A Retrieved's document lives until the next one is asked for. SoapFault for a fault, OSError where there is no answer, ValueError
    for an answer that is none.
    """

    def retrieve_images(request: ImagingRequest) -> Iterator[Retrieved | Problem]:
        every = list(request.documents)
        for start in range(0, len(every), batch):
            yield from _one_batch(soap, every[start : start + batch], request.transfer_syntax_uids)

    return retrieve_images


def _one_batch(soap: SoapClient, named: Sequence[Named], syntaxes: tuple[str, ...]) -> Iterator[Retrieved | Problem]:
    message = xdsi.encode_imaging_request(_request(named, syntaxes))
    with soap.call(RETRIEVE_IMAGES, [message], mtom=True) as received:
        outcome, documents = xdsb.decode_retrieve_response(received.body)
        found = {one.document_unique_id: (mime_type, element) for one, mime_type, element in documents}
        problems = {problem.location: problem for problem in outcome.problems}
        for _, _, request in named:
            uid = request.document_unique_id
            if uid in found:
                mime_type, element = found[uid]
                part = xop.resolve(element, received.documents)
                document = Document(size=part.size, sha1=part.sha1, mime_type=mime_type, open=part.open, path=part.path)
                yield Retrieved(request=request, document=document)
            else:
                yield problems.get(uid) or next(iter(outcome.problems), None) or _unmentioned(uid)


def _request(named: Sequence[Named], syntaxes: tuple[str, ...]) -> ImagingRequest:
    """The request for some of the instances, nested again as the schema wants them."""
    studies = []
    for study_uid, of_study in groupby(named, key=lambda one: one[0].study_instance_uid):
        series = [
            SeriesRequest(series_instance_uid=series_uid, documents=tuple(document for _, _, document in of_series))
            for series_uid, of_series in groupby(of_study, key=lambda one: one[1].series_instance_uid)
        ]
        studies.append(StudyRequest(study_instance_uid=study_uid, series=tuple(series)))
    return ImagingRequest(studies=tuple(studies), transfer_syntax_uids=syntaxes)


def _unmentioned(uid: str) -> Problem:
    context = f"instance {uid}: the source answered neither with the instance nor with an error"
    return Problem(code=ErrorCode.REPOSITORY_ERROR, context=context, location=uid)
