"""How the registry words a problem: it names the object, the attribute, the value and the rule."""

from __future__ import annotations

from schemas.rim import kind_of
from xds.metadata import RegistryObject
from xds.problems import ErrorCode, Problem

_SHOWN = 120


def named(one: RegistryObject) -> str:
    """How a problem calls an object: its class and the id that the submission gave it."""
    return f"{kind_of(one)} {one.entry_uuid or 'without id'}"


def shown(value: object) -> str:
    """A value in a problem, cut to a readable length."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def fault(context: str, code: ErrorCode = ErrorCode.REGISTRY_METADATA_ERROR) -> Problem:
    return Problem(code=code, context=context)
