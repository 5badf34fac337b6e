"""Our schemas and the published ones give the same verdict on every document IHE gives a meaning to.

The published schemas (OASIS ebXML RegRep 3.0; IHE XDS.b, XDS-I.b) are not part of this project. They are looked for in the
directory named by XDSI_REFERENCE_SCHEMAS, else in `../shared/reference-schemas` beside the project.
"""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import etree

from schemas import catalog
from schemas.ns import LCM, NSMAP, QUERY, RIM, RS, XDSB, XDSI, clark

Change = Callable[[etree._Element], None]

OFFICIAL_FILES = {
    "rim": "rim.xsd",
    "rs": "rs.xsd",
    "lcm": "lcm.xsd",
    "query": "query.xsd",
    "xdsb": "XDS.b_DocumentRepository.xsd",
    "xdsi": "XDSI.b_ImagingDocumentSource.xsd",
    "rmd": "rmd.xsd",
}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def official() -> dict[str, etree.XMLSchema]:
    directory = Path(os.environ.get("XDSI_REFERENCE_SCHEMAS") or ROOT.parent / "shared" / "reference-schemas")
    if missing := [file for file in OFFICIAL_FILES.values() if not (directory / file).is_file()]:
        reason = f"the published schemas are not here: {', '.join(missing)} (set XDSI_REFERENCE_SCHEMAS)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return {name: etree.XMLSchema(etree.parse(str(directory / file))) for name, file in OFFICIAL_FILES.items()}


# --- Documents that are right -------------------------------------------------------------------------------------

_SLOT = '<rim:Slot name="creationTime"><rim:ValueList><rim:Value>20240101</rim:Value></rim:ValueList></rim:Slot>'
_NAME = '<rim:Name><rim:LocalizedString xml:lang="en-US" charset="UTF-8" value="Report"/></rim:Name>'
_CODE = (
    '<rim:Classification id="c1" classificationScheme="urn:uuid:41a5887f-8865-4c09-adf7-e362475b143a" classifiedObject="d1"'
    ' nodeRepresentation="34133-9"><rim:Slot name="codingScheme"><rim:ValueList><rim:Value>2.16.840.1.113883.6.1</rim:Value>'
    f"</rim:ValueList></rim:Slot>{_NAME}</rim:Classification>"
)
_AUTHOR = (
    '<rim:Classification id="c2" classificationScheme="urn:uuid:93606bcf-9494-43ec-9b4e-a7748d1a838d" classifiedObject="d1"'
    ' nodeRepresentation=""><rim:Slot name="authorPerson"><rim:ValueList><rim:Value>^Doe^Jo</rim:Value><rim:Value>^Roe^Al'
    "</rim:Value></rim:ValueList></rim:Slot></rim:Classification>"
)
_ID = (
    '<rim:ExternalIdentifier id="e1" registryObject="d1" value="1.2.3.4"'
    ' identificationScheme="urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab">'
    '<rim:Name><rim:LocalizedString value="XDSDocumentEntry.uniqueId"/></rim:Name></rim:ExternalIdentifier>'
)
_ENTRY = (
    '<rim:ExtrinsicObject id="d1" mimeType="text/plain" isOpaque="0" lid="d1" home="urn:oid:1.2.3"'
    ' status="urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"'
    f' objectType="urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1">{_SLOT}{_NAME}<rim:Description/>'
    f'<rim:VersionInfo versionName="1" comment="first"/>{_CODE}{_AUTHOR}{_ID}'
    '<rim:ContentVersionInfo versionName="1"/></rim:ExtrinsicObject>'
)
_SET = (
    f'<rim:RegistryPackage id="s1">{_SLOT}{_NAME}<rim:Description><rim:LocalizedString value=""/></rim:Description>'
    '<rim:Classification id="c3" classifiedObject="s1"'
    ' classificationNode="urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"/></rim:RegistryPackage>'
)
_MEMBER = (
    '<rim:Association id="a1" associationType="urn:oasis:names:tc:ebxml-regrep:AssociationType:HasMember"'
    ' sourceObject="s1" targetObject="d1"><rim:Slot name="SubmissionSetStatus"><rim:ValueList>'
    "<rim:Value>Original</rim:Value></rim:ValueList></rim:Slot></rim:Association>"
)
_LABEL = (
    '<rim:Classification id="c4" classifiedObject="f1"'
    ' classificationNode="urn:uuid:d9d542f3-6cc4-48b6-8870-ea235fbc94c2"/>'
)
_REFS = '<rim:ObjectRef id="urn:uuid:1" home="urn:oid:1.2"/><rim:ObjectRef id="urn:uuid:2" createReplica="true"/>'
_SUBMIT = (
    '<lcm:SubmitObjectsRequest id="r1" comment="from a source"><rs:RequestSlotList>'
    f"{_SLOT}</rs:RequestSlotList><rim:RegistryObjectList>{_SET}{_ENTRY}{_MEMBER}"
    f'<rim:RegistryPackage id="f1"/>{_LABEL}</rim:RegistryObjectList></lcm:SubmitObjectsRequest>'
)
_ERRORS = (
    '<rs:RegistryErrorList highestSeverity="urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error">'
    '<rs:RegistryError errorCode="XDSRegistryError" codeContext="why" location="d1"'
    ' severity="urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error"/>'
    '<rs:RegistryError errorCode="XDSRegistryError" codeContext="">text</rs:RegistryError></rs:RegistryErrorList>'
)
_ADHOC_QUERY = (
    '<rim:AdhocQuery id="urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d" home="urn:oid:1.2"><rim:Slot'
    " name=\"$XDSDocumentEntryStatus\"><rim:ValueList><rim:Value>('a')</rim:Value></rim:ValueList></rim:Slot></rim:AdhocQuery>"
)
_REQUEST = (
    "<xds:DocumentRequest><xds:HomeCommunityId>urn:oid:1.2</xds:HomeCommunityId><xds:RepositoryUniqueId>1.2.3"
    "</xds:RepositoryUniqueId><xds:DocumentUniqueId>1.2.3.4</xds:DocumentUniqueId></xds:DocumentRequest>"
)
_REQUEST_WITHOUT_HOME = _REQUEST.replace("<xds:HomeCommunityId>urn:oid:1.2</xds:HomeCommunityId>", "")
_OK = '<rs:RegistryResponse status="urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"'


def _retrieved(new_ids: str = "") -> str:
    return (
        "<xds:DocumentResponse><xds:HomeCommunityId>urn:oid:1.2</xds:HomeCommunityId><xds:RepositoryUniqueId>1.2.3"
        f"</xds:RepositoryUniqueId><xds:DocumentUniqueId>1.2.3.4</xds:DocumentUniqueId>{new_ids}"
        "<xds:mimeType>text/plain</xds:mimeType><xds:Document>SGVs\n bG8=</xds:Document></xds:DocumentResponse>"
    )


def _imaging(series: str) -> str:
    return (
        f'<iherad:RetrieveImagingDocumentSetRequest><iherad:StudyRequest studyInstanceUID="1.2">{series}'
        "</iherad:StudyRequest><iherad:TransferSyntaxUIDList><iherad:TransferSyntaxUID>1.2.840.10008.1.2.1"
        "</iherad:TransferSyntaxUID><iherad:TransferSyntaxUID>1.2.840.10008.1.2</iherad:TransferSyntaxUID>"
        "</iherad:TransferSyntaxUIDList></iherad:RetrieveImagingDocumentSetRequest>"
    )


def _series(requests: str) -> str:
    return f'<iherad:SeriesRequest seriesInstanceUID="1.2.1">{requests}</iherad:SeriesRequest>'


VALID = {
    "slot": ("rim", _SLOT),
    "slot without values": ("rim", '<rim:Slot name="x" slotType="urn:x"><rim:ValueList/></rim:Slot>'),
    "longest slot value": (
        "rim",
        f'<rim:Slot name="{"n" * 256}"><rim:ValueList><rim:Value>{"é" * 256}</rim:Value></rim:ValueList></rim:Slot>',
    ),
    "empty name": ("rim", "<rim:Name/>"),
    "name without a language": ("rim", '<rim:Name><rim:LocalizedString xml:lang="" value=""/></rim:Name>'),
    "name in two languages": (
        "rim",
        f'<rim:Name><rim:LocalizedString xml:lang="de-CH" value="{"x" * 1024}"/><rim:LocalizedString value="b"/></rim:Name>',
    ),
    "coded attribute": ("rim", _CODE),
    "author": ("rim", _AUTHOR),
    "external identifier": ("rim", _ID),
    "document entry": ("rim", _ENTRY),
    "smallest document entry": ("rim", '<rim:ExtrinsicObject id=""/>'),
    "submission set": ("rim", _SET),
    "package that holds its members": (
        "rim",
        f'<rim:RegistryPackage id="p">{_NAME}<rim:RegistryObjectList>{_ENTRY}</rim:RegistryObjectList></rim:RegistryPackage>',
    ),
    "association": ("rim", _MEMBER),
    "object references": ("rim", f"<rim:ObjectRefList>{_REFS}</rim:ObjectRefList>"),
    "list in any order": ("rim", f"<rim:RegistryObjectList>{_MEMBER}{_REFS}{_ENTRY}{_LABEL}</rim:RegistryObjectList>"),
    "object named by its type": (
        "rim",
        '<rim:RegistryObjectList><rim:Identifiable xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:type="rim:ObjectRefType" id="x"/><rim:RegistryObject id="y"/></rim:RegistryObjectList>',
    ),
    "query with an expression": (
        "rim",
        '<rim:AdhocQuery id="q"><rim:QueryExpression queryLanguage="urn:sql">SELECT<x xmlns="urn:x"/></rim:QueryExpression>'
        "</rim:AdhocQuery>",
    ),
    "submission": ("lcm", _SUBMIT),
    "submission of nothing": ("lcm", "<lcm:SubmitObjectsRequest><rim:RegistryObjectList/></lcm:SubmitObjectsRequest>"),
    "removal": (
        "lcm",
        f"<lcm:RemoveObjectsRequest><rim:ObjectRefList>{_REFS}</rim:ObjectRefList></lcm:RemoveObjectsRequest>",
    ),
    "removal by query": (
        "lcm",
        f'<lcm:RemoveObjectsRequest deletionScope="urn:x">{_ADHOC_QUERY}<rim:ObjectRefList/></lcm:RemoveObjectsRequest>',
    ),
    "success": ("rs", f"{_OK}/>"),
    "failure": ("rs", f'<rs:RegistryResponse status="urn:f" requestId="r1">{_ERRORS}</rs:RegistryResponse>'),
    "response with slots": (
        "rs",
        f"{_OK}><rs:ResponseSlotList>{_SLOT}{_SLOT}</rs:ResponseSlotList>{_ERRORS}</rs:RegistryResponse>",
    ),
    "stored query": (
        "query",
        '<query:AdhocQueryRequest federated="false" federation="urn:f" startIndex="0" maxResults="-1"><query:ResponseOption'
        f' returnType="LeafClass" returnComposedObjects="true"/>{_ADHOC_QUERY}</query:AdhocQueryRequest>',
    ),
    "stored query with defaults": (
        "query",
        '<query:AdhocQueryRequest><query:ResponseOption/><rim:AdhocQuery id="q"/></query:AdhocQueryRequest>',
    ),
    "query response": (
        "query",
        '<query:AdhocQueryResponse status="urn:s" startIndex="0" totalResultCount="3"><rim:RegistryObjectList>'
        f"{_ENTRY}{_SET}{_REFS}</rim:RegistryObjectList></query:AdhocQueryResponse>",
    ),
    "failed query": (
        "query",
        f'<query:AdhocQueryResponse status="urn:f">{_ERRORS}<rim:RegistryObjectList/></query:AdhocQueryResponse>',
    ),
    "provide and register": (
        "xdsb",
        f'<xds:ProvideAndRegisterDocumentSetRequest>{_SUBMIT}<xds:Document id="d1">SGVsbG8=</xds:Document>'
        '<xds:Document id="d2"/></xds:ProvideAndRegisterDocumentSetRequest>',
    ),
    "provide and register without documents": (
        "xdsb",
        f"<xds:ProvideAndRegisterDocumentSetRequest>{_SUBMIT}</xds:ProvideAndRegisterDocumentSetRequest>",
    ),
    "retrieve": (
        "xdsb",
        f"<xds:RetrieveDocumentSetRequest>{_REQUEST}{_REQUEST_WITHOUT_HOME}</xds:RetrieveDocumentSetRequest>",
    ),
    "one document request": ("xdsb", _REQUEST),
    "retrieved": (
        "xdsb",
        f"<xds:RetrieveDocumentSetResponse>{_OK}/>{_retrieved()}{_retrieved()}</xds:RetrieveDocumentSetResponse>",
    ),
    "retrieved on demand": (
        "xdsb",
        f"<xds:RetrieveDocumentSetResponse>{_OK}/>"
        + _retrieved("<xds:NewRepositoryUniqueId>1</xds:NewRepositoryUniqueId><xds:NewDocumentUniqueId>2</xds:NewDocumentUniqueId>")
        + "</xds:RetrieveDocumentSetResponse>",
    ),
    "nothing retrieved": (
        "xdsb",
        f"<xds:RetrieveDocumentSetResponse>{_OK}>{_ERRORS}</rs:RegistryResponse></xds:RetrieveDocumentSetResponse>",
    ),
    "retrieve imaging": ("xdsi", _imaging(_series(_REQUEST_WITHOUT_HOME))),
    "remove a document": ("rmd", f"<rmd:RemoveDocumentsRequest>{_REQUEST}</rmd:RemoveDocumentsRequest>"),
    "retrieve two series": ("xdsi", _imaging(_series(_REQUEST * 2) + _series(_REQUEST))),
}  # fmt: skip


# --- Changes, each of which makes one of them wrong ---------------------------------------------------------------


def _find(root: etree._Element, path: str) -> etree._Element:
    found = root if path == "." else root.find(f".//{path}", NSMAP)
    assert found is not None, path
    return found


def drop(path: str) -> Change:
    def change(root: etree._Element) -> None:
        element = _find(root, path)
        parent = element.getparent()
        assert parent is not None
        parent.remove(element)

    return change


def twice(path: str) -> Change:
    return lambda root: _find(root, path).addnext(copy.deepcopy(_find(root, path)))


def without(path: str, attribute: str) -> Change:
    return lambda root: _find(root, path).attrib.__delitem__(attribute)


def put(path: str, attribute: str, value: str) -> Change:
    return lambda root: _find(root, path).set(attribute, value)


def text(path: str, value: str) -> Change:
    return lambda root: setattr(_find(root, path), "text", value)


def add(path: str, namespace: str, local: str, **attributes: str) -> Change:
    def change(root: etree._Element) -> None:
        etree.SubElement(_find(root, path), clark(namespace, local), attributes)

    return change


def before(path: str, later: str) -> Change:
    """Moves the first `later` in front of the first `path`."""
    return lambda root: _find(root, path).addprevious(_find(root, later))


def empty(path: str) -> Change:
    return lambda root: _find(root, path).__delitem__(slice(None))


def after_the_next(element: etree._Element) -> None:
    following = element.getnext()
    assert following is not None
    following.addnext(element)


def rename(path: str, namespace: str, local: str) -> Change:
    return lambda root: setattr(_find(root, path), "tag", clark(namespace, local))


DEFECTS: list[tuple[str, str, Change]] = [
    ("remove a document", "no DocumentRequest", drop("xds:DocumentRequest")),
    ("remove a document", "two DocumentRequests", twice("xds:DocumentRequest")),
    ("remove a document", "no DocumentUniqueId", drop("xds:DocumentUniqueId")),
    ("remove a document", "an unknown attribute", put(".", "id", "x")),
    ("slot", "no name", without(".", "name")),
    ("slot", "no ValueList", drop("rim:ValueList")),
    ("slot", "two ValueLists", twice("rim:ValueList")),
    ("slot", "a name of 257 characters", put(".", "name", "x" * 257)),
    ("slot", "a value of 257 characters", text("rim:Value", "é" * 257)),
    ("slot", "a value with an element in it", add("rim:Value", RIM, "Value")),
    ("slot", "text beside the ValueList", text(".", "20240101")),
    ("slot", "an unknown attribute", put(".", "nmae", "x")),
    ("slot", "an unknown element", add("rim:ValueList", RIM, "Values")),
    ("name in two languages", "no value", without("rim:LocalizedString", "value")),
    ("name in two languages", "a value of 1025 characters", put("rim:LocalizedString", "value", "x" * 1025)),
    ("name in two languages", "a bad language", put("rim:LocalizedString", "{http://www.w3.org/XML/1998/namespace}lang", "_")),
    ("name in two languages", "content in LocalizedString", text("rim:LocalizedString", "Report")),
    ("coded attribute", "no classifiedObject", without(".", "classifiedObject")),
    ("coded attribute", "no id", without(".", "id")),
    ("coded attribute", "a code of 257 characters", put(".", "nodeRepresentation", "x" * 257)),
    ("coded attribute", "Name before Slot", before("rim:Slot", "rim:Name")),
    ("external identifier", "no value", without(".", "value")),
    ("external identifier", "no registryObject", without(".", "registryObject")),
    ("external identifier", "no identificationScheme", without(".", "identificationScheme")),
    ("external identifier", "a value of 257 characters", put(".", "value", "x" * 257)),
    ("document entry", "no id", without(".", "id")),
    ("document entry", "a bad boolean", put(".", "isOpaque", "no")),
    ("document entry", "a boolean in capitals", put(".", "isOpaque", "TRUE")),
    ("document entry", "a mimeType of 257 characters", put(".", "mimeType", "x" * 257)),
    ("document entry", "a version name of 17 characters", put("rim:VersionInfo", "versionName", "1" * 17)),
    ("document entry", "two Names", twice("rim:Name")),
    ("document entry", "Description before Name", before("rim:Name", "rim:Description")),
    ("document entry", "Slot after Classification", before("rim:Slot", "rim:Classification")),
    ("document entry", "ExternalIdentifier before Classification", before("rim:Classification", "rim:ExternalIdentifier")),
    ("document entry", "ContentVersionInfo first", before("rim:Slot", "rim:ContentVersionInfo")),
    ("document entry", "an attribute of Association", put(".", "sourceObject", "x")),
    ("document entry", "a list of members", add(".", RIM, "RegistryObjectList")),
    ("submission set", "a mimeType", put(".", "mimeType", "text/plain")),
    ("package that holds its members", "two lists", twice("rim:RegistryObjectList")),
    ("package that holds its members", "Name after the list", before("rim:Name", "rim:RegistryObjectList")),
    ("association", "no associationType", without(".", "associationType")),
    ("association", "no sourceObject", without(".", "sourceObject")),
    ("association", "no targetObject", without(".", "targetObject")),
    ("object references", "no id", without("rim:ObjectRef", "id")),
    ("object references", "an object among them", add(".", RIM, "ExtrinsicObject", id="x")),
    ("object references", "a Name", add("rim:ObjectRef", RIM, "Name")),
    ("list in any order", "a Slot in the list", add(".", RIM, "Slot", name="x")),
    ("list in any order", "an object of another namespace", add(".", LCM, "ExtrinsicObject", id="x")),
    ("query with an expression", "no queryLanguage", without("rim:QueryExpression", "queryLanguage")),
    ("submission", "no RegistryObjectList", drop("rim:RegistryObjectList")),
    ("submission", "two RegistryObjectLists", twice("rim:RegistryObjectList")),
    ("submission", "slots after the objects", before("rs:RequestSlotList", "rim:RegistryObjectList")),
    ("submission", "an element of lcm in the list", add("rim:RegistryObjectList", LCM, "SubmitObjectsRequest")),
    ("submission", "an unknown request", rename(".", LCM, "SubmitObjectRequest")),
    ("removal", "the objects themselves", rename("rim:ObjectRefList", RIM, "RegistryObjectList")),
    ("removal by query", "the list before the query", before("rim:AdhocQuery", "rim:ObjectRefList")),
    ("success", "no status", without(".", "status")),
    ("success", "text", text(".", "OK")),
    ("failure", "no errorCode", without("rs:RegistryError", "errorCode")),
    ("failure", "no codeContext", without("rs:RegistryError", "codeContext")),
    ("failure", "an element in an error", add("rs:RegistryError", RS, "RegistryError")),
    ("failure", "an empty error list", empty("rs:RegistryErrorList")),
    ("response with slots", "slots after the errors", before("rs:ResponseSlotList", "rs:RegistryErrorList")),
    ("stored query", "no ResponseOption", drop("query:ResponseOption")),
    ("stored query", "no AdhocQuery", drop("rim:AdhocQuery")),
    ("stored query", "the query before the option", before("query:ResponseOption", "rim:AdhocQuery")),
    ("stored query", "an unknown returnType", put("query:ResponseOption", "returnType", "LeafObject")),
    ("stored query", "a bad boolean", put("query:ResponseOption", "returnComposedObjects", "yes")),
    ("stored query", "a bad number", put(".", "maxResults", "1.5")),
    ("stored query", "no query id", without("rim:AdhocQuery", "id")),
    ("query response", "no RegistryObjectList", drop("rim:RegistryObjectList")),
    ("query response", "no status", without(".", "status")),
    ("query response", "a bad number", put(".", "totalResultCount", "three")),
    ("failed query", "errors after the objects", before("rs:RegistryErrorList", "rim:RegistryObjectList")),
    ("provide and register", "no SubmitObjectsRequest", drop("lcm:SubmitObjectsRequest")),
    ("provide and register", "a Document without id", without("xds:Document", "id")),
    ("provide and register", "a Document that is not base64", text("xds:Document", "Hello!")),
    ("provide and register", "base64 cut short", text("xds:Document", "SGVsbG8")),
    ("provide and register", "documents first", before("lcm:SubmitObjectsRequest", "xds:Document")),
    ("provide and register", "an unknown attribute", put("xds:Document", "contentType", "text/plain")),
    ("retrieve", "no request in it", empty(".")),
    ("retrieve", "no RepositoryUniqueId", drop("xds:RepositoryUniqueId")),
    ("retrieve", "no DocumentUniqueId", drop("xds:DocumentUniqueId")),
    ("retrieve", "ids in the wrong order", before("xds:RepositoryUniqueId", "xds:DocumentUniqueId")),
    ("retrieve", "home at the end", before("xds:HomeCommunityId", "xds:DocumentUniqueId")),
    ("retrieve", "an id of 257 characters", text("xds:DocumentUniqueId", "1" * 257)),
    ("retrieved", "no RegistryResponse", drop("rs:RegistryResponse")),
    ("retrieved", "no mimeType", drop("xds:mimeType")),
    ("retrieved", "no Document", drop("xds:Document")),
    ("retrieved", "documents before the response", before("rs:RegistryResponse", "xds:DocumentResponse")),
    ("retrieved", "the status in the wrong place", put(".", "status", "urn:s")),
    ("retrieved on demand", "new ids swapped", before("xds:NewRepositoryUniqueId", "xds:NewDocumentUniqueId")),
    ("retrieve imaging", "no studyInstanceUID", without("iherad:StudyRequest", "studyInstanceUID")),
    ("retrieve imaging", "no seriesInstanceUID", without("iherad:SeriesRequest", "seriesInstanceUID")),
    ("retrieve imaging", "no series", drop("iherad:SeriesRequest")),
    ("retrieve imaging", "no instance", drop("xds:DocumentRequest")),
    ("retrieve imaging", "no TransferSyntaxUIDList", drop("iherad:TransferSyntaxUIDList")),
    ("retrieve imaging", "two TransferSyntaxUIDLists", twice("iherad:TransferSyntaxUIDList")),
    ("retrieve imaging", "transfer syntaxes first", before("iherad:StudyRequest", "iherad:TransferSyntaxUIDList")),
    ("retrieve imaging", "DocumentRequest of XDS-I.b", rename("xds:DocumentRequest", XDSI, "DocumentRequest")),
    ("retrieve imaging", "RepositoryUniqueId of XDS-I.b", rename("xds:RepositoryUniqueId", XDSI, "RepositoryUniqueId")),
    ("retrieve imaging", "a UID of 257 characters", put("iherad:StudyRequest", "studyInstanceUID", "1" * 257)),
]  # fmt: skip


def parsed(xml: str) -> etree._Element:
    declarations = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NSMAP.items())
    end = min(index for index in (xml.find(" "), xml.find(">"), xml.find("/>")) if index > 0)
    return etree.fromstring(f"{xml[:end]} {declarations}{xml[end:]}")


@pytest.mark.parametrize("title", VALID)
def test_a_right_document_is_accepted_by_both(title: str, official: dict[str, etree.XMLSchema]) -> None:
    name, xml = VALID[title]
    document = parsed(xml)
    official[name].assertValid(document)
    assert catalog.validate(document, name) == []


@pytest.mark.parametrize(
    ("title", "defect", "change"), DEFECTS, ids=[f"{title}: {defect}" for title, defect, _ in DEFECTS]
)
def test_one_defect_is_refused_by_both(
    title: str, defect: str, change: Change, official: dict[str, etree.XMLSchema]
) -> None:
    name, xml = VALID[title]
    document = parsed(xml)
    change(document)
    assert not official[name].validate(document)
    assert catalog.validate(document, name) != []


def _neighbours(document: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    """The document with one small change, for each place and each kind of change; some are still valid."""
    for index, original in enumerate(document.iter(tag=etree.Element)):
        for kind, change in _changes(original):
            neighbour = copy.deepcopy(document)
            change(list(neighbour.iter(tag=etree.Element))[index])
            yield f"{kind} at {original.tag} ({index})", neighbour


def _changes(original: etree._Element) -> Iterator[tuple[str, Change]]:
    for namespace in (RIM, RS, QUERY, XDSB):
        yield f"renamed into {namespace}", rename(".", namespace, etree.QName(original).localname)
    for local in ("Slot", "Name", "Description", "Classification", "ExternalIdentifier", "ObjectRef", "RegistryObject"):
        yield f"one {local} more", add(".", RIM, local, id="x", classifiedObject="x")
        yield f"called {local}", rename(".", RIM, local)
    yield "text", text(".", "text")
    yield "no content", empty(".")
    yield "an unknown attribute", put(".", "unknown", "x")
    for attribute in ("id", "home", "lid", "status", "name", "value", "mimeType", "isOpaque", "comment", "startIndex"):
        yield f"an attribute {attribute}", put(".", attribute, "x")
    for attribute in map(str, original.attrib):
        yield f"no {attribute}", without(".", attribute)
        for value in ("", " 1 ", "true", "LeafClass", "x" * 256, "x" * 257, "x" * 1025, "a b", "%zz"):
            yield f"{attribute} of {len(value)} characters", put(".", attribute, value)
    if original.getparent() is not None:
        yield "twice", twice(".")
        yield "gone", drop(".")
        if original.getnext() is not None:
            yield "after the next", after_the_next


@pytest.mark.parametrize("title", VALID)
def test_all_neighbours_of_a_right_document_get_the_same_verdict(
    title: str, official: dict[str, etree.XMLSchema]
) -> None:
    name, xml = VALID[title]
    ours = catalog.schema(name)
    verdicts = [
        (what, ours.validate(neighbour), official[name].validate(neighbour))
        for what, neighbour in _neighbours(parsed(xml))
    ]
    assert [(what, mine, theirs) for what, mine, theirs in verdicts if mine != theirs] == []
    assert {theirs for _, _, theirs in verdicts} == {True, False}


def test_an_include_is_refused_by_both_until_it_is_taken_out(official: dict[str, etree.XMLSchema]) -> None:
    """XOP 1.0 3.1: the schema describes the message before optimisation."""
    include = '<xop:Include href="cid:d1@example"/>'
    document = parsed(VALID["retrieved"][1].replace("SGVs\n bG8=", include))
    assert not official["xdsb"].validate(document)
    assert not catalog.schema("xdsb").validate(document)
    assert catalog.validate(document, "xdsb") == []


@pytest.mark.parametrize(
    "xml", ['<rim:ExternalLink id="x" externalURI="urn:x"/>', '<rim:Service id="x"/>', '<rim:Person id="x"/>']
)
def test_classes_of_ebrim_that_ihe_does_not_use_are_refused_by_ours_alone(
    xml: str, official: dict[str, etree.XMLSchema]
) -> None:
    """The one intended difference: ITI TF-3 4.2 maps nothing to these classes."""
    document = parsed(f"<rim:RegistryObjectList>{xml}</rim:RegistryObjectList>")
    assert official["rim"].validate(document)
    assert catalog.validate(document, "rim") != []
