"""A service at one address, as a thin ASGI application: it moves bytes; everything else happens in the executor's threads."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

from soap import addressing, replying, streams
from soap.fault import SoapFault
from soap.operations import ENDINGS, Exchange, Limits, Service
from soap.receiving import Receiver
from soap.replying import HttpReply
from soap.server import Answer, Dispatcher, Message
from soap.spool import Spool
from soap.streams import Batch, Disconnected, Receive, Scope, Send, next_batch

Packaging = Literal["strict", "lenient"]

_log = logging.getLogger("xdsi.soap")


class Endpoint:
    """An ASGI application. `address` is the URL that the WSDL names.

    `packaging`: "strict" refuses a multipart message to a SIMPLE operation and plain XML to an MTOM one (ITI TF-2 Appendix V.3.6);
    "lenient" takes both, and answers plain XML with plain XML, documents in base64. `observe` is told of each POST when it has ended;
    each of its stages is within the context that `stage` makes: "receive", "answer", "send".
    """

    def __init__(
        self,
        service: Service,
        *,
        address: str,
        spool_directory: Path,
        limits: Limits,
        executor: Executor,
        packaging: Packaging = "lenient",
        observe: Callable[[Exchange], None] = lambda exchange: None,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._service, self._address, self._observe, self._stage = service, address, observe, stage
        self._spool_directory, self._limits, self._executor = spool_directory, limits, executor
        self._dispatcher = Dispatcher(service, strict=packaging == "strict")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"]:
            case "POST":
                await self._post(scope, receive, send)
            case "GET":
                await self._get(scope, send)
            case _:
                await _send_small(send, 405, "text/plain", b"GET or POST\n", allow=True)

    async def _get(self, scope: Scope, send: Send) -> None:
        asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        content = None
        if any(name.lower() == "wsdl" for name in asked):
            content = self._service.describe(self._address, None)
        elif "xsd" in asked:
            content = self._service.describe(self._address, asked["xsd"][0])
        if content is None:
            await _send_small(
                send, 404, "text/plain", f"{self._service.name}: POST SOAP 1.2 here, or GET ?wsdl\n".encode()
            )
        else:
            await _send_small(send, 200, "text/xml; charset=UTF-8", content)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        exchange = Exchange(service=self._service.name)
        try:
            with Spool(self._spool_directory) as spool:
                await self._exchange(exchange, scope, spool, receive, send)
        except Disconnected:
            exchange.ending = "disconnected"
        except BaseException as error:
            # The answer has begun: what is left of it never comes.
            exchange.ending = "disconnected" if isinstance(error, asyncio.CancelledError) else "fault"
            raise
        finally:
            exchange.seconds = time.perf_counter() - started
            self._observe(exchange)

    async def _exchange(self, exchange: Exchange, scope: Scope, spool: Spool, receive: Receive, send: Send) -> None:
        answer: Answer | None
        try:
            with self._stage("receive"):
                receiver = self._receiver(scope, spool)
                rest = await streams.receive_body(
                    exchange, receiver.receive_data, receive, limits=self._limits, executor=self._executor
                )
            with self._stage("answer"):
                reply, answer, first = await self._answered(exchange, receiver, rest)
        except Disconnected:
            raise
        except Exception as error:
            reply, answer = self._fault(exchange, error), None
            first = [next(reply.pieces)]
        if answer is None:
            exchange.ending = "fault"
        else:
            exchange.ending, exchange.codes = ENDINGS[answer.reply.status()], answer.reply.codes()
        with self._stage("send"):
            await streams.send_reply(exchange, reply, first, receive, send, executor=self._executor)

    def _receiver(self, scope: Scope, spool: Spool) -> Receiver:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        streams.check_head(headers, self._limits)
        return Receiver(headers.get("content-type", ""), spool, self._limits)

    async def _answered(
        self, exchange: Exchange, receiver: Receiver, rest: bytes
    ) -> tuple[HttpReply, Answer | None, Batch]:
        """As `_answer`, when an answer that must be waited for is there."""
        loop = asyncio.get_running_loop()
        answered = await loop.run_in_executor(self._executor, self._answer, exchange, receiver, rest)
        if not isinstance(answered, Answer):
            return answered
        await _done(answered.reply.ready)
        reply = _http(answered, multipart=receiver.mtom)
        return reply, answered, next_batch(reply.pieces)

    def _answer(
        self, exchange: Exchange, receiver: Receiver, rest: bytes
    ) -> tuple[HttpReply, Answer | None, Batch] | Answer:
        """What goes out, what the operation answered, and the first batch; or an answer that must be waited for.

        What fails before a byte is sent becomes a fault, which no operation has answered.
        """
        try:
            receiver.receive_data(rest)
            envelope = receiver.envelope()
            exchange.message_id = addressing.message_id(envelope.headers)
            asked = self._dispatcher.operations.get(addressing.action(envelope.headers) or "")
            if asked is not None:
                exchange.transaction, exchange.action = asked.transaction, asked.action
            answer = self._dispatcher.dispatch(Message(envelope, receiver.documents, receiver.mtom))
            if answer.reply.ready is not None:
                return answer
            reply = _http(answer, multipart=receiver.mtom)
            return reply, answer, next_batch(reply.pieces)
        except Exception as error:
            reply = self._fault(exchange, error)
        return reply, None, next_batch(reply.pieces)

    def _fault(self, exchange: Exchange, error: Exception) -> HttpReply:
        """What went wrong as a fault; of what nobody foresaw, the peer learns only the number under which the log has it."""
        if not isinstance(error, SoapFault):
            incident = exchange.incident = str(uuid.uuid4())
            _log.error("incident %s at %s", incident, self._service.name, exc_info=error)
            error = SoapFault("Receiver", f"internal error; the server's log has it as incident {incident}")
        exchange.codes = (error.code,)
        return replying.fault_reply(error, exchange.message_id)


async def _done(ready: Future[Any] | None) -> None:
    """Waits for it; how it ended is for the body to say."""
    if ready is None:
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    ready.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    await done.wait()


def _http(answer: Answer, *, multipart: bool) -> HttpReply:
    headers = addressing.reply_headers(answer.operation.reply_action, answer.relates_to)
    if multipart and answer.operation.mtom:
        return replying.mtom(headers, answer.reply.body, answer.reply.documents)
    return replying.simple(headers, answer.reply.body, answer.reply.documents)


async def _send_small(send: Send, status: int, content_type: str, content: bytes, *, allow: bool = False) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(content)).encode())]
    if allow:
        headers.append((b"allow", b"GET, POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
