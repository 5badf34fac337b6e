"""Processes in which files are re-encoded: what a hostile file does to a decoder ends there, and its bytes and time are bounded.

Each process reads a job a line, as JSON, and answers it with a line. One that dies, grows or takes too long fails its own job alone; the
next job has a new one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from imaging.pixels.bounded import Bounds, bound
from imaging.pixels.codecs import CodecError, Loss


class Recoder:
    """Some processes, which are started when they are first needed. Every method may be called from several threads at once."""

    def __init__(self, *, processes: int = 2, bounds: Bounds | None = None) -> None:
        self.processes, self._bounds = processes, bounds or Bounds()
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="xdsi-recoding")
        self._own = threading.local()
        self._running: set[subprocess.Popen[bytes]] = set()

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [one.pid for one in list(self._running) if one.poll() is None]

    def submit(self, source: Path, target: Path, syntaxes: Sequence[str], loss: Loss) -> Future[str]:
        """As `imaging.pixels.transcode.transcode`, some time. CodecError also where that crashed, or exceeded a bound."""
        return self._threads.submit(self._run, source, target, syntaxes, loss)

    def close(self) -> None:
        """Ends the processes, and what waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._running):
            process.kill()
        self._threads.shutdown()
        for process in list(self._running):
            _reap(process)

    def _run(self, source: Path, target: Path, syntaxes: Sequence[str], loss: Loss) -> str:
        process = self._process()
        job = {"source": str(source), "target": str(target), "syntaxes": list(syntaxes), "loss": asdict(loss)}
        answer = None
        # A process that has died can not be written to.
        with suppress(OSError):
            answer = _asked(process, job, self._bounds.timeout_s)
        if answer is None:
            self._running.discard(process)
            process.kill()
            _reap(process)
            target.unlink(missing_ok=True)
            raise CodecError("could not be re-encoded: that crashed, or took too long or too much memory")
        if "fault" in answer:
            target.unlink(missing_ok=True)
            raise CodecError(str(answer["fault"]))
        return str(answer["syntax"])

    def _process(self) -> subprocess.Popen[bytes]:
        """That of this thread."""
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None or process.poll() is not None or process not in self._running:
            process = self._own.process = subprocess.Popen(  # noqa: S603  # nothing of it is from the wire
                [sys.executable, "-m", "imaging.pixels.recoding", json.dumps(asdict(self._bounds))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
                # Ctrl-C is for the server, which ends its processes itself.
                start_new_session=True,
            )
            self._running.add(process)
        return process


def _asked(process: subprocess.Popen[bytes], job: object, timeout_s: float) -> dict[str, object] | None:
    """The answer of the process to the job; None where it gives none in time."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline() if ready else b""
    return json.loads(line) if line.endswith(b"\n") else None


def _reap(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    process.wait()


# --- in the process ---------------------------------------------------------------------------------------------------


def _answer(job: dict[str, object]) -> dict[str, str]:
    from imaging.pixels.transcode import transcode

    loss = Loss(**job["loss"])  # type: ignore[arg-type]
    try:
        syntax = transcode(Path(str(job["source"])), Path(str(job["target"])), job["syntaxes"], loss)  # type: ignore[arg-type]
    except CodecError as fault:
        return {"fault": str(fault)}
    except MemoryError:
        return {"fault": "takes more memory to be re-encoded than is allowed"}
    except Exception as error:
        # pydicom says what it can not read or write in many kinds of exceptions.
        return {"fault": f"could not be re-encoded: {type(error).__name__}"}
    return {"syntax": syntax}


def main() -> None:
    from imaging.pixels import transcode  # noqa: F401  # Before memory is bounded, and only once.

    bounds = Bounds(**json.loads(sys.argv[1]))
    bound(bounds.memory_bytes, bounds.file_bytes)
    for line in sys.stdin.buffer:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
