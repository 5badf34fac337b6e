"""Which stored instances a C-MOVE or C-GET is for (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from imaging.instances import Instance, Instances
from imaging.publication.rejections import Rejected
from imaging.query_retrieve.identifiers import UNIQUE, Asked, WrongIdentifier
from imaging.tables import study
from xds.values import is_oid

#: Most instances of one retrieval: numbers of sub-operations have 16 bits.
MAX_INSTANCES = 65_535


class TooMany(Exception):
    """More instances than one retrieval may have."""


def choose(asked: Asked, *, instances: Instances, rejected: Rejected) -> list[Instance]:
    """The instances of the studies or series, or those that are named, without the rejected ones.

    WrongIdentifier where nothing is named that could be looked for; TooMany.
    """
    keyword = UNIQUE[asked.level]
    uids = list(dict.fromkeys(asked.uids))
    if not uids:
        raise WrongIdentifier(f"{keyword} is missing at {asked.level} level")
    if asked.level == "PATIENT":
        found = _of_studies(_studies(instances, uids), instances)
    elif not all(map(is_oid, uids)):
        raise WrongIdentifier(f"{keyword} must be UIDs, without wildcards")
    elif asked.level == "STUDY":
        found = _of_studies(uids, instances)
    elif asked.level == "SERIES":
        wanted = set(uids)
        of_study = instances.of_study(asked.above["StudyInstanceUID"])
        found = [one for one in of_study if one.series_instance_uid in wanted]
    else:
        place = asked.above["StudyInstanceUID"], asked.above["SeriesInstanceUID"]
        named = instances.find(uids).values()
        found = [one for one in named if (one.study_instance_uid, one.series_instance_uid) == place]
    if "PatientID" in asked.above:
        studies = set(_studies(instances, [asked.above["PatientID"]]))
        found = [one for one in found if one.study_instance_uid in studies]
    refused = rejected([one.sop_instance_uid for one in found])
    found = [one for one in found if one.sop_instance_uid not in refused]
    if len(found) > MAX_INSTANCES:
        raise TooMany
    return found


def _studies(instances: Instances, patient_ids: Iterable[str]) -> list[str]:
    statement = select(study.c.study_instance_uid).where(study.c.patient_id.in_(list(patient_ids)))
    with instances.reading.connect() as connection:
        return list(connection.execute(statement.order_by(study.c.study_instance_uid)).scalars())


def _of_studies(uids: Iterable[str], instances: Instances) -> list[Instance]:
    found: list[Instance] = []
    for uid in uids:
        found += instances.of_study(uid)
        # Rejected ones count here: nobody retrieves so many at once.
        if len(found) > MAX_INSTANCES:
            raise TooMany
    return found
