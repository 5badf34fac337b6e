"""Performed procedure steps (PS3.4 F.7, IHE RAD-6 and RAD-7) over real associations, and the studies that are published by them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association

from imaging import schema
from imaging.instances import Instances
from imaging.phantom import write_series
from imaging.publication.performed_steps import KEPT_S, NoSuchStep, PerformedSteps, TooManySteps
from imaging.publication.publication_rows import Step
from imaging.publication.publications import Publications
from imaging.receiving.mpps import MODALITY_PERFORMED_PROCEDURE_STEP
from registry.patients import add_patient
from server.compose import Domain
from server.config import Config
from server.embedded import serving
from tests.dimse import send
from tests.publication import APPROVED, ISSUER, Case, new_database, source_config, uids
from xds.values import Identifier

LONGEST_S = 5000.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    directory = tmp_path_factory.mktemp("mpps")
    return source_config(directory, mpps=True, mpps_longest_s=LONGEST_S, dimse_port=free_port())


@pytest.fixture(scope="module")
def domain(config: Config) -> Iterator[Domain]:
    with serving(config) as served:
        yield served


@pytest.fixture
def case(config: Config, domain: Domain) -> Case:
    """Nothing is published by itself after a pause."""
    made = Case(config, domain)
    made.publisher = replace(made.publisher, quiet_s=0.0)
    return made


@contextmanager
def associated(port: int) -> Iterator[Association]:
    ae = AE("MODALITY")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    ae.add_requested_context(MODALITY_PERFORMED_PROCEDURE_STEP, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def begun(*studies: str, **changes: str | None) -> Dataset:
    """What N-CREATE says; an attribute that is None is left out."""
    said = Dataset()
    said.ScheduledStepAttributesSequence = []
    for study in studies:
        scheduled = Dataset()
        scheduled.StudyInstanceUID, scheduled.AccessionNumber = study, "A1"
        said.ScheduledStepAttributesSequence.append(scheduled)
    said.PatientName, said.PatientID = "Muster^Eva", "MRN1"
    said.Modality, said.PerformedStationAETitle, said.PerformedProcedureStepID = "CT", "MODALITY", "P1"
    said.PerformedProcedureStepStartDate, said.PerformedProcedureStepStartTime = "20260201", "091500"
    said.PerformedProcedureStepStatus = "IN PROGRESS"
    for keyword, value in changes.items():
        if value is None:
            delattr(said, keyword)
        else:
            setattr(said, keyword, value)
    return said


def performed(status: str, *series: list[Dataset]) -> Dataset:
    """What N-SET says, with a series for each list of instances."""
    said = Dataset()
    said.PerformedProcedureStepStatus = status
    said.PerformedSeriesSequence = []
    for images in series:
        one = Dataset()
        one.SeriesInstanceUID = images[0].SeriesInstanceUID if images else generate_uid()
        one.ReferencedImageSequence = []
        for image in images:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
                image.SOPClassUID,
                image.SOPInstanceUID,
            )
            one.ReferencedImageSequence.append(reference)
        said.PerformedSeriesSequence.append(one)
    return said


def answer(status: Dataset) -> tuple[int, str, int]:
    return int(status.Status), str(status.get("ErrorComment", "")), int(status.get("ErrorID", 0) or 0)


class Modality:
    """Talks to the served program, each time on an association of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def create(self, said: Dataset, uid: str | None = None) -> tuple[tuple[int, str, int], str]:
        """The answer, and the step's UID."""
        uid = uid or str(generate_uid())
        with associated(self.port) as association:
            status, _ = association.send_n_create(said, MODALITY_PERFORMED_PROCEDURE_STEP, uid)
        return answer(status), uid

    def set(self, said: Dataset, uid: str) -> tuple[int, str, int]:
        with associated(self.port) as association:
            status, _ = association.send_n_set(said, MODALITY_PERFORMED_PROCEDURE_STEP, uid)
        return answer(status)

    def begin(self, *studies: str) -> str:
        """The UID of a step that has been taken."""
        told, uid = self.create(begun(*studies))
        assert told == (0x0000, "", 0)
        return uid


@pytest.fixture
def modality(config: Config, domain: Domain) -> Modality:
    return Modality(config.imaging.dimse_port)


# --- as a trigger ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_study_is_published_when_all_that_its_step_names_is_stored(
    case: Case, modality: Modality, status: str
) -> None:
    step = modality.begin(case.study)
    images = case.arrive(4)
    case.look()
    assert case.entries() == []
    assert modality.set(performed(status, images), step) == (0x0000, "", 0)
    case.look()
    assert case.listed() == uids(images)
    assert case.overview().state == "published"


def test_what_the_step_names_may_come_after_its_end(case: Case, modality: Modality) -> None:
    images = case.arrive(3)
    last = deepcopy(images[-1])
    last.SOPInstanceUID = generate_uid()
    step = modality.begin(case.study)
    assert modality.set(performed("COMPLETED", [*images, last]), step)[0] == 0x0000
    case.look()
    assert case.entries() == []
    case.store(last)
    case.look()
    assert case.listed() == uids([*images, last])


def test_a_study_waits_while_one_of_its_steps_is_in_progress(case: Case, modality: Modality) -> None:
    """Also where the pause is over, as with a second reconstruction that takes an hour."""
    quiet = replace(case.publisher, quiet_s=1.0)
    first, second = modality.begin(case.study), modality.begin(case.study)
    images = case.arrive(2)
    assert modality.set(performed("COMPLETED", images), first)[0] == 0x0000
    case.look(quiet)
    assert (case.entries(), case.overview().state) == ([], "waiting")
    more = case.arrive(1)
    assert modality.set(performed("DISCONTINUED", more), second)[0] == 0x0000
    case.look(quiet)
    assert case.listed() == uids([*images, *more])


def test_a_step_that_never_ends_keeps_its_study_waiting_for_so_long_and_no_longer(
    case: Case, modality: Modality
) -> None:
    quiet = replace(case.publisher, quiet_s=1.0)
    modality.begin(case.study)
    case.arrive()
    case.later_s = LONGEST_S - 100.0
    case.look(quiet)
    assert case.entries() == []
    case.later_s = LONGEST_S + 100.0
    case.look(quiet)
    assert len(case.entries(APPROVED)) == 1


def test_somebody_who_says_so_publishes_a_study_that_is_under_way(case: Case, modality: Modality) -> None:
    modality.begin(case.study)
    case.arrive()
    assert len(case.publisher.publish(case.study)) == 1


def test_what_comes_after_a_complete_study_waits_for_its_own_pause(case: Case, modality: Modality) -> None:
    images = case.arrive()
    step = modality.begin(case.study)
    modality.set(performed("COMPLETED", images), step)
    case.look()
    case.arrive(1)
    case.look()
    assert case.listed() == uids(images)
    assert case.overview().state == "waiting"


def test_a_step_that_acquired_nothing_publishes_nothing(case: Case, modality: Modality) -> None:
    case.arrive()
    step = modality.begin(case.study)
    assert modality.set(performed("DISCONTINUED"), step) == (0x0000, "", 0)
    case.look()
    assert case.entries() == []
    quiet = replace(case.publisher, quiet_s=1.0)
    case.look(quiet)
    assert len(case.entries(APPROVED)) == 1


def test_a_step_for_two_studies_completes_both(case: Case, config: Config, domain: Domain, modality: Modality) -> None:
    other = Case(config, domain)
    images, others = case.arrive(2), other.arrive(2)
    step = modality.begin(case.study, other.study)
    assert modality.set(performed("COMPLETED", images, others), step)[0] == 0x0000
    case.look()
    assert (case.listed(), other.listed()) == (uids(images), uids(others))


def test_the_server_publishes_by_itself_what_a_modality_has_sent_and_completed(tmp_path: Path) -> None:
    port = free_port()
    config = source_config(tmp_path, mpps=True, dimse_port=port, patient_map="same")
    config = replace(config, imaging=replace(config.imaging, publish_interval_s=0.05))
    with serving(config) as served:
        case = Case(config, served, known=False)
        case.patient = Identifier.of(case.local, ISSUER)
        add_patient(served.parts["registry"], case.patient)
        (tmp_path / "sent").mkdir()
        who = {"patient_id": case.local, "patient_name": "Muster^Eva", "study_instance_uid": case.study}
        files = list(write_series(tmp_path / "sent", slices=3, rows=16, columns=16, **who))
        modality = Modality(port)
        step = modality.begin(case.study)
        for file in files:
            assert send(port, file).Status == 0x0000
        named = [one.header() for one in case.instances.of_study(case.study)]
        assert modality.set(performed("COMPLETED", named), step)[0] == 0x0000
        for _ in range(6000):
            if case.entries(APPROVED):
                break
        assert case.listed() == uids(named)


# --- statuses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"PerformedProcedureStepStatus": "COMPLETED"},
            (0x0106, "PerformedProcedureStepStatus must be IN PROGRESS (0040,0252)"),
        ),
        ({"PerformedProcedureStepStatus": None}, (0x0120, "PerformedProcedureStepStatus is missing")),
        ({"PerformedProcedureStepStatus": ""}, (0x0121, "PerformedProcedureStepStatus is empty")),
        ({"PerformedProcedureStepID": None}, (0x0120, "PerformedProcedureStepID is missing")),
        ({"PerformedStationAETitle": ""}, (0x0121, "PerformedStationAETitle is empty")),
        ({"PerformedProcedureStepStartDate": None}, (0x0120, "PerformedProcedureStepStartDate is missing")),
        ({"Modality": None}, (0x0120, "Modality is missing")),
        ({"ScheduledStepAttributesSequence": None}, (0x0120, "ScheduledStepAttributesSequence is missing (0040,0270)")),
    ],
)
def test_a_step_that_lacks_something_is_not_taken(
    case: Case, modality: Modality, changes: dict[str, str | None], expected: tuple[int, str]
) -> None:
    told, uid = modality.create(begun(case.study, **changes))
    assert told == (*expected, 0)
    assert modality.set(performed("COMPLETED", case.arrive(1)), uid)[0] == 0x0112


def test_a_step_without_a_study_is_not_taken(modality: Modality) -> None:
    said = begun("1.2.3")
    del said.ScheduledStepAttributesSequence[0].StudyInstanceUID
    assert modality.create(said)[0] == (0x0120, "StudyInstanceUID is missing", 0)
    said.ScheduledStepAttributesSequence[0].StudyInstanceUID = "1.2.x"
    assert modality.create(said)[0] == (0x0106, "a StudyInstanceUID is no UID (0020,000D)", 0)
    assert modality.create(begun())[0][0] == 0x0120


def test_a_step_that_is_known_is_no_new_one(case: Case, modality: Modality) -> None:
    uid = modality.begin(case.study)
    assert modality.create(begun(case.study), uid)[0] == (0x0111, "a step with this SOP Instance UID exists", 0)


def test_a_step_that_is_not_known_can_not_change(modality: Modality) -> None:
    told = modality.set(performed("COMPLETED", []), "1.2.3.4")
    assert told == (0x0112, "no step with this SOP Instance UID exists", 0)


@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
@pytest.mark.parametrize("then", ["IN PROGRESS", "COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_may_no_longer_be_updated(case: Case, modality: Modality, final: str, then: str) -> None:
    """PS3.4 F.7.2.2.3."""
    images = case.arrive(1)
    uid = modality.begin(case.study)
    assert modality.set(performed(final, images), uid)[0] == 0x0000
    told = modality.set(performed(then, images), uid)
    assert told == (0x0110, "Performed Procedure Step Object may no longer be updated", 0xA710)
    bare = Dataset()
    bare.PerformedProcedureStepStatus = then
    assert modality.set(bare, uid) == told


def test_a_change_that_says_something_wrong_changes_nothing(case: Case, modality: Modality) -> None:
    images = case.arrive(1)
    uid = modality.begin(case.study)
    bare = Dataset()
    bare.PerformedProcedureStepStatus = "COMPLETED"
    needed = "a completed step needs PerformedSeriesSequence (0040,0340)"
    assert modality.set(bare, uid) == (0x0120, needed, 0)
    assert modality.set(performed("COMPLETED"), uid) == (0x0121, needed, 0)
    assert modality.set(performed("FINISHED", images), uid)[0] == 0x0106
    said = performed("COMPLETED", images)
    said.PerformedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.x"
    assert modality.set(said, uid) == (0x0106, "a ReferencedSOPInstanceUID is no UID (0008,1155)", 0)
    del said.PerformedSeriesSequence[0].SeriesInstanceUID
    assert modality.set(said, uid) == (0x0120, "SeriesInstanceUID is missing", 0)
    assert modality.set(performed("IN PROGRESS", images), uid)[0] == 0x0000
    # The series were named before.
    assert modality.set(bare, uid)[0] == 0x0000
    case.look()
    assert case.listed() == uids(images)


def test_nobody_takes_steps_where_it_is_not_configured(tmp_path: Path) -> None:
    port = free_port()
    with serving(source_config(tmp_path, dimse_port=port)), associated(port) as association:
        assert not association.accepted_contexts


# --- rows -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    made = schema.connect(new_database(request, tmp_path))
    schema.upgrade(made)
    yield made
    made.dispose()


def test_steps_and_what_they_complete_are_kept_on_either_database(engine: sa.Engine, tmp_path: Path) -> None:
    instances, publications, steps = Instances(engine, tmp_path / "files"), Publications(engine), PerformedSteps(engine)
    (tmp_path / "made").mkdir()
    (path,) = write_series(tmp_path / "made", slices=1, rows=16, columns=16, patient_id="M", patient_name="X")
    stored, _ = instances.add(path)
    instances.close()
    study = stored.study_instance_uid
    steps.begin("1.2.1", [study, study], now=100.0)
    steps.begin("1.2.2", ["1.9"], now=100.0)
    steps.change("1.2.1", Step.COMPLETED, [stored.sop_instance_uid], now=101.0)
    steps.change("1.2.2", Step.DISCONTINUED, ["1.2.3.4"], now=101.0)
    steps.settle(102.0)
    steps.settle(103.0)
    known = publications.study(study)
    assert known is not None
    assert (known.ready, known.state, known.revision) == (True, "waiting", 1)
    assert publications.due(104.0, 0.0, 10, LONGEST_S) == [study]
    steps.begin("1.2.3", [study], now=104.0)
    assert publications.due(105.0, 0.0, 10, LONGEST_S) == []
    assert publications.due(105.0 + LONGEST_S, 0.0, 10, LONGEST_S) == [study]


def test_old_steps_are_forgotten_and_there_are_never_too_many(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = PerformedSteps(engine)
    monkeypatch.setattr("imaging.publication.performed_steps._MAX_STEPS", 2)
    for number in (1, 2):
        steps.begin(f"1.2.{number}", ["1.9"], now=float(number))
    with pytest.raises(TooManySteps):
        steps.begin("1.2.3", ["1.9"], now=3.0)
    steps.change("1.2.2", Step.IN_PROGRESS, ["1.5"], now=4.0)
    steps.begin("1.2.3", ["1.9"], now=KEPT_S + 2.0)
    with pytest.raises(NoSuchStep):
        steps.change("1.2.1", Step.COMPLETED, ["1.5"], now=KEPT_S + 2.0)
    steps.change("1.2.2", Step.COMPLETED, None, now=KEPT_S + 2.0)
