"""Losses of one prompt against distributions whose divergence, flips, entropy and margins are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy

from calibration.control.labelling.label_losses import (
    AnswerLabel,
    answer_label,
    joined,
    own_label,
    repeated_share,
    split_rows,
    text_label,
)
from calibration.evaluate.distributions import Distributions


def rows(*chances: tuple[float, ...]) -> Distributions:
    """Return predictions of all tokens there are, 0 and up, of which the first of each row has followed."""
    table = np.log(np.array(chances))
    order = np.argsort(-table, axis=1, kind="stable")
    return Distributions(
        table[:, 0].astype(np.float32), order.astype(np.int32), np.take_along_axis(table, order, 1).astype(np.float32)
    )


REFERENCE = rows((0.7, 0.2, 0.1), (0.5, 0.3, 0.2), (0.6, 0.3, 0.1), (0.9, 0.05, 0.05))
TIER = rows((0.6, 0.3, 0.1), (0.4, 0.5, 0.1), (0.3, 0.6, 0.1), (0.8, 0.1, 0.1))


def test_the_loss_along_an_answer_is_the_divergence_that_scipy_has() -> None:
    pairs = zip(
        ((0.7, 0.2, 0.1), (0.5, 0.3, 0.2), (0.6, 0.3, 0.1), (0.9, 0.05, 0.05)),
        ((0.6, 0.3, 0.1), (0.4, 0.5, 0.1), (0.3, 0.6, 0.1), (0.8, 0.1, 0.1)),
        strict=True,
    )
    exact = [float(entropy(p, q)) for p, q in pairs]

    label = answer_label(REFERENCE, TIER)

    assert label.kl == pytest.approx(np.mean(exact), abs=1e-5)
    assert label.kl_halves == pytest.approx((np.mean(exact[:2]), np.mean(exact[2:])), abs=1e-5)
    assert (label.flips, label.first_divergence, label.tokens) == (0.5, 1, 4)


def test_a_tier_loses_nothing_against_itself_and_parts_nowhere() -> None:
    label = answer_label(REFERENCE, REFERENCE)

    assert (label.kl, label.flips, label.first_divergence) == (0, 0, 4)


def test_an_answer_of_one_token_has_no_halves_and_a_prompt_of_one_no_loss() -> None:
    prompt, answer = split_rows(rows((0.7, 0.3)), 1)

    assert answer_label(answer, answer).kl_halves is None
    assert text_label(prompt, prompt) is None


def test_the_loss_along_several_answers_is_the_mean_of_their_tokens() -> None:
    short = AnswerLabel(kl=0.4, flips=0.5, first_divergence=1, tokens=2, kl_halves=(0.4, 0.4))
    long = AnswerLabel(kl=0.1, flips=0.0, first_divergence=6, tokens=6, kl_halves=(0.0, 0.2), repeated=0.3)

    label = joined([short, long])

    assert label == AnswerLabel(
        kl=0.175,
        flips=0.125,
        first_divergence=1,
        tokens=8,
        kl_answers=(0.4, 0.1),
        flips_answers=(0.5, 0.0),
        repeated=0.3,
    )
    assert joined([long]) == long


def test_an_answer_that_loops_is_seen_by_the_runs_of_tokens_that_came_before() -> None:
    assert repeated_share([1, 2, 3]) is None
    assert repeated_share([1, 2, 3, 4, 5, 6, 7]) == 0
    assert repeated_share([1, 2] * 8) == pytest.approx(11 / 13, abs=1e-6)  # of 13 runs two are new


def test_how_sure_a_model_is_of_its_answer_is_entropy_and_margin_of_its_tokens() -> None:
    label = own_label(rows((0.5, 0.5), (0.9, 0.1)))

    assert label is not None
    assert label.entropy == pytest.approx((math.log(2) + float(entropy((0.9, 0.1)))) / 2, abs=1e-5)
    assert label.margin == pytest.approx(math.log(9) / 2, abs=1e-5)
    assert (label.margin_min, label.tokens) == (0, 2)


def test_an_answer_says_how_sure_its_beginnings_were_as_far_as_it_goes() -> None:
    label = own_label(rows(*[(0.5, 0.5)] * 4, *[(0.9, 0.1)] * 6))

    assert label is not None
    assert list(label.beginnings) == ["4", "8"]
    assert label.beginnings["4"].margin == 0
    assert label.beginnings["4"].entropy == pytest.approx(math.log(2), abs=1e-5)
    assert label.beginnings["8"].margin == pytest.approx(math.log(9) / 2, abs=1e-5)


def test_what_cannot_come_makes_no_margin_beyond_that_of_a_cascade() -> None:
    label = own_label(Distributions(*(np.array(part) for part in ([0.0], [[1, 2]], [[0.0, -9999.0]]))))

    assert label is not None
    assert label.margin == 20
