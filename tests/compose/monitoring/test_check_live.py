"""Every query of every panel has data at a real Prometheus over a stack of echo engines, or a reason why not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, Stack, free_port, wait_until


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("prometheus"), reason="`make servers` installs prometheus")
def test_no_panel_is_empty_without_a_reason(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    ports = {tier: str(free_port()) for tier in ("int4", "int8", "fp8")}
    for tier, port in ports.items():
        stack.start("worker", "--tier", tier, "--metrics-port", port)
    wait_until(lambda: all(stack.live(tier) for tier in ports), "a worker of each tier is live")

    workers = [part for port in ports.values() for part in ("--worker", f"127.0.0.1:{port}")]
    intake = ("--intake", f"127.0.0.1:{stack.port}", "--port", str(free_port()))
    command = [sys.executable, "-m", "monitoring.check_live", "--seconds", "30", *intake, *workers]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert checked.returncode == 0, checked.stdout + checked.stderr
