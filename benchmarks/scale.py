"""The registry at different sizes, on both databases, each figure beside what the bare database does in the same run.

python -m benchmarks.scale --documents 10000,100000 --database sqlite,postgresql --keep /var/tmp/xdsi-scale
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.sql import Executable

from benchmarks import limits, load, messages, postgres
from database.connections import Row
from registry import bulk
from registry.iti18_stored_query import stored_query
from registry.iti42_register import with_ids
from registry.store import Store, open_engine
from registry.tables import BY_KIND, document_entry, registry_object
from registry.unit import rows_of
from server import show
from server.population import parts, patient
from xds.metadata import Submission
from xds.queries import FindDocuments, GetDocuments, StoredQuery
from xds.values import Identifier, Oid, Timestamp, UniqueId

SEED = 1
_READERS, _WRITERS = 8, 16
#: Requests that differ, at most, for each measurement.
_MOST = 4000
#: Ten digits that stand for a number which makes a message new.
NUMBER = "7777777777"
#: What the uniqueIds of new documents begin with, and no other's of the population.
_NEW = "1.2.3.4.5.4000"
_SUCCESS = b"ResponseStatusType:Success"
_CLUSTER = {"shared_buffers": "2GB", "max_wal_size": "4GB", "effective_cache_size": "8GB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row. `raw` is what the bare database does, per second; `ratio` how much of it the registry reaches."""

    database: str
    documents: int
    what: str
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    raw: float
    raw_is: str

    @property
    def ratio(self) -> float:
        return self.per_second / self.raw if self.raw else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a population of a size costs. `load_per_second` is of documents, with all that comes with them."""

    database: str
    documents: int
    load_per_second: float
    bytes_per_document: float
    start_up_s: float = 0.0


# --- populations ------------------------------------------------------------------------------------------------------


class Populations:
    """Where populations are kept: below a directory, each loaded once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def databases(self, kind: str) -> Iterator[Any]:
        """Gives the URL of the database for a number of documents, as a function."""
        if kind == "sqlite":
            yield lambda documents: self._sqlite(documents)
            return
        with postgres.serving(directory=self.directory / "postgresql", **_CLUSTER) as cluster:
            yield lambda documents: self._postgresql(cluster, documents)

    def _sqlite(self, documents: int) -> str:
        folder = self.directory / "sqlite" / str(documents)
        if not self._record("sqlite", documents).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return f"sqlite:///{folder / 'registry.sqlite'}"

    def _postgresql(self, cluster: postgres.Cluster, documents: int) -> str:
        name = f"registry_{documents}"
        where = ("-h", "127.0.0.1", "-p", str(cluster.port), "-U", "xdsi")
        if not self._record("postgresql", documents).exists():
            cluster.run(str(cluster.binaries / "dropdb"), "--if-exists", *where, name)
            cluster.run(str(cluster.binaries / "createdb"), *where, name)
        return cluster.url(name)

    def _record(self, kind: str, documents: int) -> Path:
        return self.directory / f"{kind}-{documents}.json"

    def load(self, store: Store, kind: str, documents: int) -> Size:
        """Loads what is not there."""
        record = self._record(kind, documents)
        if record.exists():
            return Size(**json.loads(record.read_text()))
        before = bulk.database_bytes(store)
        with show.progress(f"{documents:,} documents to {kind}", documents, unit="documents") as step:
            loaded = bulk.load(store, parts(documents, SEED), progress=step)
        size = Size(
            database=kind,
            documents=documents,
            load_per_second=documents / loaded.seconds,
            bytes_per_document=(bulk.database_bytes(store) - before) / documents,
        )
        record.write_text(json.dumps(asdict(size)))
        return size


# --- the server -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(url: str, workers: int, first: bytes) -> Iterator[tuple[str, float]]:
    """A server with a registry alone: its endpoint, and the seconds from its start to its first answer, to `first`."""
    port = limits.free_port()
    with tempfile.TemporaryDirectory(prefix="xdsi-scale-") as directory:
        environment = {
            **os.environ,
            "XDSI__SERVER__DIRECTORY": directory,
            "XDSI__SERVER__ACTORS": "registry",
            "XDSI__SERVER__PORT": str(port),
            "XDSI__SERVER__WORKERS": str(workers),
            "XDSI__SERVER__LOG_LEVEL": "warning",
            "XDSI__REGISTRY__DATABASE": url,
            "XDSI__REGISTRY__PATIENTS": "open",
        }
        start = time.perf_counter()
        command = [sys.executable, "-m", "server.cli", "serve"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            _first_answer(port, first, process)
            yield f"http://127.0.0.1:{port}/registry", time.perf_counter() - start
        finally:
            process.terminate()
            process.wait(timeout=60)


def _first_answer(port: int, body: bytes, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/registry", body, {"Content-Type": messages.SIMPLE})
            if _SUCCESS in connection.getresponse().read():
                return
        except ConnectionError:
            time.sleep(0.01)
        finally:
            connection.close()
    raise RuntimeError("the server did not come up")


# --- what is asked ----------------------------------------------------------------------------------------------------


class Asked:
    """Queries about patients at random from the whole population, each once, so that no cache has their objects."""

    def __init__(self, store: Store, documents: int, rng: random.Random) -> None:
        counts = [count for part in parts(documents, SEED) for count in part.documents]
        # One in twenty is replaced: so many have about 20 that are Approved.
        some = [number for number, count in enumerate(counts) if 20 <= count <= 22]
        patients = [patient(SEED, n) for n in rng.sample(some, min(len(some), 2 * _MOST))]
        self.find = [FindDocuments(patient_id=one) for one in patients]
        self.get = [GetDocuments(entry_uuid=(uuid,)) for uuid in self._entries(store, counts, rng)]
        self.patients = [patient(SEED, n) for n in rng.choices(range(len(counts)), k=_MOST // 4)]

    def _entries(self, store: Store, counts: Sequence[int], rng: random.Random) -> list[str]:
        c = document_entry.c
        numbers = rng.choices(range(len(counts)), weights=counts, k=_MOST // 2)
        found: set[str] = set()
        of_patient = select(c.entry_uuid).where(c.patient_id == bindparam("patient"))
        for number in numbers:
            uuids = sorted(uuid for (uuid,) in store.rows(of_patient, {"patient": str(patient(SEED, number))}))
            found |= set(rng.sample(uuids, min(len(uuids), 4)))
        return rng.sample(sorted(found), min(len(found), 2 * _MOST))


def new_document(patient_id: Identifier, run: str) -> bytes:
    """ITI-42 of one document, whose uniqueIds have NUMBER in them where a number makes them new."""
    one = messages.submission(patient_id, registered=True)
    return messages.register(renamed(one, run, NUMBER))


# --- the bare database ------------------------------------------------------------------------------------------------

Statement = tuple[str, Mapping[str, Any]]
Inserts = list[tuple[str, list[Mapping[str, Any]]]]
Work = Callable[[], float]
_barrier: Any = None


class _Recorder(Store):
    """Takes down what a query asks of the database, and answers with nothing."""

    def __init__(self, store: Store) -> None:
        vars(self).update(vars(store))
        self.asked: list[Statement] = []

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        self.asked.append(self.database.prepared(statement).bind(parameters))
        return []


def recorded(store: Store, query: StoredQuery) -> Statement:
    """The SELECT of a query that has one."""
    recorder = _Recorder(store)
    stored_query(query, store=recorder)
    (statement,) = recorder.asked
    return statement


def _connection(url: str) -> Any:
    """One of the driver, with the registry's own settings."""
    fairy = open_engine(url).raw_connection()
    driver = fairy.driver_connection
    fairy.detach()
    return driver


def _at_once(processes: int, prepare: Callable[..., Work], *arguments: Any) -> float:
    """The sum of what work gives that is prepared in several processes and then begins in all at once."""
    context = multiprocessing.get_context("spawn")
    together = (context.Barrier(processes),)
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=together) as pool:
        futures = [pool.submit(_prepared_work, prepare, number, *arguments) for number in range(processes)]
        return sum(one.result() for one in futures)


def _begin(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _prepared_work(prepare: Callable[..., Work], *arguments: Any) -> float:
    work = prepare(*arguments)
    _barrier.wait(timeout=300)
    return work()


def reads_per_second(url: str, statements: Sequence[Statement], *, processes: int, seconds: float) -> float:
    """The SELECTs with all their rows, from one connection in each process."""
    return _at_once(processes, _reads, url, statements, processes, seconds)


def _reads(number: int, url: str, statements: Sequence[Statement], processes: int, seconds: float) -> Work:
    connection, mine = _connection(url), statements[number::processes] or statements
    if not url.startswith("sqlite"):
        connection.autocommit = True

    def work() -> float:
        start = time.perf_counter()
        for count, (text, values) in enumerate(itertools.cycle(mine), 1):
            connection.execute(text, values).fetchall()
            if (elapsed := time.perf_counter() - start) >= seconds:
                return count / elapsed
        return 0.0

    return work


def writes_per_second(
    url: str, run: str, patients: Sequence[str], *, connections: int, group: int, seconds: float
) -> float:
    """Submissions of one document, as INSERTs, `group` of them in a durable commit."""
    processes = min(connections, os.cpu_count() or 1)
    return _at_once(processes, _writes, url, run, patients, connections, group, seconds)


def _writes(
    number: int, url: str, run: str, patients: Sequence[str], all_connections: int, group: int, seconds: float
) -> Work:
    store = Store(open_engine(url))
    connections = max(1, all_connections // (os.cpu_count() or 1))
    # Making them takes longer than writing them, so they are few: on a fast disk they are written before the time is up.
    count = max(group, int(2000 * seconds) // all_connections)
    jobs = [
        [
            _inserts(store, f"{run}{number:02d}{connection:02d}", patients, start, group)
            for start in range(0, count, group)
        ]
        for connection in range(connections)
    ]
    drivers = [_connection(url) for _ in jobs]
    sqlite = store.database.is_sqlite
    store.close()

    def one(driver: Any, mine: list[Inserts], deadline: float) -> int:
        for done, inserts in enumerate(mine):
            if time.perf_counter() >= deadline:
                return done
            if sqlite:
                driver.execute("BEGIN IMMEDIATE")
            cursor = driver.cursor()
            for text, rows in inserts:
                cursor.executemany(text, rows)
            driver.execute("COMMIT") if sqlite else driver.commit()
        return len(mine)

    def work() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            done = sum(pool.map(one, drivers, jobs, itertools.repeat(start + seconds)))
        return done * group / (time.perf_counter() - start)

    return work


def _inserts(store: Store, run: str, patients: Sequence[str], start: int, group: int) -> Inserts:
    """What the registry would write for some submissions, table by table."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for n in range(start, start + group):
        patient_id = patients[n % len(patients)]
        submitted = renamed(messages.submission(Identifier(patient_id), registered=True), run, f"{n:06d}")
        objects = with_ids(submitted, lambda: f"urn:uuid:{uuid.uuid4()}", Timestamp.at(datetime.now(UTC))).objects
        for statement, rows in rows_of(objects, store.bodies, patient_id=patient_id):
            text, _ = store.database.prepared(statement).bind(rows[0])
            found.setdefault(text, []).extend(rows)
    return list(found.items())


def renamed(one: Submission, run: str, number: str) -> Submission:
    """A submission of one document with uniqueIds that `remove` finds: `run` is some 15 digits, `number` makes them new."""
    (submission_set,), (entry,) = one.submission_sets, one.document_entries
    return replace(
        one,
        submission_sets=(replace(submission_set, unique_id=Oid(f"{_NEW}.{run}2{number}")),),
        document_entries=(replace(entry, unique_id=UniqueId(f"{_NEW}.{run}1{number}")),),
    )


def remove(store: Store, run: str) -> None:
    """Takes away what a run has registered, so that a kept population stays what it is."""
    c, links = registry_object.c, BY_KIND["Association"]
    of_run = (c.unique_id >= f"{_NEW}.{run}") & (c.unique_id < f"{_NEW}.{run}:")
    with store.engine.begin() as connection:
        mine = select(c.entry_uuid).where(of_run)
        members = connection.execute(select(links.c.entry_uuid).where(links.c.source_object.in_(mine))).scalars().all()
        found = connection.execute(select(c.entry_uuid, c.patient_id).where(of_run)).all()
        connection.execute(delete(links).where(links.c.source_object.in_(mine)))
        for kind in ("DocumentEntry", "SubmissionSet"):
            table = BY_KIND[kind]
            here = (table.c.patient_id == bindparam("p")) & (table.c.entry_uuid == bindparam("e"))
            connection.execute(delete(table).where(here), [{"e": one, "p": patient_id} for one, patient_id in found])
        gone = [{"e": one} for one in (*members, *(one for one, _ in found))]
        connection.execute(delete(registry_object).where(c.entry_uuid == bindparam("e")), gone)


# --- measuring --------------------------------------------------------------------------------------------------------


class Bench:
    """One population in one database."""

    def __init__(self, kind: str, url: str, size: Size, seconds: float, workers: int) -> None:
        self.kind, self.url, self.size, self.seconds, self.workers = kind, url, size, seconds, workers
        self.rows: list[Measured] = []
        self.directory = Path(tempfile.mkdtemp(prefix="xdsi-scale-"))

    def run(self) -> None:
        rng = random.Random()
        run = str(rng.randrange(10**14, 10**15)).replace("7", "6")
        store = Store(open_engine(self.url))
        try:
            asked = Asked(store, self.size.documents, rng)
            first = messages.stored_query(asked.get[0])
            with serving(self.url, self.workers, first) as (endpoint, seconds):
                self.size = replace(self.size, start_up_s=seconds)
                self.queries(store, endpoint, "ITI-18 FindDocuments, about 20 hits, LeafClass", asked.find)
                self.queries(store, endpoint, "ITI-18 GetDocuments of one, LeafClass", asked.get)
                measured = self.registrations(endpoint, asked, run)
            self.compare_registrations(measured, asked, run)
            remove(store, run)
        finally:
            store.close()
            shutil.rmtree(self.directory)

    def queries(self, store: Store, endpoint: str, what: str, queries: Sequence[StoredQuery]) -> None:
        """Half of them asked of the server, the other half as their SELECT of the database."""
        half = len(queries) // 2
        bodies = [messages.stored_query(one) for one in queries[:half]]
        measured = self.load(endpoint, bodies, clients=_READERS)
        statements = [recorded(store, one) for one in queries[half:]]
        selects = reads_per_second(self.url, statements, processes=self.workers, seconds=self.seconds)
        what = f"{what}, {measured.response_bytes:,} bytes"
        self.add(what, measured, selects, f"the same SELECT, {self.workers} connections")

    def registrations(self, endpoint: str, asked: Asked, run: str) -> load.Load:
        bodies = [new_document(one, run) for one in asked.patients]
        return self.load(endpoint, bodies, clients=_WRITERS, renumber=True)

    def compare_registrations(self, measured: load.Load, asked: Asked, run: str) -> None:
        patients = [str(one) for one in asked.patients]
        what = "ITI-42 of one new document"
        single = 1 if self.kind == "sqlite" else _WRITERS
        alone = writes_per_second(self.url, f"{run}8", patients, connections=single, group=1, seconds=self.seconds)
        self.add(what, measured, alone, f"the same INSERTs, a durable commit each, {single} connections")
        grouped = writes_per_second(self.url, f"{run}9", patients, connections=1, group=_WRITERS, seconds=self.seconds)
        self.add(what, measured, grouped, f"the same INSERTs, {_WRITERS} to a durable commit, 1 connection")

    def add(self, what: str, measured: load.Load, raw_per_second: float, raw_is: str) -> None:
        row = Measured(
            database=self.kind,
            documents=self.size.documents,
            what=what,
            per_second=measured.per_second,
            p50_ms=measured.p50_ms,
            p95_ms=measured.p95_ms,
            p99_ms=measured.p99_ms,
            raw=raw_per_second,
            raw_is=raw_is,
        )
        self.rows.append(row)
        print(
            f"{row.database} {row.documents:,}: {what}: {row.per_second:,.0f}/s ({row.ratio:.2f} of {raw_is})",
            file=sys.stderr,
        )

    def load(self, endpoint: str, bodies: Sequence[bytes], *, clients: int, renumber: bool = False) -> load.Load:
        """The bodies over and over; with `renumber` each time with a new number in it. The first ones are looked at closely."""
        numbers = itertools.count(10**9)
        whole = [load.request(endpoint, body, messages.SIMPLE) for body in bodies]

        def stream(start: int) -> Iterator[bytes]:
            while True:
                for message in whole[start::clients] or whole:
                    yield message.replace(NUMBER.encode(), b"%d" % next(numbers)) if renumber else message

        looked_at = [iter([next(one) for _ in range(5)]) for one in map(stream, range(clients))]
        load.run(endpoint, looked_at, must_hold=_SUCCESS, seconds=60)
        wrk = shutil.which("wrk")
        if wrk is None:
            return load.run(endpoint, [stream(n) for n in range(clients)], must_hold=_SUCCESS, seconds=self.seconds)
        return _wrk(wrk, endpoint, bodies, clients, self.seconds, self.directory, renumber=renumber)


_SCRIPT = """
local requests, count, at, threads = {}, 0, 0, {}
failures = 0
function setup(thread) table.insert(threads, thread) end
function init(arguments)
  local file = io.open(arguments[1], "rb")
  local length = file:read("*n")
  while length do
    file:read(1)
    count = count + 1
    requests[count] = wrk.format("POST", wrk.path, {["Content-Type"] = arguments[2]}, file:read(length))
    length = file:read("*n")
  end
  file:close()
  renumber = arguments[3] == "renumber"
  if renumber then response = check end
end
function request()
  at = at + 1
  local one = requests[at % count + 1]
  if renumber then return (one:gsub("NUMBER", string.format("%d", 2000000000 + at))) end
  return one
end
function check(status, headers, body)
  if not body:find("ResponseStatusType:Success", 1, true) then failures = failures + 1 end
end
function done(summary, latency)
  local failed, e = 0, summary.errors
  for _, thread in ipairs(threads) do failed = failed + thread:get("failures") end
  io.write(string.format('\\nRESULT {"requests": %d, "us": %d, "bytes": %d, "p50": %f, "p95": %f, "p99": %f, "failed": %d}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    failed + e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def _wrk(
    wrk: str, endpoint: str, bodies: Sequence[bytes], clients: int, seconds: float, directory: Path, *, renumber: bool
) -> load.Load:
    """The load of wrk, which costs less than ours. RuntimeError for an answer that is no success."""
    script, requests = directory / "requests.lua", directory / "requests"
    script.write_text(_SCRIPT.replace("NUMBER", NUMBER))
    requests.write_bytes(b"".join(b"%d\n%b\n" % (len(body), body) for body in bodies))
    command = [
        wrk, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(script), endpoint,
        "--", str(requests), messages.SIMPLE, "renumber" if renumber else "same",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.partition("\nRESULT ")[2].splitlines()[0])
    if found["failed"] or not found["requests"]:
        raise RuntimeError(f"{found['failed']} of {found['requests']} requests failed: {done.stdout}")
    return load.Load(
        requests=found["requests"],
        seconds=found["us"] / 1e6,
        p50_ms=found["p50"] / 1000,
        p95_ms=found["p95"] / 1000,
        p99_ms=found["p99"] / 1000,
        response_bytes=found["bytes"] // found["requests"],
    )


# --- the report -------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Measured], sizes: Sequence[Size]) -> str:
    """Both tables."""
    lines = ["| database | documents | loaded, documents/s | bytes per document | start-up |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.database} | {one.documents:,} | {one.load_per_second:,.0f} | {one.bytes_per_document:,.0f}"
        f" | {one.start_up_s:.2f} s |"
        for one in sizes
    ]
    head = ("what", "database", "documents", "measured", "p50", "p95", "p99", "bare database", "which is", "ratio")
    lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [
        f"| {one.what} | {one.database} | {one.documents:,} | {one.per_second:,.0f} /s | {one.p50_ms:.1f} ms"
        f" | {one.p95_ms:.1f} ms | {one.p99_ms:.1f} ms | {one.raw:,.0f} /s | {one.raw_is} | {one.ratio:.2f} |"
        for one in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--documents", default="10000", help="sizes, separated by commas")
    parser.add_argument("--database", default="sqlite,postgresql", help="sqlite, postgresql or both")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument("--keep", type=Path, help="where populations are kept, and found again")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.json"))
    arguments = parser.parse_args()
    rows: list[Measured] = []
    sizes: list[Size] = []
    with contextlib.ExitStack() as stack:
        keep = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xdsi-scale-")))
        keep.mkdir(parents=True, exist_ok=True)
        keep.chmod(0o755)
        populations = Populations(keep.absolute())
        for kind in arguments.database.split(","):
            with populations.databases(kind) as url_for:
                for documents in map(int, arguments.documents.split(",")):
                    bench = _prepared(populations, kind, documents, url_for, arguments)
                    bench.run()
                    rows += bench.rows
                    sizes.append(bench.size)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"sizes": [asdict(one) for one in sizes], "measured": [asdict(one) for one in rows]}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(markdown(rows, sizes))


def _prepared(
    populations: Populations, kind: str, documents: int, url_for: Any, arguments: argparse.Namespace
) -> Bench:
    url = url_for(documents)
    store = bulk.open_store(url)
    try:
        size = populations.load(store, kind, documents)
    finally:
        store.close()
    return Bench(kind, url, size, arguments.seconds, arguments.workers)


if __name__ == "__main__":
    main()
