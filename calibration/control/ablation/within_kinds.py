"""A policy within one kind of prompts, where knowing the kind cannot help it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from calibration.control.ablation.cost_curves import Curves, Family, Numbers, curves, means

MIN_OF_KIND = 20
GRID = 21


def parts_of(kinds: Sequence[str]) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield the kinds with enough labels, the largest first, and their rows; nothing where there is but one kind."""
    names, numbers, counts = np.unique(np.array(kinds), return_inverse=True, return_counts=True)
    if len(names) > 1:
        for at in np.argsort(-counts, kind="stable"):
            if counts[at] >= MIN_OF_KIND:
                yield str(names[at]), np.flatnonzero(numbers == at)


def share(part: Numbers, whole: Numbers) -> Numbers:
    """Return part / whole, nan where there is nothing to have a part of."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 1e-12, part / whole, np.nan)


def correlation(scores: Numbers, values: Numbers, weights: Numbers) -> Numbers:
    """Return Spearman's correlation for each row of weights; ranks are those of the labels as they are."""
    x, y = rankdata(scores), rankdata(values)
    x, y = x - x.mean(), y - y.mean()
    mean_x, mean_y, xx, yy, xy = means(weights, np.column_stack([x, y, x * x, y * y, x * y])).T
    spread = np.sqrt(np.maximum(xx - mean_x**2, 0) * np.maximum(yy - mean_y**2, 0))
    return share(xy - mean_x * mean_y, spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFigures:
    """One policy within one kind, for each row of weights."""

    labels: int
    gain: Numbers
    area_share: Numbers
    spearman: Numbers | None
    of_article: Numbers | None
    remaining: Sequence[float]  # on a grid of costs

    def as_json(self, estimate: Callable[[Numbers], Any]) -> dict[str, Any]:  # Any: JSON
        return {
            "labels": self.labels,
            "area_share": estimate(self.area_share),
            "spearman": None if self.spearman is None else estimate(self.spearman),
            "of_article": None if self.of_article is None else estimate(self.of_article),
            "remaining": [float(f"{value:.4g}") if np.isfinite(value) else None for value in self.remaining],
        }


class KindPart:
    """The labels of one kind, and what random shares and the oracle do with them."""

    def __init__(
        self, kind: str, rows: NDArray[np.intp], weights: Numbers, bounds: tuple[Family, Family], losses: Numbers
    ) -> None:
        self.kind, self.rows, self.weights = kind, rows, weights[:, rows]
        self.counts = self.weights.sum(axis=1)
        self._losses = losses[rows]
        by_chance, least_area = (self._curves(family).area() for family in bounds)
        self._by_chance, self.possible = by_chance, by_chance - least_area

    def figures(self, family: Family, scores: Numbers | None, article: Curves | None) -> KindFigures:
        shown = self._curves(family)
        gain = self._by_chance - shown.area()
        grid = np.linspace(shown.costs[0, 0], shown.costs[0, -1], GRID)
        first = Curves(np.repeat(shown.costs[:1], GRID, axis=0), np.repeat(shown.losses[:1], GRID, axis=0))
        of_article = None
        if article is not None:
            of_article = share(shown.at_cost(article.costs[:, 0]), article.losses[:, 0])
        return KindFigures(
            labels=len(self.rows),
            gain=gain,
            area_share=share(gain, self.possible),
            spearman=None if scores is None else correlation(scores[self.rows], self._losses, self.weights),
            of_article=of_article,
            remaining=share(first.at_cost(grid), np.full(GRID, self._losses.mean())).tolist(),
        )

    def _curves(self, family: Family) -> Curves:
        rows = self.rows
        return curves(Family(family.choices[rows], family.costs[rows], family.losses[rows]), self.weights)
