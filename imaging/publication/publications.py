"""What is known of the publication of studies, durably: what has arrived, what was rejected, what is submitted and what is published."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from imaging.publication.publication_rows import (
    Arrival,
    Arrived,
    Overview,
    Publication,
    Published,
    Rejection,
    Standing,
    State,
    Step,
    Study,
)
from imaging.publication.publication_tables import (
    arrival,
    arrived,
    performed_step,
    performed_step_study,
    publication,
    published_document,
    rejected,
)
from imaging.tables import instance

_CHUNK = 500
#: The one of the dialect, which can say what is done where a row is there.
Insert = Callable[[Table], Any]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3600.0


class Publications:
    """The rows. Every method is one transaction, and may be called from several threads and processes at once."""

    def __init__(self, engine: Engine) -> None:
        """`engine` has the tables of imaging.schema."""
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    # --- what has come ------------------------------------------------------------------------------------------------

    def unseen(self, limit: int = 10_000) -> list[Arrived]:
        """Instances that `see` was not told of yet, the first ones first."""
        with self._reading.connect() as connection:
            rows = connection.execute(select(arrived).order_by(arrived.c.number).limit(limit))
            return [Arrived(**row._mapping) for row in rows]

    def has_unseen_notes(self) -> bool:
        """Whether a Key Object Selection is among them."""
        with self._reading.connect() as connection:
            return bool(connection.execute(select(exists().where(arrived.c.note != ""))).scalar())

    def see(self, seen: Sequence[Arrived], rejections: Iterable[Rejection], touched: Iterable[str]) -> None:
        """The studies of what has come wait anew, and so do those `touched` by the `rejections` that came with it."""
        last: dict[str, float] = {}
        for one in seen:
            last[one.study_instance_uid] = max(one.at, last.get(one.study_instance_uid, 0.0))
        with self._engine.begin() as connection:
            for numbers in _chunks([one.number for one in seen]):
                connection.execute(delete(arrived).where(arrived.c.number.in_(numbers)))
            rows = [asdict(one) for one in rejections]
            if rows:
                connection.execute(self._insert(rejected).on_conflict_do_nothing(), rows)
            # In one order, so that two processes do not wait for one another.
            for study in sorted(last):
                connection.execute(arrives(self._insert, study, last[study]))
            for study in sorted(set(touched) - set(last)):
                connection.execute(update(arrival).where(arrival.c.study_instance_uid == study).values(_AGAIN))

    def wait(self, study_instance_uid: str, at: float) -> None:
        """A study waits of which nothing has come: it is an archive's."""
        with self._engine.begin() as connection:
            connection.execute(arrives(self._insert, study_instance_uid, at))

    def rejections(self, sop_instance_uids: Collection[str]) -> dict[str, str]:
        """Those that a note has rejected, with its title's code: the first one where there are several."""
        found: dict[str, str] = {}
        with self._reading.connect() as connection:
            for chunk in _chunks(list(dict.fromkeys(sop_instance_uids))):
                chosen = select(rejected).where(rejected.c.sop_instance_uid.in_(chunk))
                for row in connection.execute(chosen.order_by(rejected.c.code)):
                    found.setdefault(row.sop_instance_uid, row.code)
        return found

    # --- what is to be done -------------------------------------------------------------------------------------------

    def due(self, now: float, quiet_s: float, limit: int, longest_step_s: float = 0.0) -> list[str]:
        """Studies to be looked after: with a submission that has not ended, failed, complete, and those with nothing new for `quiet_s`.

        A `quiet_s` of 0 stands for forever. One of which a procedure step began less than `longest_step_s` ago, and has not ended, is
        not due, unless it has a submission that has not ended.
        """
        unfinished = exists().where(
            publication.c.study_instance_uid == arrival.c.study_instance_uid, publication.c.state == State.SUBMITTING
        )
        restless = arrival.c.state.in_((Study.WAITING, Study.FAILED))
        wanted = [arrival.c.state == Study.FAILED, and_(arrival.c.state == Study.WAITING, arrival.c.ready)]
        if quiet_s:
            wanted.append(and_(arrival.c.state == Study.WAITING, arrival.c.last_at <= now - quiet_s))
        of_study = performed_step_study.c.study_instance_uid == arrival.c.study_instance_uid
        in_progress = exists().where(
            of_study,
            performed_step.c.sop_instance_uid == performed_step_study.c.step,
            performed_step.c.state == Step.IN_PROGRESS,
            performed_step.c.begun_at > now - longest_step_s,
        )
        wished = or_(*wanted) if not longest_step_s else and_(or_(*wanted), ~in_progress)
        chosen = select(arrival.c.study_instance_uid).where(restless, arrival.c.next_at <= now, or_(unfinished, wished))
        with self._reading.connect() as connection:
            return list(connection.execute(chosen.order_by(arrival.c.last_at).limit(limit)).scalars())

    def study(self, study_instance_uid: str) -> Arrival | None:
        with self._reading.connect() as connection:
            row = connection.execute(
                select(arrival).where(arrival.c.study_instance_uid == study_instance_uid)
            ).one_or_none()
        return Arrival(**row._mapping) if row else None

    def assign(self, study_instance_uid: str, patient_id: str, source_patient_id: str) -> None:
        """Keeps what an explicit publication says of the patient, for this manifest and those that replace it."""
        given = {"patient_id": patient_id, "source_patient_id": source_patient_id}
        self._change(study_instance_uid, revision=arrival.c.revision + 1, **{k: v for k, v in given.items() if v})

    def failed(self, study_instance_uid: str, reason: str, now: float) -> float:
        """Notes the reason, and when to try again: after a minute, then each time twice as long, an hour at most. The pause in seconds."""
        known = self.study(study_instance_uid)
        tries = known.tries + 1 if known else 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30))
        self._change(study_instance_uid, state=Study.FAILED, reason=reason, tries=tries, next_at=now + pause)
        return pause

    def retry(self, study_instance_uid: str) -> None:
        """It is tried again with the next look."""
        self._change(study_instance_uid, state=Study.FAILED, tries=0, next_at=0.0, reason="to be submitted anew")

    def unchanged(self, known: Arrival, state: Study, reason: str = "") -> None:
        """Nothing is to be published, unless something has come since `known` was read."""
        changes = {"state": state, "reason": reason, "tries": 0, "next_at": 0.0, "ready": False}
        self._change(known.study_instance_uid, arrival.c.revision == known.revision, **changes)

    def _change(self, study_instance_uid: str, *conditions: Any, **changes: Any) -> None:
        chosen = update(arrival).where(arrival.c.study_instance_uid == study_instance_uid, *conditions)
        with self._engine.begin() as connection:
            connection.execute(chosen.values(**changes))

    # --- submissions --------------------------------------------------------------------------------------------------

    def submitting(self, study_instance_uid: str) -> Publication | None:
        """The submission of a study that has not ended."""
        under_way = select(publication).where(
            publication.c.study_instance_uid == study_instance_uid, publication.c.state == State.SUBMITTING
        )
        with self._reading.connect() as connection:
            row = connection.execute(under_way.order_by(publication.c.decided_at.desc()).limit(1)).one_or_none()
            if row is None:
                return None
            of_study = published_document.c.study_instance_uid == study_instance_uid
            own = published_document.c.submission_unique_id == row.submission_unique_id
            ended = and_(of_study, published_document.c.ended_by == row.submission_unique_id)
            return Publication(
                **row._mapping,
                documents=_documents(connection, own),
                ends=tuple(one.document_unique_id for one in _documents(connection, ended)),
            )

    def current(self, study_instance_uid: str) -> tuple[Published, ...]:
        """The documents of a study that are published, in the order of their keys."""
        of_study = published_document.c.study_instance_uid == study_instance_uid
        with self._reading.connect() as connection:
            return _documents(connection, of_study, published_document.c.state == Standing.PUBLISHED)

    def decide(self, decided: Publication, known: Arrival) -> Publication | None:
        """Makes a submission durable before it is sent; None if something has happened to the study since `known` was read."""
        row = replace(decided, revision=known.revision + 1)
        with self._engine.begin() as connection:
            same = update(arrival).where(
                arrival.c.study_instance_uid == known.study_instance_uid, arrival.c.revision == known.revision
            )
            if not connection.execute(same.values(revision=row.revision, state=Study.WAITING, ready=False)).rowcount:
                return None
            connection.execute(insert(publication).values({name: getattr(row, name) for name in publication.c.keys()}))  # noqa: SIM118
            if row.documents:
                connection.execute(insert(published_document), [asdict(one) for one in row.documents])
            for ended in _chunks(row.ends):
                those = update(published_document).where(published_document.c.document_unique_id.in_(ended))
                connection.execute(those.values(ended_by=row.submission_unique_id))
        return row

    def try_(self, submission: Publication, now: float) -> Publication:
        """Counts one more attempt, before it is made; nobody else makes one by itself in the next minute."""
        one = publication.c.submission_unique_id == submission.submission_unique_id
        with self._engine.begin() as connection:
            connection.execute(update(publication).where(one).values(tries=publication.c.tries + 1))
            tries = connection.execute(select(publication.c.tries).where(one)).scalar_one()
            of_study = arrival.c.study_instance_uid == submission.study_instance_uid
            connection.execute(update(arrival).where(of_study).values(next_at=now + _FIRST_PAUSE_S))
        return replace(submission, tries=tries)

    def succeeded(self, submission: Publication) -> None:
        """It is carried out: its documents are published, and those that it ends are replaced or withdrawn.

        If it completes the study, that rests, unless something has come meanwhile; else the study is looked at once more.
        """
        study = submission.study_instance_uid
        this = publication.c.submission_unique_id == submission.submission_unique_id
        old = Standing.REPLACED if submission.documents else Standing.WITHDRAWN
        with self._engine.begin() as connection:
            ending = update(publication).where(this, publication.c.state == State.SUBMITTING)
            if not connection.execute(ending.values(state=State.DONE, submission="")).rowcount:
                return  # another process has made the same attempt
            own, ended = _own(submission), _ended(submission)
            connection.execute(update(published_document).where(own).values(state=Standing.PUBLISHED, content=b""))
            connection.execute(update(published_document).where(ended).values(state=old))
            of_study = update(arrival).where(arrival.c.study_instance_uid == study)
            connection.execute(of_study.values(tries=0, next_at=0.0, reason=""))
            if not submission.completes:
                connection.execute(
                    of_study.values(state=Study.FAILED, reason="what is left to be done is looked at next")
                )
                return
            connection.execute(of_study.where(arrival.c.state == Study.FAILED).values(state=Study.WAITING))
            connection.execute(of_study.where(arrival.c.revision == submission.revision).values(state=Study.PUBLISHED))

    def tries(self, submission: Publication) -> int:
        """How many attempts have begun by now, those of other processes included."""
        this = publication.c.submission_unique_id == submission.submission_unique_id
        with self._reading.connect() as connection:
            return int(connection.execute(select(publication.c.tries).where(this)).scalar_one())

    def refused(self, submission: Publication) -> bool:
        """It was refused for good, and another one is to be made; False if a later attempt is under way, which has its own verdict."""
        this = publication.c.submission_unique_id == submission.submission_unique_id
        last = and_(publication.c.state == State.SUBMITTING, publication.c.tries == submission.tries)
        with self._engine.begin() as connection:
            ending = update(publication).where(this, last)
            if not connection.execute(ending.values(state=State.REFUSED, submission="")).rowcount:
                return False
            own, ended = update(published_document).where(_own(submission)), _ended(submission)
            connection.execute(own.values(state=Standing.REFUSED, content=b""))
            connection.execute(update(published_document).where(ended).values(ended_by=""))
            return True

    # --- for people ---------------------------------------------------------------------------------------------------

    def overview(self) -> list[Overview]:
        """Every study that is stored, or was published from an archive, the latest one first."""
        counted = (
            select(
                instance.c.study_instance_uid,
                func.max(instance.c.patient_id).label("patient_id"),
                func.count().label("instances"),
            )
            .group_by(instance.c.study_instance_uid)
            .subquery()
        )
        document = published_document.c
        manifests = [
            func.max(case((document.key == key, document.document_unique_id)))
            for key in ("manifest", "mado-kos", "mado-fhir")
        ]
        published = (
            select(
                document.study_instance_uid,
                func.coalesce(*manifests).label("document_unique_id"),
                func.count().label("documents"),
                func.max(document.instances).label("instances"),
            )
            .where(document.state == Standing.PUBLISHED)
            .group_by(document.study_instance_uid)
            .subquery()
        )
        every = union(select(counted.c.study_instance_uid), select(arrival.c.study_instance_uid)).subquery()
        of_study = every.c.study_instance_uid
        statement = (
            select(
                of_study,
                func.coalesce(counted.c.patient_id, "").label("patient_id"),
                func.coalesce(counted.c.instances, published.c.instances, 0).label("instances"),
                func.coalesce(arrival.c.last_at, 0.0).label("last_at"),
                func.coalesce(arrival.c.state, Study.WAITING).label("state"),
                func.coalesce(published.c.document_unique_id, "").label("document_unique_id"),
                func.coalesce(published.c.documents, 0).label("documents"),
                func.coalesce(arrival.c.tries, 0).label("tries"),
                func.coalesce(arrival.c.reason, "").label("reason"),
            )
            .outerjoin(counted, counted.c.study_instance_uid == of_study)
            .outerjoin(arrival, arrival.c.study_instance_uid == of_study)
            .outerjoin(published, published.c.study_instance_uid == of_study)
            .order_by(arrival.c.last_at.desc(), of_study)
        )
        with self._reading.connect() as connection:
            return [Overview(**row._mapping) for row in connection.execute(statement)]


def arrives(insert: Insert, study: str, at: float, *, ready: bool = False) -> Executable:
    """The statement by which a study waits, anew if it is known; a complete one stays so until it is published."""
    new = {"state": Study.WAITING, "revision": 1, "patient_id": "", "source_patient_id": ""}
    statement = insert(arrival).values(
        study_instance_uid=study, last_at=at, tries=0, next_at=0.0, reason="", ready=ready, **new
    )
    later = case((statement.excluded.last_at > arrival.c.last_at, statement.excluded.last_at), else_=arrival.c.last_at)
    changes = {**_AGAIN, "last_at": later, **({"ready": True} if ready else {})}
    made: Executable = statement.on_conflict_do_update(index_elements=[arrival.c.study_instance_uid], set_=changes)
    return made


def _documents(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Published, ...]:
    rows = connection.execute(select(published_document).where(*conditions).order_by(published_document.c.key))
    return tuple(Published(**row._mapping) for row in rows)


def _own(submission: Publication) -> ColumnElement[bool]:
    return published_document.c.submission_unique_id == submission.submission_unique_id


def _ended(submission: Publication) -> ColumnElement[bool]:
    of_study = published_document.c.study_instance_uid == submission.study_instance_uid
    return and_(of_study, published_document.c.ended_by == submission.submission_unique_id)


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


_AGAIN: Mapping[Any, Any] = {
    "state": Study.WAITING,
    "revision": arrival.c.revision + 1,
    "tries": 0,
    "next_at": 0.0,
    "reason": "",
}
