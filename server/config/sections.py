"""The other sections, and the configuration as a whole."""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

from registry import tunable
from server.config.imaging import Imaging
from server.config.keys import key, names


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
        return names(self.options)


#: How each rule of a submission is taken; the rules say themselves what they demand.
Strictness = make_dataclass(
    "Strictness",
    [(name, str, key("error", f"error, warning or off: {meaning}")) for name, meaning in tunable.RULES.items()],
    frozen=True,
    slots=True,
    kw_only=True,
)


_STRICT, _IMAGING = Strictness(), Imaging()


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
        return names(self.options)

    @property
    def other_urls(self) -> dict[str, str]:
        """The URLs in `others`, by repositoryUniqueId."""
        pairs = (one.partition("=") for one in self.others.split(",") if one.strip())
        return {unique_id.strip(): url.strip() for unique_id, _, url in pairs}


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
    imaging: Imaging = _IMAGING
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
ACTORS = ("registry", "repository", "imaging")
