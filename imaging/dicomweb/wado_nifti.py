"""A series as NIfTI over WADO-RS, for who asks for `application/x-nifti`: the file .nii.gz of its one volume."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from imaging.dicomweb.resources import Handler, Refusal, Request, accepted
from imaging.dicomweb.wado_rs import Find
from imaging.instances import Instance
from imaging.nifti import NiftiError, export
from imaging.pixels.transfer import Given
from soap.replying import HttpReply
from xds.messages import Document

NIFTI = "application/x-nifti"
#: A conversion is a process of its own, and takes a processor for as long as it lasts.
_AT_ONCE = 2


def or_nifti(retrieve: Handler, *, find: Find, given: Given, staging: Path) -> Handler:
    """What is asked for by other media types is answered by `retrieve`. Refusal (406) for a series that is no volume, with the reason."""
    free = threading.BoundedSemaphore(_AT_ONCE)

    def handler(request: Request) -> HttpReply:
        if accepted(request.accept)[0].media_type != NIFTI:
            return retrieve(request)
        request.parameters(())
        chosen = find(request)
        if not free.acquire(blocking=False):
            raise Refusal(503, f"{_AT_ONCE} series are being converted already; try again later")
        try:
            volume = _volume(chosen, given, staging)
        except NiftiError as error:
            raise Refusal(406, str(error)) from error
        finally:
            free.release()
        name = ("Content-Disposition", f'attachment; filename="{request.place["series"]}.nii.gz"')
        return HttpReply(200, NIFTI, volume.size, volume.chunks(), (name,))

    return handler


def _volume(series: Sequence[Instance], given: Given, staging: Path) -> Document:
    """The one volume of the series, in a file that goes when it has been sent."""
    with tempfile.TemporaryDirectory(prefix="nifti-", dir=staging) as name:
        volumes = [one for one in export(series, Path(name), given=given) if one.name.endswith(".nii.gz")]
        if len(volumes) != 1:
            raise NiftiError(f"series {series[0].series_instance_uid} makes {len(volumes)} volumes: use xdsi export")
        kept = volumes[0].rename(staging / f"{Path(name).name}.nii.gz")
    return Document.passing(kept, size=kept.stat().st_size, sha1="", mime_type=NIFTI)
