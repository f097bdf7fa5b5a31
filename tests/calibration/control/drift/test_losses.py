"""A promise that does not hold is revoked, one that holds as rarely as the level says; what is next is proven."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from mapie.exchangeability_testing import RiskMonitoring
from mapie.risk_control import BinaryRisk

from calibration.control.drift.drift_promise import Promise
from calibration.control.drift.loss_monitor import LossPlan, first_alarm, least_risk, log_capitals, lower_bounds
from calibration.control.drift.next_step import candidate_limits, next_step
from calibration.control.drift.stream_lines import Label
from calibration.control.promise import p_value
from calibration.statistics import log_growth, log_growth_joined

PROMISE = Promise(measure="answer.kl", threshold=0.2, alpha=0.05, delta=0.05)
PLAN = LossPlan(level=0.05, spacing=100, life=400)


def draws(share: float, count: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < share).astype(float)


def test_the_bound_is_mapie_s_with_the_whole_level() -> None:
    over = draws(0.3, 200, 1)
    risk = BinaryRisk(lambda y, _: y == 1, lambda y, _: np.ones(len(y), dtype=bool), higher_is_better=False)
    monitor = RiskMonitoring(risk, test_level=0.02, threshold=0.05, warn=False)
    monitor.update(over.astype(int), np.ones(200, dtype=int))

    bounds = lower_bounds(over, 0.01)

    assert list(bounds) == list(monitor.online_risk_lower_bound_sequence_history)


@pytest.mark.parametrize("kind", ["share", "mean"])
def test_a_promise_that_just_holds_is_revoked_as_rarely_as_the_level_says(kind: str) -> None:
    random, replays = np.random.default_rng(5), 500
    losses = (
        random.beta(0.2, 3.8, (replays, PLAN.life)) if kind == "mean" else random.random((replays, PLAN.life)) < 0.05
    )

    revoked = sum(first_alarm(row.astype(float), PROMISE, PLAN) is not None for row in losses)

    assert revoked <= PLAN.level * replays
    assert revoked >= 2  # and the level is not given away


def test_evidence_is_worth_its_stakes_on_average_and_is_the_same_in_parts() -> None:
    """As the docstring of loss_monitor.py says of R: its mean grows by 1 with each label, where the risk is alpha."""
    rows = np.array(list(itertools.product((0.0, 1.0), repeat=8)))  # all that can be, and how often it is
    chances = 0.2 ** rows.sum(axis=1) * 0.8 ** (1 - rows).sum(axis=1)
    evidence = np.array([np.exp(log_capitals(row, 0.2)).mean(axis=1) for row in rows])
    np.testing.assert_allclose(chances @ evidence, 250 + np.arange(1, 9))

    gains = draws(0.3, 40, 4) - 0.2
    one_by_one = sum(np.exp(log_growth(gains[start:], 0.2)[-1]) for start in range(40)) + 7 * np.exp(
        log_growth(gains, 0.2)[-1]
    )
    before = log_growth_joined(gains[:15], 0.2, np.log(np.full(20, 7.0)))[-1]
    np.testing.assert_allclose(np.exp(log_growth_joined(gains[15:], 0.2, before)[-1]), one_by_one)


def test_a_broken_one_is_revoked_soon_however_long_it_held_before() -> None:
    over = np.concatenate([draws(0.02, 2000, 1), draws(0.3, 200, 2)])

    alarm = first_alarm(over[1700:], PROMISE, PLAN, before=1700)

    assert alarm is not None
    assert 2000 < alarm.label <= 2030
    assert abs(alarm.since - 2001) <= 5
    assert least_risk(over[1700:2200], PROMISE, PLAN, before=1700) > 0.05
    # Among requests below the top, half of all, twice as many may.
    half = Promise(measure="", threshold=0.2, alpha=0.05, delta=0.05, low_share=0.5)
    assert first_alarm(draws(0.08, 200, 3), half, PLAN) is None


def labels(count: int, seed: int, risky_from: float, *, unmeasured: float = 0.0) -> list[Label]:
    """Return labels of prompts whose predicted bound is uniform: above `risky_from`, half of them lose too much."""
    random = np.random.default_rng(seed)
    drawn = []
    for bound in random.random(count):
        over = bool(bound > risky_from and random.random() < 0.5)
        known = None if random.random() < unmeasured else over
        drawn.append(Label(loss=over, bounds=(float(bound),), losses=(known,)))
    return drawn


def test_the_next_limit_is_the_highest_that_the_labels_prove_and_never_a_cheaper_one() -> None:
    limits = candidate_limits(np.random.default_rng(0).random((500, 1)), 0.8)

    step = next_step(labels(600, 1, risky_from=0.4), limits, PROMISE)

    assert limits[-1] == 0.8
    assert (np.diff(limits) > 0).all()
    assert step.labels == 400
    assert step.limit is not None
    assert 0.3 < step.limit < 0.55  # at 0.5, half of a tenth loses too much: alpha
    assert step.low_share == pytest.approx(step.limit, abs=0.05)
    assert step.is_enough
    proven = np.array(
        [item.losses[0] and item.bounds[0] <= step.limit for item in labels(600, 1, 0.4)[:400]], dtype=float
    )
    assert p_value(proven, 0.05, 0.05 / 8) <= 0.05 / 8  # the third look, at 400 labels


def test_a_middle_tier_that_is_always_predicted_to_lose_less_shuts_out_no_step_of_the_lowest() -> None:
    """A prompt's lowest bound is the middle tier's, up to 0.3: all steps from there to 0.8 are the low one's."""
    limits = candidate_limits(np.outer(np.random.default_rng(0).random(500), (1.0, 0.3)), 0.8)

    step = next_step(
        [
            msgspec.structs.replace(item, bounds=(item.bounds[0], 0.3 * item.bounds[0]), losses=(item.losses[0], False))
            for item in labels(600, 1, risky_from=0.4)
        ],
        limits,
        PROMISE,
    )

    assert step.limit is not None
    assert 0.35 < step.limit < 0.55


@pytest.mark.parametrize(
    ("count", "risky_from", "unmeasured", "more"),
    [
        (30, 1.0, 0.0, True),  # too few: the first look is at 100
        (600, 0.0, 0.0, False),  # half of what is sent low loses too much, whatever the limit
        (600, 1.0, 1.0, False),  # what nobody measured counts as lost
    ],
)
def test_where_nothing_worth_it_is_proven_it_says_what_would(
    count: int, risky_from: float, unmeasured: float, more: bool
) -> None:
    limits = candidate_limits(np.random.default_rng(0).random((500, 1)), 0.8)

    step = next_step(labels(count, 1, risky_from, unmeasured=unmeasured), limits, PROMISE, min_low_share=0.2)

    assert not step.is_enough
    assert (step.more_labels is not None) == more
    if count == 30:
        assert step.more_labels == 70
