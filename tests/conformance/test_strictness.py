"""The rules that an administrator may soften: each as a warning, and not at all (docs: [strictness]).

A softened rule only ever lets more in: what comes in is stored, found, given back and lived with on both databases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.messages import new_oid, patient, submission
from benchmarks.registries import (
    Registry,
    folder_submission,
    link,
    on_demand_submission,
    opened,
    related,
    valid,
    with_links,
    with_set,
)
from registry import rules, rules_registry, tunable
from registry.codes import Codes
from registry.rules import Strictness
from registry.rules_attributes import REQUIRED
from registry.store import Store
from xds.metadata import Author, DocumentEntry, Extra, Folder, Slot, Submission, SubmissionSet, Unrecognized
from xds.problems import Severity
from xds.queries import GetDocuments
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    OidUrn,
    Organization,
    Person,
    PidField,
    Recipient,
    ReferenceId,
    Sha1,
    Size,
    Telecommunication,
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import AssociationType, Status


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    made = opened(module_database)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


def softened(level: Any, *names: str) -> Strictness:
    return Strictness(dict.fromkeys(names or tunable.RULES, level))


# --- a submission that breaks one rule, for each rule -----------------------------------------------------------------


def _same_again(registry: Registry, **changes: Any) -> Submission:
    return valid(registry.p1, unique_id=registry.registered(valid(registry.p1)).unique_id, **changes)


def _used_by_a_set(registry: Registry) -> Submission:
    made = valid(registry.p1)
    registry.register(made)
    return with_set(registry.p1, unique_id=made.submission_sets[0].unique_id)


def _twice_in_a_message(registry: Registry) -> Submission:
    made = submission(registry.p1, documents=2, registered=True)
    first, second = made.document_entries
    return replace(made, document_entries=(first, replace(second, unique_id=first.unique_id)))


def _of_a_deprecated(registry: Registry) -> Submission:
    old = registry.registered(valid(registry.p1)).entry_uuid
    registry.register(related(valid(registry.p1), AssociationType.RPLC, old))
    return related(valid(registry.p1), AssociationType.APND, old)


def _author(**given: Any) -> dict[str, Any]:
    return {"author": (Author(**given),)}


#: For each rule a submission that breaks it and no other.
BREAKS: dict[str, Callable[[Registry], Submission]] = {
    "something_is_submitted": lambda r: submission(r.p1, documents=0, registered=True),
    "required_attributes": lambda r: valid(r.p1, class_code=None),
    "on_demand_entries_have_no_bytes": lambda r: on_demand_submission(r.p1, size=Size("5")),
    "attributes_have_their_shape": lambda r: valid(
        r.p1, extra=Extra(slots=(Slot(name="languageCode", values=("de", "fr")),))
    ),
    "extra_slots_are_named_by_urns": lambda r: valid(r.p1, extra=Extra(slots=(Slot(name="mine", values=("a",)),))),
    "source_patient_info_is_well_formed": lambda r: valid(r.p1, source_patient_info=(PidField("PID-7|31.02.1970"),)),
    "codes_have_display_names": lambda r: valid(r.p1, class_code=Code("A", "1.2")),
    "authors_are_somebody": lambda r: valid(r.p1, **_author(author_role=("Doctor",))),
    "service_times_are_in_order": lambda r: valid(
        r.p1, service_start_time=Timestamp("2025"), service_stop_time=Timestamp("2024")
    ),
    "metadata_is_not_limited": lambda r: valid(r.p1, limited_metadata=True),
    "unique_ids_are_unique": _twice_in_a_message,
    "members_are_declared": lambda r: replace(valid(r.p1), associations=()),
    "patient_is_known": lambda r: valid(patient(int(r.p1.identifier.removeprefix("bench")) + 1_000_000)),
    "unique_ids_are_new": _used_by_a_set,
    "same_unique_id_means_same_bytes": lambda r: _same_again(r, hash=Sha1("0" * 40)),
    "ends_are_approved": _of_a_deprecated,
    "times_are_well_formed": lambda r: valid(r.p1, creation_time=Timestamp("31.12.2024")),
    "patient_identifiers_are_well_formed": lambda r: valid(r.p1, source_patient_id=Identifier("7")),
    "unique_identifiers_are_well_formed": lambda r: valid(r.p1, repository_unique_id=Oid("repository")),
    "people_and_places_are_well_formed": lambda r: valid(r.p1, **_author(author_person=Person("^^Ann"))),
    "reference_ids_are_well_formed": lambda r: valid(r.p1, reference_id_list=(ReferenceId("17"),)),
    "content_attributes_are_well_formed": lambda r: valid(r.p1, language_code=LanguageCode("en_US")),
    "texts_have_their_length": lambda r: valid(r.p1, title=Text.of("x" * 200)),
    "entries_are_of_the_transaction": lambda r: on_demand_submission(r.p1),
    "codes_are_known": lambda r: valid(r.p1, class_code=Code.of("B", "1.2", "B")),
}
ON_DEMAND_RULES = ("on_demand_entries_have_no_bytes",)


def broken(registry: Registry, rule: str) -> tuple[Submission, bool]:
    """The submission, and whether ITI-61 takes it."""
    if rule == "codes_are_known":
        registry.codes = Codes.of([("classCode", "1.2", "A", "A")])
    return BREAKS[rule](registry), rule in ON_DEMAND_RULES


def test_each_rule_that_can_be_softened_is_tried_here() -> None:
    assert set(BREAKS) == set(tunable.RULES)
    assert all(meaning for meaning in tunable.RULES.values())


@pytest.mark.parametrize("rule", tunable.RULES)
def test_by_default_a_rule_is_an_error(registry: Registry, rule: str) -> None:
    made, on_demand = broken(registry, rule)
    assert len(registry.refused(made, on_demand=on_demand)) == 1


@pytest.mark.parametrize("rule", tunable.RULES)
def test_as_a_warning_a_rule_says_the_same_and_stores(registry: Registry, rule: str) -> None:
    """Success with a RegistryErrorList of severity Warning (ITI TF-3 4.2.4.1, 4.2.4.2)."""
    made, on_demand = broken(registry, rule)
    ((code, context),) = registry.refused(made, on_demand=on_demand)
    registry.strictness = softened("warning", rule)
    before = registry.snapshot()[0]
    outcome = registry.register(made, on_demand=on_demand)
    assert outcome.succeeded
    assert [(str(one.code), one.context, one.severity) for one in outcome.problems] == [
        (code, context, Severity.WARNING)
    ]
    assert registry.snapshot()[0] != before


@pytest.mark.parametrize("rule", tunable.RULES)
def test_off_a_rule_says_nothing_and_stores(registry: Registry, rule: str) -> None:
    made, on_demand = broken(registry, rule)
    registry.refused(made, on_demand=on_demand)
    registry.strictness = softened("off", rule)
    before = registry.snapshot()[0]
    outcome = registry.register(made, on_demand=on_demand)
    assert outcome.succeeded and outcome.problems == ()
    assert registry.snapshot()[0] != before


@pytest.mark.parametrize("rule", tunable.RULES)
def test_one_softened_rule_softens_no_other(registry: Registry, rule: str) -> None:
    made, on_demand = broken(registry, rule)
    registry.strictness = Strictness({name: "off" for name in tunable.RULES if name != rule})
    assert len(registry.refused(made, on_demand=on_demand)) == 1


def test_a_wrong_birth_date_is_the_administrators_example(registry: Registry) -> None:
    """sourcePatientInfo PID-7 (ITI TF-3 4.2.3.2.23): warned of, and given back as it came."""
    registry.strictness = softened("warning", "source_patient_info_is_well_formed")
    info = (PidField("PID-5|Muster^Ann"), PidField("PID-7|19702302"))
    made = valid(registry.p1, source_patient_info=info)
    (problem,) = registry.register(made).problems
    assert problem.context == (
        "DocumentEntry Document0: sourcePatientInfo PID-7 (birth date) '19702302' is not a moment of the calendar"
    )
    assert registry.entry(made).source_patient_info == info


# --- what cannot be softened ------------------------------------------------------------------------------------------


def test_rules_that_keep_the_registry_consistent_are_not_offered() -> None:
    essential = {one.__name__ for one in (*rules.ESSENTIAL, *rules_registry.ESSENTIAL)}
    assert len(essential) == len(rules.ESSENTIAL) + len(rules_registry.ESSENTIAL)
    assert not essential & set(tunable.RULES)


@pytest.mark.parametrize(
    "made",
    [
        lambda r: replace(valid(r.p1), submission_sets=()),
        lambda r: valid(r.p1, unique_id=None),
        lambda r: valid(r.p1, unique_id=UniqueId("")),
        lambda r: valid(r.p1, patient_id=None),
        lambda r: with_set(r.p1, patient_id=None),
        lambda r: folder_submission(r.p1, unique_id=None),
        lambda r: valid(r.p1, patient_id=r.p2),
        lambda r: valid(r.p1, entry_uuid=""),
        lambda r: with_links(valid(r.p1), link("", "Document0", "Document0")),
        lambda r: related(valid(r.p1), AssociationType.RPLC, "nowhere"),
        lambda r: replace(valid(r.p1), unrecognized=(Unrecognized(entry_uuid="x", reason="x", xml=b"<a/>"),)),
    ],
)
def test_a_registry_that_takes_all_it_can_still_refuses_this(
    registry: Registry, made: Callable[[Registry], Submission]
) -> None:
    registry.strictness = softened("off")
    assert registry.refused(made(registry))


# --- nothing that is let in breaks the database -----------------------------------------------------------------------

#: Incompressible, so that no index can hold it by making it smaller.
LONG = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(20_000))


def bare(kind: type, **given: Any) -> dict[str, Any]:
    """Each required attribute missing, but for those without which nothing is kept."""
    kept = ("patient_id", "unique_id")
    empty = {"confidentiality_code": (), "code_list": (), "title": Text()}
    return {name: empty.get(name) for name in REQUIRED[kind] if name not in kept} | given


@pytest.mark.parametrize("level", ["warning", "off"])
def test_objects_without_their_required_attributes_are_stored_and_found(registry: Registry, level: Any) -> None:
    registry.strictness = softened(level)
    made = valid(registry.p1, **bare(DocumentEntry))
    made = replace(made, submission_sets=(replace(made.submission_sets[0], **bare(SubmissionSet)),))
    folder = folder_submission(registry.p1, **bare(Folder))
    made = with_links(replace(made, folders=folder.folders), *folder.associations)
    assert registry.register(made).succeeded
    assert registry.entry(made).class_code is None
    assert {type(one) for one in registry.everything()} >= {DocumentEntry, Folder, SubmissionSet}
    replaced = related(valid(registry.p1), AssociationType.RPLC, registry.entry(made).entry_uuid)
    assert registry.register(replaced).succeeded
    assert registry.entry(made).availability_status == Status.DEPRECATED


@pytest.mark.parametrize("level", ["warning", "off"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", Text.of(LONG)),
        ("comments", Text.of(LONG)),
        ("uri", LONG),
        ("mime_type", MimeType(LONG)),
        ("class_code", Code.of(LONG, LONG, LONG)),
        ("confidentiality_code", (Code.of(LONG, LONG, LONG),)),
        ("author", (Author(author_person=Person(LONG), author_institution=(Organization(LONG),)),)),
        ("author", (Author(author_role=(LONG,), author_telecommunication=(Telecommunication(LONG),)),)),
        ("reference_id_list", (ReferenceId(LONG), ReferenceId("^^^^^"), ReferenceId('"]\\'))),
        ("source_patient_id", Identifier(LONG)),
        ("source_patient_info", (PidField(LONG),)),
        ("repository_unique_id", Oid(LONG)),
        ("creation_time", Timestamp(LONG)),
        ("creation_time", Timestamp("")),
        ("service_start_time", Timestamp("2024-01-01T00:00:00+01:00")),
        ("hash", Sha1(LONG)),
        ("size", Size(LONG)),
        ("size", Size("-٣")),
        ("home_community_id", OidUrn(LONG)),
        ("document_availability", LONG),
        ("extra", Extra(slots=(Slot(name=LONG, values=(LONG, LONG)),) * 2)),
    ],
)
def test_a_value_of_any_length_and_form_is_stored_and_given_back(
    registry: Registry, field: str, value: Any, level: Any
) -> None:
    registry.strictness = softened(level)
    made = valid(registry.p1, **{field: value})
    assert registry.register(made).succeeded
    if value != "":
        assert getattr(registry.entry(made), field) == value
    query = GetDocuments(unique_id=(str(made.document_entries[0].unique_id),))
    assert query.unique_id


def test_a_submission_set_of_any_form_is_stored(registry: Registry) -> None:
    registry.strictness = softened("off")
    made = with_set(
        registry.p1,
        source_id=Oid(LONG),
        submission_time=Timestamp(LONG),
        content_type_code=Code.of(LONG, LONG, LONG),
        intended_recipient=(Recipient(LONG),),
        title=Text.of(LONG),
    )
    assert registry.register(made).succeeded
    (found,) = registry.of(SubmissionSet)
    assert found.source_id == LONG


@pytest.mark.parametrize("make", [valid, with_set, folder_submission])
@pytest.mark.parametrize("field", ["unique_id", "patient_id"])
def test_what_is_too_long_for_a_key_is_refused_whatever_is_softened(
    registry: Registry, make: Callable[..., Submission], field: str
) -> None:
    """A key of the database has its limit; an answer that says so is better than an incident."""
    registry.strictness = softened("off")
    made = make(registry.p1, **{field: UniqueId(LONG)})
    problems = registry.refused(made)
    assert [True for _, context in problems if "bytes; 2048 can be kept" in context]
    fits = UniqueId(LONG[:680])
    if field == "unique_id":
        assert registry.register(make(registry.p1, unique_id=fits)).succeeded


def test_a_patient_id_of_any_form_that_fits_a_key_is_kept(registry: Registry) -> None:
    registry.strictness = softened("off")
    long = Identifier(f"{new_oid()} {LONG[:600]}")
    assert registry.register(valid(long)).succeeded
    assert {one.patient_id for one in registry.everything(long) if isinstance(one, DocumentEntry)} == {long}


@pytest.mark.parametrize("first", tunable.RULES)
def test_everything_softened_takes_everything_that_breaks_one_rule(registry: Registry, first: str) -> None:
    made, on_demand = broken(registry, first)
    registry.strictness = softened("warning")
    assert registry.register(made, on_demand=on_demand).succeeded
