"""Which resource of DICOMweb and WADO-URI is answered by which function."""

from __future__ import annotations

from collections.abc import Iterator

from imaging import qido, rendered, stow, wado_rs, wado_uri
from imaging.instances import Instances
from imaging.resources import Handler
from imaging.web import Route
from soap.operations import Limits

STUDY = "/studies/{study}"
SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{instance}}"
FRAMES = f"{INSTANCE}/frames/{{frames}}"


def routes(*, instances: Instances, limits: Limits, max_results: int, max_side_px: int) -> tuple[Route, ...]:
    """Below /dicomweb: QIDO-RS (RAD-129), WADO-RS (RAD-107) and STOW-RS (RAD-108)."""

    def searching(level: qido.Level) -> Handler:
        return qido.search(level, reading=instances.reading, max_results=max_results)

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
        *_retrieving(instances, max_side_px),
    )


def _retrieving(instances: Instances, max_side_px: int) -> Iterator[Route]:
    retrieve, metadata = wado_rs.retrieve(instances=instances), wado_rs.metadata(instances=instances)
    pictures = rendered.rendered(instances=instances, max_side_px=max_side_px)
    thumbnail = rendered.thumbnail(instances=instances, max_side_px=max_side_px)
    for form in (STUDY, SERIES, INSTANCE):
        yield Route(form=form, transaction="RAD-107", get=retrieve)
        yield Route(form=f"{form}/metadata", transaction="RAD-107", get=metadata)
    for form in (STUDY, SERIES, INSTANCE, FRAMES):
        yield Route(form=f"{form}/rendered", transaction="RAD-107", get=pictures)
        yield Route(form=f"{form}/thumbnail", transaction="RAD-107", get=thumbnail)
    yield Route(form=FRAMES, transaction="RAD-107", get=wado_rs.frames(instances=instances))
    bulkdata = wado_rs.bulkdata(instances=instances)
    yield Route(form=f"{INSTANCE}/bulkdata/{{bulk*}}", transaction="RAD-107", get=bulkdata)


def wado_uri_route(*, instances: Instances, max_side_px: int, empty_uid_status: int) -> Route:
    """At /wado: WADO-URI (RAD-55)."""
    get = wado_uri.retrieve(instances=instances, max_side_px=max_side_px, empty_uid_status=empty_uid_status)
    return Route(form="", transaction="RAD-55", get=get)
