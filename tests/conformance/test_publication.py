"""When and how the manifest of a study is published, replaced and withdrawn (RAD TF-2 4.68, RAD TF-3 4.68; IOCM for rejection notes).

A server with all actors over HTTP; time is what the publisher is told.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from imaging import kos, schema, tables
from imaging.instances import Instances
from imaging.phantom import ct_series
from imaging.publication.patient_map import patient_map
from imaging.publication.publication_rows import Arrived, Publication, Published
from imaging.publication.publications import Publications
from imaging.publication.publishing import Publisher
from imaging.publication.rad68_provide import PublishError
from imaging.publication.rejections import see_arrivals
from schemas import rim
from server import publishing
from server.compose import Domain, now
from server.config import Config, ConfigError
from server.embedded import serving
from tests.conftest import configured
from tests.publication import APPROVED, DEPRECATED, DOMAIN, ISSUER, QUIET_S, Case, new_database, source_config, uids
from xds.messages import (
    Document,
    Outcome,
)
from xds.metadata import Association, Submission
from xds.problems import Failure, fail
from xds.queries import GetAssociations
from xds.transactions import Provide
from xds.values import Identifier
from xds.vocabulary import AssociationType


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return source_config(tmp_path_factory.mktemp("publication"))


@pytest.fixture(scope="module")
def domain(config: Config) -> Iterator[Domain]:
    with serving(config) as served:
        yield served


@pytest.fixture
def case(config: Config, domain: Domain) -> Case:
    return Case(config, domain)


# --- complete -------------------------------------------------------------------------------------------------------


def test_a_study_is_published_once_nothing_has_come_for_the_quiet_period(case: Case) -> None:
    images = case.arrive()
    case.later_s = QUIET_S / 2
    case.look()
    assert case.entries() == []
    assert (case.overview().state, case.overview().instances) == ("waiting", 3)
    case.later_s = QUIET_S + 1
    case.look()
    (entry,) = case.entries()
    assert (entry.availability_status, entry.unique_id) == (APPROVED, case.overview().document_unique_id)
    assert case.listed() == uids(images)
    assert case.overview().state == "published"


def test_nothing_is_published_where_nothing_has_changed(case: Case) -> None:
    images = case.arrive()
    case.look()
    before = case.entries()
    case.store(images[0])
    case.look()
    (again,) = case.publisher.publish(case.study)
    assert again.document_unique_id == before[0].unique_id
    assert case.entries() == before


def test_without_a_quiet_period_a_study_is_published_when_somebody_says_so(case: Case) -> None:
    case.arrive()
    manual = replace(case.publisher, quiet_s=0.0)
    manual.look()
    assert case.entries() == []
    assert len(manual.publish(case.study)) == 1
    assert len(case.entries(APPROVED)) == 1


def test_a_study_that_is_not_stored_is_refused(case: Case) -> None:
    with pytest.raises(PublishError, match=r"no instance of study 1\.2\.3 is stored"):
        case.publisher.publish("1.2.3")


@pytest.mark.parametrize("crash", [False, True])
def test_a_study_that_was_published_of_the_wrong_patient_is_withdrawn_and_published_of_the_right_one(
    case: Case, monkeypatch: pytest.MonkeyPatch, crash: bool
) -> None:
    images = case.arrive()
    case.look()
    wrong, case.patient = case.patient, Identifier.of(f"{case.local}-right", DOMAIN)
    case.make_known()
    if crash:
        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(Publisher, "_provision", crashed)
            case.publisher.publish(case.study, patient_id=case.patient)
        case.look(replace(case.publisher, quiet_s=0.0))
    else:
        case.publisher.publish(case.study, patient_id=case.patient)
    assert case.listed() == uids(images)
    assert (len(case.entries()), case.overview().state) == (1, "published")
    case.patient = wrong
    assert [one.availability_status for one in case.entries()] == [DEPRECATED]


def test_the_server_publishes_by_itself_what_another_process_has_stored(tmp_path: Path) -> None:
    made = configured(tmp_path, patients="open")
    settings = replace(
        made.imaging,
        publish_after_s=0.01,
        publish_interval_s=0.01,
        source_patient_issuer=ISSUER,
        patient_map="same",
    )
    config = replace(made, imaging=settings)
    with serving(config) as served:
        case = Case(config, served)
        case.patient = Identifier.of(case.local, ISSUER)
        images = case.arrive()
        for _ in range(6000):
            if case.entries(APPROVED) and case.listed() == uids(images):
                break
            case.publications.study(case.study)
        assert case.listed() == uids(images)


def test_a_source_without_a_repository_looks_at_what_comes(tmp_path: Path) -> None:
    made = configured(tmp_path)
    imaging = replace(made.imaging, publish_interval_s=0.01, publish_after_s=0.01)
    config = replace(made, server=replace(made.server, actors="imaging"), imaging=imaging)
    with serving(config) as served:
        instances, publications = served.parts["instances"], served.parts["publications"]
        (image,) = ct_series(slices=1, rows=16, columns=16, patient_id="M", patient_name="X")
        file = io.BytesIO()
        image.save_as(file, enforce_file_format=True)
        instances.add_bytes(file.getvalue())
        for _ in range(1_000_000):
            if publications.study(image.StudyInstanceUID) is not None:
                break
        assert publications.unseen() == []
        assert publications.overview()[0].state == "waiting"


# --- late instances -------------------------------------------------------------------------------------------------


def test_late_instances_make_a_manifest_that_replaces_the_old_one(case: Case) -> None:
    first = case.arrive()
    case.look()
    old = kos.read(case.manifest())
    late = case.arrive(2)
    case.look()
    new = kos.read(case.manifest())
    assert case.listed() == uids(first + late)
    assert new.sop_instance_uid != old.sop_instance_uid
    assert new.series_instance_uid != old.series_instance_uid
    assert new.study_instance_uid == old.study_instance_uid == case.study
    (approved,), (deprecated,) = case.entries(APPROVED), case.entries(DEPRECATED)
    assert deprecated.unique_id == old.sop_instance_uid
    result = case.ask(GetAssociations(uuid=(approved.entry_uuid,)))
    replacements = [
        (one.source_object, one.target_object)
        for one in rim.decode_fragments(result.fragments)
        if isinstance(one, Association) and one.association_type == AssociationType.RPLC
    ]
    assert replacements == [(approved.entry_uuid, deprecated.entry_uuid)]


def test_what_comes_while_a_manifest_is_submitted_is_in_the_next_one(case: Case) -> None:
    first = case.arrive()
    late: list[Dataset] = []

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        if not late:
            late.extend(case.arrive(1))
            see_arrivals(case.instances, case.publications)
        return case.publisher.provide(submission, documents)

    case.look(replace(case.publisher, provide=provide))
    case.look()
    assert case.listed() == uids(first + late)
    assert (len(case.entries()), case.overview().state) == (2, "published")


@pytest.mark.parametrize("quiet_s", [0.0, 5000.0])
def test_what_comes_after_a_lost_answer_waits_until_it_is_due_itself(case: Case, quiet_s: float) -> None:
    first = case.arrive()
    lost = losing_the_answer(case.publisher.provide, OSError("the connection is gone"))
    with pytest.raises(OSError, match="is gone"):
        replace(case.publisher, provide=lost).publish(case.study)
    late = case.arrive(1)
    patient = replace(case.publisher, quiet_s=quiet_s)
    case.look(patient)
    assert (case.listed(), case.overview().state) == (uids(first), "waiting")
    case.look(patient)
    assert len(case.entries()) == 1
    patient.publish(case.study)
    assert (case.listed(), case.overview().state) == (uids(first + late), "published")


# --- crashes --------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is no more."""


def crashed(*_: object, **__: object) -> object:
    raise Crash


def crash_before_the_decision(case: Case, patch: pytest.MonkeyPatch) -> Publisher:
    patch.setattr(case.publications, "decide", crashed)
    return case.publisher


def crash_before_the_attempt(case: Case, patch: pytest.MonkeyPatch) -> Publisher:
    patch.setattr(case.publications, "try_", crashed)
    return case.publisher


def crash_before_it_is_sent(case: Case, patch: pytest.MonkeyPatch) -> Publisher:
    return replace(case.publisher, provide=crashed)  # type: ignore[arg-type]


def crash_before_the_answer(case: Case, patch: pytest.MonkeyPatch) -> Publisher:
    return replace(case.publisher, provide=losing_the_answer(case.publisher.provide, Crash()))


def crash_after_the_answer(case: Case, patch: pytest.MonkeyPatch) -> Publisher:
    patch.setattr(case.publications, "succeeded", crashed)
    return case.publisher


def losing_the_answer(provide: Provide, error: BaseException) -> Provide:
    def lost(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        provide(submission, documents)
        raise error

    return lost


Crashing = Callable[[Case, pytest.MonkeyPatch], Publisher]
CRASHES: list[Crashing] = [
    crash_before_the_decision,
    crash_before_the_attempt,
    crash_before_it_is_sent,
    crash_before_the_answer,
    crash_after_the_answer,
]


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("replacing", [False, True])
def test_after_a_crash_a_manifest_is_published_and_only_once(
    case: Case, monkeypatch: pytest.MonkeyPatch, crash: Crashing, replacing: bool
) -> None:
    images = case.arrive()
    if replacing:
        case.look()
        images += case.arrive(1)
    with monkeypatch.context() as patch:
        crashing = crash(case, patch)
        with pytest.raises(Crash):
            case.look(crashing)
    decided = case.publications.submitting(case.study)
    case.later_s += 61.0
    case.look()
    assert case.listed() == uids(images)
    assert len(case.entries()) == (2 if replacing else 1)
    assert case.overview().state == "published"
    if decided is not None:
        assert case.overview().document_unique_id == decided.documents[0].document_unique_id
    assert (decided is None) is (crash is crash_before_the_decision)


def test_the_same_submission_is_sent_again_when_no_answer_has_come(case: Case) -> None:
    case.arrive()
    sent: list[tuple[Submission, bytes]] = []

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        sent.append((submission, next(iter(documents.values())).read()))
        outcome = case.publisher.provide(submission, documents)
        if len(sent) == 1:
            raise OSError("the connection is gone")
        return outcome

    watched = replace(case.publisher, provide=provide)
    case.look(watched)
    assert (case.overview().state, case.overview().reason) == ("failed", "the connection is gone")
    case.look(watched)
    assert len(sent) == 1
    case.later_s += 61.0
    case.look(watched)
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert (case.overview().state, len(case.entries())) == ("published", 1)


def test_a_duplicate_at_the_first_attempt_is_a_failure(case: Case) -> None:
    """The ids can only be known to the registry from an attempt of our own."""
    case.arrive()

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        case.publisher.provide(submission, documents)
        return case.publisher.provide(submission, documents)

    with pytest.raises(Failure, match="XDSDuplicateUniqueIdInRegistry"):
        replace(case.publisher, provide=provide).publish(case.study)
    assert case.overview().state == "failed"


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("XDSRegistryNotAvailable", True),
        ("XDSRegistryBusy", True),
        ("XDSRepositoryError", True),
        ("XDSRegistryMetadataError", False),
    ],
)
def test_what_is_no_verdict_keeps_the_submission_and_a_refusal_ends_it(case: Case, code: str, same: bool) -> None:
    case.arrive()
    sent: list[Submission] = []

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        if submission.document_entries[0].source_patient_id == Identifier.of(case.local, ISSUER):
            sent.append(submission)
        if len(sent) == 1:
            raise fail(code, "said by the registry")
        return case.publisher.provide(submission, documents)

    watched = replace(case.publisher, provide=provide)
    case.look(watched)
    case.later_s += 61.0
    case.look(watched)
    assert (sent[0] == sent[1]) is same
    assert (len(sent), case.overview().state, len(case.entries())) == (2, "published", 1)


def test_several_that_publish_one_study_at_the_same_time_publish_it_once(case: Case) -> None:
    images = case.arrive()
    together = threading.Barrier(4)

    def publish(_: int) -> str:
        together.wait(timeout=60)
        (made,) = case.publisher.publish(case.study)
        return made.document_unique_id

    with ThreadPoolExecutor(4) as threads:
        published = set(threads.map(publish, range(4)))
    (entry,) = case.entries()
    assert published == {entry.unique_id}
    assert case.listed() == uids(images)
    assert case.overview().state == "published"


def test_what_another_has_decided_meanwhile_is_carried_out_and_not_decided_again(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other looks and decides between two looks of the first, and has not sent it yet."""
    case.arrive()
    looks = case.publications.submitting

    def unheard(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        raise OSError("no answer")

    def submitting(study: str) -> Publication | None:
        found = looks(study)
        monkeypatch.setattr(case.publications, "submitting", looks)
        with pytest.raises(OSError, match="no answer"):
            replace(case.publisher, provide=unheard).publish(case.study)
        return found

    monkeypatch.setattr(case.publications, "submitting", submitting)
    (made,) = case.publisher.publish(case.study)
    assert case.publications.submitting(case.study) is None
    (entry,) = case.entries()
    assert entry.unique_id == made.document_unique_id


def test_a_second_attempt_that_overtakes_the_first_is_no_failure(case: Case) -> None:
    case.arrive()

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        under_way = case.publications.submitting(case.study)
        assert under_way is not None
        # Another process begins an attempt of its own, and is the first to be heard.
        case.publications.try_(under_way, now().timestamp())
        case.publisher.provide(submission, documents)
        return case.publisher.provide(submission, documents)

    assert len(replace(case.publisher, provide=provide).publish(case.study)) == 1
    assert (len(case.entries()), case.overview().state) == (1, "published")


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_refused_study_is_told_and_tried_again_until_its_patient_is_known(config: Config, domain: Domain) -> None:
    case = Case(config, domain, known=False)
    case.arrive()
    case.look()
    found = case.overview()
    assert (found.state, found.tries, found.document_unique_id) == ("failed", 1, "")
    assert "XDSUnknownPatientId" in found.reason
    case.make_known()
    case.look()
    assert case.overview().tries == 1
    case.later_s += 61.0
    case.look()
    assert (case.overview().state, case.overview().reason) == ("published", "")


def test_the_pauses_between_attempts_grow_to_an_hour(case: Case) -> None:
    case.arrive()
    see_arrivals(case.instances, case.publications)
    pauses = [case.publications.failed(case.study, "no answer", 0.0) for _ in range(8)]
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert case.study not in case.publications.due(3599.0, 0.0, 1_000_000)
    assert case.study in case.publications.due(3600.0, 0.0, 1_000_000)


def test_new_instances_of_a_failed_study_make_it_wait_anew(config: Config, domain: Domain) -> None:
    case = Case(config, domain, known=False)
    case.arrive()
    case.look()
    case.make_known()
    case.arrive()
    case.look()
    assert case.overview().state == "published"


def test_what_nobody_foresaw_of_one_study_keeps_no_other_from_being_published(
    config: Config, domain: Domain, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Case(config, domain)
    bad.arrive()
    case.arrive()

    def provide(submission: Submission, documents: Mapping[str, Document]) -> Outcome:
        if submission.document_entries[0].source_patient_id == Identifier.of(bad.local, ISSUER):
            raise KeyError("a fault in the program")
        return case.publisher.provide(submission, documents)

    case.look(replace(case.publisher, provide=provide))
    assert case.overview().state == "published"
    assert bad.overview().state == "failed"
    assert "internal error" in bad.overview().reason
    assert bad.local not in caplog.text


# --- rejection notes ------------------------------------------------------------------------------------------------

TITLES = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}


@pytest.mark.parametrize("code", TITLES)
def test_what_a_note_rejects_is_not_given_any_more_and_the_manifest_is_replaced(case: Case, code: str) -> None:
    images = case.arrive(4)
    case.look()
    note = case.reject(images[:2], code)
    assert case.retrieved(images[0]) == (
        f"XDSDocumentUniqueIdError: instance {images[0].SOPInstanceUID} is rejected: {code} {TITLES[code]}"
    )
    assert case.retrieved(images[2]) == images[2].SOPInstanceUID
    case.look()
    assert case.listed() == uids(images[2:])
    assert note not in case.listed()
    assert [len(case.entries(APPROVED)), len(case.entries(DEPRECATED))] == [1, 1]


def test_when_every_instance_is_rejected_the_entry_is_deprecated_without_a_successor(case: Case) -> None:
    images = case.arrive()
    case.look()
    case.reject(images, "113039")
    case.look()
    assert [len(case.entries(APPROVED)), len(case.entries(DEPRECATED))] == [0, 1]
    assert (case.overview().state, case.overview().document_unique_id) == ("withdrawn", "")
    late = case.arrive(1)
    case.look()
    assert case.listed() == uids(late)


def test_a_withdrawal_whose_answer_was_lost_is_found_to_be_done(case: Case) -> None:
    images = case.arrive()
    case.look()
    case.reject(images, "113039")
    update = case.publisher.update
    assert update is not None

    def lost(submission: Submission) -> Outcome:
        update(submission)
        raise OSError("the connection is gone")

    case.look(replace(case.publisher, update=lost))
    assert case.overview().state == "failed"
    case.later_s += 61.0
    case.look()
    assert (case.overview().state, len(case.entries(APPROVED))) == ("withdrawn", 0)


def test_without_a_registry_a_withdrawal_says_what_is_missing(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    images = case.arrive()
    case.look()
    case.reject(images, "113039")
    case.look(replace(case.publisher, update=None))
    assert len(case.entries(APPROVED)) == 1
    assert "imaging.registry_url" in case.overview().reason
    (entry,) = case.entries(APPROVED)
    told = f"entry {entry.entry_uuid} of study {case.study} can not be deprecated: no registry is known"
    assert told in caplog.text


def test_what_was_rejected_before_it_was_published_is_never_listed(case: Case) -> None:
    images = case.arrive()
    case.reject(images, "113037")
    case.look()
    assert case.entries() == []
    assert case.overview().state == "withdrawn"
    late = case.arrive(1)
    case.look()
    assert case.listed() == uids(late)


def test_a_note_may_come_before_what_it_rejects(case: Case) -> None:
    images = case.arrive(2)
    (late,) = ct_series(
        slices=1, rows=16, columns=16, patient_id=case.local, patient_name="Muster^Eva", study_instance_uid=case.study
    )
    case.reject([late], "113001")
    case.look()
    case.store(late)
    case.look()
    assert case.listed() == uids(images)
    assert "is rejected" in case.retrieved(late)
    assert len(case.entries()) == 1


def test_a_manifest_or_a_broken_note_that_arrives_rejects_nothing(case: Case) -> None:
    images = case.arrive()
    case.look()
    case.store(pydicom.dcmread(io.BytesIO(case.manifest())))
    broken = Dataset()
    broken.SOPClassUID, broken.SOPInstanceUID = kos.KEY_OBJECT_SELECTION, generate_uid()
    broken.StudyInstanceUID, broken.SeriesInstanceUID = case.study, generate_uid()
    broken.PatientID = case.local
    broken.file_meta = images[0].file_meta
    broken.file_meta.MediaStorageSOPClassUID = broken.SOPClassUID
    broken.file_meta.MediaStorageSOPInstanceUID = broken.SOPInstanceUID
    case.store(broken)
    case.look()
    assert case.retrieved(images[0]) == images[0].SOPInstanceUID
    assert case.listed() == uids(images) | {str(broken.SOPInstanceUID)}


# --- patients -------------------------------------------------------------------------------------------------------


def test_the_patient_ids_of_the_domain_come_from_a_file_that_may_grow(
    config: Config, domain: Domain, tmp_path: Path
) -> None:
    case = Case(config, domain)
    path = tmp_path / "patients.csv"
    path.write_text("# local, domain\nMRN0,P0^^^&1.2.3.10&ISO\n")
    mapped = replace(case.publisher, patient_of=patient_map(str(path)))
    case.arrive()
    case.look(mapped)
    assert case.overview().state == "failed"
    assert f"Patient ID {case.local}^^^&{ISSUER}&ISO" in case.overview().reason
    path.write_text(f"{case.local}^^^&{ISSUER}&ISO,{case.patient}\n")
    case.later_s += 61.0
    case.look(mapped)
    assert case.overview().state == "published"
    assert len(case.entries(APPROVED)) == 1


def test_an_id_with_its_issuer_goes_before_one_without(tmp_path: Path) -> None:
    path = tmp_path / "patients.toml"
    path.write_text('"M1" = "P1^^^&1.2.3&ISO"\n"M1^^^&1.2.9&ISO" = "P2^^^&1.2.3&ISO"\n')
    patient_of = patient_map(str(path))
    assert patient_of(Identifier("M1^^^&1.2.9&ISO")) == "P2^^^&1.2.3&ISO"
    assert patient_of(Identifier("M1^^^&1.2.8&ISO")) == "P1^^^&1.2.3&ISO"


def test_the_same_ids_are_taken_of_the_domains_issuer_only() -> None:
    patient_of = patient_map("same", source_patient_issuer="1.2.9")
    assert patient_of(Identifier("M1^^^&1.2.9&ISO")) == "M1^^^&1.2.9&ISO"
    with pytest.raises(PublishError, match=r"is not of 1\.2\.9"):
        patient_of(Identifier("M1^^^&1.2.8&ISO"))
    with pytest.raises(PublishError, match=r"imaging\.patient_map"):
        patient_map("")(Identifier("M1^^^&1.2.9&ISO"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.toml", "M1 = 7", "is not a string"),
        ("p.toml", '"M1" = "P1"', "is not of the form"),
        ("p.toml", "M1", "p.toml: "),
        ("p.csv", "M1,P1^^^&1.2.3&ISO,more", "line 1 has 3 cells"),
        ("p.csv", "M1,P1^^^&1.2.3&ISO\nM1,P2^^^&1.2.3&ISO", "line 2 gives 'M1' another patient id"),
    ],
)
def test_a_file_of_patient_ids_that_can_not_be_used_names_the_fault(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=reason):
        patient_map(str(tmp_path / name))
    with pytest.raises(ValueError, match="No such file"):
        patient_map(str(tmp_path / "none.csv"))


@pytest.mark.parametrize("key", ["patient_map", "code_map"])
def test_a_configuration_with_a_map_that_can_not_be_read_can_not_be_used(
    config: Config, case: Case, tmp_path: Path, key: str
) -> None:
    wrong = replace(config, imaging=replace(config.imaging, **{key: str(tmp_path / "none.toml")}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"imaging\.{key}: .*none\.toml: No such file"):
        publishing.publisher(wrong, case.instances, case.publications, provide=case.publisher.provide)


# --- objects and tables ---------------------------------------------------------------------------------------------


def test_dciodvfy_finds_no_error_in_any_kind_of_manifest(case: Case, tmp_path: Path) -> None:
    """The first one, one of late instances, and one that some were rejected of."""
    steps: list[Callable[[], object]] = [
        lambda: images.extend(case.arrive()),
        lambda: images.extend(case.arrive(1)),
        lambda: case.reject(images[:2], "113001"),
    ]
    images: list[Dataset] = []
    for number, step in enumerate(steps):
        step()
        case.look()
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(case.manifest())
        program = Path(sys.executable).parent / "dciodvfy"
        report = subprocess.run([program, path], capture_output=True, text=True, check=False)
        assert report.returncode == 0, report.stderr
        assert "Error" not in report.stderr
        assert [one for one in kos.check(path.read_bytes()) if one.level == "error"] == []
    assert len(case.entries(DEPRECATED)) == 2


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    made = schema.connect(new_database(request, tmp_path))
    schema.upgrade(made)
    yield made
    made.dispose()


def test_the_migrations_make_the_tables_that_the_code_uses(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "imaging_version"})
        assert compare_metadata(context, tables.metadata) == []


def test_what_is_stored_has_arrived_and_every_step_is_kept_on_either_database(
    engine: sa.Engine, tmp_path: Path
) -> None:
    instances, publications = Instances(engine, tmp_path / "files"), Publications(engine)
    (image,) = ct_series(slices=1, rows=16, columns=16, patient_id="M", patient_name="X", study_instance_uid="1.2.3")
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    instances.add_bytes(file.getvalue())
    instances.close()
    (seen,) = publications.unseen()
    assert (seen.study_instance_uid, seen.note) == ("1.2.3", "")
    assert abs(seen.at - now().timestamp()) < 86_400
    see_arrivals(instances, publications)
    assert publications.unseen() == []
    assert publications.due(seen.at + 99.0, 100.0, 10) == []
    assert publications.due(seen.at + 100.0, 100.0, 10) == ["1.2.3"]
    known = publications.study("1.2.3")
    assert known is not None
    document = Published(
        document_unique_id="2.25.2",
        submission_unique_id="2.25.1",
        study_instance_uid="1.2.3",
        key="manifest",
        entry_uuid="urn:uuid:1",
        patient_id="P",
        mime_type="application/dicom",
        instances=1,
        listed="x",
        sha1="y",
        content=b"manifest",
    )
    made = Publication(
        submission_unique_id="2.25.1",
        study_instance_uid="1.2.3",
        completes=True,
        decided_at=1.0,
        submission="[]",
        documents=(document,),
    )
    decided = publications.decide(made, known)
    assert publications.decide(replace(made, submission_unique_id="2.25.3"), known) is None
    assert publications.submitting("1.2.3") == decided
    assert decided is not None
    sent = publications.try_(decided, seen.at)
    assert sent.tries == 1
    publications.see([Arrived(number=99, study_instance_uid="1.2.3", note="", at=seen.at + 5.0)], (), ())
    publications.succeeded(sent)
    publications.succeeded(sent)
    (found,) = publications.overview()
    assert (found.state, found.document_unique_id, found.last_at) == ("waiting", "2.25.2", seen.at + 5.0)
