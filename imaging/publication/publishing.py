"""When and how the documents of studies are published: once each is complete, anew when it has changed, and never twice (RAD TF-2 4.68).

A submission is decided and made durable with all its ids before it is sent, and is sent again, the very same, until there is a verdict. If
it comes to the registry a second time, the answer XDSDuplicateUniqueIdInRegistry says that the first attempt had succeeded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from imaging.archive import Archive
from imaging.instances import Instance, Instances
from imaging.publication.documents import Made, Material, Source, Wanted, documents_of
from imaging.publication.patient_map import PatientOf
from imaging.publication.performed_steps import PerformedSteps
from imaging.publication.publication_rows import Arrival, Publication, Published, Study
from imaging.publication.publications import Publications
from imaging.publication.rad68_provide import PublishError, local_patient_id, new_uid, submission_of, withdrawal
from imaging.publication.rejections import is_here, rejected, see_arrivals, to_list
from schemas import rim
from soap.fault import SoapFault
from xds.messages import Document
from xds.metadata import Association, DocumentEntry, Submission, SubmissionSet
from xds.problems import ErrorCode, Failure
from xds.transactions import Provide, Register
from xds.values import Identifier

_log = logging.getLogger("xdsi.imaging")
#: What a repository or registry says of itself and not of the submission: it may have been registered all the same.
_NO_VERDICT = {
    ErrorCode.REGISTRY_ERROR,
    ErrorCode.REGISTRY_BUSY,
    ErrorCode.REGISTRY_OUT_OF_RESOURCES,
    ErrorCode.REGISTRY_NOT_AVAILABLE,
    ErrorCode.REPOSITORY_ERROR,
    ErrorCode.REPOSITORY_BUSY,
    ErrorCode.REPOSITORY_OUT_OF_RESOURCES,
}
#: How often a study may change while it is published: a decision, its submission, and what has come meanwhile.
_ROUNDS = 6
_MAX_REASON_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Publishes studies. Several may work on one database: what one has decided the others carry out, if it does not.

    `update` is ITI-57, by which an entry is deprecated; None where no registry is known. `patient_of` gives the affinity domain's id.
    A study is complete when nothing has come for `quiet_s` seconds (with 0 none is by itself), or when its procedure steps have ended and
    all that they name is stored.
    """

    instances: Instances
    publications: Publications
    source: Source
    #: Whose studies can be published too: what is of a study is stored here, or else there.
    archive: Archive | None = None
    provide: Provide
    update: Register | None
    patient_of: PatientOf
    now: Callable[[], datetime]
    quiet_s: float = 0.0
    #: What modalities say of their procedure steps, if anybody asks, and how long one that does not end keeps its study waiting.
    steps: PerformedSteps | None = None
    longest_step_s: float = 86_400.0

    def look(self, limit: int = 1_000_000) -> int:
        """Publishes what is due, and tries again what has failed, `limit` studies at most; how many studies were looked after."""
        see_arrivals(self.instances, self.publications)
        if self.steps is not None:
            self.steps.settle(self._seconds())
        longest_s = self.longest_step_s if self.steps is not None else 0.0
        due = self.publications.due(self._seconds(), self.quiet_s, limit, longest_s)
        for study in due:
            try:
                self._publish(study, at_once=False)
            except Exception as error:
                self._failed(study, error)
        return len(due)

    def publish(
        self, study_instance_uid: str, *, patient_id: str = "", source_patient_id: str = ""
    ) -> tuple[Published, ...]:
        """Publishes a study now. Its documents that are published then; none if it has nothing to be listed.

        The two ids are kept for its later manifests; what is published of another patient is withdrawn before. PublishError for a study
        that is not stored or lacks what the metadata need; ManifestError for one that no manifest can hold; Failure where the
        repository or the registry refuses, and whatever `provide` raises. It will be tried again.
        """
        see_arrivals(self.instances, self.publications)
        if self.publications.study(study_instance_uid) is None:
            if not self._of_study(study_instance_uid):
                raise PublishError(f"no instance of study {study_instance_uid} is stored")
            self.publications.wait(study_instance_uid, self._seconds())
        if patient_id or source_patient_id:
            self.publications.assign(study_instance_uid, patient_id, source_patient_id)
        try:
            self._publish(study_instance_uid, at_once=True)
        except Exception as error:
            self._failed(study_instance_uid, error)
            raise
        return self.publications.current(study_instance_uid)

    def _publish(self, study: str, *, at_once: bool) -> None:
        """Ends the submission that is under way, and makes others until what is published is what is stored.

        Unless it is to be done `at_once`, what has come since a submission was decided waits for its own quiet period.
        """
        for _ in range(_ROUNDS):
            # Before all else that is looked at: what is decided upon an older state is not taken.
            known = self.publications.study(study)
            assert known is not None
            if under_way := self.publications.submitting(study):
                self._send(under_way)
                if under_way.completes and not at_once:
                    return
            listed = to_list(self._of_study(study), self._rejected)
            current = {one.key: one for one in self.publications.current(study)}
            wanted = documents_of(listed, self.source)
            due = [one for one in wanted if one.key not in current or current[one.key].listed != one.listed]
            gone = [one for key, one in current.items() if key not in {one.key for one in wanted}]
            misplaced = any(known.patient_id not in ("", one.patient_id) for one in current.values())
            if misplaced:
                # No association of replacement leads from one patient to another (ITI TF-2 3.42.4.1.3).
                self.publications.decide(self._withdrawal(known, list(current.values()), completes=False), known)
            elif due:
                decided = self._provision(known, listed, due, current, completes=not gone)
                self.publications.decide(decided, known)
            elif gone:
                self.publications.decide(self._withdrawal(known, gone, completes=bool(wanted)), known)
            elif current:
                self.publications.unchanged(known, Study.PUBLISHED)
                return
            else:
                self.publications.unchanged(known, Study.WITHDRAWN, "there is no instance that is not rejected")
                return
        raise PublishError(f"study {study} changes faster than it is published")

    def _of_study(self, study: str) -> list[Instance]:
        stored = self.instances.of_study(study)
        return stored if self.archive is None or is_here(stored) else self.archive.of_study(study)

    def _rejected(self, sop_instance_uids: Collection[str]) -> dict[str, str]:
        return rejected(sop_instance_uids, instances=self.instances, publications=self.publications)

    def _provision(
        self,
        known: Arrival,
        listed: Sequence[Instance],
        due: Sequence[Wanted],
        current: Mapping[str, Published],
        *,
        completes: bool,
    ) -> Publication:
        """The submission of the documents that are due, each of which replaces the one that is published under its key."""
        source, now, headers = self.source, self.now(), self.instances.headers(listed)
        local_id = Identifier(known.source_patient_id or local_patient_id(headers, source.defaults))
        # A replacement is of the patient that the first manifest was of (ITI TF-2 3.42.4.1.3).
        before = next(iter(current.values()), None)
        patient_id = Identifier(before.patient_id if before else known.patient_id or self.patient_of(local_id))
        material = Material(
            listed=listed,
            headers={one.sop_instance_uid: header for one, header in zip(listed, headers, strict=True)},
            patient_id=patient_id,
            local_id=local_id,
            now=now,
            source=source,
            unique_ids={key: one.document_unique_id for key, one in current.items()},
        )
        made: dict[str, Made] = {}
        for one in due:
            made[one.key] = one.make(material)
            material.unique_ids[one.key] = str(made[one.key].entry.unique_id)
        entry_uuids = {key: one.entry_uuid for key, one in current.items()} | {
            key: one.entry.entry_uuid for key, one in made.items()
        }
        unique_id = new_uid()
        submission = submission_of(
            [one.entry for one in made.values()],
            source_id=source.source_id,
            defaults=source.defaults,
            now=now,
            unique_id=unique_id,
            replaces={entry_uuids[key]: current[key].entry_uuid for key in made if key in current},
            transforms={entry_uuids[one.key]: entry_uuids[one.transforms] for one in due if one.transforms},
        )
        documents = [
            Published(
                document_unique_id=str(made[one.key].entry.unique_id),
                submission_unique_id=unique_id,
                study_instance_uid=known.study_instance_uid,
                key=one.key,
                entry_uuid=made[one.key].entry.entry_uuid,
                patient_id=patient_id,
                mime_type=str(made[one.key].entry.mime_type),
                instances=one.instances,
                listed=one.listed,
                sha1=hashlib.sha1(made[one.key].content, usedforsecurity=False).hexdigest(),
                content=made[one.key].content,
            )
            for one in due
        ]
        return Publication(
            submission_unique_id=unique_id,
            study_instance_uid=known.study_instance_uid,
            completes=completes,
            decided_at=now.timestamp(),
            submission=_to_text(submission),
            documents=tuple(documents),
            ends=tuple(current[key].document_unique_id for key in made if key in current),
        )

    def _withdrawal(self, known: Arrival, gone: Sequence[Published], *, completes: bool) -> Publication:
        """The submission that deprecates the entries of these documents, which are of one patient."""
        entries = " ".join(one.entry_uuid for one in gone)
        if self.update is None:
            _log.error(
                "entry %s of study %s can not be deprecated: no registry is known (imaging.registry_url)",
                entries,
                known.study_instance_uid,
            )
            raise PublishError(
                f"entry {entries} of study {known.study_instance_uid} is to be deprecated: no registry is known that"
                " could do so (imaging.registry_url)"
            )
        unique_id, now = new_uid(), self.now()
        submission = withdrawal(
            [one.entry_uuid for one in gone],
            patient_id=Identifier(gone[0].patient_id),
            source_id=self.source.source_id,
            defaults=self.source.defaults,
            now=now,
            unique_id=unique_id,
        )
        return Publication(
            submission_unique_id=unique_id,
            study_instance_uid=known.study_instance_uid,
            completes=completes,
            decided_at=now.timestamp(),
            submission=_to_text(submission),
            ends=tuple(one.document_unique_id for one in gone),
        )

    def _send(self, under_way: Publication) -> None:
        """One attempt. Failure, or whatever the transport raises, where it does not succeed."""
        submission = _of_text(under_way.submission)
        sent = self.publications.try_(under_way, self._seconds())
        try:
            if under_way.documents:
                contents = {one.entry_uuid: Document.of(one.content, one.mime_type) for one in under_way.documents}
                self.provide(submission, contents)
            elif self.update is None:
                raise PublishError("no registry is known that could deprecate an entry (imaging.registry_url)")
            else:
                self.update(submission)
        except Failure as failure:
            codes = {problem.code for problem in failure.problems}
            # Nobody else knows the ids: a duplicate is what an attempt of ours has registered.
            again = self.publications.tries(sent) > 1
            if not (again and ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY in codes):
                if codes and not codes & _NO_VERDICT:
                    self.publications.refused(sent)
                raise
        self.publications.succeeded(sent)
        for one in sent.documents:
            told = (one.key, sent.study_instance_uid, one.instances, one.document_unique_id)
            _log.info("%s of study %s published: %d instances, document %s", *told)
        if not sent.documents:
            _log.info("study %s: withdrawn %s", sent.study_instance_uid, ", ".join(sent.ends))

    def _failed(self, study: str, error: Exception) -> None:
        """What is told of in `xdsi studies` may name the patient; the log does not."""
        foreseen = isinstance(error, Failure | SoapFault | OSError | ValueError)
        name = type(error).__name__
        reason = (str(error) or name) if foreseen else f"internal error ({name}); the log has more"
        pause = self.publications.failed(study, reason[:_MAX_REASON_CHARS], self._seconds())
        codes = sorted({str(problem.code) for problem in error.problems}) if isinstance(error, Failure) else [name]
        text = "study %s could not be published (%s); it is tried again in %.0f s, and `xdsi studies` has the reason"
        _log.log(
            logging.WARNING if foreseen else logging.ERROR,
            text,
            study,
            ", ".join(codes),
            pause,
            exc_info=None if foreseen else error,
        )

    def _seconds(self) -> float:
        return self.now().timestamp()


def _to_text(submission: Submission) -> str:
    return json.dumps([rim.to_text(one) for one in submission.objects])


def _of_text(text: str) -> Submission:
    objects = list(rim.decode_fragments(json.loads(text)))
    return Submission(
        submission_sets=tuple(one for one in objects if isinstance(one, SubmissionSet)),
        document_entries=tuple(one for one in objects if isinstance(one, DocumentEntry)),
        associations=tuple(one for one in objects if isinstance(one, Association)),
    )
