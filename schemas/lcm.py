"""lcm:SubmitObjectsRequest and lcm:RemoveObjectsRequest, to text and back (ITI TF-2 3.42.4.1.2; ITI-62 3.62.4.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

from lxml import etree

from schemas import rim
from schemas.ns import LCM, RIM
from xds.metadata import Association, DocumentEntry, Folder, ObjectRef, Submission, SubmissionSet, Unrecognized
from xds.problems import ErrorCode, fail

_OBJECT_LIST, _CLASSIFICATION = f"{{{RIM}}}RegistryObjectList", f"{{{RIM}}}Classification"


def decode_submission(element: etree._Element) -> Submission:
    """The objects of a SubmitObjectsRequest, in their order. Failure (XDSRegistryMetadataError) without a RegistryObjectList."""
    object_list = element.find(_OBJECT_LIST)
    if object_list is None:
        raise fail(ErrorCode.REGISTRY_METADATA_ERROR, "SubmitObjectsRequest: rim:RegistryObjectList is missing")
    strays = _nest_classifications(object_list)
    sets: list[SubmissionSet] = []
    entries: list[DocumentEntry] = []
    folders: list[Folder] = []
    associations: list[Association] = []
    unrecognized: list[Unrecognized] = list(strays)
    for child in object_list.iterchildren(tag=etree.Element):
        # ObjectRefs announce ids that associations refer to; they say nothing that the associations do not.
        if child.tag in (_CLASSIFICATION, f"{{{RIM}}}ObjectRef"):
            continue
        match rim.decode(child):
            case SubmissionSet() as found:
                sets.append(found)
            case DocumentEntry() as found:
                entries.append(found)
            case Folder() as found:
                folders.append(found)
            case Association() as found:
                associations.append(found)
            case Unrecognized() as found:
                unrecognized.append(found)
            case _:
                pass
    return Submission(
        submission_sets=tuple(sets),
        document_entries=tuple(entries),
        folders=tuple(folders),
        associations=tuple(associations),
        unrecognized=tuple(unrecognized),
    )


def _nest_classifications(object_list: etree._Element) -> Iterator[Unrecognized]:
    """Puts a Classification that stands beside its object into it: both are legal (ITI TF-3 4.2.1.1). Those of nothing are given back."""
    owners = {one.get("id", ""): one for one in object_list.iterchildren(tag=etree.Element)}
    strays = []
    for one in object_list.findall(_CLASSIFICATION):
        classified = one.get("classifiedObject", "")
        owner = owners.get(classified)
        if owner is not None and owner.tag != _CLASSIFICATION:
            owner.append(deepcopy(one))
            continue
        reason = f"Classification {one.get('id', 'without id')} classifies {classified!r}, which is not in the message"
        strays.append(
            Unrecognized(entry_uuid=one.get("id", ""), reason=reason, xml=etree.tostring(one, with_tail=False))
        )
    return iter(strays)


def submission_text(submission: Submission) -> str:
    """The `lcm:SubmitObjectsRequest` element, with the prefixes `lcm:` and `rim:` undeclared."""
    objects = "".join([rim.to_text(obj) for obj in submission.objects])
    objects += "".join([one.xml.decode() for one in submission.unrecognized])
    return f"<lcm:SubmitObjectsRequest><rim:RegistryObjectList>{objects}</rim:RegistryObjectList></lcm:SubmitObjectsRequest>"


def encode_submission(submission: Submission) -> bytes:
    """The element as a document of its own."""
    text = submission_text(submission)
    return text.replace(">", f' xmlns:lcm="{LCM}" xmlns:rim="{RIM}">', 1).encode()


def decode_remove(element: etree._Element) -> tuple[ObjectRef, ...]:
    """The references of a RemoveObjectsRequest. Failure (XDSRegistryMetadataError) for a query, and where there are none."""
    if element.find(f"{{{RIM}}}AdhocQuery") is not None:
        raise fail(
            ErrorCode.REGISTRY_METADATA_ERROR,
            "RemoveObjectsRequest: rim:AdhocQuery is given; ITI-62 takes ObjectRefs only",
        )
    refs = tuple(
        ObjectRef(entry_uuid=ref.get("id", "").strip().lower())
        for ref in element.iterfind(f"{{{RIM}}}ObjectRefList/{{{RIM}}}ObjectRef")
    )
    if not refs:
        raise fail(
            ErrorCode.REGISTRY_METADATA_ERROR,
            "RemoveObjectsRequest: rim:ObjectRefList is missing or holds no rim:ObjectRef",
        )
    return refs


def encode_remove(refs: Iterable[ObjectRef]) -> bytes:
    """The RemoveObjectsRequest as a document of its own."""
    listed = "".join([rim.object_ref(ref.entry_uuid) for ref in refs])
    return (
        f'<lcm:RemoveObjectsRequest xmlns:lcm="{LCM}" xmlns:rim="{RIM}"><rim:ObjectRefList>{listed}</rim:ObjectRefList>'
        "</lcm:RemoveObjectsRequest>"
    ).encode()
