"""Code sets as others publish them, read into an affinity domain's codes: NIST's codes.xml, FHIR ValueSet and CodeSystem.

The files are an administrator's, yet they come from elsewhere: no DTD, no entities, no network, bounded in size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lxml import etree

from registry.codes import ATTRIBUTES, MIME_TYPE, Codes, Entry, check_attribute
from registry.wording import shown
from soap.envelope import parse_document
from soap.fault import SoapFault
from soap.operations import Limits
from xds.values import is_oid

MAX_BYTES = 64 * 1024 * 1024
#: Enough for half a million codes.
_LIMITS = replace(Limits(), envelope_bytes=MAX_BYTES, tags=2_000_000)
_FHIR = "http://hl7.org/fhir"
_THO = "http://terminology.hl7.org/CodeSystem"
_V3 = {
    "ActCode": "2.16.840.1.113883.5.4",
    "ActReason": "2.16.840.1.113883.5.8",
    "Confidentiality": "2.16.840.1.113883.5.25",
    "NullFlavor": "2.16.840.1.113883.5.1008",
    "ParticipationType": "2.16.840.1.113883.5.90",
    "RoleCode": "2.16.840.1.113883.5.111",
}
#: A codingScheme is an OID in XDS (ITI TF-3 4.2.3.1.2) and a URI in FHIR: those that HL7's terminology gives both for.
OIDS: Mapping[str, str] = {
    "http://loinc.org": "2.16.840.1.113883.6.1",
    "http://snomed.info/sct": "2.16.840.1.113883.6.96",
    "http://unitsofmeasure.org": "2.16.840.1.113883.6.8",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "2.16.840.1.113883.6.88",
    "http://nucc.org/provider-taxonomy": "2.16.840.1.113883.6.101",
    "http://hl7.org/fhir/sid/icd-10": "2.16.840.1.113883.6.3",
    "http://hl7.org/fhir/sid/icd-10-cm": "2.16.840.1.113883.6.90",
    "http://dicom.nema.org/resources/ontology/DCM": "1.2.840.10008.2.16.4",
    "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode": "1.3.6.1.4.1.19376.1.2.3",
    "http://ihe.net/fhir/ValueSet/IHE.FormatCode.codesystem": "1.3.6.1.4.1.19376.1.2.3",
    **{f"{_THO}/v3-{name}": oid for name, oid in _V3.items()},
    # As FHIR wrote them before release 4.
    **{f"{_FHIR}/v3/{name}": oid for name, oid in _V3.items()},
}
#: What codes.xml calls otherwise than IHE.
_ALIASES = {"folderCodeList": "codeList"}
#: The extensions by which an expansion says that codes are missing.
_INCOMPLETE = ("/valueset-toocostly", "/valueset-unclosed")

Node = Mapping[str, object] | etree._Element


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file held: its codes, the assigning authorities that it names (OIDs), and what of it is not used, in words."""

    codes: Codes
    authorities: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def from_file(data: bytes, attribute: str | None = None) -> Imported:
    """A file of any of the forms. `attribute` is what a ValueSet or CodeSystem is for; codes.xml says so by itself.

    ValueError for what cannot be read, or cannot be read completely.
    """
    root = _root(data)
    if _kind(root) == "Codes" and isinstance(root, etree._Element):
        return _codes_xml(root)
    return Imported(codes=_fhir(root, attribute))


def from_codes_xml(data: bytes) -> Imported:
    """NIST's form: Codes/CodeType/Code. ValueError for what is not, and for what has no code that is used."""
    root = _root(data)
    if not isinstance(root, etree._Element) or _kind(root) != "Codes":
        raise ValueError(f"the root is {shown(_kind(root))}, not Codes")
    return _codes_xml(root)


def from_value_set(data: bytes, attribute: str) -> Codes:
    """The codes of a FHIR ValueSet or CodeSystem (R4, R5; JSON or XML), for one coded attribute.

    ValueError for any other resource, and for a set that only a terminology server could expand.
    """
    return _fhir(_root(data), attribute)


# --- codes.xml --------------------------------------------------------------------------------------------------------


def _codes_xml(root: etree._Element) -> Imported:
    entries: list[Entry] = []
    unused: list[str] = []
    for code_type in _many(root, "CodeType"):
        attribute = _attribute(code_type)
        if attribute is None:
            unused.append(f"CodeType {shown(_xml(code_type, 'name'))}: no coded attribute")
            continue
        for one in _many(code_type, "Code"):
            code, scheme = _xml(one, "code"), _xml(one, "codingScheme")
            if code and (scheme or attribute == MIME_TYPE):
                entries.append((attribute, scheme, code, _xml(one, "display")))
            else:
                unused.append(f"{attribute}: {shown(code)} of codingScheme {shown(scheme)} is not complete")
    if not entries:
        raise ValueError("the file holds no codes")
    authorities = dict.fromkeys(_xml(one, "id") for one in _many(root, "AssigningAuthority"))
    return Imported(
        codes=Codes.of(entries),
        authorities=tuple(one for one in authorities if one),
        unused=tuple(unused),
    )


def _attribute(code_type: Node) -> str | None:
    """By its classification scheme, else by its name."""
    scheme = _xml(code_type, "classScheme").lower()
    name = _xml(code_type, "name")
    name = next((one for one, known in ATTRIBUTES.items() if known == scheme), _ALIASES.get(name, name))
    return name if name in ATTRIBUTES or name == MIME_TYPE else None


def _xml(node: Node, name: str) -> str:
    """The XML attribute, or "" where it is missing."""
    return (node.get(name) or "").strip() if isinstance(node, etree._Element) else ""


# --- FHIR -------------------------------------------------------------------------------------------------------------


def _fhir(resource: Node, attribute: str | None) -> Codes:
    kind = _kind(resource)
    if kind not in ("ValueSet", "CodeSystem"):
        raise ValueError(f"{shown(kind)} is neither Codes (of codes.xml) nor a FHIR ValueSet or CodeSystem")
    if attribute is None:
        raise ValueError(f"a {kind} does not say which attribute its codes are for; name the attribute")
    check_attribute(attribute)
    found = _value_set(resource) if kind == "ValueSet" else _code_system(resource)
    entries = [(attribute, scheme_of(system), code, display) for system, code, display in found]
    if not entries:
        raise ValueError(f"{_called(resource)} holds no codes")
    return Codes.of(entries)


def scheme_of(system: str) -> str:
    """The codingScheme of XDS for a system of FHIR: its OID, where that is known, else the URI itself."""
    if system[:8].lower() == "urn:oid:" and is_oid(system[8:]):
        return system[8:]
    return OIDS.get(system, system)


def _value_set(resource: Node) -> Iterator[tuple[str, str, str]]:
    """System, code and display: of the expansion, which is complete, if there is one, else of the definition (ValueSet.compose)."""
    for expansion in _many(resource, "expansion"):
        if contained := list(_nested(expansion, "contains")):
            return _expansion(resource, expansion, contained)
    return _compose(resource)


def _expansion(resource: Node, expansion: Node, contained: list[Node]) -> Iterator[tuple[str, str, str]]:
    total = _text(expansion, "total")
    if total.isdecimal() and len(total) < 10 and int(total) > len(contained):
        raise ValueError(
            f"{_called(resource)}: the expansion holds {len(contained)} of {total} codes, one page of several"
        )
    for one in _many(expansion, "extension"):
        url = _xml(one, "url") or _text(one, "url")
        if url.endswith(_INCOMPLETE) and _text(one, "valueBoolean") == "true":
            raise ValueError(
                f"{_called(resource)}: the expansion says that it is not complete ({url.rpartition('/')[2]})"
            )
    for one in contained:
        # A heading has no code, or one that is not meant to be used (ValueSet.expansion.contains.abstract).
        if _text(one, "code") and _text(one, "abstract") != "true":
            yield _text(one, "system"), _text(one, "code"), _text(one, "display")


def _compose(resource: Node) -> Iterator[tuple[str, str, str]]:
    excluded: set[tuple[str, str]] = set()
    without: set[str] = set()
    for compose in _many(resource, "compose"):
        for exclude in _many(compose, "exclude"):
            excluded |= {(system, code) for system, code, _ in _listed(resource, exclude, may_be_whole=True)}
            if not _many(exclude, "concept"):
                without.add(_text(exclude, "system"))
        for include in _many(compose, "include"):
            for system, code, display in _listed(resource, include):
                if (system, code) not in excluded and system not in without:
                    yield system, code, display


def _listed(resource: Node, include: Node, *, may_be_whole: bool = False) -> Iterator[tuple[str, str, str]]:
    """The concepts that an include or exclude lists. ValueError where it lists none, but describes them."""
    system = _text(include, "system")
    for one in _many(include, "filter"):
        described = " ".join(_text(one, name) for name in ("property", "op", "value"))
        raise ValueError(
            f"{_called(resource)}: the codes of {shown(system)} are those that pass the filter {shown(described)};"
            " only a terminology server can tell which, so import its expansion"
        )
    if imported := _texts(include, "valueSet"):
        raise ValueError(
            f"{_called(resource)} imports the value set {shown(imported[0])}; import that one, or the expansion of this one"
        )
    concepts = _many(include, "concept")
    if not concepts and not may_be_whole:
        raise ValueError(
            f"{_called(resource)} has all codes of {shown(system)} and does not list them; import that CodeSystem instead"
        )
    for one in concepts:
        yield system, _text(one, "code"), _text(one, "display")


def _code_system(resource: Node) -> Iterator[tuple[str, str, str]]:
    system = _text(resource, "url")
    if scheme_of(system) == system:
        values = (_text(one, "value") for one in _many(resource, "identifier"))
        system = next((one for one in values if scheme_of(one) != one), system)
    concepts = list(_nested(resource, "concept"))
    content = _text(resource, "content")
    if not concepts or content in ("fragment", "example", "supplement"):
        raise ValueError(f"{_called(resource)} does not hold its codes: its content is {shown(content or 'not said')}")
    for one in concepts:
        if not any(map(_says_not_selectable, _many(one, "property"))):
            yield system, _text(one, "code"), _text(one, "display")


def _says_not_selectable(concept_property: Node) -> bool:
    return _text(concept_property, "code") == "notSelectable" and _text(concept_property, "valueBoolean") == "true"


def _called(resource: Node) -> str:
    return f"{_kind(resource)} {shown(_text(resource, 'url') or _text(resource, 'name') or _text(resource, 'id'))}"


# --- JSON and XML alike -----------------------------------------------------------------------------------------------


def _root(data: bytes) -> Node:
    """The whole of a file: the JSON object, or the root element."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file is larger than the limit of {MAX_BYTES} bytes")
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return _json(data)
    if b"<!DOCTYPE" in data:
        raise ValueError("the file has a document type declaration, which is not read")
    try:
        return parse_document(data, limits=_LIMITS)
    except SoapFault as error:
        raise ValueError(f"the file is neither JSON nor XML that can be read: {error.reason}") from None


def _json(data: bytes) -> Node:
    try:
        content: object = json.loads(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the file is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("the JSON is a list; one resource is read")
    return content


def _kind(root: Node) -> str:
    return _local(root) if isinstance(root, etree._Element) else _text(root, "resourceType")


def _local(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _many(node: Node, name: str) -> list[Node]:
    """The children of that name that have children themselves."""
    if isinstance(node, etree._Element):
        return [child for child in node if _local(child) == name]
    value = node.get(name)
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _nested(node: Node, name: str) -> Iterator[Node]:
    """The children of that name, theirs, and so on, each before its own: however deep."""
    waiting = _many(node, name)[::-1]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += _many(one, name)[::-1]


def _texts(node: Node, name: str) -> list[str]:
    """The primitive values of that name, as text."""
    if isinstance(node, etree._Element):
        return [child.get("value") or "" for child in node if _local(child) == name]
    value = node.get(name)
    return [_primitive(one) for one in (value if isinstance(value, list) else [value]) if one is not None]


def _primitive(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if isinstance(value, dict | list) else str(value)


def _text(node: Node, name: str) -> str:
    return next(iter(_texts(node, name)), "").strip()
