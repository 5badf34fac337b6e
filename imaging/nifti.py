"""A DICOM series as NIfTI volumes, converted by dcm2niix (the extra `nifti`) in a process with bounds.

What no volume can be made of is refused beforehand, with the reason: dcm2niix would guess.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging.instances import Instance, read_header
from imaging.pixels import bounded as bounding
from imaging.pixels.transfer import Given, NotGivenError

_NATIVE = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
#: Slices of one volume have the same direction, to within this.
_TOLERANCE = 1e-4
_FILES = (".nii.gz", ".json", ".bval", ".bvec")


class NiftiError(ValueError):
    """A series that no NIfTI can be made of, with the reason."""


#: What the conversion of one series may take.
_BOUNDS = bounding.Bounds(memory_bytes=8 * 1024**3, file_bytes=8 * 1024**3, timeout_s=600.0)


def export(
    series: Sequence[Instance], out: Path, *, given: Given, bounds: bounding.Bounds = _BOUNDS, name: str = ""
) -> list[Path]:
    """The files that were made of the instances of one series, in `out`: volumes (.nii.gz), their sidecars (.json), and of diffusion
    .bval and .bvec. They are called `name`, by default the Series Instance UID; several volumes have suffixes.

    The affine is in RAS and millimetres, pixel values are rescaled by scl_slope and scl_inter. Neither the header nor the sidecar has
    what identifies a patient; the pixels may. NiftiError where it can not be made; nothing is left in `out` then.
    """
    if not series:
        raise NiftiError("there is no such series")
    uid = series[0].series_instance_uid
    _check([read_header(one.path) for one in series], uid)
    program = _program()
    with tempfile.TemporaryDirectory(prefix=".nifti-", dir=out) as made:
        slices, volumes = Path(made, "in"), Path(made, "out")
        slices.mkdir()
        volumes.mkdir()
        for number, one in enumerate(series):
            _put(one, slices / f"{number:06}.dcm", given)
        _convert(program, slices, volumes, Path(made), bounds, uid)
        found = sorted(one for one in volumes.iterdir() if one.name.endswith(_FILES))
        if not any(one.name.endswith(".nii.gz") for one in found):
            raise NiftiError(f"series {uid}: dcm2niix made no volume of it")
        return [one.rename(out / f"{name or uid}{one.name.removeprefix('series')}") for one in found]


def _put(one: Instance, target: Path, given: Given) -> None:
    """Uncompressed, so that every encoding that is decoded here can be converted."""
    if one.transfer_syntax_uid in _NATIVE:
        target.symlink_to(one.path.absolute())
        return
    try:
        document = given(one, _NATIVE)
    except NotGivenError as error:
        raise NiftiError(f"instance {one.sop_instance_uid} {error}") from error
    with document.open() as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)


def _convert(program: str, slices: Path, volumes: Path, home: Path, bounds: bounding.Bounds, uid: str) -> None:
    # gzip of its own; an anonymous sidecar; no comment, which may name a patient; no defaults of a user; 16 bits as they are.
    flags = ["-z", "i", "-b", "y", "-ba", "y", "-c", "", "-g", "i", "-l", "o", "-w", "2", "-f", "series"]
    bounded = [sys.executable, bounding.__file__, str(bounds.memory_bytes), str(bounds.file_bytes)]
    with subprocess.Popen(  # noqa: S603  # nothing of it is from the wire
        [*bounded, program, *flags, "-o", str(volumes), str(slices)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home)},
        start_new_session=True,
    ) as process:
        try:
            status = process.wait(timeout=bounds.timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise NiftiError(f"series {uid}: dcm2niix was not done after {bounds.timeout_s:.0f} s") from None
        except BaseException:
            process.kill()
            raise
    if status != 0:
        raise NiftiError(f"series {uid}: dcm2niix ended with status {status}")


def _program() -> str:
    """The program that the package carries, else that of the system."""
    spec = importlib.util.find_spec("dcm2niix")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "dcm2niix"
        if os.access(carried, os.X_OK):
            return str(carried)
    found = shutil.which("dcm2niix")
    if found is None:
        raise NiftiError("dcm2niix is not installed: pip install 'xdsi[nifti]', or Debian's package dcm2niix")
    return found


# --- what has a geometry ----------------------------------------------------------------------------------------------


def _check(headers: Sequence[Dataset], uid: str) -> None:
    """NiftiError for a series that is not made of slices in space."""
    for header in headers:
        name = f"instance {header.SOPInstanceUID}"
        if "Rows" not in header:
            raise NiftiError(f"{name} has no pixels (Modality {header.get('Modality', '')})")
        if "MOSAIC" in (header.get("ImageType") or ()):
            raise NiftiError(
                f"{name} is a mosaic (ImageType): its slices are tiles of one image, whose places are in private attributes"
            )
        if _direction(header) is None:
            raise NiftiError(f"{name} has no ImageOrientationPatient and ImagePositionPatient: its place is not known")
    first = _direction(headers[0])
    assert first is not None
    for header in headers[1:]:
        direction = _direction(header)
        assert direction is not None
        if not all(math.isclose(a, b, abs_tol=_TOLERANCE) for a, b in zip(first, direction, strict=True)):
            raise NiftiError(
                f"series {uid} has slices of several orientations: instances {headers[0].SOPInstanceUID} and {header.SOPInstanceUID}"
            )


def _direction(header: Dataset) -> tuple[float, ...] | None:
    """ImageOrientationPatient, where there is a position too; of a multi-frame object that of its first frame."""
    groups = [header]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups += list(header.get(keyword) or ())[:1]
    orientation = _first(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    position = _first(groups, "PlanePositionSequence", "ImagePositionPatient")
    if orientation is None or len(orientation) != 6 or position is None or len(position) != 3:
        return None
    return orientation


def _first(groups: Sequence[Dataset], sequence: str, keyword: str) -> tuple[float, ...] | None:
    for group in groups:
        for holder in (group, *list(group.get(sequence) or ())[:1]):
            value = holder.get(keyword)
            if value:
                try:
                    return tuple(float(one) for one in value)
                except (TypeError, ValueError):
                    return None
    return None
