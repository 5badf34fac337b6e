"""Performed procedure steps, durably: which studies are under way, and which are complete because all that their steps name is stored."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Engine, delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from imaging.publication.publication_rows import Step
from imaging.publication.publication_tables import performed_instance, performed_step, performed_step_study
from imaging.publication.publications import arrives
from imaging.tables import instance

_CHUNK = 1000
#: How long a step is known after it has changed last, in seconds; most that are known.
KEPT_S = 30 * 86_400.0
_MAX_STEPS = 20_000


class StepExists(ValueError):
    """A step with this SOP Instance UID is known."""


class NoSuchStep(ValueError):
    """No step with this SOP Instance UID is known."""


class StepIsFinal(ValueError):
    """It is completed or discontinued, and can not change any more (PS3.4 F.7.2.2.3)."""


class NothingPerformed(ValueError):
    """It is to be completed, and no series of it was ever named (PS3.4 table F.7.2-1: type 1 in the final state)."""


class TooManySteps(ValueError):
    """No more of them are taken."""


class PerformedSteps:
    """The rows. Every method is one transaction, and may be called from several threads and processes at once."""

    def __init__(self, engine: Engine) -> None:
        """`engine` has the tables of imaging.schema."""
        self._engine = engine
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    def begin(self, uid: str, studies: Collection[str], now: float) -> None:
        """A step is in progress; `studies` are those that it was scheduled for. StepExists, TooManySteps."""
        with self._engine.begin() as connection:
            _forget(connection, now - KEPT_S)
            if connection.execute(select(func.count()).select_from(performed_step)).scalar_one() >= _MAX_STEPS:
                raise TooManySteps
            row = {"sop_instance_uid": uid, "state": Step.IN_PROGRESS, "settled": False, "begun_at": now}
            try:
                connection.execute(insert(performed_step).values(**row, changed_at=now))
            except IntegrityError:
                raise StepExists from None
            rows = [{"step": uid, "study_instance_uid": one} for one in dict.fromkeys(studies)]
            if rows:
                connection.execute(insert(performed_step_study), rows)

    def change(self, uid: str, state: Step, instances: Sequence[str] | None, now: float) -> None:
        """What a step has become, and the SOP Instance UIDs that it names by now; None: no others than before.

        NoSuchStep, StepIsFinal, NothingPerformed; then nothing is changed.
        """
        this = performed_step.c.sop_instance_uid == uid
        with self._engine.begin() as connection:
            changing = update(performed_step).where(this, performed_step.c.state == Step.IN_PROGRESS)
            if not connection.execute(changing.values(state=state, changed_at=now)).rowcount:
                known = connection.execute(select(exists().where(this))).scalar()
                raise StepIsFinal if known else NoSuchStep
            if instances is None:
                named = select(exists().where(performed_instance.c.step == uid))
                if state == Step.COMPLETED and not connection.execute(named).scalar():
                    raise NothingPerformed
            else:
                connection.execute(delete(performed_instance).where(performed_instance.c.step == uid))
                rows = [{"step": uid, "sop_instance_uid": one} for one in dict.fromkeys(instances)]
                for start in range(0, len(rows), _CHUNK):
                    connection.execute(insert(performed_instance), rows[start : start + _CHUNK])

    def settle(self, now: float) -> None:
        """Of each step that has ended and of which all is stored, the studies are complete; they wait no more."""
        stored = exists().where(instance.c.sop_instance_uid == performed_instance.c.sop_instance_uid)
        named = performed_instance.c.step == performed_step.c.sop_instance_uid
        ended = select(performed_step.c.sop_instance_uid).where(
            performed_step.c.state != Step.IN_PROGRESS,
            performed_step.c.settled.is_(False),
            ~exists().where(named, ~stored),
        )
        with self._engine.begin() as connection:
            for step in sorted(connection.execute(ended).scalars()):
                this = update(performed_step).where(performed_step.c.sop_instance_uid == step)
                if not connection.execute(
                    this.where(performed_step.c.settled.is_(False)).values(settled=True)
                ).rowcount:
                    continue  # another process has seen it too
                of_step = select(instance.c.study_instance_uid).distinct()
                of_step = of_step.join(
                    performed_instance, performed_instance.c.sop_instance_uid == instance.c.sop_instance_uid
                )
                studies = connection.execute(of_step.where(performed_instance.c.step == step)).scalars()
                for study in sorted(studies):
                    connection.execute(arrives(self._insert, study, now, ready=True))
                connection.execute(delete(performed_instance).where(performed_instance.c.step == step))


def _forget(connection: Connection, before: float) -> None:
    """The steps that have not changed since then."""
    old = select(performed_step.c.sop_instance_uid).where(performed_step.c.changed_at < before)
    for table in (performed_instance, performed_step_study):
        connection.execute(delete(table).where(table.c.step.in_(old)))
    connection.execute(delete(performed_step).where(performed_step.c.changed_at < before))
