"""Scrubbing: what is damaged, and what is nobody's, in each place where copies are kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from database import migrating
from repository import schema, tables
from repository.documents import Documents
from repository.scrub import Orphan, Report, scrub
from tests.unit.test_documents import LETTER, OTHER, change, copies, engine, place, store
from xds.messages import Document

__all__ = ["engine", "place", "store"]

STRAY = "0123456789abcdef0123456789abcdef"


def put(store: Documents, place: str, copy: str) -> None:
    """A copy that no row names."""
    if place == "catalogue":
        with store.catalogue.database.transaction([]) as connection:
            connection.run(insert(tables.small_copy), {"copy": copy, "content": b"stray"})
    else:
        store.places[place].put({copy: Document.of(b"stray", "x/y")})


def test_of_what_is_whole_nothing_is_reported(store: Documents) -> None:
    store.commit(store.stage({"1.2": LETTER, "1.3": OTHER, "1.4": Document.of(b"", "x/y")}))
    store.commit(store.stage({"1.5": LETTER}))
    store.quarantine(store.stage({"1.6": Document.of(b"perhaps", "x/y")}))
    store.stage({"1.7": Document.of(b"on its way", "x/y")})
    found = scrub(store)
    # 1.5 shares the copy of 1.2.
    assert found == Report(documents=5, size=LETTER.size + OTHER.size + len(b"perhaps"), unsettled=1)
    assert found.whole


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"x" * LETTER.size, "its bytes have the SHA-256 "),
        (b"x", f"1 bytes are kept of it, not {LETTER.size}"),
        (None, "its bytes are missing"),
    ],
)
def test_damage_is_reported_of_each_document_that_has_the_copy(
    store: Documents, content: bytes | None, fault: str
) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    store.commit(store.stage({"1.3": LETTER}))
    change(store, content)
    found = scrub(store)
    assert {one.document_unique_id for one in found.damaged} == {"1.2", "1.3"}
    assert len({one.copy for one in found.damaged}) == 1
    assert all(one.fault.startswith(fault) for one in found.damaged)
    assert (found.documents, found.orphans, found.whole) == (2, [], False)


def test_a_copy_that_no_document_has_is_an_orphan(store: Documents, place: str) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    put(store, place, STRAY)
    found = scrub(store)
    assert (found.orphans, found.damaged, found.whole) == ([Orphan(place=place, copy=STRAY)], [], False)
    assert STRAY in copies(store), "nothing is changed"


def test_what_is_removed_while_it_is_read_is_neither_damaged_nor_an_orphan(
    store: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(store.stage({"1.2": LETTER}))
    read = store.fault_of

    def removed(stored: object) -> str | None:
        store.remove(["1.2"])
        return read(stored)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "fault_of", removed)
    found = scrub(store)
    assert (found.damaged, found.orphans) == ([], [])


def test_more_than_a_page_of_documents_is_read_once_each(engine: Engine, tmp_path: Path) -> None:
    made = Documents(engine, tmp_path / "store")
    numbers = range(1203)
    made.commit(made.stage({f"1.{n}": Document.of(b"%d" % (n % 700), "x/y") for n in numbers}))
    seen: list[str] = []
    found = scrub(made, looked_at=lambda row: seen.append(row.document_unique_id))
    made.close()
    assert sorted(seen) == sorted(f"1.{n}" for n in numbers)
    assert (found.documents, found.whole) == (len(numbers), True)


def test_the_rows_of_a_catalogue_of_before_are_read_too(tmp_path: Path) -> None:
    """Documents that were stored before copies had names of their own (migration r0003) are retrieved, and scrubbed."""
    made = schema.connect(f"sqlite:///{tmp_path / 'old.db'}")
    migrating.upgrade(made, Path(schema.__file__).parent / "migrations", "r0002")
    key, content = "ab12" + "0" * 28, b"of before"
    file = tmp_path / "store" / "content" / key[:2] / key[2:4] / key
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with made.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO stored_document (key, document_unique_id, size, sha1, mime_type, state, staged_at)"
            " VALUES (?, '1.2.3', ?, ?, 'text/plain', 'available', 1)",
            (key, len(content), hashlib.sha1(content).hexdigest()),
        )
    schema.upgrade(made)
    store = Documents(made, tmp_path / "store")
    found = store.get("1.2.3")
    assert found is not None and found.read() == content
    assert scrub(store) == Report(documents=1, size=len(content))
    store.commit(store.stage({"1.2.3": Document.of(content, "text/plain")}))
    assert file.read_bytes() == content
    store.remove(["1.2.3"])
    assert not file.exists()
    store.close()
