"""ITI-62 Remove Metadata: objects are deleted together, if nothing that stays refers to them (Remove Metadata and Documents 3.62)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from registry.store import Footprint, Known, Store, Unit
from registry.versions import bring_back
from registry.wording import fault, shown
from xds.messages import Outcome
from xds.metadata import ObjectRef
from xds.problems import ErrorCode, Failure, Problem
from xds.values import is_uuid_urn

#: Most objects that one request may name.
MAX_OBJECTS = 10_000


def remove(refs: Sequence[ObjectRef], *, store: Store) -> Outcome:
    """Deletes all the objects. Failure with every problem found, and then nothing is deleted.

    The documents themselves stay in their repositories. A removed replacement does not make what it replaced Approved again.
    """
    wanted = list(dict.fromkeys(ref.entry_uuid for ref in refs))
    if len(wanted) > MAX_OBJECTS:
        raise Failure([fault(f"the request names {len(wanted)} objects; the limit is {MAX_OBJECTS}")])

    def work(unit: Unit) -> Outcome:
        known = unit.known(wanted)
        problems = [*_unknown(wanted, known), *_dangling(known, unit)]
        if problems:
            raise Failure(problems)
        for one in known.values():
            unit.remove(one)
        bring_back(known, unit)
        return Outcome()

    return store.write(footprint_of(wanted, store), work, alone=True)


def footprint_of(entry_uuids: Sequence[str], store: Store) -> Footprint:
    """What the removal or change of registered objects touches: them, and everything of their patients."""
    patients = store.patients_of(entry_uuids)
    return Footprint(entry_uuids=frozenset(entry_uuids), patients=frozenset(patients))


def _unknown(wanted: Sequence[str], known: Mapping[str, Known]) -> Iterator[Problem]:
    for one in wanted:
        if one not in known:
            reason = "is not registered" if is_uuid_urn(one) else "is not a UUID of RFC 4122 in lower case"
            yield fault(f"ObjectRef {shown(one)} {reason}", ErrorCode.UNRESOLVED_REFERENCE)


def _dangling(known: Mapping[str, Known], unit: Unit) -> Iterator[Problem]:
    """No association that stays has an end that goes; nothing that stays was connected by what goes alone (3.62.4.1.3)."""
    ends = {
        end for one in known.values() if one.kind == "Association" for end in (one.source_object, one.target_object)
    }
    around = unit.touching([*known, *(end for end in ends if end)])
    staying = [one for one in around if one.entry_uuid not in known]
    for association in staying:
        for end in (association.source_object, association.target_object):
            if end is not None and end in known:
                yield fault(
                    f"{known[end].kind} {end} is still referenced by the Association {association.entry_uuid}, which is not removed",
                    ErrorCode.REFERENCES_EXIST,
                )
    connected = {end for one in staying for end in (one.source_object, one.target_object)}
    for one in known.values():
        for end in (one.source_object, one.target_object) if one.kind == "Association" else ():
            if end and end not in known and end not in connected:
                yield fault(
                    f"without the Association {one.entry_uuid}, nothing refers to {end}, which is not removed",
                    ErrorCode.UNREFERENCED_OBJECT,
                )
