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
#: Pieces of fewer bytes are worth a copy.
_SMALL_BYTES = 16 * 1024
#: What is sent between two looks at whether the client is there.
Batch = list[bytes]


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
    exchange: Exchange, reply: HttpReply, first: Batch, receive: Receive, send: Send, *, executor: Executor
) -> None:
    """The reply, whose first batch has been made."""
    exchange.http_status = reply.status
    size = sum(map(len, first))
    whole = size < BATCH_BYTES
    length = size if whole else reply.length
    headers = [(b"content-type", reply.content_type.encode())] if reply.content_type else []
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if whole:
        await send({"type": "http.response.body", "body": b"".join(first)})
        exchange.bytes_out = size
    else:
        await _stream(exchange, reply.pieces, first, receive, send, executor)


async def _stream(
    exchange: Exchange, pieces: Iterator[bytes], batch: Batch, receive: Receive, send: Send, executor: Executor
) -> None:
    """The batches, each made after the one before it is sent. An error leaves the response unfinished, so that the peer sees it."""
    loop = asyncio.get_running_loop()
    # Sending to a client that is gone fails nowhere; only receiving tells.
    told = asyncio.ensure_future(receive())
    try:
        while batch and not _is_disconnect(told):
            size = 0
            for one in batch:
                await send({"type": "http.response.body", "body": one, "more_body": True})
                size += len(one)
            exchange.bytes_out += size
            # Nothing of it is kept while the next one is made.
            del one
            batch = [] if size < BATCH_BYTES else await loop.run_in_executor(executor, next_batch, pieces)
        if batch:
            raise Disconnected
        await send({"type": "http.response.body", "body": b""})
    finally:
        told.cancel()


def next_batch(pieces: Iterator[bytes]) -> Batch:
    """At least BATCH_BYTES, or whatever is left: less means that nothing follows. Small pieces are joined, large ones are not copied."""
    batch: Batch = []
    small: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if len(piece) < _SMALL_BYTES:
            small.append(piece)
        else:
            batch += [b"".join(small), piece] if small else [piece]
            small = []
        if size >= BATCH_BYTES:
            break
    return [*batch, b"".join(small)] if small else batch


def _is_disconnect(told: asyncio.Future[MutableMapping[str, Any]]) -> bool:
    return told.done() and told.exception() is None and told.result()["type"] == "http.disconnect"
