"""Monitor sandboxed processes for what no limit of the kernel's ends: waiting, and memory for page tables."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

POLL_INTERVAL_S = 0.05
# Pages far apart need up to three pages of tables each, which RLIMIT_AS does not count. All of its 512 MB that lie
# together need 1 MB.
_MAX_PAGE_TABLES_KB = 16 * 1024


class OveruseMonitor:
    """Polls the programs that some bubblewraps run. Where /proc does not show them, it finds nothing wrong."""

    def __init__(self, bubblewraps: list[int], wait_s: float) -> None:
        self._bubblewraps = bubblewraps
        self._wait_s = wait_s
        # Polls at which all waited, not seconds: on a loaded machine a poll may come late.
        self._idle_polls = 0

    def problem(self) -> str:
        """Return why the programs must be ended, '' if they may go on; to be called every POLL_INTERVAL_S."""
        states = [_status(pid) for pid in self._bubblewraps]
        if any(int(state.get("VmPTE", "0 kB").split()[0]) > _MAX_PAGE_TABLES_KB for state in states):
            return "its memory is spread too far: the page tables would take too much"
        self._idle_polls += all(state.get("State", "").startswith("S") for state in states)
        if self._idle_polls * POLL_INTERVAL_S > self._wait_s:
            return f"it waited for {self._wait_s:g} s without computing"
        return ""


def _status(bubblewrap: int) -> dict[str, str]:
    """Return what the kernel says about the program of a bubblewrap; nothing before it starts and after it ends."""
    with contextlib.suppress(OSError):
        line = list(_line_of_descent(bubblewrap))
        if len(line) == 3:  # the outer bubblewrap, the one that is process 1 of the namespace, the program
            status = Path(f"/proc/{line[-1]}/status").read_text(encoding="utf-8", errors="replace")
            return dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    return {}


def _line_of_descent(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[:1]:
        yield from _line_of_descent(int(child))
