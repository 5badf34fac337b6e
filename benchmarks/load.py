"""The load generator: requests over kept-alive HTTP/1.1 connections from asyncio, with as little work per response as possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of a run: requests per second, and latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    response_bytes: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def request(url: str, body: bytes, content_type: str) -> bytes:
    """A whole HTTP POST as bytes."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        return head, await reader.readexactly(int(lower[at + 15 : lower.index(b"\r\n", at)]))
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return head, b"".join(chunks)


async def _connection(
    host: str, port: int, messages: Iterator[bytes], must_hold: bytes, until: float, took: list[float], sizes: list[int]
) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=16 * 1024 * 1024)
    try:
        for message in messages:
            start = time.perf_counter()
            if start >= until:
                break
            writer.write(message)
            head, body = await _response(reader)
            took.append(time.perf_counter() - start)
            sizes.append(len(body))
            if not head.startswith(b"HTTP/1.1 200") or must_hold not in body:
                raise RuntimeError(f"unexpected answer: {head[:80]!r} {body[:1500]!r}")
    finally:
        writer.close()


async def _run(url: str, streams: list[Iterator[bytes]], must_hold: bytes, seconds: float) -> Load:
    parts = urlsplit(url)
    took: list[float] = []
    sizes: list[int] = []
    start = time.perf_counter()
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    await asyncio.gather(
        *(_connection(host, port, stream, must_hold, start + seconds, took, sizes) for stream in streams)
    )
    elapsed = time.perf_counter() - start
    took.sort()

    def percentile(share: float) -> float:
        return took[min(len(took) - 1, int(share * len(took)))] * 1000

    return Load(
        requests=len(took),
        seconds=elapsed,
        p50_ms=percentile(0.5),
        p95_ms=percentile(0.95),
        p99_ms=percentile(0.99),
        response_bytes=sum(sizes) // max(1, len(sizes)),
    )


def run(url: str, streams: list[Iterator[bytes]], *, must_hold: bytes, seconds: float) -> Load:
    """Sends the messages of each stream over a connection of its own, until `seconds` have passed or the streams end.

    RuntimeError for an answer that is not 200 or does not hold the bytes `must_hold`.
    """
    return asyncio.run(_run(url, streams, must_hold, seconds))
