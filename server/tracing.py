"""Whether exchanges are told to a collector of traces. What does so, server/otlp.py, is loaded only where it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from server.config import ConfigError, Server
from server.http import App
from soap.client import Transport
from soap.operations import Exchange

P = ParamSpec("P")
R = TypeVar("R")


def _the_same_app(app: App, route: str, methods: Collection[str]) -> App:
    return app


def _the_same_transport(transport: Transport) -> Transport:
    return transport


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """What is done around exchanges so that they become spans; as it stands, nothing."""

    #: The application at a path, and below it, each request to which by one of these methods is an exchange.
    app: Callable[[App, str, Collection[str]], App] = _the_same_app
    #: A stage of the exchange that is under way, by name.
    stage: Callable[[str], AbstractContextManager[object]] = nullcontext
    #: Takes an exchange that is about to end.
    observe: Callable[[Exchange], None] = _nothing
    #: The transport of a client, each request of which is part of what is under way, here and at the peer.
    transport: Callable[[Transport], Transport] = _the_same_transport
    #: Sends what has not been sent.
    close: Callable[[], None] = _nothing


OFF = Tracing()


def tracing(settings: Server) -> Tracing:
    """What the configuration wants. ConfigError where something is missing for it."""
    if settings.tracing == "off":
        return OFF
    try:
        from server import otlp
    except ImportError as error:
        raise ConfigError(
            f"server.tracing is {settings.tracing!r}, which needs packages that are not installed ({error}):"
            " pip install 'xdsi[tracing]'"
        ) from None
    return otlp.tracing(settings.tracing_endpoint)


class Threads(ThreadPoolExecutor):
    """Threads in which work has the context (contextvars) of whoever asked for it, so that what it logs and asks is part of that."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        context = copy_context()
        return super().submit(lambda: context.run(fn, *args, **kwargs))
