"""Commands about DICOM studies: load, publish, list, retrieve."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server import show
from server.commands.documents import finish, spooling, write
from server.config import load
from server.options import Refused, config_option, json_option, url_option, worded
from xds.messages import DocumentRequest, ImagingRequest, Retrieved, SeriesRequest, StudyRequest
from xds.values import Identifier

if TYPE_CHECKING:
    from imaging.instances import Instances
    from imaging.publication.publication_rows import Published
    from imaging.publication.publications import Publications
    from imaging.receiving.ingest import LoadReport

#: What a consumer takes by default: uncompressed, and the common lossless encodings.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.91",
)


#: What a picture is made of.
_PLAIN = TRANSFER_SYNTAXES[:2]


def load_folder(instances: Instances, folder: Path) -> LoadReport:
    """The report of loading a folder into a source."""
    from imaging.receiving.ingest import files_below
    from imaging.receiving.ingest import load as load_files

    total = sum(1 for _ in files_below([folder]))
    with show.progress("loading", total) as step:
        report = load_files([folder], instances=instances, progress=lambda path: step())
    if not report.instances:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in report.refused[:3]) or "no DICOM file"
        raise Refused(f"{folder}: nothing loaded ({reasons})")
    return report


@click.command("load")
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@config_option
@json_option
@worded
def load_command(folder: Path, config_path: Path | None, json_output: bool) -> None:
    """Load DICOM files into the Imaging Document Source of this configuration.

    \b
    xdsi load /mnt/cd --config xdsi.toml
    """
    from server.imaging import stored

    with stored(load(config_path)) as domain:
        report = load_folder(domain.parts["instances"], folder)
    studies = sorted({one.study_instance_uid for one in report.instances})
    refused = [f"{path}: {reason}" for path, reason in report.refused]
    if json_output:
        counts = {"added": len(report.added), "known": len(report.known), "not_dicom": report.not_dicom}
        show.as_json({**counts, "refused": refused, "studies": studies})
    else:
        rows = [(uid, sum(one.study_instance_uid == uid for one in report.instances)) for uid in studies]
        title = f"{len(report.added)} added, {len(report.known)} known, {report.not_dicom} no DICOM"
        show.as_table(title, ("study", "instances"), rows)
        for line in refused:
            click.echo(f"refused {line}", err=True)


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--patient", default="", help="Affinity domain patient id, id^^^&OID&ISO, where imaging.patient_map has none."
)
@click.option(
    "--source-patient", default="", help="The images' own patient id as id^^^&OID&ISO, where they do not say."
)
@click.option("--study", multiple=True, help="Study Instance UID; every study of the folder if not given.")
@config_option
@url_option("repository")
@url_option("registry")
@json_option
@worded
def publish(
    folder: Path | None,
    patient: str,
    source_patient: str,
    study: tuple[str, ...],
    config_path: Path | None,
    repository: str,
    registry: str,
    json_output: bool,
) -> None:
    """Publish a manifest of each study now, or one that replaces it (RAD-68); a folder's studies are loaded before.

    \b
    xdsi publish /mnt/cd --patient 'p100^^^&1.2.3.4&ISO' --source-patient 'MRN7^^^&1.2.3.11&ISO'
    xdsi publish --study 1.2.840.99.1 --config xdsi.toml
    """
    from imaging.publication.documents import in_order
    from registry.client import client as registry_client
    from repository.client import client
    from server.compose import soap_client
    from server.imaging import stored
    from server.publishing import publisher

    config = load(config_path)
    if folder is None and not study:
        raise Refused("give a folder, or the studies that are to be published with --study")
    for option, value in (("--patient", patient), ("--source-patient", source_patient)):
        if value and (fault := Identifier(value).fault):
            raise Refused(f"{option}: {value!r} {fault}")
    rows: list[dict[str, object]] = []
    shown: list[tuple[object, ...]] = []
    with stored(config) as domain, spooling() as spool:
        instances = domain.parts["instances"]
        chosen = study
        if folder is not None:
            report = load_folder(instances, folder)
            chosen = study or tuple(dict.fromkeys(one.study_instance_uid for one in report.instances))
        provide, _ = client(soap_client(repository, spool))
        update = registry_client(soap_client(registry, spool)).update
        source = publisher(config, instances, domain.parts["publications"], provide=provide, update=update)
        assert source is not None
        with show.progress("publishing", len(chosen), unit="studies") as step:
            for uid in chosen:
                made = in_order(source.publish(uid, patient_id=patient, source_patient_id=source_patient))
                rows.append(_row(uid, made))
                kinds = [(uid, one.key.partition(":")[0], one.document_unique_id, one.instances) for one in made]
                shown += kinds or [(uid, "", "", 0)]
                step()
    if json_output:
        show.as_json(rows)
    else:
        show.as_table("published", ("study", "document", "unique id", "instances"), shown)


def _row(study: str, made: Sequence[Published]) -> dict[str, object]:
    from imaging.publication.documents import manifest_of

    return {
        "study": study,
        "manifest": manifest_of(made),
        "instances": max((one.instances for one in made), default=0),
        "documents": [
            {"document": one.key, "unique_id": one.document_unique_id, "instances": one.instances} for one in made
        ],
    }


@click.command()
@click.option(
    "--give-up",
    metavar="STUDY",
    help="End the submission of this study that gets no verdict: by what the registry has, it has succeeded, or another one is made.",
)
@config_option
@url_option("registry")
@json_option
@worded
def studies(give_up: str | None, config_path: Path | None, registry: str, json_output: bool) -> None:
    """List the studies that are stored or published, and the state of their publication.

    \b
    xdsi studies --config xdsi.toml --json
    xdsi studies --config xdsi.toml --give-up 1.2.840.99.1
    """
    from imaging.publication.rejections import see_arrivals
    from server.imaging import stored

    config = load(config_path)
    with stored(config) as domain:
        publications = domain.parts["publications"]
        if give_up:
            _give_up(give_up, publications, config.imaging.registry_url or registry)
        see_arrivals(domain.parts["instances"], publications)
        found = publications.overview()
    rows = [
        {
            "study": one.study_instance_uid,
            "patient_id": one.patient_id,
            "instances": one.instances,
            "last_arrival": datetime.fromtimestamp(one.last_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "state": one.state,
            "manifest": one.document_unique_id,
            "documents": one.documents,
            "reason": one.reason,
        }
        for one in found
    ]
    if json_output:
        show.as_json(rows)
    else:
        columns = ("study", "patient", "instances", "last arrival", "state", "manifest", "documents", "reason")
        show.as_table(
            f"{len(rows):,} {'study' if len(rows) == 1 else 'studies'}", columns, [tuple(row.values()) for row in rows]
        )


def _give_up(study: str, publications: Publications, registry: str) -> None:
    from imaging.publication.giving_up import give_up
    from registry.client import client
    from server.compose import soap_client

    with spooling() as spool:
        done = give_up(study, publications=publications, query=client(soap_client(registry, spool)).query)
    what = (
        "the registry has what it was to do"
        if done
        else "the registry has nothing of it; another submission is made next"
    )
    click.echo(f"xdsi: {study}: {what}", err=True)


def request_of(
    manifest: object, transfer_syntaxes: tuple[str, ...], only: Collection[str] | None = None
) -> ImagingRequest:
    """The RAD-69 request for everything that a manifest lists, or for `only` these SOP Instance UIDs."""
    from imaging.kos import Manifest

    assert isinstance(manifest, Manifest)
    studies = []
    for study in manifest.studies:
        listed = []
        for series in study.series:
            documents = tuple(
                DocumentRequest(
                    repository_unique_id=series.retrieve_location_uid, document_unique_id=one.sop_instance_uid
                )
                for one in series.instances
                if only is None or one.sop_instance_uid in only
            )
            if documents:
                listed.append(SeriesRequest(series_instance_uid=series.series_instance_uid, documents=documents))
        if listed:
            studies.append(StudyRequest(study_instance_uid=study.study_instance_uid, series=tuple(listed)))
    return ImagingRequest(studies=tuple(studies), transfer_syntax_uids=transfer_syntaxes)


@click.command("retrieve-images")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder to write to.")
@click.option(
    "--transfer-syntax", multiple=True, default=TRANSFER_SYNTAXES, help="Acceptable syntaxes, the preferred one first."
)
@click.option(
    "--contact-sheet", type=click.Path(dir_okay=False, path_type=Path), help="Draw the images to this PNG file."
)
@url_option("imaging")
@json_option
@worded
def retrieve_images(
    manifest: Path,
    out: Path,
    transfer_syntax: tuple[str, ...],
    contact_sheet: Path | None,
    imaging: str,
    json_output: bool,
) -> None:
    """Retrieve every image that a manifest lists (RAD-69).

    \b
    xdsi retrieve 2.25.1234 --out . && xdsi retrieve-images document-1.dcm --out images --contact-sheet all.png
    """
    from imaging import kos
    from imaging.client import client
    from server.compose import soap_client

    listed = kos.read(manifest.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    failed: list[str] = []
    with spooling() as config, show.progress("retrieving", listed.instance_count, unit="instances") as step:
        fetch = client(soap_client(imaging, config))
        for number, answer in enumerate(fetch(request_of(listed, transfer_syntax)), 1):
            if isinstance(answer, Retrieved):
                rows.append(write(answer, out / f"{_safe(answer.request.document_unique_id) or number}.dcm"))
            else:
                failed.append(str(answer))
            step()
    if contact_sheet is not None and rows:
        from imaging.pixels.contact_sheet import contact_sheet as draw

        contact_sheet.write_bytes(draw([Path(str(row["file"])) for row in rows]))
    finish("images", rows, failed, json_output)


@click.command("show")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("contact-sheet.png"),
    show_default=True,
    help="PNG file to write.",
)
@click.option("--tiles", type=click.IntRange(1, 400), default=64, show_default=True, help="Most images on it.")
@click.option(
    "--tile-px", type=click.IntRange(32, 1024), default=160, show_default=True, help="Size of each, in pixels."
)
@url_option("imaging")
@worded
def show_manifest(manifest: Path, out: Path, tiles: int, tile_px: int, imaging: str) -> None:
    """Draw the images of a manifest on one picture; of many, some that are spread over all (RAD-69).

    \b
    xdsi retrieve 2.25.1234 --out . && xdsi show document-1.dcm --out study.png
    """
    from imaging import kos
    from imaging.client import client
    from imaging.pixels.contact_sheet import contact_sheet, spread
    from server.compose import soap_client

    listed = kos.read(manifest.read_bytes())
    every = [one.sop_instance_uid for study in listed.studies for series in study.series for one in series.instances]
    chosen = {every[index] for index in spread(len(every), tiles)}
    images: list[bytes] = []
    failed: list[str] = []
    with spooling() as config, show.progress("retrieving", len(chosen), unit="instances") as step:
        fetch = client(soap_client(imaging, config))
        for answer in fetch(request_of(listed, _PLAIN, chosen)):
            if isinstance(answer, Retrieved):
                images.append(answer.document.read())
            else:
                failed.append(str(answer))
            step()
    if not images:
        raise Refused("; ".join(failed[:3]) or f"{manifest} lists no images")
    out.write_bytes(contact_sheet(images, max_tiles=tiles, tile_px=tile_px))
    click.echo(f"{out}: {len(images)} of {show.counted(len(every), 'instance')}")
    for line in failed:
        click.echo(f"xdsi: {line}", err=True)
    if failed:
        raise SystemExit(1)


def _safe(uid: str) -> str:
    """A UID as a file name: digits and dots only, or nothing."""
    return uid if re.fullmatch(r"[0-9.]{1,64}", uid) and ".." not in uid else ""


COMMANDS: tuple[click.Command, ...] = (load_command, publish, studies, retrieve_images, show_manifest)
