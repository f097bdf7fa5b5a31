"""Every predictor that is exported: what routing computes of its file is what was fitted, to the last bit."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitladder.decision import Score
from bitladder.policy_forms import FEATURE_NAMES, MAX_BYTES, LearnedForm, Trees, read_form
from bitladder.routing.policies.learned import bound, inputs_of
from calibration.control.decision_latency import latency_us
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Fitted
from calibration.control.predictors.registry import EXPORTABLE, ONE_FEATURE, PREDICTORS
from calibration.control.predictors.trees import directions
from calibration.errors import InputError

TIERS = ("low", "middle")
EXPORTED = {**{name: PREDICTORS[name] for name in EXPORTABLE}, **ONE_FEATURE}


def labels_of(features: np.ndarray[tuple[int, ...], np.dtype[np.float64]], seed: int = 0) -> Labels:
    """Return labels whose losses rise with digits and fall with spaces, and have a long tail."""
    chance = np.random.default_rng(seed)
    digits, spaces = (np.minimum(features[:, FEATURE_NAMES.index(name)], 1) for name in ("digits", "spaces"))
    low = np.exp(2 * digits - 2 * spaces + chance.normal(0, 0.3, len(features)))
    return Labels(
        names=FEATURE_NAMES,
        features=features,
        losses={"low": 0.1 * low, "middle": 0.02 * low * chance.random(len(features))},
        sources=tuple(f"source {number % 12}" for number in range(len(features))),
        texts=tuple("12 " * int(9 * value) + "word" for value in digits),
    )


LABELS = labels_of(np.random.default_rng(1).random((250, len(FEATURE_NAMES))))
ROWS = np.arange(len(LABELS))


@cache
def fitted(name: str) -> Fitted:
    return ({**PREDICTORS, **ONE_FEATURE})[name].fit(LABELS, LABELS.losses, TIERS, ROWS, 0)


@cache
def read(name: str) -> LearnedForm:
    form = read_form(msgspec.json.encode(fitted(name).export()), "policy.json")
    assert isinstance(form, LearnedForm)
    return form


FEATURES = st.lists(
    st.one_of(st.floats(0, 1), st.floats(0, 1e9), st.sampled_from([0.0, 1e-300, 1e9])),
    min_size=len(FEATURE_NAMES),
    max_size=len(FEATURE_NAMES),
)


@pytest.mark.parametrize("name", EXPORTED)
@settings(max_examples=10, deadline=None)
@given(values=FEATURES)
def test_routing_computes_the_very_value_that_was_fitted_within_its_bounds(name: str, values: list[float]) -> None:
    form, others = read(name), labels_of(np.array([values]))
    inputs = inputs_of(form.inputs, Score(**dict(zip(FEATURE_NAMES, values, strict=True))))

    computed = [bound(form.tiers[tier], inputs) for tier in TIERS]

    assert computed == fitted(name).losses(others, np.arange(1))[0].tolist()
    for tier, value in zip(TIERS, computed, strict=True):
        assert (
            form.tiers[tier].bounds[0][1] <= value <= form.tiers[tier].bounds[-1][1] < 1.5 * LABELS.losses[tier].max()
        )


@pytest.mark.parametrize("name", EXPORTED)
def test_the_predictions_of_the_fit_have_the_mean_of_its_losses_and_a_file_that_routing_reads(name: str) -> None:
    predicted = fitted(name).losses(LABELS, ROWS)

    measured = [LABELS.losses[tier].mean() for tier in TIERS]
    assert predicted.mean(axis=0) == pytest.approx(measured, rel=0.02)
    assert len(msgspec.json.encode(fitted(name).export())) < MAX_BYTES
    assert latency_us(read(name))["p50"] < 2000


@pytest.mark.parametrize("name", ["knn", "clusters", "ngrams"])
def test_what_routing_cannot_evaluate_has_no_form_but_predicts(name: str) -> None:
    assert fitted(name).export() is None
    predicted = fitted(name).losses(LABELS, ROWS)[:, 0]
    assert np.corrcoef(predicted, LABELS.losses["low"])[0, 1] > 0.3


@settings(max_examples=20, deadline=None)
@given(row=st.integers(0, 249), name=st.sampled_from(["digits", "spaces"]), value=st.floats(0, 1))
def test_a_monotone_fit_only_goes_the_way_it_says(row: int, name: str, value: float) -> None:
    ways = directions(LABELS, LABELS.losses["low"], ROWS)
    assert (ways["digits"], ways["spaces"]) == (1, -1)
    moved = LABELS.features[[row, row]]
    column = FEATURE_NAMES.index(name)
    moved[1, column] = value

    before, after = fitted("monotone").losses(labels_of(moved), np.arange(2))[:, 0]

    assert (after - before) * ways[name] * (value - moved[0, column]) >= 0


def test_a_forest_is_scikit_learn_s_own_as_routing_walks_it() -> None:
    form = read("forest").tiers["low"]
    assert isinstance(form, Trees)
    assert len(form.trees) <= 128
    assert all(len(tree) <= 63 for tree in form.trees)
    # Ranks: the mean of all leaves is a share, whatever the losses are.
    assert 0 <= form.low < form.high <= 1


@pytest.mark.parametrize("name", EXPORTABLE)
def test_what_gains_on_average_is_still_told_apart(name: str) -> None:
    """A tier may be right more often than the top: the mean of what it adds is below 0."""
    features = np.random.default_rng(3).random((300, len(FEATURE_NAMES)))
    labels = labels_of(features)
    losses = np.where(features[:, FEATURE_NAMES.index("digits")] > 0.7, 1.0, -1.0)

    predicted = PREDICTORS[name].fit(labels, {"low": losses}, ["low"], ROWS[:250], 0).losses(labels, ROWS[:250])[:, 0]

    assert predicted.mean() == pytest.approx(losses[:250].mean(), abs=0.15)
    assert np.corrcoef(predicted, losses[:250])[0, 1] > 0.5


def test_labels_without_any_difference_or_text_are_refused() -> None:
    same = labels_of(np.ones((50, len(FEATURE_NAMES))))

    with pytest.raises(InputError, match="every feature has the same value in all labels"):
        PREDICTORS["ridge"].fit(same, same.losses, TIERS, np.arange(50), 0)
    with pytest.raises(InputError, match="need the texts"):
        PREDICTORS["ngrams"].fit(
            Labels(same.names, same.features, same.losses, same.sources), same.losses, TIERS, np.arange(50), 0
        )


@pytest.mark.parametrize("name", EXPORTABLE)
@pytest.mark.parametrize("loss", [0.0, 1e6])
def test_losses_that_are_all_the_same_are_predicted_as_they_are(name: str, loss: float) -> None:
    added = {"low": np.full(len(LABELS), loss)}

    try:
        predicted = PREDICTORS[name].fit(LABELS, added, ["low"], ROWS, 0).losses(LABELS, ROWS)
    except InputError:
        assert name == "monotone"  # nothing goes any way
    else:
        assert np.allclose(predicted, loss)
