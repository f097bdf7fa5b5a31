"""What a point of the history counts, how points become one, and what a range of them shows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import msgspec
import pytest

from bitladder.overview.history import (
    MAX_RANGE_S,
    RESOLUTIONS,
    Counts,
    Point,
    TierPoint,
    next_counts,
    read_range,
    resolution_for,
    roll_up,
    tier_point,
)
from bitladder.overview.history_answer import describe_history
from bitladder.overview.shape import Overview
from bitladder.queue.calls.worker_report import WorkerReport

SAMPLE = msgspec.convert(
    json.loads((Path(__file__).parent / "overview_sample.json").read_text(encoding="utf-8")), Overview
)
INT8 = SAMPLE.models[0].tiers[1]
NOW = 1_800_000_000
QUIET = TierPoint(0, 0, 0.0, None, 0, 1, 16, 1.0, 0, 0, {})


def report(jobs: int, **fields: object) -> WorkerReport:
    return msgspec.convert({"jobs": jobs, "tokens": 10 * jobs} | fields, WorkerReport)


def point(at: int, tier: TierPoint = QUIET, samples: int = 1) -> Point:
    return Point(at, samples, {"m": {"int8": tier}}, 3, 0.5)


def test_a_point_counts_what_workers_did_since_the_point_before_whichever_of_them_came_or_went() -> None:
    before = next_counts(None, NOW, {"stays": report(100, overflow={"int4": 5}), "goes": report(40)})
    now = {"stays": report(130, overflow={"int4": 12}), "comes": report(7)}

    counted = tier_point(INT8, now, before, NOW + 10)

    assert (counted.jobs, counted.tokens, counted.overflow_in) == (37, 370, {"int4": 7})


def test_a_worker_that_was_silent_for_a_moment_is_not_counted_twice() -> None:
    first = next_counts(None, NOW, {"w": report(100)})
    silent = next_counts(first, NOW + 10, {})

    assert tier_point(INT8, {"w": report(103)}, silent, NOW + 20).jobs == 3
    assert next_counts(silent, NOW + 700, {}).workers == {}


@pytest.mark.parametrize("before", [None, next_counts(None, NOW - 3600, {}), next_counts(None, NOW + 60, {})])
def test_after_a_pause_and_with_a_clock_set_back_counts_are_unknown_and_not_wrong(before: Counts | None) -> None:
    counted = tier_point(INT8, {"w": report(100_000)}, before, NOW)

    assert (counted.jobs, counted.tokens, counted.depth) == (None, None, INT8.depth)


def test_points_become_one_by_mean_maximum_minimum_or_sum() -> None:
    busy = TierPoint(9, 9, 40.0, 7.5, 16, 0, 16, 2.0, 60, 600, {"int4": 30})
    lost = msgspec.structs.replace(QUIET, jobs=None, tokens=None)

    one = roll_up([point(0), point(10, busy), point(20, lost)], 0)

    assert one.samples == 3
    assert one.tiers["m"]["int8"] == TierPoint(
        depth=3.0,
        depth_max=9,
        oldest_age_s=40.0,
        expected_wait_s=7.5,
        in_flight=5.33,
        workers=0,
        slots=16.0,
        cost_per_hour=1.33,
        jobs=60,
        tokens=600,
        overflow_in={"int4": 30},
    )


def test_a_mean_of_means_weighs_how_many_samples_each_had() -> None:
    deep = msgspec.structs.replace(QUIET, depth=12.0)

    assert roll_up([point(0, deep, samples=1), point(60, QUIET, samples=5)], 0).tiers["m"]["int8"].depth == 2.0


def test_gaps_are_gaps_and_tiers_of_former_settings_stand_behind_the_others() -> None:
    history = describe_history([point(NOW - 30), point(NOW)], NOW + 5, 60, 10, {"m": ["int4"], "other": ["fp8"]})

    assert history.at == [NOW - 50, NOW - 40, NOW - 30, NOW - 20, NOW - 10, NOW]
    assert [(model.model, [tier.tier for tier in model.tiers]) for model in history.models] == [
        ("m", ["int4", "int8"]),
        ("other", ["fp8"]),
    ]
    assert history.models[0].tiers[1].workers == [None, None, 1, None, None, 1]
    assert history.models[0].tiers[0].jobs == [None] * 6
    assert history.dead_letters == [None, None, 3, None, None, 3]


@pytest.mark.parametrize(
    ("text", "step_s"), [("60s", 10), ("1h", 10), ("61m", 60), ("24h", 60), ("25h", 900), ("30d", 900)]
)
def test_a_range_has_the_finest_resolution_that_is_kept_for_so_long(text: str, step_s: int) -> None:
    range_s = read_range(text)

    assert range_s is not None
    assert resolution_for(range_s).step_s == step_s


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "59s", "31d", "1.5h", "1H", "1h ", "9999999d", "\u0661h"])
def test_other_ranges_are_none(text: str) -> None:
    assert read_range(text) is None


def test_each_resolution_is_made_of_whole_points_of_the_finer_one_which_are_kept_for_so_long() -> None:
    for finer, coarser in itertools.pairwise(RESOLUTIONS):
        assert coarser.step_s % finer.step_s == 0
        assert finer.span_s >= coarser.step_s
    assert MAX_RANGE_S == 30 * 86_400
