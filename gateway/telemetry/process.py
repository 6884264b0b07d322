"""What the kernel says of this process: CPU time, memory, since when it runs."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from gateway.telemetry import series
from gateway.telemetry.series import Snapshot

_STATM: Final = Path("/proc/self/statm")  # proc(5): sizes in pages, the second one is what is resident
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Process:
    """The process that this was made in."""

    def __init__(self) -> None:
        self._started = time.time()
        self._cpu = 0.0

    def sample(self, snapshot: Snapshot) -> None:
        """Put the numbers of now into a worker's snapshot. A system without /proc has no memory to tell of."""
        cpu = time.process_time()
        snapshot.count(series.PROCESS_CPU, (), cpu - self._cpu)
        self._cpu = cpu
        snapshot.gauges[series.PROCESS_START][()] = self._started
        with contextlib.suppress(OSError, ValueError, IndexError):
            snapshot.gauges[series.PROCESS_MEMORY][()] = float(int(_STATM.read_bytes().split()[1]) * _PAGE)
