"""ITI-62 Remove Metadata: its message, and requests at its limits, of several patients, and at the same time (RMD 3.62).

What goes together and what is refused is in test_metadata_removal.py.
"""

from __future__ import annotations

import pytest
from lxml import etree

from benchmarks.registries import Registry, dump, new_uuid, related, together, valid
from registry.iti62_remove import MAX_OBJECTS, remove
from registry.store import Footprint, Store, Unit
from schemas import catalog, lcm
from schemas.ns import LCM, RIM
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, ObjectRef, Submission, SubmissionSet
from xds.problems import Failure
from xds.values import OidUrn
from xds.vocabulary import AssociationType, Status

METADATA, UNRESOLVED = "XDSRegistryMetadataError", "UnresolvedReferenceException"
REFERENCED = "ReferencesExistException"


class Removing(Registry):
    """A registry that takes ITI-62."""

    def remove(self, *entry_uuids: str) -> Outcome:
        return remove([ObjectRef(entry_uuid=one) for one in entry_uuids], store=self.store)

    def not_removed(self, *entry_uuids: str) -> list[tuple[str, str]]:
        """The code and text of each problem; and not one row has changed."""
        before = dump(self.store)
        with pytest.raises(Failure) as failure:
            self.remove(*entry_uuids)
        assert dump(self.store) == before
        return [(str(one.code), one.context) for one in failure.value.problems]

    def submitted(self, made: Submission) -> list[str]:
        """Registers it; the entryUUIDs of all that came of it, the SubmissionSet's first, then entries, folders, associations."""
        before = {one.entry_uuid for one in self.everything()}
        assert self.register(made).succeeded
        new = [one for one in self.everything() if one.entry_uuid not in before]
        order = (SubmissionSet, DocumentEntry, Folder, Association)
        return [one.entry_uuid for kind in order for one in new if isinstance(one, kind)]

    def document(self) -> list[str]:
        """A SubmissionSet, its DocumentEntry, and the membership between them."""
        made = self.submitted(valid(self.p1))
        assert len(made) == 3
        return made

    def ids(self) -> set[str]:
        return {one.entry_uuid for one in self.everything()}

    def between(self, source: str, target: str) -> str:
        """The association that leads from the one to the other."""
        (found,) = (one for one in self.of(Association) if (one.source_object, one.target_object) == (source, target))
        return found.entry_uuid


@pytest.fixture
def registry(store: Store) -> Removing:
    return Removing(store)


def referenced(kind: str, entry_uuid: str, association: str) -> tuple[str, str]:
    return REFERENCED, f"{kind} {entry_uuid} is still referenced by the Association {association}, which is not removed"


# --- what a request may hold -------------------------------------------------------------------------------------------


def test_a_deprecated_association_is_a_reference_too(registry: Removing) -> None:
    """3.62.4.1.3 knows no status."""
    made = registry.document()
    addendum = registry.submitted(related(valid(registry.p1), AssociationType.APND, made[1]))
    association = registry.between(addendum[1], made[1])

    def deprecate(unit: Unit) -> None:
        unit.set_status(unit.known([association])[association], Status.DEPRECATED)

    patients = frozenset({str(registry.p1)})
    registry.store.write(Footprint(entry_uuids=frozenset({association}), patients=patients), deprecate)
    assert registry.not_removed(*made) == [referenced("DocumentEntry", made[1], association)]


def test_an_unknown_id_is_refused_with_all_the_others(registry: Removing) -> None:
    """[T 30000] Everything that is wrong is told at once."""
    submission_set, _, member = registry.document()
    nobody = new_uuid()
    assert registry.not_removed(submission_set, nobody, "Document01") == [
        (UNRESOLVED, f"ObjectRef '{nobody}' is not registered"),
        (UNRESOLVED, "ObjectRef 'Document01' is not a UUID of RFC 4122 in lower case"),
        referenced("SubmissionSet", submission_set, member),
    ]


def test_objects_of_two_patients_go_in_one_request(registry: Removing) -> None:
    before = dump(registry.store)
    made = [*registry.document(), *registry.submitted(valid(registry.p2))]
    assert registry.remove(*made).succeeded
    assert dump(registry.store) == before


def test_as_many_objects_as_the_limit_are_looked_for(registry: Removing) -> None:
    """However many statements that takes."""
    wanted = [f"urn:uuid:00000000-0000-4000-8000-{number:012x}" for number in range(MAX_OBJECTS)]
    problems = registry.not_removed(*wanted)
    assert len(problems) == MAX_OBJECTS
    assert {code for code, _ in problems} == {UNRESOLVED}


def test_of_two_equal_removals_at_the_same_time_one_succeeds(registry: Removing) -> None:
    made = registry.document()
    results = together([lambda: registry.remove(*made)] * 2)
    (refused,) = (one for one in results if isinstance(one, Failure))
    assert {str(one.code) for one in refused.problems} == {UNRESOLVED}
    assert registry.ids() == set()


# --- the message ------------------------------------------------------------------------------------------------------


def message(children: str) -> etree._Element:
    return etree.fromstring(
        f'<lcm:RemoveObjectsRequest xmlns:lcm="{LCM}" xmlns:rim="{RIM}">{children}</lcm:RemoveObjectsRequest>'
    )


def test_a_request_names_its_objects(registry: Removing) -> None:
    """3.62.4.1.2: as the wire brings it, to the registry."""
    made = registry.document()
    refs = "".join(f'<rim:ObjectRef id="{one.upper().replace("URN:UUID", "urn:uuid")}"/>' for one in made)
    decoded = lcm.decode_remove(message(f"<rim:ObjectRefList>{refs}</rim:ObjectRefList>"))
    assert decoded == tuple(ObjectRef(entry_uuid=one) for one in made)
    assert remove(decoded, store=registry.store).succeeded


def test_a_home_community_id_does_not_matter() -> None:
    home = "urn:oid:1.2.3"
    uuid = new_uuid()
    decoded = lcm.decode_remove(
        message(f'<rim:ObjectRefList><rim:ObjectRef id="{uuid}" home="{home}"/></rim:ObjectRefList>')
    )
    assert decoded == (ObjectRef(entry_uuid=uuid),)


@pytest.mark.parametrize("home", [None, OidUrn("urn:oid:1.2.3")])
def test_what_a_client_sends_is_valid_and_read_back(home: OidUrn | None) -> None:
    refs = [ObjectRef(entry_uuid=new_uuid(), home_community_id=home) for _ in range(3)]
    element = etree.fromstring(lcm.encode_remove(refs))
    assert catalog.validate(element, "lcm") == []
    assert lcm.decode_remove(element) == tuple(ObjectRef(entry_uuid=one.entry_uuid) for one in refs)


def test_a_reference_without_an_id_is_refused(registry: Removing) -> None:
    decoded = lcm.decode_remove(message("<rim:ObjectRefList><rim:ObjectRef/></rim:ObjectRefList>"))
    assert registry.not_removed(*(one.entry_uuid for one in decoded)) == [
        (UNRESOLVED, "ObjectRef '' is not a UUID of RFC 4122 in lower case")
    ]
