"""What every section of the configuration is made of: keys with their defaults and meanings."""

from __future__ import annotations

from dataclasses import field
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot be used: the file or variable, the key, and the reason."""


def key(default: Any, meaning: str) -> Any:
    """A key with its default and what it means."""
    return field(default=default, metadata={"meaning": meaning})


def is_ae_title(text: str) -> bool:
    """Whether it is an Application Entity title: 1 to 16 characters of ASCII but for the backslash (PS3.5 6.2, AE)."""
    return 0 < len(text) <= 16 and text.isascii() and text.isprintable() and "\\" not in text and not text.isspace()


def host_and_port(text: str) -> tuple[str, int]:
    """Host and port of host:port. ValueError for what is not of that form."""
    host, _, port = text.rpartition(":")
    number = int(port)
    if not host or not 0 < number < 65536:
        raise ValueError(text)
    return host.strip().strip("[]"), number


def names(text: str) -> frozenset[str]:
    """Of a list with commas."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())
