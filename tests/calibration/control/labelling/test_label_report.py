"""The reliability of labels against simulations in which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.control.labelling.label_report import reliability


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


def test_of_noise_nothing_comes_again_and_of_two_labels_nothing_is_said() -> None:
    random = np.random.default_rng(7)
    figures = reliability(random.normal(size=(4000, 2)))

    assert figures is not None
    assert figures["whole"] == pytest.approx(0, abs=0.06)
    assert reliability(np.ones((2, 2))) is None
    assert reliability(np.ones((9, 2))) is None
