"""What no type can say about keys, and about what they have to do with one another."""

from __future__ import annotations

import re
from pathlib import Path

from server.config.imaging import Imaging
from server.config.keys import ConfigError, is_ae_title
from server.config.sections import ACTORS, AffinityDomain, Config, Registry, Reports, Repository
from xds.values import Oid, OidUrn


def check(config: Config) -> None:
    """ConfigError for what no type can say."""
    unknown = [actor for actor in config.actors if actor not in ACTORS]
    if unknown or not config.actors:
        raise ConfigError(f"server.actors: {config.server.actors!r} is not a list of {', '.join(ACTORS)}")
    if config.server.workers < 1:
        raise ConfigError(f"server.workers is {config.server.workers}; at least one process must serve")
    for domain in config.affinity_domains:
        _check_registry(domain)
    _check_repository(config.repository)
    _check_sweep(config.repository)
    _check_imaging(config.imaging)
    _check_dimse(config.imaging)
    _check_reports(config.reports)
    _check_archive(config.imaging)


def _check_archive(imaging: Imaging) -> None:
    """What no type can say about the keys of the PACS behind an imaging source."""
    for name in ("archive_connections", "archive_timeout_s", "archive_max_bytes"):
        if getattr(imaging, name) <= 0:
            raise ConfigError(f"imaging.{name} is {getattr(imaging, name)}; it must be more than 0")
    if imaging.archive_kept_bytes < 0:
        raise ConfigError(f"imaging.archive_kept_bytes is {imaging.archive_kept_bytes}; it cannot be less than 0")
    if imaging.archive_url and not imaging.archive_url.startswith(("http://", "https://")):
        raise ConfigError(f"imaging.archive_url: {imaging.archive_url!r} is no URL")
    if imaging.archive_calling and not is_ae_title(imaging.archive_calling):
        raise ConfigError(
            f"imaging.archive_calling: {imaging.archive_calling!r} is no AE title of 1 to 16 ASCII characters"
        )
    if not imaging.archive_dimse:
        return
    if imaging.archive_url:
        raise ConfigError("imaging.archive_url and imaging.archive_dimse are both set; one PACS is behind a source")
    try:
        _ = imaging.archive_peer
    except ValueError:
        raise ConfigError(
            f"imaging.archive_dimse: {imaging.archive_dimse!r} is not of the form AET@host:port"
        ) from None
    if imaging.archive_retrieve == "move" and not 0 < imaging.archive_move_port < 65536:
        raise ConfigError(
            f"imaging.archive_move_port is {imaging.archive_move_port}, and imaging.archive_retrieve is move:"
            " it must be the port to which the PACS sends, 1 to 65535"
        )


def _check_reports(reports: Reports) -> None:
    """What no type can say about the keys of reports."""
    if fault := Oid(reports.source_id).fault:
        raise ConfigError(f"reports.source_id: {reports.source_id!r} {fault}")
    for name in ("placer_issuer", "filler_issuer"):
        if (issuer := getattr(reports, name)) and (fault := Oid(issuer).fault):
            raise ConfigError(f"reports.{name}: {issuer!r} {fault}")
    for name in ("repository_url", "registry_url"):
        if (url := getattr(reports, name)) and not url.startswith(("http://", "https://")):
            raise ConfigError(f"reports.{name}: {url!r} is no URL")
    for name in ("connections", "idle_s", "message_s", "message_bytes", "timeout_s"):
        if getattr(reports, name) <= 0:
            raise ConfigError(f"reports.{name} is {getattr(reports, name)}; it must be more than 0")


def _check_dimse(imaging: Imaging) -> None:
    """What no type can say about the keys of DIMSE and the watched folder."""
    for name, titles in (
        ("ae_title", [imaging.ae_title]),
        ("dimse_called", [imaging.dimse_called] if imaging.dimse_called else []),
        ("dimse_calling", sorted(imaging.calling)),
    ):
        if wrong := [one for one in titles if not is_ae_title(one)]:
            raise ConfigError(f"imaging.{name}: {wrong[0]!r} is no AE title of 1 to 16 ASCII characters")
    try:
        _ = imaging.peers
    except ValueError:
        raise ConfigError(f"imaging.dimse_peers: {imaging.dimse_peers!r} is not a list of AET=host:port") from None
    for name in (
        "dimse_object_bytes",
        "dimse_idle_s",
        "dimse_message_s",
        "dimse_associations",
        "drop_interval_s",
        "mpps_longest_s",
    ):
        if getattr(imaging, name) <= 0:
            raise ConfigError(f"imaging.{name} is {getattr(imaging, name)}; it must be more than 0")
    if not 4096 <= imaging.dimse_pdu_bytes <= 16 * 1024 * 1024:
        raise ConfigError(f"imaging.dimse_pdu_bytes is {imaging.dimse_pdu_bytes}; it must be 4096 to 16777216")


def _check_repository(repository: Repository) -> None:
    """What no type can say about the keys of a repository."""
    _check_options("repository", repository.offered, Repository().offered)
    if fault := Oid(repository.unique_id).fault:
        raise ConfigError(f"repository.unique_id: {repository.unique_id!r} {fault}")
    for unique_id, url in repository.other_urls.items():
        if Oid(unique_id).fault or not url.startswith(("http://", "https://")):
            raise ConfigError(f"repository.others: {unique_id + '=' + url!r} is not of the form OID=URL")
    if repository.in_catalogue_bytes < 0:
        raise ConfigError(f"repository.in_catalogue_bytes is {repository.in_catalogue_bytes}; it cannot be less than 0")
    if repository.store == "s3":
        if not repository.s3_endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                f"repository.s3_endpoint: {repository.s3_endpoint!r} is no URL, and repository.store is s3"
            )
        if not repository.s3_bucket:
            raise ConfigError("repository.s3_bucket is empty, and repository.store is s3")
    for name in ("registry_timeout_s", "on_demand_timeout_s", "on_demand_max_bytes", "s3_timeout_s"):
        if getattr(repository, name) <= 0:
            raise ConfigError(f"repository.{name} is {getattr(repository, name)}; it must be more than 0")
    if repository.retention_days < 0:
        raise ConfigError(f"repository.retention_days is {repository.retention_days}; it cannot be less than 0")
    if repository.on_demand_command and not Path(repository.on_demand_command).is_absolute():
        raise ConfigError(f"repository.on_demand_command: {repository.on_demand_command!r} is not an absolute path")


def _check_imaging(imaging: Imaging) -> None:
    """What no type can say about the keys of an imaging source."""
    if imaging.publish_after_s < 0:
        raise ConfigError(f"imaging.publish_after_s is {imaging.publish_after_s}; it cannot be less than 0")
    for name in (
        "publish_interval_s",
        "publish_timeout_s",
        "recoding_processes",
        "recoding_memory_bytes",
        "recoding_timeout_s",
    ):
        if getattr(imaging, name) <= 0:
            raise ConfigError(f"imaging.{name} is {getattr(imaging, name)}; it must be more than 0")
    if not 0 <= imaging.lossy_jpeg_quality <= 100:
        raise ConfigError(f"imaging.lossy_jpeg_quality is {imaging.lossy_jpeg_quality}; it must be 0 to 100")
    for name in ("repository_url", "registry_url"):
        if (url := getattr(imaging, name)) and not url.startswith(("http://", "https://")):
            raise ConfigError(f"imaging.{name}: {url!r} is no URL")
    if imaging.patient_map == "same" and not imaging.source_patient_issuer:
        raise ConfigError("imaging.patient_map is same, and imaging.source_patient_issuer does not say who assigns ids")
    for name in ("threads", "max_results", "max_side_px"):
        if getattr(imaging, name) < 1:
            raise ConfigError(f"imaging.{name} is {getattr(imaging, name)}; it must be at least 1")
    for origin in imaging.origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            raise ConfigError(f"imaging.cors_origins: {origin!r} is not of the form https://HOST, without a path")


def _check_sweep(repository: Repository) -> None:
    """A document must not be taken for one that nobody registers while its registration is still waited for."""
    if repository.sweep_grace_s <= repository.registry_timeout_s and repository.registry_url:
        raise ConfigError(
            f"repository.sweep_grace_s is {repository.sweep_grace_s}; it must be longer than"
            f" repository.registry_timeout_s, {repository.registry_timeout_s}"
        )


def _check_registry(domain: AffinityDomain) -> None:
    """What no type can say about the keys of a registry."""
    section = f"domains.{domain.name}" if domain.name else "registry"
    _check_options(section, domain.registry.offered, Registry().offered)
    home = domain.registry.home_community_id
    if home and (fault := OidUrn(home).fault):
        raise ConfigError(f"{section}.home_community_id: {home!r} {fault}")
    if domain.registry.threads < 1:
        raise ConfigError(f"{section}.threads is {domain.registry.threads}; at least one thread must answer")


def _check_options(section: str, given: frozenset[str], known: frozenset[str]) -> None:
    if unknown := sorted(given - known):
        raise ConfigError(f"{section}.options: {unknown[0]!r} is none of {', '.join(sorted(known))}")
