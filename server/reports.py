"""The wiring of imaging reports: the repository and the registry that they go to, local or remote, and the affinity domain's own codes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from feeds.listener import Listener
from feeds.reports.documents import Codes, Settings
from feeds.reports.message import Report
from feeds.reports.submitting import Reports
from server.compose import Domain, authorities, now, soap_client
from server.config import Config, ConfigError, Imaging
from server.http import refuse_exposed
from xds.transactions import Provide, Query, Register
from xds.values import Code, Identifier

if TYPE_CHECKING:
    from imaging.publication.code_map import CodeMap, Rule


def listener(
    config: Config,
    domain: Domain,
    provide: Provide | None,
    query: Query | None,
    update: Register | None,
    *,
    answered: Callable[[str, str], None],
) -> Listener:
    """Listens for reports. What is at a URL goes before `provide`, `query` and `update`. ConfigError where something is missing."""
    settings = config.reports
    refuse_exposed(config, "reports.host", settings.host)
    taking = domain.parts["reports"] = reports(config, domain, provide, query, update)
    made = Listener(
        partial(taking.answer, new_control_id=lambda: uuid.uuid4().hex[:20], answered=answered),
        host=settings.host,
        port=settings.port,
        max_connections=settings.connections,
        max_message_bytes=settings.message_bytes,
        idle_s=settings.idle_s,
        message_s=settings.message_s,
        name="reports",
    )
    made.start()
    return made


def reports(
    config: Config, domain: Domain, provide: Provide | None, query: Query | None, update: Register | None
) -> Reports:
    """What takes the messages of a configuration."""
    from registry.client import client as registry_client
    from repository.client import client as repository_client

    settings, traced = config.reports, domain.tracing
    if settings.repository_url:
        soap = soap_client(settings.repository_url, config, answer_timeout_s=settings.timeout_s, traced=traced)
        provide = repository_client(soap)[0]
    registry_url = settings.registry_url or ("" if settings.repository_url else config.repository.registry_url)
    if registry_url:
        soap = soap_client(registry_url, config, answer_timeout_s=settings.timeout_s, traced=traced)
        remote = registry_client(soap)
        query, update = remote.query, remote.update
    if provide is None:
        raise ConfigError("reports.repository_url is empty, and this process runs no repository")
    if query is None:
        raise ConfigError("reports.registry_url is empty, and this process runs no registry")
    addendum: Literal["replace", "append"] = "append" if settings.addendum == "append" else "replace"
    return Reports(
        settings=_settings(config),
        provide=provide,
        query=query,
        update=update,
        patient_of=_patient_of(config),
        zone=ZoneInfo(config.imaging.time_zone),
        now=now,
        preliminary=settings.preliminary,
        addendum=addendum,
    )


def _settings(config: Config) -> Settings:
    """The defaults are those of the manifests, so that a report and its images say the same."""
    from imaging.publication.code_tables import ACQUISITION_MODALITIES
    from server.imaging import imaging_defaults

    settings, imaging, defaults = config.reports, config.imaging, imaging_defaults(config)
    known = authorities(settings.assigning_authorities or config.registry.assigning_authorities)
    if not known and not imaging.patient_map:
        raise ConfigError(
            "reports: nothing says which patient ids are those of the affinity domain: set reports.assigning_authorities,"
            " registry.assigning_authorities or imaging.patient_map"
        )
    pdf: Literal["cda", "plain"] = "plain" if settings.pdf == "plain" else "cda"
    return Settings(
        authorities=known,
        source_id=settings.source_id,
        source_patient_issuer=imaging.source_patient_issuer,
        accession_issuer=imaging.accession_issuer,
        placer_issuer=settings.placer_issuer,
        filler_issuer=settings.filler_issuer,
        filler_is_accession=settings.filler_is_accession,
        institution=imaging.institution,
        language_code=imaging.language_code,
        pdf=pdf,
        modalities=ACQUISITION_MODALITIES,
        codes=_codes(settings.code_map or imaging.code_map),
        type_code=defaults.type_code,
        content_type_code=defaults.content_type_code,
        confidentiality_code=defaults.confidentiality_code,
        healthcare_facility_type_code=defaults.healthcare_facility_type_code,
        practice_setting_code=defaults.practice_setting_code,
    )


def _patient_of(config: Config) -> Callable[[Identifier], Identifier | None]:
    """As publication knows patients. An id without an entry is None; a file that can not be read any more is ValueError."""
    from imaging.publication.patient_map import patient_map
    from imaging.publication.rad68_provide import PublishError

    settings: Imaging = config.imaging
    try:
        known = patient_map(settings.patient_map, source_patient_issuer=settings.source_patient_issuer)
    except ValueError as error:
        raise ConfigError(f"imaging.patient_map: {error}") from None

    def patient_of(local: Identifier) -> Identifier | None:
        try:
            return known(local)
        except PublishError:
            return None

    return patient_of


def _codes(path: str) -> Callable[[Report], Codes]:
    """The rules of a code map, by what a report knows of them: modality and procedure. One that asks for a body part does not fit."""
    if not path:
        return lambda report: Codes()
    from imaging.publication.code_map import read

    try:
        rules: CodeMap = read(Path(path))
    except ValueError as error:
        raise ConfigError(f"reports.code_map: {error}") from None

    def codes(report: Report) -> Codes:
        return Codes(
            type_code=next(iter(_fitting(rules.type_code, report)), None),
            practice_setting_code=next(iter(_fitting(rules.practice_setting_code, report)), None),
            event_code_list=tuple(_fitting(rules.event_code_list, report)),
        )

    return codes


def _fitting(rules: Sequence[Rule], report: Report) -> list[Code]:
    return [
        rule.code
        for rule in rules
        if not rule.body_part
        and rule.modality in ("", report.modality)
        and (
            not (rule.procedure or rule.procedure_scheme)
            or any(
                rule.procedure in ("", one.code) and rule.procedure_scheme in ("", one.system)
                for one in report.procedures
            )
        )
    ]
