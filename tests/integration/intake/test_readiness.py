"""An intake that lacks a part of itself says so."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import httpx2
import pytest
import redis
import uvicorn
from starlette.applications import Starlette
from structlog.testing import capture_logs

from bitladder.process import supervision as background
from dispatcher.app import create_app
from tests.conftest import free_port, make_settings, wait_until


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the intake serves")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_an_intake_that_lacks_a_background_task_is_not_ready_until_it_runs_again(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SETTLED_S", 0.3)
    app = create_app(make_settings(redis_url))
    with served(app) as url, capture_logs() as logs:
        names = {task.get_name() for task in app.state.intake.background._tasks}
        before = httpx2.get(f"{url}/readyz").status_code
        admission = app.state.intake.admission
        refresh, admission.refresh = admission.refresh, None  # a defect of the next sample

        wait_until(lambda: httpx2.get(f"{url}/readyz").status_code == 503, "the intake is not ready")
        broken = httpx2.get(f"{url}/readyz").json()["error"]
        served_nevertheless = httpx2.get(f"{url}/v1/models").status_code
        admission.refresh = refresh
        wait_until(lambda: httpx2.get(f"{url}/readyz").status_code == 200, "the intake is ready")

    assert names >= {"admission", "look up of waiters' jobs", "outcome channel"}
    assert (before, served_nevertheless) == (200, 200)
    assert broken["code"] == "not_ready"
    assert "admission" in broken["message"]
    assert {entry["task"] for entry in logs if entry["log_level"] == "error"} == {"admission"}
    assert "not callable" in str(logs[0]["error"])
