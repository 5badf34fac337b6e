"""The wiring of the imaging source: its index, the ways in and out of it, and the PACS behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from server.compose import Domain, message_limits
from server.config import Config
from server.http import App, listen_on, refuse_exposed, router
from server.repeating import every
from server.sharing import Counts, Share
from server.tracing import Threads
from soap.operations import Exchange

if TYPE_CHECKING:
    from imaging.archive import Archive
    from imaging.archive.fetching import Fetch
    from imaging.dicomweb.behind import Behind
    from imaging.instances import Instances
    from imaging.pixels.transfer import Transfer
    from imaging.publication.mapping import ImagingDefaults
    from imaging.publication.rejections import Rejected
    from imaging.query_retrieve.service import QueryRetrieve
    from imaging.receiving.arrivals import SharedPort


def local_instances(config: Config, domain: Domain) -> Instances:
    """The index of stored DICOM instances."""
    from imaging import schema
    from imaging.instances import Instances
    from imaging.publication.performed_steps import PerformedSteps
    from imaging.publication.publications import Publications
    from server.health import answers, can_be_written

    engine = schema.connect(config.database_url("imaging"))
    schema.upgrade(engine)
    instances = domain.parts["instances"] = Instances(engine, config.content_directory("imaging"))
    instances.complete_index()
    domain.parts["publications"] = Publications(engine)
    domain.parts["steps"] = PerformedSteps(engine)
    domain.closing.append(instances.close)
    domain.checks["imaging database"] = answers(engine)
    domain.checks["imaging directory"] = can_be_written(config.content_directory("imaging"))
    return instances


@contextmanager
def stored(config: Config) -> Iterator[Domain]:
    """What is stored and published, for a command: the parts `instances`, `publications` and `steps`, without any actor."""
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    domain = Domain(app=router({}), endpoints={})
    try:
        local_instances(config, domain)
        yield domain
    finally:
        domain.close()


def dicomweb(
    config: Config,
    base_url: str,
    instances: Instances,
    transferring: Transfer,
    rejected: Rejected,
    executor: Threads,
    observe: Callable[[Exchange], None],
    behind: Behind | None,
) -> dict[str, App]:
    """DICOMweb, WADO-URI and FHIR ImagingStudy over the stored instances and those of the archive, by path."""
    from imaging import fhir
    from imaging.dicomweb import imaging_study, qido, wado_rs
    from imaging.dicomweb.resources import in_text
    from imaging.dicomweb.routes import routes, wado_uri_route
    from imaging.dicomweb.web import Web

    settings, limits = config.imaging, message_limits(config)
    resources = routes(
        instances=instances,
        given=transferring.given,
        rejected=rejected,
        limits=limits,
        max_results=settings.max_results,
        max_side_px=settings.max_side_px,
        behind=behind,
    )
    single = wado_uri_route(
        instances=instances,
        given=transferring.given,
        rejected=rejected,
        max_side_px=settings.max_side_px,
        empty_uid_status=settings.empty_uid,
        behind=behind,
    )
    search = qido.search(
        "study", reading=instances.reading, rejected=rejected, max_results=settings.max_results, behind=behind
    )
    studies = imaging_study.routes(
        find=wado_rs.finding(instances, rejected, behind),
        search=search,
        make=partial(
            fhir.imaging_study,
            time_zone=settings.time_zone,
            retrieve_url=settings.retrieve_url or f"{base_url}/dicomweb",
            accession_issuer=settings.accession_issuer,
        ),
    )
    trees = (
        ("/dicomweb", resources, in_text),
        ("/wado", (single,), in_text),
        ("/fhir", studies, imaging_study.outcome),
    )
    return {
        path: Web(
            found,
            base=base_url + path,
            prefix=path,
            limits=limits,
            executor=executor,
            cors_origins=settings.origins,
            observe=observe,
            refusal=refusal,
        )
        for path, found, refusal in trees
    }


def transfer(config: Config, domain: Domain, staging: Path) -> Transfer:
    """How instances are given in the transfer syntaxes that somebody takes."""
    from imaging.pixels.bounded import Bounds
    from imaging.pixels.codecs import Loss
    from imaging.pixels.recoding import Recoder
    from imaging.pixels.transfer import Transfer

    settings = config.imaging
    recoder = Recoder(
        processes=settings.recoding_processes,
        bounds=Bounds(
            memory_bytes=settings.recoding_memory_bytes,
            file_bytes=settings.recoding_memory_bytes,
            timeout_s=settings.recoding_timeout_s,
        ),
    )
    domain.closing.append(recoder.close)
    loss = Loss(
        jpeg_quality=settings.lossy_jpeg_quality,
        jpeg_2000_psnr_db=settings.lossy_jpeg_2000_psnr_db,
        jpeg_ls_error=settings.lossy_jpeg_ls_error,
    )
    return Transfer(recoder, staging, loss=loss)


def archive(config: Config, staging: Path) -> Archive | None:
    """The PACS behind the imaging source, if there is one. ConfigError for what must not be listened on."""
    settings = config.imaging
    if settings.archive_url:
        from imaging.archive.dicomweb import DicomwebArchive
        from server.transport import http_get

        get = http_get(idle_timeout_s=settings.archive_timeout_s)
        return DicomwebArchive(settings.archive_url, get, staging, max_bytes=settings.archive_max_bytes)
    if not settings.archive_dimse:
        return None
    from imaging.archive.association import Peer, Peering
    from imaging.archive.dimse import DimseArchive
    from imaging.archive.retrieving import Destination, getting, moving

    ae_title, host, port = settings.archive_peer
    peer = Peer(
        ae_title=ae_title,
        host=host,
        port=port,
        calling=settings.archive_calling or settings.ae_title,
        timeout_s=settings.archive_timeout_s,
        max_bytes=settings.archive_max_bytes,
    )
    peering = Peering(peer, staging, settings.archive_connections)
    if settings.archive_retrieve == "get":
        return DimseArchive(peering, getting(peering))
    refuse_exposed(config, "imaging.archive_move_host", settings.archive_move_host)
    destination = Destination(host=settings.archive_move_host, port=settings.archive_move_port)
    return DimseArchive(peering, moving(peering, destination))


def fetch(config: Config, domain: Domain, behind: Archive) -> Fetch:
    """How what is not stored here is got from the archive."""
    from imaging.archive.fetching import Fetching, Kept

    executor = Threads(config.imaging.archive_connections, thread_name_prefix="xdsi-archive")
    domain.executors.append(executor)
    kept = Kept(config.imaging.archive_kept_bytes)
    domain.closing.append(kept.clear)
    return partial(Fetching, behind, executor, kept)


@dataclass(frozen=True, slots=True)
class DimsePort:
    """The port for images, where several processes receive them."""

    listening: socket.socket
    counts: Counts

    def of(self, process: int) -> SharedPort:
        """The port as one of the processes has it."""
        from imaging.receiving.arrivals import SharedPort

        share = Share(self.counts, process)
        return SharedPort(listening=self.listening, tell=share.tell, should_leave=share.should_leave)


def dimse_port(config: Config) -> DimsePort | None:
    """The port that all processes are to receive images on, if any; it is listened on from now on. ConfigError as for `listen_on`."""
    settings = config.imaging
    if "imaging" not in config.actors or not settings.dimse_port:
        return None
    listening = listen_on(config, "imaging.dimse_host", settings.dimse_host, settings.dimse_port)
    return DimsePort(listening, Counts(config.server.workers))


def receive_dimse(
    config: Config,
    domain: Domain,
    instances: Instances,
    transferring: Transfer,
    rejected: Rejected,
    shared: SharedPort | None,
) -> None:
    """Receives images over DIMSE, and gives them: on a port of this process, or with others on one that is shared."""
    from imaging.publication.rad68_provide import new_uid
    from imaging.receiving.mpps import Mpps
    from imaging.receiving.storage_commitment import Commitment, Peer
    from imaging.receiving.store_scp import Settings, StoreScp

    settings = config.imaging
    if not settings.dimse_port:
        return
    refuse_exposed(config, "imaging.dimse_host", settings.dimse_host)
    ae_title = settings.dimse_called or settings.ae_title
    commitment = Commitment(
        instances,
        ae_title=ae_title,
        peers={aet: Peer(host=host, port=port) for aet, (host, port) in settings.peers.items()},
        timeout_s=settings.dimse_message_s,
    )
    scp = domain.parts["dimse"] = StoreScp(
        instances,
        Settings(
            ae_title=ae_title,
            host=settings.dimse_host,
            port=settings.dimse_port,
            called=settings.dimse_called,
            calling=settings.calling,
            # They come evenly to the processes.
            associations=-(-settings.dimse_associations // (config.server.workers if shared else 1)),
            pdu_bytes=settings.dimse_pdu_bytes,
            object_bytes=settings.dimse_object_bytes,
            unknown=settings.dimse_unknown,
            idle_s=settings.dimse_idle_s,
            message_s=settings.dimse_message_s,
        ),
        commitment=commitment,
        mpps=Mpps(domain.parts["steps"], new_uid) if settings.mpps else None,
        query_retrieve=query_retrieve(config, ae_title, instances, transferring, rejected),
        shared=shared,
    )
    scp.start()
    domain.listeners.append(scp)


def query_retrieve(
    config: Config, ae_title: str, instances: Instances, transferring: Transfer, rejected: Rejected
) -> QueryRetrieve | None:
    """What answers C-FIND, C-MOVE and C-GET, if the configuration wants that."""
    from imaging.query_retrieve.service import QueryRetrieve, Settings

    settings = config.imaging
    if not settings.query_retrieve:
        return None
    return QueryRetrieve(
        instances,
        transferring,
        rejected,
        Settings(
            ae_title=ae_title,
            peers=settings.peers,
            max_results=settings.max_results,
            timeout_s=settings.dimse_message_s,
        ),
    )


def watch_folder(config: Config, domain: Domain, instances: Instances) -> None:
    """Stores what is put into the watched folder, if there is one."""
    from imaging.receiving import drop_folder

    settings = config.imaging
    if settings.drop_directory:
        folder = drop_folder.DropFolder(Path(settings.drop_directory).absolute(), instances)

        def look() -> bool:
            folder.look()
            return False

        domain.closing.insert(0, every(settings.drop_interval_s, look, name="drop folder"))


def imaging_defaults(config: Config) -> ImagingDefaults:
    """What the configuration says about the metadata of manifests."""
    from imaging.publication.mapping import ImagingDefaults

    return ImagingDefaults(
        language_code=config.imaging.language_code,
        time_zone=config.imaging.time_zone,
        institution=config.imaging.institution,
        accession_issuer=config.imaging.accession_issuer,
        source_patient_issuer=config.imaging.source_patient_issuer,
    )
