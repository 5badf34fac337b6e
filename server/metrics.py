"""What the server counts, in Prometheus' terms: exchanges, their times and bytes, HL7 v2 messages, groups of commits, damage.

Labels are names of ours and never text from the wire. With several workers each keeps its counts in files of a shared directory, and
whichever is asked gives the sum. The library reads PROMETHEUS_MULTIPROC_DIR when it is imported, so that this module must not be
imported before server/cli.py has set it.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from soap.operations import Exchange

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

    def group(self, units: int) -> None:
        """Counts a commit of so many units of work."""
        self._groups.observe(units)

    def message(self, event: str, code: str) -> None:
        """Counts an HL7 v2 message."""
        self._messages.labels(event, code).inc()

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
