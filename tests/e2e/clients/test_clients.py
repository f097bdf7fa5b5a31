"""Other people's clients, each in an environment of its own, over every call that they have: `make clients`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import ROOT, Stack

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENTS = ROOT / ".venv-clients"
PYTHON_CLIENTS = {
    "openai": "openai_python.py",
    "agents": "openai_agents.py",
    "langchain": "langchain_client.py",
    "litellm": "litellm_client.py",
    "llm": "llm_client.py",
    "guidellm": "guidellm_client.py",
}
NODE_CLIENTS = ("openai_node.mjs", "ai_sdk.mjs")

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    stack = Stack(redis_url)
    stack.intake()
    for tier in ("int4", "int8", "fp8"):
        stack.worker(tier)
    yield stack
    stack.stop()


@pytest.mark.parametrize("client", PYTHON_CLIENTS)
def test_every_call_of_a_python_client_is_answered_as_it_expects(stack: Stack, client: str, tmp_path: Path) -> None:
    python = ENVIRONMENTS / client / "bin/python"
    if not python.exists():
        pytest.skip("its environment is missing: make clients-env")

    assert failures(stack, [str(python), str(PROGRAMS / PYTHON_CLIENTS[client])], tmp_path) == ""


@pytest.mark.parametrize("program", NODE_CLIENTS)
def test_every_call_of_a_node_client_is_answered_as_it_expects(stack: Stack, program: str, tmp_path: Path) -> None:
    node, modules = shutil.which("node"), ENVIRONMENTS / "node"
    if node is None or not (modules / "node_modules").exists():
        pytest.skip("Node or its packages are missing: make clients-env")
    # Node looks for packages beside a program, so it runs beside them.
    for name in ("checks.mjs", program):
        shutil.copy(PROGRAMS / name, modules / name)

    assert failures(stack, [node, str(modules / program)], tmp_path) == ""


def failures(stack: Stack, command: list[str], home: Path) -> str:
    """Run a program and return which of its checks failed, and what they raised."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),  # clients keep settings and caches there
        "OPENAI_BASE_URL": f"{stack.url}/v1",
        "OPENAI_API_KEY": "none-needed",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    assert results, done.stderr
    return "\n".join(f"{result['check']}: {result['error']}" for result in results if result["error"])
