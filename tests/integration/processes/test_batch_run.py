"""`bitladder batch run` as people use it: killed, interrupted, piped, and with lines that fail."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.conftest import ROOT, Stack, wait_until

Lines = list[dict[str, Any]]
# Answers come one after the other, over some seconds.
SLOW = {"BITLADDER_ECHO__TTFT_MS": "150"}


def batch(stack: Stack, *arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bitladder.cli.main", "batch", "run", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=stack.environment, stdin=pipe, stdout=pipe, stderr=pipe)


def ended(process: subprocess.Popen[bytes], text: bytes = b"") -> tuple[int, bytes, str]:
    out, err = process.communicate(text, timeout=120)
    return process.returncode, out, err.decode()


def read(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def openai_lines(count: int) -> bytes:
    lines = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "smollm2", "prompt": f"line {number}", "max_tokens": 2},
        }
        for number in range(1, count + 1)
    ]
    return b"\n".join(json.dumps(line).encode() for line in lines)


def executions(log: Path) -> Counter[str]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(line["job_id"] for line in lines if line["event"] == "begin")


def texts(lines: Lines) -> list[str]:
    return [line["response"]["body"]["choices"][0]["text"] for line in lines]


def queued(store: redis.Redis) -> list[str]:
    return [str(job_id, "ascii") for job_id in store.lrange("rq:queue:smollm2:int4:batch", 0, -1)]  # type: ignore[arg-type]  # bytes


def test_a_run_that_is_killed_goes_on_and_every_line_runs_once(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    log, source, output = tmp_path / "log", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    stack = make_stack(**SLOW, BITLADDER_ECHO__EXECUTION_LOG=str(log))
    stack.start("worker", "--tier", "int4")
    source.write_bytes(openai_lines(200))
    arguments = (source, "-o", output, "--max-in-flight", "50")
    part = tmp_path / "out.jsonl.part"

    for at_least in (20, 80):
        process = batch(stack, *arguments)
        wait_until(lambda n=at_least: part.exists() and part.read_bytes().count(b"\n") >= n, "some lines are written")  # type: ignore[misc]
        process.kill()
        ended(process)
    part.write_bytes(part.read_bytes()[:-10])  # as the machine's end would leave it
    status, out, said = ended(batch(stack, *arguments, "--json"))

    assert status == 0, said
    assert "going on" in said
    assert {name: json.loads(out)[name] for name in ("lines", "answered", "failed")} == {
        "lines": 200, "answered": 200, "failed": 0
    }  # fmt: skip
    assert [line["custom_id"] for line in read(output)] == [f"request-{number}" for number in range(1, 201)]
    assert texts(read(output)) == [f"line {number}" for number in range(1, 201)]
    assert sorted(executions(log).values()) == [1] * 200
    assert not part.exists()


def test_lines_that_fail_stop_nothing_and_run_again_when_asked(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    log, source, output = tmp_path / "log", tmp_path / "in.txt", tmp_path / "out.jsonl"
    stack = make_stack(BITLADDER_ECHO__EXECUTION_LOG=str(log))
    stack.start("worker", "--tier", "int4")
    lines = [
        "plain text",
        '{"prompt": "x", "model": "unknown"}',
        '{"messages": [{"role": "user", "content": "hi you"}]}',
    ]
    source.write_text("\n".join([*lines, "", '{"prompt": "x", "max_tokens": 0, "custom_id": "refused"}']))
    arguments = (source, "-o", output, "--set", "max_tokens=2", "--as-completed")

    wrong, _, why = ended(batch(stack, *arguments, "--max-tier", "int9"))
    assert (wrong, why.count("\n"), output.with_name("out.jsonl.state").exists()) == (2, 1, False)
    assert "X-Max-Tier must be one of int4" in why
    status, _, said = ended(batch(stack, *arguments))
    first = {line["custom_id"]: line for line in read(output)}
    again, _, _ = ended(batch(stack, *arguments))
    retried, _, _ = ended(batch(stack, *arguments, "--retry-failed"))
    last = {line["custom_id"]: line for line in read(output)}

    assert (status, again, retried) == (1, 1, 1), said
    assert sorted(first) == sorted(last) == ["1", "2", "3", "refused"]
    assert first["1"]["response"]["body"]["choices"][0]["text"] == "plain text"
    assert first["3"]["response"]["body"]["choices"][0]["message"]["content"] == "hi you"
    assert first["2"]["response"]["status_code"] == 404
    assert first["2"]["response"]["body"]["error"]["code"] == "model_not_found"
    assert (first["refused"]["response"]["status_code"], first["refused"]["error"]) == (400, None)
    assert "1 model_not_found" in said
    assert {name for name in first if first[name]["id"] != last[name]["id"]} == {"2", "refused"}
    assert sorted(executions(log).values()) == [1, 1]


def test_ctrl_c_leaves_the_jobs_or_cancels_them_and_says_how_to_go_on(
    make_stack: Callable[..., Stack], store: redis.Redis, tmp_path: Path
) -> None:
    stack, source, output = make_stack(), tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(openai_lines(30))
    arguments = (source, "-o", output, "--max-in-flight")

    def interrupt(count: int, *more: str) -> tuple[int, bytes, str]:
        process = batch(stack, *arguments, str(count), *more)
        wait_until(lambda: len(queued(store)) == count, "jobs are in flight")
        while process.poll() is None:  # people press it more than once
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        return ended(process)

    status, out, said = interrupt(8)
    left = queued(store)
    cancelled = interrupt(9, "--cancel-on-interrupt")
    states = {store.hget(f"rq:job:{job_id}", "status") for job_id in queued(store)}
    stack.start("worker", "--tier", "int4")
    last = ended(batch(stack, *arguments, "20"))

    assert (status, out) == (130, b"")
    assert "8 jobs in flight go on" in said
    assert f"in {output}.part" in said
    assert "same command again" in said
    assert len(left) == 8
    assert (cancelled[0], states) == (130, {b"canceled"})
    assert "9 jobs in flight were cancelled" in cancelled[2]
    assert last[0] == 0, last[2]
    assert texts(read(output)) == [f"line {number}" for number in range(1, 31)]


def test_a_pipe_has_answers_alone_in_order(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.start("worker", "--tier", "int4")

    status, out, said = ended(batch(stack, "-", "-o", "-", "--max-in-flight", "7"), gzip.compress(openai_lines(40)))

    assert status == 0, said
    assert texts([json.loads(line) for line in out.splitlines()]) == [f"line {number}" for number in range(1, 41)]
    assert "40 of 40 lines" in said
