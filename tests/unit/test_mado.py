"""What manifests of IHE MADO say of places and procedures."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from imaging.publication.code_tables import BODY_PARTS
from imaging.publication.mado import _REGIONS, described_entry, modality, regions
from xds.metadata import DocumentEntry


def header(**values: str) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    return header(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


@pytest.mark.parametrize(
    ("body_part", "expected"),
    [
        ("CHEST", ["67734004"]),
        ("BRAIN", ["774007"]),
        ("chest_abdomen", ["67734004", "63337009"]),
        ("LSPINE", ["1141981001"]),
        ("KNEE", ["61685007"]),
        ("HEART", ["80891009"]),
        ("WHOLEBODY", ["38266002"]),
        ("SOMETHING", []),
        ("", []),
    ],
)
def test_a_body_part_is_in_a_region_or_in_several(body_part: str, expected: list[str]) -> None:
    assert [one.value for one in regions([header(BodyPartExamined=body_part)])] == expected


def test_a_place_outside_the_regions_is_said_as_it_is() -> None:
    image = header(BodyPartExamined="CHEST")
    image.AnatomicRegionSequence = [coded("706342009", "SCT", "Phantom")]
    (one,) = regions([image])
    assert (one.value, one.scheme, one.meaning) == ("706342009", "SCT", "Phantom")


def test_every_body_part_of_the_regions_is_one_of_dicoms() -> None:
    named = {one for body_parts in _REGIONS.values() for one in body_parts.split()}
    assert named - BODY_PARTS.keys() == set()


def test_a_modality_has_its_meaning() -> None:
    assert (modality("MR").meaning, modality("SR").meaning, modality("X1").meaning) == (
        "Magnetic Resonance",
        "Structured Report",
        "X1",
    )


def test_procedures_and_regions_are_event_codes() -> None:
    image = header(BodyPartExamined="CHEST", Modality="CT")
    image.ProcedureCodeSequence = [coded("24627-2", "LN", "CT Chest")]
    entry = described_entry(DocumentEntry(entry_uuid="urn:uuid:1"), [image, image])
    assert [one.key for one in entry.event_code_list] == [
        "24627-2^^2.16.840.1.113883.6.1",
        "67734004^^2.16.840.1.113883.6.96",
    ]
    assert entry.type_code is not None
    assert entry.type_code.key == "18748-4^^2.16.840.1.113883.6.1"
