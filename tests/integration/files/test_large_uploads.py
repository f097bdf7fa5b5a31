"""An intake takes and checks the largest file that a batch may have in little memory, and serves others meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Stack, wait_until

CHAT = "/v1/chat/completions"
# 50,000 lines of this are 199 MB of 2^20 bytes; files.max_mb is 200.
CONTENTS = (("system", "x" * 2000), ("user", "y " * 985))
BODY = {"model": "smollm2", "messages": [{"role": role, "content": content} for role, content in CONTENTS]}
MAX_RSS = 150 * 2**20
# A hundred times what such a request takes alone: it is one among those of a busy machine.
MAX_LATENCY_S = 0.25


def many_lines(path: Path) -> Path:
    """Write 50,000 lines, of which the last one is wrong."""
    with path.open("wb") as file:
        for number in range(49_999):
            line = {"custom_id": f"request-{number}", "method": "POST", "url": CHAT, "body": BODY}
            file.write(json.dumps(line).encode() + b"\n")
        file.write(b"no JSON")
    return path


def one_line(path: Path) -> Path:
    with path.open("wb") as file:
        for _ in range(199):
            file.write(b"x" * 2**20)
    return path


def peak_rss(stack: Stack) -> int:
    status = Path(f"/proc/{stack.processes[0].pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@contextmanager
def asking(stack: Stack, latencies: list[float]) -> Iterator[None]:
    """Send small requests while the block runs."""
    is_over = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=stack.url, timeout=30) as client:
            while not is_over.wait(0.005):
                start = time.perf_counter()
                client.get("/v1/models").raise_for_status()
                latencies.append(time.perf_counter() - start)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def upload(stack: Stack, path: Path) -> str:
    """Upload a file by a process of its own, and return its id."""
    command = ["curl", "--silent", f"{stack.url}/v1/files", "-F", "purpose=batch", "-F", f"file=@{path}"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    return str(answer["id"])


def check(stack: Stack, file_id: str) -> list[tuple[str, int]]:
    """Make a batch of a file; return what is wrong with it, by code and line."""
    batch = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    url = f"/v1/batches/{stack.http.post('/v1/batches', json=batch).raise_for_status().json()['id']}"
    wait_until(lambda: stack.http.get(url).json()["status"] == "failed", "the file is checked", 120)
    return [(error["code"], error["line"]) for error in stack.http.get(url).json()["errors"]["data"]]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_largest_file_is_taken_and_checked_in_little_memory_while_others_are_served(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "store"))
    stack.intake()
    latencies: list[float] = []
    lines, line = many_lines(tmp_path / "lines.jsonl"), one_line(tmp_path / "line.jsonl")

    with asking(stack, latencies):
        errors_of_lines = check(stack, upload(stack, lines))
        errors_of_line = check(stack, upload(stack, line))

    assert errors_of_lines == [("invalid_json_line", 50_000)]
    assert errors_of_line == [("request_too_large", 1)]
    p99_s = sorted(latencies)[int(len(latencies) * 0.99)]
    figures = f"{peak_rss(stack) / 2**20:.0f} MiB, p99 {p99_s * 1000:.0f} ms"
    assert peak_rss(stack) < MAX_RSS, figures
    assert p99_s < MAX_LATENCY_S, figures
    print(figures)  # noqa: T201  (pytest -s shows it)
