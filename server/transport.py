"""The client's HTTP: httpx behind the Transport that soap/client.py wants, streamed both ways."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import httpx

from soap.client import HttpResponse, Transport

_CHUNK_BYTES = 512 * 1024


class _Response:
    def __init__(self, response: httpx.Response, deadline: float) -> None:
        self._response, self._deadline = response, deadline
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """Of 512 KiB or more, but for the last."""
        taken: list[bytes] = []
        size = 0
        for piece in self._response.iter_raw():
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("it has not ended in time")
            taken.append(piece)
            size += len(piece)
            if size >= _CHUNK_BYTES:
                yield b"".join(taken)
                taken, size = [], 0
        yield b"".join(taken)


@cache
def _client(connect_timeout_s: float, idle_timeout_s: float) -> httpx.Client:
    """One pool of connections for the whole process, closed at its end."""
    client = httpx.Client(
        timeout=httpx.Timeout(idle_timeout_s, connect=connect_timeout_s),
        follow_redirects=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity"},
    )
    atexit.register(client.close)
    return client


def http_get(
    *, connect_timeout_s: float = 10.0, idle_timeout_s: float = 300.0
) -> Callable[[str, Mapping[str, str]], AbstractContextManager[HttpResponse]]:
    """GETs (URL, headers); follows no redirects and knows no proxies. OSError where there is no answer."""
    client = _client(connect_timeout_s, idle_timeout_s)

    @contextmanager
    def get(url: str, headers: Mapping[str, str]) -> Iterator[HttpResponse]:
        try:
            with client.stream("GET", url, headers=dict(headers)) as response:
                yield _Response(response, float("inf"))
        except httpx.HTTPError as error:
            raise OSError(f"no answer from {url}: {error}") from None
        except httpx.InvalidURL as error:
            raise OSError(f"{url!r} is no URL: {error}") from None

    return get


def http_transport(
    *, connect_timeout_s: float = 10.0, idle_timeout_s: float = 300.0, answer_timeout_s: float = float("inf")
) -> Transport:
    """A Transport that follows no redirects and knows no proxies. OSError where there is no answer.

    An answer may pause for `idle_timeout_s`; it must be there in full `answer_timeout_s` after the request was begun.
    """
    client = _client(min(connect_timeout_s, answer_timeout_s), min(idle_timeout_s, answer_timeout_s))

    @contextmanager
    def post(url: str, headers: Mapping[str, str], body: Iterable[bytes]) -> Iterator[HttpResponse]:
        deadline = time.monotonic() + answer_timeout_s
        try:
            with client.stream("POST", url, headers=dict(headers), content=iter(body)) as response:
                yield _Response(response, deadline)
        except httpx.HTTPError as error:
            raise OSError(f"no answer from {url}: {error}") from None
        except httpx.InvalidURL as error:
            raise OSError(f"{url!r} is no URL: {error}") from None

    return post
