"""RAD-107 WADO-RS: instances, metadata, bulk data and frames of what is stored (PS3.18 10.4), one instance or frame at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging import dicom_json
from imaging.dicomweb.behind import Behind
from imaging.dicomweb.resources import (
    JSON,
    Handler,
    Part,
    Refusal,
    Request,
    accepted,
    json_array,
    multipart,
    not_acceptable,
    one_of,
    warning,
)
from imaging.instances import Instance, Instances
from imaging.pixels.frames import NATIVE, FrameError, Frames, Opened, bulk, lazily
from imaging.pixels.transfer import Given, NotGivenError
from imaging.publication.rejections import Rejected, is_here
from soap.replying import HttpReply
from xds.messages import Document
from xds.values import is_oid

#: What is below the path of a request, in order and never nothing; Refusal (404) where there is nothing.
Find = Callable[[Request], list[Instance]]
DICOM, OCTETS = "application/dicom", "application/octet-stream"
_EXPLICIT = str(ExplicitVRLittleEndian)
#: These are not for the web (PS3.18 8.7.3.5.2).
_NOT_FOR_THE_WEB = frozenset({str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)})
#: What the frames of a transfer syntax are called (PS3.18 table 8.7.3-5).
_P = "1.2.840.10008.1.2."
_MEDIA_TYPES = {
    f"{_P}5": "image/dicom-rle",
    **dict.fromkeys((f"{_P}4.50", f"{_P}4.51", f"{_P}4.57", f"{_P}4.70"), "image/jpeg"),
    **dict.fromkeys((f"{_P}4.80", f"{_P}4.81"), "image/jls"),
    **dict.fromkeys((f"{_P}4.90", f"{_P}4.91"), "image/jp2"),
    **dict.fromkeys((f"{_P}4.92", f"{_P}4.93"), "image/jpx"),
    **dict.fromkeys((f"{_P}4.201", f"{_P}4.202", f"{_P}4.203"), "image/jphc"),
    **dict.fromkeys((f"{_P}4.110", f"{_P}4.111", f"{_P}4.112"), "image/jxl"),
    **dict.fromkeys((f"{_P}4.100", f"{_P}4.101"), "video/mpeg"),
    **dict.fromkeys((f"{_P}4.{number}" for number in range(102, 109)), "video/mp4"),
}
MAX_FRAMES = 1000


def finding(instances: Instances, rejected: Rejected, behind: Behind | None = None) -> Find:
    """Finds what is stored, where it is said to be, and not rejected; what is not stored, in the archive `behind`, if there is one."""

    def find(request: Request) -> list[Instance]:
        place, uid = request.place, request.place.get("instance")
        stored = list(instances.find([uid]).values()) if uid else instances.of_study(place["study"])
        if behind is not None and not (stored if uid else is_here(stored)):
            return list(behind.retrieve(place))
        chosen = _within(stored, place)
        refused = rejected([one.sop_instance_uid for one in chosen])
        kept = [one for one in chosen if one.sop_instance_uid not in refused]
        if not kept:
            rejected_uid, reason = next(iter(refused.items()))
            raise Refusal(404, f"instance {rejected_uid} is rejected: {reason}")
        return kept

    return find


def _within(stored: Sequence[Instance], place: Mapping[str, str]) -> list[Instance]:
    """Those where they are said to be. Refusal (404) where there are none."""
    study, series, uid = place["study"], place.get("series"), place.get("instance")
    asked = f"study {study}" if uid is None else f"instance {uid}"
    if not stored:
        raise Refusal(404, f"{asked} is not stored here")
    if stored[0].study_instance_uid != study:
        raise Refusal(404, f"{asked} is not in study {study}")
    of_series = [one for one in stored if series in (None, one.series_instance_uid)]
    if not of_series:
        raise Refusal(
            404, f"series {series} is not in study {study}" if uid is None else f"{asked} is not in series {series}"
        )
    return of_series


def whole(chosen: Sequence[Instance]) -> list[Instance]:
    """Those whose files are there. Refusal (500) where none is."""
    kept = [one for one in chosen if _is_whole(one)]
    if not kept:
        raise Refusal(500, f"instance {chosen[0].sop_instance_uid} is indexed, but its file is lost or damaged")
    return kept


def _is_whole(stored: Instance) -> bool:
    try:
        return stored.path.stat().st_size == stored.size
    except OSError:
        return False


def url_of(base: str, stored: Instance) -> str:
    return (
        f"{base}/studies/{stored.study_instance_uid}/series/{stored.series_instance_uid}"
        f"/instances/{stored.sop_instance_uid}"
    )


# Instances


def retrieve(*, find: Find, given: Given) -> Handler:
    """The instances of a study or series, or one. `given` puts an instance into one of several transfer syntaxes."""

    def handler(request: Request) -> HttpReply:
        request.parameters(())
        chosen = find(request)
        is_multipart, wanted = _syntaxes(request, single="instance" in request.place)
        kept, made = _givable(whole(chosen), wanted, given)

        def one_of_them(one: Instance) -> tuple[Document, str]:
            uid = one.sop_instance_uid
            return _given(one, wanted, made.pop(uid) if uid in made else given(one, _for(one, wanted)))

        if not is_multipart:
            document, content_type = one_of_them(kept[0])
            return HttpReply(200, content_type, document.size, document.chunks())
        missing = len(chosen) - len(kept)
        told = (warning(f"{missing} of {len(chosen)} instances cannot be given"),) if missing else ()

        def parts() -> Iterator[Part]:
            for one in kept:
                document, content_type = one_of_them(one)
                yield Part(content_type, document.chunks(), url_of(request.base, one))

        return multipart(DICOM, parts(), status=206 if missing else 200, headers=told)

    return handler


def _syntaxes(request: Request, *, single: bool) -> tuple[bool, list[str]]:
    """Whether the answer is multipart, and the transfer syntaxes that are taken, "*" for as it is stored."""
    forms: list[tuple[bool, str]] = []
    for one in accepted(request.accept):
        syntax = one.transfer_syntax or _EXPLICIT
        if syntax != "*" and not is_oid(syntax):
            raise Refusal(400, f"Accept: transfer-syntax {syntax[:80]!r} is neither a UID nor *")
        is_multipart = one.is_any or one.is_multipart
        if syntax not in _NOT_FOR_THE_WEB and one.takes(DICOM) and (is_multipart or single):
            forms.append((is_multipart, syntax))
    if not forms:
        types = [f'multipart/related; type="{DICOM}"', *([DICOM] if single else [])]
        raise not_acceptable(request, [f"{one}; not in Implicit VR or Big Endian" for one in types])
    preferred = forms[0][0]
    return preferred, list(dict.fromkeys(syntax for is_multipart, syntax in forms if is_multipart == preferred))


def _for(stored: Instance, wanted: Sequence[str]) -> list[str]:
    own = stored.transfer_syntax_uid
    as_stored = _EXPLICIT if own in _NOT_FOR_THE_WEB else own
    return [as_stored if one == "*" else one for one in wanted]


def _givable(
    chosen: Sequence[Instance], wanted: Sequence[str], given: Given
) -> tuple[list[Instance], dict[str, Document]]:
    """Those that can be given, as far as one of each transfer syntax says, and what was made to see it. Refusal (406) where none can."""
    refused: dict[str, str] = {}
    made: dict[str, Document] = {}
    tried: set[str] = set()
    for one in chosen:
        own = one.transfer_syntax_uid
        if own not in tried and own not in _for(one, wanted):
            try:
                made[one.sop_instance_uid] = given(one, _for(one, wanted))
            except NotGivenError as error:
                refused[own] = f"instance {one.sop_instance_uid} {error}"
        tried.add(own)
    kept = [one for one in chosen if one.transfer_syntax_uid not in refused]
    if not kept:
        raise Refusal(406, next(iter(refused.values())))
    return kept, made


def _given(stored: Instance, wanted: Sequence[str], document: Document) -> tuple[Document, str]:
    """An instance, and its media type with the transfer syntax in which it comes."""
    syntax = stored.transfer_syntax_uid
    if syntax not in _for(stored, wanted):
        with document.open() as stream:
            syntax = str(pydicom.dcmread(stream, specific_tags=["SOPInstanceUID"]).file_meta.TransferSyntaxUID)
    # What a file says of itself does not become a header unseen.
    return document, f"{DICOM}; transfer-syntax={syntax}" if is_oid(syntax) else DICOM


# Metadata


def metadata(*, find: Find) -> Handler:
    """The data sets as DICOM JSON; what is large as a BulkDataURI (PS3.18 10.4.1.1.2)."""

    def handler(request: Request) -> HttpReply:
        request.parameters(())
        one_of(request, (JSON, "application/json"))
        return json_array(_metadata(one, request.base) for one in whole(find(request)))

    return handler


def _metadata(stored: Instance, base: str) -> dict[str, Any]:
    url = url_of(base, stored)
    try:
        dataset = lazily(stored)
    except FrameError as error:
        raise Refusal(500, f"instance {stored.sop_instance_uid} {error}") from None
    encoded = dicom_json.encode(dataset, lambda place: f"{url}/bulkdata/{place}")
    encoded["00083002"] = dicom_json.texts("UI", [stored.transfer_syntax_uid])
    return dict(sorted(encoded.items()))


# Bulk data and frames


def bulkdata(*, find: Find, opened: Opened) -> Handler:
    """What a BulkDataURI of the metadata names: the bytes of a value; of compressed pixels the frames, as for /frames."""

    def handler(request: Request) -> HttpReply:
        request.parameters(())
        stored = whole(find(request))[0]
        place = request.place["bulk"]
        if not re.fullmatch(r"[0-9A-F]{8}(/[1-9]\d{0,5}/[0-9A-F]{8}){0,16}", place, re.ASCII):
            raise Refusal(400, f"bulkdata/{place[:80]} is none of the BulkDataURIs in this instance's metadata")
        try:
            if place == "7FE00010" and stored.transfer_syntax_uid != _EXPLICIT:
                frames = opened(stored)
                if not frames.is_native or stored.transfer_syntax_uid == str(ExplicitVRBigEndian):
                    return _frames(request, frames, range(1, frames.count + 1))
            content = bulk(stored, place)
        except FrameError as error:
            raise Refusal(406, f"instance {stored.sop_instance_uid} {error}") from None
        if content is None:
            raise Refusal(404, f"instance {stored.sop_instance_uid} has no value at {place}")
        if stored.transfer_syntax_uid == str(ExplicitVRBigEndian):
            raise Refusal(406, f"instance {stored.sop_instance_uid} is stored in big endian; ask for its frames")
        for one in accepted(request.accept):
            if one.takes(OCTETS) and (one.is_any or one.is_multipart):
                return multipart(OCTETS, [Part(OCTETS, content)])
            if one.takes(OCTETS):
                return HttpReply(200, OCTETS, None, content)
        raise not_acceptable(request, (f'multipart/related; type="{OCTETS}"', OCTETS))

    return handler


def frames(*, find: Find, opened: Opened, max_frames: int = MAX_FRAMES) -> Handler:
    """Frames of an image: as they are stored where Accept names their media type, else decoded (PS3.18 10.4.1.1.4)."""

    def handler(request: Request) -> HttpReply:
        request.parameters(())
        stored = whole(find(request))[0]
        found = opened(stored)
        try:
            return _frames(request, found, numbers(request, found, max_frames))
        except FrameError as error:
            raise Refusal(406, f"instance {stored.sop_instance_uid} {error}") from None

    return handler


def numbers(request: Request, found: Frames, max_frames: int = MAX_FRAMES) -> list[int]:
    """The frame list of the path. Refusal for what is none (400), and for a frame that there is not (404)."""
    texts = request.place["frames"].split(",")
    if len(texts) > max_frames:
        raise Refusal(400, f"the list has {len(texts)} frames; the limit is {max_frames}")
    for text in texts:
        if not re.fullmatch(r"[1-9]\d{0,9}", text, re.ASCII):
            raise Refusal(400, f"frame {text[:40]!r} is no number; frames are counted from 1, with commas between them")
    chosen = list(map(int, texts))
    try:
        count = found.count
    except FrameError as error:
        raise Refusal(404, f"instance {found.stored.sop_instance_uid} {error}") from None
    if max(chosen) > count:
        raise Refusal(
            404, f"instance {found.stored.sop_instance_uid} has {count} frame{'s' * (count != 1)}, and no {max(chosen)}"
        )
    return chosen


def _frames(request: Request, found: Frames, chosen: Iterable[int]) -> HttpReply:
    chosen = list(chosen)
    own = found.stored.transfer_syntax_uid
    stored_type = _MEDIA_TYPES.get(own)
    for one in accepted(request.accept):
        single = not one.is_multipart and not one.is_any
        if single and len(chosen) > 1:
            continue
        named = one.content != "*/*" and stored_type is not None and one.takes(stored_type)
        wanted = ("", "*", own) if named else ("*", own)
        if stored_type is not None and (named or one.takes(OCTETS)) and one.transfer_syntax in wanted:
            content_type = f"{stored_type}; transfer-syntax={own}"
            return _sent(found.stored_frame, chosen, stored_type, content_type, single)
        # Asked for as stored, native frames are as Explicit VR Little Endian has them.
        syntaxes = ("", _EXPLICIT, *(("*",) if own in NATIVE else ()))
        if one.takes(OCTETS) and one.transfer_syntax in syntaxes:
            return _sent(found.decoded_frame, chosen, OCTETS, OCTETS, single)
    offered = [OCTETS, *([f"{stored_type}; transfer-syntax={own}"] if stored_type else [])]
    raise not_acceptable(request, [f'multipart/related; type="{one}"' for one in offered])


def _sent(
    frame: Callable[[int], bytes], chosen: Sequence[int], part_type: str, content_type: str, single: bool
) -> HttpReply:
    first = frame(chosen[0])  # what cannot be given is known before a byte is sent
    if single:
        return HttpReply(200, content_type, len(first), iter([first]))

    def parts() -> Iterator[Part]:
        yield Part(content_type, [first])
        for number in chosen[1:]:
            yield Part(content_type, [frame(number)])

    return multipart(part_type, parts())
