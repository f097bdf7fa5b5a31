"""docs/operating/steering.md: its commands do what the page says, straight at Redis, at the settings that ship."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

from tests.conftest import Stack
from tests.page_examples import blocks
from tests.warm_start import BITLADDER

PAGE = "docs/operating/steering.md"


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int8")  # who would serve what is moved there
    lines = [line for block in blocks(PAGE, "bash") for line in block.splitlines()]

    said = {line: _run(stack, line) for line in lines}

    pause, queues, resume, audit, drained, _, purged, cancelled, moved = said.values()
    assert "tier:smollm2:int4, by " in pause
    assert "odd answers" in queues
    assert resume == "resumed tier:smollm2:int4\n"
    until = pause.split("until ")[1].split(": ")[0]
    assert [line.split("\t")[-1] for line in audit.splitlines()[1:]] == ["was paused true", f"until {until}"]
    assert drained == "no live worker\n"
    assert (purged, cancelled) == ("would purge 0 jobs\n", "cancel: no job matches\n")
    assert moved == "would move 0 jobs\n"
    log = json.loads(_run(stack, "bitladder audit --json"))["data"]
    assert [entry["what"] for entry in log[:2]] == ["resume", "pause"]


def _run(stack: Stack, line: str) -> str:
    done = BITLADDER.run("bitladder.cli.main", *shlex.split(line)[1:], env=stack.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
