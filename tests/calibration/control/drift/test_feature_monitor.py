"""ADWIN and PSI on streams with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from river.drift import ADWIN

from calibration.control.drift.feature_monitor import FeatureAlarm, FeatureMonitor, Plan, Reference
from tests.calibration.control.drift.streams import NAMES, features

PLAN = Plan(window=250, horizon=1500, level=0.02, permutations=2000)


def watched(seed: int, *parts: np.ndarray) -> tuple[FeatureMonitor, list[FeatureAlarm]]:
    """Return a monitor that has seen these parts one after the other, and its alarms."""
    reference = Reference(NAMES, features(np.random.default_rng(seed), 1000))
    monitor = FeatureMonitor(reference, PLAN, reference.tail(PLAN))
    return monitor, [alarm for part in parts for alarm in monitor.add(part, [""] * len(part))]


def test_it_says_which_feature_moved_by_how_much_and_when() -> None:
    random = np.random.default_rng(1)

    _, alarms = watched(2, features(random, 600), features(random, 500, digits=0.25))

    assert {alarm.feature for alarm in alarms} == {"digits"}
    first = {alarm.detector: alarm for alarm in reversed(alarms)}
    assert 600 < first["adwin"].request <= 1000
    assert 500 <= first["adwin"].since <= 700  # near the change
    assert 0.25 < first["adwin"].deviations < 0.8
    assert (first["psi"].request, first["psi"].since) == (1000, 751)
    assert first["psi"].psi is not None
    assert first["psi"].threshold is not None
    assert first["psi"].psi > first["psi"].threshold


@pytest.mark.long
def test_without_drift_alarms_are_as_rare_as_the_level_says() -> None:
    raised = sum(bool(watched(seed, features(np.random.default_rng(seed + 500), 1500))[1]) for seed in range(30))

    assert raised <= 3  # of a level of 2 %: more than 3 of 30 in 1 of 500 tries


def test_adwin_is_river_s_on_the_ranks_among_the_reference() -> None:
    random = np.random.default_rng(3)
    table = np.vstack([features(random, 400), features(random, 400, digits=0.3)])
    monitor, alarms = watched(4, table)
    reference = monitor.reference
    delta = PLAN.level / 2 / (len(NAMES) * (PLAN.horizon + 1000) / 32)
    adwin, expected = ADWIN(delta=delta, clock=32), []  # type: ignore[no-untyped-call]
    warm = np.random.default_rng(PLAN.seed).permutation(1000)
    column = np.concatenate([reference.ranks(reference.table[warm])[:, 1], reference.ranks(table)[:, 1]])
    for place, rank in enumerate(column, start=1):
        adwin.update(float(rank))  # type: ignore[no-untyped-call]
        if adwin.drift_detected:
            expected.append(place - 1000)

    assert expected == [alarm.request for alarm in alarms if (alarm.feature, alarm.detector) == ("digits", "adwin")]
    assert expected


def test_ranks_are_from_0_to_1_whatever_comes() -> None:
    reference = Reference(("tokens",), np.array([[1.0], [2.0], [2.0], [3.0]]))

    assert list(reference.ranks(np.array([[0.0], [2.0], [1e9]]))[:, 0]) == [0, 0.5, 1]
