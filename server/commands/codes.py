"""Commands about the codes that an affinity domain knows: bringing them in, and looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from server import show
from server.options import Refused, json_option, worded

if TYPE_CHECKING:
    from registry.codes_import import Imported

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def codes() -> None:
    """The codes that an affinity domain knows."""


@codes.command("import")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--attribute", help="What a ValueSet or CodeSystem is for, as classCode; codes.xml says so by itself.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="TOML file to write.")
@click.option("--merge", is_flag=True, help="Add to the file instead of refusing to overwrite it.")
@json_option
@worded
def import_(files: tuple[Path, ...], attribute: str | None, out: Path, merge: bool, json_output: bool) -> None:
    """Read code sets as others publish them: NIST's codes.xml, FHIR ValueSet and CodeSystem (JSON or XML).

    What is written is plain TOML, meant to be read and edited. Where a code comes twice, its first display name stays.

    \b
    xdsi codes import codes.xml --out codes.toml
    xdsi codes import ValueSet-classcode.json --attribute classCode --out codes.toml --merge
    """
    from registry.codes import Codes, check_attribute, load, to_toml

    if attribute is not None:
        check_attribute(attribute)
    if out.exists() and not merge:
        raise Refused(f"{out} exists; give --merge to add to it, or another name")
    known = load(out) if out.exists() else Codes()
    found = {path: _read(path, attribute) for path in files}
    for one in found.values():
        known = known.merged(one.codes)
    _write(out, to_toml(known))
    rows = [(one, len(known.sets.get(one, ())), known.count(one)) for one in known.attributes]
    authorities = list(dict.fromkeys(oid for one in found.values() for oid in one.authorities))
    unused = [f"{path}: {reason}" for path, one in found.items() for reason in one.unused]
    if json_output:
        counts = [dict(zip(("attribute", "schemes", "codes"), row, strict=True)) for row in rows]
        show.as_json({"file": str(out), "attributes": counts, "assigning_authorities": authorities, "unused": unused})
        return
    show.as_table(str(out), ("attribute", "schemes", "codes"), rows)
    if authorities:
        click.echo(f"The files also name assigning authorities of patient ids: {', '.join(authorities)}")
    for reason in unused:
        click.echo(f"not used: {reason}", err=True)


def _read(path: Path, attribute: str | None) -> Imported:
    from registry.codes_import import MAX_BYTES, from_file

    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        return from_file(data, attribute)
    except ValueError as error:
        raise Refused(f"{path}: {error}") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a registry may be reading it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


@codes.command("show")
@click.argument("file", type=_FILE)
@json_option
@worded
def show_(file: Path, json_output: bool) -> None:
    """Show how many codes are known, by attribute and codingScheme; with --json the codes themselves.

    \b
    xdsi codes show codes.toml
    """
    from registry.codes import MIME_TYPE, load

    known = load(file)
    if json_output:
        mime_types = {MIME_TYPE: sorted(known.mime_types)} if known.mime_types else {}
        show.as_json({**mime_types, **{one: known.sets[one] for one in known.attributes if one != MIME_TYPE}})
        return
    rows = [(MIME_TYPE, "", len(known.mime_types))] if known.mime_types else []
    for attribute in known.attributes:
        rows += [(attribute, scheme, len(of)) for scheme, of in known.sets.get(attribute, {}).items()]
    show.as_table(str(file), ("attribute", "codingScheme", "codes"), rows)


@codes.command("check")
@click.argument("file", type=_FILE)
@click.argument("code")
@click.option("--attribute", required=True, help="The coded attribute, as classCode; mimeType for a MIME type.")
@worded
def check(file: Path, code: str, attribute: str) -> None:
    """Say whether a registry with this file would take a code, code^^codingScheme.

    \b
    xdsi codes check codes.toml 'REPORTS^^1.2.3.4.8.1' --attribute classCode
    """
    from registry.codes import MIME_TYPE, check_attribute, load

    check_attribute(attribute)
    known = load(file)
    value, _, scheme = code.rpartition("^^")
    if attribute == MIME_TYPE:
        value, scheme = code, ""
    elif not (value and scheme):
        raise Refused(f"{code!r} is not of the form code^^codingScheme")
    if reason := known.reason_against(attribute, value, scheme):
        raise Refused(f"{attribute} {reason}")
    checked = attribute in known.attributes
    click.echo(f"{attribute} {code}: {'known' if checked else 'taken, for this file has no set for the attribute'}")


COMMANDS: tuple[click.Command, ...] = (codes,)
