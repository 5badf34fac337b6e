"""Becomes another program, which can have no more memory and write no larger files than this says: `MEMORY_BYTES FILE_BYTES PROGRAM ...`.

Limits that are set after a program has begun come too late for what it does first.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one program may take: memory and the size of each file in bytes, and time."""

    memory_bytes: int = 4 * 1024**3
    file_bytes: int = 4 * 1024**3
    timeout_s: float = 120.0


def bound(memory_bytes: int, file_bytes: int) -> None:
    """Of this process, from now on."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    bound(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606  # whoever started this has chosen the program
