"""Quality against cost: a policy at all of its settings, and what is read from its curve. Pure, on plain arrays.

Weights say how often a label counts: a row of them for each resample, so that a curve and its band are one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Places = NDArray[np.int8]
STEPS = 100


@dataclass(frozen=True, slots=True)
class Family:
    """What a policy does with each label (rows) at each of its settings (columns, by rising cost).

    The first setting has all on the lowest tier, the last one costs what all on the top do.
    """

    choices: Places  # the place of the tier whose answer counts
    costs: Numbers
    losses: Numbers


@dataclass(frozen=True, slots=True)
class Curves:
    """Means over the labels, a row for each row of weights: cost, and what is lost at that cost."""

    costs: Numbers
    losses: Numbers

    def at_cost(self, costs: Numbers) -> Numbers:
        """Return the loss at this cost in each row, on the line between two settings."""
        after = np.clip((self.costs <= costs[:, None]).sum(axis=1), 1, self.costs.shape[1] - 1)
        return _between(self.costs, self.losses, after, costs)

    def cost_at(self, losses: Numbers) -> Numbers:
        """Return the least cost at which no more than this is lost in each row; nan where it always is more."""
        return first_within(self.losses, losses, self.costs)

    def area(self) -> Numbers:
        """Return the area under each curve, the whole range of costs being 1."""
        widths = np.diff(self.costs, axis=1)
        heights = (self.losses[:, 1:] + self.losses[:, :-1]) / 2
        return np.asarray((widths * heights).sum(axis=1) / widths.sum(axis=1))


def first_within(values: Numbers, limits: Numbers, other: Numbers) -> Numbers:
    """Return `other` where the values of each row first come down to its limit, on the line between two settings."""
    within = values <= limits[:, None] + 1e-12
    after = np.maximum(within.argmax(axis=1), 1)
    crossed = _between(values, other, after, limits)
    return np.where(within[:, 0], other[:, 0], np.where(within.any(axis=1), crossed, np.nan))


def _between(xs: Numbers, ys: Numbers, after: NDArray[np.intp], x: Numbers) -> Numbers:
    rows = np.arange(len(xs))
    x0, x1, y0, y1 = xs[rows, after - 1], xs[rows, after], ys[rows, after - 1], ys[rows, after]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(x1 == x0, 1.0, np.clip((x - x0) / (x1 - x0), 0, 1))
    return np.asarray(y0 + share * (y1 - y0))


def curves(family: Family, weights: Numbers) -> Curves:
    return Curves(means(weights, family.costs), means(weights, family.losses))


def means(weights: Numbers, values: Numbers) -> Numbers:
    """Return the mean of each column for each row of weights; nan where all of them are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((weights @ values) / weights.sum(axis=1, keepdims=True))


def by_limit(bounds: Numbers, costs: Numbers, losses: Numbers) -> Family:
    """Return the policies that take the lowest tier whose bound is within a limit, for all limits.

    `bounds` has a column for each tier below the top, `costs` a value and `losses` a column for each tier.
    """
    finite = np.unique(bounds[np.isfinite(bounds)])
    if len(finite) > STEPS:
        finite = np.unique(np.quantile(finite, np.linspace(0, 1, STEPS + 1), method="nearest"))
    limits = [np.inf, *finite[::-1], -np.inf]
    within = np.hstack([bounds, np.full((len(bounds), 1), -np.inf)])
    return _of_choices(np.array([(within <= limit).argmax(axis=1) for limit in limits], np.int8).T, costs, losses)


def at_random(costs: Numbers, losses: Numbers) -> Family:
    """Return what shares drawn by chance can do: the single tiers that no mixture of others beats, and lines between.

    With two tiers it is the straight line from the one to the other.
    """
    average = losses.mean(axis=0)
    tiers = [0]
    while tiers[-1] < len(costs) - 1:
        later = range(tiers[-1] + 1, len(costs))
        slopes = [(average[tier] - average[tiers[-1]]) / max(costs[tier] - costs[tiers[-1]], 1e-12) for tier in later]
        tiers.append(later[int(np.argmin(slopes))])
    return _of_choices(np.tile(np.array(tiers, np.int8), (len(losses), 1)), costs, losses)


def oracle(costs: Numbers, losses: Numbers) -> Family:
    """Return the best that anybody could do who knew every loss: what cost saves most loss is spent first.

    It never pays for a loss: from where more cost saves nothing, the curve is level.
    """
    pairs = [(low, high) for high in range(len(costs)) for low in range(high) if costs[high] > costs[low]]
    rates = np.concatenate([(losses[:, low] - losses[:, high]) / (costs[high] - costs[low]) for low, high in pairs])
    rates = np.unique(rates[rates > 0])
    if len(rates) > STEPS:
        rates = np.unique(np.quantile(rates, np.linspace(0, 1, STEPS + 1), method="nearest"))
    # Between two rates, as no label is undecided there; at no rate at all, the cheapest of the best.
    middles = (rates[1:] + rates[:-1]) / 2
    tried = [np.inf, *middles[::-1], *(rates[:1] / 2), 0.0]
    choices = [np.zeros(len(losses), np.int64)]
    choices += [(losses + rate * costs).argmin(axis=1) for rate in tried[1:-1]]
    choices += [choices[-1]]
    family = _of_choices(np.array(choices, np.int8).T, costs, losses)
    family.costs[:, -1] = costs[-1]
    return family


def cascade(unsure: Numbers, spent: Numbers, costs: Numbers, losses: Numbers) -> Family:
    """Return the policies that let the lowest tier answer, and a higher one again where that was not sure enough.

    `spent`: the share of the lowest tier's cost that is gone when it is judged: 1 of a whole answer. The higher one is
    the next tier that random shares would use. Both are paid for, so that beyond some cost nobody would go on: from the
    setting where it saves most, the curve is the straight line to all on that tier.
    """
    random = at_random(costs, losses)
    tier = int(random.choices[0, 1])
    answers = by_limit(unsure[:, None], costs[[0, tier]], losses[:, [0, tier]]).choices
    paid = np.where(answers == 1, spent[:, None] * costs[0] + costs[tier], costs[0])
    lost = np.where(answers == 1, losses[:, [tier]], losses[:, :1])
    cost, loss = paid.mean(axis=0), lost.mean(axis=0)
    before = np.flatnonzero(cost < costs[tier])
    slopes = (losses[:, tier].mean() - loss[before]) / (costs[tier] - cost[before])
    kept = slice(0, int(before[np.argmax(slopes)]) + 1)
    return Family(
        choices=np.hstack([answers[:, kept] * np.int8(tier), random.choices[:, 1:]]),
        costs=np.hstack([paid[:, kept], random.costs[:, 1:]]),
        losses=np.hstack([lost[:, kept], random.losses[:, 1:]]),
    )


def _of_choices(choices: Places, costs: Numbers, losses: Numbers) -> Family:
    return Family(choices, costs[choices], losses[np.arange(len(losses))[:, None], choices])
