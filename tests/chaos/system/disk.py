"""Take from Valkey what a loss of power takes: the end of its append-only file, up to the last second.

A killed process loses nothing that it has written: the kernel keeps it. So the file is cut, to the length it had.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.02
# What `everysec` may lose.
MAX_LOST_S = 1.0
REMEMBERED_S = 5.0


@dataclass(frozen=True, slots=True)
class _Length:
    at_s: float
    path: Path
    size: int


class Disk:
    """Knows how long the file was at each moment of the last seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths: deque[_Length] = deque(maxlen=int(REMEMBERED_S / EVERY_S))
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="disk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._closed.set()
        self._thread.join()

    def cut(self, ended_s: float, lost_s: float) -> float:
        """Cut the file of a server that ended to what it was `lost_s` before; return since when all is lost."""
        path = self._newest()
        with self._lock:
            lengths = list(self._lengths)
        kept = [one for one in lengths if one.path == path and one.at_s <= ended_s - min(lost_s, MAX_LOST_S)]
        if path is None or not kept:  # it began a new file within the last second: let it keep that
            return ended_s
        os.truncate(path, kept[-1].size)
        return kept[-1].at_s

    def _look(self) -> None:
        while not self._closed.wait(EVERY_S):
            now, path = time.time(), self._newest()
            with contextlib.suppress(FileNotFoundError), self._lock:  # the server may have begun a new one just now
                if path is not None:
                    self._lengths.append(_Length(now, path, path.stat().st_size))

    def _newest(self) -> Path | None:
        files = (self._folder / "appendonlydir").glob("*.incr.aof")
        return max(files, key=lambda path: int(path.name.split(".")[-3]), default=None)
