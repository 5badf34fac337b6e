"""What stores of before have published is replaced and withdrawn by this version as it would have been by theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from database import migrating
from imaging import schema
from imaging.instances import Instance
from imaging.publication.code_map import CodeMap
from imaging.publication.documents import Source, documents_of
from imaging.publication.mapping import ImagingDefaults
from imaging.publication.publication_rows import Publication, Published
from imaging.publication.publications import Publications
from tests.publication import new_database

STUDY = "1.2.3"


@pytest.fixture(params=["sqlite", "postgresql"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """A database as the version before left it."""
    made = schema.connect(new_database(request, tmp_path))
    migrating.upgrade(made, Path(schema.__file__).parent / "migrations", "r0004")
    yield made
    made.dispose()


def put(engine: sa.Engine, table: str, **values: Any) -> None:
    with engine.begin() as connection:
        known = sa.Table(table, sa.MetaData(), autoload_with=connection)
        connection.execute(known.insert().values(**values))


def submitted(engine: sa.Engine, number: int, state: str, **more: Any) -> None:
    values: dict[str, Any] = {
        "submission_unique_id": f"2.25.{number}",
        "study_instance_uid": STUDY,
        "state": state,
        "document_unique_id": f"2.26.{number}",
        "entry_uuid": f"urn:uuid:{number}",
        "patient_id": "P",
        "instances": 3,
        "listed": f"digest {number}",
        "revision": number,
        "tries": 1,
        "decided_at": float(number),
        "submission": "",
        "content": b"",
    }
    put(engine, "publication", **{**values, **more})


def arrived(engine: sa.Engine, revision: int) -> None:
    put(
        engine,
        "arrival",
        study_instance_uid=STUDY,
        last_at=1.0,
        state="waiting",
        revision=revision,
        patient_id="",
        source_patient_id="",
        tries=0,
        next_at=0.0,
        reason="",
    )


def upgraded(engine: sa.Engine) -> Publications:
    schema.upgrade(engine)
    return Publications(engine)


def the_only_one(publications: Publications) -> Published:
    (document,) = publications.current(STUDY)
    return document


def under_way(publications: Publications) -> Publication:
    found = publications.submitting(STUDY)
    assert found is not None
    return found


def test_what_is_published_is_the_manifest_of_its_study(before: sa.Engine) -> None:
    arrived(before, 9)
    submitted(before, 1, "replaced")
    submitted(before, 2, "refused")
    submitted(before, 3, "published")
    publications = upgraded(before)
    document = the_only_one(publications)
    assert (document.key, document.document_unique_id, document.entry_uuid) == ("manifest", "2.26.3", "urn:uuid:3")
    assert (document.listed, document.patient_id, document.instances) == ("digest 3", "P", 3)
    assert publications.submitting(STUDY) is None


def test_a_study_that_has_not_changed_has_the_digest_of_before(tmp_path: Path) -> None:
    """Else each study would be published anew after an upgrade."""
    one = Instance(
        sop_instance_uid="1.2.3.1.1",
        study_instance_uid=STUDY,
        series_instance_uid="1.2.3.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CT",
        patient_id="M",
        series_number=1,
        instance_number=1,
        size=1,
        sha1="",
        path=tmp_path,
    )
    source = Source(
        source_id="1.2",
        retrieve_ae_title="A",
        retrieve_location_uid="1.2",
        defaults=ImagingDefaults(),
        codes=CodeMap(),
    )
    (wanted,) = documents_of([one], source)
    assert (wanted.key, wanted.listed) == ("manifest", hashlib.sha256(b"1.2.3.1 1.2.3.1.1\n").hexdigest())


def test_a_replacement_that_is_under_way_is_the_same_submission_still(before: sa.Engine) -> None:
    arrived(before, 2)
    submitted(before, 1, "published")
    submitted(before, 2, "submitting", submission='["x"]', content=b"manifest")
    publications = upgraded(before)
    found = under_way(publications)
    (document,) = found.documents
    assert (found.submission, document.content, found.completes) == ('["x"]', b"manifest", True)
    assert document.sha1 == hashlib.sha1(b"manifest").hexdigest()
    assert found.ends == ("2.26.1",)
    publications.succeeded(found)
    assert the_only_one(publications).document_unique_id == "2.26.2"
    known = publications.study(STUDY)
    assert known is not None
    assert known.state == "published"


def test_a_withdrawal_that_is_under_way_withdraws_what_was_published(before: sa.Engine) -> None:
    arrived(before, 2)
    submitted(before, 1, "published")
    submitted(before, 2, "submitting", submission='["x"]', document_unique_id="", entry_uuid="urn:uuid:1")
    publications = upgraded(before)
    found = under_way(publications)
    assert (found.documents, found.ends, found.completes) == ((), ("2.26.1",), False)
    publications.succeeded(found)
    assert publications.current(STUDY) == ()


def test_withdrawals_that_have_ended_are_nothing_any_more(before: sa.Engine) -> None:
    arrived(before, 2)
    submitted(before, 1, "withdrawn")
    submitted(before, 2, "withdrawal", document_unique_id="", entry_uuid="urn:uuid:1")
    publications = upgraded(before)
    assert publications.current(STUDY) == ()
    assert publications.submitting(STUDY) is None
