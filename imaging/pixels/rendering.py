"""Pictures for the eye: windowing, cutting out, scaling, and PNG or JPEG of one frame (PS3.4 N.2, PS3.18 8.3.5)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

_INK = (255, 255, 0)


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in the values that the modality LUT gives, and its function (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float
    function: Literal["linear", "linear-exact", "sigmoid"] = "linear"

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """0 to 255, and beyond where the value is outside of the window."""
        if self.function == "sigmoid":
            exponent: NDArray[np.float32] = np.clip(-4 * (values - self.centre) / self.width, -80, 80)
            return np.asarray(255 / (1 + np.exp(exponent)), np.float32)
        if self.function == "linear-exact":
            return ((values - self.centre) / self.width + 0.5) * 255
        # A width of 1 is a threshold.
        return ((values - (self.centre - 0.5)) / max(self.width - 1, 1e-6) + 0.5) * 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a picture is to look. `box` is the largest size in pixels (width, height); `cut` what of the image is shown: x, y, width, height.

    A negative width or height of `cut` flips it. `annotation`: "patient" and "technique".
    """

    window: Window | None = None
    box: tuple[int, int] | None = None
    cut: tuple[float, float, float, float] | None = None
    quality: int = 90
    annotation: frozenset[str] = frozenset()


def picture(dataset: Dataset, pixels: NDArray[np.generic], window: Window | None = None) -> NDArray[np.uint8]:
    """One decoded frame for the eye: (rows, columns) grey or (rows, columns, 3) RGB. Without `window` the header's first one counts."""
    interpretation = str(dataset.get("PhotometricInterpretation") or "")
    if interpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        bits = 16 if interpretation == "PALETTE COLOR" and pixels.dtype.itemsize > 1 else int(dataset.BitsStored)
        return _eight_bits(np.asarray(pixels, np.float32) * (255 / (2**bits - 1)))
    values = np.asarray(apply_modality_lut(pixels, dataset), np.float32)
    if window is None:
        low, high = _window(dataset, values)
        grey = _eight_bits((values - low) * (255 / (high - low)))
    else:
        grey = _eight_bits(window.apply(values))
    return 255 - grey if interpretation == "MONOCHROME1" else grey  # its lowest value is white (PS3.3 C.7.6.3.1.2)


def image(dataset: Dataset, pixels: NDArray[np.generic], media_type: str, wanted: Wanted) -> bytes:
    """One decoded frame as image/png or image/jpeg."""
    drawn = Image.fromarray(picture(dataset, pixels, wanted.window))
    if wanted.cut is not None:
        drawn = _cut(drawn, wanted.cut)
    if wanted.box is not None:
        scale = min(wanted.box[0] / drawn.width, wanted.box[1] / drawn.height)
        size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
        drawn = drawn.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    if wanted.annotation:
        drawn = _annotated(drawn, dataset, wanted.annotation)
    encoded = io.BytesIO()
    if media_type == "image/png":
        drawn.save(encoded, "PNG")
    else:
        drawn.save(encoded, "JPEG", quality=wanted.quality)
    return encoded.getvalue()


def _cut(drawn: Image.Image, cut: tuple[float, float, float, float]) -> Image.Image:
    """What is within the image of the part that is wanted, at least a pixel."""
    x, y, width, height = cut
    left, top = min(max(0, round(x)), drawn.width - 1), min(max(0, round(y)), drawn.height - 1)
    right = min(max(left + 1, round(x + abs(width))), drawn.width)
    bottom = min(max(top + 1, round(y + abs(height))), drawn.height)
    part = drawn.crop((left, top, right, bottom))
    if width < 0:
        part = ImageOps.mirror(part)
    return ImageOps.flip(part) if height < 0 else part


def _annotated(drawn: Image.Image, dataset: Dataset, annotation: frozenset[str]) -> Image.Image:
    keywords: list[str] = []
    if "patient" in annotation:
        keywords += ["PatientName", "PatientID", "PatientBirthDate", "PatientSex"]
    if "technique" in annotation:
        keywords += ["Modality", "StudyDate", "SeriesDescription", "SeriesNumber", "InstanceNumber"]
    drawn = drawn.convert("RGB")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for row, keyword in enumerate(keywords):
        text = "".join(one if one.isprintable() else "?" for one in str(dataset.get(keyword) or "")[:64])
        pen.text((4, 4 + 13 * row), text, fill=_INK, font=font)
    return drawn


def number(value: object) -> float | None:
    """The first number of an attribute that may be absent, empty or of several values."""
    first = next(iter(value), None) if isinstance(value, Iterable) and not isinstance(value, str) else value
    try:
        found = float(str(first))
    except ValueError:
        return None
    return found if isfinite(found) else None


def _eight_bits(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    bounded: NDArray[np.float32] = np.clip(np.nan_to_num(values), 0, 255)
    return bounded.astype(np.uint8)


def _window(dataset: Dataset, values: NDArray[np.float32]) -> tuple[float, float]:
    """What becomes black and white: the header's first window (PS3.3 C.11.2.1.2), else most of the values."""
    centre, width = (number(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2 + 1e-6
    finite = values[np.isfinite(values)]
    low, high = (float(each) for each in np.percentile(finite, (1, 99))) if finite.size else (0.0, 0.0)
    if high <= low and finite.size:  # nearly all the same, as in a segmentation
        low, high = float(finite.min()), float(finite.max())
    return low, max(high, low + 1e-6)
