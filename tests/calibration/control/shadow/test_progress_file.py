"""A day's budget is not exceeded, whenever the process ends; a label is written once."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from calibration.control.shadow.gated_requests import Purse, most_tokens, tokens_of
from calibration.control.shadow.idle_gate import EndOfPassError
from calibration.control.shadow.ledger import Budget, Usage
from calibration.control.shadow.progress_file import LABELS, PROGRESS, Progress, ShadowFolder, Waiting
from calibration.errors import DiskFullError, InputError

LABEL = {"job": "a", "served_by": "int4", "reference": "fp8", "tiers": {}}


def purse(folder: Path, budget: Budget, day: list[str] | None = None) -> Purse:
    shadow = ShadowFolder(folder)
    return Purse(budget, shadow.load(), shadow, lambda: (day or ["2026-11-30"])[0])


def test_what_was_sent_before_a_kill_counts_and_the_rest_of_the_day_has_no_more(tmp_path: Path) -> None:
    mine = purse(tmp_path, Budget(requests=3, tokens=1000))
    mine.settle(mine.take(300), Usage(1, 280, 0.5))
    mine.take(300)  # and killed

    after = purse(tmp_path, Budget(requests=3, tokens=1000))
    assert (after.progress.ledger.today.requests, after.progress.ledger.today.tokens) == (2, 580)
    with pytest.raises(EndOfPassError, match="budget: tokens: "):
        after.take(500)
    after.take(10)
    with pytest.raises(EndOfPassError, match="budget: requests: 3 of 3 used today"):
        after.take(10)


def test_requests_in_flight_are_expected_to_cost_what_others_did(tmp_path: Path) -> None:
    mine = purse(tmp_path, Budget(cost=1.0))
    mine.settle(mine.take(100), Usage(1, 100, 0.4))
    mine.take(100)  # 0.4 more, when it comes back

    with pytest.raises(EndOfPassError, match=r"budget: cost: 0\.8 of 1 used today"):
        mine.take(100)
    mine.take(50)


def test_another_day_has_a_budget_of_its_own(tmp_path: Path) -> None:
    day = ["2026-11-30"]
    mine = purse(tmp_path, Budget(requests=1), day)
    mine.settle(mine.take(1), Usage(1, 1, 0.1))
    with pytest.raises(EndOfPassError):
        mine.take(1)
    day[0] = "2026-12-01"
    mine.take(1)

    assert mine.progress.ledger.total.requests == 1


def test_the_most_that_a_request_can_take_is_known_before() -> None:
    assert most_tokens("/v1/completions", b'{"prompt": [1, 2, 3], "max_tokens": 64}') == 67
    assert most_tokens("/v1/completions", '{"prompt": "für", "max_tokens": 1}'.encode()) == 5
    assert most_tokens("/tokenize", b'{"messages": [{"role": "user"}]}') == 0
    assert tokens_of(b'{"usage": {"total_tokens": 67}}') == 67
    assert tokens_of(b'{"tokens": [1, 2]}') == 0


def test_a_label_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    folder = ShadowFolder(tmp_path)
    folder.append(LABEL)
    with (tmp_path / LABELS).open("ab") as file:
        file.write(b'{"job": "b", "ser')
    folder.load()
    folder.append(LABEL | {"job": "c"})

    assert [label["job"] for label in folder.read_labels()] == ["a", "c"]
    assert (tmp_path / LABELS).stat().st_mode & 0o077 == 0


def test_progress_comes_back_as_it_was(tmp_path: Path) -> None:
    folder, progress = ShadowFolder(tmp_path), Progress()
    progress.waiting["a"] = Waiting("1-a.jsonl", 10, "2026-11-30T01:00:00+00:00", served="int4")
    progress.counts.skip("tenant")
    folder.save(progress)

    assert folder.load() == progress
    assert (tmp_path / PROGRESS).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (PROGRESS, b"{", "cannot be read: .*with another --out all begins anew"),
        (PROGRESS, b'{"schema": 9}', "schema 9, expected 1"),
        (LABELS, b'{"job": 1}\n', "no label of a shadow"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    folder = ShadowFolder(tmp_path)

    with pytest.raises(InputError, match=expected):
        [folder.load(), *folder.read_labels()]


def test_a_label_that_a_full_disk_cuts_leaves_nothing_behind(tmp_path: Path) -> None:
    shadow = ShadowFolder(tmp_path)
    shadow.append(LABEL)
    size = shadow.labels.stat().st_size
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, allowed[1]))
    try:
        with pytest.raises(DiskFullError, match="--out"):
            shadow.append(LABEL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
        signal.signal(signal.SIGXFSZ, handler)
    shadow.append(LABEL | {"job": "b"})  # by another worker of the same pass

    assert [label["job"] for label in shadow.read_labels()] == ["a", "b"]
