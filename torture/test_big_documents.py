"""One document of 4 GB, in and out: more than 32 bits can count, in constant memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torture.big import Content, Framing, Memory, post, provide, retrieved
from torture.kills import Domain, one_process
from torture.sources import REPOSITORY

SIZE = int(os.environ.get("XDSI_TORTURE_BYTES", str(4 * 1024**3 + 1)))
#: While it comes in there is one copy of it on disk, and no second one.
FREE = SIZE * 2 + 1024**3
MOST_MIB = 64


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    free = shutil.disk_usage(tmp_path).free
    if free < FREE:
        pytest.skip(f"{FREE} bytes of disk are needed, and {free} are free")
    with one_process(tmp_path) as served:
        served.sources.submit([b"small"])
        yield served
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_document_of_4_gb_goes_in_and_out_in_constant_memory(domain: Domain, framing: Framing) -> None:
    content, memory, url = Content(SIZE), Memory(domain.repository.pid), domain.repository.url
    sha1 = content.sha1
    message = provide(content)
    with memory.watched():
        began = time.monotonic()
        status, text = post(url, message, framing)
        in_s, in_mib = time.monotonic() - began, memory.so_far
        assert (status, "ResponseStatusType:Success" in text) == (200, True), text
        began, first = time.monotonic(), list[float]()
        answer = retrieved(
            url,
            REPOSITORY,
            [message.document_unique_id],
            paused=lambda total: first.append(time.monotonic()) if total and not first else None,
        )
        out_s = time.monotonic() - began
    print(
        f"\n{SIZE:,} bytes, {framing}: in at {SIZE / 1e6 / in_s:.0f} MB/s, memory rises by {in_mib:.1f} MiB;"
        f" out at {SIZE / 1e6 / out_s:.0f} MB/s, first byte after {first[0] - began:.1f} s, memory rises by {memory.rise:.1f} MiB in all"
    )
    assert answer.documents == [(sha1, SIZE)]
    assert memory.rise < MOST_MIB
