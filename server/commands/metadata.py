"""Commands about patients, documents and their metadata."""

from __future__ import annotations

import mimetypes
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from server import show
from server.config import Config, load
from server.options import Refused, config_option, json_option, url_option, worded
from xds.messages import Document, DocumentRequest, Retrieved
from xds.metadata import Association, Author, DocumentEntry, ObjectRef, Submission, SubmissionSet, has_member
from xds.queries import (
    FindDocuments,
    FindSubmissionSets,
    GetAll,
    GetDocuments,
    GetSubmissionSetAndContents,
    ReturnType,
    StoredQuery,
)
from xds.values import Code, Identifier, LanguageCode, MimeType, Oid, Person, Text, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, STABLE, Status


@contextmanager
def spooling() -> Iterator[Config]:
    """A configuration whose received documents are spooled to a temporary folder."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="xdsi-") as directory:
        config = Config()
        yield replace(config, server=replace(config.server, directory=directory))


@click.group()
def patients() -> None:
    """The patients that the registry knows."""


@patients.command("add")
@click.argument("patient_id", nargs=-1, required=True)
@config_option
@worded
def add(patient_id: tuple[str, ...], config_path: Path | None) -> None:
    """Make patients known to the registry of this configuration.

    \b
    xdsi patients add 'p100^^^&1.2.3.4&ISO' --config xdsi.toml
    """
    from registry.patients import add_patient
    from registry.schema import upgrade
    from registry.store import Store, open_engine

    config = load(config_path)
    Path(config.server.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = open_engine(config.database_url("registry"))
    upgrade(engine)
    for one in patient_id:
        new = add_patient(Store(engine), Identifier(one))
        click.echo(f"{one}: {'added' if new else 'was known'}")
    engine.dispose()


@patients.command("list")
@config_option
@json_option
@worded
def list_(config_path: Path | None, json_output: bool) -> None:
    """List the patients that the registry of this configuration knows.

    \b
    xdsi patients list --json
    """
    from registry.patients import list_patients
    from registry.schema import upgrade
    from registry.store import Store, open_engine

    engine = open_engine(load(config_path).database_url("registry"))
    upgrade(engine)
    rows = list_patients(Store(engine))
    engine.dispose()
    if json_output:
        show.as_json([{"patient_id": one, "subsumed_by": into} for one, into in rows])
    else:
        show.as_table(f"{len(rows)} patients", ("patient id", "merged into"), [(one, into or "") for one, into in rows])


def _code(text: str) -> Code:
    """`code^display name^scheme OID`."""
    parts = text.split("^")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{text!r} is not of the form code^display name^scheme")
    return Code.of(parts[0], parts[2], parts[1])


CODE_OPTIONS = {
    "class_code": "REPORTS^Reports^1.3.6.1.4.1.19376.1.2.6.1",
    "type_code": "11488-4^Consultation note^2.16.840.1.113883.6.1",
    "format_code": "urn:ihe:iti:xds:2017:mimeTypeSufficient^mimeType Sufficient^1.3.6.1.4.1.19376.1.2.3",
    "confidentiality_code": "N^Normal^2.16.840.1.113883.5.25",
    "healthcare_facility_type_code": "22232009^Hospital^2.16.840.1.113883.6.96",
    "practice_setting_code": "394802001^General medicine^2.16.840.1.113883.6.96",
}


def _code_options(command: click.Command) -> click.Command:
    for name, default in CODE_OPTIONS.items():
        option = f"--{name.replace('_', '-')}"
        command.params.append(
            click.Option([option, name], default=default, show_default=True, help="code^display^scheme")
        )
    return command


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--patient", required=True, help="Affinity domain patient id, id^^^&OID&ISO.")
@click.option("--source-patient", help="The source's own patient id; the patient id if not given.")
@click.option("--source-id", default="1.3.6.1.4.1.21367.13.3", show_default=True, help="OID of the submitting source.")
@click.option("--author", default="^Unknown", show_default=True, help="Author, as XCN.")
@click.option("--title", help="Title of the document; the file's name if not given.")
@click.option("--mime-type", help="MIME type; guessed from the file's name if not given.")
@click.option("--language", default="en-US", show_default=True)
@url_option("repository")
@json_option
@worded
def submit(
    files: tuple[Path, ...],
    patient: str,
    source_patient: str | None,
    source_id: str,
    author: str,
    title: str | None,
    mime_type: str | None,
    language: str,
    repository: str,
    json_output: bool,
    **codes: str,
) -> None:
    """Submit files to a repository (ITI-41), together in one submission.

    \b
    xdsi submit letter.pdf --patient 'p100^^^&1.2.3.4&ISO' --title 'Discharge letter'
    """
    from repository.client import client
    from server.compose import soap_client

    made = {name: _code(text) for name, text in codes.items()}
    now = Timestamp.at(datetime.now(UTC))
    authors = (Author(author_person=Person(author)),)
    entries, documents = [], {}
    for number, path in enumerate(files):
        guessed = mime_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        entry = DocumentEntry(
            entry_uuid=f"Document{number}",
            author=authors,
            class_code=made["class_code"],
            type_code=made["type_code"],
            format_code=made["format_code"],
            confidentiality_code=(made["confidentiality_code"],),
            healthcare_facility_type_code=made["healthcare_facility_type_code"],
            practice_setting_code=made["practice_setting_code"],
            creation_time=Timestamp.at(datetime.fromtimestamp(path.stat().st_mtime, UTC)),
            language_code=LanguageCode(language),
            mime_type=MimeType(guessed),
            patient_id=Identifier(patient),
            source_patient_id=Identifier(source_patient or patient),
            title=Text.of(title or path.name),
            unique_id=UniqueId(f"2.25.{uuid.uuid4().int}"),
        )
        entries.append(entry)
        documents[entry.entry_uuid] = _file(path, guessed)
    submission_set = SubmissionSet(
        entry_uuid="SubmissionSet",
        author=authors,
        content_type_code=made["type_code"],
        patient_id=Identifier(patient),
        source_id=Oid(source_id),
        submission_time=now,
        unique_id=Oid(f"2.25.{uuid.uuid4().int}"),
    )
    members = tuple(
        has_member("SubmissionSet", one.entry_uuid, entry_uuid=f"Member{n}", submission_set_status="Original")
        for n, one in enumerate(entries)
    )
    submission = Submission(submission_sets=(submission_set,), document_entries=tuple(entries), associations=members)
    with spooling() as config:
        provide, _ = client(soap_client(repository, config))
        outcome = provide(submission, documents)
    rows = [
        {"file": str(path), "unique_id": one.unique_id, "size": path.stat().st_size}
        for path, one in zip(files, entries, strict=True)
    ]
    if json_output:
        show.as_json({"submission_set": submission_set.unique_id, "documents": rows, "warnings": outcome.problems})
    else:
        show.as_table("submitted", ("file", "uniqueId", "bytes"), [tuple(row.values()) for row in rows])


def _file(path: Path, mime_type: str) -> Document:
    """A file as a document; its bytes are hashed by the repository."""
    return Document(size=path.stat().st_size, sha1="", mime_type=mime_type, open=lambda: path.open("rb"))


@click.command()
@click.option("--patient", help="FindDocuments, FindSubmissionSets, GetAll: the patient id.")
@click.option("--submission-sets", is_flag=True, help="FindSubmissionSets instead of FindDocuments.")
@click.option("--all", "everything", is_flag=True, help="GetAll instead of FindDocuments.")
@click.option("--unique-id", multiple=True, help="GetDocuments by uniqueId.")
@click.option("--entry-uuid", multiple=True, help="GetDocuments by entryUUID.")
@click.option("--contents-of", help="GetSubmissionSetAndContents of the set with this uniqueId or entryUUID.")
@click.option("--class-code", multiple=True, help="code^^scheme; one of several.")
@click.option("--type-code", multiple=True, help="code^^scheme; one of several.")
@click.option("--format-code", multiple=True, help="code^^scheme; one of several.")
@click.option("--author", multiple=True, help="Author person; % and _ are wildcards.")
@click.option("--created-from", help="Not before this time, YYYY[MM[DD...]].")
@click.option("--created-to", help="Before this time.")
@click.option("--deprecated", is_flag=True, help="Deprecated objects too.")
@click.option("--object-ref", is_flag=True, help="Ids only.")
@url_option("registry")
@json_option
@worded
def query(
    patient: str | None,
    submission_sets: bool,
    everything: bool,
    unique_id: tuple[str, ...],
    entry_uuid: tuple[str, ...],
    contents_of: str | None,
    class_code: tuple[str, ...],
    type_code: tuple[str, ...],
    format_code: tuple[str, ...],
    author: tuple[str, ...],
    created_from: str | None,
    created_to: str | None,
    deprecated: bool,
    object_ref: bool,
    registry: str,
    json_output: bool,
) -> None:
    """Ask a registry (ITI-18).

    \b
    xdsi query --patient 'p100^^^&1.2.3.4&ISO' --class-code 'IMAGES^^1.3.6.1.4.1.19376.1.2.6.1'
    xdsi query --unique-id 1.2.3.4.100.1 --json
    """
    from registry.client import client
    from schemas import rim
    from server.compose import soap_client

    return_type = ReturnType.OBJECT_REF if object_ref else ReturnType.LEAF_CLASS
    status = tuple(str(one) for one in Status) if deprecated else (str(Status.APPROVED),)

    def needed() -> Identifier:
        if patient is None:
            raise Refused("give --patient, --unique-id, --entry-uuid or --contents-of")
        return Identifier(patient)

    asked: StoredQuery
    if unique_id or entry_uuid:
        asked = GetDocuments(entry_uuid=entry_uuid, unique_id=unique_id, return_type=return_type)
    elif contents_of:
        by_uuid = contents_of.startswith("urn:uuid:")
        asked = GetSubmissionSetAndContents(
            entry_uuid=contents_of if by_uuid else None,
            unique_id=None if by_uuid else contents_of,
            object_type=(STABLE, ON_DEMAND),
            return_type=return_type,
        )
    elif everything:
        asked = GetAll(
            patient_id=needed(),
            document_entry_status=status,
            submission_set_status=status,
            folder_status=status,
            return_type=return_type,
        )
    elif submission_sets:
        asked = FindSubmissionSets(patient_id=needed(), status=status, return_type=return_type)
    else:
        asked = FindDocuments(
            patient_id=needed(),
            status=status,
            class_code=(class_code,) if class_code else (),
            type_code=(type_code,) if type_code else (),
            format_code=(format_code,) if format_code else (),
            author_person=author,
            creation_time_from=Timestamp(created_from) if created_from else None,
            creation_time_to=Timestamp(created_to) if created_to else None,
            return_type=return_type,
        )
    with spooling() as config:
        _, ask = client(soap_client(registry, config))
        result = ask(asked)
        found = list(rim.decode_fragments(result.fragments))
    if json_output:
        show.as_json([{"class": type(one).__name__, **(_fields(one))} for one in found])
        return
    rows = [_row(one) for one in found]
    show.as_table(f"{len(rows)} objects", ("class", "title or type", "uniqueId", "status", "id"), rows)


def _fields(one: object) -> dict[str, show.Plain]:
    fields = show.plain(one)
    return fields if isinstance(fields, dict) else {}


def _row(one: object) -> tuple[str, str, str, str, str]:
    if isinstance(one, ObjectRef):
        return "ObjectRef", "", "", "", one.entry_uuid
    if isinstance(one, Association):
        kind = one.association_type.rpartition(":")[2]
        return "Association", kind, "", (one.availability_status or "").rpartition(":")[2], one.entry_uuid
    title, unique, status = (getattr(one, name) for name in ("title", "unique_id", "availability_status"))
    return (
        type(one).__name__,
        str(title),
        str(unique),
        str(status or "").rpartition(":")[2],
        str(getattr(one, "entry_uuid", "")),
    )


@click.command()
@click.argument("unique_ids", nargs=-1, required=True)
@click.option("--repository-id", default=Config().repository.unique_id, show_default=True, help="repositoryUniqueId.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder to write to.")
@url_option("repository")
@json_option
@worded
def retrieve(unique_ids: tuple[str, ...], repository_id: str, out: Path, repository: str, json_output: bool) -> None:
    """Retrieve documents by uniqueId (ITI-43), each into a file.

    \b
    xdsi retrieve 1.2.3.4.100.1 --out letters
    """
    from repository.client import client
    from server.compose import soap_client

    requests = [DocumentRequest(repository_unique_id=repository_id, document_unique_id=one) for one in unique_ids]
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    failed: list[str] = []
    with spooling() as config:
        _, fetch = client(soap_client(repository, config))
        for number, answer in enumerate(fetch(requests), 1):
            if isinstance(answer, Retrieved):
                extension = mimetypes.guess_extension(answer.document.mime_type.split(";")[0]) or ""
                rows.append(write(answer, out / f"document-{number}{extension}"))
            else:
                failed.append(str(answer))
    finish("retrieved", rows, failed, json_output)


def write(answer: Retrieved, path: Path) -> dict[str, object]:
    """Writes a document under a name of ours: what a peer calls it never becomes a path."""
    with path.open("wb") as file:
        for chunk in answer.document.chunks():
            file.write(chunk)
    return {"unique_id": answer.request.document_unique_id, "file": str(path), "size": answer.document.size}


def finish(title: str, rows: list[dict[str, object]], failed: list[str], json_output: bool) -> None:
    """Shows what came; exit status 1 with the first reason when something did not."""
    if json_output:
        show.as_json({"documents": rows, "problems": failed})
    else:
        show.as_table(title, ("uniqueId", "file", "bytes"), [tuple(row.values()) for row in rows])
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise Refused(f"{failed[0]}{more}")


COMMANDS: tuple[click.Command, ...] = (patients, _code_options(submit), query, retrieve)
