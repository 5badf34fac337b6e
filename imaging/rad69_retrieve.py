"""RAD-69 Retrieve Imaging Document Set, the source's side (RAD TF-2 4.69.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from imaging.instances import Instance, Instances
from imaging.transfer import NotGivenError, Transfer
from xds.messages import DocumentRequest, ImagingRequest, Retrieved, SeriesRequest, StudyRequest
from xds.problems import ErrorCode, Problem

Answer = Retrieved | Problem


def retrieve_images(
    request: ImagingRequest, *, instances: Instances, transfer: Transfer, location_uids: Collection[str]
) -> Iterator[Answer]:
    """One Retrieved or one Problem for each requested instance, in the order of the request, duplicates answered each.

    `location_uids` are the repositoryUniqueIds that this source answers to: the RetrieveLocationUIDs of its manifests. An instance is
    given as it is stored where the request allows that, else re-encoded (`Transfer`), several at once.
    """
    found = instances.find(document.document_unique_id for _, _, document in request.documents)
    begun: deque[Callable[[], Answer]] = deque()
    for study, series, document in request.documents:
        stored = found.get(document.document_unique_id)
        refusal = _refusal(study, series, document, stored, location_uids)
        begun.append(_begun(document, stored, refusal, transfer, request.transfer_syntax_uids))
        if len(begun) > 2 * transfer.at_once:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _begun(
    document: DocumentRequest,
    stored: Instance | None,
    refusal: Problem | None,
    transfer: Transfer,
    syntaxes: Sequence[str],
) -> Callable[[], Answer]:
    """What there is to say of one instance, once it is there."""
    if refusal is not None:
        return lambda: refusal
    assert stored is not None
    uid = stored.sop_instance_uid

    def not_given(error: NotGivenError) -> Problem:
        return _problem(ErrorCode.REPOSITORY_ERROR, f"instance {uid} {error}", uid)

    try:
        giving = transfer.begun(stored, syntaxes)
    except NotGivenError as error:
        problem = not_given(error)
        return lambda: problem

    def given() -> Answer:
        try:
            return Retrieved(request=document, document=giving())
        except NotGivenError as error:
            return not_given(error)

    return given


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
    return _damage(stored)


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
