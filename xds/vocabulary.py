"""The fixed URNs and UUIDs of ITI TF-3 4.2: statuses, object types, association types, schemes."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """availabilityStatus of a registry object."""

    APPROVED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"
    DEPRECATED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Deprecated"


class ResponseStatus(StrEnum):
    """RegistryResponse/@status. PartialSuccess is IHE's own URN (ITI TF-3 4.2.4.2)."""

    SUCCESS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"
    PARTIAL_SUCCESS = "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess"
    FAILURE = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Failure"


class AssociationType(StrEnum):
    """ITI TF-3 4.2.2; the 2010 ones are of the Metadata Update supplement."""

    HAS_MEMBER = "urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"
    RPLC = "urn:ihe:iti:2007:AssociationType:RPLC"
    XFRM = "urn:ihe:iti:2007:AssociationType:XFRM"
    APND = "urn:ihe:iti:2007:AssociationType:APND"
    XFRM_RPLC = "urn:ihe:iti:2007:AssociationType:XFRM_RPLC"
    SIGNS = "urn:ihe:iti:2007:AssociationType:signs"
    IS_SNAPSHOT_OF = "urn:ihe:iti:2010:AssociationType:IsSnapshotOf"
    UPDATE_AVAILABILITY_STATUS = "urn:ihe:iti:2010:AssociationType:UpdateAvailabilityStatus"
    SUBMIT_ASSOCIATION = "urn:ihe:iti:2010:AssociationType:SubmitAssociation"


#: From one DocumentEntry to another (ITI TF-3 4.2.2.2).
RELATIONSHIPS = frozenset(
    {
        AssociationType.RPLC,
        AssociationType.XFRM,
        AssociationType.APND,
        AssociationType.XFRM_RPLC,
        AssociationType.SIGNS,
        AssociationType.IS_SNAPSHOT_OF,
    }
)
#: Those that deprecate their target.
REPLACEMENTS = frozenset({AssociationType.RPLC, AssociationType.XFRM_RPLC})

STABLE = "urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1"
ON_DEMAND = "urn:uuid:34268e47-fdf5-41a6-ba33-82133c465248"

SUBMISSION_SET_NODE = "urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"
FOLDER_NODE = "urn:uuid:d9d542f3-6cc4-48b6-8870-ea235fbc94c2"
#: classificationNode of the limitedMetadata marker, by class.
LIMITED_METADATA_NODES = {
    "DocumentEntry": "urn:uuid:ab9b591b-83ab-4d03-8f5d-f93b1fb92e85",
    "SubmissionSet": "urn:uuid:5003a9db-8d8d-49e6-bf0c-990e34ac7707",
    "Folder": "urn:uuid:2c144a76-29a9-4b7c-af54-b25409fe7d03",
}
ASSOCIATION_DOCUMENTATION = "urn:uuid:abd807a3-4432-4053-87b4-fd82c643d1f3"

OBJECT_TYPE_CLASSIFICATION = "urn:oasis:names:tc:ebxml-regrep:ObjectType:RegistryObject:Classification"
OBJECT_TYPE_EXTERNAL_IDENTIFIER = "urn:oasis:names:tc:ebxml-regrep:ObjectType:RegistryObject:ExternalIdentifier"
OBJECT_TYPE_REGISTRY_PACKAGE = "urn:oasis:names:tc:ebxml-regrep:ObjectType:RegistryObject:RegistryPackage"
OBJECT_TYPE_ASSOCIATION = "urn:oasis:names:tc:ebxml-regrep:ObjectType:RegistryObject:Association"

#: CXi type codes of referenceIdList (ITI TF-3 Table 4.2.3.2-1).
REFERENCE_ACCESSION = "urn:ihe:iti:xds:2013:accession"
REFERENCE_STUDY_INSTANCE_UID = "urn:ihe:iti:xds:2016:studyInstanceUID"
REFERENCE_ORDER = "urn:ihe:iti:xds:2013:order"
REFERENCE_UNIQUE_ID = "urn:ihe:iti:xds:2013:uniqueId"

#: SHA-1 of no bytes at all: a "delayed assembly" entry carries it with size 0.
EMPTY_SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
