"""No acknowledged document is lost, and nothing is there by half, when the repository's server is killed under load."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from torture.kills import TOPOLOGIES, kill_again_and_again, printed

KILLS = int(os.environ.get("XDSI_TORTURE_KILLS", "300"))
SEED = int(os.environ.get("XDSI_TORTURE_SEED", str(time.time_ns() % 1_000_000)))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nothing_acknowledged_is_lost_and_nothing_is_there_by_half(topology: str, tmp_path: Path) -> None:
    """RegistryResponse Success means: the documents can be retrieved, and their entries found (ITI TF-2 3.41.4.1.3)."""
    print(f"\nseed {SEED}")
    with TOPOLOGIES[topology](tmp_path) as domain:
        result = kill_again_and_again(domain, max(1, KILLS // len(TOPOLOGIES)), random.Random(SEED))
        print(printed(topology, domain, result))
    assert result.faults == []
    assert result.orphans == []
