"""Clients that register and query over HTTP without end, the ledger of what they were told, and the audit of what the registry has."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.messages import patient, submission
from registry.client import Client
from registry.client import client as registry_client
from schemas import rim_decode
from server.transport import http_transport
from soap.client import SoapClient
from soap.fault import SoapFault
from xds.metadata import Association, DocumentEntry, Submission, SubmissionSet
from xds.problems import Failure
from xds.queries import GetDocuments, GetSubmissionSetAndContents, ReturnType
from xds.transactions import Query
from xds.vocabulary import AssociationType

#: A submission that was stored by half lacks some of these.
DOCUMENTS = 2
_PATIENTS = 50
#: How long a client is idle after an error, so that an outage is not answered by a flood.
_AFTER_ERROR_S = 0.05
_BATCH = 100

Told = Literal["acknowledged", "refused", "unknown"]
_INCIDENT = re.compile(r"incident [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
#: What a peer must never read: a traceback, the driver, a statement, an address of the database.
_INWARD = re.compile(r'Traceback|File "|psycopg|sqlalchemy|SELECT |INSERT |127\.0\.0\.1', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client was told, and when: seconds of the monotonic clock. `text` is that of an error."""

    told: Told
    sent_s: float
    answered_s: float
    text: str = ""
    unique_id: str = ""
    document_ids: tuple[str, ...] = ()

    @property
    def took_s(self) -> float:
        return self.answered_s - self.sent_s

    @property
    def is_proper(self) -> bool:
        """An error must say under which number the log has it, and nothing of what is inside."""
        return self.told == "acknowledged" or bool(_INCIDENT.search(self.text) and not _INWARD.search(self.text))


def without_number(text: str) -> str:
    """The text of an error as it can be counted."""
    return _INCIDENT.sub("incident N", text)


class Ledger:
    """Every answer, in the order in which they came."""

    def __init__(self) -> None:
        self.registrations: list[Answer] = []
        self.queries: list[Answer] = []
        #: uniqueIds of documents that were acknowledged and then, in a successful answer, not there.
        self.vanished: list[str] = []
        self._news = threading.Condition()

    def add(self, answer: Answer) -> None:
        with self._news:
            self.registrations.append(answer)
            self._news.notify_all()

    def wait_for(self, count: int, *, since_s: float, timeout_s: float) -> None:
        """Until so many submissions that were sent after `since_s` are acknowledged."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while (done := sum(1 for _ in _acknowledged(self.registrations, since_s))) < count:
                if not self._news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{done} of {count} registrations within {timeout_s} s; {self.last_text()}")

    def last_text(self) -> str:
        return next((one.text for one in reversed(self.registrations) if one.text), "no error")

    def count(self) -> Counter[Told]:
        return Counter(one.told for one in self.registrations)

    @staticmethod
    def outage_s(answers: Sequence[Answer], killed_s: float) -> float:
        """From the kill to the first success of what was sent after it."""
        return min(one.answered_s for one in _acknowledged(answers, killed_s)) - killed_s


def _acknowledged(answers: Sequence[Answer], since_s: float) -> Iterator[Answer]:
    return (
        one
        for one in itertools.takewhile(lambda one: one.answered_s > since_s, reversed(answers))
        if one.told == "acknowledged" and one.sent_s > since_s
    )


class Clients:
    """Document repositories, so to speak, and one consumer. `give_up_s` is how long they wait for an answer."""

    def __init__(self, url: str, spool: Path, *, give_up_s: float) -> None:
        transport = http_transport(connect_timeout_s=give_up_s, idle_timeout_s=give_up_s)
        self.registry: Client = registry_client(SoapClient(url, transport, spool))
        self.ledger = Ledger()
        self._ending = threading.Event()

    @contextmanager
    def at_work(self, registering: int) -> Iterator[None]:
        """So many clients register, and one asks for what was acknowledged last, until the context ends."""
        self._ending.clear()
        with ThreadPoolExecutor(registering + 1) as pool:
            running = [pool.submit(self._register, number) for number in range(registering)]
            running.append(pool.submit(self._query))
            try:
                yield
            finally:
                self._ending.set()
        for one in running:
            one.result()

    def _register(self, number: int) -> None:
        for turn in itertools.count():
            if self._ending.is_set():
                return
            one = submission(patient((turn * 7 + number) % _PATIENTS), documents=DOCUMENTS, registered=True)
            answer = self._timed(lambda one=one: self.registry.register(one), one)  # type: ignore[misc]
            self.ledger.add(answer)
            if answer.text:
                self._ending.wait(_AFTER_ERROR_S)

    def _query(self) -> None:
        """What was acknowledged is there for whoever asks next."""
        while not self._ending.wait(_AFTER_ERROR_S):
            last = next((one for one in reversed(self.ledger.registrations) if one.told == "acknowledged"), None)
            if last is not None:
                found: list[int] = []
                answer = self._timed(lambda last=last, found=found: found.append(self._present(last.document_ids)))  # type: ignore[misc]
                self.ledger.queries.append(answer)
                if found and found[0] != DOCUMENTS:
                    self.ledger.vanished.append(last.unique_id)

    def _timed(self, work: Callable[[], object], of: Submission | None = None) -> Answer:
        sent, told, text = time.monotonic(), "acknowledged", ""
        try:
            work()
        except Failure as failure:
            text = "; ".join(f"{one.code}: {one.context}" for one in failure.problems)
            told = "refused" if "nothing was stored" in text else "unknown"
        except SoapFault as fault:
            told, text = "unknown", f"fault: {fault.reason}"
        except OSError as error:
            told, text = "unknown", f"no answer: {error}"
        return Answer(
            told=told,  # type: ignore[arg-type]
            sent_s=sent,
            answered_s=time.monotonic(),
            text=text,
            unique_id="" if of is None else str(of.submission_sets[0].unique_id),
            document_ids=() if of is None else tuple(str(one.unique_id) for one in of.document_entries),
        )

    def _present(self, document_ids: Iterable[str]) -> int:
        asked = GetDocuments(unique_id=tuple(document_ids), return_type=ReturnType.OBJECT_REF)
        return sum(1 for _ in self.registry.query(asked).fragments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the registry has of all that was sent, by uniqueId of the SubmissionSet."""

    whole: frozenset[str]
    by_half: dict[str, str]


def audit(registry: Client, answers: Sequence[Answer], *, threads: int = 3) -> Audit:
    """Asks for each submission, acknowledged or not: all of it must be there, or nothing."""

    def state(one: Answer) -> str:
        return whole_or_what(registry.query, one.unique_id, one.document_ids)

    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(answers, pool.map(state, answers, chunksize=20), strict=True))
    # The same by another way: the documents alone, which must be there where their SubmissionSet is and nowhere else.
    stored = [one for one in answers if found[one] == "whole"]
    absent = [one for one in answers if found[one] == "absent"]
    by_half = {one.unique_id: state for one, state in found.items() if state not in ("whole", "absent")}
    by_half |= dict.fromkeys(_differing(registry, stored, DOCUMENTS), "documents are missing")
    by_half |= dict.fromkeys(_differing(registry, absent, 0), "documents without a SubmissionSet")
    return Audit(whole=frozenset(one.unique_id for one in stored), by_half=by_half)


def missing(registry: Client, answers: Sequence[Answer]) -> list[str]:
    """The acknowledged submissions of which a document is not there, by GetDocuments."""
    return _differing(registry, [one for one in answers if one.told == "acknowledged"], DOCUMENTS)


def _differing(registry: Client, answers: Sequence[Answer], expected: int) -> list[str]:
    """The submissions that have more or fewer than so many documents in the registry."""

    def present(some: Sequence[Answer]) -> int:
        ids = tuple(one for answer in some for one in answer.document_ids)
        asked = GetDocuments(unique_id=ids, return_type=ReturnType.OBJECT_REF)
        return sum(1 for _ in registry.query(asked).fragments)

    batches = [answers[at : at + _BATCH] for at in range(0, len(answers), _BATCH)]
    doubtful = [one for batch in batches if present(batch) != expected * len(batch) for one in batch]
    return [one.unique_id for one in doubtful if present([one]) != expected]


def whole_or_what(query: Query, unique_id: str, document_ids: Sequence[str]) -> str:
    """whole, absent, or what is wrong with what GetSubmissionSetAndContents gives."""
    fragments = list(query(GetSubmissionSetAndContents(unique_id=unique_id)).fragments)
    if not fragments:
        return "absent"
    objects = list(rim_decode.decode_fragments(fragments))
    sets = [one for one in objects if isinstance(one, SubmissionSet)]
    entries = [one for one in objects if isinstance(one, DocumentEntry)]
    links = [one for one in objects if isinstance(one, Association)]
    if [str(one.unique_id) for one in sets] != [unique_id]:
        return f"{len(sets)} SubmissionSets"
    if sorted(str(one.unique_id) for one in entries) != sorted(document_ids):
        return f"{len(entries)} of {len(document_ids)} DocumentEntries"
    members = {
        (one.source_object, one.target_object) for one in links if one.association_type == AssociationType.HAS_MEMBER
    }
    if members != {(sets[0].entry_uuid, one.entry_uuid) for one in entries}:
        return f"{len(members)} of {len(entries)} HasMember"
    return "whole"
