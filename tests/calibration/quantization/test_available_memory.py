"""calibration/quantization/available_memory.py: what the machine has, and what the container is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.quantization.available_memory import ENDLESS, available_memory

GB = 10**9


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   64000000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_a_limit_it_is_what_the_machine_has_left(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, {})) == 64_000_000 * 1024
    unlimited = {"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/app/memory.max": "max\n"}
    assert available_memory(machine(tmp_path, unlimited)) == 64_000_000 * 1024


def test_where_nobody_says_it_has_no_end(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == ENDLESS


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/pod/app", "sys/fs/cgroup/pod/app", ("memory.max", "memory.current", "inactive_file")),
        ("0::/pod/app", "sys/fs/cgroup/pod", ("memory.max", "memory.current", "inactive_file")),
        ("0::/", "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/docker/app",
            "sys/fs/cgroup/memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
    ids=["its own group", "the group above", "a container", "version 1"],
)
def test_a_limit_counts_less_what_is_used_and_cannot_be_given_up(
    tmp_path: Path, line: str, folder: str, names: tuple[str, str, str]
) -> None:
    limit, used, cached = names
    its = {
        "proc/self/cgroup": f"9:name=systemd:/\n{line}\n",
        f"{folder}/{limit}": f"{8 * GB}\n",
        f"{folder}/{used}": f"{5 * GB}\n",
        f"{folder}/memory.stat": f"anon 7\n{cached} {2 * GB}\n",
    }

    assert available_memory(machine(tmp_path, its)) == 5 * GB


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    its = {"sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "2000\n"}

    assert available_memory(machine(tmp_path, its)) == 0


def test_this_machine_has_some() -> None:
    assert 0 < available_memory() <= ENDLESS
