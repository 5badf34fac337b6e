"""Document Sources that submit without end, the ledger of what they were told, and the audit of what can be found and retrieved."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.messages import patient, submission
from registry.client import client as registry_client
from repository.client import client as repository_client
from schemas import rim_decode
from server.transport import http_transport
from soap.client import SoapClient
from soap.fault import SoapFault
from torture.clients import whole_or_what
from xds.messages import Document, DocumentRequest, Retrieved
from xds.metadata import DocumentEntry, Submission
from xds.problems import ErrorCode, Failure
from xds.queries import FindDocuments
from xds.vocabulary import Status

REPOSITORY = "1.2.3.4.77"
_PATIENTS = 12
_BATCH = 40
#: Contents that come again and again, under ever new uniqueIds.
_REPEATED = tuple(os.urandom(size) for size in (0, 1, 700, 20_000, 20_000, 90_000))

#: "stored" is what a source knows that had no answer first, and then that of a duplicate: it must be there when the sweep was.
Told = Literal["acknowledged", "stored", "refused", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One submission, and what its source was told of it in the end. `documents` is SHA-1 and size by uniqueId."""

    unique_id: str
    documents: Mapping[str, tuple[str, int]]
    told: Told
    codes: tuple[str, ...] = ()
    text: str = ""
    took_s: float = 0.0

    @property
    def document_ids(self) -> tuple[str, ...]:
        return tuple(self.documents)


def contents(chance: random.Random) -> list[bytes]:
    """One to three documents: mostly of 20 kB, from none to some millions of bytes; some have been seen before."""
    sizes = chance.choices((0, 1, 20_000, 70_000, 3_000_000), (2, 2, 80, 12, 4), k=chance.choice((1, 1, 2, 3)))
    return [chance.choice(_REPEATED) if chance.random() < 0.25 else chance.randbytes(size) for size in sizes]


class Sources:
    """Sources and a consumer of one repository and its registry. `give_up_s` is how long they wait for an answer."""

    def __init__(self, repository_url: str, registry_url: str, spool: Path, *, give_up_s: float = 60.0) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        transport = http_transport(connect_timeout_s=give_up_s, idle_timeout_s=give_up_s)
        self.provide, self.retrieve = repository_client(SoapClient(f"{repository_url}/repository", transport, spool))
        self.query = registry_client(SoapClient(f"{registry_url}/registry", transport, spool)).query
        self.ledger: list[Sent] = []
        #: What had no answer and is to be sent again: its place in the ledger, and all of it.
        self._unanswered: deque[tuple[int, Submission, Sequence[bytes]]] = deque()
        self._news = threading.Condition()
        self._ending = threading.Event()

    @contextmanager
    def at_work(self, count: int, chance: random.Random) -> Iterator[None]:
        """So many sources submit until the context ends; each has had its answer, or none, before this comes back."""
        self._ending.clear()
        with ThreadPoolExecutor(count) as pool:
            running = [pool.submit(self._work, random.Random(chance.random())) for _ in range(count)]
            try:
                yield
            finally:
                self._ending.set()
        for one in running:
            one.result()

    def wait_for(self, acknowledged: int, *, timeout_s: float = 120.0) -> None:
        """Until so many more are acknowledged."""
        begin, deadline = len(self.ledger), time.monotonic() + timeout_s
        with self._news:
            while sum(one.told == "acknowledged" for one in self.ledger[begin:]) < acknowledged:
                if not self._news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{len(self.ledger) - begin} answers within {timeout_s} s: {self.ledger[-3:]}")

    def _work(self, chance: random.Random) -> None:
        while not self._ending.is_set():
            documents = contents(chance)
            one = submission(patient(chance.randrange(_PATIENTS)), documents=len(documents))
            sent = self.send(one, documents)
            with self._news:
                self.ledger.append(sent)
                if sent.told == "unknown" and chance.random() < 0.5:
                    self._unanswered.append((len(self.ledger) - 1, one, documents))
                self._news.notify_all()
            if sent.told != "acknowledged":
                self._ending.wait(0.05)
            elif self._unanswered:
                self._send_again()

    def _send_again(self) -> None:
        """What had no answer, as a source would that wants to know: another server process may serve by now."""
        try:
            number, one, documents = self._unanswered.popleft()
        except IndexError:
            return
        sent = self._again(one, documents)
        if sent.told == "unknown":
            self._unanswered.append((number, one, documents))
        self.ledger[number] = sent

    def _again(self, one: Submission, documents: Sequence[bytes]) -> Sent:
        sent = self.send(one, documents)
        if ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY in sent.codes:
            return replace(sent, told="stored")
        return sent

    def submit(
        self, documents: Sequence[bytes], *, patient_number: int = 0, again: bool = False, spoiled: bool = False
    ) -> Sent:
        """One submission. `again`: where no answer came, the same is sent once more.

        `spoiled`: the registry must refuse it, for the second half of its documents has no class.
        """
        one = submission(patient(patient_number), documents=len(documents))
        if spoiled:
            half = len(documents) // 2
            classless = tuple(replace(entry, class_code=None) for entry in one.document_entries[half:])
            one = replace(one, document_entries=one.document_entries[:half] + classless)
        sent = self.send(one, documents)
        return self._again(one, documents) if again and sent.told == "unknown" else sent

    def send(self, one: Submission, documents: Sequence[bytes]) -> Sent:
        """Sends it, and says what the source was told."""
        given = {
            entry.entry_uuid: Document.of(content, "text/plain")
            for entry, content in zip(one.document_entries, documents, strict=True)
        }
        told: Told = "acknowledged"
        text, codes, began = "", (), time.monotonic()
        try:
            self.provide(one, given)
        except Failure as failure:
            told, text, codes = "refused", str(failure), tuple(str(problem.code) for problem in failure.problems)
            if ErrorCode.REGISTRY_NOT_AVAILABLE in codes:
                told = "unknown"
        except (SoapFault, OSError) as error:
            told, text = "unknown", str(error)
        return Sent(
            unique_id=str(one.submission_sets[0].unique_id),
            documents={
                str(entry.unique_id): (given[entry.entry_uuid].sha1, given[entry.entry_uuid].size)
                for entry in one.document_entries
            },
            told=told,
            codes=codes,
            text=text,
            took_s=time.monotonic() - began,
        )

    # --- what is there ------------------------------------------------------------------------------------------------

    def retrieved(self, sent: Sequence[Sent]) -> set[str]:
        """The uniqueIds of those documents that ITI-43 gives, with the right bytes. ValueError for wrong ones."""
        wanted = {uid: known for one in sent for uid, known in one.documents.items()}
        found = set()
        for batch in _batches(list(wanted)):
            requests = [DocumentRequest(repository_unique_id=REPOSITORY, document_unique_id=uid) for uid in batch]
            for answer in self.retrieve(requests):
                if isinstance(answer, Retrieved):
                    uid = answer.request.document_unique_id
                    content = answer.document.read()
                    if (hashlib.sha1(content).hexdigest(), len(content)) != wanted[uid]:
                        raise ValueError(
                            f"document {uid} has {len(content)} other bytes, not the {wanted[uid]} submitted"
                        )
                    found.add(uid)
                elif answer.code != ErrorCode.DOCUMENT_UNIQUE_ID_ERROR:
                    raise ValueError(f"{answer}")
        return found

    def registered(self) -> dict[str, DocumentEntry]:
        """Every entry of every patient that ITI-18 finds, by uniqueId."""
        found = {}
        for number in range(_PATIENTS):
            asked = FindDocuments(patient_id=patient(number), status=(Status.APPROVED, Status.DEPRECATED))
            for entry in rim_decode.decode_fragments(self.query(asked).fragments):
                if isinstance(entry, DocumentEntry):
                    found[str(entry.unique_id)] = entry
        return found


@dataclass(slots=True, kw_only=True)
class Audit:
    """What is wrong, by the uniqueId of the SubmissionSet or document; and how many there were of what is right."""

    lost: list[str] = field(default_factory=list)
    half: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)
    whole: int = 0
    absent: int = 0

    @property
    def faults(self) -> list[str]:
        """All of it in words."""
        return [
            *(f"acknowledged and lost: {one}" for one in self.lost),
            *(f"by half: {one}: {what}" for one, what in self.half.items()),
            *(f"neither registered nor gone: {one}" for one in self.stray),
        ]


def audit(sources: Sources, sent: Sequence[Sent], *, settled: bool, threads: int = 3) -> Audit:
    """Asks registry and repository for each submission, acknowledged or not: all of it must be there, or nothing.

    Before the sweep has `settled` what a crash left, documents that nobody registered may still be retrievable, and those of a
    registration whose answer was lost may not be so yet.
    """
    found = Audit()
    with ThreadPoolExecutor(threads) as pool:
        states = list(pool.map(lambda one: whole_or_what(sources.query, one.unique_id, one.document_ids), sent))
    there = sources.retrieved(sent)
    for one, state in zip(sent, states, strict=True):
        retrievable = [uid for uid in one.documents if uid in there]
        missing = len(one.documents) - len(retrievable)
        if state == "whole":
            found.whole += 1
            if missing and (settled or one.told == "acknowledged"):
                found.half[one.unique_id] = f"registered, and {missing} of {len(one.documents)} documents missing"
        elif state == "absent":
            found.absent += 1
            if settled:
                found.stray += retrievable
        else:
            found.half[one.unique_id] = state
        promised = one.told == "acknowledged" or (one.told == "stored" and settled)
        if promised and (state != "whole" or missing):
            found.lost.append(one.unique_id)
    return found


def unknown_entries(sources: Sources, sent: Sequence[Sent]) -> list[str]:
    """What the registry has beside what was sent, or with another hash or size: must be nothing."""
    known = {uid: facts for one in sent for uid, facts in one.documents.items()}
    return [
        uid
        for uid, entry in sources.registered().items()
        if known.get(uid) != ((entry.hash or "").lower(), int(entry.size or -1))
    ]


# --- the content directory, from the inside -----------------------------------------------------------------------------


def unsettled(data: Path) -> int:
    """How many rows of the catalogue wait for the sweep."""
    return sum(state != "available" for state, _, _ in _rows(data))


def orphans(data: Path) -> list[str]:
    """Copies without a row, rows without a copy, and what is left of unfinished messages."""
    rows = _rows(data)
    found = []
    files = {path.name for path in (data / "repository" / "content").rglob("*") if path.is_file()}
    for place, copies in (("files", files), ("catalogue", _small_copies(data))):
        named = {copy for _, its_place, copy in rows if its_place == place}
        found += [f"in {place} without a row: {copy}" for copy in copies - named]
        found += [f"row without its copy in {place}: {copy}" for copy in named - copies]
    return [*found, *(f"left in staging: {path.name}" for path in (data / "repository" / "staging").iterdir())]


def _rows(data: Path) -> list[tuple[str, str, str]]:
    return _catalogue(data, "SELECT state, place, copy FROM stored_document")


def _small_copies(data: Path) -> set[str]:
    return {copy for (copy,) in _catalogue(data, "SELECT copy FROM small_copy")}


def _catalogue(data: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{data / 'repository.sqlite'}?mode=ro", uri=True, timeout=60)) as connection:
        return connection.execute(statement).fetchall()


def _batches(all_of_them: list[str]) -> Iterator[list[str]]:
    for at in itertools.count(0, _BATCH):
        if at >= len(all_of_them):
            return
        yield all_of_them[at : at + _BATCH]


def told(sent: Sequence[Sent]) -> Counter[str]:
    """How many were told what, with the codes of errors."""
    return Counter(one.told if not one.codes else f"{one.told}: {', '.join(sorted(set(one.codes)))}" for one in sent)
