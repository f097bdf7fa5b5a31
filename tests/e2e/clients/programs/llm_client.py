"""Simon Willison's `llm` on its command line: by chat and by responses, streamed and not, with a schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from checks import MODEL, URL, check, run_checks

LLM = str(Path(sys.executable).with_name("llm"))
TEXT = "a paper clip holds pages together"


def llm(*arguments: str) -> str:
    command = [LLM, "openai", "endpoint", URL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@check
def models() -> None:
    assert MODEL in llm("--models")


@check
def chat() -> None:
    assert llm(TEXT, "-m", MODEL)
    assert llm(TEXT, "-m", MODEL, "--no-stream")


@check
def responses() -> None:
    assert llm(TEXT, "-m", MODEL, "--responses")
    assert llm(TEXT, "-m", MODEL, "--responses", "--no-stream")


@check
def a_schema() -> None:
    assert '"name"' in llm("Name a city.", "-m", MODEL, "--schema", "name, age int", "-o", "max_tokens", "64")


@check
def a_system_prompt() -> None:
    assert llm(TEXT, "-m", MODEL, "-s", "Answer shortly.", "--responses")


if __name__ == "__main__":
    run_checks()
