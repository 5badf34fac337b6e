"""Our XSD and WSDL files: compiled, asked for a verdict, and made ready to be served, without ever touching the network.

A schema describes a message before MTOM: `xds:Document` is base64Binary, which can hold no xop:Include. `validate` therefore
looks at a copy in which each well-placed Include is gone and its Document empty, which base64Binary allows (XOP 1.0 3.1).

The verdict is the published schema's and so stricter than a receiver is: elements out of order, or RAD-69's DocumentRequest
in the namespace of XDS-I.b, are refused here and accepted by the codecs.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

from lxml import etree

from schemas.ns import NSMAP, XDSB, XOP, clark

_HERE: Final = Path(__file__).parent
_XS_IMPORT: Final = clark("http://www.w3.org/2001/XMLSchema", "import")
_SOAP12_ADDRESS: Final = clark("http://schemas.xmlsoap.org/wsdl/soap12/", "address")
_INCLUDE: Final = clark(XOP, "Include")
_DOCUMENT: Final = clark(XDSB, "Document")

# All files there are. A name from outside is looked up here and never becomes part of a path.
_XSD_FILES: Final = {
    file: _HERE / "xsd" / file
    for file in (
        "xml.xsd",
        "rim.xsd",
        "rs.xsd",
        "lcm.xsd",
        "query.xsd",
        "xds.b.xsd",
        "xdsi.b.xsd",
        "rmd.xsd",
        "pixv3.xsd",
    )
}
_WSDL_FILES: Final = {
    service: _HERE / "wsdl" / f"{service}.wsdl"
    for service in ("DocumentRegistry", "DocumentRepository", "ImagingDocumentSource")
}
_SCHEMA_FILES: Final = {
    "rim": "rim.xsd",
    "rs": "rs.xsd",
    "lcm": "lcm.xsd",
    "query": "query.xsd",
    "xdsb": "xds.b.xsd",
    "xdsi": "xdsi.b.xsd",
    "rmd": "rmd.xsd",
}

_PREFIXES: Final = {uri: prefix for prefix, uri in NSMAP.items()} | {"http://www.w3.org/XML/1998/namespace": "xml"}
_EXPANDED_NAME: Final = re.compile(r"\{([^{}]*)\}")
_FINDING: Final = re.compile(r"Element '(?P<element>[^']*)'(?:, attribute '(?P<attribute>[^']*)')?: (?P<rule>.*)", re.S)

# A compiled schema may be shared by threads, but lxml keeps the findings of the last run in the schema object itself.
_validating: Final = Lock()


def schema(name: str) -> etree.XMLSchema:
    """The compiled schema "rim", "rs", "lcm", "query", "xdsb", "xdsi" or "rmd"; the same object each time.

    ValueError for another name. For a verdict with reasons call `validate`, which threads may do at the same time.
    """
    if name not in _SCHEMA_FILES:
        raise ValueError(f"schema {name!r} is unknown; the names are {', '.join(_SCHEMA_FILES)}")
    return _compiled(name)


def validate(element: etree._Element, name: str, *, max_messages: int = 20) -> list[str]:
    """What the schema `name` refuses in `element`, one sentence each with line, element and rule; [] if it is valid.

    After `max_messages` findings one sentence more says how many there were. A sentence quotes the offending value, cut
    to a few words: it may be sent to the submitter, but does not belong in a log. ValueError for an unknown name.
    """
    compiled = schema(name)
    candidate = _without_includes(element)
    findings: list[Any] = []
    with _validating:
        if not compiled.validate(candidate):
            # Copied before the lock is gone: the next run of this schema empties its log.
            findings.extend(compiled.error_log)  # type: ignore[arg-type]  # lxml-stubs: a log is iterable
    messages = [_sentence(finding) for finding in findings[:max_messages]]
    if len(findings) > max_messages:
        messages.append(f"There are {len(findings)} such findings; the first {max_messages} are shown.")
    return messages


def wsdl(service: str, address: str) -> bytes:
    """The WSDL 1.1 of "DocumentRegistry", "DocumentRepository" or "ImagingDocumentSource", served at `address`.

    `address` is the absolute URL of the endpoint, without a query. ValueError for another service.
    """
    if service not in _WSDL_FILES:
        raise ValueError(f"service {service!r} is unknown; the names are {', '.join(_WSDL_FILES)}")
    root = _read(_WSDL_FILES[service])
    for port_address in root.iter(_SOAP12_ADDRESS):
        port_address.set("location", address)
    return _served(root, address)


def xsd(file: str, address: str) -> bytes | None:
    """Our schema file `file`, e.g. "rim.xsd", as `wsdl` of the same `address` refers to it; None if we have no such file."""
    path = _XSD_FILES.get(file)
    return None if path is None else _served(_read(path), address)


class _OurFilesOnly(etree.Resolver):
    """Answers what a schema imports from our table and refuses the rest, so that libxml2 never looks for itself."""

    # lxml-stubs knows neither the third argument nor that there may be no URL.
    def resolve(self, system_url: str | None, public_id: str | None, context: Any) -> Any:  # type: ignore[override]
        file = (system_url or "").rpartition("/")[2]
        if file not in _XSD_FILES:
            raise ValueError(f"schema file {file!r} is none of ours and is not loaded")
        return self.resolve_string(_XSD_FILES[file].read_bytes(), context, base_url=file)


@cache
def _compiled(name: str) -> etree.XMLSchema:
    file = _SCHEMA_FILES[name]
    parser = _parser()
    parser.resolvers.add(_OurFilesOnly())
    return etree.XMLSchema(etree.fromstring(_XSD_FILES[file].read_bytes(), parser, base_url=file))


def _parser() -> etree.XMLParser:
    return etree.XMLParser(no_network=True, load_dtd=False, resolve_entities=False)


def _read(path: Path) -> etree._Element:
    return etree.fromstring(path.read_bytes(), _parser())


def _served(root: etree._Element, address: str) -> bytes:
    """The document, its imports pointing to where `xsd` is served."""
    for imported in root.iter(_XS_IMPORT):
        file = imported.get("schemaLocation", "").rpartition("/")[2]
        imported.set("schemaLocation", f"{address}?xsd={file}")
    return etree.tostring(root.getroottree(), xml_declaration=True, encoding="UTF-8")


def _without_includes(element: etree._Element) -> etree._Element:
    """`element` itself, or a copy without the xop:Include of each xds:Document that holds one and nothing else.

    An Include anywhere else stays, and the schema then refuses it.
    """
    if next(element.iter(_INCLUDE), None) is None:
        return element
    candidate = copy.deepcopy(element)
    for document in candidate.iter(_DOCUMENT):
        alone = len(document) == 1 and document[0].tag == _INCLUDE
        if alone and not f"{document.text or ''}{document[0].tail or ''}".strip():
            del document[0]
    return candidate


def _sentence(finding: Any) -> str:
    """libxml2's finding as `Line 7, element rim:Slot, attribute name: ...`, namespaces as the prefixes of NSMAP."""
    text = _EXPANDED_NAME.sub(_prefix, finding.message)
    if (match := _FINDING.fullmatch(text)) is None:
        return f"Line {finding.line}: {_cut(text)}"
    attribute = f", attribute {match['attribute']}" if match["attribute"] else ""
    return f"Line {finding.line}, element {match['element']}{attribute}: {_cut(match['rule'])}"


def _prefix(match: re.Match[str]) -> str:
    prefix = _PREFIXES.get(match[1])
    return match[0] if prefix is None else f"{prefix}:"


def _cut(text: str, max_characters: int = 400) -> str:
    """The value in a finding is the sender's and of any length; the rule after it is kept.

    libxml2 itself ends a finding at 64,000 bytes, so that of a longer value only the name of the rule is left.
    """
    line = " ".join(text.split())
    half = max_characters // 2
    return line if len(line) <= max_characters else f"{line[:half]} ... {line[-half:]}"
