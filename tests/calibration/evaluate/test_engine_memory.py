"""What an engine holds: its processes' memory, and a GPU's as nvidia-smi says it."""

from __future__ import annotations

import os
import subprocess
import sys

from calibration.evaluate.engine_memory import read_gpu_bytes, resident_bytes
from tests.conftest import wait_until

HOLD = "import sys; hoard = bytearray(b'x' * 10**8); print('held', flush=True); sys.stdin.read()"


def test_the_memory_of_a_child_that_leads_a_session_is_counted_with_its_own_children() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    before, _ = resident_bytes(os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"

        held, pids = resident_bytes(os.getpid())

        assert held - before > 10**8
        assert process.pid in pids
        assert len(pids) >= 2
    finally:
        process.communicate()
    wait_until(lambda: resident_bytes(os.getpid())[0] == before, "the memory is given back")


def test_the_gpu_s_memory_is_that_of_our_processes() -> None:
    said = "101, 2048\n102, 512\n999, 7000\n"

    assert read_gpu_bytes(said, {101, 102}) == 2560 * 2**20
    assert read_gpu_bytes(said, {1}) is None
    assert read_gpu_bytes("[N/A], [N/A]\n", {1}) is None
