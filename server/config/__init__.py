"""The configuration: one frozen Config, every key of it documented where it is defined (sections.py, imaging.py)."""

from server.config.imaging import Imaging
from server.config.keys import ConfigError
from server.config.loading import load, to_toml
from server.config.sections import (
    ACTORS,
    SECTIONS,
    AffinityDomain,
    Config,
    Limits,
    Registry,
    Reports,
    Repository,
    Server,
)

__all__ = [
    "ACTORS",
    "SECTIONS",
    "AffinityDomain",
    "Config",
    "ConfigError",
    "Imaging",
    "Limits",
    "Registry",
    "Reports",
    "Repository",
    "Server",
    "load",
    "to_toml",
]
