"""What the running server tells those who watch it: probes, counts, log lines; and how it ends (docs/operations.md)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.messages import MTOM, SIMPLE, envelope, patient, provide, register, stored_query, submission
from soap.operations import Exchange
from tests.interop.test_serving import children, free_port, post, served, until
from xds.queries import FindDocuments
from xds.values import Identifier

OPEN = '[registry]\npatients = "open"\n'
NAME = "Zwetschgenberger"
#: A request of which most never comes.
HALF = f"POST /registry HTTP/1.1\r\nHost: x\r\nContent-Type: {SIMPLE}\r\nContent-Length: 1000\r\n\r\nhalf".encode()


def get(base: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"{base}{path}", timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def base_of(endpoints: dict[str, str]) -> str:
    parts = urlsplit(next(iter(endpoints.values())))
    return f"http://{parts.netloc}"


def exchanges(base: str) -> Counter[tuple[str, str]]:
    """How many, by transaction and ending."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(get(base, "/metrics")[1].decode()):
        for sample in family.samples:
            if sample.name == "xdsi_exchanges_total":
                found[sample.labels["transaction"], sample.labels["ending"]] += int(sample.value)
    return found


def value_of(base: str, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(get(base, "/metrics")[1].decode())
    return sum(
        one.value
        for family in families
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


# --- probes -----------------------------------------------------------------------------------------------------------


def test_a_server_that_can_do_its_work_is_ready(tmp_path: Path) -> None:
    with served(tmp_path, OPEN) as (_, endpoints):
        base = base_of(endpoints)
        assert get(base, "/healthz") == (200, b"ok\n")
        status, content = get(base, "/readyz")
        checks = json.loads(content)["checks"]
        assert status == 200
        assert set(checks) == {
            "registry database",
            "repository database",
            "repository directory",
            "imaging database",
            "imaging directory",
        }
        assert set(checks.values()) == {"ok"}


def test_a_repository_whose_registry_is_away_lives_and_is_not_ready(tmp_path: Path) -> None:
    toml = f'[repository]\nregistry_url = "http://127.0.0.1:{free_port()}/registry"\n'
    with served(tmp_path, toml, "--actors", "repository") as (_, endpoints):
        base = base_of(endpoints)
        status, content = get(base, "/readyz")
        assert (status, json.loads(content)["ready"]) == (503, False)
        assert json.loads(content)["checks"]["remote registry"] == "failed"
        assert get(base, "/healthz")[0] == 200
        assert b"127.0.0.1" not in content


def test_probes_can_be_left_out(tmp_path: Path) -> None:
    with served(tmp_path, "probes = false\n", "--actors", "registry") as (_, endpoints):
        for path in ("/healthz", "/readyz", "/metrics"):
            assert get(base_of(endpoints), path)[0] == 404


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_every_request_is_counted_once_by_transaction_and_ending(tmp_path: Path, workers: int) -> None:
    """Whichever worker is asked gives the sum over all of them."""
    with served(tmp_path, "", "--workers", str(workers), "--actors", "registry") as (process, endpoints):
        base, registry = base_of(endpoints), endpoints["registry"]
        question = stored_query(FindDocuments(patient_id=patient(1)))
        for _ in range(12):
            assert "Success" in post(registry, question)
        for _ in range(5):
            assert "XDSUnknownPatientId" in post(registry, register(submission(patient(2), registered=True)))
        for _ in range(3):
            with pytest.raises(urllib.error.HTTPError):
                post(registry, envelope("urn:nobody", b"<a xmlns='urn:example'/>"))
        expected = Counter({("ITI-18", "success"): 12, ("ITI-42", "failure"): 5, ("none", "fault"): 3})
        until(lambda: exchanges(base) == expected)
        assert [exchanges(base) for _ in range(8)] == [expected] * 8
        assert value_of(base, "xdsi_received_bytes_total", transaction="ITI-18") == 12 * len(question)
        assert value_of(base, "xdsi_exchange_seconds_count", transaction="ITI-42") == 5
        assert value_of(base, "xdsi_exchanges_in_flight") == 0
        if workers > 1:
            time.sleep(1.0)  # a worker that dies within a second of the start ends the server
            first = children(process.pid)[0]
            os.kill(first, signal.SIGKILL)
            until(lambda: len(children(process.pid)) == workers and first not in children(process.pid))
            assert exchanges(base) == expected


def test_commits_are_counted_by_the_size_of_their_groups(tmp_path: Path) -> None:
    with served(tmp_path, OPEN, "--actors", "registry") as (_, endpoints):
        for number in range(3):
            assert "Success" in post(endpoints["registry"], register(submission(patient(number), registered=True)))
        assert value_of(base_of(endpoints), "xdsi_registry_commit_group_count") == 3
        assert value_of(base_of(endpoints), "xdsi_registry_commit_group_sum") == 3


def test_the_stored_documents_are_told_by_state_and_place(tmp_path: Path) -> None:
    """They are counted with each sweep."""
    settings = f"{OPEN}\n[repository]\nsweep_interval_s = 0.2"
    with served(tmp_path, settings) as (_, endpoints):
        base = base_of(endpoints)
        assert value_of(base, "xdsi_documents") == 0
        body = provide(submission(patient(1), documents=2), [b"small", b"l" * 100_000])
        assert "Success" in post(endpoints["repository"], body, MTOM)
        until(lambda: value_of(base, "xdsi_documents", state="available") == 2)
        assert value_of(base, "xdsi_documents", place="catalogue") == 1
        assert value_of(base, "xdsi_document_bytes", place="files") == 100_000
        assert value_of(base, "xdsi_document_bytes", place="catalogue") == 5
        assert value_of(base, "xdsi_staging_bytes") == 0


def test_a_client_that_goes_away_is_counted_as_such(tmp_path: Path) -> None:
    with served(tmp_path, OPEN, "--actors", "registry") as (_, endpoints):
        parts = urlsplit(endpoints["registry"])
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            client.sendall(HALF)
            until(lambda: value_of(base_of(endpoints), "xdsi_exchanges_in_flight") == 1)
        until(lambda: exchanges(base_of(endpoints)) == {("none", "disconnected"): 1})


# --- log lines --------------------------------------------------------------------------------------------------------


def lines_of(directory: Path) -> Iterator[dict[str, object]]:
    for line in (directory / "log").read_text().splitlines():
        yield json.loads(line)


def test_each_exchange_is_one_json_object_without_data_of_patients(tmp_path: Path) -> None:
    """At the level debug; and what a client writes into a MessageID ends no line."""
    toml = f'log_format = "json"\nlog_level = "debug"\n{OPEN}'
    who = Identifier(f"{NAME}77^^^&1.2.3.4&ISO")
    with served(tmp_path, toml, "--actors", "registry,repository") as (_, endpoints):
        made = register(submission(who, registered=True)).replace(b"Muster", NAME.encode())
        assert NAME.encode() in made
        assert "Success" in post(endpoints["registry"], made)
        question = stored_query(FindDocuments(patient_id=who))
        assert "Success" in post(endpoints["registry"], question)
        forged = question.replace(b"MessageID>", b"MessageID>urn:x&#10;{&quot;level&quot;: &quot;error&quot;}", 1)
        assert "Success" in post(endpoints["registry"], forged)
        with pytest.raises(urllib.error.HTTPError):
            post(endpoints["registry"], question.replace(NAME.encode(), b"<" + NAME.encode()))
    assert NAME not in (tmp_path / "log").read_text()
    told = [one for one in lines_of(tmp_path) if one["logger"] == "xdsi.access"]
    assert [(one.get("transaction"), one["ending"]) for one in told] == [
        ("ITI-42", "success"),
        ("ITI-18", "success"),
        ("ITI-18", "success"),
        (None, "fault"),
    ]
    assert all(str(one["message_id"]).startswith("urn:") for one in told[:3])
    assert "?{" in str(told[2]["message_id"])
    assert not any(one["level"] == "error" for one in lines_of(tmp_path))


def test_as_text_a_line_is_a_line_too(tmp_path: Path) -> None:
    with served(tmp_path, OPEN, "--actors", "registry") as (_, endpoints):
        question = stored_query(FindDocuments(patient_id=patient(1)))
        post(endpoints["registry"], question.replace(b"MessageID>", b"MessageID>urn:x&#10;ERROR forged ", 1))
    lines = (tmp_path / "log").read_text().splitlines()
    assert sum("transaction=ITI-18 ending=success" in line for line in lines) == 1
    assert not any(line.startswith("ERROR") for line in lines)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_under_way_is_finished_before_the_server_ends(tmp_path: Path, workers: str) -> None:
    """A request that has half arrived; nobody new is let in."""
    body = register(submission(patient(1), registered=True))
    with served(tmp_path, OPEN, "--actors", "registry", "--workers", workers) as (process, endpoints):
        parts = urlsplit(endpoints["registry"])
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=60)
        connection.putrequest("POST", "/registry")
        for name, value in (("Content-Type", SIMPLE), ("Content-Length", str(len(body)))):
            connection.putheader(name, value)
        connection.endheaders(body[: len(body) // 2])
        until(lambda: value_of(base_of(endpoints), "xdsi_exchanges_in_flight") == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: refuses(parts.port or 0))
        connection.send(body[len(body) // 2 :])
        response = connection.getresponse()
        assert b"Success" in response.read()
        connection.close()
        assert process.wait(60) == 0


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_second_signal_does_not_wait_for_what_is_under_way(tmp_path: Path) -> None:
    with served(tmp_path, f"shutdown_grace_s = 3600\n{OPEN}", "--actors", "registry") as (process, endpoints):
        parts = urlsplit(endpoints["registry"])
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            client.sendall(HALF)
            until(lambda: value_of(base_of(endpoints), "xdsi_exchanges_in_flight") == 1)
            process.send_signal(signal.SIGTERM)
            until(lambda: "Waiting for connections" in (tmp_path / "log").read_text())
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_counting_and_logging_cost_a_request_few_calls() -> None:
    from server.metrics import Metrics
    from tests.counting import calls_of

    metrics, one = Metrics(), Exchange(service="DocumentRegistry", transaction="ITI-18", ending="success", seconds=0.01)
    metrics.exchange(one)
    assert calls_of(lambda: metrics.exchange(one)) < 150
