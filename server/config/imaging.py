"""The section imaging: what an Imaging Document Source is told."""

from __future__ import annotations

from dataclasses import dataclass

from server.config.keys import host_and_port, is_ae_title, key, names


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
        "where peers are, for C-MOVE and reports of storage commitment (else on the same association): AET=host:port, comma-separated",
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
        return names(self.manifests)

    @property
    def calling(self) -> frozenset[str]:
        """The names in `dimse_calling`."""
        return names(self.dimse_calling)

    @property
    def peers(self) -> dict[str, tuple[str, int]]:
        """Host and port by AE title. ValueError for what is not of the form AET=host:port."""
        found = {}
        for one in filter(None, (text.strip() for text in self.dimse_peers.split(","))):
            ae_title, _, address = one.partition("=")
            if not is_ae_title(ae_title.strip()):
                raise ValueError(one)
            found[ae_title.strip()] = host_and_port(address)
        return found

    @property
    def archive_peer(self) -> tuple[str, str, int]:
        """AE title, host and port of `archive_dimse`. ValueError for what is not of the form AET@host:port."""
        ae_title, _, address = self.archive_dimse.strip().rpartition("@")
        if not is_ae_title(ae_title):
            raise ValueError(self.archive_dimse)
        return (ae_title, *host_and_port(address))

    @property
    def origins(self) -> frozenset[str]:
        """Those in `cors_origins`."""
        return names(self.cors_origins)
