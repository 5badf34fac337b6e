"""A whole domain over real HTTP on a free loopback port, for the demo and the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from server.compose import Domain, compose
from server.config import Config
from server.http import base_url, bind, in_thread


@contextmanager
def serving(config: Config) -> Iterator[Domain]:
    """The domain of a configuration, served until the context ends; its `endpoints` say where."""
    local = replace(config, server=replace(config.server, host="127.0.0.1", port=0, public_url=""))
    listening = bind(local)
    domain = compose(local, base_url(local, listening))
    try:
        with in_thread(domain.app, local, listening):
            yield domain
    finally:
        domain.close()
