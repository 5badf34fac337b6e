"""RAD-107 rendered resources: pictures of instances and frames for the eye (PS3.18 10.4.1.1.3), and thumbnails."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Literal, cast

from imaging.dicomweb.resources import Handler, Part, Refusal, Request, accepted, multipart, not_acceptable, reply
from imaging.dicomweb.wado_rs import Find, numbers, url_of, whole
from imaging.instances import Instance
from imaging.pixels import rendering
from imaging.pixels.frames import FrameError, Frames, Opened
from imaging.pixels.rendering import Wanted, Window
from soap.replying import HttpReply

MEDIA_TYPES = ("image/jpeg", "image/png")
_PARAMETERS = ("window", "viewport", "quality", "annotation", "iccprofile", "charset")
_FUNCTIONS = ("linear", "linear-exact", "sigmoid")
_ANNOTATIONS = frozenset({"patient", "technique"})
_THUMBNAIL = (128, 128)


def rendered(*, find: Find, opened: Opened, max_side_px: int) -> Handler:
    """Pictures of the frames that the path names, or of the first frame of each image below it. `max_side_px` bounds a viewport."""

    def handler(request: Request) -> HttpReply:
        wanted = _wanted(request.parameters(_PARAMETERS), max_side_px)
        chosen = whole(find(request))
        if "frames" in request.place:
            found = opened(chosen[0])
            pictures = [(found, number) for number in numbers(request, found)]
            return _pictures(request, iter(pictures), wanted, single=len(pictures) == 1)
        return _pictures(request, _images(chosen, opened), wanted, single=len(chosen) == 1)

    return handler


def thumbnail(*, find: Find, opened: Opened, max_side_px: int) -> Handler:
    """One small picture that stands for what is below the path: of its middle image."""

    def handler(request: Request) -> HttpReply:
        wanted = _wanted(request.parameters(_PARAMETERS), max_side_px, box=_THUMBNAIL)
        chosen = whole(find(request))
        if "frames" in request.place:
            found = opened(chosen[0])
            return _pictures(request, iter([(found, numbers(request, found)[0])]), wanted, single=True)
        middle = len(chosen) // 2
        outwards = sorted(range(len(chosen)), key=lambda at: abs(at - middle))
        return _pictures(request, _images([chosen[at] for at in outwards], opened), wanted, single=True)

    return handler


def _images(chosen: Sequence[Instance], opened: Opened) -> Iterator[tuple[Frames, int]]:
    """The first frames of those with pixels, each looked at when its turn comes. Refusal (406) where none has any."""
    found = False
    for one in chosen:
        frames = opened(one)
        if has_pixels(frames):
            found = True
            yield frames, 1
    if not found:
        raise Refusal(406, f"instance {chosen[0].sop_instance_uid} has no pixels: it cannot be rendered")


def has_pixels(frames: Frames) -> bool:
    try:
        return bool(frames.keyword)
    except FrameError:
        return False


def _pictures(request: Request, chosen: Iterator[tuple[Frames, int]], wanted: Wanted, *, single: bool) -> HttpReply:
    """The pictures, each drawn when its turn comes; or the first one where a single one is asked for."""
    for one in accepted(request.accept):
        media_type = next((each for each in MEDIA_TYPES if one.takes(each)), None)
        if media_type is None:
            continue
        if one.is_multipart or (one.is_any and not single):
            return _several(request, next(chosen), () if single else chosen, media_type, wanted)
        if single:
            return reply(draw(*next(chosen), media_type, wanted), media_type)
    forms = [f'multipart/related; type="{one}"' for one in MEDIA_TYPES]
    raise not_acceptable(request, [*(MEDIA_TYPES if single else ()), *forms])


def _several(
    request: Request,
    first: tuple[Frames, int],
    others: Iterable[tuple[Frames, int]],
    media_type: str,
    wanted: Wanted,
) -> HttpReply:
    def part(found: Frames, number: int) -> Part:
        location = f"{url_of(request.base, found.stored)}/frames/{number}/rendered"
        return Part(media_type, [draw(found, number, media_type, wanted)], location)

    beginning = part(*first)  # what cannot be drawn is known before a byte is sent

    def parts() -> Iterator[Part]:
        yield beginning
        for found, number in others:
            yield part(found, number)

    return multipart(media_type, parts())


def draw(found: Frames, number: int, media_type: str, wanted: Wanted) -> bytes:
    """A frame as a picture. Refusal (406) for what cannot be decoded or drawn."""
    uid = found.stored.sop_instance_uid
    try:
        pixels = found.pixels(number)
        return rendering.image(found.header, pixels, media_type, wanted)
    except FrameError as error:
        raise Refusal(406, f"instance {uid} {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever the attributes that describe the pixels say
        raise Refusal(406, f"instance {uid} cannot be drawn: {type(error).__name__}") from None


def _wanted(parameters: Mapping[str, str], max_side_px: int, box: tuple[int, int] | None = None) -> Wanted:
    if parameters.get("iccprofile", "no") != "no":
        raise Refusal(400, f"iccprofile is {parameters['iccprofile'][:40]!r}; only 'no' is possible")
    cut: tuple[float, float, float, float] | None = None
    if "viewport" in parameters:
        box, cut = _viewport(parameters["viewport"], max_side_px)
    return Wanted(
        window=_window(parameters["window"]) if "window" in parameters else None,
        box=box,
        cut=cut,
        quality=whole_number("quality", parameters.get("quality", "90"), 1, 100),
        annotation=annotations_of(parameters.get("annotation", "")),
    )


def _window(text: str) -> Window:
    """centre,width,function (PS3.18 8.3.5.1.4): all three."""
    centre, width, function = (*text.split(","), "", "", "")[:3]
    if text.count(",") != 2 or function not in _FUNCTIONS:
        raise Refusal(
            400, f"window is {text[:80]!r}; it must be centre,width,function with one of {', '.join(_FUNCTIONS)}"
        )
    return window(centre, width, function)


def window(centre: str, width: str, function: str = "linear") -> Window:
    """Refusal for what are no numbers, and for a width that there cannot be (PS3.3 C.11.2.1.2)."""
    made = Window(
        real("window centre", centre),
        real("window width", width),
        cast(Literal["linear", "linear-exact", "sigmoid"], function),
    )
    if made.width <= 0 or (function == "linear" and made.width < 1):
        raise Refusal(
            400, f"window width is {width[:40]!r}; it must be {'at least 1' if function == 'linear' else 'more than 0'}"
        )
    return made


def _viewport(text: str, max_side_px: int) -> tuple[tuple[int, int], tuple[float, float, float, float] | None]:
    """vw,vh[,sx,sy,sw,sh] (PS3.18 8.3.5.1.3)."""
    values = text.split(",")
    if len(values) not in (2, 6):
        raise Refusal(400, f"viewport is {text[:80]!r}; it must be vw,vh or vw,vh,sx,sy,sw,sh")
    box = (
        whole_number("viewport width", values[0], 1, max_side_px),
        whole_number("viewport height", values[1], 1, max_side_px),
    )
    if len(values) == 2 or not any(values[2:]):
        return box, None
    x, y, width, height = (
        real(f"viewport {name}", value) for name, value in zip(("sx", "sy", "sw", "sh"), values[2:], strict=True)
    )
    if x < 0 or y < 0 or not width or not height:
        raise Refusal(400, f"viewport is {text[:80]!r}; sx and sy must not be negative, and sw and sh not 0")
    return box, (x, y, width, height)


def annotations_of(text: str) -> frozenset[str]:
    names = frozenset(filter(None, text.split(",")))
    if unknown := sorted(names - _ANNOTATIONS):
        raise Refusal(400, f"annotation {unknown[0][:40]!r} is neither patient nor technique")
    return names


def whole_number(name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise Refusal(400, f"{name} is {text[:40]!r}; it must be a whole number from {least} to {most}")
    return int(text)


def real(name: str, text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text[:40], re.ASCII) or not isfinite(
        float(text[:40])
    ):
        raise Refusal(400, f"{name} is {text[:40]!r}; it must be a number")
    number = float(text[:40])
    if abs(number) > 1e9:
        raise Refusal(400, f"{name} is {text[:40]!r}; it must be between -1e9 and 1e9")
    return number
