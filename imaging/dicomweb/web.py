"""DICOMweb and WADO-URI over HTTP: an ASGI application that finds the handler of a path and moves bytes; handlers run in threads."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import parse_qsl

from imaging.dicomweb.resources import Handler, Refusal, Request, check_place, check_query, in_text
from soap import streams
from soap.fault import SoapFault
from soap.operations import Ending, Exchange, Limits
from soap.replying import HttpReply
from soap.streams import Batch, Disconnected, Receive, Scope, Send

_log = logging.getLogger("xdsi.imaging")
_MAX_PARAMETERS = 200
_EXPOSED = "Content-Type, Content-Location, Warning"


class Taking(Protocol):
    """Takes the body of one request, and answers when it has it all."""

    def receive_data(self, data: bytes) -> None: ...

    def answer(self) -> HttpReply: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is at the paths of one form, `/studies/{study}`. `get` answers a GET, `post` makes what takes the body of a POST."""

    form: str
    transaction: str
    get: Handler | None = None
    post: Callable[[Request], Taking] | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        return (*(("GET",) if self.get else ()), *(("POST",) if self.post else ()))

    def match(self, path: str) -> Mapping[str, str] | None:
        pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", self.form)
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern), path, re.DOTALL)
        return None if found is None else found.groupdict()


class Web:
    """The application. `base` is the URL below which it is, `prefix` that URL's path; `cors_origins` may call it from a browser, "*" all.

    `observe` is told of each request but OPTIONS when it has ended. `refusal` makes an answer of a status and its reason.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        base: str,
        prefix: str,
        limits: Limits,
        executor: Executor,
        cors_origins: Collection[str] = (),
        observe: Callable[[Exchange], None] = lambda exchange: None,
        refusal: Callable[[int, str], HttpReply] = in_text,
    ) -> None:
        self._routes, self._base, self._prefix = routes, base, prefix
        self._limits, self._executor = limits, executor
        self._cors_origins, self._observe, self._refusal = cors_origins, observe, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        cors = self._cors(headers.get("origin", ""))
        started = time.perf_counter()
        exchange = Exchange(service="ImagingDocumentSource")
        if scope["method"] == "OPTIONS":
            allowed = self._allowed(scope["path"][len(self._prefix) :].rstrip("/"))
            preflight = HttpReply(204, "", None, iter([]), (("Allow", allowed), *cors, *_preflight(cors, allowed)))
            await streams.send_reply(exchange, preflight, [], receive, send, executor=self._executor)
            return
        try:
            await self._exchange(exchange, scope, headers, cors, receive, send)
        except Disconnected:
            exchange.ending = "disconnected"
        except BaseException as error:
            # The answer has begun: what is left of it never comes.
            exchange.ending = "disconnected" if isinstance(error, asyncio.CancelledError) else "fault"
            raise
        finally:
            exchange.seconds = time.perf_counter() - started
            self._observe(exchange)

    async def _exchange(
        self,
        exchange: Exchange,
        scope: Scope,
        headers: dict[str, str],
        cors: tuple[tuple[str, str], ...],
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            route, request = self._found(scope, headers)
            exchange.transaction = route.transaction
            if route.get is not None:
                answered = asyncio.get_running_loop().run_in_executor(self._executor, _answered, route.get, request)
                answer, first = await answered
            else:
                assert route.post is not None
                streams.check_head(headers, self._limits)
                answer, first = await self._taken(exchange, route.post(request), receive)
        except Disconnected:
            raise
        except Exception as error:
            answer = self._refused(exchange, error)
            first = [next(answer.pieces)]
        exchange.ending = _ending(answer.status)
        answer = replace(answer, headers=answer.headers + cors)
        await streams.send_reply(exchange, answer, first, receive, send, executor=self._executor)

    async def _taken(self, exchange: Exchange, taking: Taking, receive: Receive) -> tuple[HttpReply, Batch]:
        """The answer to a body, and its first batch; what was kept of the body is gone by then."""
        loop = asyncio.get_running_loop()
        try:
            rest = await streams.receive_body(
                exchange, taking.receive_data, receive, limits=self._limits, executor=self._executor
            )
            return await loop.run_in_executor(self._executor, _answer_to, taking, rest)
        finally:
            await loop.run_in_executor(self._executor, taking.close)

    def _found(self, scope: Scope, headers: Mapping[str, str]) -> tuple[Route, Request]:
        path, method = scope["path"][len(self._prefix) :].rstrip("/"), scope["method"]
        routes = [(route, place) for route in self._routes if (place := route.match(path)) is not None]
        if not routes:
            known = ", ".join(dict.fromkeys(route.form for route in self._routes))
            raise Refusal(404, f"there is no such resource; there are {known}")
        found = next(((route, place) for route, place in routes if method in route.methods), None)
        if found is None:
            raise Refusal(405, f"{method[:16]!r} is not possible here; {self._allowed(path)} are")
        route, place = found
        check_place(place)
        query = _query(scope["query_string"])
        accept = next((value for name, value in query if name.lower() == "accept"), headers.get("accept", ""))
        return route, Request(
            place=place,
            query=[(name, value) for name, value in query if name.lower() != "accept"],
            accept=accept,
            content_type=headers.get("content-type", ""),
            base=self._base,
        )

    def _refused(self, exchange: Exchange, error: Exception) -> HttpReply:
        """Why; of what nobody foresaw, the client learns only the number under which the log has it."""
        match error:
            case Refusal():
                status, text = error.status, str(error)
            case SoapFault():
                status, text = error.http_status, error.reason
            case _:
                incident = exchange.incident = str(uuid.uuid4())
                _log.error("incident %s in %s", incident, exchange.transaction or "DICOMweb", exc_info=error)
                status, text = 500, f"internal error; the server's log has it as incident {incident}"
        exchange.codes = (str(status),)
        return self._refusal(status, text)

    def _cors(self, origin: str) -> tuple[tuple[str, str], ...]:
        """What lets a browser's page of this origin read the answer; nothing for one that may not."""
        if "*" in self._cors_origins:
            return (("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", _EXPOSED))
        varies = (("Vary", "Origin"),) if self._cors_origins else ()
        if origin not in self._cors_origins:
            return varies
        return (("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", _EXPOSED), *varies)

    def _allowed(self, path: str) -> str:
        methods = [method for route in self._routes if route.match(path) is not None for method in route.methods]
        return ", ".join([*dict.fromkeys(methods), "OPTIONS"])


def _preflight(cors: tuple[tuple[str, str], ...], allowed: str) -> tuple[tuple[str, str], ...]:
    if not any(name == "Access-Control-Allow-Origin" for name, _ in cors):
        return ()
    return (
        ("Access-Control-Allow-Methods", allowed),
        ("Access-Control-Allow-Headers", "Authorization, Accept, Content-Type"),
        ("Access-Control-Max-Age", "600"),
    )


def _answered(handler: Handler, request: Request) -> tuple[HttpReply, Batch]:
    """The answer and its first batch: what fails before a byte is sent can still be refused."""
    answer = handler(request)
    return answer, streams.next_batch(answer.pieces)


def _answer_to(taking: Taking, rest: bytes) -> tuple[HttpReply, Batch]:
    taking.receive_data(rest)
    answer = taking.answer()
    return answer, streams.next_batch(answer.pieces)


def _query(text: bytes) -> list[tuple[str, str]]:
    try:
        query = parse_qsl(
            text.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except UnicodeDecodeError:
        raise Refusal(400, "the query is not UTF-8, percent-encoded") from None
    except ValueError:
        raise Refusal(400, f"the query has more than {_MAX_PARAMETERS} parameters") from None
    check_query(query)
    return query


def _ending(status: int) -> Ending:
    if status in (202, 206):
        return "partial"
    return "success" if status < 400 else "failure" if status < 500 else "fault"
