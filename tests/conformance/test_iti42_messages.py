"""ITI-42 from the XML on: what senders write differently and mean the same, and what a message breaks that no object can.

ITI TF-3 4.2.1 to 4.2.3, ebRIM 3.0.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lxml import etree

from benchmarks.registries import METADATA, Registry, new_uuid, valid
from registry.iti18_stored_query import stored_query
from schemas import lcm
from schemas.attributes import TABLES, Coded
from schemas.ns import RIM
from tests.submissions import among, only, read, with_folder, xml
from xds.metadata import Association, DocumentEntry, Folder, SubmissionSet
from xds.problems import Failure
from xds.queries import FindDocuments
from xds.vocabulary import FOLDER_NODE, LIMITED_METADATA_NODES, SUBMISSION_SET_NODE, Status


def every(element: etree._Element, name: str) -> list[etree._Element]:
    return list(element.iter(f"{{{RIM}}}{name}"))


def the(element: etree._Element, kind: str, /, **attributes: str) -> etree._Element:
    (found,) = (one for one in every(element, kind) if all(one.get(key) == text for key, text in attributes.items()))
    return found


def removed(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


# --- the same in other words ------------------------------------------------------------------------------------------


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


# --- what is malformed ------------------------------------------------------------------------------------------------


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


def test_an_empty_slot_is_no_value(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.1: a slot without values stands for nothing; what is required is missing then."""
    text = lcm.encode_submission(valid(registry.p1)).replace(b"<rim:Value>en-US</rim:Value>", b"")
    assert b"languageCode" in text
    only(registry.refused(lcm.decode_submission(etree.fromstring(text))), METADATA, "languageCode is missing")


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
