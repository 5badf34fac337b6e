"""ITI-18, query by query, on a small world of named objects (ITI TF-2 3.18.4.1.2.3.7), and what holds for every answer (3.18.4.1.3)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree
from sqlalchemy import delete, update

from registry.iti18_stored_query import stored_query
from registry.patients import add_patient, merge_patients
from registry.schema import upgrade
from registry.store import Footprint, Store, open_engine
from registry.tables import BY_KIND, registry_object
from schemas import catalog, rim
from schemas.query import encode_result
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, SubmissionSet
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindDocumentsByReferenceId,
    FindDocumentsExclude,
    FindFolders,
    GetAll,
    GetAssociations,
    GetDocuments,
    GetDocumentsAndAssociations,
    GetFolderAndContents,
    GetFolders,
    GetFoldersForDocument,
    GetRelatedDocuments,
    GetSubmissionSetAndContents,
    GetSubmissionSets,
    ReturnType,
)
from xds.values import Code, Identifier, Oid, OidUrn, ReferenceId, Text, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

CODES = [Code.of(name, scheme, name) for name, scheme in (("A", "1.2"), ("A", "1.3"), ("B", "1.2"))]

P1, P2 = Identifier.of("world1", "1.2.3.4"), Identifier.of("world2", "1.2.3.4")
MEMBER = str(AssociationType.HAS_MEMBER)
BOTH = tuple(map(str, Status))


class Shelf:
    """Objects put into a registry as they are: by short names, which become UUIDs."""

    def __init__(self, database: str) -> None:
        engine = open_engine(database)
        upgrade(engine)
        self.store = Store(engine)
        self.names: dict[str, str] = {}

    def id(self, name: str) -> str:
        return self.names.setdefault(name, f"urn:uuid:{uuid.uuid4()}")

    def put(self, one: RegistryObject, patient: Identifier, status: Status = Status.APPROVED) -> None:
        self.store.write(Footprint(), lambda unit: unit.add([one], patient_id=str(patient), status=status))

    def entry(self, name: str, patient: Identifier = P1, status: Status = Status.APPROVED, **more: Any) -> None:
        one = self.id(name)
        given: dict[str, Any] = {
            "creation_time": Timestamp("20041224"),
            "unique_id": UniqueId(f"1.2.3.{len(self.names)}"),
            "format_code": CODES[0],
            "confidentiality_code": (CODES[0],),
            "logical_id": one,
            "version": "1",
        }
        self.put(DocumentEntry(entry_uuid=one, patient_id=patient, **(given | more)), patient, status)

    def folder(self, name: str, patient: Identifier = P1, **more: Any) -> None:
        one = self.id(name)
        given: dict[str, Any] = {
            "unique_id": UniqueId(f"1.2.4.{len(self.names)}"),
            "last_update_time": Timestamp("20240102030405"),
            "code_list": (CODES[0],),
            "logical_id": one,
            "version": "1",
        }
        self.put(Folder(entry_uuid=one, patient_id=patient, **(given | more)), patient)

    def set(self, name: str, patient: Identifier = P1) -> None:
        one = SubmissionSet(
            entry_uuid=self.id(name),
            logical_id=self.id(name),
            version="1",
            patient_id=patient,
            unique_id=Oid(f"1.2.5.{len(self.names)}"),
            source_id=Oid("1.2"),
            submission_time=Timestamp("2024"),
            content_type_code=CODES[0],
        )
        self.put(one, patient)

    def link(
        self,
        name: str,
        source: str,
        target: str,
        kind: str = MEMBER,
        patient: Identifier = P1,
        status: Status = Status.APPROVED,
    ) -> None:
        one = self.id(name)
        made = Association(
            entry_uuid=one,
            logical_id=one,
            version="1",
            association_type=kind,
            source_object=self.id(source),
            target_object=self.id(target),
        )
        self.put(made, patient, status)

    def supersede(self, name: str) -> None:
        with self.store.engine.begin() as connection:
            for table in BY_KIND.values():
                connection.execute(update(table).where(table.c.entry_uuid == self.id(name)).values(latest=0))

    def ask(self, query: Any, **options: Any) -> list[str]:
        """The names of what is found, sorted; asked for as ObjectRef and, where that is allowed, as LeafClass."""
        names = {one: name for name, one in self.names.items()}
        as_reference = replace(query, return_type=ReturnType.OBJECT_REF)
        references = [
            names[one.entry_uuid]
            for one in rim.decode_fragments(stored_query(as_reference, store=self.store, **options).fragments)
        ]
        try:
            whole = [
                names[one.entry_uuid]
                for one in rim.decode_fragments(stored_query(query, store=self.store, **options).fragments)
            ]
        except Failure as failure:
            assert [one.code for one in failure.problems] == ["XDSResultNotSinglePatient"]
        else:
            assert sorted(whole) == sorted(references)
        return sorted(references)


@pytest.fixture(scope="module")
def shelf(module_database: str) -> Iterator[Shelf]:
    """Two patients. set1 has doc1, doc2, folder1 and links; doc2 is appended to doc1; doc3 replaces doc1old and is in set2."""
    made = Shelf(module_database)
    made.set("set1")
    made.entry("doc1", unique_id=UniqueId("1.1"))
    made.entry("doc2", format_code=CODES[1], confidentiality_code=(CODES[0], CODES[1]))
    made.folder("folder1", unique_id=UniqueId("1.5"))
    made.link("set1-doc1", "set1", "doc1")
    made.link("set1-doc2", "set1", "doc2")
    made.link("set1-folder1", "set1", "folder1")
    made.link("folder1-doc1", "folder1", "doc1")
    made.link("set1-folder1-doc1", "set1", "folder1-doc1")
    made.link("append", "doc2", "doc1", str(AssociationType.APND))
    made.link("set1-append", "set1", "append")
    made.set("set2")
    made.entry("old", status=Status.DEPRECATED, unique_id=UniqueId("1.9"))
    made.entry("doc3", unique_id=UniqueId("1.3"))
    made.entry("demand", object_type=ON_DEMAND, creation_time=None)
    made.link("set2-doc3", "set2", "doc3")
    made.link("set2-demand", "set2", "demand")
    made.link("replace", "doc3", "old", str(AssociationType.RPLC))
    made.link("set2-replace", "set2", "replace")
    made.link("retired", "doc3", "doc2", str(AssociationType.XFRM), status=Status.DEPRECATED)
    # Another patient: a document with the uniqueId of doc1's, and a reference to doc3.
    made.set("other set", P2)
    made.entry("other doc", P2, unique_id=UniqueId("1.1"))
    made.folder("other folder", P2)
    made.link("other set-doc", "other set", "other doc", patient=P2)
    made.link("other reference", "other set", "doc3", patient=P2)
    yield made
    made.store.close()


def test_deprecated_objects_are_found_by_their_status(shelf: Shelf) -> None:
    """metadata.md 8.6; 3.18.4.1.2.3.7.1."""
    assert shelf.ask(FindDocuments(patient_id=P1)) == ["doc1", "doc2", "doc3"]
    assert shelf.ask(FindDocuments(patient_id=P1, status=(str(Status.DEPRECATED),))) == ["old"]
    assert shelf.ask(FindDocuments(patient_id=P1, status=BOTH)) == ["doc1", "doc2", "doc3", "old"]


def test_from_is_inclusive_and_to_is_exclusive(shelf: Shelf) -> None:
    """Conformance test 11897: creationTime=20041224 matches From=20041224 and does not match To=20041224."""
    day = Timestamp("20041224")
    assert shelf.ask(FindDocuments(patient_id=P1, creation_time_from=day)) == ["doc1", "doc2", "doc3"]
    assert shelf.ask(FindDocuments(patient_id=P1, creation_time_to=day)) == []
    assert shelf.ask(FindDocuments(patient_id=P1, creation_time_to=Timestamp("20041224000001"))) != []


def test_an_entry_without_service_times_matches_any(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.1."""
    query = FindDocuments(
        patient_id=P1, service_start_time_from=Timestamp("2030"), service_stop_time_to=Timestamp("1990")
    )
    assert shelf.ask(query) == ["doc1", "doc2", "doc3"]


def test_stable_documents_are_the_default_and_creation_time_is_not_asked_of_the_others(shelf: Shelf) -> None:
    """3.18.4.1.2.3.6.2: $XDSDocumentEntryType; an On-Demand entry has no creationTime."""
    query = FindDocuments(patient_id=P1, object_type=(ON_DEMAND, STABLE))
    assert shelf.ask(query) == ["demand", "doc1", "doc2", "doc3"]
    assert shelf.ask(replace(query, creation_time_from=Timestamp("2030"))) == ["demand"]
    assert shelf.ask(replace(query, object_type=(ON_DEMAND,))) == ["demand"]


def test_code_and_scheme_must_both_be_equal(shelf: Shelf) -> None:
    assert shelf.ask(FindDocuments(patient_id=P1, format_code=(("A^^1.2",),))) == ["doc1", "doc3"]
    assert shelf.ask(FindDocuments(patient_id=P1, format_code=(("A^^1.3", "B^^1.2"),))) == ["doc2"]
    assert shelf.ask(FindDocuments(patient_id=P1, format_code=(("a^^1.2",),))) == []


def test_a_repeated_parameter_must_match_each_time(shelf: Shelf) -> None:
    """3.18.4.1.2.3.5: AND between slots, OR within one."""
    both = (("A^^1.2",), ("A^^1.3",))
    assert shelf.ask(FindDocuments(patient_id=P1, confidentiality_code=both)) == ["doc2"]
    assert shelf.ask(FindDocuments(patient_id=P1, confidentiality_code=(both[0] + both[1],))) == [
        "doc1",
        "doc2",
        "doc3",
    ]


def test_find_folders_finds_by_time_and_code(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.3."""
    query = FindFolders(patient_id=P1)
    moment = Timestamp("20240102030405")
    assert shelf.ask(query) == ["folder1"]
    assert shelf.ask(replace(query, last_update_time_from=moment)) == ["folder1"]
    assert shelf.ask(replace(query, last_update_time_to=moment)) == []
    assert shelf.ask(replace(query, code_list=(("A^^1.2", "x^^y"),))) == ["folder1"]
    assert shelf.ask(replace(query, code_list=(("A^^1.2",), ("x^^y",)))) == []


def test_get_all_finds_associations_of_which_one_end_is_another_patients(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.4: the other end may be absent."""
    found = shelf.ask(GetAll(patient_id=P1))
    assert {"set1", "set2", "doc1", "doc2", "doc3", "folder1", "append", "replace", "other reference"} <= set(found)
    assert not {"old", "demand", "other set", "other doc", "retired"} & set(found)
    narrow = GetAll(patient_id=P1, format_code=(("A^^1.3",),))
    assert {"doc2", "set1-doc2", "append", "set2-replace"} <= set(shelf.ask(narrow))
    assert not {"doc1", "replace"} & set(shelf.ask(narrow))


def test_get_documents_gives_every_entry_of_a_unique_id(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.5; of two patients, as references only (3.18.4.1.3)."""
    assert shelf.ask(GetDocuments(unique_id=("1.1", "1.9"))) == ["doc1", "old", "other doc"]
    with pytest.raises(Failure, match="XDSResultNotSinglePatient: GetDocuments finds objects of 2 patients"):
        stored_query(GetDocuments(unique_id=("1.1",)), store=shelf.store)


def test_get_folders_finds_folders_only(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.6."""
    assert shelf.ask(GetFolders(entry_uuid=(shelf.id("folder1"), shelf.id("doc1")))) == ["folder1"]
    assert shelf.ask(GetFolders(unique_id=("1.5", "1.1"))) == ["folder1"]


def test_get_associations_finds_both_directions(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.7; a Deprecated association only when its status is asked for (Metadata Update supplement)."""
    query = GetAssociations(uuid=(shelf.id("doc3"),))
    assert shelf.ask(query) == ["other reference", "replace", "set2-doc3"]
    assert shelf.ask(replace(query, association_status=(str(Status.DEPRECATED),))) == ["retired"]
    assert shelf.ask(GetAssociations(uuid=(shelf.id("append"),))) == ["set1-append"]


def test_get_documents_and_associations(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.8."""
    query = GetDocumentsAndAssociations(unique_id=("1.3",))
    assert shelf.ask(query) == ["doc3", "other reference", "replace", "set2-doc3"]
    assert shelf.ask(GetDocumentsAndAssociations(entry_uuid=(shelf.id("set1"),))) == []


def test_get_submission_sets_gives_the_sets_and_what_connects_them(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.9: of documents and folders."""
    query = GetSubmissionSets(uuid=(shelf.id("doc1"), shelf.id("folder1")))
    assert shelf.ask(query) == ["set1", "set1-doc1", "set1-folder1"]
    assert shelf.ask(GetSubmissionSets(uuid=(shelf.id("doc3"),))) == [
        "other reference",
        "other set",
        "set2",
        "set2-doc3",
    ]


def test_what_is_filtered_out_of_a_submission_set_takes_its_associations_along(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.10: associations never dangle."""
    query = GetSubmissionSetAndContents(entry_uuid=shelf.id("set1"))
    whole = ["append", "doc1", "doc2", "folder1", "folder1-doc1", "set1"]
    links = ["set1-append", "set1-doc1", "set1-doc2", "set1-folder1", "set1-folder1-doc1"]
    assert shelf.ask(query) == sorted([*whole, *links])
    without_doc1 = ["doc2", "folder1", "set1", "set1-doc2", "set1-folder1"]
    assert shelf.ask(replace(query, format_code=(("A^^1.3",),))) == without_doc1
    # The replaced document is of an earlier submission: RPLC has one end in the result.
    second = GetSubmissionSetAndContents(entry_uuid=shelf.id("set2"), object_type=(STABLE, ON_DEMAND))
    assert shelf.ask(second) == ["demand", "doc3", "set2", "set2-demand", "set2-doc3"]


def test_get_folder_and_contents(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.11."""
    for query in (
        GetFolderAndContents(entry_uuid=shelf.id("folder1")),
        GetFolderAndContents(unique_id="1.5"),
    ):
        assert shelf.ask(query) == ["doc1", "folder1", "folder1-doc1"]
        assert shelf.ask(replace(query, format_code=(("A^^1.3",),))) == ["folder1"]


def test_get_folders_for_document(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.12: no associations."""
    assert shelf.ask(GetFoldersForDocument(entry_uuid=shelf.id("doc1"))) == ["folder1"]
    assert shelf.ask(GetFoldersForDocument(unique_id="1.1")) == ["folder1"]
    assert shelf.ask(GetFoldersForDocument(entry_uuid=shelf.id("doc2"))) == []


def test_get_related_documents(shelf: Shelf) -> None:
    """3.18.4.1.2.3.7.13: the start document too, and nothing at all where nothing is related."""
    append = GetRelatedDocuments(entry_uuid=shelf.id("doc1"), association_types=(str(AssociationType.APND),))
    assert shelf.ask(append) == ["append", "doc1", "doc2"]
    assert shelf.ask(replace(append, entry_uuid=shelf.id("doc2"))) == ["append", "doc1", "doc2"]
    assert shelf.ask(replace(append, association_types=(str(AssociationType.RPLC),))) == []
    assert shelf.ask(replace(append, object_type=(ON_DEMAND,))) == []
    # HasMember from a SubmissionSet has one end that is no document; a Deprecated association is ignored.
    assert shelf.ask(replace(append, association_types=(MEMBER,))) == []
    transformed = GetRelatedDocuments(unique_id="1.3", association_types=(str(AssociationType.XFRM),))
    assert shelf.ask(transformed) == []
    assert shelf.ask(replace(transformed, association_status=BOTH)) == ["doc2", "doc3", "retired"]
    replaced = GetRelatedDocuments(unique_id="1.3", association_types=(str(AssociationType.RPLC),))
    assert shelf.ask(replaced) == ["doc3", "old", "replace"]


# --- Metadata Update: levels ------------------------------------------------------------------------------------------


@pytest.fixture
def versions(database: str) -> Iterator[Shelf]:
    """Two versions of a document and of a folder, which share their ids."""
    made = Shelf(database)
    for number in ("1", "2"):
        common: dict[str, Any] = {"logical_id": made.id("doc v1"), "version": number, "unique_id": UniqueId("1.1")}
        made.entry(f"doc v{number}", document_availability=OFFLINE if number == "2" else None, **common)
        made.folder(
            f"folder v{number}", **(common | {"logical_id": made.id("folder v1"), "unique_id": UniqueId("1.5")})
        )
    made.link("folder-doc", "folder v2", "doc v2")
    made.link("old folder-doc", "folder v1", "doc v1", status=Status.DEPRECATED)
    made.link("update", "doc v2", "doc v1", str(AssociationType.RPLC))
    for old in ("doc v1", "folder v1"):
        made.supersede(old)
    yield made
    made.store.close()


OFFLINE = "urn:ihe:iti:2010:DocumentAvailability:Offline"
ONLINE = "urn:ihe:iti:2010:DocumentAvailability:Online"


def test_level_1_knows_the_latest_versions_and_level_2_all(versions: Shelf) -> None:
    """Metadata Update supplement, $MetadataLevel."""
    for query, new, old in (
        (FindDocuments(patient_id=P1), ["doc v2"], ["doc v1"]),
        (FindFolders(patient_id=P1), ["folder v2"], ["folder v1"]),
        (GetDocuments(unique_id=("1.1",)), ["doc v2"], ["doc v1"]),
        (GetFolders(unique_id=("1.5",)), ["folder v2"], ["folder v1"]),
    ):
        assert versions.ask(query) == new
        assert versions.ask(replace(query, metadata_level=2)) == [*old, *new]


def test_an_entry_uuid_means_exactly_that_version(versions: Shelf) -> None:
    for level in (1, 2):
        query = GetDocuments(entry_uuid=(versions.id("doc v1"),), metadata_level=level)
        assert versions.ask(query) == ["doc v1"]
    contents = GetFolderAndContents(entry_uuid=versions.id("folder v1"), metadata_level=2, association_status=BOTH)
    assert versions.ask(contents) == ["doc v1", "folder v1", "old folder-doc"]


def test_a_logical_id_finds_every_version(versions: Shelf) -> None:
    logical = GetDocuments(logical_id=(versions.id("doc v1"),), metadata_level=2)
    assert versions.ask(logical) == ["doc v1", "doc v2"]
    folders = GetFolders(logical_id=(versions.id("folder v1"),), metadata_level=2)
    assert versions.ask(folders) == ["folder v1", "folder v2"]


def test_related_versions_are_found_at_level_2(versions: Shelf) -> None:
    query = GetRelatedDocuments(unique_id="1.1", association_types=(str(AssociationType.RPLC),))
    assert versions.ask(query) == []
    assert versions.ask(replace(query, metadata_level=2)) == ["doc v1", "doc v2", "update"]


def test_a_document_without_availability_is_online(versions: Shelf) -> None:
    """Metadata Update supplement, $XDSDocumentEntryDocumentAvailability."""
    query = FindDocuments(patient_id=P1, metadata_level=2)
    assert versions.ask(replace(query, document_availability=(ONLINE,))) == ["doc v1"]
    assert versions.ask(replace(query, document_availability=(OFFLINE,))) == ["doc v2"]
    assert versions.ask(replace(query, document_availability=(ONLINE, OFFLINE))) == ["doc v1", "doc v2"]


# --- references and exclusions ----------------------------------------------------------------------------------------


@pytest.fixture
def references(database: str) -> Iterator[Shelf]:
    made = Shelf(database)
    for name, ids in (("one", ["1"]), ("two", ["1", "2"]), ("percent", ["%"]), ("quote", ['"', 'x"1']), ("none", [])):
        made.entry(name, reference_id_list=tuple(map(reference, ids)))
    yield made
    made.store.close()


def reference(identifier: str) -> ReferenceId:
    return ReferenceId(f"{identifier}^^^&1.2&ISO^urn:ihe:iti:xds:2013:accession")


def test_a_reference_is_compared_as_a_whole_and_has_no_wildcards(references: Shelf) -> None:
    """3.18.4.1.2.3.7.14: exact match; AND between repeated parameters."""

    def ask(*groups: tuple[str, ...]) -> list[str]:
        asked = tuple(tuple(str(reference(one)) for one in group) for group in groups)
        return references.ask(FindDocumentsByReferenceId(patient_id=P1, reference_id_list=asked))

    assert ask(("1",)) == ["one", "two"]
    assert ask(("1",), ("2",)) == ["two"]
    assert ask(("%", "_")) == ["percent"]
    assert ask(('"',)) == ["quote"]
    assert ask(('x"1', "2")) == ["quote", "two"]
    query = FindDocumentsByReferenceId(patient_id=P1, reference_id_list=(("1^^^&1.2&ISO", ",", "\\", '"'),))
    assert references.ask(query) == []


def test_what_is_excluded_is_not_found(references: Shelf) -> None:
    """FindDocumentsExclude: an exclusion stands for itself, or against other conditions."""
    query = FindDocumentsExclude(patient_id=P1)
    assert len(references.ask(query)) == 5
    without = replace(query, reference_id_list_exclude=((str(reference("1")),),))
    assert references.ask(without) == ["none", "percent", "quote"]
    assert references.ask(replace(without, format_code_exclude=(("A^^1.2",),))) == []
    assert len(references.ask(replace(query, object_type_exclude=(ON_DEMAND,)))) == 5
    assert references.ask(replace(query, object_type_exclude=(STABLE,))) == []


# --- patients ---------------------------------------------------------------------------------------------------------


def test_a_merged_patient_has_nothing_and_the_surviving_one_has_all(versions: Shelf) -> None:
    """ITI TF-2 3.8.4.2; an unknown patient has nothing, or is an error where the registry is told so."""
    survivor = Identifier.of("survivor", "1.2.3.4")
    for one in (P1, survivor):
        add_patient(versions.store, one)
    merge_patients(versions.store, surviving=survivor, subsumed=P1)
    (entry,) = rim.decode_fragments(stored_query(FindDocuments(patient_id=survivor), store=versions.store).fragments)
    assert isinstance(entry, DocumentEntry) and entry.patient_id == survivor
    for nobody in (P1, Identifier.of("4711", "1.2.3.4")):
        assert versions.ask(FindDocuments(patient_id=nobody)) == []
        with pytest.raises(Failure, match=f"XDSUnknownPatientId: patient .*{nobody.identifier}.* is not known"):
            stored_query(FindDocuments(patient_id=nobody), store=versions.store, unknown_patient="error")
        with pytest.raises(Failure, match="XDSUnknownPatientId"):
            stored_query(GetAll(patient_id=nobody), store=versions.store, unknown_patient="error")
    assert versions.ask(FindDocuments(patient_id=survivor), unknown_patient="error") == ["doc v2"]
    assert versions.ask(GetDocuments(unique_id=("1.1",)), unknown_patient="error") == ["doc v2"]


# --- homeCommunityId --------------------------------------------------------------------------------------------------

HOME = "urn:oid:1.2.3.99"


def test_a_registry_with_a_home_community_names_it_in_every_object(shelf: Shelf) -> None:
    """3.18.4.1.2.3.8: homeCommunityId in results."""
    shelf.entry("from elsewhere", P2, home_community_id=OidUrn("urn:oid:9.9"), unique_id=UniqueId("1.77"))
    for query in (
        GetSubmissionSetAndContents(entry_uuid=shelf.id("set1"), home_community_id=HOME),
        GetDocuments(unique_id=("1.77",)),
    ):
        for return_type in ReturnType:
            asked = replace(query, return_type=return_type)
            result = stored_query(asked, store=shelf.store, home_community_id=HOME)
            fragments = list(result.fragments)
            assert fragments
            assert {one.home_community_id for one in rim.decode_fragments(fragments)} == {HOME}
            element = etree.fromstring(b"".join(encode_result(replace(result, fragments=fragments))))
            assert catalog.validate(element, "query") == []


def test_another_community_is_unknown_to_a_registry_that_has_one(shelf: Shelf) -> None:
    query = GetDocuments(unique_id=("1.3",), home_community_id="urn:oid:1.2.3.98")
    with pytest.raises(Failure, match=r"XDSUnknownCommunity: homeCommunityId .* is not that of this registry"):
        stored_query(query, store=shelf.store, home_community_id=HOME)
    assert shelf.ask(query) == ["doc3"]


# --- long answers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def long(database: str) -> Iterator[Shelf]:
    """A patient with 700 documents in one submission."""
    made = Shelf(database)
    made.set("set")
    objects: list[RegistryObject] = []
    for number in range(700):
        one, link = made.id(f"doc{number:03}"), made.id(f"link{number:03}")
        objects.append(
            DocumentEntry(
                entry_uuid=one,
                logical_id=one,
                version="1",
                patient_id=P1,
                unique_id=UniqueId(f"1.2.{number}"),
                title=Text.of(f"Document {number}"),
            )
        )
        objects.append(
            Association(
                entry_uuid=link,
                logical_id=link,
                version="1",
                association_type=MEMBER,
                source_object=made.id("set"),
                target_object=one,
            )
        )
    made.store.write(Footprint(), lambda unit: unit.add(objects, patient_id=str(P1)))
    yield made
    made.store.close()


def test_lists_longer_than_a_statement_takes_are_answered_whole(long: Shelf) -> None:
    documents = [long.id(f"doc{number:03}") for number in range(700)]
    names = [f"doc{number:03}" for number in range(700)]
    links = [f"link{number:03}" for number in range(700)]
    assert long.ask(GetDocuments(entry_uuid=tuple(documents))) == names
    assert long.ask(GetDocuments(unique_id=tuple(f"1.2.{number}" for number in range(700)))) == names
    assert long.ask(GetAssociations(uuid=tuple(documents))) == links
    assert long.ask(GetDocumentsAndAssociations(entry_uuid=tuple(documents))) == [*names, *links]
    assert long.ask(GetSubmissionSets(uuid=tuple(documents))) == [*links, "set"]
    assert long.ask(GetSubmissionSetAndContents(entry_uuid=long.id("set"))) == [*names, *links, "set"]
    assert long.ask(GetAll(patient_id=P1)) == [*names, *links, "set"]
    codes = tuple(f"{number}^^1.2" for number in range(700))
    assert long.ask(FindDocuments(patient_id=P1, class_code=(codes,))) == []


def test_a_long_answer_is_what_was_there_when_it_began(long: Shelf) -> None:
    """Texts are read while the answer is written: what has been merged meanwhile is still given, what was removed is not."""
    for one in (P1, P2):
        add_patient(long.store, one)
    query = FindDocuments(patient_id=P1)
    order = [one.entry_uuid for one in rim.decode_fragments(stored_query(query, store=long.store).fragments)]
    answer = iter(stored_query(query, store=long.store).fragments)
    begun = [next(answer)]
    merge_patients(long.store, surviving=P2, subsumed=P1)
    removed = order[-1]
    with long.store.engine.begin() as connection:
        for table in (registry_object, BY_KIND["DocumentEntry"]):
            connection.execute(delete(table).where(table.c.entry_uuid == removed))
    given = list(rim.decode_fragments([*begun, *answer]))
    assert [one.entry_uuid for one in given] == order[:-1]
    assert {one.patient_id for one in given if isinstance(one, DocumentEntry)} == {P1}


def test_the_limit_for_leaf_class_counts_all_classes_together(long: Shelf) -> None:
    """XDSTooManyResults."""
    query = GetSubmissionSetAndContents(entry_uuid=long.id("set"))
    assert len(list(stored_query(query, store=long.store, max_results=1401).fragments)) == 1401
    for limit in (1400, 700, 699, 5):
        with pytest.raises(Failure, match=f"XDSTooManyResults: .* more than {limit} objects"):
            stored_query(query, store=long.store, max_results=limit)
    reference_query = replace(query, return_type=ReturnType.OBJECT_REF)
    assert len(list(stored_query(reference_query, store=long.store, max_results=5).fragments)) == 1401
