"""The rules that an administrator may soften, by name, with what each demands."""

from __future__ import annotations

from registry import iti42_register, rules, rules_registry
from registry.rules_attributes import VALUE_RULES


def _meaning(docstring: str | None) -> str:
    """The first line of a rule's docstring."""
    return (docstring or "").strip().partition("\n")[0]


RULES: dict[str, str] = {
    **{rule.__name__: _meaning(rule.__doc__) for rule in (*rules.TUNABLE, *rules_registry.TUNABLE)},
    **{name: meaning for name, (meaning, _) in VALUE_RULES.items()},
    **{name: _meaning(docstring) for name, docstring in iti42_register.OWN_RULES.items()},
}
