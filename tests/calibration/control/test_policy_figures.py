"""What tune shows of the policies beside its own."""

from __future__ import annotations

import numpy as np

from calibration.control.losses import Labels
from calibration.control.tuning import Question, tune


def test_the_article_s_rule_has_its_own_middle_tier_also_where_tune_leaves_that_out() -> None:
    chance, count = np.random.default_rng(1), 300
    low = 0.1 * chance.random(count)
    labels = Labels(
        names=("digits", "entropy"),
        features=np.column_stack([chance.random(count), np.full(count, 5.0)]),
        losses={"low": low, "middle": low + 0.05},
        sources=("a",) * count,
    )
    question = Question(
        costs={"low": 0.3, "middle": 0.6, "top": 1.0},
        measure="kl",
        threshold=0.5,
        alpha=0.05,
        delta=0.05,
        promise="high-probability",
        seed=0,
        predictor="ridge",
    )

    _, figures = tune(labels, question)

    assert list(figures["left_out"]) == ["middle"]
    assert figures["held_out"]["policies"]["article"]["shares"] == {"low": 0, "middle": 1, "top": 0}
    assert figures["held_out"]["policies"]["tuned"]["shares"] == {"low": 1, "middle": 0, "top": 0}
    assert figures["held_out"]["policies"]["all middle"]["shares"] == {"low": 0, "middle": 1, "top": 0}
