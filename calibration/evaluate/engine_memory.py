"""Memory of the running engine: resident memory of its processes, and GPU memory where there is a GPU."""

from __future__ import annotations

import os
from pathlib import Path

from workers.engines.hardware import nvidia

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


def resident_bytes(sessions_of: int, proc: Path = Path("/proc")) -> tuple[int, set[int]]:
    """Return the resident memory of all sessions that children of this process lead, and their process ids.

    The engine is such a child with helpers of its own; nothing else that an evaluation starts leads a session.
    """
    processes = [fields for stat in proc.glob("[0-9]*/stat") if (fields := _fields(stat))]
    leaders = {pid for pid, parent, session, _ in processes if parent == sessions_of and session == pid}
    members = [(pid, pages) for pid, _, session, pages in processes if session in leaders]
    return sum(pages for _, pages in members) * _PAGE_BYTES, {pid for pid, _ in members}


def gpu_bytes(pids: set[int]) -> int | None:
    """Return the memory that these processes hold on NVIDIA GPUs, or None where there is none."""
    csv = nvidia.ask("--query-compute-apps=pid,used_memory")
    return None if csv is None else read_gpu_bytes(csv, pids)


def read_gpu_bytes(csv: str, pids: set[int]) -> int | None:
    """Sum the lines of `pid, MiB`; inside a container no process may be named, and then the figure is not known."""
    lines = [line.split(",") for line in csv.splitlines() if line.count(",") == 1]
    mib = [int(used) for pid, used in lines if pid.strip().isdigit() and used.strip().isdigit() and int(pid) in pids]
    return sum(mib) * _MIB if mib else None


def _fields(stat: Path) -> tuple[int, int, int, int] | None:
    """Return pid, parent, session and resident pages; None for a process that has just ended."""
    try:
        rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(stat.parent.name), int(rest[1]), int(rest[3]), int(rest[21])
