"""A registry of which every rule is softened: what it takes is stored and found on both databases, and what it still refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.messages import new_oid
from benchmarks.registries import METADATA, Registry, folder_submission, link, related, valid, with_links, with_set
from registry.iti18_stored_query import stored_query
from registry.rules import Strictness
from registry.rules_attributes import REQUIRED
from registry.tunable import RULES
from schemas import rim
from schemas.attributes import Kind, camel_case
from tests.breaches import LONG, soft
from tests.submissions import MAKERS, NAMES, among, identified, only
from xds.metadata import (
    Author,
    DocumentEntry,
    ExternalIdentifier,
    Extra,
    Folder,
    Slot,
    Submission,
    SubmissionSet,
    Unrecognized,
)
from xds.queries import GetDocuments
from xds.values import (
    Code,
    Identifier,
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

#: Incompressible, so that no index can hold it by making it smaller.
WIDE = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(20_000))
#: The classes of objects that have keys of their own.
KEPT: list[Kind] = ["DocumentEntry", "SubmissionSet", "Folder"]


def softened(level: Any) -> Strictness:
    return Strictness(dict.fromkeys(RULES, level))


# --- what is taken ----------------------------------------------------------------------------------------------------


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
        ("title", Text.of(WIDE)),
        ("comments", Text.of(WIDE)),
        ("uri", WIDE),
        ("mime_type", MimeType(WIDE)),
        ("class_code", Code.of(WIDE, WIDE, WIDE)),
        ("confidentiality_code", (Code.of(WIDE, WIDE, WIDE),)),
        ("author", (Author(author_person=Person(WIDE), author_institution=(Organization(WIDE),)),)),
        ("author", (Author(author_role=(WIDE,), author_telecommunication=(Telecommunication(WIDE),)),)),
        ("reference_id_list", (ReferenceId(WIDE), ReferenceId("^^^^^"), ReferenceId('"]\\'))),
        ("source_patient_id", Identifier(WIDE)),
        ("source_patient_info", (PidField(WIDE),)),
        ("repository_unique_id", Oid(WIDE)),
        ("creation_time", Timestamp(WIDE)),
        ("creation_time", Timestamp("")),
        ("service_start_time", Timestamp("2024-01-01T00:00:00+01:00")),
        ("hash", Sha1(WIDE)),
        ("size", Size(WIDE)),
        ("size", Size("-٣")),
        ("home_community_id", OidUrn(WIDE)),
        ("document_availability", WIDE),
        ("extra", Extra(slots=(Slot(name=WIDE, values=(WIDE, WIDE)),) * 2)),
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
    assert list(rim.decode_fragments(stored_query(query, store=registry.store).fragments)) == [registry.entry(made)]


def test_a_submission_set_of_any_form_is_stored(registry: Registry) -> None:
    registry.strictness = softened("off")
    made = with_set(
        registry.p1,
        source_id=Oid(WIDE),
        submission_time=Timestamp(WIDE),
        content_type_code=Code.of(WIDE, WIDE, WIDE),
        intended_recipient=(Recipient(WIDE),),
        title=Text.of(WIDE),
    )
    assert registry.register(made).succeeded
    (found,) = registry.of(SubmissionSet)
    assert found.source_id == WIDE


def test_everything_at_once_is_stored_where_everything_is_off(registry: Registry) -> None:
    """No attribute is there that need not be, and every text is far too long."""
    least = DocumentEntry(entry_uuid="Document0", patient_id=registry.p1, unique_id=UniqueId(new_oid()))
    made = valid(registry.p1)
    made = replace(
        made,
        submission_sets=(
            replace(made.submission_sets[0], content_type_code=None, source_id=None, submission_time=None, author=()),
        ),
        document_entries=(least, replace(least, entry_uuid="Document1", creation_time=Timestamp(LONG), uri=LONG)),
    )
    assert len(registry.refused(made)) > 30
    outcome = soft(registry, dict.fromkeys(RULES, "off"), made)
    assert (outcome.succeeded, outcome.problems) == (True, ())
    assert len(registry.of(DocumentEntry)) == 2
    warned = soft(registry, dict.fromkeys(RULES, "warning"), valid(registry.p1, class_code=None, size=Size("x")))
    assert (warned.succeeded, len(warned.problems)) == (True, 2)


def test_the_longest_identifiers_that_can_be_kept_are_kept(registry: Registry) -> None:
    registry.strictness = softened("off")
    registry.patients = "open"
    patient_id = Identifier(LONG[:2048])
    made = folder_submission(patient_id, unique_id=UniqueId(LONG[-2048:]))
    assert registry.register(made).succeeded
    assert len(registry.everything(patient_id)) == 3


def test_a_patient_id_of_any_form_that_fits_a_key_is_kept(registry: Registry) -> None:
    registry.strictness = softened("off")
    long = Identifier(f"{new_oid()} {WIDE[:600]}")
    assert registry.register(valid(long)).succeeded
    assert {one.patient_id for one in registry.everything(long) if isinstance(one, DocumentEntry)} == {long}


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        lambda r: replace(valid(r.p1), submission_sets=()),
        lambda r: valid(r.p1, unique_id=UniqueId("")),
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


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize(("field", "type_of"), [("patient_id", Identifier), ("unique_id", UniqueId)])
@pytest.mark.parametrize("patients", ["known", "open"])
def test_an_object_without_a_key_that_can_be_kept_is_refused_whatever_is_off(
    registry: Registry, kind: Kind, field: str, type_of: Callable[[str], object], patients: Any
) -> None:
    """A key is there, and short enough for the index of either database; an answer that says so is no incident."""
    registry.strictness, registry.patients = softened("off"), patients
    for value, words in (
        (None, "is missing; it is required"),
        (type_of(LONG), "has 20000 bytes; 2048 can be kept"),
        (type_of(WIDE), "has 60000 bytes; 2048 can be kept"),
    ):
        problems = registry.refused(MAKERS[kind](registry, **{field: value}))
        among(problems, METADATA, f"{NAMES[kind]}: {camel_case(field)}", words)
    if field == "unique_id":
        fits = UniqueId(WIDE[:680])
        assert registry.register(MAKERS[kind](registry, unique_id=fits)).succeeded


@pytest.mark.parametrize("field", ["patient_id", "unique_id"])
@pytest.mark.parametrize("kind", KEPT)
def test_a_second_key_is_refused_whatever_is_off(registry: Registry, kind: Kind, field: str) -> None:
    """Else an answer would say that the object is of another patient than the one it is found for."""
    registry.strictness = softened("off")
    second = ExternalIdentifier(scheme=identified(kind, field).scheme, value="other^^^&1.2&ISO")
    words = f"{camel_case(field)} 'other^^^&1.2&ISO' is one more than the one that is allowed"
    made = MAKERS[kind](registry, extra=Extra(identifiers=(second,)))
    only(registry.refused(made), METADATA, f"{NAMES[kind]}: {words}")


@pytest.mark.parametrize("field", ["patient_id", "unique_id"])
@pytest.mark.parametrize("level", ["error", "warning", "off"])
def test_an_identifier_of_another_object_identifies_nothing(registry: Registry, field: str, level: Any) -> None:
    """Whatever is softened, nothing is kept without patientId and uniqueId."""
    registry.strictness = Strictness({"attributes_have_their_shape": level})
    scheme = identified("Folder", field).scheme
    stray = ExternalIdentifier(scheme=scheme, value="x", registry_object="other")
    made = folder_submission(registry.p1, **{field: None}, extra=Extra(identifiers=(stray,)))
    among(registry.refused(made), METADATA, f"Folder Folder0: {camel_case(field)} is missing")
