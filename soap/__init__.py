"""SOAP 1.2, WS-Addressing and MTOM/XOP."""
