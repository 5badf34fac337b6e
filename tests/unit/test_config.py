"""The configuration: where values come from, and errors that name file and key."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from server.config import SECTIONS, Config, ConfigError, load, to_toml
from server.http import bind


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "xdsi.toml"
    path.write_text(text)
    return path


def test_the_environment_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\nport = 9000\nhost = "::1"\n')
    config = load(path, {"XDSI__SERVER__PORT": "9001", "XDSI__LIMITS__BODY_IDLE_S": "1.5", "OTHER": "x"})
    assert (config.server.port, config.server.host, config.limits.body_idle_s) == (9001, "::1", 1.5)
    assert config.registry == Config().registry


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1", "there is no key server.prot; did you mean 'port'?"),
        ("[sever]\nport = 1", "there is no section 'sever'; did you mean 'server'?"),
        ('[server]\nport = "1"', "server.port is '1'; it must be of type int"),
        ("[server]\ninsecure = 1", "server.insecure is 1; it must be of type bool"),
        ('[registry]\npatients = "some"', "registry.patients is 'some'; it must be one of known, open"),
        ('[server]\ntracing = "zipkin"', "server.tracing is 'zipkin'; it must be one of off, otlp"),
        ("[imaging]\nempty_uid = 500", "imaging.empty_uid is 500; it must be one of 404, 400"),
        ('[reports]\npdf = "paper"', "reports.pdf is 'paper'; it must be one of cda, plain"),
        ("port = 1", "port stands outside of a section"),
        ("[server", "xdsi.toml"),
    ],
)
def test_an_error_names_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"environment variable XDSI__SERVER__PROT: there is no key server\.prot"):
        load(None, {"XDSI__SERVER__PROT": "1"})
    with pytest.raises(ConfigError, match="must be of type int"):
        load(None, {"XDSI__SERVER__PORT": "many"})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "CORS_ORIGINS",
            "https://a.example.org, b.example.org",
            "imaging.cors_origins: 'b.example.org' is not of the form",
        ),
        ("CORS_ORIGINS", "https://a.example.org/viewer", "without a path"),
        ("MAX_RESULTS", "0", "imaging.max_results is 0; it must be at least 1"),
        ("MAX_SIDE_PX", "-1", "imaging.max_side_px is -1; it must be at least 1"),
    ],
)
def test_what_cannot_be_of_an_imaging_source_is_refused(variable: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(None, {f"XDSI__IMAGING__{variable}": value})


def test_an_unknown_actor_is_named() -> None:
    with pytest.raises(ConfigError, match="'registry,pacs' is not a list of registry, repository, imaging"):
        load(None, {"XDSI__SERVER__ACTORS": "registry,pacs"})


def test_what_is_printed_can_be_read_again_and_explains_every_key(tmp_path: Path) -> None:
    config = load(None, {"XDSI__IMAGING__INSTITUTION": 'St. "Mary"\\'})
    text = to_toml(config)
    assert load(written(tmp_path, text), {}) == config
    assert tomllib.loads(text).keys() == SECTIONS.keys()
    for kind in SECTIONS.values():
        for one in fields(kind):
            assert f"# {one.metadata['meaning']}" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_listening_beyond_loopback_is_refused_without_security(host: str) -> None:
    config = Config()
    with pytest.raises(ConfigError, match="no security is configured"):
        bind(replace(config, server=replace(config.server, host=host, port=0)))


def test_a_port_that_is_taken_is_told() -> None:
    config = Config()
    first = bind(replace(config, server=replace(config.server, port=0)))
    try:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            bind(replace(config, server=replace(config.server, port=port)))
    finally:
        first.close()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('dimse_peers = "CT1=host"', "is not a list of AET=host:port"),
        ('dimse_peers = "CT1=host:0"', "is not a list of AET=host:port"),
        ('dimse_peers = "A NAME LONGER THAN 16=host:104"', "is not a list of AET=host:port"),
        ('dimse_called = "ÄRCHIV"', "'ÄRCHIV' is no AE title"),
        ('dimse_calling = "CT1,A\\\\B"', "is no AE title"),
        ("dimse_pdu_bytes = 100", "it must be 4096 to 16777216"),
        ("dimse_associations = 0", "it must be more than 0"),
        ("drop_interval_s = 0", "it must be more than 0"),
    ],
)
def test_what_cannot_be_listened_with_is_refused_by_name(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"[imaging]\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        load(path, {})
    assert f"imaging.{line.split()[0]}" in str(refused.value)
    assert reason in str(refused.value)


def test_peers_are_read_by_ae_title(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[imaging]\ndimse_peers = "CT1=192.0.2.1:104, ARCHIVE=[2001:db8::1]:11112"\n')
    assert load(path, {}).imaging.peers == {"CT1": ("192.0.2.1", 104), "ARCHIVE": ("2001:db8::1", 11112)}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('source_id = "x"', "reports.source_id: 'x' is not an OID"),
        ('filler_issuer = "x"', "reports.filler_issuer: 'x' is not an OID"),
        ('registry_url = "x"', "reports.registry_url: 'x' is no URL"),
        ("message_bytes = 0", "reports.message_bytes is 0; it must be more than 0"),
    ],
)
def test_what_no_type_can_say_about_reports_is_checked(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(written(tmp_path, f"[reports]\n{line}"), {})
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            'archive_url = "http://pacs/dicom-web"\narchive_dimse = "PACS@pacs:104"',
            "imaging.archive_url and imaging.archive_dimse are both set",
        ),
        ('archive_dimse = "pacs:104"', "imaging.archive_dimse: 'pacs:104' is not of the form AET@host:port"),
        ('archive_dimse = "PACS@pacs"', "is not of the form AET@host:port"),
        ('archive_dimse = "PACS@pacs:104"\narchive_retrieve = "move"', "imaging.archive_move_port is 0"),
        ('archive_retrieve = "push"', "it must be one of get, move"),
        (
            'archive_calling = "A NAME LONGER THAN 16"',
            "imaging.archive_calling: 'A NAME LONGER THAN 16' is no AE title",
        ),
        ('archive_url = "pacs"', "imaging.archive_url: 'pacs' is no URL"),
        ("archive_connections = 0", "imaging.archive_connections is 0; it must be more than 0"),
    ],
)
def test_an_archive_that_cannot_be_asked_is_refused(tmp_path: Path, lines: str, reason: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"[imaging]\n{lines}\n")
    with pytest.raises(ConfigError) as refused:
        load(path, {})
    assert reason in str(refused.value)


def test_an_archive_is_read_with_its_ae_title(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[imaging]\narchive_dimse = "MY PACS@[2001:db8::1]:104"\n')
    assert load(path, {}).imaging.archive_peer == ("MY PACS", "2001:db8::1", 104)
