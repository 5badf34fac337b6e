"""The catalog compiles, judges and serves our schemas and service descriptions, all of it offline."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import zeep
from lxml import etree
from zeep.exceptions import XMLParseError
from zeep.transports import Transport

from schemas import catalog
from schemas.ns import LCM, NSMAP, QUERY, RIM, RS, SOAP12, XDSB, XOP, clark

ADDRESS = "https://xds.example/services/a"
SCHEMAS = ("rim", "rs", "lcm", "query", "xdsb", "xdsi")
FILES = ("xml.xsd", "rim.xsd", "rs.xsd", "lcm.xsd", "query.xsd", "xds.b.xsd", "xdsi.b.xsd", "rmd.xsd", "pixv3.xsd")
WSDL_DIRECTORY = Path(catalog.__file__).parent / "wsdl"
WSDL = {
    "w": "http://schemas.xmlsoap.org/wsdl/",
    "soap12": "http://schemas.xmlsoap.org/wsdl/soap12/",
    "wsam": "http://www.w3.org/2007/05/addressing/metadata",
    "wsaw": "http://www.w3.org/2006/05/addressing/wsdl",
}

SERVICES = {
    "DocumentRegistry": (
        "DocumentRegistry_Service",
        {
            "DocumentRegistry_RegisterDocumentSet-b": (
                "urn:ihe:iti:2007:RegisterDocumentSet-b",
                "urn:ihe:iti:2007:RegisterDocumentSet-bResponse",
            ),
            "DocumentRegistry_RegistryStoredQuery": (
                "urn:ihe:iti:2007:RegistryStoredQuery",
                "urn:ihe:iti:2007:RegistryStoredQueryResponse",
            ),
            "DocumentRegistry_MultiPatientStoredQuery": (
                "urn:ihe:iti:2009:MultiPatientStoredQuery",
                "urn:ihe:iti:2009:MultiPatientStoredQueryResponse",
            ),
            "DocumentRegistry_RegisterOnDemandDocumentEntry": (
                "urn:ihe:iti:2010:RegisterOnDemandDocumentEntry",
                "urn:ihe:iti:2010:RegisterOnDemandDocumentResponse",
            ),
            "DocumentRegistry_UpdateDocumentSet": (
                "urn:ihe:iti:2010:UpdateDocumentSet",
                "urn:ihe:iti:2010:UpdateDocumentSetResponse",
            ),
            "UpdateResponder_RestrictedUpdateDocumentSet": (
                "urn:ihe:iti:2018:RestrictedUpdateDocumentSet",
                "urn:ihe:iti:2018:RestrictedUpdateDocumentSetResponse",
            ),
            "DocumentRegistry_DeleteDocumentSet": (
                "urn:ihe:iti:2010:DeleteDocumentSet",
                "urn:ihe:iti:2010:DeleteDocumentSetResponse",
            ),
            **{
                f"DocumentRegistry_PRPA_IN{number}UV02": (
                    f"urn:hl7-org:v3:PRPA_IN{number}UV02",
                    "urn:hl7-org:v3:MCCI_IN000002UV01",
                )
                for number in (201301, 201302, 201304)
            },
        },
    ),
    "DocumentRepository": (
        "DocumentRepository_Service",
        {
            "DocumentRepository_ProvideAndRegisterDocumentSet-b": (
                "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b",
                "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-bResponse",
            ),
            "DocumentRepository_RetrieveDocumentSet": (
                "urn:ihe:iti:2007:RetrieveDocumentSet",
                "urn:ihe:iti:2007:RetrieveDocumentSetResponse",
            ),
            "DocumentRepository_RemoveDocuments": (
                "urn:ihe:iti:2017:RemoveDocuments",
                "urn:ihe:iti:2017:RemoveDocumentsResponse",
            ),
        },
    ),
    "ImagingDocumentSource": (
        "ImagingDocumentSource",
        {
            "ImagingDocumentSource_RetrieveImagingDocumentSet": (
                "urn:ihe:rad:2009:RetrieveImagingDocumentSet",
                "urn:ihe:iti:2007:RetrieveDocumentSetResponse",
            ),
        },
    ),
}


def _retrieved(document: str) -> etree._Element:
    return etree.fromstring(
        f'<xds:RetrieveDocumentSetResponse xmlns:xds="{XDSB}" xmlns:rs="{RS}" xmlns:xop="{XOP}">'
        '<rs:RegistryResponse status="urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"/>'
        "<xds:DocumentResponse><xds:RepositoryUniqueId>1.2</xds:RepositoryUniqueId>"
        "<xds:DocumentUniqueId>1.2.3</xds:DocumentUniqueId><xds:mimeType>text/plain</xds:mimeType>"
        f"<xds:Document>{document}</xds:Document></xds:DocumentResponse></xds:RetrieveDocumentSetResponse>"
    )


def _named(root: etree._Element, path: str) -> str | None:
    (element,) = root.findall(path, WSDL)
    return element.get("name")


def _slot(name: str) -> etree._Element:
    return etree.fromstring(f'<rim:Slot xmlns:rim="{RIM}" name="{name}"><rim:ValueList/></rim:Slot>')


# --- compiling ---


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_compiled_once(name: str) -> None:
    assert catalog.schema(name) is catalog.schema(name)


def test_an_unknown_schema_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"schema '\.\./rim' is unknown; the names are rim, rs"):
        catalog.schema("../rim")
    with pytest.raises(ValueError, match="schema 'soap' is unknown"):
        catalog.validate(_slot("x"), "soap")


def test_a_schema_that_includes_a_foreign_file_is_not_compiled(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.xsd"
    foreign.write_text('<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"/>')
    text = (
        f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:include schemaLocation="{foreign}"/></xs:schema>'
    )
    assert etree.XMLSchema(etree.fromstring(text))

    parser = catalog._parser()
    parser.resolvers.add(catalog._OurFilesOnly())
    with pytest.raises(etree.XMLSchemaParseError, match=r"Failed to parse the XML resource '.*foreign\.xsd'"):
        etree.XMLSchema(etree.fromstring(text, parser))


# --- judging ---


def test_a_finding_is_a_sentence_with_line_element_attribute_and_rule() -> None:
    entry = etree.fromstring(
        f'<rim:ExtrinsicObject xmlns:rim="{RIM}"\n id="a"\n isOpaque="maybe">\n<rim:Slot/>\n</rim:ExtrinsicObject>'
    )
    assert catalog.validate(entry, "rim") == [
        "Line 3, element rim:ExtrinsicObject, attribute isOpaque: 'maybe' is not a valid value of the atomic type"
        " 'xs:boolean'.",
        "Line 4, element rim:Slot: The attribute 'name' is required but missing.",
        "Line 4, element rim:Slot: Missing child element(s). Expected is ( rim:ValueList ).",
    ]  # fmt: skip


def test_an_element_inside_an_envelope_is_judged_alone() -> None:
    envelope = etree.fromstring(
        f'<soap:Envelope xmlns:soap="{SOAP12}" xmlns:rim="{RIM}"><rim:Slot name="x"><rim:ValueList/></rim:Slot></soap:Envelope>'
    )
    assert catalog.validate(envelope[0], "rim") == []
    assert catalog.validate(envelope, "rim") == [
        "Line 1, element soap:Envelope: No matching global declaration available for the validation root."
    ]


def test_findings_of_an_earlier_document_are_not_told_again() -> None:
    assert catalog.validate(_slot("x" * 257), "rim")
    assert catalog.validate(_slot("x" * 256), "rim") == []


def test_a_long_value_is_cut_and_its_rule_kept() -> None:
    (finding,) = catalog.validate(_slot("x" * 10_000), "rim")
    assert len(finding) < 500
    assert finding.endswith("has a length of '10000'; this exceeds the allowed maximum length of '256'.")


def test_many_findings_are_counted_and_the_first_are_shown() -> None:
    values = etree.fromstring(f'<rim:ValueList xmlns:rim="{RIM}"/>')
    for _ in range(1_000):
        etree.SubElement(values, clark(RIM, "Value")).set("unknown", "x")
    findings = catalog.validate(values, "rim", max_messages=3)
    assert len(findings) == 4
    assert findings[-1] == "There are 1000 such findings; the first 3 are shown."


def test_a_well_placed_include_counts_as_the_bytes_it_stands_for() -> None:
    """XOP 1.0 3.1: xop:Include replaces the characters of a base64Binary element."""
    response = _retrieved('\n <xop:Include href="cid:d1@example"/>\n')
    before = etree.tostring(response)
    assert catalog.validate(response, "xdsb") == []
    assert etree.tostring(response) == before


def test_an_included_document_keeps_its_line_in_other_findings() -> None:
    response = _retrieved('<xop:Include href="cid:d1@example"/></xds:Document>\n<xds:Document>')
    assert catalog.validate(response, "xdsb") == ["Line 2, element xds:Document: This element is not expected."]


@pytest.mark.parametrize(
    "document",
    [
        'SGVs<xop:Include href="cid:a"/>',
        '<xop:Include href="cid:a"/>SGVs',
        '<xop:Include href="cid:a"/><xop:Include href="cid:b"/>',
        '<Include href="cid:a"/>',
        '<xds:Document><xop:Include href="cid:a"/></xds:Document>',
        "Hello!",
    ],
)
def test_anything_but_base64_or_one_include_is_no_document(document: str) -> None:
    assert catalog.validate(_retrieved(document), "xdsb") != []


def test_an_include_outside_of_a_document_is_refused() -> None:
    slot = _slot("x")
    etree.SubElement(slot[0], clark(XOP, "Include"), href="cid:a")
    (finding,) = catalog.validate(slot, "rim")
    assert "element xop:Include: This element is not expected." in finding


def test_threads_get_the_findings_of_their_own_document() -> None:
    """lxml keeps the findings in the schema object, which the threads share."""
    start = threading.Barrier(4)

    def judge(number: int) -> bool:
        wrong = etree.fromstring(f'<rim:ValueList xmlns:rim="{RIM}"/>')
        for _ in range(200):
            etree.SubElement(wrong, clark(RIM, "Value")).set(f"a{number}", "x")
        expected = [f"Line 0, element rim:Value, attribute a{number}: The attribute 'a{number}' is not allowed."] * 200
        start.wait(timeout=10)
        return all(catalog.validate(wrong, "rim", max_messages=200) == expected for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(judge, range(4)))


# --- serving ---


@pytest.mark.parametrize("service", SERVICES)
def test_a_wsdl_has_the_names_and_actions_of_the_technical_framework(service: str) -> None:
    """ITI TF-2 3.18, 3.41, 3.42, 3.43; RAD TF-2 4.69: both spellings of Action, for old and new clients."""
    name, operations = SERVICES[service]
    root = etree.fromstring(catalog.wsdl(service, ADDRESS))
    assert _named(root, "w:portType") == f"{service}_PortType"
    assert _named(root, "w:binding") == f"{service}_Binding_Soap12"
    assert _named(root, "w:service") == name
    assert _named(root, "w:service/w:port") == f"{service}_Port_Soap12"
    for attribute in (clark(WSDL["wsam"], "Action"), clark(WSDL["wsaw"], "Action")):
        assert {
            operation.get("name"): tuple(way.get(attribute) for way in operation if way.get("message"))
            for operation in root.findall("w:portType/w:operation", WSDL)
        } == operations
    assert {o.get("name") for o in root.findall("w:binding/w:operation", WSDL)} == set(operations)


@pytest.mark.parametrize("service", SERVICES)
def test_a_served_wsdl_has_its_address_and_refers_to_schemas_of_the_same_address(service: str) -> None:
    root = etree.fromstring(catalog.wsdl(service, ADDRESS))
    assert [a.get("location") for a in root.iter(clark(WSDL["soap12"], "address"))] == [ADDRESS]
    locations = [i.get("schemaLocation", "") for i in root.iter(clark("http://www.w3.org/2001/XMLSchema", "import"))]
    assert locations
    assert {location.removeprefix(f"{ADDRESS}?xsd=") for location in locations} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_served_schema_refers_to_schemas_of_the_same_address(file: str) -> None:
    served = catalog.xsd(file, ADDRESS)
    assert served is not None
    for imported in etree.fromstring(served).iter(clark("http://www.w3.org/2001/XMLSchema", "import")):
        assert imported.get("schemaLocation", "").removeprefix(f"{ADDRESS}?xsd=") in FILES


def test_an_address_is_escaped() -> None:
    address = 'https://xds.example/a&b<"c'
    root = etree.fromstring(catalog.wsdl("DocumentRegistry", address))
    assert next(root.iter(clark(WSDL["soap12"], "address"))).get("location") == address


@pytest.mark.parametrize(
    "file",
    ["", "rim", "RIM.XSD", "../xsd/rim.xsd", "./rim.xsd", "rim.xsd\0", "/etc/passwd", "../ns.py", "%2e%2e/ns.py", "."],
)
def test_only_our_schema_files_are_served(file: str) -> None:
    assert catalog.xsd(file, ADDRESS) is None


def test_an_unknown_service_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"service '\.\./xsd/rim' is unknown; the names are DocumentRegistry"):
        catalog.wsdl("../xsd/rim", ADDRESS)


# --- as a client reads them ---


class _ServedByCatalog(Transport):  # type: ignore[misc]  # zeep is not typed
    """Answers `?wsdl` and `?xsd=` as an endpoint does, and nothing else."""

    def load(self, url: str) -> bytes:
        address, _, query = url.partition("?")
        if query == "wsdl":
            return catalog.wsdl(address.rpartition("/")[2], address)
        served = catalog.xsd(query.removeprefix("xsd="), address)
        assert served is not None, url
        return served


@pytest.mark.parametrize("service", SERVICES)
def test_zeep_loads_a_wsdl_from_its_file_and_as_served(service: str) -> None:
    address = f"https://xds.example/{service}"
    name, operations = SERVICES[service]
    for client in (
        zeep.Client(str(WSDL_DIRECTORY / f"{service}.wsdl")),
        zeep.Client(f"{address}?wsdl", transport=_ServedByCatalog()),
    ):
        (port,) = client.wsdl.services[name].ports.values()
        assert {o.name: o.abstract.wsa_action for o in port.binding.all().values()} == {
            operation: request_action for operation, (request_action, _) in operations.items()
        }
    assert port.binding_options["address"] == address


def test_zeep_writes_a_stored_query_that_is_valid() -> None:
    client = zeep.Client(str(WSDL_DIRECTORY / "DocumentRegistry.wsdl"))
    envelope = client.create_message(
        client.service,
        "DocumentRegistry_RegistryStoredQuery",
        ResponseOption={"returnType": "LeafClass", "returnComposedObjects": True},
        AdhocQuery={"id": "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4", "Slot": [{"name": "$uuid", "ValueList": {"Value": ["('a')"]}}]},
    )  # fmt: skip
    request = envelope.find(f"soap:Body/{clark(QUERY, 'AdhocQueryRequest')}", NSMAP)
    assert catalog.validate(request, "query") == []


def test_zeep_writes_a_submission_with_types_in_place_of_the_substitution_group() -> None:
    """XML Schema 1, 3.3.4: rim:Identifiable with xsi:type is as valid as rim:ExtrinsicObject, and all zeep can write."""
    client = zeep.Client(str(WSDL_DIRECTORY / "DocumentRegistry.wsdl"))
    entry = client.get_type(clark(RIM, "ExtrinsicObjectType"))(id="d1", mimeType="text/plain")
    envelope = client.create_message(
        client.service, "DocumentRegistry_RegisterDocumentSet-b", RegistryObjectList={"Identifiable": [entry]}
    )
    request = envelope.find(f"soap:Body/{clark(LCM, 'SubmitObjectsRequest')}", NSMAP)
    assert catalog.validate(request, "lcm") == []
    (written,) = request.find("rim:RegistryObjectList", NSMAP)
    assert written.tag == clark(RIM, "Identifiable")


def test_zeep_reads_query_results_only_when_it_is_not_strict() -> None:
    """It knows no substitution groups: strict, it refuses the objects; otherwise it hands them over as elements."""
    client = zeep.Client(str(WSDL_DIRECTORY / "DocumentRegistry.wsdl"))
    binding = client.wsdl.services["DocumentRegistry_Service"].ports["DocumentRegistry_Port_Soap12"].binding
    operation = binding.get("DocumentRegistry_RegistryStoredQuery")
    response = requests.Response()
    response.status_code = 200
    response.headers["Content-Type"] = "application/soap+xml"
    response.raw = io.BytesIO(
        f'<s:Envelope xmlns:s="{SOAP12}"><s:Body><query:AdhocQueryResponse xmlns:query="{QUERY}" xmlns:rim="{RIM}"'
        ' status="urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"><rim:RegistryObjectList>'
        '<rim:ExtrinsicObject id="d1"/><rim:ObjectRef id="d2"/></rim:RegistryObjectList>'
        "</query:AdhocQueryResponse></s:Body></s:Envelope>".encode()
    )
    with client.settings(strict=True), pytest.raises(XMLParseError, match="ExtrinsicObject"):
        binding.process_reply(client, operation, response)
    with client.settings(strict=False):
        found = binding.process_reply(client, operation, response).RegistryObjectList["_raw_elements"]
    assert [element.get("id") for element in found] == ["d1", "d2"]
