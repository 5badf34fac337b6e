"""The configuration of [strictness]: for each domain, told with file and key where it is wrong, and obeyed over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.registries import BOTH, valid
from registry import rules, rules_registry
from registry.client import client
from registry.tunable import RULES
from schemas import rim
from server.compose import soap_client
from server.config import ConfigError, load
from server.embedded import serving
from xds.metadata import DocumentEntry
from xds.problems import Failure, Severity
from xds.queries import FindDocuments
from xds.values import Identifier, PidField

ESSENTIAL = [one.__name__ for one in (*rules.ESSENTIAL, *rules_registry.ESSENTIAL)]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "xdsi.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_be_set_for_each_domain(tmp_path: Path, rule: str) -> None:
    path = written(tmp_path, f'[strictness]\n{rule} = "warning"\n[domains.north.strictness]\n{rule} = "off"\n')
    config = load(path, {})
    assert getattr(config.strictness, rule) == "warning"
    (north,) = config.domains
    assert getattr(north.strictness, rule) == "off"
    others = [name for name in RULES if name != rule]
    assert {getattr(one, name) for one in (config.strictness, north.strictness) for name in others} <= {"error"}
    assert getattr(load(None, {f"XDSI__STRICTNESS__{rule.upper()}": "off"}).strictness, rule) == "off"


def test_a_domain_inherits_no_strictness(tmp_path: Path) -> None:
    path = written(tmp_path, '[strictness]\npatient_is_known = "off"\n[domains.north]\npatients = "known"\n')
    (north,) = load(path, {}).domains
    assert north.strictness.patient_is_known == "error"


def test_rules_that_keep_the_registry_consistent_are_not_offered() -> None:
    assert len(set(ESSENTIAL)) == len(ESSENTIAL)
    assert not set(ESSENTIAL) & set(RULES)


@pytest.mark.parametrize("section", ["strictness", "domains.north.strictness"])
@pytest.mark.parametrize("name", ["times_are_wellformed", "no_such_rule", *ESSENTIAL])
def test_an_unknown_or_essential_rule_is_refused_with_file_and_key(tmp_path: Path, section: str, name: str) -> None:
    """Rules that keep the registry consistent have no key."""
    path = written(tmp_path, f'[{section}]\n{name} = "off"\n')
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert str(path) in str(error.value)
    assert f"there is no key strictness.{name}" in str(error.value)
    assert ("domains.north" in str(error.value)) is section.startswith("domains")


@pytest.mark.parametrize("section", ["strictness", "domains.north.strictness"])
@pytest.mark.parametrize(
    ("level", "words"), [('"warn"', "'warn'; it must be one of"), ("false", "False; it must be of")]
)
def test_an_unknown_level_is_refused_with_file_and_key(tmp_path: Path, section: str, level: str, words: str) -> None:
    path = written(tmp_path, f"[{section}]\npatient_is_known = {level}\n")
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert str(path) in str(error.value)
    assert f"strictness.patient_is_known is {words}" in str(error.value)


def test_a_misspelt_rule_is_told_what_was_meant(tmp_path: Path) -> None:
    path = written(tmp_path, '[strictness]\ntimes_are_wellformed = "off"\n')
    with pytest.raises(ConfigError, match="did you mean 'times_are_well_formed'"):
        load(path, {})


def test_a_wrong_birth_date_is_told_over_the_wire_as_each_domain_wants(tmp_path: Path) -> None:
    """The administrators' example: PID-7 of sourcePatientInfo (ITI TF-3 4.2.3.2.23), in three domains of one process."""
    rule = "source_patient_info_is_well_formed"
    path = written(
        tmp_path,
        f'[server]\nactors = "registry"\ndirectory = "{tmp_path / "data"}"\n[registry]\npatients = "open"\n'
        f'[domains.north]\npatients = "open"\n[domains.north.strictness]\n{rule} = "warning"\n'
        f'[domains.south]\npatients = "open"\n[domains.south.strictness]\n{rule} = "off"\n',
    )
    patient_id, words = Identifier.of("ann", "1.2.3.4"), "sourcePatientInfo PID-7 (birth date) '19700231'"
    made = valid(patient_id, source_patient_info=(PidField("PID-5|Muster^Ann"), PidField("PID-7|19700231")))
    config = load(path, {})
    with serving(config) as domain:

        def at(name: str) -> Any:
            return client(soap_client(domain.endpoints[name], config))

        with pytest.raises(Failure) as failure:
            at("registry").register(made)
        ((context, severity),) = ((one.context, one.severity) for one in failure.value.problems)
        assert words in context
        assert severity is Severity.ERROR
        warned = at("north/registry").register(made)
        assert warned.succeeded
        assert [(one.context, one.severity) for one in warned.problems] == [(context, Severity.WARNING)]
        silent = at("south/registry").register(made)
        assert (silent.succeeded, silent.problems) == (True, ())
        for name, count in (("registry", 0), ("north/registry", 1), ("south/registry", 1)):
            found = at(name).query(FindDocuments(patient_id=patient_id, status=BOTH)).fragments
            entries = [one for one in rim.decode_fragments(found) if isinstance(one, DocumentEntry)]
            assert len(entries) == count
            assert all(one.source_patient_info == made.document_entries[0].source_patient_info for one in entries)
