"""RAD-69 Retrieve Imaging Document Set, the source's side (RAD TF-2 4.69.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from imaging import transfer
from imaging.instances import Instance, Instances
from imaging.rejections import Rejected
from xds.messages import DocumentRequest, ImagingRequest, Retrieved, SeriesRequest, StudyRequest
from xds.problems import ErrorCode, Problem


def retrieve_images(
    request: ImagingRequest,
    *,
    instances: Instances,
    location_uids: Collection[str],
    rejected: Rejected,
) -> Iterator[Retrieved | Problem]:
    """One Retrieved or one Problem for each requested instance, in the order of the request, duplicates answered each.

    `location_uids` are the repositoryUniqueIds that this source answers to: the RetrieveLocationUIDs of its manifests. An instance is
    given as it is stored where the request allows that, else re-encoded without compression where that touches no pixels. What a
    rejection note lists is not given, and the error has the reason.
    """
    found = instances.find(document.document_unique_id for _, _, document in request.documents)
    reasons = rejected(found)
    for study, series, document in request.documents:
        stored = found.get(document.document_unique_id)
        yield (
            _refusal(study, series, document, stored, location_uids)
            or _rejection(document, reasons)
            or _damage(stored)
            or _given(document, stored, request.transfer_syntax_uids)
        )


def _refusal(
    study: StudyRequest,
    series: SeriesRequest,
    document: DocumentRequest,
    stored: Instance | None,
    location_uids: Collection[str],
) -> Problem | None:
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
    if stored is None:
        return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"instance {uid} is not stored at this imaging source", uid)
    # The triplet must fit as a manifest lists it (RAD TF-2 4.69.4.2.3).
    if stored.study_instance_uid != study.study_instance_uid:
        context = f"instance {uid} is not in study {study.study_instance_uid}"
        return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, context, uid)
    if stored.series_instance_uid != series.series_instance_uid:
        context = f"instance {uid} is not in series {series.series_instance_uid}"
        return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, context, uid)
    return None


def _rejection(document: DocumentRequest, reasons: Mapping[str, str]) -> Problem | None:
    uid = document.document_unique_id
    if uid not in reasons:
        return None
    return _problem(ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"instance {uid} is rejected: {reasons[uid]}", uid)


def _damage(stored: Instance | None) -> Problem | None:
    assert stored is not None
    try:
        size = stored.path.stat().st_size
    except OSError:
        size = -1
    if size == stored.size:
        return None
    uid = stored.sop_instance_uid
    state = "is missing" if size < 0 else f"has {size} bytes instead of {stored.size}"
    return _problem(ErrorCode.REPOSITORY_ERROR, f"instance {uid} is indexed, but its file {state}", uid)


def _given(document: DocumentRequest, stored: Instance | None, syntaxes: tuple[str, ...]) -> Retrieved | Problem:
    assert stored is not None
    try:
        return Retrieved(request=document, document=transfer.given(stored, syntaxes))
    except transfer.NotGivenError as error:
        uid = stored.sop_instance_uid
        return _problem(ErrorCode.REPOSITORY_ERROR, f"instance {uid} {error}", uid)


def _problem(code: ErrorCode, context: str, uid: str) -> Problem:
    return Problem(code=code, context=context, location=uid)
