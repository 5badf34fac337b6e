"""The wiring: which functions each actor is made of. Read it from top to bottom."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from database.writing import Committed
from registry.codes import load as load_codes
from registry.rules import Strictness
from registry.store import Store
from server.config import AffinityDomain, Config, ConfigError, Registry
from server.http import App, Page, Probe, counted, refuse_exposed, router
from server.repeating import every
from server.tracing import OFF, Threads, Tracing, tracing
from server.transport import http_transport
from server.workers import METRICS_VARIABLE
from soap import operations
from soap.client import SoapClient
from soap.endpoint import Endpoint
from soap.operations import Exchange, Operation, Service
from xds.messages import Outcome
from xds.metadata import Submission
from xds.problems import Failure
from xds.transactions import Feed, Provide, Query, Register

if TYPE_CHECKING:
    from feeds.adt import Authority
    from feeds.listener import Listener
    from imaging.receiving.arrivals import SharedPort
    from repository.documents import Documents
    from repository.iti43_retrieve import OnDemand
    from repository.objects import Objects
    from server.health import Check, Readiness
    from server.metrics import Metrics


#: When this server was started, in seconds since 1970: before any of its processes received anything.
_BEGAN = time.time()


def now() -> datetime:
    return datetime.now(UTC)


def new_uuid() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


class Closing(Protocol):
    """What brings something in by itself, until it is closed."""

    def close(self) -> None: ...


@dataclass(kw_only=True)
class Domain:
    """The actors of this process. `parts` are what the commands need beside the endpoints: the stores."""

    app: App
    endpoints: dict[str, str]
    parts: dict[str, Any] = field(default_factory=dict)
    executors: list[ThreadPoolExecutor] = field(default_factory=list)
    listeners: list[Closing] = field(default_factory=list)
    closing: list[Callable[[], None]] = field(default_factory=list)
    #: What must work for this process to be ready, by name.
    checks: dict[str, Check] = field(default_factory=dict)
    tracing: Tracing = OFF

    def close(self) -> None:
        """Ends the threads, and lets go of the databases and ports."""
        for listener in self.listeners:
            listener.close()
        for executor in self.executors:
            executor.shutdown()
        for close in self.closing:
            close()


def describe(service: str) -> Callable[[str, str | None], bytes | None]:
    """The WSDL of a service, or one of its schemas."""
    from schemas import catalog

    return lambda address, file: catalog.wsdl(service, address) if file is None else catalog.xsd(file, address)


def soap_client(
    url: str, config: Config, *, answer_timeout_s: float = float("inf"), traced: Tracing = OFF
) -> SoapClient:
    """A client of a remote actor; what it receives is spooled below server.directory."""
    transport = traced.transport(http_transport(answer_timeout_s=answer_timeout_s))
    return SoapClient(url, transport, _spool(config, "client"), message_limits(config))


def compose(config: Config, base_url: str, *, listen: bool = True, dimse: SharedPort | None = None) -> Domain:
    """All the actors that the configuration names, with their databases brought up to date.

    `listen` says whether the feeds that have ports of their own are started, the sweep, and publication: in one process of several.
    Every one of several receives images on the port `dimse`.
    """
    from server import logs
    from server.health import Readiness
    from server.metrics import Metrics

    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    metrics = Metrics(os.environ.get(METRICS_VARIABLE))
    domain = Domain(app=router({}), endpoints={}, tracing=tracing(config.server))
    apps: dict[str, App] = {}
    trees: dict[str, App] = {}
    register: Register | None = None
    query: Query | None = None
    update: Register | None = None
    provide: Provide | None = None

    def observe(exchange: Exchange) -> None:
        domain.tracing.observe(exchange)
        metrics.exchange(exchange)
        logs.exchange(exchange)

    def serve(path: str, service: Service, spool: Path, threads: int) -> Threads:
        executor = Threads(threads, thread_name_prefix=f"xdsi{path.replace('/', '-')}")
        domain.executors.append(executor)
        address = base_url + path
        endpoint = Endpoint(
            service,
            address=address,
            spool_directory=spool,
            limits=message_limits(config),
            executor=executor,
            packaging="strict" if config.server.packaging == "strict" else "lenient",
            observe=observe,
            stage=domain.tracing.stage,
        )
        apps[path] = counted(domain.tracing.app(endpoint, path, ["POST"]), metrics.in_flight.track_inprogress)
        domain.endpoints[path.strip("/")] = address
        return executor

    if "registry" in config.actors:
        for one in config.affinity_domains:
            of_domain = local_registry(config, one, domain, metrics, listen)
            if not one.name:
                # The repository of this process registers in the unnamed domain.
                register, query, update = of_domain.register, of_domain.query, of_domain.update
            path = f"/{one.name}/registry" if one.name else "/registry"
            spool = _spool(config, f"registry-{one.name}")
            serve(path, of_domain.service, spool, one.registry.threads)

    if "repository" in config.actors:
        from repository import iti43_retrieve, iti86_remove
        from repository.service import service as repository_service

        local = local_repository(config, domain, register, query, sweeping=listen, metrics=metrics)
        documents, repository_unique_id = domain.parts["documents"], config.repository.unique_id
        provide = local.provide
        retrieve = partial(
            iti43_retrieve.retrieve,
            store=documents,
            repository_unique_id=repository_unique_id,
            on_demand=on_demand(config, local, documents.staging),
        )
        removal = partial(
            iti86_remove.remove,
            store=documents,
            holds=domain.parts["holds"],
            repository_unique_id=repository_unique_id,
            retention_days=config.repository.retention_days,
        )
        submitting = Threads(config.repository.threads, thread_name_prefix="xdsi-submitting")
        domain.executors.append(submitting)
        service = repository_service(
            provide=local.provide,
            retrieve=retrieve,
            remove=removal if "remove-documents" in config.repository.offered else None,
            audit=partial(iti86_remove.log_removal, repository_unique_id=repository_unique_id),
            describe=describe("DocumentRepository"),
            submitting=submitting,
        )
        serve("/repository", service, documents.staging, config.repository.threads)

    if "imaging" in config.actors:
        from imaging import rad69_retrieve
        from imaging.dicomweb.behind import Behind
        from imaging.publication import rejections
        from imaging.service import service as imaging_service
        from server import publishing
        from server.imaging import archive, dicomweb, fetch, local_instances, receive_dimse, transfer, watch_folder

        instances = local_instances(config, domain)
        transferring = transfer(config, domain, instances.staging)
        publications = domain.parts["publications"]
        publisher = domain.parts["publisher"] = publishing.publisher(
            config,
            instances,
            publications,
            provide=provide,
            update=update,
            steps=domain.parts["steps"],
            traced=domain.tracing,
        )
        if listen:
            publish = publishing.looking(publisher, instances, publications)
            # It ends before the databases are closed.
            domain.closing.insert(0, every(config.imaging.publish_interval_s, publish, name="publication"))
            watch_folder(config, domain, instances)
        rejected = partial(rejections.rejected, instances=instances, publications=publications)
        if listen or dimse is not None:
            receive_dimse(config, domain, instances, transferring, rejected, dimse)
        behind = archive(config, instances.staging)
        fetching = fetch(config, domain, behind) if behind else None
        there = Behind(behind, fetching, reading=instances.reading, rejected=rejected) if behind and fetching else None
        retrieve_images = partial(
            rad69_retrieve.retrieve_images,
            instances=instances,
            transfer=transferring,
            location_uids=(config.imaging.location_uid,),
            rejected=rejected,
            fetch=fetching,
        )
        service = imaging_service(retrieve_images=retrieve_images, describe=describe("ImagingDocumentSource"))
        executor = serve("/imaging", service, instances.staging, config.imaging.threads)
        webs = dicomweb(config, base_url, instances, transferring, rejected, executor, observe, there)
        for path, web in webs.items():
            traced = domain.tracing.app(web, path, ["GET", "HEAD", "POST"])
            trees[path] = counted(traced, metrics.in_flight.track_inprogress)
            domain.endpoints[path.strip("/")] = base_url + path

    if config.reports.port and listen:
        from server import reports

        listener = reports.listener(config, domain, provide, query, update, answered=metrics.message)
        # It ends before what it needs.
        domain.listeners.insert(0, listener)

    readiness = Readiness(domain.checks)
    domain.closing += [readiness.close, domain.tracing.close]
    domain.app = router(apps, probes(metrics, readiness) if config.server.probes else {}, trees)
    return domain


def probes(metrics: Metrics, readiness: Readiness) -> dict[str, Probe]:
    """What is answered to those who watch the server."""

    async def healthz() -> Page:
        return Page(content=b"ok\n")

    async def readyz() -> Page:
        ready, content = await readiness.answer()
        return Page(content=content, status=200 if ready else 503, content_type="application/json")

    async def counts() -> Page:
        return Page(content=metrics.text(), content_type=metrics.content_type)

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": counts}


@dataclass(frozen=True, kw_only=True)
class LocalRegistry:
    """What the rest of the process needs of a registry."""

    service: Service
    register: Register
    query: Query
    update: Register | None


def local_registry(
    config: Config, affinity: AffinityDomain, domain: Domain, metrics: Metrics, listen: bool
) -> LocalRegistry:
    """A registry over its own database, with the transactions that its options name."""
    from registry import (
        iti18_stored_query,
        iti42_register,
        iti57_update,
        iti62_remove,
        iti64_link_change,
        iti92_restricted_update,
        patients,
    )
    from registry.service import service, unforeseen
    from server.health import answers

    settings, name = affinity.registry, f" {affinity.name}" if affinity.name else ""
    store = domain.parts[f"registry{name}"] = open_registry(config, affinity, committed=metrics.group)
    domain.checks[f"registry{name} database"] = answers(store.engine)
    domain.closing.append(store.close)
    strictness = Strictness({one.name: getattr(affinity.strictness, one.name) for one in fields(affinity.strictness)})
    codes = None if not settings.codes else load_codes(Path(settings.codes))
    rules: dict[str, Any] = {"patients": settings.patients, "strictness": strictness, "codes": codes}
    changing: dict[str, Any] = {"store": store, "now": now, "new_uuid": new_uuid}
    register_later = partial(iti42_register.register_later, **changing, **rules)
    query = partial(
        iti18_stored_query.stored_query,
        store=store,
        max_results=settings.max_results,
        home_community_id=settings.home_community_id or None,
        unknown_patient="error" if settings.unknown_patient == "error" else "empty",
    )
    change_link = partial(iti64_link_change.change_link, **changing)
    take = patients.feed(store, change_link=change_link)
    offered = settings.offered
    update = partial(iti57_update.update, **changing, **rules) if "metadata-update" in offered else None
    made = service(
        register=register_later,
        query=query,
        describe=describe("DocumentRegistry"),
        register_on_demand=partial(register_later, on_demand=True) if "on-demand" in offered else None,
        multi_patient="multi-patient" in offered,
        update=update,
        restricted_update=(
            partial(iti92_restricted_update.restricted_update, **changing, **rules)
            if "restricted-update" in offered
            else None
        ),
        remove=partial(iti62_remove.remove, store=store) if "remove-metadata" in offered else None,
        more=feed_operations(settings, take) if "patient-feed-v3" in offered else (),
    )
    if settings.feed_port and listen:
        refuse_exposed(config, "registry.feed_host", settings.feed_host)
        domain.listeners.append(feed_listener(settings, take, metrics.message))

    def register(submission: Submission) -> Outcome:
        """As a remote registry would answer: what nobody foresaw is a problem with an incident number."""
        try:
            with domain.tracing.stage("ITI-42"):
                return iti42_register.register(submission, **changing, **rules)
        except Failure:
            raise
        except Exception as error:
            raise Failure([unforeseen("ITI-42", error)]) from error

    return LocalRegistry(service=made, register=register, query=query, update=update)


def authorities(assigning_authorities: str) -> tuple[Authority, ...]:
    """Who assigns patient ids: `OID` or `namespace&OID`, comma-separated."""
    from feeds.adt import Authority

    found = []
    for text in filter(None, (one.strip() for one in assigning_authorities.split(","))):
        namespace, _, universal_id = text.rpartition("&")
        found.append(Authority(namespace=namespace, universal_id=universal_id))
    return tuple(found)


def feed_operations(settings: Registry, feed: Feed) -> tuple[Operation, ...]:
    """ITI-44 at the registry's own address."""
    from feeds import pixv3

    return pixv3.operations(
        feed=feed, authorities=authorities(settings.assigning_authorities), now=now, new_id=lambda: str(uuid.uuid4())
    )


def feed_listener(settings: Registry, feed: Feed, answered: Callable[[str, str], None]) -> Listener:
    """ITI-8 and ITI-64, listening."""
    from feeds import adt
    from feeds.listener import Listener

    answer = partial(
        adt.answer,
        feed=feed,
        authorities=authorities(settings.assigning_authorities),
        now=now,
        new_control_id=lambda: uuid.uuid4().hex[:20],
        answered=answered,
    )
    listener = Listener(
        answer,
        host=settings.feed_host,
        port=settings.feed_port,
        max_connections=settings.feed_connections,
        idle_s=settings.feed_idle_s,
    )
    listener.start()
    return listener


def open_registry(
    config: Config, affinity: AffinityDomain, committed: Committed = lambda units, waiting: None
) -> Store:
    """The registry's database, brought up to date."""
    from registry import schema
    from registry.store import Store, open_engine

    engine = open_engine(config.registry_database_url(affinity))
    schema.upgrade(engine)
    return Store(engine, committed=committed)


@dataclass(frozen=True, kw_only=True)
class LocalRepository:
    """How a repository stores and registers, and how it asks its registry."""

    provide: Provide
    query: Query


def local_repository(
    config: Config,
    domain: Domain,
    register: Register | None,
    query: Query | None,
    *,
    sweeping: bool,
    metrics: Metrics,
) -> LocalRepository:
    """The repository's ITI-41 over its own store, in front of the registry of this process or of a remote one."""
    from registry.client import client as registry_client
    from repository import iti41_provide_and_register, sweep
    from repository.holds import Holds
    from repository.objects import Objects
    from server.health import answers, can_be_written, http_answers
    from server.stock import Stock

    settings = config.repository
    documents = domain.parts["documents"] = open_documents(config, damaged=metrics.damaged)
    for place in documents.places.values():
        if isinstance(place, Objects):
            domain.checks["repository objects"] = place.check
    engine = documents.catalogue.database.engine
    holds = domain.parts["holds"] = Holds(engine, today=lambda: now().date())
    domain.closing += [documents.close, holds.close]
    domain.checks["repository database"] = answers(engine)
    domain.checks["repository directory"] = can_be_written(config.content_directory("repository"))
    if settings.registry_url:
        domain.checks["remote registry"] = partial(http_answers, settings.registry_url)
        timeout_s = settings.registry_timeout_s
        soap = soap_client(settings.registry_url, config, answer_timeout_s=timeout_s, traced=domain.tracing)
        remote = registry_client(soap)
        register, query = remote.register, remote.query
    if register is None or query is None:
        raise ConfigError("repository.registry_url is empty, and this process runs no registry")
    if sweeping:
        sweep_once = partial(
            sweep.sweep,
            store=documents,
            query=query,
            repository_unique_id=settings.unique_id,
            now=time.time,
            began=_BEGAN,
            grace_s=settings.sweep_grace_s,
        )
        stock = Stock(documents, metrics.stock, now=time.monotonic)

        def settle() -> bool:
            sweep_once()
            stock.tell()
            return False

        # What a crash left behind is settled before anything new comes in.
        settle()
        if settings.sweep_interval_s:
            # It ends before the databases are closed.
            domain.closing.insert(0, every(settings.sweep_interval_s, settle, name="sweep"))
    provide = partial(
        iti41_provide_and_register.provide_and_register,
        store=documents,
        register=register,
        repository_unique_id=settings.unique_id,
    )
    return LocalRepository(provide=provide, query=query)


def open_documents(config: Config, *, damaged: Callable[[], None] = lambda: None) -> Documents:
    """The repository's content store, its database brought up to date."""
    from repository import schema
    from repository.documents import Documents

    engine = schema.connect(config.database_url("repository"))
    schema.upgrade(engine)
    return Documents(
        engine,
        config.content_directory("repository"),
        place=_objects(config),
        in_catalogue_bytes=config.repository.in_catalogue_bytes,
        damaged=damaged,
    )


def _objects(config: Config) -> Objects | None:
    """The S3-compatible service that keeps the larger documents, if one does."""
    settings = config.repository
    if settings.store != "s3":
        return None
    from repository.objects import Objects, Service

    return Objects(
        Service(
            endpoint=settings.s3_endpoint,
            bucket=settings.s3_bucket,
            prefix=settings.s3_prefix,
            region=settings.s3_region,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key,
            timeout_s=settings.s3_timeout_s,
        )
    )


def on_demand(config: Config, repository: LocalRepository, directory: Path) -> OnDemand | None:
    """What makes the documents of On-Demand entries, in `directory`; None where nothing is configured."""
    from repository import on_demand
    from repository.assembling import by_command

    settings = config.repository
    if not settings.on_demand_command:
        return None
    return partial(
        on_demand.on_demand,
        assemble=by_command(
            Path(settings.on_demand_command),
            directory,
            timeout_s=settings.on_demand_timeout_s,
            max_bytes=settings.on_demand_max_bytes,
        ),
        query=repository.query,
        provide=repository.provide if settings.on_demand_persistence else None,
        repository_unique_id=settings.unique_id,
        now=now,
        new_oid=lambda: f"2.25.{uuid.uuid4().int}",
        mime_type=settings.on_demand_mime_type,
    )


def message_limits(config: Config) -> operations.Limits:
    """What the section limits says of messages; the rest of it is for the connections they come on."""
    return operations.Limits(**{one.name: getattr(config.limits, one.name) for one in fields(operations.Limits)})


def _spool(config: Config, name: str) -> Path:
    """A directory of this process for what it receives."""
    directory = Path(config.server.directory).absolute() / "spool" / str(os.getpid()) / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def clear_spools(config: Config) -> None:
    """What processes that are no more have left behind is nobody's."""
    for directory in (Path(config.server.directory).absolute() / "spool").glob("[0-9]*"):
        if not Path(f"/proc/{directory.name}").exists():
            shutil.rmtree(directory, ignore_errors=True)
