"""The commands as users type them: the demo, the Procfile under honcho, and looking at things."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from typer.testing import CliRunner

from bitladder.cli.commands import app
from bitladder.client import Client
from bitladder.errors import ConfigError
from tests.conftest import ROOT, Stack, free_port, wait_until
from tests.warm_start import BITLADDER

BIN = Path(sys.executable).parent


def bitladder(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)


def warm(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return BITLADDER.run("bitladder.cli.main", *arguments, env=environment)


def test_the_demo_answers_every_prompt_says_where_and_why_and_escalates_at_the_settings_that_ship() -> None:
    for _ in range(3):  # a machine that is busy sends the burst more slowly than int4 answers it, and the demo says so
        done = bitladder("demo", "--engine", "echo")
        if "Nothing escalated" not in " ".join(done.stdout.split()):
            break

    assert done.returncode == 0, done.stderr
    assert "40 of 40 prompts were answered by the echo engine" in done.stdout
    assert "priority 9 >= 8" in done.stdout
    assert "raised to a minimum" in done.stdout
    assert "the first answer, by " in done.stderr
    escalated = re.search(r"higher tiers took (\d+), until 16 waited", " ".join(done.stdout.split()))
    assert escalated
    assert int(escalated[1]) > 0
    rows = {line.split("  ")[0].strip(): line.split() for line in done.stdout.splitlines()}
    assert rows["kept at int4 by X-Max-Tier"][5:8] == ["112", "0", "0"]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_demo_whose_engine_does_not_start_fails_with_its_reason() -> None:
    missing = {"BITLADDER_VLLM__CACHE_DIR": "/nowhere"}

    done = bitladder("demo", "--start-timeout-s", "20", environment=dict(os.environ) | missing)

    assert done.returncode == 1
    assert "/nowhere/smollm2/int4" in done.stderr
    assert "make checkpoints" in done.stderr


def test_the_procfile_s_processes_run_under_honcho(store: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    del store
    port, log = free_port(), tmp_path / "honcho.log"
    environment = dict(os.environ) | {
        "BITLADDER_REDIS__URL": redis_url,
        "BITLADDER_INTAKE__PORT": str(port),
        "BITLADDER_WORKER__ENGINE": "echo",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    with log.open("w") as output:
        # The Procfile's own Redis is left out: this test has one.
        names = ["web", "worker_int4", "worker_int8", "worker_fp8"]
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", *names], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                wait_until(lambda: _is_answered(client), "a job is answered", 30)
        finally:
            honcho.send_signal(signal.SIGTERM)
            honcho.wait(40)


def test_up_runs_the_whole_stack_with_a_redis_of_its_own_until_it_is_told_to_stop(tmp_path: Path) -> None:
    port, redis_port = free_port(), free_port()
    environment = dict(os.environ) | {
        "BITLADDER_REDIS__URL": f"redis://127.0.0.1:{redis_port}/0",
        "BITLADDER_REDIS__DATA_DIR": str(tmp_path / "valkey"),
        "BITLADDER_INTAKE__PORT": str(port),
    }
    command = [sys.executable, "-m", "bitladder.cli.main", "up", "--engine", "echo"]
    with (tmp_path / "up.log").open("w") as output:
        up = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        with Client(f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: _is_answered(client), "a job is answered", 30)
        up.send_signal(signal.SIGINT)
        up.wait(40)

    assert (tmp_path / "valkey" / "appendonlydir").is_dir()
    for number in (port, redis_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", number)) != 0


def test_config_show_says_where_each_value_came_from() -> None:
    done = bitladder("config", "show", environment=dict(os.environ) | {"BITLADDER_QUEUE__LEASE_S": "5"})

    assert "queue.lease_s = 5.0  # environment variable BITLADDER_QUEUE__LEASE_S" in done.stdout
    assert "queue.max_attempts = 3  # default" in done.stdout
    assert 'models.smollm2.tiers.int4.hardware = "L4"  # bitladder.toml' in done.stdout


def test_submit_result_cancel_and_queues_work_from_the_shell(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    environment = stack.environment | {"BITLADDER_URL": stack.url}

    answer = bitladder("submit", "aa bb", "--max-tokens", "3", "--wait", environment=environment)
    streamed = warm("submit", "aa bb", "--max-tokens", "3", "--stream", environment=environment)
    job_id = warm("submit", "cc", environment=environment).stdout.strip()
    result = warm("result", job_id, "--wait", "--json", environment=environment)
    late = warm("cancel", job_id, environment=environment)
    queues = warm("queues", "--json", environment=environment)
    missing = warm("result", "nobody", environment=environment)
    explained = warm("explain", job_id, environment=environment)
    route = warm("explain", "--prompt", "aa", "--min-tier", "int8", environment=environment)

    assert "served    int4; waited " in explained.stdout
    assert route.stdout.startswith("floor     int8: entropy 0.00 <= 4.5, raised to a minimum (article@1)\n")
    assert "  yes     entropy 0.00 <= 4.5 -> int4\n" in route.stdout
    assert "now       no live worker; 0 jobs ahead" in route.stdout
    assert answer.stdout == "aa bb aa\n"
    assert streamed.stdout == "aa bb aa\n"
    assert json.loads(result.stdout)["status"] == "finished"
    assert late.stdout == "finished\n"
    assert json.loads(queues.stdout)["data"][0]["tiers"][0]["live_workers"] == 1
    assert (missing.returncode, missing.stderr) == (3, "bitladder: there is no job 'nobody'\n")


def test_submit_takes_a_body_from_a_file_any_field_a_lane_and_a_route(
    make_stack: Callable[..., Stack], tmp_path: Path, store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    body, prompt = tmp_path / "body.json", tmp_path / "prompt.txt"
    body.write_text('{"prompt": "aa bb", "stop": ["x"], "max_completion_tokens": 5}')
    prompt.write_text("Hello\nthere")

    def submitted(*arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
        done = CliRunner().invoke(app, ["submit", "--url", stack.url, "--json", *arguments])
        assert done.exit_code == 0, done.output
        job = json.loads(done.stdout)
        return job, json.loads(store.hget(f"rq:job:{job['id']}", "data") or b"")[3]

    job, request = submitted("--file", str(body), "--lane", "batch", "--set", "temperature=0.2", "--set", "user=me")
    _, text = submitted("--file", str(prompt), "--chat", "--max-tokens", "7")
    _, vectors = submitted("--body", '{"input": ["a", "b"]}', "--endpoint", "/v1/embeddings")
    hook = ("--webhook", "https://example.com/done", "--webhook-secret", f"whsec_{'c2VjcmV0' * 5}")
    told, _ = submitted("x", *hook)
    refused = [
        CliRunner().invoke(app, ["submit", "--url", stack.url, *arguments])
        for arguments in (("x", "--file", str(body)), (), ("x", "--set", "temperature"), ("x", "--body", "[]"))
    ]

    assert job["queue"].endswith(":batch")
    assert request["body"] == json.loads(body.read_text()) | {"model": "smollm2", "temperature": 0.2, "user": "me"}
    assert text["body"]["messages"] == [{"role": "user", "content": "Hello\nthere"}]
    assert text["body"]["max_tokens"] == 7
    assert vectors == vectors | {"endpoint": "/v1/embeddings", "body": {"input": ["a", "b"], "model": "smollm2"}}
    assert "https://example.com/done" in str(store.hvals(f"rq:job:{told['id']}"))
    assert [type(done.exception) for done in refused] == [ConfigError] * 4


def test_consent_and_a_maximum_cost_are_said_and_explained_from_the_shell(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    environment = stack.environment | {"BITLADDER_URL": stack.url}
    consent = ("--min-tier", "int8", "--allow-below-floor", "--max-cost", "0.00001")

    would = warm("explain", "--prompt", "aa", *consent, environment=environment)
    below = warm("submit", "aa bb", *consent, "--max-tokens", "3", "--wait", "--json", environment=environment)
    why = warm("explain", json.loads(below.stdout)["id"], environment=environment)
    broken = json.loads(warm("submit", "echo:fault", "--max-tier", "int4", "--json", environment=environment).stdout)
    warm("result", broken["id"], "--wait", environment=environment)
    broke = warm("explain", broken["id"], environment=environment)

    assert "allowed   int8, fp8; with consent int4\n" in would.stdout
    assert "now       int4; 0 jobs ahead" in would.stdout
    assert "served    int4, below its floor with consent; waited " in why.stdout
    assert "costs of its tokens now\n  at int8: not known\n" in why.stdout
    assert "status    failed, attempts: 3: an echo fault, as asked for\nlast at   int4; waited " in broke.stdout


def _is_answered(client: Client) -> bool:
    try:
        job = client.submit({"model": "smollm2", "prompt": "x", "max_tokens": 1})
        return bool(client.wait(job["id"], timeout_s=5)["status"] == "finished")
    except Exception:
        return False
