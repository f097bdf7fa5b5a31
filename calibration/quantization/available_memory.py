"""How much memory a process may still take: what the machine has, and what its control groups leave of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ENDLESS = int(1e18)  # where Linux does not say, and where it is not Linux


class _Version(NamedTuple):
    """The files of a version of control groups that describe memory."""

    line_start: str  # in the line of /proc/self/cgroup
    mount: str
    limit: str
    used: str
    cached: str  # in memory.stat: read from files, and released when memory is needed


_VERSIONS = (
    _Version(
        ":memory:", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    ),
    _Version("0::", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may still take, without swap."""
    left = (limit for version in _VERSIONS for limit in _left(root, version))
    return min(_free(root / "proc/meminfo"), *left, ENDLESS)


def _free(meminfo: Path) -> int:
    lines = _read(meminfo).splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), ENDLESS)


def _left(root: Path, version: _Version) -> Iterator[int]:
    """Yield what is left in each group that the process is in; a container is one."""
    lines = _read(root / "proc/self/cgroup").splitlines()
    group_path = next((line.partition(version.line_start)[2] for line in lines if version.line_start in line), "/")
    mount = root / version.mount
    folder = mount / group_path.lstrip("/")
    for group in (folder, *folder.parents):
        if (limit := _read(group / version.limit).strip()).isdecimal():
            stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            used = int(_read(group / version.used) or 0) - int(stat.get(version.cached, 0))
            yield max(0, int(limit) - max(0, used))
        if group == mount:
            return


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
