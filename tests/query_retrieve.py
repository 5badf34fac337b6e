"""What the tests of Query/Retrieve share: a served source that answers it, and one who asks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from benchmarks.limits import free_port
from imaging.instances import Instances
from server.config import Config
from server.embedded import serving
from tests.conftest import configured

_P = "1.2.840.10008.5.1.4.1.2."
FIND = {"study": f"{_P}2.1", "patient": f"{_P}1.1"}
MOVE = {"study": f"{_P}2.2", "patient": f"{_P}1.2"}
GET = {"study": f"{_P}2.3", "patient": f"{_P}1.3"}


@dataclass(frozen=True)
class Asked:
    """A source that can be asked."""

    port: int
    instances: Instances
    dicomweb: str


@contextmanager
def asked_source(directory: Path, config: Config | None = None, **imaging: Any) -> Iterator[Asked]:
    port = free_port()
    config = config or configured(directory)
    given = {"dimse_port": port, "query_retrieve": True} | imaging
    config = replace(config, server=replace(config.server, actors="imaging"), imaging=replace(config.imaging, **given))
    with serving(config) as domain:
        yield Asked(port, domain.parts["instances"], domain.endpoints["dicomweb"])


@contextmanager
def associated(port: int, *sop_classes: str, **given: Any) -> Iterator[Association]:
    """An association on which these can be asked for."""
    ae = AE("TESTER")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    for one in sop_classes:
        # Implicit, as the longest values need it.
        ae.add_requested_context(one, ImplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="XDSI", **given)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def identifier(level: str, keys: Mapping[str, str | None]) -> Dataset:
    """Keys by keyword, one of an item as "RequestAttributesSequence.RequestedProcedureID"."""
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = level
    for name, value in keys.items():
        sequence, _, keyword = name.rpartition(".")
        if sequence:
            item = Dataset()
            setattr(item, keyword, value)
            setattr(asked, sequence, [item])
        else:
            setattr(asked, keyword, value)
    return asked


def find(port: int, level: str, keys: Mapping[str, str | None], root: str = "study") -> tuple[Dataset, list[Dataset]]:
    """The last status, and the matches."""
    with associated(port, FIND[root]) as association:
        answers = list(association.send_c_find(identifier(level, keys), FIND[root]))
    return answers[-1][0], [match for _, match in answers if match is not None]


def dcmtk(program: str, *arguments: object, check: bool = True) -> str:
    """What it says, on both ways."""
    done = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    said = (done.stdout + done.stderr).replace(b"\0", b"").decode("utf-8", "replace")
    assert not check or done.returncode == 0, said
    return said
