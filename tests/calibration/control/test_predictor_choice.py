"""The choice of a predictor by cross-validation."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.control.losses import Labels
from calibration.control.predictor_choice import Sample, choose, compare, correlation, folds_of
from calibration.control.predictors.neighbours import Nearest
from calibration.control.predictors.registry import ONE_FEATURE, PREDICTORS
from calibration.control.predictors.ridge import Ridge
from calibration.errors import InputError


def sample_of(count: int, sources: int = 20) -> Sample:
    """Return labels whose loss is digits and noise; what spaces say is another in each source."""
    chance = np.random.default_rng(4)
    digits, source = chance.random(count), np.arange(count) % sources
    spaces, noise = chance.random(count) + source, chance.random(count)
    losses = digits + 0.2 * noise
    names = ("digits", "spaces", "tokens")
    features = np.column_stack((digits, spaces, 100 * noise + 1))
    labels = Labels(names, features, {"low": losses}, tuple(map(str, source)))
    return Sample(labels, "low", losses, 0)


def test_the_simplest_within_one_standard_error_of_the_best_is_chosen() -> None:
    sample = sample_of(200)
    tiers, rows = {"low": sample.losses}, np.arange(200)

    candidates = {"tokens": ONE_FEATURE["tokens"], "digits": Ridge(names=("digits",)), "all": Ridge(names=None)}
    assert choose(candidates, sample, tiers, rows).name == "all"  # the noise is in a feature: it is truly better
    candidates = {"digits": Ridge(names=("digits",)), "again": Ridge(names=("digits", "spaces"))}
    choice = choose(candidates, sample, tiers, rows)
    assert choice.name == "digits"
    assert set(choice.scores) == {"digits", "again"}


def test_what_routing_cannot_evaluate_is_refused_by_name() -> None:
    sample = sample_of(100)

    with pytest.raises(InputError, match="no predictor can be used: knn: routing cannot evaluate it"):
        choose({"knn": PREDICTORS["knn"]}, sample, {"low": sample.losses}, np.arange(100))


def test_a_score_that_is_too_slow_is_refused_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.control.predictor_choice.MAX_US", 0.5)
    sample = sample_of(100)

    with pytest.raises(InputError, match=r"ridge: takes [0-9.]+ us for a prompt of 2 KB; it must be under 0\.5"):
        choose({"ridge": PREDICTORS["ridge"]}, sample, {"low": sample.losses}, np.arange(100))


def test_predictors_are_compared_on_labels_that_each_fit_did_not_see() -> None:
    sample = sample_of(200)
    chance = Sample(sample.labels, "low", np.random.default_rng(1).random(200), 0)

    figures = compare({"nearest": Nearest(3)}, chance)["nearest"]

    # A fit of noise correlates with what it was fitted on, and with nothing else.
    fitted_on = Nearest(3).fit(chance.labels, {"low": chance.losses}, ["low"], np.arange(200), 0)
    seen = fitted_on.losses(chance.labels, np.arange(200))[:, 0]
    assert correlation([seen], chance.losses, chance.labels.groups, 0)["spearman"] > 0.4
    assert figures["random"]["low"] < 0 < figures["random"]["high"]
    assert figures["by_source"]["low"] < 0.05


def test_a_source_is_in_one_fold_and_few_sources_have_none() -> None:
    units = [str(number % 30) for number in range(300)]

    folds = folds_of(units, 20, 0)

    assert folds is not None
    assert set(folds.tolist()) == set(range(20))
    assert len({(unit, fold) for unit, fold in zip(units, folds.tolist(), strict=True)}) == 30
    assert np.bincount(folds).max() <= 20
    assert folds.tolist() == np.asarray(folds_of(units, 20, 0)).tolist() != np.asarray(folds_of(units, 20, 1)).tolist()
    assert folds_of(["a", "b", "c", "d"], 10, 0) is None
