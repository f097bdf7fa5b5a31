"""Every query of every panel has data at a real Prometheus over a stack of echo engines, or a reason why not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.control.drift.drift_metrics import ROWS as DRIFT_ROWS
from calibration.control.shadow.metric_rows import ROWS as SHADOW_ROWS
from monitoring.check_live import alert_metrics, panel_queries, reason_of
from monitoring.expressions import metrics_of
from tests.conftest import ROOT, OwnValkey, Process, Stack, free_port, wait_until
from tests.integration.webhooks.receiver import SECRET, receiving


def test_metrics_that_only_calibration_writes_are_known_to_be_empty_at_a_stack() -> None:
    read = {name for _, query in panel_queries() for name in metrics_of(query)} | {name for _, name in alert_metrics()}
    beside = read & {row.name for row in (*DRIFT_ROWS, *SHADOW_ROWS)}

    assert beside
    assert [name for name in beside if not reason_of(name)] == []


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


def children(process: Process) -> list[int]:
    """Return the engines that a worker runs."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def trouble(stack: Stack, worker: Process, webhook: str) -> None:
    """Bring about what check_live's requests do not at real engines: a webhook, overflow, broken answers."""
    told = {"X-Webhook-Url": webhook, "X-Webhook-Secret": SECRET}
    body = {"model": "smollm2", "prompt": "a short answer", "max_tokens": 4}
    for number in range(120):
        stack.http.post("/v1/jobs", json=body, headers=told if number < 3 else {})
    for prompt in ("echo:fault breaks", "echo:nan is no number", "an echo:loop"):
        broken = {"prompt": prompt, "max_tokens": 200, "logprobs": 1}
        stack.http.post("/v1/jobs", json=body | broken, headers={"X-Min-Tier": "fp8"})
    for pid in children(worker):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.vllm
@pytest.mark.skipif(not shutil.which("prometheus"), reason="`make servers` installs prometheus")
def test_no_panel_is_empty_without_a_reason_on_real_engines(own_valkey: OwnValkey, tmp_path: Path) -> None:
    """int4 and int8 are vLLM's; fp8 is an echo engine, which can be made to break."""
    stack = Stack(
        own_valkey.url,
        BITLADDER_CAPTURE__SHARE="1",
        BITLADDER_CAPTURE__FOLDER=str(tmp_path / "capture"),
        BITLADDER_FILES__STORE=str(tmp_path / "files"),
        BITLADDER_WEBHOOKS__ALLOWED_NETWORKS='["127.0.0.0/8"]',
    )
    with (tmp_path / "log").open("wb") as stack.output, receiving() as receiver:
        try:
            stack.intake()
            ports = {tier: str(free_port()) for tier in ("int4", "int8", "fp8")}
            workers = {}
            for tier, port in ports.items():
                stack.environment["BITLADDER_WORKER__ENGINE"] = "echo" if tier == "fp8" else "vllm"
                workers[tier] = stack.start("worker", "--tier", tier, "--metrics-port", port)
            wait_until(lambda: all(stack.live(tier) for tier in ports), "a worker of each tier is live", 600)
            addresses = [part for port in ports.values() for part in ("--worker", f"127.0.0.1:{port}")]
            intake = ("--intake", f"127.0.0.1:{stack.port}", "--port", str(free_port()))
            command = [sys.executable, "-m", "monitoring.check_live", "--seconds", "90", *intake, *addresses]
            checking = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            wait_until(lambda: "_routed_total{" in stack.http.get("/metrics").text, "it sends requests")
            trouble(stack, workers["int8"], f"{receiver.url}/hooks")
            said, _ = checking.communicate(timeout=400)
        finally:
            stack.kill()

    sys.stdout.write(said)
    assert checking.returncode == 0, said
    assert "no engine is vLLM" not in said
    data, purpose, empty = map(int, re.findall(r"^(\d+) data, (\d+) empty on purpose, (\d+) EMPTY", said, re.M)[0])
    assert (data > 140, purpose < 10, empty) == (True, True, 0)
