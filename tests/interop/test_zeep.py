"""zeep, an independent SOAP client, against the WSDLs that the domain serves: ITI-42, ITI-18, ITI-43."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import zeep
from lxml import etree
from zeep.transports import Transport

from benchmarks.messages import patient, submission
from schemas import lcm, query, rim
from server.compose import Domain
from xds.metadata import DocumentEntry, Submission
from xds.queries import FindDocuments

PATIENT = patient(4711)


@pytest.fixture(scope="module")
def submitted() -> Submission:
    return submission(PATIENT, registered=True)


class Recording(Transport):
    """zeep's HTTP, which keeps the last reply: zeep does not know ebRIM's substitution groups well enough to show objects."""

    last: bytes = b""

    def post(self, address: str, message: Any, headers: Any) -> Any:
        response = super().post(address, message, headers)
        self.last = response.content
        return response


def client(address: str) -> tuple[zeep.Client, Recording]:
    transport = Recording()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zeep.Client(f"{address}?wsdl", transport=transport, settings=zeep.Settings(strict=False)), transport


def envelope(made: zeep.Client, operation: str, action: str, body: bytes) -> bytes:
    """zeep's own envelope and WS-Addressing headers around a body of ours: it cannot build substituted elements from Python values."""
    from zeep import wsa

    outer = etree.fromstring(
        b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body>'
        + body
        + b"</s:Body></s:Envelope>"
    )
    binding = made.service._binding
    found, _ = wsa.WsAddressingPlugin().egress(outer, {}, binding.get(operation), made.service._binding_options)
    assert found.findtext(".//{http://www.w3.org/2005/08/addressing}Action") == action
    return etree.tostring(found)


def call(made: zeep.Client, transport: Recording, operation: str, action: str, body: bytes) -> Any:
    message = envelope(made, operation, action, body)
    headers = {"Content-Type": f'application/soap+xml; charset=utf-8; action="{action}"'}
    response = transport.post(made.service._binding_options["address"], message, headers)
    return made.service._binding.process_reply(made, made.service._binding.get(operation), response)


def test_zeep_registers_and_finds_with_the_served_wsdl(domain: Domain, submitted: Submission) -> None:
    made, transport = client(domain.endpoints["registry"])
    action = "urn:ihe:iti:2007:RegisterDocumentSet-b"
    answer = call(made, transport, "DocumentRegistry_RegisterDocumentSet-b", action, lcm.encode_submission(submitted))
    assert answer["status"].endswith(":Success")
    asked = query.encode_query(FindDocuments(patient_id=PATIENT))
    action = "urn:ihe:iti:2007:RegistryStoredQuery"
    answer = call(made, transport, "DocumentRegistry_RegistryStoredQuery", action, asked)
    assert answer["status"].endswith(":Success")
    (element,) = etree.fromstring(transport.last).iter("{urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0}ExtrinsicObject")
    entry = rim.decode(element)
    assert isinstance(entry, DocumentEntry)
    assert entry.unique_id == submitted.document_entries[0].unique_id
    transport.session.close()


def test_zeep_retrieves_with_the_served_wsdl(domain: Domain) -> None:
    made, transport = client(domain.endpoints["repository"])
    answer = made.service["DocumentRepository_RetrieveDocumentSet"](
        DocumentRequest=[{"RepositoryUniqueId": "1.2.3", "DocumentUniqueId": "1.2.3.404"}]
    )
    response = answer["RegistryResponse"]
    assert response["status"].endswith(":Failure")
    assert response["RegistryErrorList"]["RegistryError"][0]["errorCode"] == "XDSUnknownRepositoryId"
    transport.session.close()


def test_zeep_reads_the_imaging_wsdl(domain: Domain) -> None:
    made, transport = client(domain.endpoints["imaging"])
    assert "ImagingDocumentSource_RetrieveImagingDocumentSet" in made.service._binding._operations
    transport.session.close()
