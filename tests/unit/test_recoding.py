"""Re-encoding in processes of their own: what crashes, grows or hangs there harms nobody, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from imaging import schema
from imaging.instances import Instance, Instances
from imaging.pixels.bounded import Bounds
from imaging.pixels.codecs import CodecError, Loss
from imaging.pixels.recoding import Recoder
from imaging.pixels.transfer import NotGivenError, Transfer
from tests.unit.test_transcode import file

EXPLICIT = str(ExplicitVRLittleEndian)


@pytest.fixture
def recoder() -> Iterator[Recoder]:
    made = Recoder(processes=2, bounds=Bounds(memory_bytes=2 * 1024**3, timeout_s=60))
    yield made
    made.close()


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    engine = schema.connect(f"sqlite:///{tmp_path / 'imaging.sqlite'}")
    schema.upgrade(engine)
    made = Instances(engine, tmp_path / "instances")
    yield made
    made.close()


@pytest.fixture
def transfer(recoder: Recoder, instances: Instances) -> Transfer:
    return Transfer(recoder, instances.staging)


def stored(instances: Instances, name: str) -> Instance:
    return instances.add(file(name))[0]


def works(recoder: Recoder, directory: Path) -> bool:
    target = directory / "works.dcm"
    recoder.submit(file("CT_small.dcm"), target, [str(RLELossless)], Loss()).result()
    return target.exists()


# --- processes --------------------------------------------------------------------------------------------------------


def test_many_jobs_share_a_few_processes(recoder: Recoder, tmp_path: Path) -> None:
    targets = [tmp_path / f"{number}.dcm" for number in range(20)]
    jobs = [recoder.submit(file("MR_small.dcm"), one, [str(JPEG2000Lossless)], Loss()) for one in targets]
    assert {job.result() for job in jobs} == {str(JPEG2000Lossless)}
    assert all(one.exists() for one in targets)
    assert 1 <= len(recoder.pids) <= 2


def test_a_process_that_dies_fails_its_own_job_alone(recoder: Recoder, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    job = recoder.submit(pipe, tmp_path / "out.dcm", [EXPLICIT], Loss())
    # Opened when the process reads it.
    writing = os.open(pipe, os.O_WRONLY)
    (pid,) = recoder.pids
    assert works(recoder, tmp_path)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(CodecError, match=r"^could not be re-encoded: that crashed"):
        job.result()
    os.close(writing)
    assert not (tmp_path / "out.dcm").exists()
    assert works(recoder, tmp_path)


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    recoder = Recoder(processes=1, bounds=Bounds(timeout_s=1.0))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CodecError, match="took too long"):
        recoder.submit(pipe, tmp_path / "out.dcm", [EXPLICIT], Loss()).result()
    assert recoder.pids == []
    recoder.close()


def test_a_bomb_does_not_get_more_memory_than_is_allowed(recoder: Recoder, tmp_path: Path) -> None:
    """A deflated data set of 8 GiB in 8 MB."""
    dataset = pydicom.dcmread(file("image_dfl.dcm"))
    assert dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    whole = file("image_dfl.dcm").read_bytes()
    head = whole[: whole.index(str(DeflatedExplicitVRLittleEndian).encode()) + len(DeflatedExplicitVRLittleEndian)]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = b"\xe0\x7f\x10\x00OB\0\0" + (2**32 - 2).to_bytes(4, "little")
    body = [deflate.compress(element), *(deflate.compress(bytes(2**26)) for _ in range(128)), deflate.flush()]
    meta_end = len(head) + len(head) % 2
    (tmp_path / "bomb.dcm").write_bytes(whole[:meta_end] + b"".join(body))
    with pytest.raises(CodecError):
        recoder.submit(tmp_path / "bomb.dcm", tmp_path / "out.dcm", [EXPLICIT], Loss()).result()
    assert works(recoder, tmp_path)


def test_an_image_that_announces_more_than_it_has_does_not_get_the_memory(recoder: Recoder, tmp_path: Path) -> None:
    """A JPEG 2000 stream of 64 x 64 that says 60,000 x 60,000, as the data set does."""
    dataset = pydicom.dcmread(file("MR_small_jp2klossless.dcm"))
    dataset.Rows = dataset.Columns = 60_000
    size = (64).to_bytes(4, "big") * 2
    assert dataset.PixelData.count(size) >= 1
    dataset.PixelData = dataset.PixelData.replace(size, (60_000).to_bytes(4, "big") * 2)
    dataset.save_as(tmp_path / "in.dcm")
    with pytest.raises(CodecError):
        recoder.submit(tmp_path / "in.dcm", tmp_path / "out.dcm", [EXPLICIT], Loss()).result()
    assert works(recoder, tmp_path)


def test_a_closed_recoder_leaves_no_process(tmp_path: Path) -> None:
    recoder = Recoder(processes=2)
    assert works(recoder, tmp_path)
    pids = recoder.pids
    recoder.close()
    assert pids and not any(map(psutil.pid_exists, pids))


# --- the choice of a syntax -------------------------------------------------------------------------------------------


def test_what_is_acceptable_as_it_is_stored_is_given_bit_for_bit(instances: Instances, transfer: Transfer) -> None:
    one = stored(instances, "JPEG2000.dcm")
    given = transfer.given(one, [EXPLICIT, one.transfer_syntax_uid])
    assert given.read() == file("JPEG2000.dcm").read_bytes()


def test_the_first_syntax_of_the_request_that_can_be_made_is_taken(instances: Instances, transfer: Transfer) -> None:
    one = stored(instances, "CT_small.dcm")
    wanted = ["1.2.840.10008.1.2.4.102", str(JPEGBaseline8Bit), str(JPEG2000Lossless), str(RLELossless)]
    with transfer.given(one, wanted).open() as stream:
        assert pydicom.dcmread(stream).file_meta.TransferSyntaxUID == JPEG2000Lossless


def test_uncompressed_pixels_go_before_a_compression(instances: Instances, transfer: Transfer) -> None:
    with transfer.given(stored(instances, "JPEG2000.dcm"), [str(RLELossless), EXPLICIT]).open() as stream:
        assert pydicom.dcmread(stream).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_loss_is_for_those_who_take_nothing_better(recoder: Recoder, instances: Instances) -> None:
    transfer = Transfer(recoder, instances.staging, loss=Loss(jpeg_quality=90))
    one = stored(instances, "SC_rgb_rle.dcm")
    for wanted, given in (([JPEGBaseline8Bit, JPEG2000Lossless], JPEG2000Lossless), ([JPEGBaseline8Bit],) * 2):
        with transfer.given(one, [str(syntax) for syntax in wanted]).open() as stream:
            syntax = pydicom.dcmread(stream).file_meta.TransferSyntaxUID
        assert syntax == (given if not isinstance(given, list) else given[0])


@pytest.mark.parametrize("wanted", [["1.2.840.10008.1.2.4.102"], [str(JPEGBaseline8Bit)], ["1.2.3"], []])
def test_what_can_not_be_made_is_not_given(instances: Instances, transfer: Transfer, wanted: list[str]) -> None:
    with pytest.raises(NotGivenError, match=r"^is stored in transfer syntax 1\.2\.840\.10008\.1\.2\.1, and cannot"):
        transfer.given(stored(instances, "CT_small.dcm"), wanted)


def test_the_reason_names_both_syntaxes(instances: Instances, transfer: Transfer) -> None:
    one = stored(instances, "rtdose_1frame.dcm")
    with pytest.raises(
        NotGivenError, match=r"BitsAllocated 32.* \(stored in transfer syntax .*, asked for in .*4\.90\)"
    ):
        transfer.given(one, [str(JPEG2000Lossless)])


def test_a_report_comes_uncompressed_whatever_is_asked_for(instances: Instances, transfer: Transfer) -> None:
    given = transfer.given(stored(instances, "reportsi.dcm"), [str(JPEG2000Lossless)])
    with given.open() as stream:
        assert pydicom.dcmread(stream).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_what_was_re_encoded_goes_with_the_document(instances: Instances, transfer: Transfer) -> None:
    given = transfer.given(stored(instances, "CT_small.dcm"), [str(RLELossless)])
    assert given.size == len(given.read())
    assert len(list(instances.staging.iterdir())) == 1
    del given
    gc.collect()
    assert list(instances.staging.iterdir()) == []


def test_what_nobody_waits_for_any_more_goes_too(instances: Instances, recoder: Recoder, transfer: Transfer) -> None:
    one = stored(instances, "CT_small.dcm")
    for _ in range(4):
        transfer.begun(one, [str(RLELossless)])
    gc.collect()
    recoder.close()
    assert list(instances.staging.iterdir()) == []


def test_pixels_come_back_as_they_were(instances: Instances, transfer: Transfer) -> None:
    with transfer.given(stored(instances, "MR_small_RLE.dcm"), [EXPLICIT]).open() as stream:
        found = pydicom.dcmread(stream).pixel_array
    assert np.array_equal(found, pydicom.dcmread(file("MR_small.dcm")).pixel_array)
