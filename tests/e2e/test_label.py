"""Labels from a real vLLM stack of two tiers, beside interactive requests that find a free slot nevertheless."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import httpx2
import pytest

from bitladder.cli.private_stack import private_stack
from calibration.commands.app import main
from tests.conftest import ROOT

pytestmark = pytest.mark.vllm
CONFIG = """
[vllm]
python = "{python}"
args = ["--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "4"]
[vllm.env]
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
[[models.smollm2.tiers]]
name = "int4"
price_per_hour = 0.70
slots = 4
checkpoint = "{{cache}}/smollm2/int4"
[[models.smollm2.tiers]]
name = "int8"
price_per_hour = 1.00
slots = 4
checkpoint = "{{cache}}/smollm2/int8"
"""
PROMPTS = [
    {"prompt": f"Name {count} animals that live in the {place}.", "source": place, "kind": "wish"}
    for count in (2, 3, 5)
    for place in ("sea", "forest", "desert", "city")
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    python = ROOT / ".venv-engine" / "bin" / "python"
    if not python.exists():
        message = "there is no .venv-engine: `make engine-env checkpoints` makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    path = tmp_path / "bitladder.toml"
    path.write_text(CONFIG.format(python=python))
    return path


def test_a_stack_is_labelled_in_its_idle_slots(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "labels"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    with private_stack(str(config), {"worker.engine": "vllm"}) as stack:
        stack.wait_until_live(300, lambda _: None)
        tiers = ["--reference", "int8", "--tiers", "int4", "--url", stack.url, "--config", str(config)]
        done, waits_ms = threading.Event(), list[float]()
        client = threading.Thread(target=_interactive, args=(stack.url, done, waits_ms))
        client.start()
        try:
            with pytest.raises(SystemExit, match="0"):
                main(["label", str(prompts), *tiers, "-o", str(out), "--answer-tokens", "16", "--json"])
        finally:
            done.set()
            client.join()
        jobs = httpx2.get(f"{stack.url}/v1/jobs", params={"tag": "label", "limit": 200}).json()["data"]
    report = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]

    assert report["labels"] == len(lines) == len(PROMPTS)
    assert report["spent"]["cost"] > 0
    assert all(len(digest) == 64 for digest in report["checkpoints"].values())
    assert all(line["tiers"]["int4"]["answer"]["kl"] > 0 for line in lines)
    assert {job["lane"] for job in jobs} == {"batch"}
    assert all(job["tier"] == job["floor"] for job in jobs)
    # The slots were full of jobs that run for a second or more; an interactive one took the place of the youngest.
    assert len(waits_ms) >= 5
    assert sorted(waits_ms)[len(waits_ms) // 2] < 500


def _interactive(url: str, done: threading.Event, waits_ms: list[float]) -> None:
    body = {"model": "smollm2@int4", "prompt": "One two", "max_tokens": 4}
    while not done.is_set():
        answer = httpx2.post(f"{url}/v1/completions", json=body, timeout=120)
        waits_ms.append(float(answer.headers["X-Queue-Ms"]))
