"""workers/engine_health/fault_window.py: which share of the requests broke by the engine's fault."""

from __future__ import annotations

import pytest

from workers.engine_health.blame import Blame, FaultyAttempt
from workers.engine_health.fault_window import MANY_FAULTS, MIN_FAULTS, WINDOW, FaultWindow


def test_one_fault_among_a_few_requests_says_nothing() -> None:
    window = FaultWindow()
    for number in range(MIN_FAULTS):
        assert not window.exceeds(0.01)
        window.note(is_fault=number > 0)

    assert not window.exceeds(0.01)
    window.note(is_fault=True)
    assert window.exceeds(0.01)


@pytest.mark.parametrize(("every", "exceeds"), [(101, False), (90, True)])
def test_the_share_of_faults_is_that_of_the_last_requests(every: int, exceeds: bool) -> None:
    window = FaultWindow()
    for _ in range(WINDOW):
        window.note(is_fault=True)  # long ago
    for number in range(WINDOW):
        window.note(is_fault=number % every == 0)

    assert window.exceeds(0.01) is exceeds


def test_a_ratio_of_one_never_restarts() -> None:
    window = FaultWindow()
    for _ in range(WINDOW):
        window.note(is_fault=True)

    assert not window.exceeds(1)


def window_of(count: int, *, sound: int = 0, attempt: int = 1) -> FaultWindow:
    """Return a window with the undecided faults of so many jobs."""
    window = FaultWindow()
    for number in range(count):
        window.note(is_fault=True, faulty=FaultyAttempt(f"job-{number}", attempt))
    for _ in range(sound):
        window.note(is_fault=False)
    return window


@pytest.mark.parametrize(
    ("blame", "exceeds"), [(Blame.ENGINE, True), (Blame.PROMPT, False), (Blame.UNCLEAR, False), (Blame.NOBODY, False)]
)
def test_a_job_s_fault_is_the_engine_s_only_once_that_is_known(blame: Blame, exceeds: bool) -> None:
    window = window_of(10, sound=10)
    assert (window.exceeds(0.01), window.may_exceed(0.01)) == (False, True)

    window.learn({faulty: blame for faulty in window.undecided()[:MIN_FAULTS]})
    assert window.exceeds(0.01) is exceeds
    assert window.may_exceed(0.01)
    window.learn({faulty: blame for faulty in window.undecided()})

    assert window.undecided() == []
    assert window.may_exceed(0.01) is exceeds


@pytest.mark.parametrize(
    ("count", "sound", "attempt", "blame", "is_broken"),
    [
        (MANY_FAULTS, MANY_FAULTS - 1, 1, Blame.UNCLEAR, True),
        (MANY_FAULTS, MANY_FAULTS, 1, Blame.UNCLEAR, False),
        (MANY_FAULTS - 1, 0, 1, Blame.UNCLEAR, False),
        (200, 0, 2, Blame.UNCLEAR, False),  # they had broken another engine before
        (200, 0, 1, Blame.PROMPT, False),  # or have since
    ],
)
def test_more_faults_than_answers_on_this_engine_only_are_no_prompts(
    count: int, sound: int, attempt: int, blame: Blame, is_broken: bool
) -> None:
    window = window_of(count, sound=sound, attempt=attempt)
    window.learn({faulty: blame for faulty in window.undecided()})

    assert window.is_broken() is is_broken
