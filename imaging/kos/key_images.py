"""Key image notes (IHE KIN, RAD-31), and the manifests of what they select: the note's own title and words, with where to retrieve it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from imaging.kos.building import Content, copies
from imaging.kos.encoding import (
    Series,
    encoded_choice,
    encoded_dataset,
    encoded_reference,
)
from imaging.kos.manifest import (
    KEY_OBJECT_SELECTION,
    Coded,
    InstanceReference,
    concept_of,
    is_manifest,
    is_rejection,
    is_uid,
    items_of,
    value_of,
)

# PS3.16 TID 2010, TID 1204.
_LANGUAGE, _DESCRIPTION = ("121049", "DCM"), ("113012", "DCM")
#: What is said of the selection as a whole: modifiers of the title, the language, who selected, the description.
_WORDS = {
    ("HAS CONCEPT MOD", "CODE"),
    ("HAS OBS CONTEXT", "CODE"),
    ("HAS OBS CONTEXT", "TEXT"),
    ("HAS OBS CONTEXT", "PNAME"),
    ("HAS OBS CONTEXT", "UIDREF"),
    ("CONTAINS", "TEXT"),
}
_CHOICES = ("IMAGE", "WAVEFORM", "COMPOSITE")
_LANGUAGES = ("RFC5646", "RFC3066")
#: Most frames that are named of one instance, as text.
_MAX_FRAMES_CHARS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An instance that a note selects: all of it, or the `frames` of it (IS, parted by backslashes); as a presentation state shows it."""

    value_type: str
    instance: InstanceReference
    frames: str = ""
    presentation: InstanceReference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyImages:
    """What a key image note says. `words` are its other content items, `language` is an RFC 5646 tag or ""."""

    title: Coded
    description: str
    language: str
    words: tuple[Dataset, ...]
    choices: tuple[Choice, ...]

    def listed(self, stored: Container[str]) -> tuple[str, ...]:
        """The SOP Instance UIDs of what is selected and stored, with the presentation states."""
        return tuple(
            dict.fromkeys(
                one.sop_instance_uid
                for choice in self.choices
                for one in (choice.instance, choice.presentation)
                if one is not None and choice.instance.sop_instance_uid in stored and one.sop_instance_uid in stored
            )
        )


def read_key_images(header: Dataset) -> KeyImages | None:
    """What a Key Object Selection selects; None for a manifest, a rejection note, and what has no title or selects nothing."""
    title = concept_of(header)
    if value_of(header, "SOPClassUID") != KEY_OBJECT_SELECTION or not (title.value and title.scheme):
        return None
    if is_manifest(header) or is_rejection(header):
        return None
    items = items_of(header, "ContentSequence")
    choices = tuple(choice for item in items for choice in _choices(item))
    words = [one for one in items if (value_of(one, "RelationshipType"), value_of(one, "ValueType")) in _WORDS]
    texts = (value_of(one, "TextValue") for one in words if _name(one) == _DESCRIPTION)
    note = KeyImages(
        title=title,
        description=next(filter(None, texts), ""),
        language=next(filter(None, map(_language, words)), ""),
        words=tuple(copies(words)),
        choices=choices,
    )
    return note if choices else None


def key_images_content(note: KeyImages, stored: Container[str]) -> Content:
    """The content of a manifest of what a note selects and is stored."""

    def items(series: Series) -> Sequence[bytes]:
        choices = [one for one in note.choices if one.instance.sop_instance_uid in stored]
        return [*map(encoded_dataset, note.words), *(_encoded(one, stored) for one in choices)]

    return Content(title=note.title, items=items)


def _encoded(choice: Choice, stored: Container[str]) -> bytes:
    shown, presentation = choice.presentation, b""
    if shown is not None and shown.sop_instance_uid in stored:
        presentation = encoded_reference(shown.sop_class_uid, shown.sop_instance_uid)
    reference = encoded_reference(
        choice.instance.sop_class_uid,
        choice.instance.sop_instance_uid,
        frames=choice.frames,
        presentation=presentation,
    )
    return encoded_choice(choice.value_type, reference)


def _choices(item: Dataset) -> Iterator[Choice]:
    kind = value_of(item, "ValueType")
    if kind not in _CHOICES or value_of(item, "RelationshipType") != "CONTAINS":
        return
    for sop in items_of(item, "ReferencedSOPSequence")[:1]:
        instance = _reference(sop)
        shown = next(map(_reference, items_of(sop, "ReferencedSOPSequence")), None)
        frames = value_of(sop, "ReferencedFrameNumber")
        if instance is not None:
            yield Choice(
                value_type=kind,
                instance=instance,
                frames=frames if len(frames) <= _MAX_FRAMES_CHARS else "",
                presentation=shown,
            )


def _reference(sop: Dataset) -> InstanceReference | None:
    sop_class, instance = value_of(sop, "ReferencedSOPClassUID"), value_of(sop, "ReferencedSOPInstanceUID")
    if not (is_uid(sop_class) and is_uid(instance)):
        return None
    return InstanceReference(sop_class_uid=sop_class, sop_instance_uid=instance)


def _name(item: Dataset) -> tuple[str, str]:
    name = concept_of(item)
    return name.value, name.scheme


def _language(item: Dataset) -> str:
    if _name(item) != _LANGUAGE:
        return ""
    codes = items_of(item, "ConceptCodeSequence")
    named = [value_of(one, "CodeValue") for one in codes if value_of(one, "CodingSchemeDesignator") in _LANGUAGES]
    return next(filter(None, named), "")
