"""What the server counts, in Prometheus' terms: exchanges, their times and bytes, HL7 v2 messages, groups of commits, stored documents.

Labels are names of ours and never text from the wire. With several workers each keeps its counts in files of a shared directory, and
whichever is asked gives the sum. The library reads PROMETHEUS_MULTIPROC_DIR when it is imported, so that this module must not be
imported before server/cli.py has set it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from soap.operations import Exchange

if TYPE_CHECKING:
    from repository.catalogue import Count

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
_GROUPS = (1, 2, 4, 8, 16, 32, 48)


class Metrics:
    """The counts of one process, or, with `directory`, of all that share it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, directory: str | None = None) -> None:
        self._registry = CollectorRegistry()
        self._directory = directory
        kept = self._registry
        transaction, ending = "transaction", "ending"
        self._exchanges = Counter(
            "xdsi_exchanges", "Requests, by what became of them.", ("service", transaction, ending), registry=kept
        )
        self._seconds = Histogram(
            "xdsi_exchange_seconds",
            "From a request's headers to the last byte of its answer.",
            (transaction,),
            buckets=_SECONDS,
            registry=kept,
        )
        self._bytes_in = Counter("xdsi_received_bytes", "Bytes of request bodies.", (transaction,), registry=kept)
        self._bytes_out = Counter("xdsi_sent_bytes", "Bytes of answers' bodies.", (transaction,), registry=kept)
        self._incidents = Counter(
            "xdsi_incidents", "Requests that met what nobody foresaw; the log has each.", ("service",), registry=kept
        )
        self._groups = Histogram(
            "xdsi_registry_commit_group", "Units of work in one commit.", buckets=_GROUPS, registry=kept
        )
        self._messages = Counter(
            "xdsi_hl7v2_messages", "HL7 v2 messages, by event and acknowledgement.", ("event", "code"), registry=kept
        )
        self._damaged = Counter(
            "xdsi_damaged_documents", "Retrievals of documents whose bytes are damaged or gone.", registry=kept
        )
        where = ("state", "place")
        self._documents = Gauge(
            "xdsi_documents",
            "Stored documents, when they were counted last.",
            where,
            registry=kept,
            multiprocess_mode="mostrecent",
        )
        self._document_bytes = Gauge(
            "xdsi_document_bytes",
            "Bytes of stored documents, when they were counted last.",
            where,
            registry=kept,
            multiprocess_mode="mostrecent",
        )
        self._staging_bytes = Gauge(
            "xdsi_staging_bytes",
            "Bytes of documents that are being received or fetched, when they were counted last.",
            registry=kept,
            multiprocess_mode="mostrecent",
        )
        self._waiting = Gauge(
            "xdsi_registry_waiting_units",
            "Units of work that waited when the last commit ended.",
            registry=kept,
            multiprocess_mode="livesum",
        )
        self._where: set[tuple[str, str]] = set()
        self.in_flight = Gauge(
            "xdsi_exchanges_in_flight",
            "Requests that are being received or answered.",
            registry=kept,
            multiprocess_mode="livesum",
        )

    def exchange(self, one: Exchange) -> None:
        """Counts a request that has ended."""
        transaction = one.transaction or "none"
        self._exchanges.labels(one.service, transaction, one.ending).inc()
        self._seconds.labels(transaction).observe(one.seconds)
        self._bytes_in.labels(transaction).inc(one.bytes_in)
        self._bytes_out.labels(transaction).inc(one.bytes_out)
        if one.incident is not None:
            self._incidents.labels(one.service).inc()

    def group(self, units: int, waiting: int) -> None:
        """Counts a commit of so many units of work, at whose end so many waited for the next."""
        self._groups.observe(units)
        self._waiting.set(waiting)

    def stock(self, counts: Iterable[Count], staging_bytes: int) -> None:
        """Tells how many documents there are, and of how many bytes, by state and place."""
        now = {(one.state.value, one.place): one for one in counts}
        self._where |= now.keys()
        for where in self._where:
            one = now.get(where)
            self._documents.labels(*where).set(0 if one is None else one.documents)
            self._document_bytes.labels(*where).set(0 if one is None else one.size)
        self._staging_bytes.set(staging_bytes)

    def message(self, event: str, code: str) -> None:
        """Counts an HL7 v2 message."""
        self._messages.labels(event, code).inc()

    def damaged(self) -> None:
        """Counts a document that could not be given out because its bytes are not as they were stored."""
        self._damaged.inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        if self._directory is None:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        multiprocess.MultiProcessCollector(everybody, self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)


def forget(directory: str, pid: int) -> None:
    """What a process that is no more was doing is not being done any more; what it has done still counts."""
    multiprocess.mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
