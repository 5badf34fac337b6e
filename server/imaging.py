"""The wiring of the imaging source: its index, the ways in and out of it, and the PACS behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from server.compose import Domain, message_limits
from server.config import Config, ConfigError
from server.http import App, is_loopback
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


def local_instances(config: Config, domain: Domain) -> Instances:
    """The index of stored DICOM instances."""
    from imaging import schema
    from imaging.instances import Instances
    from imaging.publication.publications import Publications
    from server.health import answers, can_be_written

    engine = schema.connect(config.database_url("imaging"))
    schema.upgrade(engine)
    instances = domain.parts["instances"] = Instances(engine, config.content_directory("imaging"))
    instances.complete_index()
    domain.parts["publications"] = Publications(engine)
    domain.closing.append(instances.close)
    domain.checks["imaging database"] = answers(engine)
    domain.checks["imaging directory"] = can_be_written(config.content_directory("imaging"))
    return instances


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
    """DICOMweb and WADO-URI over the stored instances and those of the archive, by path."""
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
    return {
        path: Web(
            found,
            base=base_url + path,
            prefix=path,
            limits=limits,
            executor=executor,
            cors_origins=settings.origins,
            observe=observe,
        )
        for path, found in (("/dicomweb", resources), ("/wado", (single,)))
    }


def transfer(config: Config, domain: Domain, staging: Path) -> Transfer:
    """How instances are given in the transfer syntaxes that somebody takes."""
    from imaging.pixels.codecs import Loss
    from imaging.pixels.recoding import Bounds, Recoder
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
    _check_host("archive_move_host", settings.archive_move_host, config)
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


def _check_host(key: str, host: str, config: Config) -> None:
    if not is_loopback(host) and not config.server.insecure:
        raise ConfigError(
            f"imaging.{key} is {host!r}, which others can reach, and no security is configured:"
            " listen on 127.0.0.1, or say server.insecure = true (--insecure)"
        )


def receive_images(config: Config, domain: Domain, instances: Instances) -> None:
    """The ways into the source that are no HTTP: DIMSE, and the watched folder."""
    settings = config.imaging
    if settings.dimse_port:
        from imaging.receiving.storage_commitment import Commitment, Peer
        from imaging.receiving.store_scp import Settings, StoreScp

        _check_host("dimse_host", settings.dimse_host, config)
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
                associations=settings.dimse_associations,
                pdu_bytes=settings.dimse_pdu_bytes,
                object_bytes=settings.dimse_object_bytes,
                unknown=settings.dimse_unknown,
                idle_s=settings.dimse_idle_s,
                message_s=settings.dimse_message_s,
            ),
            commitment=commitment,
        )
        scp.start()
        domain.listeners.append(scp)
    if settings.drop_directory:
        from imaging.receiving import drop_folder

        folder = drop_folder.DropFolder(Path(settings.drop_directory).absolute(), instances)
        domain.listeners.append(drop_folder.Watch(settings.drop_interval_s, folder.look))


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
