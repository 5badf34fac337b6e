"""ITI-42 Register Document Set-b, and ITI-61 Register On-Demand Document Entry, which differs in the kind of entries only.

A submission is checked, given its ids, and stored with all its effects, or refused (ITI TF-2 3.42, 3.61).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime

from registry import rules_registry
from registry.codes import Codes, codes_are_known
from registry.rules import RULES, STRICT, Rule, Strictness
from registry.rules_registry import Patients, Seen, deprecated_with, ids_to_look_up, look
from registry.store import Footprint, Known, Store, Unit
from registry.unit import rows_of
from registry.wording import fault, named, shown
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, Submission, SubmissionSet, has_member
from xds.problems import Failure, Problem, errors
from xds.values import Timestamp
from xds.vocabulary import ON_DEMAND, REPLACEMENTS, STABLE, AssociationType, Status

_UUID = re.compile(r"urn:uuid:[0-9a-f-]{36}")


def register(
    submission: Submission,
    *,
    store: Store,
    now: Callable[[], datetime],
    new_uuid: Callable[[], str],
    patients: Patients = "known",
    strictness: Strictness = STRICT,
    codes: Codes | None = None,
    on_demand: bool = False,
) -> Outcome:
    """Stores the submission whole. Failure with every problem found, and then nothing is stored.

    `patients`: "known" demands a patient that the feed has told of, "open" takes any well-formed id. `new_uuid` gives `urn:uuid:` ids.
    `codes` are those of the affinity domain, None where they are not checked. `on_demand` is ITI-61.
    """
    return register_later(
        submission,
        store=store,
        now=now,
        new_uuid=new_uuid,
        patients=patients,
        strictness=strictness,
        codes=codes,
        on_demand=on_demand,
    ).result()


def register_later(
    submission: Submission,
    *,
    store: Store,
    now: Callable[[], datetime],
    new_uuid: Callable[[], str],
    patients: Patients = "known",
    strictness: Strictness = STRICT,
    codes: Codes | None = None,
    on_demand: bool = False,
) -> Future[Outcome]:
    """As `register`, without waiting for the disk. Failure at once, or from the future."""
    problems = check_message(submission, strictness=strictness, codes=codes)
    problems += strictness.judged("entries_are_of_the_transaction", _entries_of_the_transaction(submission, on_demand))
    if not submission.submission_sets:
        raise Failure(problems)
    assigned = with_ids(submission, new_uuid, Timestamp.at(now()))
    if errors(problems):
        raise Failure([*problems, *_with_registry(submission, assigned, store, patients, strictness)])
    rows = rows_of(assigned.objects, store.bodies, patient_id=str(assigned.submission_sets[0].patient_id))

    def work(unit: Unit) -> Outcome:
        seen = look(assigned, unit, patients)
        found = [*problems, *as_submitted(rules_registry.check(seen, strictness), submission, assigned)]
        if errors(found):
            raise Failure(found)
        unit.insert(rows)
        # Now, and not when it came: whoever changes a folder later says a later time.
        _apply(seen, new_uuid, Timestamp.at(now()))
        return Outcome.of(found)

    return store.write_later(footprint(assigned), work)


def _with_registry(
    submission: Submission, assigned: Submission, store: Store, patients: Patients, strictness: Strictness
) -> list[Problem]:
    """What the registry would have refused a message for that is refused already."""

    def work(unit: Unit) -> list[Problem]:
        return as_submitted(rules_registry.check(look(assigned, unit, patients), strictness), submission, assigned)

    return store.write(footprint(assigned), work)


def as_submitted(problems: Iterable[Problem], submission: Submission, assigned: Submission) -> list[Problem]:
    """The problems, with the ids that the submitter knows in place of those that were assigned."""
    given = {
        one.entry_uuid: before.entry_uuid for before, one in zip(submission.objects, assigned.objects, strict=True)
    }
    return [
        replace(problem, context=_UUID.sub(lambda match: given.get(match[0]) or match[0], problem.context))
        for problem in problems
    ]


def check_message(
    submission: Submission, *, strictness: Strictness, codes: Codes | None, rules: Iterable[Rule] = RULES
) -> list[Problem]:
    """Every fault that the message alone shows."""
    problems = strictness.check(submission, rules)
    if codes is not None:
        problems += strictness.judged("codes_are_known", codes_are_known(submission, codes))
    return problems


def _entries_of_the_transaction(submission: Submission, on_demand: bool) -> Iterator[Problem]:
    """Stable entries are registered with ITI-42, On-Demand entries with ITI-61 (ITI TF-2 3.42.4.1.2, 3.61.4.1.2)."""
    expected, transaction = (ON_DEMAND, "ITI-61") if on_demand else (STABLE, "ITI-42")
    for entry in submission.document_entries:
        if entry.object_type != expected:
            kind = "On-Demand" if on_demand else "Stable"
            yield fault(
                f"{named(entry)}: objectType {shown(entry.object_type)} is not {kind}, which {transaction} demands"
            )


def footprint(submission: Submission) -> Footprint:
    """What a submission looks at: its patient's objects, whatever it refers to, whatever has one of its ids."""
    unique_ids = [one.unique_id for one in submission.objects if not isinstance(one, Association)]
    patients = [one.patient_id for one in submission.submission_sets]
    return Footprint(
        entry_uuids=frozenset(str(one) for one in ids_to_look_up(submission)),
        unique_ids=frozenset(str(one) for one in unique_ids if one),
        patients=frozenset(str(one) for one in patients if one),
    )


# --- ids --------------------------------------------------------------------------------------------------------------


def with_ids(submission: Submission, new_uuid: Callable[[], str], moment: Timestamp) -> Submission:
    """Symbolic ids become UUIDs, the same symbol the same UUID; each object begins as version 1 of itself (ITI TF-3 4.2.3.1.1)."""
    uuids = {one.entry_uuid: one.entry_uuid for one in submission.objects if one.entry_uuid.startswith("urn:uuid:")}
    for one in submission.objects:
        if one.entry_uuid not in uuids:
            uuids[one.entry_uuid] = new_uuid()

    def assigned(one: RegistryObject) -> RegistryObject:
        uuid = uuids[one.entry_uuid]
        changes: dict[str, object] = {"entry_uuid": uuid, "logical_id": uuid, "version": "1"}
        if isinstance(one, Association):
            changes["source_object"] = uuids.get(one.source_object, one.source_object)
            changes["target_object"] = uuids.get(one.target_object, one.target_object)
        if isinstance(one, Folder):
            changes["last_update_time"] = moment
        return replace(one, **changes)  # type: ignore[arg-type]

    objects = [assigned(one) for one in submission.objects]
    return Submission(
        submission_sets=tuple(one for one in objects if isinstance(one, SubmissionSet)),
        document_entries=tuple(one for one in objects if isinstance(one, DocumentEntry)),
        folders=tuple(one for one in objects if isinstance(one, Folder)),
        associations=tuple(one for one in objects if isinstance(one, Association)),
    )


# --- effects ----------------------------------------------------------------------------------------------------------


def _apply(seen: Seen, new_uuid: Callable[[], str], moment: Timestamp) -> None:
    """What follows from the submission for what is registered, and what the registry adds to it."""
    submission, unit = seen.submission, seen.unit
    submission_set = submission.submission_sets[0]
    added: list[Association] = []
    joined = {(one.source_object, one.target_object) for one in submission.associations}
    touched: dict[str, Known] = {}
    for association in submission.associations:
        if association.association_type in REPLACEMENTS:
            deprecate(seen.known[association.target_object], unit)
            added += _inherit_folders(association, seen, joined, touched, new_uuid)
        source = seen.known.get(association.source_object)
        if (
            association.association_type == AssociationType.HAS_MEMBER
            and source is not None
            and source.kind == "Folder"
        ):
            # ITI TF-3 4.2.3.4.6: adding a document moves the folder's lastUpdateTime.
            touched[source.entry_uuid] = source
    for folder in touched.values():
        unit.touch(folder, moment)
    if added:
        unit.add(added, patient_id=str(submission_set.patient_id))


def deprecate(replaced: Known, unit: Unit) -> None:
    """The replaced entry, and whatever was appended to it or transformed from it, all the way (ITI TF-2 3.42.4.1.3.5)."""
    for one in deprecated_with(replaced, unit):
        unit.set_status(one, Status.DEPRECATED)


def _inherit_folders(
    replacement: Association,
    seen: Seen,
    joined: set[tuple[str, str]],
    touched: dict[str, Known],
    new_uuid: Callable[[], str],
) -> Iterator[Association]:
    """The replacement joins the folders of what it replaces, unless it has done so already (ITI TF-2 3.42.4.1.3.3.1)."""
    new, set_uuid = replacement.source_object, seen.submission.submission_sets[0].entry_uuid
    for folder in seen.unit.folders_of(seen.known[replacement.target_object]):
        touched[folder.entry_uuid] = folder
        if (folder.entry_uuid, new) in joined:
            continue
        joined.add((folder.entry_uuid, new))
        member = has_member(folder.entry_uuid, new, entry_uuid=new_uuid())
        link = has_member(set_uuid, member.entry_uuid, entry_uuid=new_uuid())
        for one in (member, link):
            yield replace(one, logical_id=one.entry_uuid, version="1")


#: The rules of this transaction that are in no list: by name, with what they say.
OWN_RULES = {
    "entries_are_of_the_transaction": _entries_of_the_transaction.__doc__ or "",
    "codes_are_known": codes_are_known.__doc__ or "",
}
