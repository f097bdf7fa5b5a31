"""docs/picture/job-states.md shows the moves that the scripts say they make; scripts that end jobs say so."""

from __future__ import annotations

import re

import pytest

from bitladder.contract import State
from bitladder.queue.run_script import NAMES
from tests.bitladder.queue.moves import SCRIPTS, STATES, moves, page
from tests.conftest import ROOT

# What moves a job: these functions, or a status that is written.
MOVING = re.compile(r"(?<!function )\b(?:end_job|requeue_job|pop_oldest)\(|HSET(?:NX)?'.*'status', ")


def test_the_page_shows_the_moves_that_the_scripts_say_they_make() -> None:
    text = (ROOT / "docs/picture/job-states.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- moves -->\n(.*)\n<!-- /moves -->", text, re.DOTALL)

    assert shown
    assert shown[1] == page(), (
        "docs/picture/job-states.md: between the marks must stand what `page` in moves.py returns"
    )


def test_every_state_is_reached_and_only_dead_letters_leave_an_end() -> None:
    assert {move.after for move in moves()} == {state.value for state in State} == set(STATES[1:])
    leaving = {(move.before, move.script) for move in moves() if move.before in STATES[3:]}
    assert leaving == {("failed", "upkeep/release.lua")}


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_which_moves_it_makes_if_it_makes_any(name: str) -> None:
    (path,) = SCRIPTS.rglob(f"{name}.lua")

    text = path.read_text(encoding="utf-8")
    is_moving = path.parent.name != "batching" and MOVING.search(text) is not None  # batches have a status, too
    assert is_moving == any(move.script == path.relative_to(SCRIPTS).as_posix() for move in moves())
