"""How fast images are re-encoded, syntax by syntax, beside what the bare codec does: `python -m benchmarks.recoding`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.phantom import write_series
from imaging.pixels import codecs
from imaging.pixels.codecs import Form, Loss
from imaging.pixels.recoding import Recoder
from server import show

_SYNTAXES = (HTJ2KLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)


def _of_series(recoder: Recoder, sources: list[Path], directory: Path, syntax: UID) -> tuple[float, list[Path]]:
    """Files per second, and what was made."""
    directory.mkdir()
    targets = [directory / one.name for one in sources]
    start = time.perf_counter()
    jobs = [
        recoder.submit(source, target, [str(syntax)], Loss()) for source, target in zip(sources, targets, strict=True)
    ]
    for job in jobs:
        job.result()
    return len(jobs) / (time.perf_counter() - start), targets


def _bare(syntax: UID, form: Form, frame: codecs.Frame, seconds: float) -> tuple[float, float]:
    """Frames per second that one thread encodes and decodes, and nothing else."""
    encoded = codecs.encode(str(syntax), frame, form, Loss())
    rates = []
    for work in (
        lambda: codecs.encode(str(syntax), frame, form, Loss()),
        lambda: codecs.decode(str(syntax), encoded, form),
    ):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            work()
            done += 1
        rates.append(done / (time.perf_counter() - start))
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recoding", description=__doc__)
    parser.add_argument("--slices", type=int, default=200, help="slices of a CT series, 512 x 512 of 16 bits each")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    recoder = Recoder(processes=arguments.processes)
    rows = []
    with tempfile.TemporaryDirectory(prefix="xdsi-recoding-") as name:
        directory = Path(name)
        (directory / "series").mkdir()
        sources = write_series(
            directory / "series", slices=arguments.slices, patient_id="BENCH", patient_name="Bench^Mark"
        )
        first = pydicom.dcmread(sources[0])
        form = Form(
            rows=first.Rows,
            columns=first.Columns,
            samples=1,
            bits_allocated=16,
            bits_stored=first.BitsStored,
            signed=first.PixelRepresentation == 1,
            photometric_interpretation="MONOCHROME2",
        )
        frame = np.frombuffer(first.PixelData, form.dtype).reshape(form.shape)
        # The processes are there, and the files in memory, before anything is measured.
        _of_series(recoder, sources, directory / "warm", ImplicitVRLittleEndian)
        plain, _ = _of_series(recoder, sources, directory / "plain", ImplicitVRLittleEndian)
        rows.append(("Implicit VR Little Endian", f"{plain:,.0f}", "", "", "", f"{sources[0].stat().st_size:,}"))
        for syntax in _SYNTAXES:
            there, made = _of_series(recoder, sources, directory / str(syntax), syntax)
            back, _ = _of_series(recoder, made, directory / f"{syntax}-back", ExplicitVRLittleEndian)
            encodes, decodes = _bare(syntax, form, frame, 1.0)
            size = sum(one.stat().st_size for one in made) // len(made)
            rows.append(
                (syntax.name, f"{there:,.0f}", f"{encodes:,.0f}", f"{back:,.0f}", f"{decodes:,.0f}", f"{size:,}")
            )
    recoder.close()
    show.as_table(
        f"{arguments.slices} slices of 512 x 512, {arguments.processes} processes",
        (
            "transfer syntax",
            "files/s into it",
            "bare, one thread",
            "files/s out of it",
            "bare, one thread",
            "bytes a file",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
