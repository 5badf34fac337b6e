"""Modality Performed Procedure Step SCP (PS3.4 F.7, IHE RAD-6 and RAD-7): what modalities say of the steps that a study is made in.

Of a step it is kept which studies it is for, where it stands, and which instances it names; nothing is forwarded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_CREATE, N_SET

from imaging.dimse import status_of
from imaging.kos.manifest import items_of, value_of
from imaging.publication.performed_steps import (
    NoSuchStep,
    NothingPerformed,
    PerformedSteps,
    StepExists,
    StepIsFinal,
    TooManySteps,
)
from imaging.publication.publication_rows import Step
from xds.values import is_oid

_log = logging.getLogger("xdsi.imaging")

MODALITY_PERFORMED_PROCEDURE_STEP = UID("1.2.840.10008.3.1.2.3.3")
# PS3.7 Annex C.
_SUCCESS = 0x0000
_INVALID_VALUE = 0x0106
_PROCESSING_FAILURE = 0x0110
_DUPLICATE_INSTANCE = 0x0111
_NO_SUCH_INSTANCE = 0x0112
_INVALID_INSTANCE = 0x0117
_MISSING_ATTRIBUTE = 0x0120
_MISSING_VALUE = 0x0121
_RESOURCE_LIMITATION = 0x0213
#: Error ID (0000,0903) of a step that may no longer be updated (PS3.4 F.7.2.2.3).
_NO_LONGER_UPDATED = 0xA710
#: Most studies and instances of one step.
_MAX_STUDIES, _MAX_INSTANCES = 100, 200_000
#: Of type 1 when a step is made (PS3.4 table F.7.2-1), beside the studies and the status.
_DEMANDED = (
    "Modality",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepID",
)
#: Where a series of a step names its instances.
_REFERENCES = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


class _Wrong(ValueError):
    """What a request says can not be taken; `status` says in which way."""

    def __init__(self, status: int, text: str, error_id: int | None = None) -> None:
        super().__init__(text)
        self.status, self.error_id = status, error_id


class Mpps:
    """The SCP. What is answered with success is durable."""

    def __init__(
        self, steps: PerformedSteps, new_uid: Callable[[], str], seconds: Callable[[], float] = time.time
    ) -> None:
        """`new_uid` is for a step whose modality leaves that to us, `seconds` the time since 1970."""
        self._steps, self._new_uid, self._seconds = steps, new_uid, seconds

    def create(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answers N-CREATE."""
        request = event.request
        assert isinstance(request, N_CREATE)
        given = str(request.AffectedSOPInstanceUID or "")
        uid = given or self._new_uid()

        def take() -> None:
            said = event.attribute_list if request.AttributeList is not None else Dataset()
            self._steps.begin(_checked(uid), _begun(said), self._seconds())

        status = _answered(take)
        if given or status.Status != _SUCCESS:
            return status, None
        assigned = Dataset()
        assigned.AffectedSOPInstanceUID = uid
        return status, assigned

    def set(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answers N-SET."""
        request = event.request
        assert isinstance(request, N_SET)
        uid = str(request.RequestedSOPInstanceUID or "")

        def take() -> None:
            said = event.modification_list if request.ModificationList is not None else Dataset()
            state, instances = _changed(said)
            self._steps.change(_checked(uid), state, instances, self._seconds())

        return _answered(take), None


def _answered(take: Callable[[], None]) -> Dataset:
    try:
        take()
    except _Wrong as error:
        return status_of(error.status, str(error), error.error_id)
    except StepExists:
        return status_of(_DUPLICATE_INSTANCE, "a step with this SOP Instance UID exists")
    except NoSuchStep:
        return status_of(_NO_SUCH_INSTANCE, "no step with this SOP Instance UID exists")
    except StepIsFinal:
        text = "Performed Procedure Step Object may no longer be updated"
        return status_of(_PROCESSING_FAILURE, text, _NO_LONGER_UPDATED)
    except NothingPerformed:
        return status_of(_MISSING_ATTRIBUTE, "a completed step needs PerformedSeriesSequence (0040,0340)")
    except TooManySteps:
        _log.error("a performed procedure step was refused: too many are known")
        return status_of(_RESOURCE_LIMITATION, "too many steps are known")
    except Exception:
        _log.exception("a performed procedure step could not be taken")
        return status_of(_PROCESSING_FAILURE, "the log of the server says why")
    return status_of(_SUCCESS, "")


def _checked(uid: str) -> str:
    if not is_oid(uid):
        raise _Wrong(_INVALID_INSTANCE, "the SOP Instance UID is none")
    return uid


def _begun(said: Dataset) -> list[str]:
    """The studies of a step that begins."""
    for keyword in _DEMANDED:
        _demanded(said, keyword)
    status = _demanded(said, "PerformedProcedureStepStatus")
    if status != Step.IN_PROGRESS:
        raise _Wrong(_INVALID_VALUE, "PerformedProcedureStepStatus must be IN PROGRESS (0040,0252)")
    scheduled = items_of(said, "ScheduledStepAttributesSequence")
    if not scheduled:
        raise _Wrong(_MISSING_ATTRIBUTE, "ScheduledStepAttributesSequence is missing (0040,0270)")
    if len(scheduled) > _MAX_STUDIES:
        raise _Wrong(_RESOURCE_LIMITATION, f"more than {_MAX_STUDIES} scheduled steps")
    studies = [_demanded(one, "StudyInstanceUID") for one in scheduled]
    if not all(map(is_oid, studies)):
        raise _Wrong(_INVALID_VALUE, "a StudyInstanceUID is no UID (0020,000D)")
    return studies


def _changed(said: Dataset) -> tuple[Step, list[str] | None]:
    """What a step becomes, and what it names; None where nothing is said of that."""
    status = value_of(said, "PerformedProcedureStepStatus") or str(Step.IN_PROGRESS)
    if status not in set(Step):
        raise _Wrong(_INVALID_VALUE, "PerformedProcedureStepStatus is none that there is (0040,0252)")
    if "PerformedSeriesSequence" not in said:
        return Step(status), None
    series = items_of(said, "PerformedSeriesSequence")
    if status == Step.COMPLETED and not series:
        raise _Wrong(_MISSING_VALUE, "a completed step needs PerformedSeriesSequence (0040,0340)")
    instances = [uid for one in series for uid in _named(one)]
    if len(instances) > _MAX_INSTANCES:
        raise _Wrong(_RESOURCE_LIMITATION, f"more than {_MAX_INSTANCES} instances")
    return Step(status), instances


def _named(series: Dataset) -> Iterator[str]:
    if not is_oid(_demanded(series, "SeriesInstanceUID")):
        raise _Wrong(_INVALID_VALUE, "a SeriesInstanceUID is no UID (0020,000E)")
    for keyword in _REFERENCES:
        for reference in items_of(series, keyword):
            uid = _demanded(reference, "ReferencedSOPInstanceUID")
            if not is_oid(uid):
                raise _Wrong(_INVALID_VALUE, "a ReferencedSOPInstanceUID is no UID (0008,1155)")
            yield uid


def _demanded(said: Dataset, keyword: str) -> str:
    if keyword not in said:
        raise _Wrong(_MISSING_ATTRIBUTE, f"{keyword} is missing")
    if not (value := value_of(said, keyword)):
        raise _Wrong(_MISSING_VALUE, f"{keyword} is empty")
    return value
