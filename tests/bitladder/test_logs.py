"""Whatever a process says of itself is a line of JSON on stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings
from tests.conftest import ROOT, make_settings

PROMPT = "Zyxwv-ninety-seven-sealions"


def lines_of(program: str, level: str = "info") -> list[dict[str, Any]]:
    start = f"from bitladder.logs.setup import configure_logs; configure_logs({level!r})\n"
    ended = subprocess.run(
        [sys.executable, "-c", start + program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ended.stdout == ""
    return [json.loads(line) for line in ended.stderr.splitlines()]


LIBRARY = "import logging; logging.getLogger('uvicorn.error').warning('odd %s', 'request')"
WARNING = "import warnings; warnings.warn('old way')"
UNCAUGHT = f"prompt = {PROMPT!r}\nraise ValueError('odd')"
IN_THREAD = (
    "import threading\ndef broken(): raise ValueError('odd')\nt = threading.Thread(target=broken); t.start(); t.join()"
)
IN_TASK = """import asyncio
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.05)
asyncio.run(main())"""
UNRAISABLE = "class Odd:\n    def __del__(self): raise ValueError('odd')\nOdd()"


@pytest.mark.parametrize(
    ("program", "fields"),
    [
        (LIBRARY, {"level": "warning", "logger": "uvicorn", "event": "odd request"}),
        (WARNING, {"level": "warning", "logger": "python"}),
        (UNCAUGHT, {"level": "critical", "event": "uncaught exception"}),
        (IN_THREAD, {"level": "critical", "event": "uncaught exception"}),
        (IN_TASK, {"level": "error", "logger": "asyncio"}),
        (UNRAISABLE, {"level": "error", "event": "exception ignored"}),
    ],
    ids=["library", "warning", "uncaught", "in a thread", "in a task", "unraisable"],
)
def test_what_others_say_is_a_line_of_the_log(program: str, fields: dict[str, str]) -> None:
    (line,) = lines_of(program)

    assert fields.items() <= line.items()
    assert "ts" in line
    if fields.get("logger") not in ("uvicorn", "python"):
        assert "Traceback" in line["exception"]


def test_a_traceback_shows_no_values_of_variables() -> None:
    program = f"def answer(prompt): raise ValueError('odd')\nanswer({PROMPT!r}.upper().title())"
    (line,) = lines_of(program)

    assert "in answer" in line["exception"]
    assert PROMPT.title() not in json.dumps(line)


def test_counts_of_repeated_lines_are_written_before_the_process_ends() -> None:
    first, count = lines_of("import structlog\nfor _ in range(5): structlog.get_logger().warning('odd')")

    assert "repeated" not in first
    assert count["repeated"] == 4


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", 5), ("info", 4), ("warning", 3), ("error", 2), ("critical", 1), ("WARNING", 3)]
)
def test_what_is_less_than_the_level_is_not_written(level: str, shown: int) -> None:
    program = "import structlog; log = structlog.get_logger()\n"
    program += "for level in ('debug', 'info', 'warning', 'error', 'critical'): getattr(log, level)('odd')"

    assert len(lines_of(program, level)) == shown


def test_the_level_is_a_setting() -> None:
    settings = load_settings(str(ROOT / "bitladder.toml"), environ={"BITLADDER_LOG__LEVEL": "DEBUG"}).settings

    assert settings.log.level == "debug"
    assert make_settings("redis://127.0.0.1:1/0").log.level == "info"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"log\.level.*'debug', 'info', 'warning', 'error' or 'critical'.*'loud'"):
        load_settings(str(ROOT / "bitladder.toml"), environ={"BITLADDER_LOG__LEVEL": "loud"})
