"""The configuration from a TOML file and the environment, and as TOML again.

`XDSI__SECTION__KEY` overrides what the file says. An unknown key or a value of the wrong type is an error that names file and key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from registry import tunable
from server.config.checks import check
from server.config.keys import ConfigError
from server.config.sections import ACTORS, SECTIONS, AffinityDomain, Config, Registry, Strictness

_LEVELS = ("error", "warning", "off")
_CHOICES = {
    **{("strictness", name): _LEVELS for name in tunable.RULES},
    ("registry", "unknown_patient"): ("empty", "error"),
    ("server", "packaging"): ("strict", "lenient"),
    ("repository", "store"): ("files", "s3"),
    ("imaging", "empty_uid"): (404, 400),
    ("reports", "pdf"): ("cda", "plain"),
    ("reports", "addendum"): ("replace", "append"),
    ("imaging", "mado_codes"): ("temporary", "final"),
    ("imaging", "archive_retrieve"): ("get", "move"),
    ("server", "log_format"): ("text", "json"),
    ("server", "log_level"): ("debug", "info", "warning", "error"),
    ("server", "tracing"): ("off", "otlp"),
    ("registry", "patients"): ("known", "open"),
}
_PREFIX = "XDSI__"


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The defaults, overridden by the file, overridden by the environment. ConfigError for whatever cannot be used."""
    environment = os.environ if environment is None else environment
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    domains: tuple[AffinityDomain, ...] = ()
    if path is not None:
        content = _content(path)
        domains = _domains(content.pop("domains", {}), str(path))
        for section, keys in content.items():
            if not isinstance(keys, dict):
                raise ConfigError(f"{path}: {section} stands outside of a section")
            for name, value in keys.items():
                _set(values, section, name, value, origin=str(path))
    for variable, text in sorted(environment.items()):
        if variable.startswith(_PREFIX):
            section, _, name = variable[len(_PREFIX) :].lower().partition("__")
            _set(values, section, name, text, origin=f"environment variable {variable}", from_text=True)
    config = Config(domains=domains, **{section: kind(**values[section]) for section, kind in SECTIONS.items()})
    check(config)
    return config


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _domains(content: Any, origin: str) -> tuple[AffinityDomain, ...]:
    """[domains.NAME]: the keys of the section registry, and [domains.NAME.strictness]. Nothing is inherited."""
    found = []
    for name, keys in content.items() if isinstance(content, dict) else ():
        here = f"{origin}: domains.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name) or name in ACTORS:
            raise ConfigError(f"{here}: a domain is named by 1 to 32 of a-z, 0-9 and -, and not like an actor")
        if not isinstance(keys, dict):
            raise ConfigError(f"{here} is no section")
        values: dict[str, dict[str, Any]] = {"registry": {}, "strictness": {}}
        for key_name, value in keys.items():
            if key_name == "strictness" and isinstance(value, dict):
                for rule, level in value.items():
                    _set(values, "strictness", rule, level, origin=here)
            else:
                _set(values, "registry", key_name, value, origin=here)
        found.append(
            AffinityDomain(
                name=name, registry=Registry(**values["registry"]), strictness=Strictness(**values["strictness"])
            )
        )
    return tuple(found)


def _set(
    values: dict[str, dict[str, Any]], section: str, name: str, value: Any, *, origin: str, from_text: bool = False
) -> None:
    if section not in SECTIONS:
        raise ConfigError(f"{origin}: there is no section {section!r}{_nearest(section, SECTIONS)}")
    known = {one.name: one for one in fields(SECTIONS[section])}
    if name not in known:
        raise ConfigError(f"{origin}: there is no key {section}.{name}{_nearest(name, known)}")
    kind = type(known[name].default)
    try:
        value = _converted(value, kind, from_text)
    except ValueError:
        raise ConfigError(f"{origin}: {section}.{name} is {value!r}; it must be of type {kind.__name__}") from None
    choices = _CHOICES.get((section, name))
    if choices and value not in choices:
        raise ConfigError(f"{origin}: {section}.{name} is {value!r}; it must be one of {', '.join(map(str, choices))}")
    values[section][name] = value


def _converted(value: Any, kind: type, from_text: bool) -> Any:
    if from_text and kind is bool:
        lowered = value.strip().lower()
        if lowered not in ("true", "false", "1", "0"):
            raise ValueError
        return lowered in ("true", "1")
    if from_text or (kind is float and type(value) is int):
        return kind(value)
    if type(value) is not kind:
        raise ValueError
    return value


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def to_toml(config: Config) -> str:
    """The effective configuration as TOML, each key with its meaning and, where it differs, its default."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += _section(section, getattr(config, section))
    for domain in config.domains:
        lines += _section(f"domains.{domain.name}", domain.registry)
        lines += _section(f"domains.{domain.name}.strictness", domain.strictness)
    return "\n".join(lines)


def _section(name: str, values: Any) -> list[str]:
    lines = [f"[{name}]"]
    for one in fields(values):
        value = getattr(values, one.name)
        default = "" if value == one.default else f" (default: {_literal(one.default)})"
        lines += [f"# {one.metadata['meaning']}{default}", f"{one.name} = {_literal(value)}"]
    return [*lines, ""]


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
