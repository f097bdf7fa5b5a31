"""The reliability of labels against simulations in which the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from calibration.control.labelling.label_lines import LabelLine
from calibration.control.labelling.label_losses import AnswerLabel, TierLabel
from calibration.control.labelling.label_report import describe_labels, reliability


@pytest.mark.parametrize(
    ("noise", "count", "of_the_label"),
    [(1.0, 2, 2 / 3), (2.0, 2, 1 / 3), (0.1, 2, 0.995), (1.0, 4, 4 / 5), (2.0, 8, 2 / 3)],
)
def test_the_reliability_is_the_share_of_the_spread_that_comes_again(
    noise: float, count: int, of_the_label: float
) -> None:
    random = np.random.default_rng(7)
    truth = random.normal(size=4000)
    parts = np.column_stack([truth + noise * random.normal(size=4000) for _ in range(count)])

    figures = reliability(parts)

    assert figures is not None
    assert figures["whole"] == pytest.approx(of_the_label, abs=0.04)
    # It is what the label correlates with another one of the same prompts, and its root what it does with the truth.
    label = parts.mean(axis=1)
    assert figures["highest"] == pytest.approx(np.corrcoef(label, truth)[0, 1], abs=0.03)


def test_halves_of_an_answer_are_not_taken_for_two_answers_where_some_prompts_have_several() -> None:
    random, lines = np.random.default_rng(7), []
    for number in range(600):
        one, two = random.random(2).tolist()
        parts: dict[str, Any] = {"kl_halves": (one, one)} if number % 3 == 0 else {"kl_answers": (one, two)}
        answer = AnswerLabel(kl=one, flips=0.0, first_divergence=0, tokens=8, **parts)
        features = {"entropy": 1.0, "zlib_ratio": 1.0}
        texts = {"id": str(number), "source": "s", "kind": "k", "form": "text", "reference": "top"}
        lines.append(
            LabelLine(schema=1, features=features, checkpoints={}, tiers={"low": TierLabel(answer=answer)}, **texts)
        )

    figures = describe_labels(lines)["low"]["reliability"]

    assert (figures["n"], figures["parts"]) == (400, 2)
    assert figures["whole"] == pytest.approx(0, abs=0.15)


def test_of_noise_nothing_comes_again_and_of_two_labels_nothing_is_said() -> None:
    random = np.random.default_rng(7)
    figures = reliability(random.normal(size=(4000, 2)))

    assert figures is not None
    assert figures["whole"] == pytest.approx(0, abs=0.06)
    assert reliability(np.ones((2, 2))) is None
    assert reliability(np.ones((9, 2))) is None
