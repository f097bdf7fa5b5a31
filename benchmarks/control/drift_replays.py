"""Drift on prompts whose losses were measured: how soon it is found, how rarely it is found where there is none.

`python -m benchmarks.control.drift_replays --out benchmarks/results/control`: replays, each of requests drawn from rows
of ../shared/data/smollm2-losses.jsonl.gz at the arrival times of Azure's trace of 2023 (CC-BY 4.0, Patel et al.,
Splitwise, ISCA 2024). A policy is tuned on three fifths of the English prose; all that is shown rests on
rows that it was not tuned on, as a population whose risks are known exactly:

- stationary: English prose throughout, a reference of 2,000 drawn of the same population; false alarms of both kinds.
- to code and JSON: features move, and the promise holds, because this ladder loses less on them.
- to other languages: features move, and the promise breaks; what is proposed is applied, and its true risk is known.
- half a deviation: one feature of the prose is moved by half of its standard deviation.
- monitors: labels by chance alone (benchmarks/control/drift_monitors.py).

One request of ten has a shadow label, those at the top included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.control.drift_monitors import monitors
from benchmarks.control.drift_scene import LOSSES, PROMISE, TRACE, Population, Scene, read_scene
from benchmarks.harness import Figures, arguments, save, say
from calibration.control.drift.feature_monitor import FeatureMonitor, Plan, Reference
from calibration.control.drift.loss_monitor import LossAlarm, LossPlan, first_alarm
from calibration.control.drift.next_step import NextStep, candidate_limits, next_step
from calibration.control.drift.stream_lines import Label
from calibration.simulation.trace_files import read_arrivals

# 1 % for both kinds together, over 5,000 requests and 1,000 labels: as the command has it.
PLAN, LOSS_PLAN = Plan(level=0.005), LossPlan(level=0.005)
SHARE, SHIFT_AT, REFERENCE = 0.1, 1000, 2000
SIZES = (0.25, 0.5, 1.0)
_STEP = 100  # requests that a replay looks at together, until the first alarm
_MAX_LABELS = 500  # shadow labels behind a shift: of 5,000 requests
_MAX_MORE = 1250  # labels that a proposal may ask for


class Replays:
    """Replays of a scene; each has a seed of its own."""

    def __init__(self, scene: Scene, tails: int = 5, plan: Plan = PLAN) -> None:
        """`tails`: references whose thresholds are found by permutation; they differ little, and take a second each."""
        self.scene, self.plan = scene, plan
        self._tails = [self._reference(np.random.default_rng(seed)).tail(plan) for seed in range(tails)]

    def _reference(self, random: np.random.Generator) -> Reference:
        prose = self.scene.prose.features
        return Reference(self.scene.names, prose[random.integers(0, len(prose), REFERENCE)])

    def features_until(self, seed: int, group: Population, size: float, count: int, move: _Move = None) -> _Found:
        """Return at which request behind the shift the first alarm is raised, and of which feature; or None.

        An alarm before the shift is one too: it counts as at request 0 or before.
        """
        random, prose = np.random.default_rng(seed), self.scene.prose.features
        monitor = FeatureMonitor(self._reference(random), self.plan, self._tails[seed % len(self._tails)])
        for start in range(-SHIFT_AT, count, _STEP):
            table = prose[random.integers(0, len(prose), _STEP)]
            if start >= 0:
                other = group.features[random.integers(0, len(group.features), _STEP)]
                table = np.where((random.random(_STEP) < size)[:, None], other, table)
                table = table if move is None else move(table)
            if alarms := monitor.add(table, [""] * _STEP):
                return alarms[0].request - SHIFT_AT, alarms[0].feature
        return None

    def losses_until(self, seed: int, group: Population, size: float, labels: int) -> tuple[LossAlarm | None, _Draw]:
        """Return the alarm of shadow labels, `SHARE` of the requests, and a function that draws more behind the shift.

        The place among the labels of the shift is `SHIFT_AT * SHARE`.
        """
        random, limit = np.random.default_rng(seed), self.scene.form.limit

        def draw(count: int, part: float) -> list[Label]:
            sides = (group if random.random() < part else self.scene.prose for _ in range(count))
            return [side.label(int(random.integers(len(side.losses))), limit) for side in sides]

        drawn = draw(int(SHIFT_AT * SHARE), 0.0) + draw(labels, size)
        alarm = first_alarm(np.array([label.loss for label in drawn], dtype=float), PROMISE, LOSS_PLAN)
        return alarm, lambda count: drawn[: alarm.label if alarm else None] + draw(count, size)


_Move = Callable[[NDArray[np.float64]], NDArray[np.float64]] | None
_Found = tuple[int, str] | None
_Draw = Callable[[int], list[Label]]


def stationary(replays: Replays, first: int, count: int) -> Figures:
    """Return false alarms of replays without drift: 5,000 requests with 500 labels each."""
    prose, seeds = replays.scene.prose, range(first, first + count)
    found = [replays.features_until(seed, prose, 0.0, PLAN.horizon - SHIFT_AT) for seed in seeds]
    labels = int((PLAN.horizon - SHIFT_AT) * SHARE)
    revoked = [replays.losses_until(10_000 + seed, prose, 0.0, labels)[0] for seed in seeds]
    either = sum(one is not None or two is not None for one, two in zip(found, revoked, strict=True))
    say(f"stationary: {either} of {count}")
    return {
        "replays": count, "features": sum(item is not None for item in found),
        "losses": sum(item is not None for item in revoked), "either": either,
    }  # fmt: skip


def shifted(replays: Replays, name: str, size: float, count: int, seconds: NDArray[np.float64]) -> Figures:
    """Return how soon a shift is found, and what is lost before and after what is proposed is applied."""
    scene, group = replays.scene, replays.scene.groups[name]
    limit = scene.form.limit
    risk = (1 - size) * scene.prose.risk(limit) + size * group.risk(limit)
    found = [replays.features_until(20_000 + seed, group, size, PLAN.horizon - SHIFT_AT) for seed in range(count)]
    figures: Figures = {
        "shift": name, "share_of_new_texts": size, "replays": count, "true_risk": risk, "promised": PROMISE.alpha,
        "feature_alarm": _delays([None if item is None else item[0] for item in found], seconds),
        "first_feature": _counted([item[1] for item in found if item is not None]),
    }  # fmt: skip
    ends = [replays.losses_until(30_000 + seed, group, size, _MAX_LABELS) for seed in range(count)]
    at = [None if alarm is None else int(alarm.label / SHARE) - SHIFT_AT for alarm, _ in ends]
    figures["loss_alarm"] = _delays(at, seconds)
    steps = [followed(scene, alarm, draw) for alarm, draw in ends if alarm is not None]
    if steps:
        figures["after"] = _after(scene, group, size, steps)
    say(f"{name}, {size:.0%}: features {figures['feature_alarm']}, losses {figures['loss_alarm']}")
    return figures


def followed(scene: Scene, alarm: LossAlarm, draw: _Draw) -> tuple[NextStep, int]:
    """Return what is proposed in the end, and how many labels that takes beyond the alarm's."""
    limits, more = candidate_limits(scene.prose.bounds[:, None], scene.form.limit), 100
    while True:
        step = next_step(draw(more)[alarm.label :], limits, PROMISE)
        if step.is_enough or step.more_labels is None or more + step.more_labels > _MAX_MORE:
            return step, more
        more += step.more_labels


def _after(scene: Scene, group: Population, size: float, steps: Sequence[tuple[NextStep, int]]) -> Figures:
    """Return exact figures of the new traffic: under the old limit, and under those that were proposed."""

    def mixed(measure: str, limit: float) -> float:
        old, new = (getattr(side, measure)(limit) for side in (scene.prose, group))
        return float((1 - size) * old + size * new)

    limits = [-1.0 if step.limit is None else step.limit for step, _ in steps]
    risks = [mixed("risk", limit) for limit in limits]
    return {
        "proven": sum(step.is_enough for step, _ in steps),
        "none_worth_it": sum(not step.is_enough for step, _ in steps),
        "labels_behind_the_alarm_median": float(np.median([more for _, more in steps])),
        "risk": {"before": mixed("risk", scene.form.limit), "after_median": float(np.median(risks))},
        "loss": {
            "before": mixed("loss", scene.form.limit),
            "after_median": float(np.median([mixed("loss", limit) for limit in limits])),
        },
        "low_share": {
            "before": mixed("low_share", scene.form.limit),
            "after_median": float(np.median([mixed("low_share", limit) for limit in limits])),
        },
        "still_broken": sum(risk > PROMISE.alpha for risk in risks),
    }


def half_a_deviation(replays: Replays, count: int, seconds: NDArray[np.float64]) -> list[Figures]:
    """Return how soon each feature is found that moves by half of its standard deviation, `count` replays each."""
    prose, rows = replays.scene.prose, []
    for place, name in enumerate(replays.scene.names):
        by = 0.5 * prose.features[:, place].std()
        if by == 0:
            continue

        def move(table: NDArray[np.float64], place: int = place, by: float = by) -> NDArray[np.float64]:
            moved = table.copy()
            moved[:, place] += by
            return moved

        found = [replays.features_until(40_000 + seed, prose, 0.0, 3000, move) for seed in range(count)]
        named = sum(item is not None and item[1] == name for item in found)
        delays = _delays([None if item is None else item[0] for item in found], seconds)
        rows.append({"feature": name, "named": named, **delays})
    return rows


def _delays(at: Sequence[int | None], seconds: NDArray[np.float64]) -> Figures:
    """Return how many were found behind the shift, and requests and seconds until then: of those, and of all."""
    late = np.array([item for item in at if item is not None and item > 0])
    early = sum(item is not None and item <= 0 for item in at)
    figures: Figures = {"found": len(late), "of": len(at), "before_the_shift": early}
    if len(late):
        middle, tail = np.quantile(np.append(late, [10**9] * (len(at) - len(late))), [0.5, 0.9], method="higher")
        for name, value in (("median", middle), ("within_for_90_percent", tail)):
            if value < 10**9:
                end = min(SHIFT_AT + int(value), len(seconds)) - 1
                figures[f"requests_{name}"] = int(value)
                figures[f"seconds_{name}"] = round(float(seconds[end] - seconds[SHIFT_AT]))
    return figures


def _counted(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names), key=names.count, reverse=True)}


def _part(task: tuple[str, Any, int]) -> Figures:
    """Do one part in a process of its own."""
    name, what, count = task
    scene = read_scene(LOSSES)
    replays, seconds = Replays(scene), read_arrivals(TRACE).at_s.astype(np.float64)
    if name == "stationary":
        return stationary(replays, what, count)
    if name == "monitors":
        return monitors(PROMISE, LOSS_PLAN, *what)
    if name == "half a deviation":
        return {"rows": half_a_deviation(replays, count, seconds)}
    return shifted(replays, name, what, count, seconds)


def measure(options: argparse.Namespace) -> Figures:
    scene = read_scene(LOSSES)
    count, sizes, block = (5, SIZES[-1:], 10) if options.short else (100, SIZES, 60)
    shifts = [(name, size, count) for name in scene.groups for size in sizes]
    quiet = [("stationary", first, block) for first in range(0, 10 if options.short else 300, block)]
    of_monitors = ("monitors", (10, 2) if options.short else (200, 40), 0)
    tasks = [*quiet, *shifts, of_monitors, ("half a deviation", None, 1 if options.short else 5)]
    with ProcessPoolExecutor(min(len(tasks), 6)) as pool:
        done = list(pool.map(_part, tasks))
    blocks = done[: len(quiet)]
    summed = {name: sum(part[name] for part in blocks) for name in blocks[0]}
    of_stationary = {"requests": PLAN.horizon, "labels": int(PLAN.horizon * SHARE)} | summed
    return {
        "data": "smollm2-losses.jsonl.gz (int4 GPTQ against bf16, SmolLM2-135M-Instruct), azure-llm-2023-conv.csv.gz",
        "versions": {name: importlib.metadata.version(name) for name in ("mapie", "river", "scipy", "numpy")},
        "policy": {"limit": scene.form.limit, "low_share": scene.prose.low_share(scene.form.limit)},
        "promise": {"threshold": PROMISE.threshold, "alpha": PROMISE.alpha, "delta": PROMISE.delta},
        "shadow_share": SHARE, "shift_at_request": SHIFT_AT, "reference": REFERENCE,
        "stationary": of_stationary | {"true_risk": scene.prose.risk(scene.form.limit)},
        "shifts": done[len(quiet) : -2], "monitors": done[-2], "half_a_deviation": done[-1]["rows"],
        "targets": [
            _target("false alarms in stationary replays, both kinds", of_stationary["either"], 3),
            *(
                _target(f"false alarms where a {kind} is exactly alpha", count, done[-2]["just_kept"]["at_most"])
                for kind, count in done[-2]["just_kept"]["false_alarms"].items()
            ),
        ],
    }  # fmt: skip


def _target(name: str, measured: float, bound: float) -> Figures:
    return {"target": name, "measured": measured, "bound": bound, "at_most": True, "met": measured <= bound}


if __name__ == "__main__":
    OPTIONS = arguments(__doc__)
    save("drift_replays", measure(OPTIONS), OPTIONS)
