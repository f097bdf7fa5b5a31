"""The log of engines goes to stderr, whichever stream that is at the moment."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from calibration.commands.engine_log import log_to_stderr


@pytest.fixture(autouse=True)
def former_configuration() -> Iterator[None]:
    former = structlog.get_config()
    yield
    structlog.configure(**former)


def test_a_stream_that_was_closed_since_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    log_to_stderr()
    first.close()
    monkeypatch.setattr(sys, "stderr", second)

    structlog.get_logger().info("engine started")

    assert "engine started" in second.getvalue()
