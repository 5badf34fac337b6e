"""An instance in one of the transfer syntaxes that somebody takes: as it is stored where that is one of them, else re-encoded."""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian

from imaging.instances import Instance, read_header
from imaging.pixels import codecs, transcode
from imaging.pixels.codecs import CodecError, Loss
from imaging.pixels.recoding import Recoder
from xds.messages import Document

Given = Callable[[Instance, Sequence[str]], Document]
"""The instance as Part 10 in one of the transfer syntaxes, as `Transfer.given`."""


class NotGivenError(ValueError):
    """An instance that can not be given in any of the syntaxes, with the reason as the end of a sentence about it."""


class Transfer:
    """Gives instances. Every method may be called from several threads at once."""

    def __init__(self, recoder: Recoder, staging: Path, *, loss: Loss | None = None) -> None:
        """What is re-encoded is kept in `staging` as long as somebody has the document. By default nothing may be lost."""
        self._recoder, self._staging, self._loss = recoder, staging, loss or Loss()
        #: So many instances are re-encoded at once.
        self.at_once = recoder.processes

    def given(self, stored: Instance, syntaxes: Sequence[str]) -> Document:
        """The instance as Part 10 in one of the transfer syntaxes; NotGivenError where that can not be.

        As it is stored, bit for bit, where that is among them; else uncompressed, without loss, with loss, whichever of these can be
        made first.
        """
        return self.begun(stored, syntaxes)()

    def begun(self, stored: Instance, syntaxes: Sequence[str]) -> Callable[[], Document]:
        """As `given`, which goes on while the caller does something else; the result is waited for. NotGivenError may come at once."""
        if stored.transfer_syntax_uid in syntaxes:
            return lambda: stored.document
        wanted = self._candidates(syntaxes)
        if not _has_pixels(stored):
            # Compressed syntaxes say nothing of an object without pixels: it comes in Explicit VR Little Endian.
            wanted = [one for one in wanted if one in transcode.UNCOMPRESSED] or [str(ExplicitVRLittleEndian)]
            if stored.transfer_syntax_uid in wanted:
                return lambda: stored.document
        if not wanted or stored.transfer_syntax_uid not in transcode.READ:
            raise NotGivenError(
                f"is stored in transfer syntax {stored.transfer_syntax_uid}, and cannot be given in {_listed(syntaxes)}"
            )
        target = self._staging / f"{secrets.token_hex(16)}.recoded"
        future = self._recoder.submit(stored.path, target, wanted, self._loss)

        def result() -> Document:
            try:
                future.result()
            except CodecError as fault:
                unused.detach()
                stored_in = (
                    f"(stored in transfer syntax {stored.transfer_syntax_uid}, asked for in {_listed(syntaxes)})"
                )
                raise NotGivenError(f"{fault} {stored_in}") from fault
            unused.detach()
            return Document.passing(target, size=target.stat().st_size, sha1="", mime_type="application/dicom")

        unused = weakref.finalize(result, _forget, future, target)
        return result

    def _candidates(self, syntaxes: Sequence[str]) -> list[str]:
        """Those that can be made: uncompressed ones first, those with loss last, else in the order of the request."""
        uncompressed, lossless, lossy = [], [], []
        for one in dict.fromkeys(syntaxes):
            encoding = codecs.ENCODINGS.get(one)
            if one in transcode.UNCOMPRESSED:
                uncompressed.append(one)
            elif encoding is not None and not encoding.lossy(self._loss):
                lossless.append(one)
            elif encoding is not None and encoding.allowed(self._loss):
                lossy.append(one)
        return uncompressed + lossless + lossy


def _has_pixels(stored: Instance) -> bool:
    # Rows is in the image pixel description of every object that has pixels (PS3.3 C.7.6.3).
    return "Rows" in read_header(stored.path)


def _forget(future: Future[str], target: Path) -> None:
    """Nobody waits for it any more."""
    if not future.cancel():
        future.add_done_callback(lambda _: target.unlink(missing_ok=True))


def _listed(syntaxes: Sequence[str]) -> str:
    return ", ".join(syntaxes[:5])
