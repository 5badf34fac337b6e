"""The messages of XDS.b around documents: ProvideAndRegister (ITI TF-2 3.41.4) and RetrieveDocumentSet (3.43.4), to text and back.

Documents stand in the text as xop:Include references; soap/xop.py finds the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from lxml import etree

from schemas import lcm, rs
from schemas.ns import LCM, RIM, RS, XDSB, XOP
from schemas.rim import escape
from xds.messages import DocumentRequest, Outcome, Retrieved
from xds.metadata import Submission
from xds.problems import ErrorCode, Failure, Problem, fail

_SUBMIT, _OBJECT_LIST = f"{{{LCM}}}SubmitObjectsRequest", f"{{{RIM}}}RegistryObjectList"
_DOCUMENT = f"{{{XDSB}}}Document"
_RESPONSE = f"{{{RS}}}RegistryResponse"
_DOCUMENT_RESPONSE = f"{{{XDSB}}}DocumentResponse"


def include(content_id: str) -> str:
    """An xop:Include of the part with a Content-ID, given without its angle brackets (XOP 1.0 3.1)."""
    return f'<xop:Include xmlns:xop="{XOP}" href="cid:{quote(content_id, safe="@.-_")}"/>'


def decode_provide(element: etree._Element) -> tuple[Submission, list[tuple[str, etree._Element]]]:
    """The submission, and each xds:Document with its id, in order, duplicates kept.

    Failure (XDSRepositoryMetadataError) without a SubmitObjectsRequest that holds a RegistryObjectList, and for a Document without id:
    then nothing can be matched, and the registry would be asked in vain.
    """
    submit = element.find(_SUBMIT)
    documents = [(document.get("id", ""), document) for document in element.iterchildren(_DOCUMENT)]
    missing = [
        f"Document {number}: the attribute id is missing or empty"
        for number, (name, _) in enumerate(documents, 1)
        if not name
    ]
    if submit is None:
        missing.append("ProvideAndRegisterDocumentSetRequest: lcm:SubmitObjectsRequest is missing")
    elif submit.find(_OBJECT_LIST) is None:
        missing.append("SubmitObjectsRequest: rim:RegistryObjectList is missing")
    if submit is None or missing:
        raise Failure(Problem(code=ErrorCode.REPOSITORY_METADATA_ERROR, context=context) for context in missing)
    return lcm.decode_submission(submit), documents


def encode_provide(submission: Submission, content_ids: Mapping[str, str]) -> bytes:
    """The request; `content_ids` maps the id of each document to the Content-ID of its part."""
    documents = "".join(
        f'<xds:Document id="{escape(document_id)}">{include(content_id)}</xds:Document>'
        for document_id, content_id in content_ids.items()
    )
    return (
        f'<xds:ProvideAndRegisterDocumentSetRequest xmlns:xds="{XDSB}" xmlns:lcm="{LCM}" xmlns:rim="{RIM}">'
        f"{lcm.submission_text(submission)}{documents}</xds:ProvideAndRegisterDocumentSetRequest>"
    ).encode()


def decode_document_request(element: etree._Element) -> DocumentRequest:
    """A DocumentRequest or DocumentResponse, its children in either namespace that peers use; absent ones are ""."""
    children = {
        etree.QName(child).localname: (child.text or "").strip() for child in element.iterchildren(tag=etree.Element)
    }
    return DocumentRequest(
        repository_unique_id=children.get("RepositoryUniqueId", ""),
        document_unique_id=children.get("DocumentUniqueId", ""),
        home_community_id=children.get("HomeCommunityId"),
    )


def document_request_text(request: DocumentRequest) -> str:
    """The three identifying children, in the order of the schema, the prefix `xds:` undeclared."""
    home = request.home_community_id
    return (
        ("" if home is None else f"<xds:HomeCommunityId>{escape(home)}</xds:HomeCommunityId>")
        + f"<xds:RepositoryUniqueId>{escape(request.repository_unique_id)}</xds:RepositoryUniqueId>"
        + f"<xds:DocumentUniqueId>{escape(request.document_unique_id)}</xds:DocumentUniqueId>"
    )


def decode_retrieve_request(element: etree._Element) -> tuple[DocumentRequest, ...]:
    """What is asked for, in order. Failure (XDSRepositoryError) where an id is missing, naming which request lacks what."""
    return decode_document_requests(element, (XDSB,))


def decode_document_requests(element: etree._Element, namespaces: Iterable[str]) -> tuple[DocumentRequest, ...]:
    """The DocumentRequests of a message, in order, in one of the namespaces.

    Failure (XDSRepositoryError) where there is none, or one lacks an id or has it twice.
    """
    children = list(element.iterchildren(*(f"{{{namespace}}}DocumentRequest" for namespace in namespaces)))
    if not children:
        name = etree.QName(element).localname
        raise fail(ErrorCode.REPOSITORY_ERROR, f"{name}: it holds no DocumentRequest")
    requests = tuple(decode_document_request(child) for child in children)
    problems = [
        problem
        for number, (child, request) in enumerate(zip(children, requests, strict=True), 1)
        for problem in (*missing_ids(number, request), *_repeated(number, child))
    ]
    if problems:
        raise Failure(problems)
    return requests


def _repeated(number: int, element: etree._Element) -> Iterator[Problem]:
    """A problem for each child that stands there twice: nobody can say which is meant."""
    names = Counter(etree.QName(child).localname for child in element.iterchildren(tag=etree.Element))
    for name in ("HomeCommunityId", "RepositoryUniqueId", "DocumentUniqueId"):
        if names[name] > 1:
            yield Problem(
                code=ErrorCode.REPOSITORY_ERROR,
                context=f"DocumentRequest {number}: it has {names[name]} {name}s, not one",
            )


def missing_ids(number: int, request: DocumentRequest) -> Iterator[Problem]:
    """A problem for each id that the `number`-th DocumentRequest lacks."""
    for name, value in (
        ("RepositoryUniqueId", request.repository_unique_id),
        ("DocumentUniqueId", request.document_unique_id),
    ):
        if not value:
            yield Problem(
                code=ErrorCode.REPOSITORY_ERROR,
                context=f"DocumentRequest {number}: {name} is missing or empty",
                location=request.document_unique_id or None,
            )


def document_requests_text(requests: Iterable[DocumentRequest]) -> str:
    """The `xds:DocumentRequest` elements, the prefix undeclared."""
    return "".join(f"<xds:DocumentRequest>{document_request_text(one)}</xds:DocumentRequest>" for one in requests)


def encode_retrieve_request(requests: Iterable[DocumentRequest]) -> bytes:
    rows = document_requests_text(requests)
    return f'<xds:RetrieveDocumentSetRequest xmlns:xds="{XDSB}">{rows}</xds:RetrieveDocumentSetRequest>'.encode()


def encode_retrieve_response(outcome: Outcome, retrieved: Iterable[tuple[Retrieved, str]]) -> Iterator[bytes]:
    """The response, in pieces; each document comes with the Content-ID of its part."""
    yield f'<xds:RetrieveDocumentSetResponse xmlns:xds="{XDSB}" xmlns:rs="{RS}">{rs.outcome_text(outcome)}'.encode()
    for one, content_id in retrieved:
        new = "".join(
            f"<xds:{name}>{escape(value)}</xds:{name}>"
            for name, value in (
                ("NewRepositoryUniqueId", one.new_repository_unique_id),
                ("NewDocumentUniqueId", one.new_document_unique_id),
            )
            if value is not None
        )
        yield (
            f"<xds:DocumentResponse>{document_request_text(one.request)}{new}"
            f"<xds:mimeType>{escape(one.document.mime_type)}</xds:mimeType>"
            f"<xds:Document>{include(content_id)}</xds:Document></xds:DocumentResponse>"
        ).encode()
    yield b"</xds:RetrieveDocumentSetResponse>"


def decode_retrieve_response(
    element: etree._Element,
) -> tuple[Outcome, list[tuple[DocumentRequest, str, etree._Element]]]:
    """The outcome, and for each DocumentResponse what it answers, its mimeType and its Document element.

    ValueError where the response does not have the shape that the schema demands.
    """
    response = element.find(_RESPONSE)
    if response is None:
        raise ValueError("RetrieveDocumentSetResponse: rs:RegistryResponse is missing")
    documents = []
    for child in element.iterchildren(_DOCUMENT_RESPONSE):
        document = child.find(_DOCUMENT)
        if document is None:
            raise ValueError("DocumentResponse: Document is missing")
        mime_type = (child.findtext(f"{{{XDSB}}}mimeType") or "").strip()
        documents.append((decode_document_request(child), mime_type, document))
    return rs.decode_outcome(response), documents


def decode_new_ids(document: etree._Element) -> tuple[str | None, str | None]:
    """NewRepositoryUniqueId and NewDocumentUniqueId beside the Document of a DocumentResponse; None where they are not given."""
    response = document.getparent()
    if response is None:
        return None, None
    repository, unique_id = (
        (response.findtext(f"{{{XDSB}}}{name}") or "").strip()
        for name in ("NewRepositoryUniqueId", "NewDocumentUniqueId")
    )
    return repository or None, unique_id or None
