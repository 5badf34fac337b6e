"""ITI-42: which attributes an object has, how often, and what its codes and identifiers consist of.

ITI TF-3 4.2.3 and 4.3.1. What breaks a rule is not stored. More that breaks those which can be softened is in tests/breaches.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from benchmarks.registries import METADATA, Registry, folder_submission, link, own_id, valid, with_links, with_set
from registry.codes import ATTRIBUTES, Codes
from registry.rules_attributes import REQUIRED
from schemas.attributes import TABLES, Coded, Identified, Kind, camel_case
from tests.submissions import MAKERS, NAMES, among, code_of, coded, identified, only, read, xml
from xds.metadata import Association, Author, Classification, ExternalIdentifier, Extra, Folder, Slot, Submission
from xds.values import Code, Organization, Person, Text, Timestamp
from xds.vocabulary import AssociationType

# --- what is there ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", REQUIRED[Folder])
def test_a_missing_attribute_of_a_folder_is_named(registry: Registry, field: str) -> None:
    """ITI TF-3 Table 4.3.1.3-1."""
    missing: Any = {"code_list": (), "title": Text()}.get(field)
    among(
        registry.refused(folder_submission(registry.p1, **{field: missing})),
        METADATA,
        f"Folder Folder0: {camel_case(field)} is missing",
    )


@pytest.mark.parametrize("field", REQUIRED[Association])
def test_a_missing_attribute_of_an_association_is_named(registry: Registry, field: str) -> None:
    made = with_links(
        valid(registry.p1), replace(link(AssociationType.RPLC, "Document0", "Document0"), **cast(Any, {field: ""}))
    )
    among(registry.refused(made), METADATA, f"Association link-RPLC: {camel_case(field)} is missing; it is required")


def test_an_object_without_an_id_is_refused(registry: Registry) -> None:
    among(registry.refused(own_id(valid(registry.p1), "")), METADATA, "DocumentEntry without id", "id is missing")


@pytest.mark.parametrize(
    "slot", ["creationTime", "hash", "size", "languageCode", "legalAuthenticator", "repositoryUniqueId", "serviceStartTime",
             "serviceStopTime", "sourcePatientId", "URI", "documentAvailability"]
)  # fmt: skip
def test_two_values_of_a_single_one_are_refused(registry: Registry, slot: str) -> None:
    made = valid(registry.p1, extra=Extra(slots=(Slot(name=slot, values=("1", "2")),)))
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: {slot} has the 2 values '1', '2'; one is allowed")
    made = valid(registry.p1, extra=Extra(slots=(Slot(name=slot, values=("1",)),)))
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: {slot} is there more than once")


@pytest.mark.parametrize(
    ("author", "words"),
    [
        (
            Author(author_role=("Doctor",)),
            "an author has no authorPerson, authorInstitution or authorTelecommunication",
        ),
        (
            Author(
                author_institution=(Organization("North"),),
                extra=(Slot(name="authorPerson", values=("^A", "^B")),),
            ),
            "an author has 2 authorPersons",
        ),
        (
            Author(author_person=Person("^A"), extra=(Slot(name="authorMood", values=("x",)),)),
            "the slot 'authorMood' is no attribute of an author",
        ),
    ],
)
def test_an_author_is_one_person_or_institution(registry: Registry, author: Author, words: str) -> None:
    """ITI TF-3 4.2.3.1.4."""
    only(registry.refused(valid(registry.p1, author=(author,))), METADATA, f"DocumentEntry Document0: {words}")
    only(registry.refused(with_set(registry.p1, author=(author,))), METADATA, f"SubmissionSet SubmissionSet: {words}")


@pytest.mark.parametrize("start, stop", [("2025", "2024"), ("20240102", "202401011200"), ("202402", "20240131")])
def test_service_times_are_in_order(registry: Registry, start: str, stop: str) -> None:
    """ITI TF-3 4.2.3.2.20, in the precision that both have."""
    times = {"service_start_time": Timestamp(start), "service_stop_time": Timestamp(stop)}
    only(registry.refused(valid(registry.p1, **times)), METADATA, repr(start), "is after serviceStopTime", repr(stop))
    equal = {"service_start_time": Timestamp("20240131"), "service_stop_time": Timestamp("202401")}
    assert registry.register(valid(registry.p1, **equal)).succeeded


def test_extra_metadata_of_unknown_schemes_and_reserved_names_is_kept(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.6: it never causes an error; conformance test 12379."""
    strange = "urn:uuid:00000000-0000-4000-8000-000000000000"
    extra = Extra(
        slots=(Slot(name="urn:ihe:iti:xds:2099:later", values=("a", "b")), Slot(name="urn:x", values=("ü & <",))),
        classifications=(Classification(scheme=strange, node_representation="A", name=Text.of("Extra")),),
        identifiers=(ExternalIdentifier(scheme=strange, value="17", name=Text.of("Number")),),
    )
    made = valid(registry.p1, extra=extra)
    assert registry.register(read(xml(made))).problems == ()
    assert registry.entry(made).extra == extra


# --- codes: ITI TF-3 4.2.3.1.2 ----------------------------------------------------------------------------------------

CODED = [(kind, field) for kind in MAKERS for field, row in TABLES[kind].items() if isinstance(row, Coded)]
#: The documentation of an Association may be missing: test_iti42_references.py.
ONCE = [(kind, field) for kind, field in CODED if kind != "Association" and not coded(kind, field).many]


@pytest.mark.parametrize(("kind", "field"), ONCE)
def test_a_second_code_of_a_single_one_is_refused(registry: Registry, kind: Kind, field: str) -> None:
    """Conformance test 11998a."""
    made = MAKERS[kind](registry, extra=Extra(classifications=(code_of(coded(kind, field).scheme),)))
    words = f"{NAMES[kind]}: {camel_case(field)} 'A' is one more than the one that is allowed"
    only(registry.refused(made), METADATA, words)


@pytest.mark.parametrize(("kind", "field"), CODED)
def test_a_malformed_code_is_refused(registry: Registry, kind: Kind, field: str) -> None:
    """A code, exactly one codingScheme, a display name, within the object that it is about."""
    row, name = coded(kind, field), f"{NAMES[kind]}: {camel_case(field)}"
    another = "Document0" if kind == "SubmissionSet" else "SubmissionSet"
    for bad, words in (
        (code_of(row.scheme, code=""), "has no code"),
        (code_of(row.scheme, schemes=()), "'A' has not exactly one codingScheme"),
        (code_of(row.scheme, schemes=("",)), "'A' has not exactly one codingScheme"),
        (code_of(row.scheme, schemes=("1", "2")), "'A' has not exactly one codingScheme"),
        (code_of(row.scheme, classified_object=another), f"classifies {another!r} instead of the object"),
        (code_of(row.scheme, classified_object="other"), "classifies 'other' instead of the object"),
    ):
        made = MAKERS[kind](registry, extra=Extra(classifications=(bad,)))
        only(registry.refused(made), METADATA, name, words)
    for value, told, words in (
        (Code("A", "1.2"), "'A'", "has no display name"),
        (Code.of("x" * 257, "1.2", "Long"), "code 'xxx", "has 257 characters; 256 are allowed"),
    ):
        made = MAKERS[kind](registry, **{field: (value,) if row.many else value})
        only(registry.refused(made), METADATA, f"{name} {told}", words)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_code_may_be_outside_the_affinity_domains_set(registry: Registry, attribute: str) -> None:
    """Checked for what has a set and nothing else, in every class; display names are not compared."""
    kind, field = next(one for one in CODED if coded(*one).scheme == ATTRIBUTES[attribute])
    many = coded(kind, field).many

    def made(code: Code) -> Submission:
        return MAKERS[kind](registry, **{field: (code,) if many else code})

    outside, inside = made(Code.of("OUT", "1.2.9", "Inside")), made(Code.of("IN", "1.2.9", "Another name"))
    registry.codes = Codes.of([(attribute, "1.2.9", "IN", "Inside")])
    words = f"{NAMES[kind]}: {attribute} 'OUT' of codingScheme '1.2.9' is not known"
    only(registry.refused(outside), METADATA, words)
    assert registry.register(inside).problems == ()


# --- identifiers ------------------------------------------------------------------------------------------------------

IDENTIFIED = [(kind, field) for kind in MAKERS for field, row in TABLES[kind].items() if isinstance(row, Identified)]


@pytest.mark.parametrize(("kind", "field"), IDENTIFIED)
def test_a_second_identifier_is_refused(registry: Registry, kind: Kind, field: str) -> None:
    scheme = identified(kind, field).scheme
    for bad, words in (
        (ExternalIdentifier(scheme=scheme, value="x"), "'x' is one more than the one that is allowed"),
        (ExternalIdentifier(scheme=scheme, value=""), "has no value"),
        (ExternalIdentifier(scheme=scheme, value="x", registry_object="o"), "identifies 'o' instead of the object"),
    ):
        made = MAKERS[kind](registry, extra=Extra(identifiers=(bad,)))
        only(registry.refused(made), METADATA, f"{NAMES[kind]}: {camel_case(field)}", words)
