"""Stored studies in other formats: NIfTI volumes, FHIR ImagingStudy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server import show
from server.config import Config, load
from server.options import Refused, config_option, json_option, worded

if TYPE_CHECKING:
    from imaging.instances import Instance


@click.command("export")
@click.argument("study_uid")
@click.option("--nifti", is_flag=True, help="Each series as NIfTI (.nii.gz), as far as it is a volume.")
@click.option("--fhir", type=click.Choice(["R4", "R5"]), help="The study as FHIR ImagingStudy (.json).")
@click.option("--series", multiple=True, help="Series Instance UID; every series of the study if not given.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder to write to.")
@config_option
@json_option
@worded
def export(
    study_uid: str,
    nifti: bool,
    fhir: str | None,
    series: tuple[str, ...],
    out: Path,
    config_path: Path | None,
    json_output: bool,
) -> None:
    """Write a stored study in other formats.

    A series that is no volume is told, with the reason, and the exit status is 1. Headers and sidecars of NIfTI do not name the patient;
    a head, once it is drawn, has a face.

    \b
    xdsi export 1.2.840.1.2.3 --nifti --out volumes
    xdsi export 1.2.840.1.2.3 --fhir R5
    """
    if not (nifti or fhir):
        raise Refused("nothing to do: --nifti or --fhir")
    config = load(config_path)
    rows, failed = _exported(config, study_uid, nifti, fhir, series, out)
    if json_output:
        show.as_json({"files": rows, "failed": failed})
    else:
        cells = [(row["file"], row["of"], row["bytes"]) for row in rows]
        show.as_table(show.counted(len(rows), "file"), ("file", "of", "bytes"), cells)
    for line in failed:
        click.echo(f"xdsi: {line}", err=True)
    if failed:
        raise SystemExit(1)


def _exported(
    config: Config, study_uid: str, nifti: bool, fhir: str | None, series: tuple[str, ...], out: Path
) -> tuple[list[dict[str, str | int]], list[str]]:
    """What was written, and why what was not."""
    from imaging.nifti import NiftiError
    from imaging.nifti import export as export_nifti
    from server.imaging import stored, transfer

    with stored(config) as domain:
        instances = domain.parts["instances"]
        of_study = instances.of_study(study_uid)
        if not of_study:
            raise Refused(f"no instance of study {study_uid} is stored")
        out.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, str | int]] = []
        failed: list[str] = []
        if fhir is not None:
            rows.append(_fhir(config, of_study, fhir, out / f"{study_uid}.json"))
        if nifti:
            giving = transfer(config, domain, instances.staging)
            chosen = series or tuple(dict.fromkeys(one.series_instance_uid for one in of_study))
            with show.progress("converting", len(chosen), unit="series") as step:
                for uid in chosen:
                    of_series = [one for one in of_study if one.series_instance_uid == uid]
                    try:
                        files = export_nifti(of_series, out, given=giving.given)
                    except NiftiError as error:
                        failed.append(str(error))
                    else:
                        rows += [{"file": str(one), "of": uid, "bytes": one.stat().st_size} for one in files]
                    step()
        return rows, failed


def _fhir(config: Config, stored: list[Instance], release: str, path: Path) -> dict[str, str | int]:
    from imaging.fhir import RELEASES, imaging_study
    from imaging.instances import read_header

    made = imaging_study(
        [read_header(one.path) for one in stored],
        release=next(one for one in RELEASES if one == release),
        time_zone=config.imaging.time_zone,
        retrieve_url=config.imaging.retrieve_url,
        accession_issuer=config.imaging.accession_issuer,
    )
    path.write_text(json.dumps(made, ensure_ascii=False, indent=2) + "\n")
    return {"file": str(path), "of": f"ImagingStudy {release}", "bytes": path.stat().st_size}


COMMANDS: tuple[click.Command, ...] = (export,)
