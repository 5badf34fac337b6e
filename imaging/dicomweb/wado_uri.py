"""RAD-55 WADO-URI: one instance, as DICOM or as a picture, by parameters of the query (RAD TF-2 4.55, PS3.18 9)."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.dicomweb.rendered import MEDIA_TYPES, annotations_of, draw, has_pixels, real, whole_number, window
from imaging.dicomweb.resources import Handler, Refusal, Request, accepted, reply
from imaging.dicomweb.wado_rs import DICOM, Find, whole
from imaging.instances import Instance
from imaging.pixels.frames import FrameError, Frames, Opened
from imaging.pixels.rendering import Wanted
from imaging.pixels.transfer import Given, NotGivenError
from soap.replying import HttpReply
from xds.values import is_oid

_UIDS = {"studyUID": "study", "seriesUID": "series", "objectUID": "instance"}
_RENDERED = ("frameNumber", "rows", "columns", "region", "windowCenter", "windowWidth", "imageQuality", "annotation")
_DICOM_ONLY = ("transferSyntax", "anonymize")
_OTHER = ("requestType", "contentType", "charset", "presentationUID", "presentationSeriesUID")
_PARAMETERS = (*_UIDS, *_RENDERED, *_DICOM_ONLY, *_OTHER)
_ALIASES = {"image/jpg": "image/jpeg", "application/jpeg": "image/jpeg"}


def retrieve(*, find: Find, given: Given, opened: Opened, max_side_px: int, empty_uid_status: int = 404) -> Handler:
    """`empty_uid_status` answers a UID that is missing or empty: 404 or 400. `max_side_px` bounds rows and columns."""

    def handler(request: Request) -> HttpReply:
        parameters = request.parameters(_PARAMETERS)
        if parameters.get("requestType") != "WADO":
            raise Refusal(400, f"requestType is {parameters.get('requestType', '')[:40]!r}; it must be WADO")
        place = {level: _uid(name, parameters, empty_uid_status) for name, level in _UIDS.items()}
        _check_unsupported(parameters)
        stored = whole(find(Request(place=place)))[0]
        found = opened(stored)
        media_type = _media_type(request, parameters.get("contentType", ""), found)
        _check_fitting(parameters, media_type)
        if media_type == DICOM:
            return _dicom(stored, parameters, given)
        return _picture(found, parameters, media_type, max_side_px)

    return handler


def _uid(name: str, parameters: Mapping[str, str], empty_uid_status: int) -> str:
    value = parameters.get(name, "")
    if not value:
        raise Refusal(empty_uid_status, f"{name} is missing or empty")
    if not is_oid(value):
        raise Refusal(400, f"{name} {value[:80]!r} is no UID: at most 64 digits and dots")
    return value


def _check_unsupported(parameters: Mapping[str, str]) -> None:
    """What would change the answer is never passed over in silence."""
    if parameters.get("anonymize"):
        raise Refusal(400, f"anonymize is {parameters['anonymize'][:40]!r}; objects cannot be de-identified here")
    for name in ("presentationUID", "presentationSeriesUID"):
        if name in parameters:
            raise Refusal(400, f"{name}: presentation states cannot be applied here")


def _media_type(request: Request, content_type: str, found: Frames) -> str:
    """The first of the wanted media types that the instance has and that Accept does not rule out. Refusal (406) for none."""
    has = (*(MEDIA_TYPES if has_pixels(found) else ()), DICOM)
    entries = (one.partition(";")[0].strip().lower() for one in content_type.split(","))
    wanted = [_ALIASES.get(one, one) for one in entries if one] or [has[0]]
    possible = [one for one in wanted if one in has]
    if not possible:
        raise Refusal(
            406, f"contentType is {content_type[:80]!r}; instance {found.stored.sop_instance_uid} has {', '.join(has)}"
        )
    taken = accepted(request.accept)
    for one in possible:
        if any(each.takes(one) and not each.is_multipart for each in taken):
            return one
    raise Refusal(406, f"Accept: {request.accept[:80]!r} does not take the contentType {', '.join(possible)}")


def _check_fitting(parameters: Mapping[str, str], media_type: str) -> None:
    wrong = _RENDERED if media_type == DICOM else _DICOM_ONLY
    for name in wrong:
        if parameters.get(name):
            raise Refusal(400, f"{name} does not go with the contentType {media_type} (PS3.18 9.1.2)")


def _dicom(stored: Instance, parameters: Mapping[str, str], given: Given) -> HttpReply:
    syntax = parameters.get("transferSyntax") or str(ExplicitVRLittleEndian)
    if not is_oid(syntax):
        raise Refusal(400, f"transferSyntax {syntax[:80]!r} is no UID: at most 64 digits and dots")
    if syntax in (str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)):
        raise Refusal(
            400, f"transferSyntax must be neither Implicit VR nor Big Endian, as {syntax} is (PS3.18 9.1.2.2.1)"
        )
    try:
        document = given(stored, (syntax,))
    except NotGivenError as error:
        raise Refusal(406, f"instance {stored.sop_instance_uid} {error}") from None
    return HttpReply(200, DICOM, document.size, document.chunks())


def _picture(found: Frames, parameters: Mapping[str, str], media_type: str, max_side_px: int) -> HttpReply:
    stored = found.stored
    try:
        count = found.count
    except FrameError as error:
        raise Refusal(406, f"instance {stored.sop_instance_uid} {error}") from None
    number = whole_number("frameNumber", parameters.get("frameNumber") or "1", 1, 999_999_999)
    if number > count:
        raise Refusal(404, f"instance {stored.sop_instance_uid} has {count} frame{'s' * (count != 1)}, and no {number}")
    centre, width = parameters.get("windowCenter", ""), parameters.get("windowWidth", "")
    if bool(centre) != bool(width):
        raise Refusal(400, "windowCenter and windowWidth must come both or not at all")
    # Where one of them is missing the other decides.
    sides = {
        name: whole_number(name, parameters[name], 1, max_side_px)
        for name in ("columns", "rows")
        if parameters.get(name)
    }
    wanted = Wanted(
        window=window(centre, width) if centre else None,
        box=(sides.get("columns", max_side_px), sides.get("rows", max_side_px)) if sides else None,
        cut=_region(parameters["region"], found) if parameters.get("region") else None,
        quality=whole_number("imageQuality", parameters.get("imageQuality") or "90", 1, 100),
        annotation=annotations_of(parameters.get("annotation", "")),
    )
    return reply(draw(found, number, media_type, wanted), media_type)


def _region(text: str, found: Frames) -> tuple[float, float, float, float]:
    """xmin,ymin,xmax,ymax as parts of the image from 0 to 1, as x, y, width and height in pixels."""
    values = [real("region", one) for one in text.split(",")]
    if len(values) != 4 or not (0 <= values[0] < values[2] <= 1 and 0 <= values[1] < values[3] <= 1):
        raise Refusal(
            400, f"region is {text[:80]!r}; it must be xmin,ymin,xmax,ymax, each from 0 to 1, and min below max"
        )
    columns, rows = float(found.header.get("Columns") or 0), float(found.header.get("Rows") or 0)
    left, top, right, bottom = values
    return left * columns, top * rows, (right - left) * columns, (bottom - top) * rows
