"""Here or there: what is of a study that is not stored here comes from the archive behind this source, if there is one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydicom.datadict import tag_for_keyword
from sqlalchemy import Engine, select

from imaging.archive import LEVELS, UID_KEYWORDS, UID_TAGS, Archive, Fetched, Level, Matches, Search, text
from imaging.archive.fetching import Fetch, Place
from imaging.dicom_json import Json
from imaging.dicomweb.resources import Refusal
from imaging.matching import KEYS
from imaging.publication import publication_tables
from imaging.publication.rejections import Rejected
from imaging.tables import instance

_log = logging.getLogger("xdsi.imaging")
#: Most matches of the archive that are looked at for one answer, and most instances that are given in one.
_MAX_MATCHES = 50_000
_MAX_INSTANCES = 20_000
_CHUNK_UIDS = 500
#: Of an instance that makes its study one that is answered from here, as `rejections.is_here` says.
IS_HERE = instance.c.sop_instance_uid.not_in(select(publication_tables.rejected.c.note))
_AWAY = "the archive behind this imaging source did not answer as it should; the log of the server says why"


class Behind:
    """The archive as DICOMweb needs it. Refusal (502) where it is away, or answers what nobody can use."""

    def __init__(self, archive: Archive, fetch: Fetch, *, reading: Engine, rejected: Rejected) -> None:
        """`reading` has the index of what is stored here."""
        self._archive, self._fetch, self._reading, self._rejected = archive, fetch, reading, rejected

    def retrieve(self, place: Mapping[str, str]) -> list[Fetched]:
        """All the instances of a study or series, or one, in order; all of them are here before the first is given.

        Refusal (404) where the archive has none of these UIDs, or all are rejected.
        """
        with _told():
            places = self._places(place)
            refused = self._rejected([uid for _, _, uid in places])
            wanted = [one for one in places if one[2] not in refused]
            fetching = self._fetch(wanted)
            waiting = [fetching.begin(one) for one in wanted]
            came = [come() for come in waiting]
        found = [one for one in came if one is not None]
        if not found:
            if refused:
                uid, reason = next(iter(refused.items()))
                raise Refusal(404, f"instance {uid} is rejected: {reason}")
            level = next(one for one in reversed(LEVELS) if one in place)
            raise Refusal(404, f"{level} {place[level]} is not stored here, nor in the archive behind this source")
        if len(found) < len(came):
            raise Refusal(502, _AWAY)
        return sorted(found, key=lambda one: (one.series_number, one.series_instance_uid, one.instance_number))

    def search(self, level: Level, keys: Mapping[str, str], fuzzy: bool, offset: int, most: int) -> Matches:
        """Matches in the archive's order that are neither of a study that is answered from here nor rejected."""
        enough = offset + most
        asked = enough
        while True:
            if asked > _MAX_MATCHES:
                raise Refusal(
                    400, f"more than {_MAX_MATCHES} matches of the archive would be looked at; search for less"
                )
            with _told():
                matches = self._archive.search(Search(level=level, keys=keys, most=asked, fuzzy=fuzzy))
            compared = {keyword: value for keyword, value in keys.items() if value.strip("*")}
            passed_over = {keyword for one in matches.found for keyword in compared if not _is_told(one, keyword)}
            fitting = [one for one in matches.found if all(_fits(one, *key) for key in compared.items())]
            kept = self._kept(level, fitting)
            if len(kept) >= enough or len(matches.found) < asked:
                literal = matches.literal and any(KEYS[one].kind == "name" for one in keys)
                return Matches(kept[offset:enough], literal, sorted(passed_over))
            asked *= 2

    def _places(self, place: Mapping[str, str]) -> Sequence[Place]:
        if "instance" in place:
            return [(place["study"], place["series"], place["instance"])]
        keys = {UID_KEYWORDS[one]: place[one] for one in LEVELS if one in place}
        found = self._archive.search(Search(level="instance", keys=keys, most=_MAX_INSTANCES + 1)).found
        if len(found) > _MAX_INSTANCES:
            raise Refusal(400, f"there are more than {_MAX_INSTANCES} instances below this path; ask for less")
        return [
            (text(one, UID_TAGS["study"]), text(one, UID_TAGS["series"]), text(one, UID_TAGS["instance"]))
            for one in found
        ]

    def _kept(self, level: Level, matches: Sequence[Json]) -> list[Json]:
        here: set[str] = set()
        studies = sorted({text(one, UID_TAGS["study"]) for one in matches})
        with self._reading.connect() as connection:
            for start in range(0, len(studies), _CHUNK_UIDS):
                of_them = instance.c.study_instance_uid.in_(studies[start : start + _CHUNK_UIDS])
                here |= set(connection.execute(select(instance.c.study_instance_uid).where(of_them, IS_HERE)).scalars())
        kept = [one for one in matches if text(one, UID_TAGS["study"]) not in here]
        if level != "instance":
            return kept
        refused = self._rejected([text(one, UID_TAGS["instance"]) for one in kept])
        return [one for one in kept if text(one, UID_TAGS["instance"]) not in refused]


@contextmanager
def _told() -> Iterator[None]:
    """What the archive suffers is for the log."""
    try:
        yield
    except OSError as error:
        _log.error("the archive behind this source: %s", error)
        raise Refusal(502, _AWAY) from error


def _is_told(match: Json, keyword: str) -> bool:
    """Whether the archive knows of the attribute: it tells of no other that it is asked for (PS3.4 C.2.2.1.3)."""
    return _tag(keyword) in match


def _fits(match: Json, keyword: str, wanted: str) -> bool:
    """Whether it is what was asked for, as far as can be seen: whoever asks for one patient must not be given another."""
    if not _is_told(match, keyword):
        return False
    found = match[_tag(keyword)].get("Value") or []
    plain = KEYS[keyword].kind in ("text", "uid", "code") and "." not in keyword and not set("*?") & set(wanted)
    if not plain:
        return bool(found)
    one_of = re.split(r"[,\\]", wanted) if KEYS[keyword].kind != "text" else [wanted]
    return bool({str(one).strip().casefold() for one in found} & {one.strip().casefold() for one in one_of})


def _tag(keyword: str) -> str:
    return f"{tag_for_keyword(keyword.partition('.')[0]):08X}"
