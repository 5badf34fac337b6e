"""The content store on a real SQLite database, with copies in the catalogue, in real files, and in a real object storage."""

from __future__ import annotations

import errno
import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, delete, insert, select

from repository import tables
from repository.documents import Documents, Staged
from repository.objects import Objects, Service
from repository.schema import connect, upgrade
from repository.sweep import Swept, sweep
from schemas import rim
from xds.messages import Document, Outcome, QueryResult
from xds.metadata import DocumentEntry
from xds.problems import Failure, Problem
from xds.queries import GetDocuments, StoredQuery
from xds.values import Oid, Sha1, Size, UniqueId

MEBIBYTE = 1024 * 1024
REPOSITORY = "1.3.6.1.4.1.21367.2010.1.2.1125"
LETTER = Document.of(b"Dear colleague, thank you for referring.", "text/plain;charset=utf-8")
OTHER = Document.of(b"An entirely different letter.", "text/plain")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'catalogue.db'}")
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture(params=["catalogue", "files", "objects"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the copies of the store are."""
    return str(request.param)


@pytest.fixture
def store(engine: Engine, tmp_path: Path, place: str, request: pytest.FixtureRequest) -> Iterator[Documents]:
    objects = None
    if place == "objects":
        service: Service = request.getfixturevalue("object_storage")
        objects = Objects(replace(service, prefix=tmp_path.name))
    in_catalogue_bytes = 64 * MEBIBYTE if place == "catalogue" else -1
    now = lambda: 1_000_000.0  # noqa: E731
    made = Documents(engine, tmp_path / "store", now=now, place=objects, in_catalogue_bytes=in_catalogue_bytes)
    yield made
    made.close()


def copies(store: Documents) -> list[str]:
    """Every copy that there is, in whichever place; what is left in staging counts."""
    with store.catalogue.database.engine.connect() as connection:
        small = list(connection.scalars(select(tables.small_copy.c.copy)))
    large = [name for place in store.places.values() for name in place.names()]
    return [*small, *large, *(path.name for path in store.staging.iterdir())]


def change(store: Documents, content: bytes | None) -> None:
    """Puts other bytes in place of the one copy, or none."""
    (copy,) = copies(store)
    with store.catalogue.database.transaction([]) as connection:
        connection.run(delete(tables.small_copy), {})
        if content is not None:
            connection.run(insert(tables.small_copy), {"copy": copy, "content": content})
    for place in store.places.values():
        if place.has(copy):
            place.remove([copy])
            if content is not None:
                place.put({copy: Document.of(content, "x/y")})


def rows(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(tables.stored_document.c.state)))


def spooled(store: Documents, content: bytes) -> Document:
    """A document as the receiver of a message leaves it: a file in the staging area."""
    path = store.staging / "part-1"
    path.write_bytes(content)
    sha1 = hashlib.sha1(content).hexdigest()
    return Document(size=len(content), sha1=sha1, mime_type="x/y", open=lambda: path.open("rb"), path=path)


def given(store: Documents, unique_id: str) -> bytes | None:
    document = store.get(unique_id)
    return None if document is None else document.read()


def test_the_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "repository_version"})
        assert compare_metadata(context, tables.metadata) == []


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(engine: Engine, store: Documents) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    upgrade(engine)
    assert given(store, "1.2") == LETTER.read()


def test_a_staged_document_is_given_out_before_the_registry_has_spoken(store: Documents) -> None:
    """A consumer may find the entry before the repository hears that it is registered (ITI TF-2 3.41.4.1.3)."""
    store.stage({"1.2": LETTER})
    document = store.get("1.2")
    assert document is not None
    assert (document.read(), document.mime_type, document.sha1) == (LETTER.read(), LETTER.mime_type, LETTER.sha1)


def test_a_committed_document_survives_a_restart(engine: Engine, store: Documents, tmp_path: Path) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    again = Documents(engine, tmp_path / "store", place=store.places.get("objects"))
    assert given(again, "1.2") == LETTER.read()
    assert rows(engine) == ["available"]


def test_a_document_of_no_bytes_is_a_document(store: Documents) -> None:
    store.commit(store.stage({"1.2": Document.of(b"", "text/plain")}))
    assert given(store, "1.2") == b""


@pytest.mark.parametrize("unique_id", ["../../etc/passwd", "urn:uuid:../..", "/etc/passwd", "1.2^' OR 1=1 --", "ü/…"])
def test_no_file_is_named_by_what_came_over_the_wire(store: Documents, tmp_path: Path, unique_id: str) -> None:
    store.commit(store.stage({unique_id: LETTER}))
    assert given(store, unique_id) == LETTER.read()
    (name,) = copies(store)
    assert len(name) == 32 and set(name) <= set("0123456789abcdef")
    assert {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()} <= {name}


def test_a_discarded_document_leaves_neither_file_nor_row(engine: Engine, store: Documents, tmp_path: Path) -> None:
    store.discard(store.stage({"1.2": LETTER, "1.3": OTHER}))
    assert (given(store, "1.2"), copies(store), rows(engine)) == (None, [], [])


def test_a_quarantined_document_is_kept_and_not_given_out(engine: Engine, store: Documents, tmp_path: Path) -> None:
    store.quarantine(store.stage({"1.2": LETTER}))
    assert given(store, "1.2") is None
    assert len(copies(store)) == 1


of_files = pytest.mark.parametrize("place", ["files"], indirect=True)


@of_files
def test_the_file_of_a_spooled_part_is_taken_over_and_not_copied(store: Documents, tmp_path: Path) -> None:
    document = spooled(store, b"x" * 5000)
    assert document.path is not None
    inode = document.path.stat().st_ino
    store.commit(store.stage({"1.2": document}))
    assert [path.stat().st_ino for path in (tmp_path / "store").rglob("*") if path.is_file()] == [inode]


@of_files
@pytest.mark.parametrize("has_file", [True, False], ids=["taken over", "copied"])
def test_bytes_are_synced_before_they_get_their_name_and_then_the_name_is(
    store: Documents, monkeypatch: pytest.MonkeyPatch, has_file: bool
) -> None:
    document = spooled(store, b"x" * 5000) if has_file else LETTER
    calls: list[tuple[str, int]] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def recorded_rename(source: Path, target: Path) -> None:
        calls.append(("rename", source.stat().st_ino))
        rename(source, target)
        calls.append(("into", target.parent.stat().st_ino))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    store.stage({"1.2": document})
    *_, synced, (_, inode), (_, directory), last = calls
    assert (synced, last) == (("fsync", inode), ("fsync", directory))


@of_files
def test_a_document_is_not_there_before_its_bytes_are(store: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes | None] = []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        seen.append(given(store, "1.2"))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    store.stage({"1.2": LETTER})
    assert (seen, given(store, "1.2")) == ([None], LETTER.read())


def test_the_same_bytes_may_come_again_and_the_stored_ones_are_kept(store: Documents, tmp_path: Path) -> None:
    """ITI TF-3 4.2.4.1, XDSNonIdenticalHash."""
    store.commit(store.stage({"1.2": LETTER}))
    again = store.stage({"1.2": LETTER})
    assert again == Staged(keys=())
    store.discard(again)
    assert given(store, "1.2") == LETTER.read()
    assert len(copies(store)) == 1


def test_other_bytes_for_a_stored_unique_id_are_refused_and_nothing_of_the_submission_stays(store: Documents) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    with pytest.raises(Failure) as refused:
        store.stage({"1.2": OTHER, "1.3": OTHER})
    assert [problem.code for problem in refused.value.problems] == ["XDSNonIdenticalHash"]
    assert "1.2" in refused.value.problems[0].context
    assert (given(store, "1.2"), given(store, "1.3")) == (LETTER.read(), None)


@pytest.mark.parametrize("first_succeeds", [True, False])
def test_of_two_submissions_with_one_document_each_has_bytes_of_its_own(
    engine: Engine, store: Documents, tmp_path: Path, first_succeeds: bool
) -> None:
    first, second = store.stage({"1.2": LETTER}), store.stage({"1.2": LETTER})
    (store.commit if first_succeeds else store.discard)(first)
    assert given(store, "1.2") == LETTER.read()
    store.commit(second)
    assert given(store, "1.2") == LETTER.read()
    assert (rows(engine), len(copies(store))) == (["available"], 1)


def test_nothing_is_given_out_while_two_submissions_disagree_about_the_bytes(store: Documents) -> None:
    first, second = store.stage({"1.2": LETTER}), store.stage({"1.2": OTHER})
    assert given(store, "1.2") is None
    store.discard(first)
    store.commit(second)
    assert given(store, "1.2") == OTHER.read()


def test_of_two_registered_documents_that_differ_the_first_is_given_out_for_ever(store: Documents) -> None:
    first, second = store.stage({"1.2": LETTER}), store.stage({"1.2": OTHER})
    store.commit(second)
    store.commit(first)
    assert given(store, "1.2") == OTHER.read()


@of_files
@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_fault_while_storing_leaves_nothing(
    engine: Engine, store: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failing: int
) -> None:
    calls = 0
    real = {"fsync": os.fsync, "rename": os.rename}[call]

    def fault(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)  # type: ignore[operator]

    monkeypatch.setattr(os, call, fault)
    with pytest.raises(OSError, match="No space left"):
        store.stage({"1.1": LETTER, "1.2": OTHER, "1.3": Document.of(b"third", "text/plain")})
    monkeypatch.undo()
    # What has failed is removed, which syncs once more.
    assert (calls >= failing, copies(store), rows(engine)) == (True, [], [])
    store.commit(store.stage({"1.1": LETTER}))
    assert given(store, "1.1") == LETTER.read()


@pytest.mark.parametrize(
    ("size", "sha1"), [(LETTER.size + 1, LETTER.sha1), (LETTER.size, OTHER.sha1)], ids=["size", "hash"]
)
def test_bytes_that_are_not_what_was_announced_are_not_stored(
    engine: Engine, store: Documents, tmp_path: Path, size: int, sha1: str
) -> None:
    changed = Document(size=size, sha1=sha1, mime_type="x/y", open=LETTER.open)
    with pytest.raises(Failure, match="changed while it was being stored"):
        store.stage({"1.2": changed})
    assert (copies(store), rows(engine)) == ([], [])


@pytest.mark.parametrize("size", [1000, 2 * MEBIBYTE], ids=["from memory", "streamed"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "grown", "missing"])
def test_damaged_bytes_are_never_given_out(store: Documents, tmp_path: Path, size: int, damage: str) -> None:
    store.commit(store.stage({"1.2": Document.of(b"x" * size, "text/plain")}))
    match damage:
        case "flipped":
            change(store, b"x" * (size - 1) + b"y")
        case "truncated":
            change(store, b"x" * (size - 1))
        case "grown":
            change(store, b"x" * (size + 1))
        case "missing":
            change(store, None)
    with pytest.raises(Failure) as refused:
        store.get("1.2")
    (problem,) = refused.value.problems
    assert (problem.code, problem.location) == ("XDSRepositoryError", "1.2")
    assert str(tmp_path) not in problem.context


@pytest.mark.parametrize("unique_id", ["", "1" * 257, "1.2\x00", "1.3"])
def test_what_is_not_stored_or_can_not_be_is_none(store: Documents, unique_id: str) -> None:
    assert store.get(unique_id) is None


@pytest.mark.parametrize("place", ["files", "objects"], indirect=True)
def test_a_document_of_64_mebibytes_goes_through_in_constant_memory(
    store: Documents, tmp_path: Path, place: str
) -> None:
    size, path = 64 * MEBIBYTE, tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(size)
    with path.open("rb") as stream:
        sha1 = hashlib.file_digest(stream, "sha1").hexdigest()
    copied = Document(size=size, sha1=sha1, mime_type="x/y", open=lambda: path.open("rb"))
    tracemalloc.start()
    store.commit(store.stage({"1.2": copied}))
    document = store.get("1.2")
    assert document is not None
    given_out = hashlib.sha1()
    for chunk in document.chunks():
        given_out.update(chunk)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert given_out.hexdigest() == sha1
    # The object storage client holds some parts of 8 MiB on their way.
    assert peak_bytes < (32 if place == "objects" else 4) * MEBIBYTE


# --- copies that several documents share ------------------------------------------------------------------------------


def test_the_same_bytes_are_stored_once(store: Documents) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    store.commit(store.stage({"1.3": LETTER, "1.4": OTHER}))
    assert [given(store, uid) for uid in ("1.2", "1.3", "1.4")] == [LETTER.read(), LETTER.read(), OTHER.read()]
    assert len(copies(store)) == 2


def test_a_shared_copy_goes_with_the_last_document_that_has_it(engine: Engine, store: Documents) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    store.commit(store.stage({"1.3": LETTER}))
    store.discard(store.stage({"1.4": LETTER}))
    store.remove(["1.2"])
    assert (given(store, "1.2"), given(store, "1.3"), given(store, "1.4")) == (None, LETTER.read(), None)
    assert len(copies(store)) == 1
    store.remove(["1.3"])
    assert (copies(store), rows(engine)) == ([], [])


def test_documents_that_share_a_copy_may_be_removed_together(engine: Engine, store: Documents) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    store.commit(store.stage({"1.3": LETTER}))
    store.remove(["1.2", "1.3"])
    assert (copies(store), rows(engine)) == ([], [])


def test_a_copy_of_a_submission_that_may_still_be_refused_is_not_shared(store: Documents) -> None:
    first = store.stage({"1.2": LETTER})
    second = store.stage({"1.3": LETTER})
    store.discard(first)
    store.commit(second)
    assert given(store, "1.3") == LETTER.read()
    assert len(copies(store)) == 1


def test_a_damaged_copy_is_not_shared(store: Documents) -> None:
    """Good bytes come in: they must not be thrown away for bad ones."""
    store.commit(store.stage({"1.2": LETTER}))
    change(store, b"x" * LETTER.size)
    store.commit(store.stage({"1.3": LETTER}))
    assert given(store, "1.3") == LETTER.read()


def test_documents_that_share_a_copy_come_and_go_at_the_same_time(engine: Engine, store: Documents) -> None:
    """Each of many threads submits the same bytes and removes them again: whoever has them has them whole."""

    def come_and_go(number: int) -> list[bytes | None]:
        seen = []
        for turn in range(6):
            unique_id = f"1.{number}.{turn}"
            store.commit(store.stage({unique_id: LETTER}))
            seen.append(given(store, unique_id))
            store.remove([unique_id])
        return seen

    with ThreadPoolExecutor(6) as pool:
        seen = [content for found in pool.map(come_and_go, range(2, 8)) for content in found]
    assert set(seen) == {LETTER.read()}
    assert (copies(store), rows(engine)) == ([], [])


def test_a_discard_spares_what_has_become_available(store: Documents) -> None:
    staged = store.stage({"1.2": LETTER})
    store.commit(staged)
    store.discard(staged)
    assert given(store, "1.2") == LETTER.read()


def test_a_document_is_kept_where_its_size_says(engine: Engine, tmp_path: Path) -> None:
    store = Documents(engine, tmp_path / "store", in_catalogue_bytes=100)
    store.commit(store.stage({"1.2": Document.of(b"x" * 100, "x/y"), "1.3": Document.of(b"x" * 101, "x/y")}))
    assert {row.document_unique_id: row.place for row in store.catalogue.every()} == {
        "1.2": "catalogue",
        "1.3": "files",
    }
    assert [len(given(store, uid) or b"") for uid in ("1.2", "1.3")] == [100, 101]


def entry_of(document: Document, *, unique_id: str = "1.2", repository: str = REPOSITORY) -> DocumentEntry:
    return DocumentEntry(
        entry_uuid="urn:uuid:0b3f7b0c-3a0d-4ab1-8a12-8f0f7f1f2a01",
        unique_id=UniqueId(unique_id),
        hash=Sha1(document.sha1.upper()),
        size=Size(document.size),
        repository_unique_id=Oid(repository),
    )


class Registry:
    """Answers GetDocuments from what it is told to have registered."""

    def __init__(self, *entries: DocumentEntry) -> None:
        self.entries = entries

    def __call__(self, query: StoredQuery) -> QueryResult:
        assert isinstance(query, GetDocuments)
        found = [entry for entry in self.entries if entry.unique_id in query.unique_id]
        return QueryResult(
            fragments=[
                rim.complete(
                    "DocumentEntry",
                    rim.render(entry),
                    status="urn:oasis:names:tc:ebxml-regrep:StatusType:Approved",
                    patient_id=None,
                )
                for entry in found
            ]
        )


def swept(store: Documents, registry: Registry, *, age_s: float) -> Swept:
    return sweep(
        store=store,
        query=registry,
        repository_unique_id=REPOSITORY,
        now=lambda: 1_000_000.0 + age_s,
        began=1_000_000.0,
        grace_s=60.0,
    )


@pytest.mark.parametrize("leave", ["pending", "quarantined"])
def test_the_sweep_makes_available_what_the_registry_has_registered(store: Documents, leave: str) -> None:
    staged = store.stage({"1.2": LETTER})
    if leave == "quarantined":
        store.quarantine(staged)
    # A young pending one is of a registration that may be under way, and which settles it.
    first = Swept(left=1) if leave == "pending" else Swept(committed=1)
    assert swept(store, Registry(entry_of(LETTER)), age_s=0) == first
    if leave == "pending":
        assert swept(store, Registry(entry_of(LETTER)), age_s=61) == Swept(committed=1)
    assert given(store, "1.2") == LETTER.read()
    assert store.unsettled() == []


@pytest.mark.parametrize(
    "registered",
    [(), (entry_of(OTHER),), (entry_of(LETTER, repository="1.2.3"),)],
    ids=["nothing", "other bytes", "in another repository"],
)
def test_the_sweep_removes_what_the_registry_does_not_know_once_no_registration_can_be_under_way(
    store: Documents, tmp_path: Path, registered: tuple[DocumentEntry, ...]
) -> None:
    store.stage({"1.2": LETTER})
    assert swept(store, Registry(*registered), age_s=59) == Swept(left=1)
    assert given(store, "1.2") == LETTER.read()
    assert swept(store, Registry(*registered), age_s=61) == Swept(discarded=1)
    assert (given(store, "1.2"), copies(store)) == (None, [])


def test_the_sweep_removes_nothing_while_the_registry_does_not_answer(store: Documents) -> None:
    store.stage({"1.2": LETTER})

    def unreachable(query: StoredQuery) -> QueryResult:
        raise ConnectionRefusedError

    def refusing(query: StoredQuery) -> QueryResult:
        return QueryResult(outcome=Outcome.of([Problem(code="XDSRegistryBusy", context="later")]))

    for query in (unreachable, refusing):
        outcome = sweep(store=store, query=query, repository_unique_id=REPOSITORY, now=lambda: 9e9, began=0)
        assert outcome == Swept(left=1)
    assert given(store, "1.2") == LETTER.read()


def test_a_row_without_bytes_never_takes_the_place_of_the_same_document_with_bytes(
    store: Documents, tmp_path: Path
) -> None:
    """A submission was cut off while it was staged, sent once more, registered, and cut off before it was committed."""
    store.stage({"1.2": LETTER})
    change(store, None)
    store.stage({"1.2": LETTER})
    assert swept(store, Registry(entry_of(LETTER)), age_s=61) == Swept(committed=1, discarded=1)
    assert given(store, "1.2") == LETTER.read()


def test_a_document_that_the_registry_does_not_want_to_speak_of_holds_up_no_other(store: Documents) -> None:
    store.quarantine(store.stage({"1.1": OTHER}))
    store.quarantine(store.stage({"1.2": LETTER}))
    registry = Registry(entry_of(LETTER))

    def query(asked: StoredQuery) -> QueryResult:
        assert isinstance(asked, GetDocuments)
        if "1.1" in asked.unique_id:
            return QueryResult(outcome=Outcome.of([Problem(code="XDSRegistryError", context="not this one")]))
        return registry(asked)

    now = lambda: 1_000_000.0  # noqa: E731
    outcome = sweep(store=store, query=query, repository_unique_id=REPOSITORY, now=now, began=0)
    assert outcome == Swept(committed=1, left=1)
    assert given(store, "1.2") == LETTER.read()


def test_the_sweep_removes_the_parts_of_messages_that_nobody_finished(store: Documents) -> None:
    """Those from before the server was started; what has come since may belong to a message that takes hours."""
    began, day_s = 1_000_000.0, 86_400
    ages = {"of an earlier life": began - 1000, "just before": began - 10, "first part of a long message": began + 10}
    for name, written in ages.items():
        (store.staging / name).write_bytes(b"half a docum")
        os.utime(store.staging / name, (written, written))

    def left(age_s: float) -> set[str]:
        swept(store, Registry(), age_s=age_s)
        return {path.name for path in store.staging.iterdir()}

    assert left(0) == {"just before", "first part of a long message"}
    assert left(day_s) == {"first part of a long message"}
    assert left(day_s + 100) == set()
