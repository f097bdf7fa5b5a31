"""Which captured prompts are run again; what is not, is counted; nothing is looked at twice."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calibration.control.shadow import choosing
from calibration.control.shadow.choosing import Choice, choose, prompt_of
from calibration.control.shadow.progress_file import Progress
from calibration.control.shadow.selection import is_chosen

IDS = [f"01a22a08-{number:04x}" for number in range(20_000)]


def line(job: str, **fields: object) -> str:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    usual = {"id": job, "at": at, "tenant": "shop", "model": "smollm2", "endpoint": "/v1/completions", "prompt": "Why?"}
    return json.dumps(usual | fields) + "\n"


def choice(folder: Path, share: float = 1.0) -> Choice:
    return Choice(capture=folder, share=share, seed=7, model="smollm2", without_tenants=frozenset({"bank"}))


def test_a_share_is_chosen_by_id_and_seed_alone() -> None:
    chosen = [job for job in IDS if is_chosen(job, 7, 0.01)]

    assert 150 < len(chosen) < 250
    assert set(chosen) < {job for job in IDS if is_chosen(job, 7, 0.02)}
    assert len(set(chosen) & {job for job in IDS if is_chosen(job, 8, 0.01)}) < 20
    assert all(is_chosen(job, 7, 1.0) for job in IDS[:100])


def test_every_prompt_is_looked_at_once_however_it_was_written(tmp_path: Path) -> None:
    first, second = tmp_path / "20261130T010000-a.jsonl", tmp_path / "20261130T020000-a.jsonl"
    progress = Progress()
    first.write_text(line("a") + line("b")[:20])
    choose(choice(tmp_path), progress, set())
    assert list(progress.waiting) == ["a"]

    first.write_text(line("a") + line("b"))
    second.write_text(json.dumps({"id": "a", "served": "int4"}) + "\n" + line("c"))
    for _ in range(2):
        choose(choice(tmp_path), progress, set())

    assert list(progress.waiting) == ["a", "b", "c"]
    assert [waiting.served for waiting in progress.waiting.values()] == ["int4", "", ""]
    assert progress.counts.seen == 3
    found = prompt_of(choice(tmp_path), "b", progress.waiting["b"])
    assert found is not None
    assert found.prompt == "Why?"


def test_what_is_not_run_again_is_counted_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "1-a.jsonl").write_text(
        line("a", tenant="bank")
        + line("b", model="other")
        + line("c", prompt=" ")
        + line("d", endpoint="/v1/embeddings")
        + "no json\n"
        + line("e")
        + line("e")
        + line("f")
    )
    progress = Progress()
    choose(choice(tmp_path), progress, {"f"})

    assert list(progress.waiting) == ["e"]
    assert progress.counts.skipped == {"tenant": 1, "other_model": 1, "no_text": 2, "unreadable": 1, "repeated": 2}
    assert (progress.counts.seen, progress.counts.chosen) == (7, 7)


def test_files_that_expire_are_noticed(tmp_path: Path) -> None:
    read, unread = tmp_path / "1-a.jsonl", tmp_path / "2-a.jsonl"
    read.write_text(line("a"))
    unread.write_text(line("b") + "{")
    progress = Progress()
    choose(choice(tmp_path), progress, set())
    read.unlink()
    unread.unlink()
    choose(choice(tmp_path), progress, set())

    assert progress.counts.files_gone == 1
    assert progress.marks == {}
    assert prompt_of(choice(tmp_path), "a", progress.waiting["a"]) is None


def test_a_line_that_its_writer_never_ended_is_counted_after_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "1-a.jsonl"
    path.write_text(line("a") + line("b")[:20])
    os.utime(path, (0, 0))
    progress = Progress()
    choose(choice(tmp_path), progress, set())

    assert progress.counts.skipped == {"unreadable": 1}


def test_of_a_backlog_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "MAX_WAITING", 3)
    (tmp_path / "1-a.jsonl").write_text("".join(map(line, "abcde")))
    progress = Progress()
    choose(choice(tmp_path), progress, set())

    assert list(progress.waiting) == ["c", "d", "e"]
    assert progress.counts.skipped == {"backlog": 2}
