"""A contact sheet of a study or a series, beside what DICOMweb knows: one picture that shows what is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from PIL.Image import Image
from pydicom.uid import UID

from imaging.dicomweb.rendered import has_pixels
from imaging.dicomweb.resources import Handler, Refusal, Request, one_of, reply
from imaging.dicomweb.wado_rs import Find, whole
from imaging.instances import Instance
from imaging.pixels.contact_sheet import label, sheet, spread, tile
from imaging.pixels.frames import FrameError, Opened
from imaging.pixels.rendering import picture
from soap.replying import HttpReply

PNG = "image/png"
_TILES, _MOST_TILES = 64, 400
_TILE_PX, _LEAST_PX, _MOST_PX = 160, 32, 1024
#: Of the whole sheet.
_MAX_PIXELS = 16 * 1024 * 1024


def contact_sheet(*, find: Find, opened: Opened) -> Handler:
    """A PNG of what is below the path: of many instances some that are spread over all, of few their frames as well."""

    def handler(request: Request) -> HttpReply:
        given = request.parameters(("tiles", "tile-px"))
        tiles = _number("tiles", given.get("tiles", str(_TILES)), 1, _MOST_TILES)
        tile_px = _number("tile-px", given.get("tile-px", str(_TILE_PX)), _LEAST_PX, _MOST_PX)
        if tiles * tile_px**2 > _MAX_PIXELS:
            raise Refusal(400, f"{tiles} tiles of {tile_px} x {tile_px} pixels are more than {_MAX_PIXELS} pixels")
        one_of(request, (PNG,))
        chosen = whole(find(request))
        shown = [chosen[index] for index in spread(len(chosen), tiles)]
        drawn = [one for stored in shown for one in _tiles(stored, opened, tile_px, frames=tiles // len(shown))]
        modalities = {one.modality or "?" for one in chosen}
        return reply(sheet(drawn, tile_px=tile_px, modalities=modalities, instances=len(chosen)), PNG)

    return handler


def _tiles(stored: Instance, opened: Opened, tile_px: int, *, frames: int) -> Iterator[Image]:
    """The tiles of one instance: some of its frames, or one that says what it is, or why it cannot be drawn."""
    found, name = opened(stored), UID(stored.sop_class_uid).name
    if not has_pixels(found):
        yield label([name], tile_px)
        return
    try:
        for index in spread(found.count, frames):
            pixels = found.pixels(index + 1)
            yield tile(picture(found.header, pixels), tile_px)
    except FrameError as error:
        yield label([name, str(error)], tile_px)
    except MemoryError:
        raise
    except Exception as error:  # whatever the attributes that describe the pixels say
        yield label([name, f"cannot be drawn: {type(error).__name__}"], tile_px)


def _number(name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or not least <= int(text) <= most:
        raise Refusal(400, f"{name} is {text[:40]!r}; it must be a whole number from {least} to {most}")
    return int(text)
