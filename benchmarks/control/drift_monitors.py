"""How many labels it takes until a broken promise is seen, by bets and by mapie's bound, which restarts.

Labels are drawn by chance: each loses too much with a chance of alpha, or where the promise is broken of a multiple of
it. Before a shift it is half of alpha. A part of `benchmarks.control.drift_replays`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from mapie.exchangeability_testing.bounds import GammaExponentialMixtureBound

from benchmarks.harness import Figures
from calibration.control.drift.drift_promise import Promise
from calibration.control.drift.loss_monitor import LossPlan, Numbers, first_alarm, lower_bounds

TIMES = (1.5, 2.0, 3.0)
_LONGEST = 4000  # labels behind the shift
_WIDEST = 500


def mapie_alarm(losses: Numbers, alpha: float, plan: LossPlan) -> int | None:
    """Return at which label one of mapie's bounds passes alpha: one starts every `spacing`, and looks at `life`."""
    first = None
    for start in range(0, len(losses), plan.spacing):
        if first is not None and start >= first:
            break
        part = losses[start : start + plan.life]
        if _may_be_beyond(part, alpha, plan.level_each):
            beyond = np.flatnonzero(lower_bounds(part, plan.level_each) > alpha)
            ends = [start + int(at) + 1 for at in beyond[:1]] + ([] if first is None else [first])
            first = min(ends, default=None)
    return first


def _may_be_beyond(losses: Numbers, alpha: float, level: float) -> bool:
    """Tell whether the bound can pass alpha anywhere: mapie solves an equation for each label, which takes long.

    It passes where more are over than alpha of them by the boundary at the variance seen, with which it only grows.
    """
    seen = np.arange(1, len(losses) + 1)
    means = np.append(0.5, (np.cumsum(losses) / seen)[:-1])
    variance = np.minimum(np.cumsum((losses - means) ** 2), _WIDEST - 1).astype(np.intp)
    return bool((np.cumsum(losses - alpha) > _boundaries(level)[variance]).any())


@cache
def _boundaries(level: float) -> Numbers:
    """Return mapie's boundary at variances of 0, 1, 2 and so on."""
    boundary = GammaExponentialMixtureBound(v_opt=1, c=1, alpha_opt=level / 2)
    return np.array([boundary(v=float(variance), alpha=level / 2) for variance in range(_WIDEST)])


def bets_alarm(losses: Numbers, promise: Promise, plan: LossPlan) -> int | None:
    alarm = first_alarm(losses, promise, plan)
    return None if alarm is None else alarm.label


def monitors(promise: Promise, plan: LossPlan, replays: int, replays_of_mapie: int) -> Figures:
    """Return the labels until an alarm by both, and how often bets err where the promise just holds."""
    rows = []
    for held in (0, 1000):
        for times in TIMES:
            row: Figures = {"labels_before_the_shift": held, "times_alpha": times}
            for name, count, find in (
                ("bets", replays, lambda losses: bets_alarm(losses, promise, plan)),
                ("mapie", replays_of_mapie, lambda losses: mapie_alarm(losses, promise.alpha, plan)),
            ):
                row[name] = _until(find, promise.alpha, times, held, count)
            rows.append(row)
    return {
        "alpha": promise.alpha,
        "level": plan.level,
        "broken": rows,
        "just_kept": _just_kept(promise, plan, replays * 10),
    }


def _until(find: Callable[[Numbers], int | None], alpha: float, times: float, held: int, replays: int) -> Figures:
    found = []
    for seed in range(replays):
        random, rates = np.random.default_rng(seed), np.repeat((alpha / 2, times * alpha), (held, _LONGEST))
        label = find((random.random(len(rates)) < rates).astype(float))
        found.append(np.inf if label is None else label - held)
    median, tail = np.quantile([item if item > 0 else np.inf for item in found], [0.5, 0.9], method="higher")
    return {
        "replays": replays,
        "before_the_shift": sum(item <= 0 for item in found),
        "median": int(median) if np.isfinite(median) else None,
        "in_90_percent": int(tail) if np.isfinite(tail) else None,
    }


def _just_kept(promise: Promise, plan: LossPlan, replays: int) -> Figures:
    """Return the false alarms over one life of labels whose risk is exactly alpha: losses of 0 and 1, and others."""
    counts = {"share": 0, "mean": 0}
    for seed in range(replays):
        random = np.random.default_rng([1, seed])
        for name, losses in (
            ("share", (random.random(plan.life) < promise.alpha).astype(float)),
            ("mean", random.beta(0.2, 0.2 * (1 - promise.alpha) / promise.alpha, plan.life)),
        ):
            counts[name] += first_alarm(losses, promise, plan) is not None
    return {"replays": replays, "labels": plan.life, "at_most": plan.level * replays, "false_alarms": counts}
