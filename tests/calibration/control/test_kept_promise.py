"""The high-probability promise over many draws of 500 labels, from laws and labels whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.control.kept_promise import (
    DELTA,
    DRAWS,
    MAX_BROKEN,
    Figures,
    law,
    mixture,
    of_labels,
    pool,
    resampled,
    synthetic,
)
from tests.conftest import ROOT

STUDY = ROOT.parent / "shared" / "data" / "smollm2-losses.jsonl.gz"
LIMITS = np.linspace(0, 1, 51)
FEW = 60
# A promise of 5 % that is kept fails here in less than 1 of 10,000 runs.
MAX_BROKEN_OF_FEW = int(binom.isf(1e-4, FEW, DELTA))


def ltt(figures: Figures) -> Figures:
    judged: Figures = figures["methods"]["learn-then-test"]
    return judged


def test_the_promise_is_kept_and_is_seen_broken_after_a_shift_to_kinds_that_lose_more() -> None:
    kinds = {"code": law(0.05), "prose": law(0.4)}
    before = mixture(kinds, {"code": 0.8, "prose": 0.2})
    after = {"after": mixture(kinds, {"code": 0.2, "prose": 0.8}), "back": mixture(kinds, {"code": 1.0, "prose": 0.0})}

    judged = ltt(resampled(before, LIMITS, after, draws=FEW, methods=["learn-then-test"]))

    assert judged["broken"] <= MAX_BROKEN_OF_FEW
    assert judged["of_best"] > 0.75
    assert judged["served"]["after"]["broken"] > 0.9 * FEW
    assert judged["served"]["back"]["broken"] == 0


def test_of_a_pool_that_is_all_the_traffic_the_truth_is_its_mean() -> None:
    chance = np.random.default_rng(1)
    scores = chance.random(600)
    losses = (chance.random(600) < 0.2 * scores).astype(float)
    traffic = pool(scores, losses)

    assert traffic.risk(np.array([0.5, 1.0])) == pytest.approx([losses[scores <= 0.5].sum() / 600, losses.mean()])
    assert ltt(resampled(traffic, LIMITS, {}, draws=FEW, methods=["learn-then-test"]))["broken"] <= MAX_BROKEN_OF_FEW


@pytest.mark.long
def test_500_draws_from_laws_and_from_labels_break_it_in_33_at_most() -> None:
    laws = synthetic()
    kept = [
        laws["one kind, P(loss) = 0.2 * score"],
        laws["three kinds"],
        *laws["each kind with labels of its own"].values(),
    ]
    if STUDY.exists():
        labels = of_labels(STUDY)
        kept += [labels["share over the threshold"], labels["mean of the clipped loss"]]
        assert ltt(labels["most of it code and data"])["served"]["after: chat and prose"]["broken"] > DRAWS / 2

    assert [ltt(figures)["broken"] for figures in kept if ltt(figures)["broken"] > MAX_BROKEN] == []
    others = laws["one kind, P(loss) = 0.2 * score"]["methods"]
    assert others["conformal risk control"]["broken"] > DRAWS / 4  # it promises the mean, and says so
    assert others["plain threshold"]["broken"] > DRAWS / 4
    assert ltt(laws["three kinds"])["served"]["after: more prose"]["broken"] > DRAWS / 2
