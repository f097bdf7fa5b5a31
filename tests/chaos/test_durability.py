"""kill -9 of Valkey right after the 202; a thousand times with `make durability`."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.durability import kill_again_and_again


def test_what_was_answered_with_fsync_is_there_after_a_kill_right_after_the_answer(tmp_path: Path) -> None:
    figures = kill_again_and_again(15, "fsync", tmp_path)

    assert figures.lost == []
    assert figures.answered >= figures.rounds  # else it was not the answered ones that were looked for


def test_the_same_without_a_file_loses_them(tmp_path: Path) -> None:
    figures = kill_again_and_again(2, "memory", tmp_path)

    assert len(figures.lost) == figures.answered > 0
