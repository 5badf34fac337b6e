"""ITI-41 at a repository whose registry is somewhere else: what it answers is relayed, what it does not answer is told as such."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from lxml import etree

from benchmarks.messages import patient, submission
from registry.client import client as registry_client
from repository.client import client, routed
from schemas import lcm, rim, rs
from schemas.ns import LCM
from server.compose import Domain, soap_client
from server.config import Config
from server.embedded import serving
from xds.messages import Document, DocumentRequest, Outcome, Retrieved
from xds.metadata import DocumentEntry, Submission
from xds.problems import Failure, Problem, Severity
from xds.queries import GetDocuments
from xds.transactions import Provide, Retrieve
from xds.vocabulary import ON_DEMAND, ResponseStatus

LETTER = Document.of(b"Dear colleague,\r\nthank you.\r\n", "text/plain")
SOAP = "application/soap+xml; charset=UTF-8"
Answer = Callable[[BaseHTTPRequestHandler], None]


class _Handler(BaseHTTPRequestHandler):
    registry: RemoteRegistry

    def do_POST(self) -> None:
        pieces = []
        # The request comes in chunks: their lengths in hexadecimal, the last one 0.
        while length := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        self.registry.received.append(b"".join(pieces))
        self.registry.answer(self)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@dataclass
class RemoteRegistry:
    """An HTTP server in the place of a registry, which does what `answer` does. At the end nothing waits in it any more."""

    answer: Answer
    received: list[bytes] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def serving(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/registry"
        finally:
            self.over.set()
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def submissions(self) -> list[Submission]:
        """What it was asked to register."""
        bodies = (etree.fromstring(one).find(f".//{{{LCM}}}SubmitObjectsRequest") for one in self.received)
        return [lcm.decode_submission(one) for one in bodies if one is not None]


def send(handler: BaseHTTPRequestHandler, content: bytes, *, status: int = 200, content_type: str = SOAP) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def in_envelope(body: str) -> bytes:
    return (
        f'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body>{body}</s:Body></s:Envelope>'.encode()
    )


def saying(outcome: Outcome) -> Answer:
    return lambda handler: send(handler, in_envelope(rs.encode_outcome(outcome).decode()))


SUCCESS = in_envelope(rs.encode_outcome(Outcome()).decode())
FAULT = in_envelope(
    "<s:Fault><s:Code><s:Value>s:{}</s:Value></s:Code>"
    '<s:Reason><s:Text xml:lang="en">the secret of the registry</s:Text></s:Reason></s:Fault>'
).decode()


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Half of an answer, and the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", SOAP)
    handler.send_header("Content-Length", str(len(SUCCESS)))
    handler.end_headers()
    handler.wfile.write(SUCCESS[: len(SUCCESS) // 2])
    handler.close_connection = True


def dead(handler: BaseHTTPRequestHandler) -> None:
    """The end of the connection instead of an answer."""
    handler.close_connection = True


def hanging(handler: BaseHTTPRequestHandler) -> None:
    """No answer before the test is over."""
    handler.server.RequestHandlerClass.registry.over.wait()  # type: ignore[attr-defined]


def dribbling(handler: BaseHTTPRequestHandler) -> None:
    """An answer that never pauses for long and never ends."""
    handler.send_response(200)
    handler.send_header("Content-Type", SOAP)
    handler.end_headers()
    over = handler.server.RequestHandlerClass.registry.over  # type: ignore[attr-defined]
    while not over.wait(0.05):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


@dataclass
class Repository:
    """In front of the remote registry, with clients of its own."""

    domain: Domain
    provide: Provide
    retrieve: Retrieve

    def sent(self) -> tuple[DocumentEntry, Outcome | tuple[Problem, ...]]:
        """A submission's entry, and its outcome or why it was refused."""
        made = submission(patient(1))
        (entry,) = made.document_entries
        try:
            return entry, self.provide(made, {entry.entry_uuid: LETTER})
        except Failure as failure:
            return entry, failure.problems

    def has(self, entry: DocumentEntry, repository: str = Config().repository.unique_id) -> bool:
        request = DocumentRequest(repository_unique_id=repository, document_unique_id=str(entry.unique_id))
        (answer,) = self.retrieve([request])
        return isinstance(answer, Retrieved) and answer.document.read() == LETTER.read()

    def unsettled(self) -> list[str]:
        return [str(one.state) for one in self.domain.parts["documents"].unsettled()]


@contextmanager
def before(registry_url: str, directory: Path, unique_id: str = Config().repository.unique_id) -> Iterator[Repository]:
    config = Config()
    config = replace(
        config,
        server=replace(config.server, directory=str(directory), actors="repository"),
        repository=replace(config.repository, registry_url=registry_url, registry_timeout_s=1.0, unique_id=unique_id),
    )
    with serving(config) as served:
        provide, retrieve = client(soap_client(served.endpoints["repository"], config))
        yield Repository(served, provide, retrieve)


def test_a_registration_goes_to_the_remote_registry_with_hash_size_and_repository(tmp_path: Path) -> None:
    """ITI TF-2 3.41.4.1.3 [T 11966]."""
    registry = RemoteRegistry(saying(Outcome()))
    with registry.serving() as url, before(url, tmp_path) as repository:
        entry, outcome = repository.sent()
        assert outcome == Outcome()
        ((registered,),) = (one.document_entries for one in registry.submissions)
        assert (registered.hash, registered.size, registered.repository_unique_id) == (
            LETTER.sha1,
            str(LETTER.size),
            Config().repository.unique_id,
        )
        assert repository.has(entry)
        assert repository.unsettled() == []


WARNING = Problem(
    code="XDSExtraMetadataNotSaved", context="urn:x & <y>", severity=Severity.WARNING, location="Document0"
)


def test_warnings_of_the_registry_come_with_the_success(tmp_path: Path) -> None:
    registry = RemoteRegistry(saying(Outcome.of([WARNING])))
    with registry.serving() as url, before(url, tmp_path) as repository:
        entry, outcome = repository.sent()
        assert outcome == Outcome(problems=(WARNING,))
        assert repository.has(entry)


def test_all_errors_of_the_registry_are_relayed_unchanged_and_the_documents_go(tmp_path: Path) -> None:
    """ITI TF-2 3.41.4.1.3 [T 11986]: code, codeContext, severity and location, in their order; codes that we do not know too."""
    problems = (
        Problem(code="XDSUnknownPatientId", context="P1^^^&1.2.3.4&ISO", location="Document0"),
        WARNING,
        Problem(code="XDSUnknownPatientId", context="P1^^^&1.2.3.4&ISO", location="Document0"),
        Problem(code="urn:vendor:Error7", context='"quoted" – «ü»', location=None),
    )
    registry = RemoteRegistry(saying(Outcome(status=ResponseStatus.FAILURE, problems=problems)))
    with registry.serving() as url, before(url, tmp_path) as repository:
        entry, relayed = repository.sent()
        assert relayed == problems
        assert not repository.has(entry)
        assert repository.unsettled() == []


NO_ANSWERS: dict[str, Answer] = {
    "a fault of the sender": lambda handler: send(handler, FAULT.format("Sender").encode(), status=400),
    "a fault of the receiver": lambda handler: send(handler, FAULT.format("Receiver").encode(), status=500),
    "an error page": lambda handler: send(handler, b"<html>secret of", status=502, content_type="text/html"),
    "no XML": lambda handler: send(handler, b"\x00\xff garbage, secret of the registry"),
    "XML that does not end": lambda handler: send(handler, SUCCESS[:-20]),
    "an envelope of something else": lambda handler: send(
        handler, in_envelope('<x xmlns="urn:secret of the registry"/>')
    ),
    "an unknown status": lambda handler: send(handler, SUCCESS.replace(b":Success", b":Perhaps")),
    "nothing": lambda handler: send(handler, b""),
    "a redirection": lambda handler: send(handler, b"", status=302, content_type="text/plain"),
    "half of an answer": cut,
    "the end of the connection": dead,
    "silence": hanging,
    "an answer without an end": dribbling,
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_without_a_verdict_the_source_hears_that_the_registry_is_not_available(answer: Answer, tmp_path: Path) -> None:
    """ITI TF-3 Table 4.2.4.1-2, XDSRegistryNotAvailable. Perhaps it was registered: the document is kept and not given out.

    What the registry said is for our log alone.
    """
    registry = RemoteRegistry(answer)
    with registry.serving() as url, before(url, tmp_path) as repository:
        entry, problems = repository.sent()
        assert isinstance(problems, tuple)
        assert [one.code for one in problems] == ["XDSRegistryNotAvailable"]
        assert "incident" in problems[0].context
        assert not any(word in problems[0].context for word in ("secret", "127.0.0.1", "Traceback"))
        assert not repository.has(entry)
        assert repository.unsettled() == ["quarantined"]
        # And it goes on: the next one is registered.
        registry.answer = saying(Outcome())
        later, outcome = repository.sent()
        assert (outcome, repository.has(later)) == (Outcome(), True)


def test_a_registry_that_is_not_there_is_not_available(tmp_path: Path) -> None:
    with RemoteRegistry(dead).serving() as url:
        pass
    with before(url, tmp_path) as repository:
        _, problems = repository.sent()
        assert isinstance(problems, tuple)
        assert [one.code for one in problems] == ["XDSRegistryNotAvailable"]


def test_a_partial_success_of_the_registry_is_none(tmp_path: Path) -> None:
    """ITI-42 knows no PartialSuccess; what was registered is not known."""
    registry = RemoteRegistry(saying(Outcome(status=ResponseStatus.PARTIAL_SUCCESS, problems=(WARNING,))))
    with registry.serving() as url, before(url, tmp_path) as repository:
        entry, problems = repository.sent()
        assert isinstance(problems, tuple)
        assert problems[0] == WARNING
        assert (repository.has(entry), repository.unsettled()) == (False, ["quarantined"])


@contextmanager
def registry_process(directory: Path) -> Iterator[str]:
    """`xdsi serve --actors registry` as a process of its own; gives its endpoint."""
    directory.mkdir()
    (directory / "xdsi.toml").write_text(
        f'[server]\nport = 0\ndirectory = "{directory / "data"}"\n[registry]\npatients = "open"\n'
    )
    command = [
        sys.executable,
        "-m",
        "server.cli",
        "serve",
        "--actors",
        "registry",
        "--config",
        str(directory / "xdsi.toml"),
    ]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().split() for _ in range(2)]
            assert lines[1] == ["ready"], (directory / "log").read_text()
            yield lines[0][1]
        finally:
            process.terminate()


def test_two_repositories_share_a_registry_and_each_document_says_where_it_is(tmp_path: Path) -> None:
    """ITI TF-1 10.1.1.3: an affinity domain has one registry and as many repositories as it wants; over SOAP between processes."""
    north, south = "1.2.3.4.77", "1.2.3.4.78"
    with ExitStack() as stack:
        registry_url = stack.enter_context(registry_process(tmp_path / "registry"))
        repositories = {
            name: stack.enter_context(before(registry_url, tmp_path / name, name)) for name in (north, south)
        }
        entries = {name: one.sent() for name, one in repositories.items()}
        assert [outcome for _, outcome in entries.values()] == [Outcome(), Outcome()]
        requests = [
            DocumentRequest(repository_unique_id=name, document_unique_id=str(entry.unique_id))
            for name, (entry, _) in entries.items()
        ]
        registry = registry_client(
            soap_client(registry_url, replace(Config(), server=replace(Config().server, directory=str(tmp_path))))
        )
        query = GetDocuments(unique_id=tuple(one.document_unique_id for one in requests))
        found = [one for one in rim.decode_fragments(registry.query(query).fragments) if isinstance(one, DocumentEntry)]
        assert {(one.unique_id, one.repository_unique_id) for one in found} == {
            (one.document_unique_id, one.repository_unique_id) for one in requests
        }
        fetch = routed({name: one.retrieve for name, one in repositories.items()})
        assert [isinstance(one, Retrieved) and one.document.read() for one in fetch(requests)] == [LETTER.read()] * 2
        # Neither gives the other's, whichever repository it is asked for.
        (northern, southern) = repositories.values()
        assert not northern.has(entries[south][0], north)
        (answer,) = southern.retrieve([requests[0]])
        assert isinstance(answer, Problem)
        assert (answer.code, answer.location) == ("XDSUnknownRepositoryId", requests[0].document_unique_id)


def test_an_on_demand_entry_is_not_provided(domain: Domain, config: Config) -> None:
    """ITI TF-2 3.41.4.1.2: Stable documents only; the registry says so, and the repository keeps nothing."""
    provide, fetch = client(soap_client(domain.endpoints["repository"], config))
    made = submission(patient(1))
    entry = replace(made.document_entries[0], object_type=ON_DEMAND, creation_time=None)
    with pytest.raises(Failure) as refused:
        provide(replace(made, document_entries=(entry,)), {entry.entry_uuid: LETTER})
    assert {one.code for one in refused.value.problems} == {"XDSRegistryMetadataError"}
    request = DocumentRequest(repository_unique_id=config.repository.unique_id, document_unique_id=str(entry.unique_id))
    assert [type(one) for one in fetch([request])] == [Problem]
