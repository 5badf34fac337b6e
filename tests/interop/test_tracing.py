"""Traces of a running server, as a collector hears of them (docs/operations.md)."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.messages import (
    MTOM,
    SIMPLE,
    envelope,
    multipart,
    patient,
    provide,
    register,
    retrieve,
    stored_query,
    submission,
)
from schemas import xdsi
from tests.collector import Collector, collecting
from tests.interop.test_serving import free_port, served, until
from xds.messages import DocumentRequest, ImagingRequest, SeriesRequest, StudyRequest
from xds.metadata import Submission
from xds.queries import FindDocuments
from xds.values import Identifier

NAME = "Zwetschgenberger"
PATIENT = Identifier(f"{NAME}77^^^&1.2.3.4&ISO")
SECRET = b"the letter of " + NAME.encode()
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
OPEN = '[registry]\npatients = "open"\n'
STAGES = {"receive", "answer", "send"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of the tests says of tracing is not what they want."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


def told_to(collector: Collector) -> str:
    """The keys of the section server."""
    return f'tracing = "otlp"\ntracing_endpoint = "{collector.url}/v1/traces"\n'


def ask(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    content_type = MTOM if body.startswith(b"--") else SIMPLE
    request = urllib.request.Request(url, body, {"Content-Type": content_type, **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def letter(one: Submission) -> bytes:
    """ITI-41 of a letter, with the patient's name in the metadata."""
    message = provide(one, [SECRET]).replace(b"Muster", NAME.encode())
    assert NAME.encode() in message.partition(SECRET)[0]
    return message


def message_id(message: bytes) -> str:
    found = re.search(rb"MessageID>([^<]*)<", message)
    assert found
    return found[1].decode()


def unlike(told: Collector, *words: bytes) -> bool:
    """Whether none of the words is in what was told, whatever in."""
    return not any(word in body for word in words for body in told.bodies)


# --- the spans --------------------------------------------------------------------------------------------------------


def test_a_trace_goes_from_the_source_through_the_repository_to_the_registry(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parents as W3C Trace Context has them; and not a word of the patient, the metadata or the document."""
    for name in ("registry", "repository"):
        (tmp_path / name).mkdir()
    sent, one = letter(made := submission(PATIENT)), made.document_entries[0]
    question = stored_query(FindDocuments(patient_id=PATIENT))
    with ExitStack() as running:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "the registry")
        toml = f'log_format = "json"\n{told_to(collector)}{OPEN}'
        _, at = running.enter_context(served(tmp_path / "registry", toml, "--actors", "registry"))
        monkeypatch.delenv("OTEL_SERVICE_NAME")
        toml = f'{told_to(collector)}[repository]\nregistry_url = "{at["registry"]}"\n'
        _, at_repository = running.enter_context(served(tmp_path / "repository", toml, "--actors", "repository"))
        status, answer = ask(at_repository["repository"], sent, Traceparent=TRACEPARENT, Tracestate=f"a={NAME}")
        assert status == 200 and b"Success" in answer
        status, found = ask(at["registry"], question)
        assert status == 200 and str(one.unique_id).encode() in found
    # Both have ended: what had not been sent yet was sent at the end.
    provided = collector.of("ITI-41", "server")
    assert (provided.trace, provided.parent, provided.failed) == (TRACE, PARENT, False)
    assert provided.attributes == {
        "http.request.method": "POST",
        "http.route": "/repository",
        "http.response.status_code": 200,
        "http.request.body.size": len(sent),
        "http.response.body.size": len(answer),
        "wsa.action": "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b",
        "wsa.message_id": message_id(sent),
        "xdsi.service": "DocumentRepository",
        "xdsi.transaction": "ITI-41",
        "xdsi.ending": "success",
    }
    assert collector.below(provided).keys() == STAGES
    asked = collector.of("ITI-42", "client")
    assert asked == collector.below(collector.below(provided)["answer"])["ITI-42"]
    assert asked.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": urlsplit(at["registry"]).port,
        "wsa.action": "urn:ihe:iti:2007:RegisterDocumentSet-b",
    }
    registered = collector.of("ITI-42", "server")
    assert registered.parent == asked.id
    assert collector.below(registered).keys() == STAGES
    # Nobody told the query where it belongs: it is a trace of its own.
    queried = collector.of("ITI-18", "server")
    assert queried.parent == "" and queried.trace != TRACE
    assert len(collector.spans) == 4 + 4 + 1 + 4
    assert {one.trace for one in collector.spans} == {TRACE, queried.trace}
    assert {one.resource["service.name"] for one in (provided, asked)} == {"xdsi"}
    assert {one.resource["service.name"] for one in (registered, queried)} == {"the registry"}
    assert not unlike(collector, message_id(question).encode())
    assert unlike(collector, NAME.encode(), SECRET, b"Discharge letter", str(one.unique_id).encode())
    # Whoever reads the logs finds the trace, and the other way round.
    lines = [json.loads(line) for line in (tmp_path / "registry" / "log").read_text().splitlines()]
    traces = {one.get("transaction"): one["trace_id"] for one in lines if one["logger"] == "xdsi.access"}
    assert traces == {"ITI-42": TRACE, "ITI-18": queried.trace}
    assert [one for one in lines if one["logger"] == "uvicorn.error" and "trace_id" in one] == []
    assert re.search(rf" transaction=ITI-41 .* trace_id={TRACE}$", (tmp_path / "repository" / "log").read_text(), re.M)


def images() -> bytes:
    wanted = DocumentRequest(repository_unique_id="1.2.3", document_unique_id="1.2.3.4", home_community_id=None)
    series = SeriesRequest(series_instance_uid="1.2.4", documents=(wanted,))
    study = StudyRequest(study_instance_uid="1.2.5", series=(series,))
    asked = ImagingRequest(studies=(study,), transfer_syntax_uids=("1.2.840.10008.1.2.1",))
    return multipart(envelope("urn:ihe:rad:2009:RetrieveImagingDocumentSet", xdsi.encode_imaging_request(asked)))


def test_in_one_process_each_transaction_is_a_span_and_the_registration_within_another_is_one(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector is where the standard variable says. What only looks and asks for a WSDL is no exchange."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    made = submission(PATIENT)
    unique_id = str(made.document_entries[0].unique_id)
    wanted = [
        DocumentRequest(repository_unique_id="1.3.6.1.4.1.21367.13.1", document_unique_id=one)
        for one in (unique_id, "1.2.3.4.999")
    ]
    with served(tmp_path, f'tracing = "otlp"\n{OPEN}') as (_, at):
        assert b"Success" in ask(at["repository"], letter(made))[1]
        assert SECRET in ask(at["repository"], retrieve(wanted))[1]
        assert b"Failure" in ask(at["imaging"], images())[1]
        base = at["repository"].removesuffix("/repository")
        for path in ("/repository?wsdl", "/healthz", "/metrics", "/dicomweb/studies?PatientName=Secret"):
            urllib.request.urlopen(base + path, timeout=60).close()
    servers = [one.name for one in collector.spans if one.kind == "server"]
    assert sorted(servers) == ["ITI-41", "ITI-43", "RAD-129", "RAD-69"]
    searched = collector.of("RAD-129", "server").attributes
    assert (searched["http.request.method"], searched["http.route"]) == ("GET", "/dicomweb")
    assert {one.resource["deployment.environment.name"] for one in collector.spans} == {"test"}
    answering = collector.below(collector.of("ITI-41", "server"))["answer"]
    assert collector.below(answering)["ITI-42"].kind == "internal"
    partial = collector.of("ITI-43", "server")
    assert not partial.failed and partial.attributes["xdsi.ending"] == "partial"
    assert partial.attributes["xdsi.error_codes"] == ("XDSDocumentUniqueIdError",)
    assert collector.of("RAD-69", "server").failed
    assert unlike(collector, NAME.encode(), SECRET, b"PatientName=Secret")


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_is_told_by_its_code_and_not_by_its_text(tmp_path: Path, collector: Collector) -> None:
    """A refusal, in the registry and in the repository that relays it; a fault; a client that goes away."""
    with served(tmp_path, told_to(collector), "--actors", "registry,repository") as (_, at):
        refusal = ask(at["repository"], letter(submission(PATIENT)))[1]
        assert b"XDSUnknownPatientId" in refusal and NAME.encode() in refusal
        refusal = ask(at["registry"], register(submission(PATIENT, registered=True)))[1]
        assert b"XDSUnknownPatientId" in refusal
        status, fault = ask(at["registry"], envelope(f"urn:{NAME}", b"<a xmlns='urn:example'/>"))
        assert status == 400 and NAME.encode() in fault
        parts = urlsplit(at["repository"])
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            client.sendall(request(b"half", ["Content-Length: 1000"], "/repository"))
    for name in ("ITI-41", "ITI-42"):
        refused = collector.of(name, "server")
        assert refused.failed
        assert refused.attributes["xdsi.ending"] == "failure"
        assert refused.attributes["xdsi.error_codes"] == ("XDSUnknownPatientId",)
        assert refused.attributes["error.type"] == "XDSUnknownPatientId"
        assert refused.attributes["http.response.status_code"] == 200
    registering = collector.of("ITI-42", "internal")
    assert registering.failed and registering.attributes == {"error.type": "Failure"}
    faulty = collector.of("DocumentRegistry", "server")
    assert faulty.failed
    assert faulty.attributes["http.response.status_code"] == 400
    assert faulty.attributes["xdsi.error_codes"] == ("Sender",)
    assert faulty.attributes.keys().isdisjoint({"wsa.action", "xdsi.transaction"})
    gone = collector.of("DocumentRepository", "server")
    assert gone.failed and gone.attributes["error.type"] == "disconnected"
    assert "http.response.status_code" not in gone.attributes
    assert collector.below(gone)["receive"].attributes == {"error.type": "Disconnected"}
    assert unlike(collector, NAME.encode())


def test_a_registry_that_is_away_is_an_error_of_the_request_to_it_and_its_log_lines_name_the_trace(
    tmp_path: Path, collector: Collector
) -> None:
    """Also those that a thread writes which only stores and registers."""
    toml = f'{told_to(collector)}[repository]\nregistry_url = "http://127.0.0.1:{free_port()}/registry"\n'
    with served(tmp_path, toml, "--actors", "repository") as (_, at):
        answer = ask(at["repository"], letter(submission(PATIENT)), traceparent=TRACEPARENT)[1]
        assert b"XDSRegistryNotAvailable" in answer
    asked = next(one for one in collector.spans if (one.trace, one.kind) == (TRACE, "client"))
    assert asked.failed and asked.attributes["error.type"] == "OSError"
    assert collector.of("ITI-41", "server").attributes["xdsi.error_codes"] == ("XDSRegistryNotAvailable",)
    assert unlike(collector, NAME.encode())
    incidents = re.findall(r"ERROR xdsi.repository incident .*$", (tmp_path / "log").read_text(), re.MULTILINE)
    assert len(incidents) == 1 and incidents[0].endswith(f" trace_id={TRACE}")


# --- parents ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        ["traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
        ["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
        ["traceparent: ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        ["traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
        ["traceparent: \xff"],
        [f"traceparent: {TRACEPARENT}{'-x' * 2000}"],
        [f"traceparent: {TRACEPARENT}", f"traceparent: {TRACEPARENT}"],
    ],
)
def test_a_parent_that_is_none_begins_a_trace(tmp_path: Path, collector: Collector, headers: list[str]) -> None:
    """W3C Trace Context 3.2: what cannot be parsed is ignored. A good one before it, on the same connection, is forgotten."""
    body = stored_query(FindDocuments(patient_id=patient(1)))
    with served(tmp_path, told_to(collector), "--actors", "registry") as (_, at):
        parts = urlsplit(at["registry"])
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as client:
            # At once: the second waits in the server for the first.
            length = f"Content-Length: {len(body)}"
            first_one = request(body, [length, f"traceparent: {TRACEPARENT}"])
            client.sendall(first_one + request(body, [length, *headers, "Connection: close"]))
            assert b"".join(iter(lambda: client.recv(65536), b"")).count(b"Success") == 2
    first, second = (one for one in collector.spans if one.kind == "server")
    assert (first.trace, first.parent) == (TRACE, PARENT)
    assert second.parent == "" and second.trace not in (TRACE, "0" * 32)
    assert re.findall(r"trace_id=(\w+)$", (tmp_path / "log").read_text(), re.MULTILINE) == [TRACE, second.trace]


def request(body: bytes, headers: list[str], path: str = "/registry") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {SIMPLE}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def test_a_caller_that_does_not_sample_is_followed(tmp_path: Path, collector: Collector) -> None:
    """And its trace is in the log all the same."""
    with served(tmp_path, told_to(collector), "--actors", "registry") as (_, at):
        question = stored_query(FindDocuments(patient_id=patient(1)))
        assert ask(at["registry"], question, traceparent=f"00-{TRACE}-{PARENT}-00")[0] == 200
    assert collector.spans == []
    assert f"trace_id={TRACE}" in (tmp_path / "log").read_text()


# --- several workers, and no collector --------------------------------------------------------------------------------


def test_several_workers_tell_each_exchange_once(tmp_path: Path, collector: Collector) -> None:
    """All of it has been sent when the server has ended."""
    question = stored_query(FindDocuments(patient_id=patient(1)))
    with served(tmp_path, told_to(collector), "--workers", "2", "--actors", "registry") as (_, at):
        until(lambda: (tmp_path / "log").read_text().count("Started server") == 2)
        parts = urlsplit(at["registry"])
        connections = [http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60) for _ in range(32)]
        for one in connections:
            one.connect()
        for one in connections:
            one.request("POST", "/registry", question, {"Content-Type": SIMPLE})
            assert b"Success" in one.getresponse().read()
        for one in connections:
            one.close()
    servers = [one for one in collector.spans if one.kind == "server"]
    assert [one.name for one in servers] == ["ITI-18"] * 32
    assert len({one.trace for one in servers}) == 32
    assert len(collector.spans) == 32 * 4
    assert len({one.resource["service.instance.id"] for one in servers}) == 2


@pytest.mark.parametrize("kind", ["away", "silent"])
def test_without_a_collector_every_request_is_answered(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also more of them than there is room to keep; and the end does not wait for long."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    question = stored_query(FindDocuments(patient_id=patient(1)))
    with collecting(silent=True) as collector:
        url = collector.url if kind == "silent" else f"http://127.0.0.1:{free_port()}"
        toml = f'tracing = "otlp"\ntracing_endpoint = "{url}/v1/traces"\n'
        with served(tmp_path, toml, "--actors", "registry") as (_, at):
            assert b"Success" in ask(at["registry"], question)[1]
            tried: Callable[[], object] = {
                "silent": lambda: collector.bodies,
                "away": lambda: "Transient error" in (tmp_path / "log").read_text(),
            }[kind]
            until(tried)
            for _ in range(30):
                assert b"Success" in ask(at["registry"], question)[1]
    log = (tmp_path / "log").read_text()
    if kind == "silent":
        assert "the collector of traces did not answer within 5.0 s; the last spans are lost" in log
    assert log.count("transaction=ITI-18 ending=success") == 31
    assert "Traceback" not in log


# --- the extra --------------------------------------------------------------------------------------------------------


def test_what_is_not_wanted_is_not_imported(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the interpreter itself tells of each module that it imports."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    for name, toml in (("without", ""), ("with", told_to(collector))):
        (tmp_path / name).mkdir()
        with served(tmp_path / name, toml) as (_, at):
            assert b"Success" in ask(at["registry"], stored_query(FindDocuments(patient_id=patient(1))))[1]
    imported = {name: (tmp_path / name / "log").read_text() for name in ("without", "with")}
    assert all("prometheus_client" in one for one in imported.values())
    assert "opentelemetry" in imported["with"]
    assert "opentelemetry" not in imported["without"] and "server.otlp" not in imported["without"]
    assert "trace_id" not in imported["without"]


def refused(directory: Path, toml: str, **variables: str) -> str:
    """What `xdsi serve` says instead of serving."""
    (directory / "x.toml").write_text(f'[server]\nport = 0\ndirectory = "{directory}"\ntracing = "otlp"\n{toml}')
    command = [sys.executable, "-m", "server.cli", "serve", "--config", str(directory / "x.toml")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=directory, env={**os.environ, **variables}
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path, workers: int) -> None:
    """A module of the same name hides what is installed."""
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "opentelemetry.py").touch()
    path = os.pathsep.join([str(tmp_path / "hiding"), os.environ.get("PYTHONPATH", "")])
    said = refused(tmp_path, f"workers = {workers}\n", PYTHONPATH=path)
    assert said.startswith(
        "xdsi: server.tracing is 'otlp', which needs packages that are not installed (No module named"
    )
    assert said.endswith("pip install 'xdsi[tracing]'\n") and said.count("\n") == 1


def test_what_cannot_be_used_is_told_by_name(tmp_path: Path) -> None:
    said = refused(tmp_path, 'tracing_endpoint = "localhost:4318"\n')
    assert said == "xdsi: server.tracing_endpoint is 'localhost:4318'; it must begin with http:// or https://\n"
    said = refused(tmp_path, "", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; traces are sent as http/protobuf only" in said


def test_a_code_that_another_actor_made_up_is_not_told() -> None:
    """The errorCode of a registry that is not ours is whatever it sends (ITI TF-3 4.2.4.1)."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from server.otlp import Spans
    from soap.operations import Exchange

    kept, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    spans = Spans(provider.get_tracer("test"))
    with spans.stage("x"):
        codes = (f"Unknown{NAME}", "XDSRegistryError", f"Un{NAME}")
        spans.observe(Exchange(service="DocumentRepository", ending="failure", codes=codes))
    (span,) = kept.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["xdsi.error_codes"] == ("other", "XDSRegistryError")
    assert NAME not in span.to_json()
