"""Which resource of DICOMweb and WADO-URI is answered by which function."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imaging.archive import Level
from imaging.dicomweb import contact_sheets, qido, rendered, stow, wado_rs, wado_uri
from imaging.dicomweb.behind import Behind
from imaging.dicomweb.resources import Handler
from imaging.dicomweb.wado_nifti import or_nifti
from imaging.dicomweb.wado_rs import Find
from imaging.dicomweb.web import Route
from imaging.instances import Instances
from imaging.pixels.frames import Decoding, Frames, Opened
from imaging.pixels.transfer import Given
from imaging.publication.rejections import Rejected
from soap.operations import Limits

STUDY = "/studies/{study}"
SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{instance}}"
FRAMES = f"{INSTANCE}/frames/{{frames}}"


def routes(
    *,
    instances: Instances,
    given: Given,
    rejected: Rejected,
    limits: Limits,
    max_results: int,
    max_side_px: int,
    behind: Behind | None = None,
) -> tuple[Route, ...]:
    """Below /dicomweb: QIDO-RS (RAD-129), WADO-RS (RAD-107) and STOW-RS (RAD-108). `given` is a Transfer's.

    What is not stored here comes from `behind`.
    """

    def searching(level: Level) -> Handler:
        return qido.search(level, reading=instances.reading, rejected=rejected, max_results=max_results, behind=behind)

    find = wado_rs.finding(instances, rejected, behind)
    storing = stow.storing(instances=instances, limits=limits)
    return (
        Route(form="/studies", transaction="RAD-129", get=searching("study")),
        Route(form="/studies", transaction="RAD-108", post=storing),
        Route(form="/series", transaction="RAD-129", get=searching("series")),
        Route(form="/instances", transaction="RAD-129", get=searching("instance")),
        Route(form=f"{STUDY}/series", transaction="RAD-129", get=searching("series")),
        Route(form=f"{STUDY}/instances", transaction="RAD-129", get=searching("instance")),
        Route(form=f"{SERIES}/instances", transaction="RAD-129", get=searching("instance")),
        Route(form=STUDY, transaction="RAD-108", post=storing),
        *_retrieving(find, given, instances.staging, max_side_px),
    )


def _retrieving(find: Find, given: Given, staging: Path, max_side_px: int) -> Iterator[Route]:
    opened = _opened(given)
    of_series = or_nifti(wado_rs.retrieve(find=find, given=given), find=find, given=given, staging=staging)
    retrieve, metadata = wado_rs.retrieve(find=find, given=given), wado_rs.metadata(find=find)
    pictures = rendered.rendered(find=find, opened=opened, max_side_px=max_side_px)
    thumbnail = rendered.thumbnail(find=find, opened=opened, max_side_px=max_side_px)
    for form in (STUDY, SERIES, INSTANCE):
        yield Route(form=form, transaction="RAD-107", get=of_series if form == SERIES else retrieve)
        yield Route(form=f"{form}/metadata", transaction="RAD-107", get=metadata)
    for form in (STUDY, SERIES, INSTANCE, FRAMES):
        yield Route(form=f"{form}/rendered", transaction="RAD-107", get=pictures)
        yield Route(form=f"{form}/thumbnail", transaction="RAD-107", get=thumbnail)
    sheet = contact_sheets.contact_sheet(find=find, opened=opened)
    for form in (STUDY, SERIES):
        yield Route(form=f"{form}/contact-sheet", transaction="RAD-107", get=sheet)
    yield Route(form=FRAMES, transaction="RAD-107", get=wado_rs.frames(find=find, opened=opened))
    bulkdata = wado_rs.bulkdata(find=find, opened=opened)
    yield Route(form=f"{INSTANCE}/bulkdata/{{bulk*}}", transaction="RAD-107", get=bulkdata)


def _opened(given: Given) -> Opened:
    decoding = Decoding(given)
    return lambda stored: Frames(stored, decoding)


def wado_uri_route(
    *,
    instances: Instances,
    given: Given,
    rejected: Rejected,
    max_side_px: int,
    empty_uid_status: int,
    behind: Behind | None = None,
) -> Route:
    """At /wado: WADO-URI (RAD-55)."""
    find = wado_rs.finding(instances, rejected, behind)
    get = wado_uri.retrieve(
        find=find, given=given, opened=_opened(given), max_side_px=max_side_px, empty_uid_status=empty_uid_status
    )
    return Route(form="", transaction="RAD-55", get=get)
