"""What an operator reads in the logs of a stack: started beside its Redis, through an outage, and when it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import ROOT, OwnValkey, Stack, free_port, wait_until
from tests.integration.intake.test_security import KEYS, bearer, keys_in_toml

PROMPT = "Zyxwv-ninety-seven-sealions"
BODY = {"model": "smollm2", "prompt": PROMPT, "max_tokens": 3}
OUTAGE_S = 3.0

Logged = Callable[..., Path]


def lines_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def counts(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["event"] for line in lines if "repeated" not in line)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    valkey = OwnValkey(tmp_path / "valkey")
    yield valkey
    valkey.kill()


@pytest.fixture
def stack(valkey: OwnValkey) -> Iterator[Stack]:
    stack = Stack(valkey.url, BITLADDER_WORKER__METRICS_PORT=str(free_port()))
    yield stack
    stack.stop()


@pytest.fixture
def logged(stack: Stack, tmp_path: Path) -> Logged:
    def start(*arguments: str) -> Path:
        file = tmp_path / f"{arguments[0]}.log"
        with file.open("wb") as stack.output:
            stack.start(*arguments)
        return file

    return start


def until_connected(port: int) -> None:
    """Return when somebody has looked for a server at this port, where there is none yet."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(60)
        listener.accept()[0].close()


@pytest.mark.parametrize(
    ("arguments", "at_work"), [(("serve",), "listening on"), (("worker", "--tier", "int4"), "worker ready")]
)
def test_a_process_that_starts_before_its_redis_has_nothing_to_complain_of(
    logged: Logged, valkey: OwnValkey, arguments: tuple[str, ...], at_work: str
) -> None:
    log = logged(*arguments)
    until_connected(valkey.port)
    valkey.start()
    wait_until(lambda: at_work in log.read_text(encoding="utf-8"), "it is at work", 40)

    assert [line for line in lines_in(log) if line["level"] != "info"] == []


def test_an_outage_is_told_in_few_lines_that_say_whose_they_are_and_when_it_ended(
    stack: Stack, logged: Logged, valkey: OwnValkey
) -> None:
    valkey.start()
    intake, worker = logged("serve"), logged("worker", "--tier", "int4")
    wait_until(lambda: stack._is_up() and stack.live("int4") == 1, "both are at work", 60)
    valkey.kill()
    end_s, refused = time.monotonic() + OUTAGE_S, 0
    while time.monotonic() < end_s or refused < 30:
        refused += stack.http.post("/v1/completions", json=BODY).status_code == 503
        stack.http.get("/readyz")
    valkey.start()
    for file in (intake, worker):
        wait_until(lambda file=file: "Redis is back after" in file.read_text(encoding="utf-8"), "it is back")  # type: ignore[misc]
    stack.stop()

    lines, of_worker = lines_in(intake), lines_in(worker)
    urls = [line["url"] for line in (*lines, *of_worker) if line["event"].startswith("listening on")]
    port = stack.environment["BITLADDER_WORKER__METRICS_PORT"]
    assert urls == [stack.url, f"http://127.0.0.1:{port}/metrics"]
    for count in (counts(lines), counts(of_worker)):
        assert count["Redis is unreachable"] == 1
        assert max(count.values()) <= 2, count
    refusals = [line for line in lines if line["event"] == "request refused"]
    assert sum(line.get("repeated", 1) for line in refusals) == refused
    assert len(refusals) <= 4
    assert refusals[0].items() >= {"status": 503, "code": "queue_unreachable", "path": "/v1/completions"}.items()
    assert PROMPT not in intake.read_text(encoding="utf-8")
    for of_one in (lines, of_worker):
        events = [line["event"] for line in of_one]
        back = next(number for number, event in enumerate(events) if event.startswith("Redis is back after"))
        assert [line for line in of_one[back:] if line["level"] != "info"] == []
        lost = events.index("Redis is unreachable")
        assert not {"claim failed", "waiting jobs not swept", "lease not renewed, or nothing reaped"} & {*events}
        assert {event for event in events[lost + 1 : back]} <= {"request refused", "worker reaped"}
    assert [line for line in of_worker if not {"model", "tier", "worker"} <= line.keys()] == []


def test_refusals_and_requests_are_logged_without_paths_queries_or_keys(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    keys = keys_in_toml()
    stack = make_stack(
        BITLADDER_AUTH__KEYS=keys,
        BITLADDER_QUEUE__MAX_TOTAL="1",
        BITLADDER_INTAKE__AWAIT_TIMEOUT_S="0.3",
        BITLADDER_LOG__REQUESTS="true",
    )
    stack.http.headers.update(bearer("ops"))
    with (tmp_path / "log").open("wb") as stack.output:
        stack.intake()
    late = stack.http.post("/v1/completions", json=BODY)
    wait_until(lambda: stack.http.post("/v1/jobs", json=BODY).status_code == 429, "the queue is full")
    shown = stack.http.get(f"/v1/jobs/{PROMPT}?key={PROMPT}").status_code
    stack.stop()

    lines = lines_in(tmp_path / "log")
    (refusal,) = [line for line in lines if line["event"] == "request refused"]
    (failure,) = [line for line in lines if line["event"] == "request failed"]
    answered = [(line["status"], line["path"]) for line in lines if line["event"] == "request answered"]
    assert (refusal["status"], refusal["code"], refusal["path"]) == (429, "queue_full", "/v1/jobs")
    assert refusal["tenant"]
    assert late.status_code == 504
    assert (failure["status"], failure["code"], failure["path"]) == (504, "await_timeout", "/v1/completions")
    assert failure["request_id"] == late.headers["x-request-id"]
    assert "at most 1 may" in refusal["error"]
    assert shown == 404
    assert (404, "/v1/jobs/{job_id}") in answered
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert PROMPT not in text
    assert not any(key in text for key in KEYS.values())


DEFECT = """
from bitladder.logs.setup import configure_logs
from dispatcher.app import create_app
from dispatcher.http.closing import Closing
from dispatcher.http.server import IntakeServer
from dispatcher.ops import health
from tests.conftest import make_settings
configure_logs()
health.Health = None
settings = make_settings({url!r}, intake__port={port}, intake__lame_duck_s=0)
IntakeServer(create_app(settings, None, Closing()), settings.intake, Closing()).run()
"""


def test_a_defect_is_a_line_with_its_traceback_and_the_id_that_the_client_was_told(
    redis_url: str, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        program = DEFECT.format(url=redis_url, port=port)
        intake = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=output)
    wait_until(lambda: "listening on" in log.read_text(encoding="utf-8"), "it serves", 40)
    answer = httpx2.get(f"http://127.0.0.1:{port}/health?q={PROMPT}")
    intake.terminate()
    intake.wait(20)

    (line,) = [line for line in lines_in(log) if line["level"] == "error"]
    assert answer.status_code == 500
    assert line["logger"] == "uvicorn"
    assert "TypeError: 'NoneType' object is not callable" in line["exception"]
    assert (line["status"], line["path"], line["request_id"]) == (500, "/health", answer.headers["x-request-id"])
    assert PROMPT not in log.read_text(encoding="utf-8")
