"""The wiring: which functions each actor is made of. Read it from top to bottom."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from server.config import Config, ConfigError
from server.http import App, router
from server.transport import http_transport
from soap import operations
from soap.client import SoapClient
from soap.endpoint import Endpoint
from soap.operations import Service
from xds.transactions import Provide, Query, Register


def now() -> datetime:
    return datetime.now(UTC)


def new_uuid() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


@dataclass(kw_only=True)
class Domain:
    """The actors of this process. `parts` are what the commands need beside the endpoints: the stores."""

    app: App
    endpoints: dict[str, str]
    parts: dict[str, Any] = field(default_factory=dict)
    executors: list[ThreadPoolExecutor] = field(default_factory=list)

    def close(self) -> None:
        """Ends the threads, and lets go of the databases."""
        for executor in self.executors:
            executor.shutdown()
        for part in self.parts.values():
            dispose = getattr(getattr(part, "engine", None), "dispose", None)
            if dispose is not None:
                dispose()


def describe(service: str) -> Callable[[str, str | None], bytes | None]:
    """The WSDL of a service, or one of its schemas."""
    from schemas import catalog

    return lambda address, file: catalog.wsdl(service, address) if file is None else catalog.xsd(file, address)


def soap_client(url: str, config: Config) -> SoapClient:
    """A client of a remote actor; what it receives is spooled below server.directory."""
    spool = _emptied(Path(config.server.directory).absolute() / "client-spool")
    return SoapClient(url, http_transport(), spool, _limits(config))


def compose(config: Config, base_url: str) -> Domain:
    """All the actors that the configuration names, with their databases brought up to date."""
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    domain = Domain(app=router({}), endpoints={})
    apps: dict[str, App] = {}
    register: Register | None = None
    query: Query | None = None

    def serve(path: str, service: Service, spool: Path, threads: int) -> None:
        executor = ThreadPoolExecutor(threads, thread_name_prefix=f"xdsi{path.replace('/', '-')}")
        domain.executors.append(executor)
        address = base_url + path
        apps[path] = Endpoint(
            service,
            address=address,
            spool_directory=spool,
            limits=_limits(config),
            executor=executor,
            packaging="strict" if config.server.packaging == "strict" else "lenient",
        )
        domain.endpoints[path.strip("/")] = address

    if "registry" in config.actors:
        from registry.service import service as registry_service

        register, query = local_registry(config, domain)
        spool = _emptied(Path(config.server.directory).absolute() / "registry-spool")
        service = registry_service(register=register, query=query, describe=describe("DocumentRegistry"))
        serve("/registry", service, spool, config.registry.threads)

    if "repository" in config.actors:
        from repository import iti43_retrieve
        from repository.service import service as repository_service

        provide = local_repository(config, domain, register, query)
        documents = domain.parts["documents"]
        retrieve = partial(iti43_retrieve.retrieve, store=documents, repository_unique_id=config.repository.unique_id)
        service = repository_service(provide=provide, retrieve=retrieve, describe=describe("DocumentRepository"))
        serve("/repository", service, documents.staging, config.repository.threads)

    if "imaging" in config.actors:
        from imaging import rad69_retrieve
        from imaging.service import service as imaging_service

        instances = local_instances(config, domain)
        retrieve_images = partial(
            rad69_retrieve.retrieve_images, instances=instances, location_uids=(config.imaging.location_uid,)
        )
        service = imaging_service(retrieve_images=retrieve_images, describe=describe("ImagingDocumentSource"))
        serve("/imaging", service, instances.staging, config.imaging.threads)

    domain.app = router(apps)
    return domain


def local_registry(config: Config, domain: Domain) -> tuple[Register, Query]:
    """The registry's functions over its own database."""
    from registry import iti18_stored_query, iti42_register, schema
    from registry.store import Store, open_engine

    engine = open_engine(config.database_url("registry"))
    schema.upgrade(engine)
    store = domain.parts["registry"] = Store(engine)
    register = partial(
        iti42_register.register,
        store=store,
        now=now,
        new_uuid=new_uuid,
        patients="open" if config.registry.patients == "open" else "known",
    )
    return register, partial(iti18_stored_query.stored_query, store=store, max_results=config.registry.max_results)


def local_repository(config: Config, domain: Domain, register: Register | None, query: Query | None) -> Provide:
    """The repository's ITI-41 over its own store, in front of the registry of this process or of a remote one."""
    from registry.client import client as registry_client
    from repository import iti41_provide_and_register, schema, sweep
    from repository.documents import Documents

    engine = schema.connect(config.database_url("repository"))
    schema.upgrade(engine)
    documents = domain.parts["documents"] = Documents(engine, config.content_directory("repository"))
    if config.repository.registry_url:
        register, query = registry_client(soap_client(config.repository.registry_url, config))
    if register is None:
        raise ConfigError("repository.registry_url is empty, and this process runs no registry")
    if query is not None:
        # What a crash left behind is settled before anything new comes in.
        sweep.sweep(store=documents, query=query, repository_unique_id=config.repository.unique_id, now=time.time)
    return partial(
        iti41_provide_and_register.provide_and_register,
        store=documents,
        register=register,
        repository_unique_id=config.repository.unique_id,
    )


def local_instances(config: Config, domain: Domain) -> Any:
    """The index of stored DICOM instances."""
    from imaging import schema
    from imaging.instances import Instances

    engine = schema.connect(config.database_url("imaging"))
    schema.upgrade(engine)
    instances = domain.parts["instances"] = Instances(engine, config.content_directory("imaging"))
    return instances


def imaging_defaults(config: Config) -> Any:
    """What the configuration says about the metadata of manifests."""
    from imaging.mapping import ImagingDefaults

    return ImagingDefaults(
        language_code=config.imaging.language_code,
        time_zone=config.imaging.time_zone,
        institution=config.imaging.institution,
        accession_issuer=config.imaging.accession_issuer,
        source_patient_issuer=config.imaging.source_patient_issuer,
    )


def _limits(config: Config) -> operations.Limits:
    return operations.Limits(
        envelope_bytes=config.limits.envelope_bytes,
        message_bytes=config.limits.message_bytes,
        document_bytes=config.limits.document_bytes,
        parts=config.limits.parts,
        depth=config.limits.depth,
        attributes=config.limits.attributes,
        body_idle_s=config.limits.body_idle_s,
    )


def _emptied(directory: Path) -> Path:
    """A spool directory: what an earlier run left in it is nobody's."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    return directory
