"""What every service of ours over DIMSE says in the same way: the status of a response, and which service a SOP class is of."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation

STORAGE_SERVICE = UID("1.2.840.10008.4.2")
#: An Error Comment (0000,0902) is LO.
_MAX_COMMENT = 64


def comment_of(text: str) -> str:
    """What an Error Comment can hold of a text: 64 characters of ASCII, and no backslash, which parts values."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")[:_MAX_COMMENT]


def status_of(status: int, comment: str = "", error_id: int | None = None) -> Dataset:
    """A status with its Error Comment and Error ID (0000,0903), as pynetdicom takes them (PS3.7 Annex C)."""
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment_of(comment)
    if error_id is not None:
        answer.ErrorID = error_id
    return answer


def of_service(sop_class_uid: str, service: UID = STORAGE_SERVICE) -> SOPClassCommonExtendedNegotiation:
    """Says that a SOP class is of a service (PS3.7 D.3.3.6)."""
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid, item.service_class_uid = UID(sop_class_uid), service
    return item
