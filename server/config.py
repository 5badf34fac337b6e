"""The configuration: one frozen Config from a TOML file and the environment, every key of it documented here.

`XDSI__SECTION__KEY` overrides what the file says. An unknown key or a value of the wrong type is an error that names file and key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from registry import tunable
from xds.values import Oid, OidUrn


class ConfigError(ValueError):
    """A configuration that cannot be used: the file or variable, the key, and the reason."""


def key(default: Any, meaning: str) -> Any:
    """A key with its default and what it means."""
    return field(default=default, metadata={"meaning": meaning})


def is_ae_title(text: str) -> bool:
    """Whether it is an Application Entity title: 1 to 16 characters of ASCII but for the backslash (PS3.5 6.2, AE)."""
    return 0 < len(text) <= 16 and text.isascii() and text.isprintable() and "\\" not in text and not text.isspace()


def _address(text: str) -> tuple[str, int]:
    """Host and port of host:port. ValueError for what is not of that form."""
    host, _, port = text.rpartition(":")
    number = int(port)
    if not host or not 0 < number < 65536:
        raise ValueError(text)
    return host.strip().strip("[]"), number


def _names(text: str) -> frozenset[str]:
    """Of a list with commas."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    host: str = key(
        "127.0.0.1", "address to listen on; anything but loopback needs insecure = true while there is no TLS"
    )
    port: int = key(8080, "TCP port; 0 takes a free one")
    public_url: str = key("", "base URL under which others reach this server, for the WSDL; empty: http://host:port")
    insecure: bool = key(False, "allow listening beyond loopback without any security")
    actors: str = key("registry,repository,imaging", "which actors run in this process")
    workers: int = key(1, "processes that serve; as many as there are processors is right for much traffic")
    pin_workers: bool = key(True, "keep each worker on a processor of its own, where there are as many as workers")
    directory: str = key("xdsi-data", "where databases and content are kept unless said otherwise below")
    packaging: str = key(
        "lenient", "strict: refuse multipart to SIMPLE operations and plain XML to MTOM ones; lenient: take both"
    )
    log_level: str = key("info", "debug, info, warning or error")
    log_format: str = key("text", "text, or json: an object on each line")
    probes: bool = key(True, "answer GET /healthz, /readyz and /metrics")
    tracing: str = key(
        "off", "otlp: send a trace of each exchange to a collector over OTLP/HTTP (xdsi[tracing]); or off"
    )
    tracing_endpoint: str = key(
        "", "URL that traces are posted to, http://.../v1/traces; empty: as the variables OTEL_EXPORTER_OTLP_... say"
    )
    shutdown_grace_s: int = key(30, "seconds that requests have to finish when the server is told to end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    database: str = key("", "SQLAlchemy URL, sqlite:///PATH or postgresql://...; empty: SQLite below server.directory")
    patients: str = key(
        "known", "known: only patients that were made known may be submitted for; open: any well-formed id"
    )
    assigning_authorities: str = key(
        "",
        "who assigns patient ids here: OID or namespace&OID, comma-separated, the first one for ids without; empty: any",
    )
    codes: str = key("", "TOML file of the codes that this affinity domain knows (xdsi codes import); empty: any code")
    unknown_patient: str = key(
        "empty", "a query for a patient that is not known: empty, or error (XDSUnknownPatientId)"
    )
    home_community_id: str = key("", "homeCommunityId of this domain, urn:oid:..., in every answer; empty: none")
    options: str = key(
        "on-demand,multi-patient,metadata-update,restricted-update,remove-metadata,patient-feed-v3",
        "which transactions beside ITI-42 and ITI-18 are offered: ITI-61, ITI-51, ITI-57, ITI-92, ITI-62, ITI-44",
    )
    feed_port: int = key(0, "TCP port of the HL7 v2 patient identity feed (ITI-8, ITI-64) over MLLP; 0: none")
    feed_host: str = key("127.0.0.1", "address that the feed listens on")
    feed_connections: int = key(200, "most connections of the feed at once")
    feed_idle_s: float = key(3600.0, "how long a connection of the feed may say nothing, in seconds")
    max_results: int = key(25_000, "most objects in one LeafClass answer; ObjectRef has no limit")
    threads: int = key(2, "threads that answer; one more writes, and registrations wait for the disk together")

    @property
    def offered(self) -> frozenset[str]:
        """The names in `options`."""
        return _names(self.options)


#: How each rule of a submission is taken; the rules say themselves what they demand.
Strictness = make_dataclass(
    "Strictness",
    [(name, str, key("error", f"error, warning or off: {meaning}")) for name, meaning in tunable.RULES.items()],
    frozen=True,
    slots=True,
    kw_only=True,
)


_STRICT = Strictness()


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityDomain:
    """A registry with patients, codes and rules of its own. `name` is "" for the one at /registry, else it is at /NAME/registry."""

    name: str
    registry: Registry
    strictness: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    unique_id: str = key("1.3.6.1.4.1.21367.13.1", "repositoryUniqueId: an OID of your own")
    database: str = key("", "SQLAlchemy URL of the catalogue; empty: SQLite below server.directory")
    directory: str = key("", "where documents are kept; empty: below server.directory")
    in_catalogue_bytes: int = key(
        64 * 1024, "documents of up to so many bytes are kept in the catalogue, which makes many durable with one sync"
    )
    store: str = key("files", "where larger documents are kept: files (below repository.directory), or s3")
    s3_endpoint: str = key("", "URL of an S3-compatible service")
    s3_bucket: str = key("", "bucket of the documents, which must be there")
    s3_prefix: str = key("", "what the names of the documents' objects begin with, before a slash")
    s3_region: str = key("us-east-1", "region of the bucket")
    s3_access_key_id: str = key("", "access key; empty: AWS_ACCESS_KEY_ID of the environment")
    s3_secret_access_key: str = key("", "its secret; empty: AWS_SECRET_ACCESS_KEY of the environment")
    s3_timeout_s: float = key(60.0, "longest time that the service may take for one request, in seconds")
    registry_url: str = key("", "ITI-42 endpoint of a remote registry; empty: the registry of this process")
    options: str = key("remove-documents", "which transactions beside ITI-41 and ITI-43 are offered: ITI-86")
    retention_days: int = key(0, "how long no document may be removed after it was stored, in days; 0: it may at once")
    on_demand_command: str = key(
        "", "program that assembles On-Demand documents: it gets the uniqueId and writes the document; empty: none"
    )
    on_demand_mime_type: str = key("", "mimeType of what it assembles; empty: that of the On-Demand entry")
    on_demand_timeout_s: float = key(30.0, "longest time that it may take for one document, in seconds")
    on_demand_max_bytes: int = key(256 * 1024 * 1024, "largest document that it may assemble, in bytes")
    on_demand_persistence: bool = key(
        False, "store and register each assembled document (option Persistence of Retrieved Documents)"
    )
    others: str = key(
        "", "other repositories that `xdsi retrieve` and `xdsi remove` speak to: OID=URL, comma-separated"
    )
    registry_timeout_s: float = key(
        300.0, "longest time that a remote registry may take to answer in full, in seconds; then it is not available"
    )
    sweep_interval_s: float = key(
        300.0, "how often documents whose registration was not heard of are settled, in seconds; 0: at start-up only"
    )
    sweep_grace_s: float = key(
        3600.0, "how old such a document must be before it is removed, in seconds: longer than any registration takes"
    )
    threads: int = key(8, "threads that receive and give out documents; as many more store and register them")

    @property
    def offered(self) -> frozenset[str]:
        """The names in `options`."""
        return _names(self.options)

    @property
    def other_urls(self) -> dict[str, str]:
        """The URLs in `others`, by repositoryUniqueId."""
        pairs = (one.partition("=") for one in self.others.split(",") if one.strip())
        return {unique_id.strip(): url.strip() for unique_id, _, url in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imaging:
    location_uid: str = key(
        "1.3.6.1.4.1.21367.13.2", "RetrieveLocationUID, which is the repositoryUniqueId in RAD-69: an OID of your own"
    )
    ae_title: str = key("XDSI", "RetrieveAETitle in manifests, at most 16 characters")
    retrieve_url: str = key("", "DICOMweb base URL in manifests; empty: none")
    source_id: str = key("1.3.6.1.4.1.21367.13.3", "SubmissionSet.sourceId: an OID of your own")
    database: str = key("", "SQLAlchemy URL of the index; empty: SQLite below server.directory")
    directory: str = key("", "where DICOM instances are kept; empty: below server.directory")
    repository_url: str = key(
        "", "ITI-41 endpoint that manifests are submitted to; empty: the repository of this process"
    )
    registry_url: str = key(
        "", "ITI-57 endpoint by which manifests of nothing are deprecated; empty: the registry of this process"
    )
    publish_after_s: float = key(
        0.0, "a study is published when nothing of it has come for so long, in seconds; 0: by `xdsi publish` only"
    )
    publish_interval_s: float = key(10.0, "how often it is looked for what is to be published, in seconds")
    publish_timeout_s: float = key(
        300.0, "longest time that a remote repository or registry may take to answer in full, in seconds"
    )
    manifests: str = key(
        "xds-i", "the forms in which the manifest of a study is published, comma-separated: xds-i, mado-kos, mado-fhir"
    )
    mado_title: str = key(
        "MADOTEMP001^99IHE",
        "title of the mado-kos form as code^scheme: the temporary one, until DICOM has given another",
    )
    mado_codes: str = key(
        "temporary", "codes in the mado-kos form: temporary (99IHE), or final (DCM) as they are proposed"
    )
    publish_key_images: bool = key(
        False,
        "publish what a key image note selects as a manifest of its own, beside that of the study, which lists the note",
    )
    patient_map: str = key(
        "", "the domain's patient ids: a TOML or CSV file of local ids and theirs, or same; empty: `--patient` only"
    )
    code_map: str = key(
        "",
        "TOML file of typeCode, eventCodeList and practiceSettingCode by modality, procedure and body part; empty: none",
    )
    source_patient_issuer: str = key("", "OID that assigns the Patient IDs (0010,0020), where the images do not say")
    accession_issuer: str = key("", "OID that assigns the Accession Numbers, where the images do not say")
    institution: str = key("", "institution name, where the images do not say")
    language_code: str = key("en-US", "languageCode of manifests (RFC 5646)")
    time_zone: str = key("UTC", "IANA time zone of the modalities, where the images do not say")
    threads: int = key(8, "threads that read instances")
    max_results: int = key(5000, "most matches in one answer of QIDO-RS")
    max_side_px: int = key(8192, "widest and highest picture that is rendered, in pixels")
    cors_origins: str = key(
        "",
        "whose pages may call DICOMweb and WADO-URI from a browser: https://HOST, comma-separated, or *; empty: nobody's",
    )
    empty_uid: int = key(404, "HTTP status for a WADO-URI request without a UID: 404 or 400")
    archive_url: str = key(
        "", "DICOMweb base URL of a PACS behind this source: what is not stored here is fetched from it; empty: none"
    )
    archive_dimse: str = key("", "the same of a PACS that is asked by DIMSE: AET@host:port; empty: none")
    archive_retrieve: str = key("get", "how it is made to send instances: get (C-GET) or move (C-MOVE)")
    archive_calling: str = key("", "AE title by which it knows this source; empty: that of ae_title")
    archive_move_host: str = key("127.0.0.1", "address to which it sends what C-MOVE asks for")
    archive_move_port: int = key(0, "TCP port to which it sends that; listened on only while a move takes")
    archive_connections: int = key(4, "instances, or associations, that are fetched from it at once, in each worker")
    archive_timeout_s: float = key(60.0, "longest pause in its answers, in seconds")
    archive_max_bytes: int = key(8 * 1024**3, "largest instance that is fetched from it, in bytes")
    archive_kept_bytes: int = key(
        1024**3, "most bytes of what was fetched last that are kept for five minutes, in each worker; 0: nothing is"
    )
    recoding_processes: int = key(2, "processes that re-encode instances in another transfer syntax, in each worker")
    recoding_memory_bytes: int = key(4 * 1024**3, "most memory of one of them, and its largest file, in bytes")
    recoding_timeout_s: float = key(120.0, "longest time that re-encoding one instance may take, in seconds")
    lossy_jpeg_quality: int = key(
        0, "quality of JPEG Baseline where somebody takes nothing better, 1 to 100; 0: it is not made"
    )
    lossy_jpeg_2000_psnr_db: int = key(
        0, "PSNR of what is given in JPEG 2000 (.91), in dB of the range of BitsStored; 0: no loss"
    )
    lossy_jpeg_ls_error: int = key(0, "most that a sample may change in JPEG-LS Near-lossless (.81); 0: not at all")
    dimse_port: int = key(0, "TCP port of the Storage SCP (C-STORE, C-ECHO, storage commitment); 0: none")
    dimse_host: str = key("127.0.0.1", "address that it listens on")
    dimse_called: str = key("", "AE title that it must be called by; empty: any")
    dimse_calling: str = key("", "AE titles that may call, comma-separated; empty: anybody")
    dimse_associations: int = key(16, "most associations at once")
    dimse_pdu_bytes: int = key(128 * 1024, "longest P-DATA-TF PDU, in bytes")
    dimse_object_bytes: int = key(4 * 1024**3, "largest data set, in bytes")
    dimse_unknown: bool = key(True, "take private and unknown SOP classes and transfer syntaxes too")
    dimse_idle_s: float = key(60.0, "how long an association may say nothing, in seconds")
    dimse_message_s: float = key(30.0, "longest time for one PDU to come, and for a peer to answer, in seconds")
    dimse_peers: str = key(
        "",
        "where the reports of storage commitment go: AET=host:port, comma-separated; else only on the same association",
    )
    query_retrieve: bool = key(
        False, "answer C-FIND, C-GET, and C-MOVE to dimse_peers, on dimse_port; DIMSE knows no users"
    )
    mpps: bool = key(
        False,
        "take performed procedure steps: a study waits while one is in progress, and is complete when all that they name is stored",
    )
    mpps_longest_s: float = key(
        86_400.0, "how long a step that does not end keeps its studies waiting, in seconds since it began"
    )
    drop_directory: str = key("", "folder whose DICOM files are stored and removed; empty: none")
    drop_interval_s: float = key(
        5.0, "how often it is looked at, in seconds; a file is taken when it is the same twice"
    )

    @property
    def forms(self) -> frozenset[str]:
        """The names in `manifests`."""
        return _names(self.manifests)

    @property
    def calling(self) -> frozenset[str]:
        """The names in `dimse_calling`."""
        return _names(self.dimse_calling)

    @property
    def peers(self) -> dict[str, tuple[str, int]]:
        """Host and port by AE title. ValueError for what is not of the form AET=host:port."""
        found = {}
        for one in filter(None, (text.strip() for text in self.dimse_peers.split(","))):
            ae_title, _, address = one.partition("=")
            if not is_ae_title(ae_title.strip()):
                raise ValueError(one)
            found[ae_title.strip()] = _address(address)
        return found

    @property
    def archive_peer(self) -> tuple[str, str, int]:
        """AE title, host and port of `archive_dimse`. ValueError for what is not of the form AET@host:port."""
        ae_title, _, address = self.archive_dimse.strip().rpartition("@")
        if not is_ae_title(ae_title):
            raise ValueError(self.archive_dimse)
        return (ae_title, *_address(address))

    @property
    def origins(self) -> frozenset[str]:
        """Those in `cors_origins`."""
        return _names(self.cors_origins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    port: int = key(0, "TCP port that imaging reports come to: HL7 v2 (ORU^R01, MDM) over MLLP; 0: none")
    host: str = key("127.0.0.1", "address that it listens on")
    connections: int = key(10, "most connections at once, each of which may hold a message in memory")
    idle_s: float = key(3600.0, "how long a connection may say nothing, in seconds")
    message_s: float = key(120.0, "longest time for one message to come, and for its answer to be read, in seconds")
    message_bytes: int = key(64 * 1024 * 1024, "largest message, in bytes: a PDF in Base64 is a third larger")
    source_id: str = key("1.3.6.1.4.1.21367.13.4", "SubmissionSet.sourceId: an OID of your own")
    assigning_authorities: str = key(
        "", "who assigns the affinity domain's patient ids, as in the section registry; empty: as that says"
    )
    repository_url: str = key(
        "", "ITI-41 endpoint that reports are submitted to; empty: the repository of this process"
    )
    registry_url: str = key(
        "",
        "ITI-18 and ITI-57 endpoint by which earlier versions are found and deprecated; empty: the repository's registry",
    )
    timeout_s: float = key(
        300.0, "longest time that a remote repository or registry may take to answer in full, in seconds"
    )
    placer_issuer: str = key("", "OID that assigns placer order numbers, where a message does not say")
    filler_issuer: str = key("", "OID that assigns filler order numbers, where a message does not say")
    filler_is_accession: bool = key(
        False, "the filler order number is the accession number, where a message has no IPC-1 and no OBR-18"
    )
    code_map: str = key("", "TOML file of codes by modality and procedure; empty: that of the section imaging")
    pdf: str = key("cda", "cda: a PDF becomes a CDA document around it (XDS-SD); plain: application/pdf, as it came")
    preliminary: bool = key(False, "register preliminary reports too, until the final one replaces them")
    addendum: str = key("replace", "what MDM^T06 does to the document that it names: replace, or append (APND)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    connections: int = key(1000, "most connections at once, in each process")
    head_bytes: int = key(64 * 1024, "longest request line and header fields of a request together, in bytes")
    head_fields: int = key(100, "most header fields of a request")
    head_s: float = key(20.0, "longest time in which the request line and header fields must have come, in seconds")
    body_idle_s: float = key(60.0, "longest pause in a request body, in seconds")
    body_bytes_per_s: int = key(1024, "slowest average rate of a request body, in bytes per second")
    body_grace_s: float = key(30.0, "how long a request body may be slower than that, in seconds")
    message_bytes: int = key(64 * 1024**3, "largest request, in bytes")
    envelope_bytes: int = key(16 * 1024 * 1024, "largest SOAP envelope without its attachments, in bytes")
    document_bytes: int = key(64 * 1024**3, "largest document, in bytes")
    parts: int = key(10_000, "most MIME parts in a request")
    part_header_bytes: int = key(8 * 1024, "longest header fields of one MIME part, in bytes")
    preamble_bytes: int = key(64 * 1024, "most bytes before the first MIME part")
    depth: int = key(100, "deepest nesting of XML elements")
    attributes: int = key(256, "most attributes of one XML element")
    namespaces: int = key(100_000, "most namespace declarations of one XML entity")
    tags: int = key(1_000_000, "most tags of one XML entity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration, by section."""

    server: Server = Server()
    registry: Registry = Registry()
    strictness: Any = _STRICT
    repository: Repository = Repository()
    imaging: Imaging = Imaging()
    reports: Reports = Reports()
    limits: Limits = Limits()
    domains: tuple[AffinityDomain, ...] = ()

    @property
    def affinity_domains(self) -> tuple[AffinityDomain, ...]:
        """The one of the section registry, and the others."""
        return (AffinityDomain(name="", registry=self.registry, strictness=self.strictness), *self.domains)

    @property
    def actors(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.server.actors.split(",") if name.strip())

    def database_url(self, actor: str) -> str:
        """The SQLAlchemy URL of an actor's database."""
        given: str = getattr(self, actor).database
        return given or f"sqlite:///{Path(self.server.directory).absolute() / f'{actor}.sqlite'}"

    def registry_database_url(self, domain: AffinityDomain) -> str:
        """The SQLAlchemy URL of an affinity domain's registry."""
        file = f"registry-{domain.name}.sqlite" if domain.name else "registry.sqlite"
        return domain.registry.database or f"sqlite:///{Path(self.server.directory).absolute() / file}"

    def content_directory(self, actor: str) -> Path:
        """Where an actor keeps its files."""
        given: str = getattr(getattr(self, actor), "directory", "")
        return Path(given) if given else Path(self.server.directory).absolute() / actor


SECTIONS = {one.name: type(getattr(Config(), one.name)) for one in fields(Config) if one.name != "domains"}
_LEVELS = ("error", "warning", "off")
_CHOICES = {
    **{("strictness", name): _LEVELS for name in tunable.RULES},
    ("registry", "unknown_patient"): ("empty", "error"),
    ("server", "packaging"): ("strict", "lenient"),
    ("repository", "store"): ("files", "s3"),
    ("imaging", "empty_uid"): (404, 400),
    ("reports", "pdf"): ("cda", "plain"),
    ("reports", "addendum"): ("replace", "append"),
    ("imaging", "mado_codes"): ("temporary", "final"),
    ("imaging", "archive_retrieve"): ("get", "move"),
    ("server", "log_format"): ("text", "json"),
    ("server", "log_level"): ("debug", "info", "warning", "error"),
    ("server", "tracing"): ("off", "otlp"),
    ("registry", "patients"): ("known", "open"),
}
ACTORS = ("registry", "repository", "imaging")
_PREFIX = "XDSI__"


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The defaults, overridden by the file, overridden by the environment. ConfigError for whatever cannot be used."""
    environment = os.environ if environment is None else environment
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    domains: tuple[AffinityDomain, ...] = ()
    if path is not None:
        content = _content(path)
        domains = _domains(content.pop("domains", {}), str(path))
        for section, keys in content.items():
            if not isinstance(keys, dict):
                raise ConfigError(f"{path}: {section} stands outside of a section")
            for name, value in keys.items():
                _set(values, section, name, value, origin=str(path))
    for variable, text in sorted(environment.items()):
        if variable.startswith(_PREFIX):
            section, _, name = variable[len(_PREFIX) :].lower().partition("__")
            _set(values, section, name, text, origin=f"environment variable {variable}", from_text=True)
    config = Config(domains=domains, **{section: kind(**values[section]) for section, kind in SECTIONS.items()})
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
    return config


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


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _domains(content: Any, origin: str) -> tuple[AffinityDomain, ...]:
    """[domains.NAME]: the keys of the section registry, and [domains.NAME.strictness]. Nothing is inherited."""
    found = []
    for name, keys in content.items() if isinstance(content, dict) else ():
        here = f"{origin}: domains.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name) or name in ACTORS:
            raise ConfigError(f"{here}: a domain is named by 1 to 32 of a-z, 0-9 and -, and not like an actor")
        if not isinstance(keys, dict):
            raise ConfigError(f"{here} is no section")
        values: dict[str, dict[str, Any]] = {"registry": {}, "strictness": {}}
        for key_name, value in keys.items():
            if key_name == "strictness" and isinstance(value, dict):
                for rule, level in value.items():
                    _set(values, "strictness", rule, level, origin=here)
            else:
                _set(values, "registry", key_name, value, origin=here)
        found.append(
            AffinityDomain(
                name=name, registry=Registry(**values["registry"]), strictness=Strictness(**values["strictness"])
            )
        )
    return tuple(found)


def _set(
    values: dict[str, dict[str, Any]], section: str, name: str, value: Any, *, origin: str, from_text: bool = False
) -> None:
    if section not in SECTIONS:
        raise ConfigError(f"{origin}: there is no section {section!r}{_nearest(section, SECTIONS)}")
    known = {one.name: one for one in fields(SECTIONS[section])}
    if name not in known:
        raise ConfigError(f"{origin}: there is no key {section}.{name}{_nearest(name, known)}")
    kind = type(known[name].default)
    try:
        value = _converted(value, kind, from_text)
    except ValueError:
        raise ConfigError(f"{origin}: {section}.{name} is {value!r}; it must be of type {kind.__name__}") from None
    choices = _CHOICES.get((section, name))
    if choices and value not in choices:
        raise ConfigError(f"{origin}: {section}.{name} is {value!r}; it must be one of {', '.join(map(str, choices))}")
    values[section][name] = value


def _converted(value: Any, kind: type, from_text: bool) -> Any:
    if from_text and kind is bool:
        lowered = value.strip().lower()
        if lowered not in ("true", "false", "1", "0"):
            raise ValueError
        return lowered in ("true", "1")
    if from_text or (kind is float and type(value) is int):
        return kind(value)
    if type(value) is not kind:
        raise ValueError
    return value


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def to_toml(config: Config) -> str:
    """The effective configuration as TOML, each key with its meaning and, where it differs, its default."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += _section(section, getattr(config, section))
    for domain in config.domains:
        lines += _section(f"domains.{domain.name}", domain.registry)
        lines += _section(f"domains.{domain.name}.strictness", domain.strictness)
    return "\n".join(lines)


def _section(name: str, values: Any) -> list[str]:
    lines = [f"[{name}]"]
    for one in fields(values):
        value = getattr(values, one.name)
        default = "" if value == one.default else f" (default: {_literal(one.default)})"
        lines += [f"# {one.metadata['meaning']}{default}", f"{one.name} = {_literal(value)}"]
    return [*lines, ""]


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
