"""What does not fit an attribute is kept for the rules to judge; what is sloppy but clear is read."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from schemas import lcm, rim
from xds.metadata import DocumentEntry, Folder, Submission, SubmissionSet, Unrecognized
from xds.problems import Failure
from xds.vocabulary import FOLDER_NODE, STABLE, SUBMISSION_SET_NODE

RIM = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
CLASS_CODE = "urn:uuid:41a5887f-8865-4c09-adf7-e362475b143a"
UNIQUE_ID = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"


def slot(name: str, *values: str) -> str:
    return f'<Slot name="{name}"><ValueList>{"".join(f"<Value>{v}</Value>" for v in values)}</ValueList></Slot>'


def coded(code: str, scheme: str | None = "1.2", classified: str = "d") -> str:
    of_scheme = "" if scheme is None else slot("codingScheme", scheme)
    return (
        f'<Classification id="c" classificationScheme="{CLASS_CODE}" classifiedObject="{classified}"'
        f' nodeRepresentation="{code}">{of_scheme}</Classification>'
    )


def entry(content: str, attributes: str = "") -> Any:
    xml = f'<ExtrinsicObject xmlns="{RIM}" id="d" objectType="{STABLE}" {attributes}>{content}</ExtrinsicObject>'
    found = rim.decode(etree.fromstring(xml))
    assert isinstance(found, DocumentEntry)
    return found


def submission(content: str) -> Submission:
    return lcm.decode_submission(
        etree.fromstring(f'<S xmlns:r="{RIM}"><r:RegistryObjectList xmlns="{RIM}">{content}</r:RegistryObjectList></S>')
    )


def test_a_single_valued_slot_with_two_values_is_kept_as_extra() -> None:
    found = entry(slot("creationTime", "2024", "2025"))
    assert found.creation_time is None
    assert [(one.name, one.values) for one in found.extra.slots] == [("creationTime", ("2024", "2025"))]


def test_a_second_slot_of_the_same_name_is_kept_as_extra() -> None:
    found = entry(slot("creationTime", "2024") + slot("creationTime", "2025"))
    assert found.creation_time == "2024"
    assert [one.values for one in found.extra.slots] == [("2025",)]


def test_an_empty_value_list_is_no_value() -> None:
    assert entry(slot("creationTime")) == entry("")


def test_a_slot_of_an_unknown_name_is_kept_as_extra() -> None:
    assert entry(slot("urn:x:mine", "a", "b")).extra.slots[0].values == ("a", "b")


def test_a_second_class_code_is_kept_as_extra() -> None:
    found = entry(coded("A") + coded("B"))
    assert found.class_code.key == "A^^1.2"
    assert found.extra.classifications[0].node_representation == "B"


@pytest.mark.parametrize("classification", [coded("A", None), coded("", "1.2"), coded("A", "")])
def test_a_code_without_code_or_scheme_is_kept_as_extra(classification: str) -> None:
    found = entry(classification)
    assert found.class_code is None
    assert found.extra.classifications[0].scheme == CLASS_CODE


def test_a_classification_of_another_object_is_kept_as_extra() -> None:
    found = entry(coded("A", classified="other"))
    assert found.class_code is None
    assert found.extra.classifications[0].classified_object == "other"


def test_a_second_unique_id_is_kept_as_extra() -> None:
    def identifier(value: str) -> str:
        return f'<ExternalIdentifier id="e" registryObject="d" identificationScheme="{UNIQUE_ID}" value="{value}"/>'

    found = entry(identifier("1.2") + identifier("1.3"))
    assert found.unique_id == "1.2"
    assert found.extra.identifiers[0].value == "1.3"


def test_the_order_of_children_does_not_matter() -> None:
    name = '<Name><LocalizedString value="Letter"/></Name>'
    assert entry(name + slot("creationTime", "2024")) == entry(slot("creationTime", "2024") + name)


def test_the_schema_default_of_mime_type_does_not_count() -> None:
    assert entry("").mime_type is None


def test_several_strings_of_a_name_are_kept_with_their_languages() -> None:
    found = entry(
        '<Name><LocalizedString xml:lang="de" value="Brief"/><LocalizedString value="Letter" charset="UTF-8"/></Name>'
    )
    assert str(found.title) == "Brief"
    assert [(string.value, string.lang, string.charset) for string in found.title] == [
        ("Brief", "de", None),
        ("Letter", None, "UTF-8"),
    ]


@pytest.mark.parametrize(("node", "kind"), [(SUBMISSION_SET_NODE, SubmissionSet), (FOLDER_NODE, Folder)])
def test_the_label_of_a_package_may_stand_inside_or_beside_it(node: str, kind: type) -> None:
    """ITI TF-3 4.2.1.1."""
    label = f'<Classification id="l" classifiedObject="p" classificationNode="{node}"/>'
    inside = submission(f'<RegistryPackage id="p">{label}</RegistryPackage>')
    beside = submission(f'<RegistryPackage id="p"/>{label}')
    assert inside == beside
    assert isinstance(inside.objects[0], kind)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (
            f'<RegistryPackage xmlns="{RIM}" id="p"/>',
            "RegistryPackage p is classified as neither a SubmissionSet nor a Folder",
        ),
        (
            f'<RegistryPackage xmlns="{RIM}" id="p"><Classification classificationNode="{SUBMISSION_SET_NODE}"/>'
            f'<Classification classificationNode="{FOLDER_NODE}"/></RegistryPackage>',
            "RegistryPackage p is classified as both a SubmissionSet and a Folder",
        ),
        (
            f'<ExtrinsicObject xmlns="{RIM}" id="p" objectType="urn:x"/>',
            "ExtrinsicObject p has objectType 'urn:x', which is neither Stable nor On-Demand",
        ),
        (f'<Person xmlns="{RIM}"/>', "Person without id is no object that a submission of IHE XDS may hold"),
    ],
)
def test_what_is_none_of_ihes_objects_says_why(xml: str, reason: str) -> None:
    found = rim.decode(etree.fromstring(xml))
    assert isinstance(found, Unrecognized)
    assert found.reason == reason
    # It is relayed whole.
    again = submission(
        lcm.submission_text(Submission(unrecognized=(found,))).partition("List>")[2].rpartition("</rim:")[0]
    )
    assert again.unrecognized[0].reason == reason


def test_a_submission_without_a_list_of_objects_is_refused() -> None:
    with pytest.raises(Failure, match="rim:RegistryObjectList is missing"):
        lcm.decode_submission(etree.fromstring("<SubmitObjectsRequest/>"))


def test_mutable_facts_are_not_in_the_rendered_text_and_are_printed_into_it() -> None:
    folder = Folder(
        entry_uuid="urn:uuid:0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817", availability_status="old", last_update_time=None
    )
    body = rim.render(folder)
    assert "old" not in body
    text = rim.complete("Folder", body, status="urn:new", patient_id="p^^^&1.2&ISO", last_update_time="20240101000000")
    found = next(rim.decode_fragments([text]))
    assert isinstance(found, Folder)
    assert (found.availability_status, found.patient_id, found.last_update_time) == (
        "urn:new",
        "p^^^&1.2&ISO",
        "20240101000000",
    )


def test_a_control_character_cannot_be_written() -> None:
    with pytest.raises(ValueError, match=r"U\+0001"):
        rim.escape("a\x01")


def test_an_object_may_be_named_by_its_type_instead_of_its_element() -> None:
    """XML Schema Part 1 2.6.1: peers without substitution groups write rim:Identifiable with xsi:type."""
    typed = (
        f'<r:Identifiable xmlns:r="{RIM}" xmlns:i="http://www.w3.org/2001/XMLSchema-instance" id="d" objectType="{STABLE}"'
        ' i:type="r:ExtrinsicObjectType"/>'
    )
    assert rim.decode(etree.fromstring(typed)) == entry("")
