"""From a message to what is registered: each version of a report once, the newest one Approved, before the sender hears AA.

No state is kept here. A message that comes again is known by the uniqueId that follows from what it says; the versions of a report by the
reference that their entries have in common.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Literal

from feeds import hl7v2
from feeds.hl7v2 import TEMPORARY, Message, Refusal
from feeds.reports import message
from feeds.reports.documents import (
    REFERENCE_REPORT,
    Settings,
    document,
    own_id,
    patients,
    reference,
    submission,
    withdrawal,
)
from feeds.reports.message import Report
from schemas import rim
from soap.fault import SoapFault
from xds.messages import Document
from xds.metadata import Association, DocumentEntry
from xds.problems import ErrorCode, Failure
from xds.queries import FindDocumentsByReferenceId, GetAssociations, GetDocuments, StoredQuery
from xds.transactions import Provide, Query, Register
from xds.values import Identifier, ReferenceId, Timestamp
from xds.vocabulary import AssociationType, Status

_log = logging.getLogger("xdsi.feeds")
_BOTH = (str(Status.APPROVED), str(Status.DEPRECATED))
#: Somebody else may replace a version while we do.
_ROUNDS = 3
_LOCKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What takes messages. `patient_of` gives the affinity domain's id of a local one, None where it knows none.

    `update` is ITI-57, by which a cancelled report is deprecated; None where no registry offers it. `zone` is that of times without an
    offset. `addendum` says what T06 does to the document that it names: replace it, or be appended to it.
    """

    settings: Settings
    provide: Provide
    query: Query
    update: Register | None
    patient_of: Callable[[Identifier], Identifier | None]
    zone: tzinfo
    now: Callable[[], datetime]
    preliminary: bool = False
    addendum: Literal["replace", "append"] = "replace"
    #: Two versions of a report must not be registered at the same time: neither would replace the other.
    _locks: tuple[threading.Lock, ...] = field(default_factory=lambda: tuple(threading.Lock() for _ in range(_LOCKS)))

    def answer(
        self, content: bytes, *, new_control_id: Callable[[], str], answered: Callable[[str, str], None]
    ) -> bytes:
        """The acknowledgement of a message: AA once all its reports are registered, or need not be, which MSA-3 says."""
        return hl7v2.answer(
            content,
            self._take,
            events=message.EVENTS,
            transaction="a report",
            now=self.now,
            new_control_id=new_control_id,
            answered=answered,
            max_segments=2 * message.MAX_OBSERVATIONS,
        )

    def _take(self, received: Message) -> str:
        """What is said of the reports that changed nothing. Refusal for one that cannot be registered; those before it are."""
        told = []
        for report in message.read(received, zone=self.zone):
            if report.status is message.Status.PRELIMINARY and not self.preliminary:
                told.append("not stored: the report is preliminary")
                continue
            patient_id, source_patient_id = self._patient(report)
            with _told_as_hl7(), self._locks[hash(patient_id) % _LOCKS]:
                if report.status is message.Status.CANCELLED:
                    told.append(self._cancel(report, patient_id))
                else:
                    told.append(self._store(report, patient_id, source_patient_id))
        return "; ".join(filter(None, told))

    def _patient(self, report: Report) -> tuple[Identifier, Identifier]:
        """The affinity domain's id of the patient, and the sender's own."""
        ours, others = patients(report, self.settings)
        if len(ours) > 1:
            reason = f"PID-3 has {len(ours)} identifiers of this affinity domain; one is right"
            raise Refusal("AE", reason, "PID^1^3^102")
        if ours:
            return ours[0], (others or ours)[0]
        for local in others:
            if (found := self.patient_of(local)) is not None:
                return found, local
        if not others:
            raise Refusal("AE", "PID-3 has no identifier whose assigning authority is known", "PID^1^3^101")
        reason = f"no patient id of this affinity domain is known for {', '.join(others)} (PID-3)"
        raise Refusal("AE", reason[:300], "PID^1^3^204")

    # --- what is registered -------------------------------------------------------------------------------------------

    def _store(self, report: Report, patient_id: Identifier, source_patient_id: Identifier) -> str:
        """Registers a version, in place of the one before it. Failure where it is refused."""
        entry, content = document(report, patient_id, source_patient_id, self.settings)
        stored = Document.of(content, str(entry.mime_type))
        derived = own_id(report) is None
        appended = self.addendum == "append" and report.event == "T06" and report.replaces not in ("", report.number)
        own, parent = reference(report, report.number), reference(report, report.replaces)
        for attempt in range(1, _ROUNDS + 1):
            versions = self._versions(patient_id, [own] if appended or not report.replaces else [own, parent])
            # A document with an id of its own, and other bytes than are registered under it, is for the registry to refuse.
            if any(one.unique_id == entry.unique_id and (derived or one.hash == stored.sha1) for one in versions):
                return "stored already"
            if newer := _newer(versions, entry.creation_time):
                return f"not stored: a version of {newer} is registered"
            replaced = _approved(versions)
            target = _approved(self._versions(patient_id, [parent])) if appended and not replaced else ()
            made = submission(
                _with_references_of(entry, replaced),
                settings=self.settings,
                now=Timestamp.at(self.now()),
                targets=[one.entry_uuid for one in replaced or target],
                relation=AssociationType.RPLC if replaced or not target else AssociationType.APND,
            )
            try:
                self.provide(made, {entry.entry_uuid: stored})
                return ""
            except Failure as failure:
                codes = {one.code for one in failure.problems}
                overtaken = codes & {
                    ErrorCode.REGISTRY_DEPRECATED_DOCUMENT_ERROR,
                    ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY,
                }
                if not overtaken or attempt == _ROUNDS:
                    raise
        raise AssertionError

    def _cancel(self, report: Report, patient_id: Identifier) -> str:
        """Deprecates what is Approved of a report. Failure where it is refused."""
        versions = self._versions(patient_id, [reference(report, report.number)])
        if report.created and (newer := _newer(versions, report.created)):
            return f"not cancelled: a version of {newer} is registered"
        approved = _approved(versions)
        if not approved:
            return "nothing to cancel: no version of the report is Approved"
        if self.update is None:
            raise Refusal("AE", "no registry is known that could deprecate a document (ITI-57)", "MSH^1^9^207")
        for one in (*approved, *self._addenda(approved)):
            self.update(withdrawal(one, settings=self.settings, now=Timestamp.at(self.now())))
        return ""

    def _addenda(self, entries: Sequence[DocumentEntry]) -> tuple[DocumentEntry, ...]:
        """What is Approved and was appended to these."""
        if self.addendum != "append":
            return ()
        associations = self._objects(GetAssociations(uuid=tuple(one.entry_uuid for one in entries)))
        ids = tuple(
            one.source_object
            for one in associations
            if isinstance(one, Association) and one.association_type == AssociationType.APND
        )
        found = self._objects(GetDocuments(entry_uuid=ids)) if ids else ()
        return _approved([one for one in found if isinstance(one, DocumentEntry)])

    def _versions(self, patient_id: Identifier, references: Sequence[ReferenceId]) -> list[DocumentEntry]:
        """What is registered of a report, Deprecated versions too."""
        query = FindDocumentsByReferenceId(
            patient_id=patient_id, reference_id_list=(tuple(map(str, references)),), status=_BOTH
        )
        return [one for one in self._objects(query) if isinstance(one, DocumentEntry)]

    def _objects(self, query: StoredQuery) -> Iterator[object]:
        return rim.decode_fragments(self.query(query).fragments)


def _approved(versions: Sequence[DocumentEntry]) -> tuple[DocumentEntry, ...]:
    return tuple(one for one in versions if one.availability_status == Status.APPROVED)


def _newer(versions: Sequence[DocumentEntry], than: Timestamp | None) -> Timestamp | None:
    """The creation time of the newest version, where it is later."""
    times = [one.creation_time for one in versions if one.creation_time is not None]
    newest = max(times, key=lambda one: one.earliest, default=None)
    return newest if newest is not None and than is not None and newest.earliest > than.earliest else None


def _with_references_of(entry: DocumentEntry, replaced: Sequence[DocumentEntry]) -> DocumentEntry:
    """With the numbers that its predecessors were known by: a document of that number may still come."""
    inherited = (one for before in replaced for one in before.reference_id_list if one.type_code == REFERENCE_REPORT)
    return replace(entry, reference_id_list=tuple(dict.fromkeys((*entry.reference_id_list, *inherited))))


@contextmanager
def _told_as_hl7() -> Iterator[None]:
    """Refusal with the codes and texts of a repository or registry that refuses; AR where it may be willing later, or says nothing."""
    try:
        yield
    except OSError as error:
        _log.warning("a report could not be submitted: %s", error)
        reason = "the repository or the registry does not answer; send the message again"
        raise Refusal("AR", reason, "MSH^1^9^207") from None
    except SoapFault as fault:
        _log.warning("a report could not be submitted: %s", fault)
        raise Refusal("AE" if fault.code == "Sender" else "AR", str(fault), "MSH^1^9^207") from None
    except Failure as failure:
        codes = {one.code for one in failure.problems}
        _log.info("a report was refused: %s", ", ".join(sorted(map(str, codes))))
        reason = "; ".join(map(str, failure.problems)) or "refused without a reason"
        if codes & TEMPORARY:
            raise Refusal("AR", reason, "MSH^1^9^207") from None
        of_patient = codes & {ErrorCode.UNKNOWN_PATIENT_ID, ErrorCode.PATIENT_ID_DOES_NOT_MATCH}
        raise Refusal("AE", reason, "PID^1^3^204" if of_patient else "MSH^1^9^207") from None
