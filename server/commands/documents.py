"""Commands that submit and retrieve documents."""

from __future__ import annotations

import mimetypes
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import click
from click.core import ParameterSource

from server import show
from server.commands.repositories import addresses, document_request, repositories_option
from server.config import Config, load
from server.options import Refused, config_option, json_option, url_option, worded
from xds.messages import Document, Retrieved
from xds.metadata import Association, Author, DocumentEntry, Folder, Submission, SubmissionSet, has_member
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    Person,
    ReferenceId,
    Text,
    Timestamp,
    UniqueId,
    is_oid,
)
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_STUDY_INSTANCE_UID, AssociationType


@contextmanager
def spooling() -> Iterator[Config]:
    """A configuration whose received documents are spooled to a temporary folder."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="xdsi-") as directory:
        config = Config()
        yield replace(config, server=replace(config.server, directory=directory))


def code_of(text: str) -> Code:
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
@click.option("--replaces", help="entryUUID of the document that the file replaces (RPLC).")
@click.option("--appends", help="entryUUID of the document that the file is an addendum to (APND).")
@click.option("--transforms", help="entryUUID of the document that the file is a transformation of (XFRM).")
@click.option("--folder", multiple=True, help="entryUUID of a folder that the documents go into.")
@click.option("--new-folder", help="Title of a new folder that the documents go into.")
@click.option("--accession", multiple=True, help="Accession number of the order that it answers, number^issuer OID.")
@click.option("--study-uid", multiple=True, help="Study Instance UID of the images that it is about.")
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
    replaces: str | None,
    appends: str | None,
    transforms: str | None,
    folder: tuple[str, ...],
    new_folder: str | None,
    accession: tuple[str, ...],
    study_uid: tuple[str, ...],
    repository: str,
    json_output: bool,
    **codes: str,
) -> None:
    """Submit files to a repository (ITI-41), together in one submission.

    Of a CDA document, what its header says goes before the defaults, and what is given here before both. --accession and --study-uid
    are what leads from a report to the manifest of its images, and back.

    \b
    xdsi submit letter.pdf --patient 'p100^^^&1.2.3.4&ISO' --title 'Discharge letter'
    xdsi submit corrected.pdf --patient 'p100^^^&1.2.3.4&ISO' --replaces urn:uuid:8c2f7b34-5a1d-4c6e-9f3a-1b2c3d4e5f60
    xdsi submit *.pdf --patient 'p100^^^&1.2.3.4&ISO' --new-folder 'Episode 7'
    xdsi submit report.pdf --patient 'p100^^^&1.2.3.4&ISO' --accession A-17^1.2.3.9 --study-uid 1.2.840.99.1
    """
    from repository.client import client
    from server.compose import soap_client

    context = click.get_current_context()
    chosen = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    references = tuple(_references(accession, study_uid))
    made = {name: code_of(text) for name, text in codes.items()}
    now = Timestamp.at(datetime.now(UTC))
    authors = (Author(author_person=Person(author)),)
    entries, documents = [], {}
    for number, path in enumerate(files):
        guessed = mime_type or _mime_type(path)
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
        entry = _prefilled(replace(entry, reference_id_list=references), path, chosen)
        entries.append(entry)
        documents[entry.entry_uuid] = _file(path, str(entry.mime_type))
    submission_set = SubmissionSet(
        entry_uuid="SubmissionSet",
        author=authors,
        content_type_code=entries[0].type_code,
        patient_id=Identifier(patient),
        source_id=Oid(source_id),
        submission_time=now,
        unique_id=Oid(f"2.25.{uuid.uuid4().int}"),
    )
    members = tuple(
        has_member("SubmissionSet", one.entry_uuid, entry_uuid=f"Member{n}", submission_set_status="Original")
        for n, one in enumerate(entries)
    )
    relations = {AssociationType.RPLC: replaces, AssociationType.APND: appends, AssociationType.XFRM: transforms}
    folders = _new_folder(new_folder, Identifier(patient), made["class_code"])
    submission = Submission(
        submission_sets=(submission_set,),
        document_entries=tuple(entries),
        folders=folders,
        associations=(*members, *_related(entries, relations), *_put(entries, folder, folders)),
    )
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


#: Which option stands for an attribute that a CDA header may have.
_OPTIONS = {
    "author": "author",
    "confidentiality_code": "confidentiality_code",
    "format_code": "format_code",
    "language_code": "language",
    "mime_type": "mime_type",
    "source_patient_id": "source_patient",
    "title": "title",
    "type_code": "type_code",
}
_LOOKED_AT_BYTES = 64 * 1024
#: Those that the standard library does not know.
_EXTENSIONS = {"application/fhir+json": ".json"}
#: There is no registered media type; this one is used most.
_NIFTI = "application/x-nifti"
_IMAGES = Code.of("IMAGES", "1.3.6.1.4.1.19376.1.2.6.1", "Images")
_IMAGING_STUDY = Code.of("18748-4", "2.16.840.1.113883.6.1", "Diagnostic imaging study")


def _mime_type(path: Path) -> str:
    """By the file's name."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _NIFTI
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _prefilled(entry: DocumentEntry, path: Path, chosen: set[str]) -> DocumentEntry:
    """With what the header of a CDA document says, or what NIfTI volumes are, but for what was chosen on the command line."""
    from schemas import cda
    from soap.envelope import parse_document
    from soap.fault import SoapFault

    if entry.mime_type == _NIFTI:
        return replace(
            entry,
            class_code=entry.class_code if "class_code" in chosen else _IMAGES,
            type_code=entry.type_code if "type_code" in chosen else _IMAGING_STUDY,
        )
    with path.open("rb") as file:
        if b"ClinicalDocument" not in file.read(_LOOKED_AT_BYTES):
            return entry
    try:
        root = parse_document(path.read_bytes())
    except SoapFault as fault:
        raise Refused(f"{path}: {fault.reason}") from None
    if not cda.is_cda(root):
        return entry
    header = cda.read_header(root)
    told = {
        one.name: value
        for one in fields(header)
        if (value := getattr(header, one.name)) and one.name != "entry_uuid" and _OPTIONS.get(one.name) not in chosen
    }
    told["reference_id_list"] = tuple(dict.fromkeys((*entry.reference_id_list, *header.reference_id_list)))
    return replace(entry, **told)


def _references(accession: tuple[str, ...], study_uid: tuple[str, ...]) -> Iterator[ReferenceId]:
    for one in accession:
        number, _, authority = one.partition("^")
        if authority and not is_oid(authority):
            raise Refused(f"--accession: {authority!r} is no OID of who issues such numbers")
        yield ReferenceId.of(number, REFERENCE_ACCESSION, authority or None)
    for uid in study_uid:
        if not is_oid(uid):
            raise Refused(f"--study-uid: {uid!r} is no UID")
        yield ReferenceId.of(uid, REFERENCE_STUDY_INSTANCE_UID)


def _related(entries: list[DocumentEntry], relations: dict[AssociationType, str | None]) -> Iterator[Association]:
    """The relations to registered documents; they take one file."""
    for kind, target in relations.items():
        if target is None:
            continue
        if len(entries) != 1:
            raise Refused(f"{kind.name} relates one file to a document, not {len(entries)}")
        source = entries[0].entry_uuid
        yield Association(entry_uuid=kind.name, association_type=kind, source_object=source, target_object=target)


def _new_folder(title: str | None, patient_id: Identifier, code: Code) -> tuple[Folder, ...]:
    if title is None:
        return ()
    unique_id = UniqueId(f"2.25.{uuid.uuid4().int}")
    made = Folder(
        entry_uuid="Folder", code_list=(code,), patient_id=patient_id, title=Text.of(title), unique_id=unique_id
    )
    return (made,)


def _put(
    entries: list[DocumentEntry], folders: tuple[str, ...], new_folders: tuple[Folder, ...]
) -> Iterator[Association]:
    """Every document into every folder; the memberships and the new folders belong to the SubmissionSet (ITI TF-3 4.2.1.4)."""
    for made in new_folders:
        yield has_member("SubmissionSet", made.entry_uuid, entry_uuid="NewFolder")
    for number, folder in enumerate((*folders, *(made.entry_uuid for made in new_folders))):
        for entry in entries:
            member = has_member(folder, entry.entry_uuid, entry_uuid=f"In{number}{entry.entry_uuid}")
            yield member
            yield has_member("SubmissionSet", member.entry_uuid, entry_uuid=f"Of{member.entry_uuid}")


def _file(path: Path, mime_type: str) -> Document:
    """A file as a document; its bytes are hashed by the repository."""
    return Document(size=path.stat().st_size, sha1="", mime_type=mime_type, open=lambda: path.open("rb"))


@click.command()
@click.argument("unique_ids", nargs=-1, required=True)
@click.option("--repository-id", default=Config().repository.unique_id, show_default=True, help="repositoryUniqueId.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder to write to.")
@click.option(
    "--max-documents", type=click.IntRange(min=1), default=100, show_default=True, help="Most documents in one message."
)
@repositories_option
@config_option
@json_option
@worded
def retrieve(
    unique_ids: tuple[str, ...],
    repository_id: str,
    out: Path,
    max_documents: int,
    repositories: tuple[str, ...],
    config_path: Path | None,
    json_output: bool,
) -> None:
    """Retrieve documents by uniqueId (ITI-43), each into a file. REPOSITORY_OID/UNIQUE_ID names the repository of one.

    \b
    xdsi retrieve 1.2.3.4.100.1 --out letters
    xdsi retrieve 1.2.3.4.77/1.2.3.4.100.1 1.2.3.4.78/1.2.3.4.200.1 \\
        --repository 1.2.3.4.77=http://north.example/repository --repository 1.2.3.4.78=http://south.example/repository
    """
    from repository.client import client, routed
    from server.compose import soap_client

    requests = [document_request(one, repository_id) for one in unique_ids]
    requests.sort(key=lambda one: one.repository_unique_id)
    urls = addresses(repositories, load(config_path))
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    failed: list[str] = []
    with spooling() as config:
        fetch = routed(
            {name: client(soap_client(url, config), max_documents=max_documents)[1] for name, url in urls.items()}
        )
        for number, answer in enumerate(fetch(requests), 1):
            if isinstance(answer, Retrieved):
                media_type = answer.document.mime_type.split(";")[0]
                extension = _EXTENSIONS.get(media_type) or mimetypes.guess_extension(media_type) or ""
                rows.append(write(answer, out / f"document-{number}{extension}"))
            else:
                failed.append(str(answer))
    finish("retrieved", rows, failed, json_output)


def write(answer: Retrieved, path: Path) -> dict[str, object]:
    """Writes a document under a name of ours: what a peer calls it never becomes a path."""
    with path.open("wb") as file:
        for chunk in answer.document.chunks():
            file.write(chunk)
    row: dict[str, object] = {
        "unique_id": answer.request.document_unique_id,
        "file": str(path),
        "size": answer.document.size,
    }
    if answer.new_document_unique_id is not None:
        row["new_unique_id"] = answer.new_document_unique_id
    if answer.new_repository_unique_id is not None:
        row["new_repository_id"] = answer.new_repository_unique_id
    return row


def finish(title: str, rows: list[dict[str, object]], failed: list[str], json_output: bool) -> None:
    """Shows what came; exit status 1 with the reason for each that did not, the first twenty of them."""
    if json_output:
        show.as_json({"documents": rows, "problems": failed})
    else:
        show.as_table(title, ("uniqueId", "file", "bytes"), [tuple(row.values())[:3] for row in rows])
    if failed:
        more = [f"and {len(failed) - 20} more"] if len(failed) > 20 else []
        raise Refused("\nxdsi: ".join([*failed[:20], *more]))


COMMANDS: tuple[click.Command, ...] = (_code_options(submit), retrieve)
