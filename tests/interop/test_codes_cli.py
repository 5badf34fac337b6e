"""`xdsi codes`: code sets as others publish them become a file that a registry reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from registry.codes import load
from server.commands.codes import COMMANDS

VECTORS = Path(__file__).parent.parent / "vectors" / "codes"
CODES_XML = str(VECTORS / "codes.xml")
VALUE_SET = str(VECTORS / "valueset-expansion.json")


def run(*arguments: str | Path, status: int = 0) -> Result:
    (codes,) = COMMANDS
    done = CliRunner().invoke(codes, [str(one) for one in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == status, done.output
    assert status != 1 or done.stderr.startswith("xdsi: ")
    return done


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "codes.toml"


def test_codes_xml_is_imported_and_the_result_is_shown(out: Path) -> None:
    done = run("import", CODES_XML, "--out", out)
    assert load(out).count("classCode") == 3
    (row,) = [line for line in done.stdout.splitlines() if "classCode" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["classCode", "2", "3"]
    assert "1.2.3.4.5.6, 1.2.3.4.5.7" in done.stdout
    assert "not used: " in done.stderr
    assert "favouriteColour" in done.stderr
    assert list(out.parent.iterdir()) == [out]


def test_the_import_tells_the_same_to_programs(out: Path) -> None:
    told = json.loads(run("import", CODES_XML, "--out", out, "--json").stdout)
    assert told["assigning_authorities"] == ["1.2.3.4.5.6", "1.2.3.4.5.7"]
    assert {"attribute": "classCode", "schemes": 2, "codes": 3} in told["attributes"]
    assert {"attribute": "mimeType", "schemes": 0, "codes": 2} in told["attributes"]
    assert len(told["unused"]) == 2


def test_a_file_that_exists_is_added_to_only_when_asked(out: Path) -> None:
    run("import", CODES_XML, "--out", out)
    before = out.read_text()
    assert "exists; give --merge" in run("import", CODES_XML, "--out", out, status=1).stderr
    assert out.read_text() == before
    run("import", VALUE_SET, "--attribute", "practiceSettingCode", "--out", out, "--merge")
    both = load(out)
    assert (both.count("classCode"), both.count("practiceSettingCode")) == (3, 2)
    run("import", CODES_XML, "--out", out, "--merge")
    assert load(out) == both


def test_several_files_are_imported_at_once(out: Path) -> None:
    compose = VECTORS / "valueset-compose.xml"
    run("import", compose, VALUE_SET, "--attribute", "typeCode", "--out", out)
    assert load(out).count("typeCode") == 6


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((VALUE_SET,), "valueset-expansion.json: a ValueSet does not say which attribute"),
        ((VALUE_SET, "--attribute", "typecode"), "no coded attribute 'typecode'; did you mean 'typeCode'?"),
        ((CODES_XML, __file__, "--attribute", "typeCode"), "test_codes_cli.py: the file is neither JSON nor XML"),
    ],
)
def test_a_failed_import_is_one_line_and_writes_nothing(out: Path, arguments: tuple[str, ...], reason: str) -> None:
    assert reason in run("import", *arguments, "--out", out, status=1).stderr
    assert not out.exists()


def test_merging_into_a_file_that_cannot_be_read_leaves_it_alone(out: Path) -> None:
    out.write_text("[clasCode]")
    assert "no coded attribute 'clasCode'" in run("import", CODES_XML, "--out", out, "--merge", status=1).stderr
    assert out.read_text() == "[clasCode]"


def test_the_codes_are_shown_by_scheme_and_whole_as_json(out: Path) -> None:
    run("import", CODES_XML, "--out", out)
    lines = run("show", out).stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert ["classCode", "1.2.3.4.8.1", "2"] in rows
    assert ["mimeType", "", "2"] in rows
    told = json.loads(run("show", out, "--json").stdout)
    assert told["mimeType"] == ["application/pdf", "text/plain"]
    assert told["classCode"]["1.2.3.4.8.1"] == {"REPORTS": "Reports", "IMAGES": "Images & films"}


def test_one_code_is_checked(out: Path) -> None:
    run("import", CODES_XML, "--out", out)
    assert "known" in run("check", out, "REPORTS^^1.2.3.4.8.1", "--attribute", "classCode").stdout
    assert "known" in run("check", out, "text/plain", "--attribute", "mimeType").stdout
    assert "has no set" in run("check", out, "X^^1.2", "--attribute", "typeCode").stdout
    refused = run("check", out, "REPORTS^^1.2", "--attribute", "classCode", status=1).stderr
    assert "'REPORTS' is known of codingScheme '1.2.3.4.8.1'" in refused
    assert "is not of the form" in run("check", out, "REPORTS", "--attribute", "classCode", status=1).stderr
    assert "no coded attribute" in run("check", out, "A^^1", "--attribute", "class", status=1).stderr


def test_every_command_shows_an_example_of_itself() -> None:
    (codes,) = COMMANDS
    commands = codes.commands  # type: ignore[attr-defined]
    assert set(commands) == {"import", "show", "check"}
    assert all(f"xdsi codes {name} " in command.help.partition("\b")[2] for name, command in commands.items())
