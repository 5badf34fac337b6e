"""A PACS that is asked by DIMSE: C-FIND, and C-GET or C-MOVE, of the Study Root model (PS3.4 Annex C; IHE RAD-14, RAD-16)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.association import Association

from imaging import dicom_json
from imaging.archive import (
    LEVELS,
    UID_KEYWORDS,
    UID_TAGS,
    Archived,
    ArchiveError,
    Fetched,
    Level,
    Matches,
    Search,
    text,
)
from imaging.archive.association import PENDING, SUCCESS, Peering, said
from imaging.archive.retrieving import CLASSES_AT_ONCE, Retrieval, Retrieve
from imaging.archive.sop_classes import OF_ANY_MODALITY, OF_MODALITY
from imaging.dicom_json import Json
from imaging.index import INSTANCE_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES
from imaging.instances import Instance, InstanceError, row_of
from imaging.kos.manifest import KEY_OBJECT_SELECTION
from xds.values import is_oid

# Study Root Query/Retrieve (PS3.4 C.6.2).
_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
_CANCELLED = 0xFE00
_LEVEL_NAMES = {"study": "STUDY", "series": "SERIES", "instance": "IMAGE"}
_ATTRIBUTES = {
    "study": (
        *STUDY_ATTRIBUTES,
        *("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
    ),
    "series": (*SERIES_ATTRIBUTES, "NumberOfSeriesRelatedInstances"),
    "instance": (*INSTANCE_ATTRIBUTES, "AvailableTransferSyntaxUID"),
}
#: Most studies or series of which more is asked in one search, and most instances of one study.
_MAX_BRANCHES = 5000
_MAX_INSTANCES = 100_000
#: A search may take so many times as long as the archive may be silent.
_MAX_SILENCES = 20
#: Of each instance its own; the rest of a header is what the instances of a series have in common.
_OWN = frozenset(map(Tag, INSTANCE_ATTRIBUTES)) - {Tag("TimezoneOffsetFromUTC")}


class DimseArchive:
    """An Archive over DIMSE. Of a study that is to be published it is asked for one instance of each series, too."""

    #: So many instances are asked for in one C-GET or C-MOVE.
    batch = 32

    def __init__(self, peering: Peering, retrieve: Retrieve) -> None:
        self._peering, self._retrieve = peering, retrieve

    def fetch(self, study_uid: str, series_uid: str, uids: Sequence[str]) -> Mapping[str, Fetched | ArchiveError]:
        """As Archive has it."""
        known = [uid for uid in uids if is_oid(uid)]
        if not known or not is_oid(study_uid) or not is_oid(series_uid):
            return {}
        above = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        with self._peering.associated([build_context(_FIND)]) as association:
            found, _ = self._find(association, "instance", {**above, "SOPInstanceUID": ",".join(known)}, len(known))
        classes = {uid: text(one, "00080016") for one in found if (uid := text(one, "00080018")) in known}
        outcomes: dict[str, Fetched | ArchiveError] = {}
        for sop_classes in self._offers(above, set(classes.values())):
            wanted = [
                uid
                for uid, one in classes.items()
                if one in (*sop_classes, "") and not isinstance(outcomes.get(uid), Fetched)
            ]
            if wanted:
                retrieval = Retrieval(study_uid, series_uid, wanted, classes=sop_classes, origin=self._peering.peer)
                try:
                    ending = self._retrieve(retrieval)
                except OSError as error:
                    ending = str(error)
                # What came before is good, however it ended.
                outcomes |= retrieval.ended(ending)
        return outcomes

    def _offers(self, series: Mapping[str, str], classes: set[str]) -> Iterator[list[str]]:
        """The SOP classes of some instances, as many at once as can be offered; of those that C-FIND does not say, what they may be."""
        offered = sorted(filter(is_oid, classes))
        if len(offered) < len(classes):
            with self._peering.associated([build_context(_FIND)]) as association:
                found, _ = self._find(association, "series", series, 1)
            likely = OF_MODALITY.get(text(found[0], "00080060") if found else "", ())
            offered = list(dict.fromkeys([*offered, *likely, *OF_ANY_MODALITY]))
        for start in range(0, len(offered), CLASSES_AT_ONCE):
            yield offered[start : start + CLASSES_AT_ONCE]

    def search(self, search: Search) -> Matches:
        """As Archive has it: from study to series to instance, for not every PACS finds more than one level at once."""
        found = []
        with self._peering.associated([build_context(_FIND)]) as association:
            for match in self._walk(association, search, {}, {}):
                found.append(match)
                if len(found) >= search.most:
                    break
        return Matches(found, literal=search.fuzzy)

    def of_study(self, study_uid: str) -> list[Instance]:
        """As Archive has it."""
        if not is_oid(study_uid):
            return []
        search = Search(level="instance", keys={"StudyInstanceUID": study_uid}, most=_MAX_INSTANCES)
        of_series: dict[str, list[Json]] = {}
        for match in self.search(search).found:
            of_series.setdefault(text(match, "0020000E"), []).append(match)
        found = [one for uid, matches in of_series.items() for one in self._of_series(study_uid, uid, matches)]
        return sorted(found, key=lambda one: (one.series_number, one.series_instance_uid, one.instance_number))

    def _of_series(self, study_uid: str, series_uid: str, matches: Sequence[Json]) -> Iterator[Instance]:
        """The instances of a series, each with its header: its own where C-FIND does not say enough of it, else made of another's."""
        own = [text(one, "00080018") for one in matches if text(one, "00080016") in ("", KEY_OBJECT_SELECTION)]
        other = [text(one, "00080018") for one in matches if text(one, "00080016") not in ("", KEY_OBJECT_SELECTION)]
        headers: dict[str, Dataset] = {}
        wanted = [*own, *other[:1]]
        for start in range(0, len(wanted), self.batch):
            chosen = wanted[start : start + self.batch]
            outcomes = self.fetch(study_uid, series_uid, chosen)
            headers |= {uid: self._header(uid, outcomes.get(uid)) for uid in chosen}
        for match in matches:
            uid = text(match, "00080018")
            described = headers[uid] if uid in headers else _described(headers[other[0]], match)
            try:
                yield Archived(**row_of(described, size=0, sha1=""), path=Path(), described=described)
            except InstanceError as error:
                raise ArchiveError(f"{self._peering.peer}: instance {uid}: {error}") from error

    def _header(self, uid: str, outcome: Fetched | ArchiveError | None) -> Dataset:
        if isinstance(outcome, Fetched):
            return outcome.header()
        raise outcome or ArchiveError(f"{self._peering.peer}: instance {uid} was found, and is not there")

    def _walk(self, association: Association, search: Search, above: Json, uids: dict[str, str]) -> Iterator[Json]:
        """The matches below what is above."""
        level = LEVELS[len(uids)]
        deepest = level == search.level
        keys = {keyword: value for keyword, value in search.keys.items() if _level_of(keyword) == level}
        found, more = self._find(association, level, keys | uids, search.most if deepest else _MAX_BRANCHES)
        for match in found:
            if deepest:
                yield above | match
            else:
                keyword = UID_KEYWORDS[level]
                yield from self._walk(
                    association, search, above | match, {**uids, keyword: text(match, UID_TAGS[level])}
                )
        if more and not deepest:
            raise ArchiveError(
                f"{self._peering.peer}: more than {_MAX_BRANCHES} {_LEVEL_NAMES[level]} matches to look into"
            )

    def _find(
        self, association: Association, level: Level, keys: Mapping[str, str], most: int
    ) -> tuple[list[Json], bool]:
        """One C-FIND: its first matches, and whether there are more."""
        found, more = list[Json](), False
        origin = f"{self._peering.peer}: C-FIND at {_LEVEL_NAMES[level]} level"
        until = time.monotonic() + _MAX_SILENCES * self._peering.peer.timeout_s
        for status, match in association.send_c_find(_identifier(level, keys), _FIND):
            code = status.get("Status")
            if time.monotonic() > until:
                break
            if code in PENDING and len(found) < most:
                found.append(_match(match, level, keys, origin))
            elif code in PENDING:
                if not more:
                    association.send_c_cancel(1, query_model=_FIND)
                more = True
            elif code == SUCCESS or (more and code == _CANCELLED):
                return found, more
            else:
                raise ArchiveError(f"{origin}: {said(status)}")
        raise ArchiveError(f"{origin} did not end")


def _match(match: Dataset | None, level: Level, keys: Mapping[str, str], origin: str) -> Json:
    """A match with the UIDs that it must have. ArchiveError for one that belongs elsewhere."""
    if match is None:
        raise ArchiveError(f"{origin}: a match cannot be read")
    levels = LEVELS[: LEVELS.index(level) + 1]
    encoded = dicom_json.encode(match, only={Tag(keyword) for one in levels for keyword in _ATTRIBUTES[one]})
    for one in levels:
        keyword = UID_KEYWORDS[one]
        asked = _uids(keys.get(keyword, ""))
        uid = text(encoded, UID_TAGS[one]) or (asked[0] if len(asked) == 1 else "")
        if not is_oid(uid) or (asked and uid not in asked):
            raise ArchiveError(f"{origin}: a match of {keyword} {uid[:64]!r}")
        encoded[UID_TAGS[one]] = dicom_json.texts("UI", [uid])
    return encoded


def _uids(value: str) -> list[str]:
    """Of a list as QIDO-RS has it."""
    return [one.strip() for one in re.split(r"[,\\]", value) if one.strip()]


def _level_of(keyword: str) -> Level:
    first = keyword.partition(".")[0]
    return next((level for level in LEVELS if first in _ATTRIBUTES[level]), "instance")


def _identifier(level: Level, keys: Mapping[str, str]) -> Dataset:
    """What is searched for, and what is to be told of it: an empty value is that."""
    asked = Dataset()
    asked.QueryRetrieveLevel = _LEVEL_NAMES[level]
    if any(not value.isascii() for value in keys.values()):
        asked.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _ATTRIBUTES[level]:
        setattr(asked, keyword, [] if dictionary_VR(keyword) == "SQ" else None)
    for keyword, value in keys.items():
        sequence, _, name = keyword.rpartition(".")
        if not sequence:
            _set(asked, name, value)
        else:
            item = getattr(asked, sequence)[0] if getattr(asked, sequence, None) else Dataset()
            _set(item, name, value)
            setattr(asked, sequence, [item])
    return asked


def _set(asked: Dataset, keyword: str, value: str) -> None:
    """Lists are separated by backslashes here. It is the archive's to say what a value may be."""
    vr = dictionary_VR(keyword)
    if vr in ("UI", "CS"):
        value = value.replace(",", "\\")
    asked.add(DataElement(Tag(keyword), vr, value, validation_mode=IGNORE))


def _described(header: Dataset, match: Json) -> Dataset:
    """The header of an instance, made of that of another one of its series."""
    described = Dataset({tag: header.get_item(tag) for tag in header.keys() if tag not in _OWN})  # noqa: SIM118 - as above, its iterator reads the elements
    described.set_original_encoding(
        header.original_encoding[0], header.original_encoding[1], header.original_character_set
    )
    described.SOPClassUID, described.SOPInstanceUID = text(match, "00080016"), text(match, "00080018")
    for keyword, tag in (("InstanceNumber", "00200013"), ("NumberOfFrames", "00280008")):
        if (number := text(match, tag)).isdigit():
            setattr(described, keyword, int(number))
    return described
