"""One frame of pixels in and out of the encodings of DICOM (PS3.5 8.2 and Annex A). Hostile data may crash it: see recoding.py.

A frame is an array of rows, columns and, of colour, samples. What is decoded is compared with the form that the data set announces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import imagecodecs
import jpeg_ls
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Frame = NDArray[np.generic]


class CodecError(ValueError):
    """A frame that can not be decoded or encoded, with the reason as the end of a sentence about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the image pixel description says of each frame (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def is_ybr(self) -> bool:
        return self.photometric_interpretation.startswith("YBR")


# --- decoding ---------------------------------------------------------------------------------------------------------


def decode(syntax: str, content: bytes, form: Form) -> Frame:
    """The frame of the encoded bytes. Of JPEG and JPEG 2000, colour becomes RGB (`decoded_photometric`). CodecError."""
    decoder = _DECODERS.get(syntax)
    if decoder is None:
        raise CodecError(f"is encoded in transfer syntax {syntax}, which is not decoded here")
    try:
        frame = decoder(content, form)
    except Exception as error:
        raise CodecError(f"has a frame that is no {syntax}: {' '.join(str(error).split())[:200]}") from error
    if frame.shape != form.shape:
        raise CodecError(f"has a frame of {_size(frame.shape)}, where the data set says {_size(form.shape)}")
    return _as_announced(frame, form)


def decoded_photometric(syntax: str, form: Form) -> str:
    """PhotometricInterpretation of what `decode` gives."""
    if form.samples == 3 and syntax in _DECODED_TO_RGB and (syntax in _JPEG or form.photometric_interpretation in _MCT):
        return "RGB"
    return form.photometric_interpretation


def _as_announced(frame: Frame, form: Form) -> Frame:
    """With the bits that the data set allocates, and its sign, which not every encoding knows."""
    if frame.dtype.itemsize * 8 > form.bits_allocated and int(frame.max(initial=0)) >> form.bits_allocated:
        raise CodecError(f"has a frame of more than BitsAllocated ({form.bits_allocated}) bits")
    wide = frame.astype(form.dtype, copy=False)
    if form.signed and frame.dtype.kind == "u" and form.bits_stored < form.bits_allocated:
        shift = form.bits_allocated - form.bits_stored
        return (wide << shift) >> shift
    return wide


def _jpeg(content: bytes, form: Form) -> Frame:
    if form.samples == 1:
        return imagecodecs.jpeg_decode(content)
    coded = "YCBCR" if _is_ycbcr(content, form) else "RGB"
    return imagecodecs.jpeg_decode(content, colorspace=coded, outcolorspace="RGB")


def _is_ycbcr(content: bytes, form: Form) -> bool:
    """What the stream says of its colours goes before what the data set says, which is often wrong."""
    head = content[: content.find(b"\xff\xda")]
    adobe = head.find(b"Adobe\x00")
    if adobe >= 0 and len(head) > adobe + 11:
        return head[adobe + 11] != 0
    return b"JFIF\x00" in head or form.is_ybr


def _jpeg_ls(content: bytes, form: Form) -> Frame:
    return imagecodecs.jpegls_decode(content)


def _jpeg_2000(content: bytes, form: Form) -> Frame:
    return imagecodecs.jpeg2k_decode(content)


def _htj2k(content: bytes, form: Form) -> Frame:
    frame = imagecodecs.htj2k_decode(content)
    planar = (form.samples, form.rows, form.columns)
    return frame.transpose(1, 2, 0) if form.samples > 1 and frame.shape == planar else frame


def _rle(content: bytes, form: Form) -> Frame:
    planes = np.frombuffer(imagecodecs.dicomrle_decode(content, form.dtype), form.dtype)
    frame = planes.reshape(form.samples, form.rows, form.columns)
    return frame[0] if form.samples == 1 else frame.transpose(1, 2, 0)


JPEG_LOSSLESS = frozenset(map(str, (JPEGLossless, JPEGLosslessSV1)))
_JPEG = JPEG_LOSSLESS | {str(JPEGBaseline8Bit), str(JPEGExtended12Bit)}
_JPEG_2000 = frozenset(map(str, (JPEG2000Lossless, JPEG2000)))
_HTJ2K = frozenset(map(str, (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)))
_DECODED_TO_RGB = _JPEG | _JPEG_2000 | _HTJ2K
#: Colours that JPEG 2000 has transformed, and transforms back.
_MCT = frozenset(("YBR_RCT", "YBR_ICT"))
_DECODERS: Mapping[str, Callable[[bytes, Form], Frame]] = {
    **dict.fromkeys(_JPEG, _jpeg),
    **dict.fromkeys(_JPEG_2000, _jpeg_2000),
    **dict.fromkeys(_HTJ2K, _htj2k),
    str(JPEGLSLossless): _jpeg_ls,
    str(JPEGLSNearLossless): _jpeg_ls,
    str(RLELossless): _rle,
}
DECODED = frozenset(_DECODERS)


# --- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How much may be lost where somebody takes nothing better; 0 is nothing, and then such encodings are not made."""

    jpeg_quality: int = 0
    jpeg_2000_psnr_db: int = 0
    jpeg_ls_error: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How frames get into a transfer syntax. `method` is LossyImageCompressionMethod (PS3.3 C.7.6.1.1.5)."""

    encode: Callable[[Frame, Form, Loss], bytes]
    most_bits: int
    lossy: Callable[[Loss], bool] = lambda loss: False
    #: Whether it may be made at all.
    allowed: Callable[[Loss], bool] = lambda loss: True
    method: str = ""


def encode(syntax: str, frame: Frame, form: Form, loss: Loss) -> bytes:
    """The frame, encoded. CodecError for one that the encoding has no room for."""
    encoding = ENCODINGS[syntax]
    if form.bits_allocated not in (8, 16, 32) or form.bits_allocated > encoding.most_bits:
        raise CodecError(f"has BitsAllocated {form.bits_allocated}, which transfer syntax {syntax} has no room for")
    try:
        return encoding.encode(np.ascontiguousarray(frame), form, loss)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CodecError(f"has a frame that can not be encoded in {syntax}: {reason}") from error


def _precision(frame: Frame, form: Form) -> int:
    """BitsStored, or more where there is more, such as overlays in the bits above."""
    low, high = (
        (-(1 << form.bits_stored - 1), (1 << form.bits_stored - 1) - 1)
        if form.signed
        else (0, (1 << form.bits_stored) - 1)
    )
    fits = int(frame.min(initial=0)) >= low and int(frame.max(initial=0)) <= high
    return form.bits_stored if fits else form.bits_allocated


def _to_jpeg(frame: Frame, form: Form, loss: Loss) -> bytes:
    if form.bits_allocated != 8 or form.signed:
        raise CodecError("JPEG Baseline takes 8 bits without sign")
    level = loss.jpeg_quality
    if form.samples == 1:
        return bytes(imagecodecs.jpeg_encode(frame, level))
    coded = "YCBCR" if form.is_ybr else "RGB"
    return bytes(imagecodecs.jpeg_encode(frame, level, colorspace=coded, outcolorspace="YCBCR", subsampling="422"))


def _to_jpeg_lossless(frame: Frame, form: Form, loss: Loss) -> bytes:
    unsigned = frame.view(f"u{frame.dtype.itemsize}")
    bits = 8 if form.bits_allocated == 8 else 16
    if form.samples == 1:
        return bytes(imagecodecs.jpeg_encode(unsigned, lossless=True, predictor=1, bitspersample=bits))
    return bytes(
        imagecodecs.jpeg_encode(
            unsigned, lossless=True, predictor=1, bitspersample=bits, colorspace="RGB", outcolorspace="RGB"
        )
    )


def _to_jpeg_ls(frame: Frame, form: Form, loss: Loss) -> bytes:
    return _jpeg_ls_stream(frame, form, 0)


def _to_near_jpeg_ls(frame: Frame, form: Form, loss: Loss) -> bytes:
    return _jpeg_ls_stream(frame, form, loss.jpeg_ls_error)


def _jpeg_ls_stream(frame: Frame, form: Form, error: int) -> bytes:
    signed_bits = form.bits_allocated if form.signed else _precision(frame, form)
    stream = jpeg_ls.encode_pixel_data(
        frame.tobytes(),
        lossy_error=error,
        rows=form.rows,
        columns=form.columns,
        samples_per_pixel=form.samples,
        bits_stored=signed_bits,
        planar_configuration=0,
    )
    return bytes(stream)


def _to_jpeg_2000(frame: Frame, form: Form, loss: Loss) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            frame, level=0, reversible=True, codecformat="j2k", bitspersample=_precision(frame, form), mct=False
        )
    )


def _to_any_jpeg_2000(frame: Frame, form: Form, loss: Loss) -> bytes:
    if not loss.jpeg_2000_psnr_db:
        return _to_jpeg_2000(frame, form, loss)
    bits = _precision(frame, form)
    return bytes(
        imagecodecs.jpeg2k_encode(
            frame, loss.jpeg_2000_psnr_db, reversible=False, codecformat="j2k", bitspersample=bits, mct=False
        )
    )


def _to_htj2k(frame: Frame, form: Form, loss: Loss) -> bytes:
    if form.samples == 1:
        return bytes(imagecodecs.htj2k_encode(frame, reversible=True))
    # A codestream without colour transform has its samples in planes.
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1))
    return bytes(imagecodecs.htj2k_encode(planes, reversible=True, rgb=False, planar=True))


def _to_rle(frame: Frame, form: Form, loss: Loss) -> bytes:
    """PS3.5 Annex G: a segment for each byte of each sample, the highest first; each row is packed for itself."""
    size = form.bits_allocated // 8
    planes = np.ascontiguousarray(frame.reshape(form.rows, form.columns, form.samples).transpose(2, 0, 1))
    octets = planes.astype(planes.dtype.newbyteorder(">")).view("u1")
    octets = octets.reshape(form.samples, form.rows, form.columns, size)
    segments = []
    for sample in range(form.samples):
        for octet in range(size):
            packed = imagecodecs.packbits_encode(np.ascontiguousarray(octets[sample, :, :, octet]), axis=-1)
            segments.append(bytes(packed) + b"\0" * (len(packed) % 2))
    if len(segments) > 15:
        raise CodecError(f"{len(segments)} segments are more than the 15 of a frame")
    header = np.zeros(16, "<u4")
    header[0] = len(segments)
    header[1 : len(segments) + 1] = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return header.tobytes() + b"".join(segments)


ENCODINGS: Mapping[str, Encoding] = {
    str(JPEG2000Lossless): Encoding(encode=_to_jpeg_2000, most_bits=16),
    str(JPEG2000): Encoding(
        encode=_to_any_jpeg_2000,
        most_bits=16,
        lossy=lambda loss: loss.jpeg_2000_psnr_db > 0,
        method="ISO_15444_1",
    ),
    str(HTJ2KLossless): Encoding(encode=_to_htj2k, most_bits=16),
    str(HTJ2KLosslessRPCL): Encoding(encode=_to_htj2k, most_bits=16),
    str(HTJ2K): Encoding(encode=_to_htj2k, most_bits=16),
    str(JPEGLSLossless): Encoding(encode=_to_jpeg_ls, most_bits=16),
    str(JPEGLSNearLossless): Encoding(
        encode=_to_near_jpeg_ls, most_bits=16, lossy=lambda loss: loss.jpeg_ls_error > 0, method="ISO_14495_1"
    ),
    str(JPEGLossless): Encoding(encode=_to_jpeg_lossless, most_bits=16),
    str(JPEGLosslessSV1): Encoding(encode=_to_jpeg_lossless, most_bits=16),
    str(RLELossless): Encoding(encode=_to_rle, most_bits=32),
    str(JPEGBaseline8Bit): Encoding(
        encode=_to_jpeg,
        most_bits=8,
        lossy=lambda loss: True,
        allowed=lambda loss: loss.jpeg_quality > 0,
        method="ISO_10918_1",
    ),
}


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
