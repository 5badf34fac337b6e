"""Serving over HTTP: one application that routes by path, uvicorn under it, and the refusal to listen where that is unsafe."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType

import uvicorn

from server.config import Config, ConfigError
from server.protocol import bounded
from server.sharing import Server, Share, SharingServer
from soap.streams import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A small answer to a GET."""

    content: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


#: What makes the answer to a probe.
Probe = Callable[[], Awaitable[Page]]


def router(
    apps: Mapping[str, App],
    probes: Mapping[str, Probe] = MappingProxyType({}),
    trees: Mapping[str, App] = MappingProxyType({}),
) -> App:
    """The application of each path, or of each path and whatever is below it (`trees`), the answer of each probe; else a list of them."""
    lines = [line for path in sorted(apps) for line in (path, f"{path}?wsdl")] + sorted(trees)
    listing = "".join(f"{line}\n" for line in lines).encode()

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"this server speaks HTTP, not {scope['type']}")
        path = scope["path"].rstrip("/")
        app, probe = apps.get(path), probes.get(path)
        if app is None:
            app = trees.get("/" + path[1:].partition("/")[0])
        if app is not None:
            await app(scope, receive, send)
        elif probe is not None and scope["method"] in ("GET", "HEAD"):
            await _send_page(await probe(), scope, send)
        else:
            await _send_page(Page(content=listing, status=200 if scope["path"] == "/" else 404), scope, send)

    return route


def counted(app: App, in_progress: Callable[[], AbstractContextManager[object]]) -> App:
    """The application, each of whose requests is within a context."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        with in_progress():
            await app(scope, receive, send)

    return run


async def _send_page(page: Page, scope: Scope, send: Send) -> None:
    headers = [(b"content-type", page.content_type.encode()), (b"content-length", str(len(page.content)).encode())]
    await send({"type": "http.response.start", "status": page.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.content})


def bind(config: Config) -> socket.socket:
    """The listening socket of HTTP. ConfigError for an address beyond loopback without insecure = true, and for one that is taken."""
    return listen_on(config, "server.host", config.server.host, config.server.port)


def listen_on(config: Config, key: str, host: str, port: int) -> socket.socket:
    """A listening socket for the address that a key of the configuration has. ConfigError as for `bind`."""
    refuse_exposed(config, key, host)
    listening: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Who connects from now on waits until a process serves.
        listening.listen(2048)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error}") from None
    return listening


def refuse_exposed(config: Config, key: str, host: str) -> None:
    """ConfigError for an address beyond loopback, the value of a key, without insecure = true."""
    if not is_loopback(host) and not config.server.insecure:
        raise ConfigError(
            f"{key} is {host!r}, which others can reach, and no security is configured:"
            " listen on 127.0.0.1, or say server.insecure = true (--insecure)"
        )


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def base_url(config: Config, listening: socket.socket) -> str:
    """Under which URL the endpoints are reached."""
    host = config.server.host
    shown = f"[{host}]" if ":" in host else host
    return config.server.public_url.rstrip("/") or f"http://{shown}:{listening.getsockname()[1]}"


def server(app: App, config: Config, share: Share | None = None) -> uvicorn.Server:
    """A uvicorn server for the application. `share`: with whom it shares its socket."""
    settings = uvicorn.Config(
        app,
        http=bounded(config.limits),  # type: ignore[arg-type]
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.server.shutdown_grace_s,
    )
    return Server(settings) if share is None else SharingServer(settings, share)


@contextlib.contextmanager
def in_thread(app: App, config: Config, listening: socket.socket) -> Iterator[None]:
    """Serves in a thread of its own until the context ends: for the demo and the tests."""
    running = server(app, config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, name="xdsi-http", daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not running.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    try:
        yield
    finally:
        running.should_exit = True
        thread.join(timeout=40)
        listening.close()
