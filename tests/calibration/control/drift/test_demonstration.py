"""Texts that shift, with losses that were measured (benchmarks/control): a quick form, and the whole."""

from __future__ import annotations

import argparse
from functools import cache

import msgspec
import pytest

from benchmarks.control.drift_replays import PLAN, Replays, followed, measure
from benchmarks.control.drift_scene import LOSSES, PROMISE, Scene, read_scene

pytestmark = pytest.mark.skipif(not LOSSES.exists(), reason=f"{LOSSES} is not laid beside the checkout")
# Requests behind the shift within which features are found, and labels for losses: of the whole, nine of ten replays.
FEATURES_WITHIN, LABELS_WITHIN = 500, 400


@cache
def scene() -> Scene:
    return read_scene(LOSSES)


def test_code_moves_features_and_other_languages_break_the_promise_too_which_what_is_proposed_mends() -> None:
    replays = Replays(scene(), tails=1, plan=msgspec.structs.replace(PLAN, permutations=4000))
    code, others, prose = *scene().groups.values(), scene().prose
    limit = scene().form.limit

    # On code and JSON this ladder loses less: the alarm of features must not take the promise back.
    assert prose.risk(limit) <= PROMISE.alpha
    assert code.risk(limit) < prose.risk(limit)
    moved = replays.features_until(1, code, 1.0, FEATURES_WITHIN)
    assert moved is not None
    assert 0 < moved[0] <= FEATURES_WITHIN
    assert replays.losses_until(2, code, 1.0, 100)[0] is None

    # On other languages it loses more.
    assert others.risk(limit) > PROMISE.alpha
    alarm, draw = replays.losses_until(3, others, 1.0, LABELS_WITHIN)
    assert alarm is not None
    step, _ = followed(scene(), alarm, draw)
    assert step.limit is None or others.risk(step.limit) <= PROMISE.alpha


@pytest.mark.long
def test_the_whole_keeps_its_targets() -> None:
    figures = measure(argparse.Namespace(short=False))

    assert all(target["met"] for target in figures["targets"])
    assert figures["stationary"]["replays"] == 300
    for shift in figures["shifts"]:
        assert shift["feature_alarm"]["requests_within_for_90_percent"] <= FEATURES_WITHIN
        is_broken = shift["true_risk"] > PROMISE.alpha
        assert shift["loss_alarm"]["found"] <= 0.01 * shift["replays"] or is_broken
    for row in figures["half_a_deviation"]:
        assert row["found"] == row["of"]
