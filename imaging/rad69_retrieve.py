"""RAD-69 Retrieve Imaging Document Set, the source's side (RAD TF-2 4.69.4)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from imaging.archive.fetching import Fetch, Fetching, Place
from imaging.instances import Instance, Instances
from imaging.pixels.transfer import NotGivenError, Transfer
from imaging.publication.rejections import Rejected
from xds.messages import Document, DocumentRequest, ImagingRequest, Retrieved, SeriesRequest, StudyRequest
from xds.problems import ErrorCode, Problem

_log = logging.getLogger("xdsi.imaging")
Answer = Retrieved | Problem


def retrieve_images(
    request: ImagingRequest,
    *,
    instances: Instances,
    transfer: Transfer,
    location_uids: Collection[str],
    rejected: Rejected,
    fetch: Fetch | None = None,
) -> Iterator[Answer]:
    """One Retrieved or one Problem for each requested instance, in the order of the request, duplicates answered each.

    `location_uids` are the repositoryUniqueIds that this source answers to: the RetrieveLocationUIDs of its manifests. An instance is
    given as it is stored where the request allows that, else re-encoded (`Transfer`), several at once. What is not stored is fetched
    from the archive behind this source, if there is one. What a rejection note lists is not given, and the error has the reason.
    """
    found = instances.find(document.document_unique_id for _, _, document in request.documents)
    reasons = rejected([document.document_unique_id for _, _, document in request.documents])
    refused = [_refusal(*one, location_uids) or _rejection(one[2], reasons) for one in request.documents]
    fetching = fetch(_elsewhere(request, refused, found)) if fetch is not None else None
    begun: deque[Callable[[], Answer]] = deque()
    for (study, series, document), refusal in zip(request.documents, refused, strict=True):
        stored = found.get(document.document_unique_id)
        if refusal is not None:
            begun.append(_said(refusal))
        elif stored is None and fetching is not None:
            begun.append(_fetched(study, series, document, fetching, transfer, request.transfer_syntax_uids))
        elif problem := _unlike(study, series, document, stored):
            begun.append(_said(problem))
        else:
            assert stored is not None
            begun.append(_given(document, stored, transfer, request.transfer_syntax_uids))
        if len(begun) > 2 * transfer.at_once:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _elsewhere(
    request: ImagingRequest, refused: Sequence[Problem | None], found: Mapping[str, Instance]
) -> Iterator[Place]:
    """What is asked for, not refused, and not stored here."""
    for (study, series, document), refusal in zip(request.documents, refused, strict=True):
        if refusal is None and document.document_unique_id not in found:
            yield study.study_instance_uid, series.series_instance_uid, document.document_unique_id


def _said(problem: Problem) -> Callable[[], Answer]:
    return lambda: problem


def _given(
    document: DocumentRequest, stored: Instance, transfer: Transfer, syntaxes: Sequence[str]
) -> Callable[[], Answer]:
    """A stored instance, once it is in a transfer syntax of the request."""
    try:
        giving = transfer.begun(stored, syntaxes)
    except NotGivenError as error:
        return _said(_not_given(document, error))
    return lambda: _answer(document, giving)


def _fetched(
    study: StudyRequest,
    series: SeriesRequest,
    document: DocumentRequest,
    fetching: Fetching,
    transfer: Transfer,
    syntaxes: Sequence[str],
) -> Callable[[], Answer]:
    """An instance of the archive, once it is here."""
    uid = document.document_unique_id
    come = fetching.begin((study.study_instance_uid, series.series_instance_uid, uid))

    def fetched() -> Answer:
        try:
            instance = come()
        except OSError as error:
            _log.error("an instance was not fetched from the archive: %s", error)
            context = f"instance {uid} could not be fetched from the archive behind this imaging source"
            return _problem(ErrorCode.REPOSITORY_ERROR, context, uid)
        if instance is None:
            context = f"instance {uid} is not stored at this imaging source, nor in the archive behind it in this study and series"
            return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, context, uid)
        return _answer(document, lambda: transfer.given(instance, syntaxes))

    return fetched


def _answer(document: DocumentRequest, giving: Callable[[], Document]) -> Answer:
    try:
        return Retrieved(request=document, document=giving())
    except NotGivenError as error:
        return _not_given(document, error)


def _not_given(document: DocumentRequest, error: NotGivenError) -> Problem:
    uid = document.document_unique_id
    return _problem(ErrorCode.REPOSITORY_ERROR, f"instance {uid} {error}", uid)


def _refusal(
    study: StudyRequest,
    series: SeriesRequest,
    document: DocumentRequest,
    location_uids: Collection[str],
) -> Problem | None:
    """Why nothing is looked for."""
    uid = document.document_unique_id
    if document.repository_unique_id not in location_uids:
        context = f"instance {uid}: {document.repository_unique_id} is not this imaging source, {', '.join(sorted(location_uids))}"
        return _problem(ErrorCode.UNKNOWN_REPOSITORY_ID, context, uid)
    for level, value in (
        ("studyInstanceUID", study.study_instance_uid),
        ("seriesInstanceUID", series.series_instance_uid),
    ):
        if not value:
            return _problem(
                ErrorCode.REPOSITORY_ERROR, f"instance {uid}: {level} is missing or empty in the request", uid
            )
    return None


def _unlike(
    study: StudyRequest, series: SeriesRequest, document: DocumentRequest, stored: Instance | None
) -> Problem | None:
    """Why what is stored, if anything, can not be given."""
    uid = document.document_unique_id
    if stored is None:
        return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"instance {uid} is not stored at this imaging source", uid)
    # The triplet must fit as a manifest lists it (RAD TF-2 4.69.4.2.3).
    if stored.study_instance_uid != study.study_instance_uid:
        context = f"instance {uid} is not in study {study.study_instance_uid}"
        return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, context, uid)
    if stored.series_instance_uid != series.series_instance_uid:
        context = f"instance {uid} is not in series {series.series_instance_uid}"
        return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, context, uid)
    return _damage(stored)


def _rejection(document: DocumentRequest, reasons: Mapping[str, str]) -> Problem | None:
    uid = document.document_unique_id
    if uid not in reasons:
        return None
    return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"instance {uid} is rejected: {reasons[uid]}", uid)


def _damage(stored: Instance) -> Problem | None:
    try:
        size = stored.path.stat().st_size
    except OSError:
        size = -1
    if size == stored.size:
        return None
    uid = stored.sop_instance_uid
    state = "is missing" if size < 0 else f"has {size} bytes instead of {stored.size}"
    return _problem(ErrorCode.REPOSITORY_ERROR, f"instance {uid} is indexed, but its file {state}", uid)


def _problem(code: ErrorCode, context: str, uid: str) -> Problem:
    return Problem(code=code, context=context, location=uid)
