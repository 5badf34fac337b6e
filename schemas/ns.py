"""The XML namespaces of IHE XDS and of the standards below it, each under one name."""

from typing import Final

# OASIS ebXML RegRep 3.0, ITI TF-3 4.2
RIM: Final = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
RS: Final = "urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0"
LCM: Final = "urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"
QUERY: Final = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"

# IHE: ITI TF-2 3.41 and 3.43, RAD TF-2 4.69, the supplement Remove Metadata and Documents (ITI-86)
XDSB: Final = "urn:ihe:iti:xds-b:2007"
XDSI: Final = "urn:ihe:rad:xdsi-b:2009"
RMD: Final = "urn:ihe:iti:rmd:2017"

# W3C: the envelope, the headers and the attachments of ITI TF-2 Appendix V
SOAP12: Final = "http://www.w3.org/2003/05/soap-envelope"
SOAP11: Final = "http://schemas.xmlsoap.org/soap/envelope/"
WSA: Final = "http://www.w3.org/2005/08/addressing"
XOP: Final = "http://www.w3.org/2004/08/xop/include"

NSMAP: Final[dict[str, str]] = {
    "rim": RIM,
    "rs": RS,
    "lcm": LCM,
    "query": QUERY,
    "xds": XDSB,
    "iherad": XDSI,
    "rmd": RMD,
    "soap": SOAP12,
    "wsa": WSA,
    "xop": XOP,
}
"""The prefixes this program writes, for lxml's `nsmap=` and `namespaces=`."""


def clark(namespace: str, local: str) -> str:
    """The name `local` of `namespace` in James Clark's notation, as lxml takes and gives it: `{namespace}local`."""
    return f"{{{namespace}}}{local}"
