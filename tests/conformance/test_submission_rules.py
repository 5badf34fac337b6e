"""ITI-42 from the XML on: what senders write differently and mean the same, what a message breaks that no object can, and the edges.

ITI TF-3 4.2.1 to 4.2.3, ebRIM 3.0. The rules of objects one by one are in test_iti42_rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from benchmarks.messages import new_oid, submission
from benchmarks.registries import (
    METADATA,
    UNRESOLVED,
    Registry,
    folder_submission,
    into_folder,
    link,
    new_uuid,
    opened,
    related,
    valid,
    with_links,
    with_set,
)
from registry.codes import ATTRIBUTES, Codes
from registry.iti18_stored_query import stored_query
from registry.patients import merge_patients
from registry.store import Store
from schemas import lcm
from schemas.attributes import TABLES, Coded, Identified, Kind, camel_case
from schemas.ns import RIM
from xds.metadata import (
    Association,
    Author,
    Classification,
    DocumentEntry,
    ExternalIdentifier,
    Extra,
    Folder,
    Slot,
    Submission,
    SubmissionSet,
    has_member,
)
from xds.problems import Failure
from xds.queries import FindDocuments
from xds.values import (
    Code,
    Identifier,
    Oid,
    OidUrn,
    Organization,
    Person,
    Recipient,
    Sha1,
    Telecommunication,
    Text,
    UniqueId,
)
from xds.vocabulary import FOLDER_NODE, LIMITED_METADATA_NODES, SUBMISSION_SET_NODE, AssociationType, Status

RPLC, APND = AssociationType.RPLC, AssociationType.APND


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    made = opened(module_database)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


def only(problems: list[tuple[str, str]], code: str, *words: str) -> None:
    """One problem, of the code, with all of the words."""
    ((found, context),) = problems
    assert found == code, context
    assert [word for word in words if word not in context] == [], context


def among(problems: list[tuple[str, str]], code: str, *words: str) -> None:
    """One of the problems has the code and all of the words."""
    assert [True for found, context in problems if found == code and all(word in context for word in words)], problems


# --- XML --------------------------------------------------------------------------------------------------------------


def xml(made: Submission) -> etree._Element:
    return etree.fromstring(lcm.encode_submission(made))


def read(element: etree._Element) -> Submission:
    """As a server reads it: from bytes."""
    return lcm.decode_submission(etree.fromstring(etree.tostring(element)))


def every(element: etree._Element, name: str) -> list[etree._Element]:
    return list(element.iter(f"{{{RIM}}}{name}"))


def the(element: etree._Element, kind: str, /, **attributes: str) -> etree._Element:
    (found,) = (one for one in every(element, kind) if all(one.get(key) == text for key, text in attributes.items()))
    return found


def removed(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def with_folder(registry: Registry) -> Submission:
    """A submission of every class of object: a document in a folder."""
    made, folder = valid(registry.p1), folder_submission(registry.p1)
    made = with_links(replace(made, folders=folder.folders), *folder.associations)
    return into_folder(made, "Folder0")


def ids_are_left_out(element: etree._Element) -> None:
    """Of Classifications and ExternalIdentifiers, which nobody refers to."""
    for name in ("Classification", "ExternalIdentifier"):
        for one in every(element, name):
            del one.attrib["id"]


def object_types_are_left_out(element: etree._Element) -> None:
    for name in ("Classification", "ExternalIdentifier", "RegistryPackage", "Association"):
        for one in every(element, name):
            one.attrib.pop("objectType", "")


def owners_are_left_out(element: etree._Element) -> None:
    for one in every(element, "Classification"):
        del one.attrib["classifiedObject"]
    for one in every(element, "ExternalIdentifier"):
        del one.attrib["registryObject"]


def children_are_in_reverse(element: etree._Element) -> None:
    for name in ("ExtrinsicObject", "RegistryPackage", "Classification"):
        for one in every(element, name):
            one[:] = list(reversed(one))


def objects_are_in_reverse(element: etree._Element) -> None:
    objects = the(element, "RegistryObjectList")
    objects[:] = list(reversed(objects))


def labels_stand_beside(element: etree._Element) -> None:
    """ITI TF-3 4.2.1.1: inside the RegistryPackage or beside it."""
    for node in (SUBMISSION_SET_NODE, FOLDER_NODE):
        the(element, "RegistryObjectList").append(the(element, "Classification", classificationNode=node))


def object_refs_are_announced(element: etree._Element) -> None:
    etree.SubElement(the(element, "RegistryObjectList"), f"{{{RIM}}}ObjectRef", id=new_uuid())


def statuses_are_given(element: etree._Element) -> None:
    """Whatever they say, the registry says Approved (ITI TF-3 4.2.3.2.2)."""
    for name in ("ExtrinsicObject", "RegistryPackage", "Association"):
        for one in every(element, name):
            one.set("status", str(Status.DEPRECATED))


def labels_of_identifiers_differ(element: etree._Element) -> None:
    for one in every(element, "ExternalIdentifier"):
        one[0][0].set("value", "Kennung")


def comments_and_space_are_between(element: etree._Element) -> None:
    for one in list(element.iter(etree.Element)):
        if len(one):
            one.insert(0, etree.Comment("a comment"))
            one.text = "\n  "


def original_is_said_of_folders(element: etree._Element) -> None:
    """SubmissionSetStatus is defined for documents only, and means nothing elsewhere."""
    slot = etree.SubElement(the(element, "Association", targetObject="Folder0"), f"{{{RIM}}}Slot")
    slot.set("name", "SubmissionSetStatus")
    values = etree.SubElement(slot, f"{{{RIM}}}ValueList")
    etree.SubElement(values, f"{{{RIM}}}Value").text = "Original"


@pytest.mark.parametrize(
    "change",
    [
        ids_are_left_out,
        object_types_are_left_out,
        owners_are_left_out,
        children_are_in_reverse,
        objects_are_in_reverse,
        labels_stand_beside,
        object_refs_are_announced,
        statuses_are_given,
        labels_of_identifiers_differ,
        comments_and_space_are_between,
        original_is_said_of_folders,
    ],
)
def test_what_senders_write_differently_is_the_same_submission(
    registry: Registry, change: Callable[[etree._Element], None]
) -> None:
    made = with_folder(registry)
    element = xml(made)
    before = etree.tostring(element)
    change(element)
    assert etree.tostring(element) != before
    assert registry.register(read(element)).problems == ()
    (entry,), (folder,) = registry.of(DocumentEntry), registry.of(Folder)
    (submission_set,) = registry.of(SubmissionSet)
    assert (entry.class_code, entry.author) == (made.document_entries[0].class_code, made.document_entries[0].author)
    assert entry.unique_id == made.document_entries[0].unique_id
    assert (folder.title, folder.code_list) == (made.folders[0].title, made.folders[0].code_list)
    assert submission_set.content_type_code == made.submission_sets[0].content_type_code
    assert len(registry.of(Association)) == 4
    assert {one.availability_status for one in registry.everything()} == {str(Status.APPROVED)}


def test_answers_have_the_labels_and_owners_that_the_standard_fixes(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.3, whatever was submitted."""
    element = xml(valid(registry.p1))
    labels_of_identifiers_differ(element)
    owners_are_left_out(element)
    ids_are_left_out(element)
    registry.register(read(element))
    (fragment,) = stored_query(FindDocuments(patient_id=registry.p1), store=registry.store).fragments
    answer = etree.fromstring(f'<r xmlns:rim="{RIM}">{fragment}</r>')[0]
    identifiers = every(answer, "ExternalIdentifier")
    assert {one[0][0].get("value") for one in identifiers} == {
        "XDSDocumentEntry.patientId",
        "XDSDocumentEntry.uniqueId",
    }
    assert {one.get("registryObject") for one in identifiers} == {answer.get("id")}
    assert {one.get("classifiedObject") for one in every(answer, "Classification")} == {answer.get("id")}
    ids = [one.get("id") for one in answer.iter(etree.Element) if one.tag.endswith(("Classification", "Identifier"))]
    assert None not in ids
    assert len(set(ids)) == len(ids)


def slot_values(element: etree._Element, name: str) -> etree._Element:
    return the(element, "Slot", name=name)[0]


def second_value(name: str) -> Callable[[etree._Element], None]:
    def change(element: etree._Element) -> None:
        etree.SubElement(slot_values(element, name), f"{{{RIM}}}Value").text = "second"

    return change


def no_value(name: str) -> Callable[[etree._Element], None]:
    return lambda element: slot_values(element, name).clear()


def empty_value(name: str) -> Callable[[etree._Element], None]:
    return lambda element: setattr(slot_values(element, name)[0], "text", None)


def without(kind: str, /, **attributes: str) -> Callable[[etree._Element], None]:
    return lambda element: removed(the(element, kind, **attributes))


def attribute(name: str, target: str, key: str, value: str | None) -> Callable[[etree._Element], None]:
    def change(element: etree._Element) -> None:
        one = the(element, name, id=target)
        if value is None:
            del one.attrib[key]
        else:
            one.set(key, value)

    return change


def stray(name: str) -> Callable[[etree._Element], None]:
    def change(element: etree._Element) -> None:
        etree.SubElement(the(element, "RegistryObjectList"), f"{{{RIM}}}{name}", id="stray")

    return change


def moved_code(element: etree._Element) -> None:
    """A code of the document in the folder: nested in one object, and about another."""
    scheme = TABLES["DocumentEntry"]["class_code"]
    assert isinstance(scheme, Coded)
    the(element, "RegistryPackage", id="Folder0").append(
        the(element, "Classification", classificationScheme=scheme.scheme)
    )


def both_labels(element: etree._Element) -> None:
    label = the(element, "Classification", classificationNode=FOLDER_NODE)
    etree.SubElement(
        the(element, "RegistryObjectList"),
        f"{{{RIM}}}Classification",
        id="second-label",
        classifiedObject="Folder0",
        classificationNode=SUBMISSION_SET_NODE,
    )
    assert label.get("classifiedObject") == "Folder0"


MALFORMED: list[tuple[str, Callable[[etree._Element], None], tuple[str, ...]]] = [
    ("creationTime-twice", second_value("creationTime"), ("DocumentEntry Document0: creationTime has the 2 values",)),
    ("submissionTime-twice", second_value("submissionTime"), ("submissionTime has the 2 values",)),
    ("status-twice", second_value("SubmissionSetStatus"), ("Association member0: SubmissionSetStatus has the 2",)),
    ("no-value", no_value("hash"), ("DocumentEntry Document0: hash is missing; it is required",)),
    ("empty-value", empty_value("languageCode"), ("DocumentEntry Document0: languageCode is missing",)),
    ("no-submissionTime", no_value("submissionTime"), ("SubmissionSet SubmissionSet: submissionTime is missing",)),
    ("empty-time", empty_value("serviceStartTime"), ("serviceStartTime '' is not a time of",)),
    ("no-set-status", no_value("SubmissionSetStatus"), ("0 HasMember associations with SubmissionSetStatus Original",)),
    ("no-mimeType", attribute("ExtrinsicObject", "Document0", "mimeType", None), ("mimeType is missing",)),
    ("no-id", attribute("Association", "sfd", "id", None), ("Association without id: the attribute id is missing",)),
    ("no-source", attribute("Association", "sf", "sourceObject", None), ("Association sf: sourceObject is missing",)),
    ("no-target", attribute("Association", "sf", "targetObject", None), ("Association sf: targetObject is missing",)),
    (
        "no-type",
        attribute("Association", "sf", "associationType", None),
        ("Association sf: associationType is missing",),
    ),
    (
        "no-objectType",
        attribute("ExtrinsicObject", "Document0", "objectType", None),
        ("ExtrinsicObject Document0 has objectType '', which is neither Stable nor On-Demand",),
    ),
    (
        "other-objectType",
        attribute("ExtrinsicObject", "Document0", "objectType", "urn:uuid:" + "0" * 36),
        ("ExtrinsicObject Document0 has objectType 'urn:uuid:0", "neither Stable nor On-Demand"),
    ),
    (
        "no-label",
        without("Classification", classificationNode=FOLDER_NODE),
        ("RegistryPackage Folder0 is classified as neither a SubmissionSet nor a Folder",),
    ),
    ("both-labels", both_labels, ("RegistryPackage Folder0 is classified as both a SubmissionSet and a Folder",)),
    ("service", stray("Service"), ("Service stray is no object that a submission of IHE XDS may hold",)),
    ("other-node", stray("ClassificationNode"), ("ClassificationNode stray is no object",)),
    ("moved-code", moved_code, ("DocumentEntry Document0: classCode is missing",)),
    (
        "slot-without-name",
        lambda element: the(element, "Slot", name="creationTime").set("name", ""),
        ("DocumentEntry Document0: the slot '' is no attribute of IHE",),
    ),
    (
        "logicalID",
        attribute("ExtrinsicObject", "Document0", "lid", "urn:uuid:0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817"),
        ("DocumentEntry Document0: logicalID", "ITI-42 registers new objects only"),
    ),
]


@pytest.mark.parametrize(("change", "words"), [one[1:] for one in MALFORMED], ids=[one[0] for one in MALFORMED])
def test_a_message_that_is_malformed_is_refused_with_the_object_named(
    registry: Registry, change: Callable[[etree._Element], None], words: tuple[str, ...]
) -> None:
    element = xml(with_folder(registry))
    change(element)
    among(registry.refused(read(element)), METADATA, *words)


def test_a_message_without_objects_is_refused(registry: Registry) -> None:
    element = xml(valid(registry.p1))
    the(element, "RegistryObjectList").clear()
    among(registry.refused(read(element)), METADATA, "the submission holds 0 SubmissionSets")
    removed(the(element, "RegistryObjectList"))
    with pytest.raises(Failure, match="RegistryObjectList is missing"):
        read(element)


@pytest.mark.parametrize("kind", ["DocumentEntry", "SubmissionSet", "Folder"])
def test_the_marker_of_limited_metadata_is_refused(registry: Registry, kind: str) -> None:
    """ITI TF-3 4.2.3.2.33."""
    element = xml(with_folder(registry))
    target = {"DocumentEntry": "Document0", "Folder": "Folder0"}.get(kind, kind)
    (owner,) = (one for one in the(element, "RegistryObjectList") if one.get("id") == target)
    etree.SubElement(
        owner,
        f"{{{RIM}}}Classification",
        id="marker",
        classifiedObject=target,
        classificationNode=LIMITED_METADATA_NODES[kind],
    )
    only(registry.refused(read(element)), METADATA, f"{kind} {target}: limitedMetadata is not accepted")


# --- attributes of the other classes ----------------------------------------------------------------------------------


def association_changed(registry: Registry, **changes: Any) -> Submission:
    """A documented replacement, its association changed."""
    target = registry.registered(valid(registry.p1)).entry_uuid
    return related(valid(registry.p1), RPLC, target, **changes)


MAKERS: dict[Kind, Callable[..., Submission]] = {
    "SubmissionSet": lambda registry, **changes: with_set(registry.p1, **changes),
    "Folder": lambda registry, **changes: folder_submission(registry.p1, **changes),
    "Association": association_changed,
}
NAMES: dict[Kind, str] = {
    "SubmissionSet": "SubmissionSet SubmissionSet",
    "Folder": "Folder Folder0",
    "Association": "Association link-RPLC",
}
CODED: list[tuple[Kind, str]] = [
    (kind, field) for kind in MAKERS for field, row in TABLES[kind].items() if isinstance(row, Coded)
]


def row_of(kind: Kind, field: str) -> Coded:
    row = TABLES[kind][field]
    assert isinstance(row, Coded)
    return row


@pytest.mark.parametrize(("kind", "field"), CODED)
def test_a_malformed_code_of_any_class_is_refused(registry: Registry, kind: Kind, field: str) -> None:
    """ITI TF-3 4.2.3.1.2: a code, exactly one codingScheme, a display name, within the object that it is about."""
    row, name = row_of(kind, field), f"{NAMES[kind]}: {camel_case(field)}"

    def bad(code: str = "A", schemes: tuple[str, ...] = ("1.2",), **more: Any) -> Submission:
        slot = Slot(name="codingScheme", values=schemes)
        given = Classification(scheme=row.scheme, node_representation=code, slots=(slot,), name=Text.of("Name"), **more)
        return MAKERS[kind](registry, extra=Extra(classifications=(given,)))

    only(registry.refused(bad(code="")), METADATA, name, "has no code")
    for schemes in ((), ("",), ("1", "2")):
        only(registry.refused(bad(schemes=schemes)), METADATA, name, "'A' has not exactly one codingScheme")
    only(registry.refused(bad(classified_object="other")), METADATA, name, "classifies 'other' instead of")
    nameless, long = Code("A", "1.2"), Code.of("x" * 257, "1.2", "Long")
    for value, words in ((nameless, "'A' has no display name"), (long, "has 257 characters; 256 are allowed")):
        made = MAKERS[kind](registry, **{field: (value,) if row.many else value})
        only(registry.refused(made), METADATA, name, words)


@pytest.mark.parametrize("attribute_name", ATTRIBUTES)
def test_a_code_of_any_attribute_may_be_outside_the_domain(registry: Registry, attribute_name: str) -> None:
    """ITI TF-3 4.2.3.1.2: checked for what has a set, in every class; display names are not compared."""
    (kind, field, row), *_ = (
        (kind, field, row)
        for kind, table in TABLES.items()
        for field, row in table.items()
        if isinstance(row, Coded) and row.scheme == ATTRIBUTES[attribute_name]
    )
    registry.codes = Codes.of([(attribute_name, "1.2.9", "IN", "Inside")])
    given = {"out": Code.of("OUT", "1.2.9", "Inside"), "in": Code.of("IN", "1.2.9", "Another name")}
    makers: dict[Kind, Callable[..., Submission]] = {
        **MAKERS,
        "DocumentEntry": lambda registry, **changes: valid(registry.p1, **changes),
    }

    def made(which: str) -> Submission:
        codes, registry.codes = registry.codes, None
        try:
            return makers[kind](registry, **{field: (given[which],) if row.many else given[which]})
        finally:
            registry.codes = codes

    only(registry.refused(made("out")), METADATA, f": {attribute_name} 'OUT' of codingScheme '1.2.9' is not known")
    assert registry.register(made("in")).problems == ()


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("SubmissionSet", {"author": (Author(author_person=Person("^^Ann")),)}, "authorPerson '^^Ann'"),
        (
            "SubmissionSet",
            {"author": (Author(author_institution=(Organization("^^^^^^^^^1.2"),)),)},
            "authorInstitution",
        ),
        (
            "SubmissionSet",
            {"author": (Author(author_telecommunication=(Telecommunication("^NET^Internet"),)),)},
            "authorTelecommunication '^NET^Internet'",
        ),
        ("SubmissionSet", {"author": (Author(author_person=Person("^" + "x" * 256)),)}, "authorPerson"),
        ("SubmissionSet", {"intended_recipient": (Recipient("x" * 257),)}, "intendedRecipient"),
        ("SubmissionSet", {"patient_id": Identifier("x")}, "patientId 'x' is not of the form"),
        ("SubmissionSet", {"comments": Text.of("x" * 1025)}, "comments has 1025 characters; 1024"),
        ("SubmissionSet", {"source_id": Oid("1." + "2" * 63)}, "sourceId"),
        ("Folder", {"patient_id": Identifier("x")}, "patientId 'x' is not of the form"),
        ("Folder", {"home_community_id": OidUrn("1.2.3")}, "homeCommunityId '1.2.3' is not urn:oid:"),
        ("Folder", {"comments": Text.of("x" * 1025)}, "comments has 1025 characters; 1024"),
        ("Association", {"home_community_id": OidUrn("urn:oid:x")}, "homeCommunityId 'urn:oid:x' is not urn:oid:"),
        ("Association", {"title": Text.of("x" * 1025)}, "title has 1025 characters; 1024"),
        ("Association", {"extra": Extra(slots=(Slot(name="mine", values=("a",)),))}, "the slot 'mine' is no attribute"),
        ("Association", {"documentation": Code.of("a", "1.2", "x" * 1025)}, "documentation has a display name of 1025"),
        ("Folder", {"extra": Extra(slots=(Slot(name="urn:" + "x" * 253, values=("a",)),))}, "has a name of 257"),
        ("Folder", {"extra": Extra(slots=(Slot(name="urn:x", values=("a" * 257,)),))}, "has a value of 257"),
    ],
)
def test_a_bad_value_of_any_class_is_refused_by_name(
    registry: Registry, kind: Kind, changes: dict[str, Any], words: str
) -> None:
    among(registry.refused(MAKERS[kind](registry, **changes)), METADATA, f"{NAMES[kind]}: ", words)


def test_extra_metadata_has_its_lengths_too(registry: Registry) -> None:
    """ebRIM 3.0 2.3: wherever it stands."""
    strange = "urn:uuid:00000000-0000-4000-8000-000000000000"
    for extra, words in (
        (Extra(classifications=(Classification(scheme=strange, node_representation="x" * 257),)), "the classification"),
        (Extra(identifiers=(ExternalIdentifier(scheme=strange, value="x" * 257),)), "the identifier"),
    ):
        made = valid(registry.p1, extra=extra)
        only(registry.refused(made), METADATA, "DocumentEntry Document0: ", words, "has 257 characters; 256 are")
    slot = Slot(name="urn:mine", values=("x" * 257,))
    made = valid(registry.p1, author=(Author(author_person=Person("^Muster"), extra=(slot,)),))
    only(registry.refused(made), METADATA, "the slot 'urn:mine' has a value of 257 characters; 256 are allowed")


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


@pytest.mark.parametrize("kind", ["SubmissionSet", "Folder"])
def test_a_second_identifier_of_any_class_is_refused(registry: Registry, kind: Kind) -> None:
    for field, row in TABLES[kind].items():
        if isinstance(row, Identified):
            for bad, words in (
                (ExternalIdentifier(scheme=row.scheme, value="x"), "'x' is one more than the one that is allowed"),
                (ExternalIdentifier(scheme=row.scheme, value=""), "has no value"),
                (ExternalIdentifier(scheme=row.scheme, value="x", registry_object="o"), "identifies 'o' instead of"),
            ):
                made = MAKERS[kind](registry, extra=Extra(identifiers=(bad,)))
                only(registry.refused(made), METADATA, f"{NAMES[kind]}: {camel_case(field)}", words)


# --- structure --------------------------------------------------------------------------------------------------------


def test_a_set_that_holds_only_a_registered_folder_submits_nothing(registry: Registry) -> None:
    """ITI TF-3 4.2.1.4: at least a document, a folder, or a membership in one."""
    there = registry.folder().entry_uuid
    made = with_links(submission(registry.p1, documents=0), has_member("SubmissionSet", there, entry_uuid="m"))
    only(registry.refused(made), METADATA, "holds no DocumentEntry, no Folder and no Association")


def test_a_set_that_holds_only_a_reference_submits_it(registry: Registry) -> None:
    """ITI TF-3 4.2.1.4: a document by reference."""
    there = registry.registered(valid(registry.p2)).entry_uuid
    reference = has_member("SubmissionSet", there, entry_uuid="m", submission_set_status="Reference")
    assert registry.register(with_links(submission(registry.p1, documents=0), reference)).succeeded
    gone = replace(reference, target_object=new_uuid())
    only(
        registry.refused(with_links(submission(registry.p1, documents=0), gone)),
        UNRESOLVED,
        f"Association m: targetObject {gone.target_object!r} is neither in the submission nor in the registry",
    )


def test_a_reference_leads_to_no_submission_set(registry: Registry) -> None:
    registry.register(valid(registry.p1))
    (there,) = (one.entry_uuid for one in registry.of(SubmissionSet))
    reference = has_member("SubmissionSet", there, entry_uuid="m", submission_set_status="Reference")
    among(registry.refused(with_links(valid(registry.p1), reference)), METADATA, repr(there), "which nothing may be")


@pytest.mark.parametrize("source", ["Folder0", "SubmissionSet", "fd"])
def test_only_a_document_is_the_source_of_a_relationship(registry: Registry, source: str) -> None:
    """ITI TF-3 4.2.2.2."""
    there = registry.registered(valid(registry.p1)).entry_uuid
    made = with_links(with_folder(registry), link(RPLC, source, there))
    among(registry.refused(made), UNRESOLVED, f"its source {source!r} is no DocumentEntry of the submission")


def test_an_association_has_no_members(registry: Registry) -> None:
    made = with_links(with_folder(registry), has_member("sf", "Document0", entry_uuid="m"))
    among(registry.refused(made), METADATA, "Association m: its source 'sf' is a Association, which has no members")


def test_two_sets_are_refused_even_where_each_is_complete(registry: Registry) -> None:
    made, other = valid(registry.p1), with_set(registry.p1, entry_uuid="Set2", unique_id=Oid(new_oid()))
    both = replace(made, submission_sets=(*made.submission_sets, *other.submission_sets))
    among(registry.refused(both), METADATA, "the submission holds 2 SubmissionSets; it must hold exactly one")


def test_a_value_of_any_length_is_told_in_short(registry: Registry) -> None:
    """What is on the wire is hostile: an answer does not repeat all of it."""
    huge = "x" * 100_000
    made = valid(registry.p1, unique_id=UniqueId(huge), uri=huge, extra=Extra(slots=(Slot(name=huge, values=(huge,)),)))
    problems = registry.refused(made)
    assert len(problems) > 3
    assert max(len(context) for _, context in problems) < 500


# --- identifiers are compared -----------------------------------------------------------------------------------------


def test_unique_ids_are_compared_with_their_case(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.7: character by character."""
    one = UniqueId(f"urn:example:a:{new_oid()}")
    other = UniqueId(one.replace(":a:", ":A:"))
    first = registry.registered(valid(registry.p1, unique_id=one))
    second = registry.registered(valid(registry.p1, unique_id=other, hash=Sha1("0" * 40)))
    assert (first.unique_id, second.unique_id) == (one, other)


def test_a_patient_id_in_another_case_is_another_patient(registry: Registry) -> None:
    other = Identifier(registry.p1.replace("bench", "BENCH"))
    only(registry.refused(valid(other)), "XDSUnknownPatientId", repr(str(other)), "is not known to this registry")


# --- after a merge ----------------------------------------------------------------------------------------------------


def test_what_was_of_a_merged_patient_is_replaced_and_filed_as_the_survivor_s(registry: Registry) -> None:
    """ITI TF-2 3.8.4.2; ITI TF-3 4.2.2.2: source and target are compared after the merge."""
    old = registry.registered(valid(registry.p2)).entry_uuid
    folder = registry.folder(registry.p2).entry_uuid
    filed = into_folder(related(valid(registry.p1), RPLC, old), folder)
    problems = registry.refused(filed)
    assert {code for code, _ in problems} == {"XDSPatientIdDoesNotMatch"}
    assert len(problems) == 2
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    new = registry.registered(filed)
    (found,) = (one for one in registry.of(DocumentEntry) if one.entry_uuid == old)
    assert (found.availability_status, found.patient_id) == (Status.DEPRECATED, registry.p1)
    members = {one.target_object for one in registry.of(Association) if one.source_object == folder}
    assert members == {new.entry_uuid}


def test_a_merged_patient_is_refused_whatever_is_submitted_of_it(registry: Registry) -> None:
    """Conformance test 11996: not only documents."""
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    words = f"patient {str(registry.p2)!r} has been merged into {str(registry.p1)!r}"
    for made in (folder_submission(registry.p2), valid(registry.p2)):
        only(registry.refused(made), "XDSUnknownPatientId", words)
    mixed = valid(registry.p1, patient_id=registry.p2)
    among(registry.refused(mixed), "XDSPatientIdDoesNotMatch", str(registry.p2), str(registry.p1))
