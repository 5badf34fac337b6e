"""Which storage SOP classes the instances of a series may have, where a PACS does not say it (PS3.4 B.5, PS3.3 C.7.3.1.1.1)."""

from __future__ import annotations

_P = "1.2.840.10008.5.1.4.1.1."


def _classes(*suffixes: str) -> tuple[str, ...]:
    return tuple(_P + one for one in suffixes)


OF_MODALITY = {
    "CR": _classes("1", "1.1", "1.1.1"),
    "CT": _classes("2", "2.1", "2.2"),
    "DOC": _classes("104.1", "104.2"),
    "DX": _classes("1.1", "1.1.1", "1"),
    "ECG": _classes("9.1.1", "9.1.2", "104.1"),
    "ES": _classes("77.1.1", "77.1.1.1"),
    "GM": _classes("77.1.2", "77.1.4"),
    "IO": _classes("1.3", "1.3.1"),
    "KO": _classes("88.59"),
    "MG": _classes("1.2", "1.2.1", "13.1.3"),
    "MR": _classes("4", "4.1", "4.2"),
    "NM": _classes("20"),
    "OP": _classes("77.1.5.1", "77.1.5.2", "77.1.5.4"),
    "OPT": _classes("77.1.5.4"),
    "PR": _classes("11.1", "11.2", "11.3"),
    "PT": _classes("128", "130"),
    "PX": _classes("1.1", "1"),
    "RF": _classes("12.2", "12.1"),
    "RTDOSE": _classes("481.2"),
    "RTIMAGE": _classes("481.1"),
    "RTPLAN": _classes("481.5", "481.8"),
    "RTSTRUCT": _classes("481.3"),
    "SEG": _classes("66.4", "66.5"),
    "SM": _classes("77.1.6", "77.1.3"),
    "SR": _classes("88.33", "88.22", "88.11", "88.67"),
    "US": _classes("6.1", "3.1", "6.2"),
    "XA": _classes("12.1", "12.1.1"),
    "XC": _classes("77.1.4", "77.1.4.1"),
}
#: Secondary captures, structured reports, presentation states and encapsulated PDF, which any series may have.
OF_ANY_MODALITY = _classes("7", "7.2", "7.4", "88.33", "88.22", "88.11", "88.59", "11.1", "104.1")
