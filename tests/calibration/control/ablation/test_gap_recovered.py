"""APGR and CPT, against an example by hand and the arithmetic of RouteLLM's own evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.control.ablation.gap_recovered import gap_recovered


def test_a_router_that_knows_what_the_weak_model_gets_wrong() -> None:
    scores = np.arange(10.0)
    wrong = np.column_stack([scores >= 5, np.zeros(10)]).astype(float)

    figures = gap_recovered(scores, wrong, np.ones((1, 10)))

    # PGR rises by 0.2 with each tenth of the calls up to half of them: 0.25 below the slope, and 0.5 beyond it.
    assert figures["apgr"] == pytest.approx([0.75])
    assert [figures[f"cpt_{share}"][0] for share in (20, 50, 80)] == pytest.approx([0.1, 0.25, 0.4])


def test_the_figures_are_those_of_the_published_evaluation() -> None:
    chance = np.random.default_rng(3)
    scores = chance.random(2000)
    wrong = np.column_stack([chance.random(2000) < 0.2 + 0.4 * scores, chance.random(2000) < 0.15]).astype(float)

    figures = gap_recovered(scores, wrong, np.ones((1, 2000)))

    # lm-sys/RouteLLM 0b64fdaf, routellm/evals: thresholds of pd.qcut into ten bins, np.trapz and np.interp.
    thresholds = np.quantile(scores, np.linspace(0, 1, 11))
    points = []
    for at, threshold in enumerate(thresholds):
        strong = scores >= threshold if at != len(thresholds) - 1 else scores > threshold
        points.append((100 * strong.mean(), 100 * (1 - np.where(strong, wrong[:, 1], wrong[:, 0])).mean()))
    percent, accuracy = np.array(sorted(points)).T
    weak, best = 100 * (1 - wrong.mean(axis=0))
    assert (np.diff(accuracy) > 0).all()  # else np.interp means nothing
    apgr = (np.trapezoid(accuracy, percent / 100) - weak) / (best - weak)
    assert figures["apgr"][0] == pytest.approx(apgr)
    for share in (20, 50, 80):
        called = np.interp(share / 100 * (best - weak) + weak, accuracy, percent)
        assert 100 * figures[f"cpt_{share}"][0] == pytest.approx(called)


def test_a_router_by_chance_has_half() -> None:
    chance = np.random.default_rng(4)
    wrong = np.column_stack([chance.random(50_000) < 0.5, chance.random(50_000) < 0.1]).astype(float)

    figures = gap_recovered(chance.random(50_000), wrong, np.ones((1, 50_000)))

    assert figures["apgr"] == pytest.approx([0.5], abs=0.01)
    assert figures["cpt_50"] == pytest.approx([0.5], abs=0.01)


def test_a_strong_model_that_is_no_better_has_no_gap_to_recover() -> None:
    figures = gap_recovered(np.arange(4.0), np.array([[0.0, 1.0]] * 4), np.ones((1, 4)))

    assert all(np.isnan(values).all() for values in figures.values())
