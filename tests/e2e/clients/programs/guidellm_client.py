"""GuideLLM's benchmark over the three text formats; its report must count every request as answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import MODEL, URL, check, run_checks

GUIDELLM = str(Path(sys.executable).with_name("guidellm"))
TARGET = URL.removesuffix("/v1")
REQUESTS = 8


def benchmark(request_format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prompts, report = Path(folder, "prompts.txt"), Path(folder, "report.json")
        prompts.write_text("a paper clip holds pages together\n" * REQUESTS)
        backend = {"kind": "openai_http", "target": TARGET, "model": MODEL, "request_format": request_format}
        arguments = {
            "--backend": backend | {"extras": {"body": {"max_tokens": 8}}},
            "--profile": {"kind": "concurrent", "streams": [2]},
            "--constraint": {"kind": "max_requests", "count": REQUESTS},
            "--data": {"kind": "text_file", "path": str(prompts)},
            "--output": {"kind": "json", "path": str(report)},
        }
        flat = [part for name, value in arguments.items() for part in (name, json.dumps(value))]
        command = [GUIDELLM, "run", *flat, "--disable-console"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ)
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
        totals = json.loads(report.read_text())["benchmarks"][0]["metrics"]["request_totals"]
        assert totals["successful"] == REQUESTS, totals
        assert totals["errored"] == 0, totals


@check
def responses() -> None:
    benchmark("/v1/responses")


@check
def chat() -> None:
    benchmark("/v1/chat/completions")


@check
def completions() -> None:
    benchmark("/v1/completions")


if __name__ == "__main__":
    run_checks()
