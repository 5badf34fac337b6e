"""Bodies of HTTP as ASGI has them: taken within limits and sent in batches, while everything that computes is in the executor's threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Executor
from typing import Any

from soap.fault import sender
from soap.operations import Exchange, Limits
from soap.replying import HttpReply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: As much is collected before it is handed to a thread, and as much is sent at once.
BATCH_BYTES = 512 * 1024


class Disconnected(Exception):
    """The client is gone."""


def check_head(headers: dict[str, str], limits: Limits) -> None:
    """SoapFault for a body that the headers already say will not be taken."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise sender(f"Content-Encoding {encoding[:40]!r} is not supported", http_status=415)
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.message_bytes:
        raise sender(f"the message is larger than the limit of {limits.message_bytes} bytes", http_status=413)


async def receive_body(
    exchange: Exchange, take: Callable[[bytes], None], receive: Receive, *, limits: Limits, executor: Executor
) -> bytes:
    """The body but its last batch, which comes back: a small message then costs one thread hop in all. `take` is given the others.

    SoapFault for a body that comes too slowly, Disconnected for a client that is gone.
    """
    loop = asyncio.get_running_loop()
    pending: list[bytes] = []
    size, more = 0, True
    started = loop.time()
    while more:
        try:
            async with asyncio.timeout(limits.body_idle_s):
                event = await receive()
        except TimeoutError:
            raise sender(f"no bytes for the limit of {limits.body_idle_s} s", http_status=408) from None
        if event["type"] == "http.disconnect":
            raise Disconnected
        more = event.get("more_body", False)
        if chunk := event.get("body", b""):
            pending.append(chunk)
            size += len(chunk)
            exchange.bytes_in += len(chunk)
        elapsed = loop.time() - started
        if more and elapsed > limits.body_grace_s and exchange.bytes_in < elapsed * limits.body_bytes_per_s:
            slow = f"the body comes at less than the limit of {limits.body_bytes_per_s} bytes/s"
            raise sender(slow, http_status=408)
        if more and size >= BATCH_BYTES:
            await loop.run_in_executor(executor, take, b"".join(pending))
            pending.clear()
            size = 0
    return b"".join(pending)


async def send_reply(
    exchange: Exchange, reply: HttpReply, first: bytes, receive: Receive, send: Send, *, executor: Executor
) -> None:
    """The reply, whose first batch has been made."""
    exchange.http_status = reply.status
    whole = len(first) < BATCH_BYTES
    length = len(first) if whole else reply.length
    headers = [(b"content-type", reply.content_type.encode())] if reply.content_type else []
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if whole:
        await send({"type": "http.response.body", "body": first})
        exchange.bytes_out = len(first)
    else:
        await _stream(exchange, reply.pieces, first, receive, send, executor)


async def _stream(
    exchange: Exchange, pieces: Iterator[bytes], batch: bytes, receive: Receive, send: Send, executor: Executor
) -> None:
    """The batches, each made after the one before it is sent. An error leaves the response unfinished, so that the peer sees it."""
    loop = asyncio.get_running_loop()
    # Sending to a client that is gone fails nowhere; only receiving tells.
    told = asyncio.ensure_future(receive())
    try:
        while batch and not _is_disconnect(told):
            await send({"type": "http.response.body", "body": batch, "more_body": True})
            exchange.bytes_out += len(batch)
            last = len(batch) < BATCH_BYTES
            batch = b"" if last else await loop.run_in_executor(executor, next_batch, pieces)
        if batch:
            raise Disconnected
        await send({"type": "http.response.body", "body": b""})
    finally:
        told.cancel()


def next_batch(pieces: Iterator[bytes]) -> bytes:
    """At least BATCH_BYTES, or whatever is left: less means that nothing follows."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= BATCH_BYTES:
            break
    return taken[0] if len(taken) == 1 else b"".join(taken)


def _is_disconnect(told: asyncio.Future[MutableMapping[str, Any]]) -> bool:
    return told.done() and told.exception() is None and told.result()["type"] == "http.disconnect"
