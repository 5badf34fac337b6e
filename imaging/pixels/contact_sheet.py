"""Contact sheets: one PNG that shows, at a glance, what is in a set of DICOM instances."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import UID

from imaging.kos import read_part10
from imaging.pixels.rendering import picture

_CAPTION_PX = 24
_GAP_PX = 2
_BACKGROUND, _LABEL_BACKGROUND, _INK = (0, 0, 0), (40, 44, 52), (220, 220, 220)
_PIXEL_ATTRIBUTES = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def contact_sheet(
    instances: Iterable[bytes | Path | BinaryIO],
    *,
    columns: int | None = None,
    tile_px: int = 160,
    max_tiles: int = 64,
    max_pixels: int = 64 * 1024 * 1024,
    max_bytes: int = 512 * 1024 * 1024,
) -> bytes:
    """A PNG of `max_tiles` tiles or fewer, in the order given, under a caption with modalities and counts.

    If there are more instances than tiles, those shown are spread evenly over all; if fewer, so are the frames of each.
    An instance that can not be shown is a tile that says why: nothing that an instance holds raises an error.
    `max_pixels` bounds one frame, `max_bytes` one file, inflated or not. The caption names no patient.
    """
    if min(tile_px, max_tiles, columns or 1) < 1:
        raise ValueError(f"tile_px={tile_px}, max_tiles={max_tiles}, columns={columns}: each has to be at least 1")
    every = list(instances)
    shown = [every[index] for index in spread(len(every), max_tiles)]
    tiles: list[Image.Image] = []
    modalities: set[str] = set()
    for instance in shown:
        try:
            dataset = _open(instance, max_bytes=max_bytes)
            modalities.add(str(dataset.get("Modality") or "?"))
            tiles.extend(_tiles(dataset, tile_px=tile_px, frames=max_tiles // len(shown), max_pixels=max_pixels))
        except Exception as error:  # readers and decoders raise anything on hostile bytes
            tiles.append(label(["not readable", str(error) or type(error).__name__], tile_px))
    return sheet(tiles, tile_px=tile_px, modalities=modalities, instances=len(every), columns=columns)


def spread(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` things, from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / max(1, most - 1)) for index in range(most)]


def _open(instance: bytes | Path | BinaryIO, *, max_bytes: int) -> Dataset:
    if isinstance(instance, Path):
        with instance.open("rb") as file:
            return read_part10(file, max_bytes=max_bytes)
    return read_part10(instance, max_bytes=max_bytes)


def _tiles(dataset: Dataset, *, tile_px: int, frames: int, max_pixels: int) -> Iterator[Image.Image]:
    """The tiles of one instance: its frames, or one label."""
    name = UID(str(dataset.get("SOPClassUID") or "")).name or "no SOP class"
    if not any(keyword in dataset for keyword in _PIXEL_ATTRIBUTES):
        yield label([name], tile_px)
        return
    # PS3.3 C.7.6.3 and C.7.6.6. What a decoder would allocate is known before it is asked to.
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    number_of_frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    if rows * columns * int(dataset.get("SamplesPerPixel") or 1) > max_pixels:
        yield label([name, f"{columns} x {rows} pixels", f"more than {max_pixels}"], tile_px)
        return
    for frame in spread(number_of_frames, max(1, frames)):
        try:
            yield tile(picture(dataset, pixel_array(dataset, index=frame)), tile_px)  # colour comes out as RGB
        except Exception as error:  # as above; the frames before it are good
            yield label([name, dataset.file_meta.TransferSyntaxUID.name, type(error).__name__], tile_px)
            return


def tile(pixels: NDArray[np.uint8], tile_px: int) -> Image.Image:
    """A picture as large as fits, in the middle of a square."""
    image = Image.fromarray(pixels).convert("RGB")
    scale = tile_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (tile_px, tile_px), _BACKGROUND)
    scaled = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    square.paste(scaled, ((tile_px - size[0]) // 2, (tile_px - size[1]) // 2))
    return square


def label(lines: Sequence[str], tile_px: int) -> Image.Image:
    """A tile of words in place of a picture."""
    square = Image.new("RGB", (tile_px, tile_px), _LABEL_BACKGROUND)
    draw = ImageDraw.Draw(square)
    font = ImageFont.load_default(11)
    y = 8
    for line in lines:
        for row in _wrapped(line[:200], max_characters=max(4, tile_px // 7)):
            draw.text((8, y), row, fill=_INK, font=font)
            y += 14
        y += 6
    return square


def _wrapped(line: str, *, max_characters: int) -> Iterator[str]:
    """Rows of printable words; what is longer than a row is cut."""
    row = ""
    for word in "".join(character if character.isprintable() else "?" for character in line).split():
        if row and len(row) + 1 + len(word) > max_characters:
            yield row
            row = ""
        row = f"{row} {word}".strip()[:max_characters]
    if row:
        yield row


def sheet(
    tiles: Sequence[Image.Image],
    *,
    tile_px: int,
    modalities: Collection[str],
    instances: int,
    columns: int | None = None,
) -> bytes:
    """The PNG of these tiles, which stand for so many instances of these modalities."""
    counts = f"{instances} instance{'s' * (instances != 1)}, {len(tiles)} tile{'s' * (len(tiles) != 1)}"
    caption = f"{' '.join(sorted(modalities)) or 'nothing readable'} - {counts}"
    columns = columns or max(1, ceil(sqrt(len(tiles))))
    pitch = tile_px + _GAP_PX
    size = (columns * pitch + _GAP_PX, _CAPTION_PX + ceil(len(tiles) / columns) * pitch + _GAP_PX)
    whole = Image.new("RGB", size, _BACKGROUND)
    ImageDraw.Draw(whole).text((6, 5), caption, fill=_INK, font=ImageFont.load_default(12))
    for index, one in enumerate(tiles):
        row, column = divmod(index, columns)
        whole.paste(one, (_GAP_PX + column * pitch, _CAPTION_PX + row * pitch))
    png = io.BytesIO()
    whole.save(png, "PNG")
    return png.getvalue()
