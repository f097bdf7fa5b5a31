"""schemathesis over the published document: what the intake answers is what the document says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Stack, wait_until
from tests.fuzz.conftest import defects
from tests.fuzzing import SEED, report, sized

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.mark.fuzz
@pytest.mark.stack
def test_what_the_intake_answers_is_what_its_document_says(stack: Stack, tmp_path: Path) -> None:
    for more in ({"prompt": "echo:fault"}, {"prompt": "aa bb", "stream": True}):  # something to look at
        stack.http.post("/v1/jobs", json={"model": "smollm2", "max_tokens": 2} | more)
    wait_until(lambda: stack.http.get("/v1/dead-letters").json()["total"] > 0, "a job is a dead letter")

    run = schemathesis(stack, tmp_path)

    line = next(iter(re.findall(r"\d+ generated.*", run.stdout)), "nothing generated")
    report("schemathesis", {"result": line, "checks": CHECKS}, line)
    assert run.returncode == 0, run.stdout[-8000:]
    assert defects(stack) == ""


def schemathesis(stack: Stack, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file"]
    command += [str(Path(__file__).with_name("schemathesis.toml")), "run", f"{stack.url}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing,stateful"]
    command += ["--max-examples", str(sized(4, 100)), "--seed", str(SEED), "--request-timeout", "20"]
    command += ["--no-color", "--warnings", "off"]
    # One has no end, the others end or stop what is tested here: tests/integration/operating has them.
    for path in ("/v1/overview/stream", "/v1/ops/drain", "/v1/ops/pause"):
        command += ["--exclude-path", path]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=sized(120, 1800))
