"""The log of engines goes to stderr, whichever stream that is at the moment."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from bitladder.settings.log_section import LogSettings
from calibration.commands.engine_log import log_to_stderr


@pytest.fixture(autouse=True)
def former_configuration() -> Iterator[None]:
    former = structlog.get_config()
    yield
    structlog.configure(**former)


def test_a_stream_that_was_closed_since_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    log_to_stderr(LogSettings())
    first.close()
    monkeypatch.setattr(sys, "stderr", second)

    structlog.get_logger().info("engine started")

    assert "engine started" in second.getvalue()


def test_what_an_engine_prints_is_shown_at_debug_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("info", "debug"):
        log_to_stderr(LogSettings.model_validate({"level": level}))
        structlog.get_logger().debug("engine output", line=f"at {level}")

    assert "at debug" in (shown := capsys.readouterr().err)
    assert "at info" not in shown
