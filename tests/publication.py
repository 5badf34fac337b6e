"""What the tests of publication share: a study of one patient, and the publisher of a served domain, over HTTP."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from benchmarks import postgres as real_postgres
from imaging import kos
from imaging.client import client as imaging_client
from imaging.instances import Instances
from imaging.phantom import ct_series
from imaging.publication.publication_rows import Overview
from imaging.publication.publications import Publications
from imaging.publication.publishing import Publisher
from registry.client import client as registry_client
from registry.patients import add_patient
from repository.client import client as repository_client
from schemas import rim
from server import publishing
from server.commands.imaging import TRANSFER_SYNTAXES
from server.compose import Domain, now, soap_client
from server.config import Config
from tests.conftest import configured
from xds.messages import DocumentRequest, ImagingRequest, QueryResult, Retrieved, SeriesRequest, StudyRequest
from xds.metadata import DocumentEntry
from xds.problems import Problem
from xds.queries import FindDocuments, StoredQuery
from xds.values import Identifier
from xds.vocabulary import Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
ISSUER, DOMAIN = "1.2.3.11", "1.2.3.10"
QUIET_S = 100.0
_numbers = itertools.count(1)


def source_config(directory: Path, **imaging: Any) -> Config:
    """All actors. The thread of the server sleeps: when it is looked for what is due is for the tests to say."""
    made = configured(directory)
    return replace(made, imaging=replace(made.imaging, publish_interval_s=1e6, source_patient_issuer=ISSUER, **imaging))


def new_database(request: pytest.FixtureRequest, directory: Path) -> str:
    """The URL of an empty database, of the kind that is the fixture's parameter."""
    if request.param != "postgresql":
        return f"sqlite:///{directory / 'imaging.sqlite'}"
    cluster: real_postgres.Cluster = request.getfixturevalue("postgres")
    server = sa.create_engine(
        sa.make_url(cluster.url()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    name = f"imaging_{next(_numbers)}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    server.dispose()
    return str(cluster.url(name)).replace("postgresql://", "postgresql+psycopg://")


def patient_of(local: Identifier) -> Identifier:
    """Of whatever study: what one test has left to be tried again, another one may find due."""
    return Identifier.of(local.identifier.replace("MRN", "P"), DOMAIN)


class Case:
    """A study of one patient, and the publisher of the server, `later` seconds from now."""

    def __init__(self, config: Config, domain: Domain, *, known: bool = True) -> None:
        self.config, self.domain = config, domain
        self.instances: Instances = domain.parts["instances"]
        self.publications: Publications = domain.parts["publications"]
        number = next(_numbers)
        self.local = f"MRN{number}"
        self.patient = patient_of(Identifier.of(self.local, ISSUER))
        self.study = str(generate_uid())
        self.series = itertools.count(1)
        self.later_s = 1000.0
        if known:
            self.make_known()
        self.publisher = replace(self._composed(), patient_of=patient_of, quiet_s=QUIET_S, now=self._now)

    def _composed(self) -> Publisher:
        """Over HTTP, as if the actors were on other machines."""
        provide, _ = repository_client(soap_client(self.domain.endpoints["repository"], self.config))
        update = registry_client(soap_client(self.domain.endpoints["registry"], self.config)).update
        steps = self.domain.parts["steps"]
        made = publishing.publisher(
            self.config, self.instances, self.publications, provide=provide, update=update, steps=steps
        )
        assert made is not None
        return made

    def _now(self) -> datetime:
        return now() + timedelta(seconds=self.later_s)

    def make_known(self) -> None:
        add_patient(self.domain.parts["registry"], self.patient)

    def arrive(self, slices: int = 3) -> list[Dataset]:
        """Another series of the study."""
        made = list(
            ct_series(
                slices=slices,
                rows=16,
                columns=16,
                patient_id=self.local,
                patient_name="Muster^Eva",
                accession_number="A1",
                study_instance_uid=self.study,
                series_instance_uid=str(generate_uid()),
                series_number=next(self.series),
            )
        )
        for dataset in made:
            self.store(dataset)
        return made

    def store(self, dataset: Dataset) -> None:
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        self.instances.add_bytes(file.getvalue())

    def reject(self, listed: list[Dataset], code: str) -> str:
        """Stores a rejection note; its SOP Instance UID."""
        content = kos.build(
            listed,
            retrieve_ae_title="PACS",
            retrieve_location_uid="1.2.3",
            now=now(),
            new_uid=lambda: str(generate_uid()),
        )
        note = pydicom.dcmread(io.BytesIO(content))
        note.ConceptNameCodeSequence[0].CodeValue = code
        self.store(note)
        return str(note.SOPInstanceUID)

    def look(self, publisher: Publisher | None = None) -> None:
        (publisher or self.publisher).look()

    def ask(self, query: StoredQuery) -> QueryResult:
        return registry_client(soap_client(self.domain.endpoints["registry"], self.config)).query(query)

    def entries(self, *status: str) -> list[DocumentEntry]:
        result = self.ask(FindDocuments(patient_id=self.patient, status=status or (APPROVED, DEPRECATED)))
        return [one for one in rim.decode_fragments(result.fragments) if isinstance(one, DocumentEntry)]

    def document(self, entry: DocumentEntry) -> bytes:
        """From the repository."""
        _, retrieve = repository_client(soap_client(self.domain.endpoints["repository"], self.config))
        wanted = DocumentRequest(
            repository_unique_id=self.config.repository.unique_id, document_unique_id=str(entry.unique_id)
        )
        (content,) = [one.document.read() for one in retrieve([wanted]) if isinstance(one, Retrieved)]
        return content

    def manifest(self) -> bytes:
        """The one document that is Approved."""
        (entry,) = self.entries(APPROVED)
        return self.document(entry)

    def listed(self) -> set[str]:
        return {
            one.sop_instance_uid
            for study in kos.read(self.manifest()).studies
            for series in study.series
            for one in series.instances
        }

    def overview(self) -> Overview:
        (found,) = (one for one in self.publications.overview() if one.study_instance_uid == self.study)
        return found

    def retrieved(self, dataset: Dataset) -> str:
        """The UID of an instance by RAD-69, or the error."""
        document = DocumentRequest(
            repository_unique_id=self.config.imaging.location_uid, document_unique_id=dataset.SOPInstanceUID
        )
        series = SeriesRequest(series_instance_uid=dataset.SeriesInstanceUID, documents=(document,))
        request = ImagingRequest(
            studies=(StudyRequest(study_instance_uid=self.study, series=(series,)),),
            transfer_syntax_uids=TRANSFER_SYNTAXES,
        )
        (answer,) = imaging_client(soap_client(self.domain.endpoints["imaging"], self.config))(request)
        return str(answer) if isinstance(answer, Problem) else answer.request.document_unique_id


def uids(datasets: list[Dataset]) -> set[str]:
    return {str(one.SOPInstanceUID) for one in datasets}
