"""Runs the benchmarks against a server, prints a table, and writes JSON: `make bench`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from lxml import etree

from benchmarks import limits, load, messages
from imaging.instances import Instances
from imaging.phantom import write_series
from imaging.receiving.ingest import load as load_files
from imaging.schema import connect, upgrade
from schemas import xdsi
from server import show
from server.config import Config
from xds.messages import DocumentRequest, ImagingRequest, SeriesRequest, StudyRequest
from xds.queries import FindDocuments, ReturnType
from xds.vocabulary import ResponseStatus

SUCCESS = str(ResponseStatus.SUCCESS).encode()
_BLOCK = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row: a figure with its unit, the limit beside it, and what else was seen."""

    what: str
    figure: float
    unit: str
    limit: float | None
    limit_is: str
    notes: str = ""

    @property
    def ratio(self) -> str:
        return "" if not self.limit else f"{self.figure / self.limit:.2f}"


class Bench:
    """The server under test, and where its endpoints are."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], base: str, seconds: float) -> None:
        self.directory, self.process, self.base, self.seconds = directory, process, base, seconds
        self.rows: list[Measured] = []

    def add(self, what: str, figure: float, unit: str, limit: float | None, limit_is: str, notes: str = "") -> None:
        row = Measured(what=what, figure=figure, unit=unit, limit=limit, limit_is=limit_is, notes=notes)
        self.rows.append(row)
        print(f"{what}: {figure:,.0f} {unit} ({row.ratio} of {limit_is}) {notes}", file=sys.stderr)

    @contextlib.contextmanager
    def memory(self) -> Iterator[Callable[[], float]]:
        """By how many MB the server's resident memory rises at most while the context lasts."""
        process = psutil.Process(self.process.pid)
        before, peak, running = process.memory_info().rss, [0], [True]

        def watch() -> None:
            while running[0]:
                peak[0] = max(peak[0], process.memory_info().rss)
                time.sleep(0.01)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield lambda: max(0, peak[0] - before) / 1e6
        finally:
            running[0] = False
            thread.join()


@contextlib.contextmanager
def serving(directory: Path, seconds: float, *, workers: int = 1) -> Iterator[Bench]:
    port = limits.free_port()
    environment = {
        **os.environ,
        "XDSI__SERVER__DIRECTORY": str(directory / "data"),
        "XDSI__SERVER__PORT": str(port),
        "XDSI__REGISTRY__PATIENTS": "open",
        "XDSI__SERVER__LOG_LEVEL": "warning",
        "XDSI__SERVER__WORKERS": str(workers),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli", "serve"], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        limits.wait_for(port, process)
        yield Bench(directory, process, f"http://127.0.0.1:{port}", seconds)
    finally:
        process.terminate()
        process.wait(timeout=60)


def registrations(bench: Bench) -> None:
    """ITI-42 of one document, durable."""
    url = f"{bench.base}/registry"
    one = messages.register(messages.submission(messages.patient(0), registered=True))
    prepared = [
        load.request(
            url, messages.register(messages.submission(messages.patient(10_000 + n), registered=True)), messages.SIMPLE
        )
        for n in range(int(1500 * bench.seconds))
    ]
    streams = [iter(prepared[n::8]) for n in range(8)]
    result = load.run(url, streams, must_hold=SUCCESS, seconds=bench.seconds)
    commits = limits.sqlite_commits_per_second(bench.directory)
    parses = limits.parses_per_second(one)
    notes = f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms; lxml parses {parses:,.0f}/s of the message"
    bench.add("ITI-42, 8 clients", result.per_second, "/s", commits, "durable SQLite commits/s, one writer", notes)


def queries(bench: Bench) -> None:
    """ITI-18 FindDocuments with 20 hits."""
    url, patient = f"{bench.base}/registry", messages.patient(1)
    for _ in range(20):
        message = load.request(url, messages.register(messages.submission(patient, registered=True)), messages.SIMPLE)
        load.run(url, [iter([message])], must_hold=SUCCESS, seconds=5)
    for return_type in ReturnType:
        body = messages.stored_query(FindDocuments(patient_id=patient, return_type=return_type))
        message = load.request(url, body, messages.SIMPLE)
        streams = [itertools.repeat(message) for _ in range(4)]
        load.run(url, [itertools.repeat(message)], must_hold=SUCCESS, seconds=0.5)
        result = load.run(url, streams, must_hold=SUCCESS, seconds=bench.seconds)
        parses = limits.parses_per_second(body)
        notes = f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms, {result.response_bytes:,} bytes each"
        bench.add(
            f"ITI-18 {return_type}, 20 hits", result.per_second, "/s", parses, "lxml parses/s of the request", notes
        )


def many_hits(bench: Bench) -> None:
    """ITI-18 FindDocuments with 10,000 hits in LeafClass: it must stream."""
    url, patient = f"{bench.base}/registry", messages.patient(3)
    stream = (
        load.request(
            url, messages.register(messages.submission(patient, documents=200, registered=True)), messages.SIMPLE
        )
        for _ in range(50)
    )
    load.run(url, [stream], must_hold=SUCCESS, seconds=300)
    body = messages.stored_query(FindDocuments(patient_id=patient))
    size = 10_000 * 5_000
    figures = _download(bench, url, body, size, content_type=messages.SIMPLE)
    static = bench.directory / "answer.bin"
    static.write_bytes(os.urandom(1_000_000) * 60)
    notes = f"first byte {figures[1] * 1000:.0f} ms, memory rises by {figures[2]:.0f} MB"
    limit = limits.static_uvicorn_mb_per_second(static)
    bench.add("ITI-18 LeafClass, 10,000 hits", figures[0], "MB/s", limit, "one file from uvicorn, MB/s", notes)
    static.unlink()


def small_documents(bench: Bench, *, clients: int, how: str) -> None:
    """ITI-41 and ITI-43 of 20 kB; no two documents have the same bytes."""
    url, tail = f"{bench.base}/repository", os.urandom(19_984)
    count = int(1200 * bench.seconds)
    made = [messages.submission(messages.patient(20_000 + n)) for n in range(count)]
    stored = iter([load.request(url, messages.provide(one, [os.urandom(16) + tail]), messages.MTOM) for one in made])
    result = load.run(url, [stored] * clients, must_hold=SUCCESS, seconds=bench.seconds)
    files = limits.fsynced_files_per_second(bench.directory, 20_000)
    notes = f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
    bench.add(f"ITI-41 of 20 kB, {how}", result.per_second, "/s", files, "fsynced files/s, one writer", notes)
    asked = [
        load.request(
            url,
            messages.retrieve(
                [
                    DocumentRequest(
                        repository_unique_id=Config().repository.unique_id,
                        document_unique_id=str(one.document_entries[0].unique_id),
                    )
                ]
            ),
            messages.MTOM,
        )
        for one in made[: result.requests]
    ]
    result = load.run(url, [itertools.cycle(asked)] * clients, must_hold=tail[-64:], seconds=bench.seconds)
    parses = limits.parses_per_second(messages.envelope("x", b"<a/>"))
    notes = f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
    bench.add(f"ITI-43 of 20 kB, {how}", result.per_second, "/s", parses, "lxml parses/s of an envelope", notes)


def large_document(bench: Bench, megabytes: int) -> None:
    """One document of about 1 GB in (ITI-41) and out (ITI-43): MB/s, and by how much the server's memory rises."""
    url, size = f"{bench.base}/repository", megabytes * 1_000_000
    block = os.urandom(1_000_000)
    one = messages.submission(messages.patient(2))
    head, tail = messages.provide(one, [b"\x00SPLIT\x00"]).split(b"\x00SPLIT\x00")
    digest = hashlib.sha1(usedforsecurity=False)
    for _ in range(megabytes):
        digest.update(block)
    sha1 = limits.sha1_mb_per_second()
    parts = urlsplit(url)
    with bench.memory() as rise:
        connection = http.client.HTTPConnection(parts.netloc, timeout=600)
        start = time.perf_counter()
        connection.putrequest("POST", parts.path)
        connection.putheader("Content-Type", messages.MTOM)
        connection.putheader("Content-Length", str(len(head) + size + len(tail)))
        connection.endheaders()
        for piece in itertools.chain([head], itertools.repeat(block, megabytes), [tail]):
            connection.send(piece)
        answer = connection.getresponse().read()
        seconds = time.perf_counter() - start
        if SUCCESS not in answer:
            raise RuntimeError(f"the large document was refused: {answer[:2000]!r}")
        bench.add(
            f"ITI-41 of {megabytes} MB",
            size / 1e6 / seconds,
            "MB/s",
            sha1,
            "SHA-1 MB/s",
            f"memory rises by {rise():.0f} MB",
        )
    request = DocumentRequest(
        repository_unique_id=Config().repository.unique_id, document_unique_id=str(one.document_entries[0].unique_id)
    )
    figures = _download(bench, url, messages.retrieve([request]), size)
    static = bench.directory / "static.bin"
    with static.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
    uvicorn_static = limits.static_uvicorn_mb_per_second(static)
    notes = f"first byte {figures[1] * 1000:.0f} ms, memory rises by {figures[2]:.0f} MB; SHA-1 is checked first"
    bench.add(
        f"ITI-43 of {megabytes} MB",
        figures[0],
        "MB/s",
        uvicorn_static,
        "the same file, bare, from uvicorn, MB/s",
        notes,
    )
    static.unlink()


def _download(
    bench: Bench,
    url: str,
    body: bytes | None,
    at_least: int,
    content_type: str = messages.MTOM,
    accept: str = "*/*",
) -> tuple[float, float, float]:
    """MB/s, seconds to the first byte of the answer's body, and MB by which the server's memory rises. A GET where there is no body."""
    parts = urlsplit(url)
    with bench.memory() as rise:
        connection = http.client.HTTPConnection(parts.netloc, timeout=600)
        start = time.perf_counter()
        headers = {"Content-Type": content_type, "Accept": accept} if body is not None else {"Accept": accept}
        connection.request("POST" if body is not None else "GET", parts.path, body, headers)
        response = connection.getresponse()
        size, buffer = len(response.read(1)), bytearray(_BLOCK)
        first = time.perf_counter() - start
        while count := response.readinto(buffer):
            size += count
        seconds = time.perf_counter() - start
        if size < at_least:
            raise RuntimeError(f"{size} bytes came instead of {at_least}")
        return size / 1e6 / seconds, first, rise()


def _at_once(bench: Bench, url: str, body: bytes, at_least: int, *, times: int) -> tuple[float, float]:
    """MB/s of many downloads together, and MB by which the server's memory rises."""
    parts = urlsplit(url)

    def one() -> int:
        connection = http.client.HTTPConnection(parts.netloc, timeout=600)
        connection.request("POST", parts.path, body, {"Content-Type": messages.MTOM})
        response, size, buffer = connection.getresponse(), 0, bytearray(_BLOCK)
        while count := response.readinto(buffer):
            size += count
        return size

    with bench.memory() as rise, ThreadPoolExecutor(times) as pool:
        start = time.perf_counter()
        sizes = [job.result() for job in [pool.submit(one) for _ in range(times)]]
        seconds = time.perf_counter() - start
        if min(sizes) < at_least:
            raise RuntimeError(f"{min(sizes)} bytes came instead of {at_least}")
        return sum(sizes) / 1e6 / seconds, rise()


def images(bench: Bench, slices: int) -> None:
    """RAD-69 of a CT series of `slices` slices of 512 x 512, about half a megabyte each."""
    folder = bench.directory / "series"
    folder.mkdir()
    paths = write_series(folder, slices=slices, patient_id="BENCH", patient_name="Bench^Mark")
    engine = connect(f"sqlite:///{bench.directory / 'data' / 'imaging.sqlite'}")
    upgrade(engine)
    instances = Instances(engine, bench.directory / "data" / "imaging")
    start = time.perf_counter()
    report = load_files(paths, instances=instances)
    seconds = time.perf_counter() - start
    instances.close()
    size = sum(one.size for one in report.added)
    files = limits.fsynced_files_per_second(bench.directory, report.added[0].size)
    bench.add(
        f"xdsi load of {slices} slices", len(report.added) / seconds, "files/s", files, "fsynced files/s of that size"
    )
    first = report.added[0]
    documents = tuple(
        DocumentRequest(repository_unique_id=Config().imaging.location_uid, document_unique_id=one.sop_instance_uid)
        for one in report.added
    )
    of_series = SeriesRequest(series_instance_uid=first.series_instance_uid, documents=documents)
    study = StudyRequest(study_instance_uid=first.study_instance_uid, series=(of_series,))
    asked = ImagingRequest(studies=(study,), transfer_syntax_uids=(first.transfer_syntax_uid,))
    root = messages.envelope("urn:ihe:rad:2009:RetrieveImagingDocumentSet", xdsi.encode_imaging_request(asked))
    etree.fromstring(root)
    figures = max(_download(bench, f"{bench.base}/imaging", messages.multipart(root), size) for _ in range(3))
    static = bench.directory / "series.bin"
    with static.open("wb") as file:
        for path in paths:
            file.write(path.read_bytes())
    notes = f"{size / 1e6:.0f} MB, first byte {figures[1] * 1000:.0f} ms, memory rises by {figures[2]:.0f} MB"
    bench.add(
        "RAD-69 of the series",
        figures[0],
        "MB/s",
        limits.static_uvicorn_mb_per_second(static),
        "one file from uvicorn, MB/s",
        notes,
    )
    several, rise = _at_once(bench, f"{bench.base}/imaging", messages.multipart(root), size, times=50)
    uvicorn = limits.static_uvicorn_mb_per_second(static)
    notes = f"memory rises by {rise:.0f} MB"
    bench.add("RAD-69 of the series, 50 at once", several, "MB/s", uvicorn, "one file from uvicorn, MB/s", notes)
    path = f"/dicomweb/studies/{first.study_instance_uid}/series/{first.series_instance_uid}"
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    web = max(_download(bench, f"{bench.base}{path}", None, size, accept=accept) for _ in range(3))
    notes = f"first byte {web[1] * 1000:.0f} ms, memory rises by {web[2]:.0f} MB"
    bench.add("WADO-RS of the series", web[0], "MB/s", uvicorn, "one file from uvicorn, MB/s", notes)
    nginx = limits.static_nginx_mb_per_second(static, bench.directory)
    if nginx is not None:
        bench.add("RAD-69 of the series", figures[0], "MB/s", nginx, "one file from nginx, MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the large document")
    parser.add_argument("--slices", type=int, default=480, help="slices of the CT series")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latest.json"))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="xdsi-bench-") as directory,
        serving(Path(directory), arguments.seconds) as bench,
    ):
        registrations(bench)
        queries(bench)
        many_hits(bench)
        small_documents(bench, clients=8, how="8 clients")
        large_document(bench, arguments.megabytes)
        images(bench, arguments.slices)
        rows = bench.rows
    with (
        tempfile.TemporaryDirectory(prefix="xdsi-bench-") as directory,
        serving(Path(directory), arguments.seconds, workers=2) as bench,
    ):
        small_documents(bench, clients=32, how="32 clients, 2 workers")
        rows += bench.rows
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    table = [(r.what, f"{r.figure:,.0f} {r.unit}", f"{r.limit or 0:,.0f}", r.limit_is, r.ratio, r.notes) for r in rows]
    show.as_table(
        "benchmarks, one server process where nothing else is said",
        ("what", "measured", "limit", "the limit is", "ratio", "notes"),
        table,
    )
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
