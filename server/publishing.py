"""The wiring of publication: what the imaging source's publisher is made of, and what it does again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from imaging.instances import Instances
from imaging.kos.manifest import DESCRIBED, Coded
from imaging.publication.code_map import CodeMap
from imaging.publication.code_map import read as read_codes
from imaging.publication.documents import FORMS, Source
from imaging.publication.patient_map import PatientOf, patient_map
from imaging.publication.performed_steps import PerformedSteps
from imaging.publication.publications import Publications
from imaging.publication.publishing import Publisher
from imaging.publication.rejections import see_arrivals
from registry.client import client as registry_client
from repository.client import client as repository_client
from server.compose import now, soap_client
from server.config import Config, ConfigError, Imaging
from server.imaging import archive, imaging_defaults
from server.tracing import OFF, Tracing
from xds.transactions import Provide, Register

#: Studies between two looks at whether the server ends.
_AT_ONCE = 10


def publisher(
    config: Config,
    instances: Instances,
    publications: Publications,
    *,
    provide: Provide | None = None,
    update: Register | None = None,
    steps: PerformedSteps | None = None,
    traced: Tracing = OFF,
) -> Publisher | None:
    """The publisher of a configuration. What is at a URL goes before `provide` and `update`; None where there is no repository."""
    settings = config.imaging

    def remote(url: str) -> Provide:
        soap = soap_client(url, config, answer_timeout_s=settings.publish_timeout_s, traced=traced)
        return repository_client(soap)[0]

    if settings.repository_url:
        provide = remote(settings.repository_url)
    if settings.registry_url:
        soap = soap_client(settings.registry_url, config, answer_timeout_s=settings.publish_timeout_s, traced=traced)
        update = registry_client(soap).update
    if provide is None:
        return None
    patient_of, codes = _maps(settings)
    return Publisher(
        instances=instances,
        publications=publications,
        archive=archive(config, instances.staging),
        source=Source(
            source_id=settings.source_id,
            retrieve_ae_title=settings.ae_title,
            retrieve_location_uid=settings.location_uid,
            retrieve_url=settings.retrieve_url or None,
            defaults=imaging_defaults(config),
            codes=codes,
            forms=_forms(settings),
            mado_title=_mado_title(settings),
            mado_final=settings.mado_codes == "final",
            key_images=settings.publish_key_images,
        ),
        provide=provide,
        update=update,
        patient_of=patient_of,
        now=now,
        quiet_s=settings.publish_after_s,
        steps=steps if settings.mpps else None,
        longest_step_s=settings.mpps_longest_s,
    )


def _forms(settings: Imaging) -> tuple[str, ...]:
    """In which a manifest is published. ConfigError for what is none."""
    wrong = settings.forms - FORMS.keys()
    if wrong or not settings.forms:
        named = ", ".join(map(repr, sorted(wrong))) or "nothing"
        raise ConfigError(f"imaging.manifests names {named}; forms are {', '.join(FORMS)}")
    return tuple(sorted(settings.forms))


def _mado_title(settings: Imaging) -> Coded:
    value, _, scheme = settings.mado_title.partition("^")
    if not (0 < len(value) <= 16 and 0 < len(scheme) <= 16) or "^" in scheme:
        raise ConfigError(
            f"imaging.mado_title is {settings.mado_title!r}; it is to be code^scheme, of 1 to 16 characters each"
        )
    return Coded(value, scheme, DESCRIBED)


def _maps(settings: Imaging) -> tuple[PatientOf, CodeMap]:
    """Who the patients are, and the affinity domain's own codes. ConfigError where a file of either can not be used."""
    key = "patient_map"
    try:
        patient_of = patient_map(settings.patient_map, source_patient_issuer=settings.source_patient_issuer)
        key = "code_map"
        return patient_of, read_codes(Path(settings.code_map)) if settings.code_map else CodeMap()
    except ValueError as error:
        raise ConfigError(f"imaging.{key}: {error}") from None


def looking(publisher: Publisher | None, instances: Instances, publications: Publications) -> Callable[[], bool]:
    """Publishes some of what is due, and says whether there may be more; where there is no repository, what has come is looked at."""

    def publish() -> bool:
        if publisher is None:
            see_arrivals(instances, publications)
            return False
        return publisher.look(_AT_ONCE) == _AT_ONCE

    return publish
