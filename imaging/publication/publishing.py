"""When and how the manifests of studies are published: once each is complete, anew when it has changed, and never twice (RAD TF-2 4.68).

A submission is decided and made durable with all its ids before it is sent, and is sent again, the very same, until there is a verdict. If
it comes to the registry a second time, the answer XDSDuplicateUniqueIdInRegistry says that the first attempt had succeeded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from imaging import kos
from imaging.archive import Archive
from imaging.instances import Instance, Instances
from imaging.publication.code_map import CodeMap
from imaging.publication.mapping import ImagingDefaults
from imaging.publication.patient_map import PatientOf
from imaging.publication.publications import Arrival, Publication, Publications, Study
from imaging.publication.rad68_provide import (
    MIME_TYPE,
    PublishError,
    local_patient_id,
    manifest_submission,
    new_uid,
    withdrawal,
)
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
class Source:
    """What the source says of itself in manifests and their metadata."""

    source_id: str
    retrieve_ae_title: str
    retrieve_location_uid: str
    retrieve_url: str | None = None
    defaults: ImagingDefaults
    codes: CodeMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Publishes studies. Several may work on one database: what one has decided the others carry out, if it does not.

    `update` is ITI-57, by which an entry is deprecated; None where no registry is known. `patient_of` gives the affinity domain's id.
    A study is complete when nothing has come for `quiet_s` seconds; with 0 none is by itself.
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

    def look(self, limit: int = 1_000_000) -> int:
        """Publishes what is due, and tries again what has failed, `limit` studies at most; how many studies were looked after."""
        see_arrivals(self.instances, self.publications)
        due = self.publications.due(self._seconds(), self.quiet_s, limit)
        for study in due:
            try:
                self._publish(study, at_once=False)
            except Exception as error:
                self._failed(study, error)
        return len(due)

    def publish(
        self, study_instance_uid: str, *, patient_id: str = "", source_patient_id: str = ""
    ) -> Publication | None:
        """Publishes a study now. What is published of it, or, without a document, its withdrawal; None if it has nothing to be listed.

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
            return self._publish(study_instance_uid, at_once=True)
        except Exception as error:
            self._failed(study_instance_uid, error)
            raise

    def _publish(self, study: str, *, at_once: bool) -> Publication | None:
        """Ends the submission that is under way, and makes others until what is published is what is stored.

        Unless it is to be done `at_once`, what has come since a manifest was decided waits for its own quiet period.
        """
        done: Publication | None = None
        for _ in range(_ROUNDS):
            # Before all else that is looked at: what is decided upon an older state is not taken.
            known = self.publications.study(study)
            assert known is not None
            if under_way := self.publications.submitting(study):
                done = self._send(under_way)
                if done.document_unique_id and not at_once:
                    return done
            listed = to_list(self._of_study(study), self._rejected)
            current = self.publications.current(study)
            misplaced = current is not None and known.patient_id not in ("", current.patient_id)
            if current and current.listed == _digest(listed) and not misplaced:
                self.publications.unchanged(known, Study.PUBLISHED)
                return done or current
            if not listed and not current:
                self.publications.unchanged(known, Study.WITHDRAWN, "there is no instance that is not rejected")
                return done
            # No association of replacement leads from one patient to another (ITI TF-2 3.42.4.1.3).
            withdrawn = misplaced or not listed
            decided = self._withdrawal(known, current) if withdrawn else self._manifest(known, listed, current)
            self.publications.decide(decided, known)
        raise PublishError(f"study {study} changes faster than it is published")

    def _of_study(self, study: str) -> list[Instance]:
        stored = self.instances.of_study(study)
        return stored if self.archive is None or is_here(stored) else self.archive.of_study(study)

    def _rejected(self, sop_instance_uids: Collection[str]) -> dict[str, str]:
        return rejected(sop_instance_uids, instances=self.instances, publications=self.publications)

    def _manifest(self, known: Arrival, listed: Sequence[Instance], current: Publication | None) -> Publication:
        """The submission of a manifest of what is listed, which replaces the current one."""
        source, now, headers = self.source, self.now(), self.instances.headers(listed)
        content = self._content(headers, now)
        local_id = Identifier(known.source_patient_id or local_patient_id(headers, source.defaults))
        # A replacement is of the patient that the first manifest was of (ITI TF-2 3.42.4.1.3).
        patient_id = current.patient_id if current else known.patient_id or self.patient_of(local_id)
        submission = manifest_submission(
            content,
            _one_per_series(listed, headers),
            patient_id=Identifier(patient_id),
            source_id=source.source_id,
            defaults=source.defaults,
            now=now,
            submission_unique_id=new_uid(),
            source_patient_id=local_id,
            replaces=current.entry_uuid if current else None,
            codes=source.codes,
        )
        (entry,) = submission.document_entries
        return Publication(
            submission_unique_id=str(submission.submission_sets[0].unique_id),
            study_instance_uid=known.study_instance_uid,
            document_unique_id=str(entry.unique_id),
            entry_uuid=entry.entry_uuid,
            patient_id=patient_id,
            instances=len(listed),
            listed=_digest(listed),
            decided_at=now.timestamp(),
            submission=_to_text(submission),
            content=content,
        )

    def _content(self, headers: Sequence[Dataset], now: datetime) -> bytes:
        source = self.source
        return kos.build(
            headers,
            retrieve_ae_title=source.retrieve_ae_title,
            retrieve_location_uid=source.retrieve_location_uid,
            retrieve_url=source.retrieve_url,
            now=now,
            new_uid=new_uid,
            institution=source.defaults.institution or None,
            accession_issuer=source.defaults.accession_issuer or None,
            patient_id_issuer=source.defaults.source_patient_issuer or None,
        )

    def _withdrawal(self, known: Arrival, current: Publication | None) -> Publication:
        """The submission that deprecates the current entry."""
        assert current is not None
        if self.update is None:
            _log.error(
                "entry %s of study %s can not be deprecated: no registry is known (imaging.registry_url)",
                current.entry_uuid,
                known.study_instance_uid,
            )
            raise PublishError(
                f"entry {current.entry_uuid} of study {known.study_instance_uid} is to be deprecated: no registry is known that"
                " could do so (imaging.registry_url)"
            )
        unique_id, now = new_uid(), self.now()
        submission = withdrawal(
            current.entry_uuid,
            patient_id=Identifier(current.patient_id),
            source_id=self.source.source_id,
            defaults=self.source.defaults,
            now=now,
            unique_id=unique_id,
        )
        return Publication(
            submission_unique_id=unique_id,
            study_instance_uid=known.study_instance_uid,
            document_unique_id="",
            entry_uuid=current.entry_uuid,
            patient_id=current.patient_id,
            instances=0,
            listed=_digest(()),
            decided_at=now.timestamp(),
            submission=_to_text(submission),
            content=b"",
        )

    def _send(self, under_way: Publication) -> Publication:
        """One attempt. Failure, or whatever the transport raises, where it does not succeed."""
        submission = _of_text(under_way.submission)
        sent = self.publications.try_(under_way, self._seconds())
        try:
            if under_way.document_unique_id:
                self.provide(submission, {under_way.entry_uuid: Document.of(under_way.content, MIME_TYPE)})
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
        _log.info(
            "study %s: %s of %d instances, manifest %s",
            sent.study_instance_uid,
            "published" if sent.document_unique_id else "withdrawn",
            sent.instances,
            sent.document_unique_id or "-",
        )
        return sent

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


def _one_per_series(listed: Sequence[Instance], headers: Sequence[Dataset]) -> list[Dataset]:
    """The metadata are made of attributes that a series has in common."""
    series: dict[str, Dataset] = {}
    for one, header in zip(listed, headers, strict=True):
        series.setdefault(one.series_instance_uid, header)
    return list(series.values())


def _digest(listed: Sequence[Instance]) -> str:
    lines = sorted(f"{one.series_instance_uid} {one.sop_instance_uid}\n" for one in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _to_text(submission: Submission) -> str:
    return json.dumps([rim.to_text(one) for one in submission.objects])


def _of_text(text: str) -> Submission:
    objects = list(rim.decode_fragments(json.loads(text)))
    return Submission(
        submission_sets=tuple(one for one in objects if isinstance(one, SubmissionSet)),
        document_entries=tuple(one for one in objects if isinstance(one, DocumentEntry)),
        associations=tuple(one for one in objects if isinstance(one, Association)),
    )
