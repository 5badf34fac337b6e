"""Key image notes (IHE KIN, RAD-31): listed in the manifest of their study, and published as manifests of their own if it is configured."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import generate_uid

from imaging import kos
from imaging.phantom import ct_series
from server.compose import Domain
from server.config import Config
from server.embedded import serving
from tests.publication import APPROVED, DEPRECATED, Case, source_config, uids
from xds.metadata import DocumentEntry

LOCATION = "1.3.6.1.4.1.21367.13.2"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return source_config(tmp_path_factory.mktemp("key-images"), publish_key_images=True)


@pytest.fixture(scope="module")
def domain(config: Config) -> Iterator[Domain]:
    with serving(config) as served:
        yield served


@pytest.fixture
def case(config: Config, domain: Domain) -> Case:
    return Case(config, domain)


def note_of(
    images: list[Dataset], title: DicomCode = codes.DCM.OfInterest, description: str | None = "Nodule, upper left"
) -> Dataset:
    """As highdicom makes it; no location is in it."""
    made = highdicom.ko.KeyObjectSelectionDocument(
        evidence=images,
        content=highdicom.ko.KeyObjectSelection(
            document_title=title,
            referenced_objects=images,
            observer_person_context=highdicom.sr.ObserverContext(
                observer_type=codes.DCM.Person,
                observer_identifying_attributes=highdicom.sr.PersonObserverIdentifyingAttributes(name="Reader^Rita"),
            ),
            description=description,
        ),
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="A workstation",
    )
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(file.getvalue()))


def entry_named(case: Case, title: str, status: str = APPROVED) -> DocumentEntry:
    (found,) = (one for one in case.entries(status) if str(one.title) == title)
    return found


def titles(case: Case, status: str = APPROVED) -> list[str]:
    return sorted(str(one.title) for one in case.entries(status))


def listed_in(content: bytes) -> set[str]:
    studies = kos.read(content).studies
    return {one.sop_instance_uid for study in studies for series in study.series for one in series.instances}


def words(content: bytes) -> list[tuple[str, str]]:
    """Value type, and text or meaning, of the content items that are no references."""
    items = pydicom.dcmread(io.BytesIO(content)).ContentSequence
    shown = []
    for item in items:
        if item.ValueType == "TEXT":
            shown.append(("TEXT", item.TextValue))
        elif item.ValueType == "PNAME":
            shown.append(("PNAME", str(item.PersonName)))
        elif item.ValueType == "CODE":
            shown.append(("CODE", item.ConceptCodeSequence[0].CodeMeaning))
    return shown


def test_a_note_is_published_with_its_own_title_and_words_and_with_where_to_retrieve(
    case: Case, tmp_path: Path
) -> None:
    images = case.arrive(4)
    note = note_of(images[:2])
    case.store(note)
    case.look()
    assert titles(case) == ["CT Phantom", "Of Interest"]
    whole, key = entry_named(case, "CT Phantom"), entry_named(case, "Of Interest")
    assert listed_in(case.document(whole)) == uids([*images, note])
    content = case.document(key)
    manifest = kos.read(content)
    assert (manifest.title, manifest.sop_instance_uid, manifest.study_instance_uid) == (
        "113000",
        key.unique_id,
        case.study,
    )
    assert listed_in(content) == uids(images[:2])
    assert {series.retrieve_location_uid for study in manifest.studies for series in study.series} == {LOCATION}
    assert manifest.sop_instance_uid != note.SOPInstanceUID
    assert manifest.series_instance_uid != note.SeriesInstanceUID
    assert words(content) == [
        ("CODE", "Person"),
        ("PNAME", "Reader^Rita"),
        ("TEXT", "Nodule, upper left"),
    ]
    assert {one.rule for one in kos.check(content) if one.level == "error"} == {4}
    assert (key.type_code, key.format_code, key.patient_id) == (whole.type_code, whole.format_code, whole.patient_id)
    assert set(key.reference_id_list) == set(whole.reference_id_list)
    assert str(key.comments) == "Nodule, upper left"
    path = tmp_path / "key-images.dcm"
    path.write_bytes(content)
    report = subprocess.run(
        [Path(sys.executable).parent / "dciodvfy", path], capture_output=True, text=True, check=False
    )
    assert "KeyObjectSelectionDocument" in report.stderr
    assert "Error" not in report.stderr


def test_a_study_and_its_notes_are_one_submission_and_published_once(case: Case) -> None:
    images = case.arrive()
    case.store(note_of(images[:1]))
    case.store(note_of(images[1:], codes.DCM.ForTeaching))
    case.look()
    before = case.entries()
    assert titles(case) == ["CT Phantom", "For Teaching", "Of Interest"]
    assert len({one.creation_time for one in before}) == 1
    made = case.publisher.publish(case.study)
    assert sorted(one.key.partition(":")[0] for one in made) == ["key-images", "key-images", "manifest"]
    assert case.entries() == before
    assert case.overview().documents == 3


def test_a_note_that_comes_later_is_added_and_one_that_did_not_change_stays(case: Case) -> None:
    images = case.arrive()
    case.store(note_of(images[:1]))
    case.look()
    first = entry_named(case, "Of Interest")
    case.store(note_of(images[1:], codes.DCM.ForTeaching))
    case.look()
    assert titles(case) == ["CT Phantom", "For Teaching", "Of Interest"]
    assert entry_named(case, "Of Interest").entry_uuid == first.entry_uuid
    assert titles(case, DEPRECATED) == ["CT Phantom"]


def test_what_is_rejected_is_in_no_manifest_of_key_images_and_one_of_nothing_is_withdrawn(case: Case) -> None:
    images = case.arrive(3)
    case.store(note_of(images[:2]))
    case.look()
    case.reject(images[:1], "113001")
    case.look()
    assert listed_in(case.document(entry_named(case, "Of Interest"))) == uids(images[1:2])
    case.reject(images[1:2], "113001")
    case.look()
    assert titles(case) == ["CT Phantom"]
    assert titles(case, DEPRECATED) == ["CT Phantom", "CT Phantom", "Of Interest", "Of Interest"]
    assert case.overview().state == "published"


def test_a_note_that_is_rejected_itself_is_withdrawn(case: Case) -> None:
    images = case.arrive()
    note = note_of(images[:2])
    case.store(note)
    case.look()
    case.reject([note], "113001")
    case.look()
    assert titles(case) == ["CT Phantom"]
    assert listed_in(case.document(entry_named(case, "CT Phantom"))) == uids(images)


def test_without_a_registry_the_manifest_is_replaced_and_what_could_not_be_withdrawn_is_told(case: Case) -> None:
    images = case.arrive()
    note = note_of(images[:2])
    case.store(note)
    case.look()
    case.reject([note], "113001")
    case.look(replace(case.publisher, update=None))
    assert listed_in(case.document(entry_named(case, "CT Phantom"))) == uids(images)
    key = entry_named(case, "Of Interest")
    assert (case.overview().state, case.overview().documents) == ("failed", 2)
    assert (
        f"entry {key.entry_uuid} of study {case.study} is to be deprecated: no registry is known"
        in case.overview().reason
    )
    case.later_s += 61.0
    case.look()
    assert (case.overview().state, titles(case)) == ("published", ["CT Phantom"])


def test_of_a_note_over_several_studies_the_part_of_each_study_is_published_with_it(case: Case) -> None:
    """IdenticalDocumentsSequence (0040,A525) is not written: the others of the set may never be published."""
    images = case.arrive(2)
    other = list(
        ct_series(slices=2, rows=16, columns=16, patient_id=case.local, patient_name="Muster^Eva", series_number=7)
    )
    for image in other:
        case.store(image)
    note = note_of([*images[:1], *other])
    note.StudyInstanceUID = case.study
    case.store(note)
    case.look()
    content = case.document(entry_named(case, "Of Interest"))
    assert listed_in(content) == uids(images[:1])
    assert "IdenticalDocumentsSequence" not in pydicom.dcmread(io.BytesIO(content))


def test_frames_and_the_presentation_state_stay_with_the_image_they_are_of(case: Case, tmp_path: Path) -> None:
    images = case.arrive(2)
    note = note_of(images[:1])
    state = Dataset()
    state.ReferencedSOPClassUID, state.ReferencedSOPInstanceUID = images[1].SOPClassUID, images[1].SOPInstanceUID
    for item in note.ContentSequence:
        if "ReferencedSOPSequence" in item:
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = [1, 3]
            item.ReferencedSOPSequence[0].ReferencedSOPSequence = [state]
    case.store(note)
    case.look()
    content = case.document(entry_named(case, "Of Interest"))
    assert listed_in(content) == uids(images)
    (image,) = (item for item in pydicom.dcmread(io.BytesIO(content)).ContentSequence if item.ValueType == "IMAGE")
    (sop,) = image.ReferencedSOPSequence
    assert list(sop.ReferencedFrameNumber) == [1, 3]
    assert sop.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == images[1].SOPInstanceUID


def test_a_language_that_the_note_names_is_that_of_its_entry(case: Case) -> None:
    images = case.arrive()
    note = note_of(images, description="Größe: 5 mm")
    language = Dataset()
    language.RelationshipType, language.ValueType = "HAS CONCEPT MOD", "CODE"
    name, value = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = (
        "121049",
        "DCM",
        "Language of Content Item and Descendants",
    )
    value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning = "de", "RFC5646", "German"
    language.ConceptNameCodeSequence, language.ConceptCodeSequence = [name], [value]
    note.ContentSequence.insert(0, language)
    note.decode()
    note.SpecificCharacterSet = "ISO_IR 100"
    case.store(note)
    case.look()
    entry = entry_named(case, "Of Interest")
    assert entry.language_code == "de"
    assert ("TEXT", "Größe: 5 mm") in words(case.document(entry))


def test_notes_are_listed_and_not_published_where_nobody_asked_for_it(case: Case) -> None:
    images = case.arrive()
    note = note_of(images[:1])
    case.store(note)
    case.look(replace(case.publisher, source=replace(case.publisher.source, key_images=False)))
    assert case.listed() == uids([*images, note])


def test_a_note_that_selects_nothing_that_is_stored_is_not_published(case: Case) -> None:
    case.arrive()
    missing = list(
        ct_series(
            slices=1,
            rows=16,
            columns=16,
            patient_id=case.local,
            patient_name="Muster^Eva",
            study_instance_uid=case.study,
        )
    )
    case.store(note_of(missing))
    case.look()
    assert titles(case) == ["CT Phantom"]


def test_a_description_that_xml_can_not_hold_and_a_note_of_endless_depth_are_published(case: Case) -> None:
    """UT may hold form feeds (PS3.5 6.2); the depth of sequences has no bound."""
    images = case.arrive()
    note = note_of(images, description="first page\x0csecond page " + "x" * 2000)
    nested = note.ContentSequence[-1]
    deepest = note.ContentSequence[0]
    for _ in range(60):
        deepest.ContentSequence = [Dataset()]
        deepest = deepest.ContentSequence[0]
    assert nested.ValueType == "IMAGE"
    case.store(note)
    case.look()
    entry = entry_named(case, "Of Interest")
    assert str(entry.comments).startswith("first page second page xx")
    assert len(str(entry.comments)) <= 1024
    assert ("TEXT", "first page\x0csecond page " + "x" * 2000) in words(case.document(entry))
