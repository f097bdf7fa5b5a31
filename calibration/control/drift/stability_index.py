"""The population stability index of a feature, and thresholds for it by permutation. Pure.

PSI sums (p - q) * ln(p / q) over bins, p and q being the shares of two samples in each; where both are of one
population, n and m strong, it is about chi-squared with bins - 1 degrees of freedom, times 1/n + 1/m. So its size says
nothing without n and m: of 100 prompts it is over 0.1 in nearly every second draw without any drift. The folk
thresholds (0.1 "look at it", 0.25 "it has moved") are shown, and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
FOLK = (0.1, 0.25)
_BINS = 10
_CHUNK = 1000  # permutations at a time: their picks are a table of so many rows


def bin_edges(values: Numbers) -> Numbers:
    """Return upper edges of all bins but the last: deciles, each value once, so that equal values are in one bin."""
    edges = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
    below: Numbers = edges[edges < values.max()]
    return below


def binned(values: Numbers, edges: Numbers) -> NDArray[np.intp]:
    """Return the bin of each value."""
    places: NDArray[np.intp] = np.searchsorted(edges, values, side="left")
    return places


def psi(counts: Counts, reference: Counts) -> float:
    """Return the index of two samples, from how many of each are in every bin; an empty bin counts as half of one."""
    shares = np.maximum(counts, 0.5) / counts.sum()
    expected = np.maximum(reference, 0.5) / reference.sum()
    return float(((shares - expected) * np.log(shares / expected)).sum())


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of all features, and how many of the reference are in each."""

    edges: tuple[Numbers, ...]
    reference: tuple[Counts, ...]
    strength: int  # prompts of the reference

    @classmethod
    def of(cls, table: Numbers) -> Bins:
        """Return the bins of a table: a prompt in each row, a feature in each column."""
        edges = tuple(bin_edges(column) for column in table.T)
        counts = (
            np.bincount(binned(column, e), minlength=len(e) + 1) for column, e in zip(table.T, edges, strict=True)
        )
        return cls(edges, tuple(counts), len(table))

    def indices(self, table: Numbers) -> Numbers:
        """Return the PSI of each feature of these prompts against the reference."""
        return np.array(
            [
                psi(np.bincount(binned(column, edges), minlength=len(edges) + 1), reference)
                for column, edges, reference in zip(table.T, self.edges, self.reference, strict=True)
            ]
        )

    def thresholds(self, window: int, tail: float) -> Numbers:
        """Return the PSI of each feature whose tail chance is `tail` by chi-squared, in a window of so many prompts."""
        from scipy.stats import chi2

        freedom = np.array([len(edges) for edges in self.edges])
        bounds: Numbers = chi2.isf(tail, freedom) * (1 / window + 1 / self.strength)
        return bounds


def tail_by_permutation(table: Numbers, window: int, level: float, count: int, seed: int) -> float:
    """Return the tail chance at which *any* feature passes its threshold in a share `level` of windows without drift.

    The reference is divided by chance into a window and the rest, `count` times; each time the smallest tail chance of
    all features is kept. So that features depend on each other, have few values, or are many, is in it. Level is that
    of one window, over all features.

    Raises:
        ValueError: so few permutations cannot show this level.

    """
    from scipy.stats import chi2

    place = int(level * (count + 1))
    if place < 1:
        raise ValueError(f"{count} permutations show no level of {level:g}, expected at least {round(1 / level)}")
    drawn = min(window, len(table) // 2)
    rest = len(table) - drawn
    edges = [bin_edges(column) for column in table.T]
    one_hot = [_one_hot(binned(column, e), len(e) + 1) for column, e in zip(table.T, edges, strict=True)]
    columns, totals = np.hstack(one_hot), np.hstack([part.sum(axis=0) for part in one_hot])
    starts = np.cumsum([0, *(part.shape[1] for part in one_hot[:-1])])
    freedom = np.array([len(e) for e in edges])
    random, smallest = np.random.default_rng(seed), np.empty(count)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        picks = np.zeros((size, len(table)), dtype=np.float32)
        order = np.argpartition(random.random((size, len(table)), dtype=np.float32), drawn - 1, axis=1)[:, :drawn]
        np.put_along_axis(picks, order, 1.0, axis=1)
        counts = picks @ columns
        shares, expected = np.maximum(counts, 0.5) / drawn, np.maximum(totals - counts, 0.5) / rest
        indices = np.add.reduceat((shares - expected) * np.log(shares / expected), starts, axis=1)
        smallest[start : start + size] = chi2.sf(indices / (1 / drawn + 1 / rest), freedom).min(axis=1)
    return float(np.partition(smallest, place - 1)[place - 1])


def _one_hot(places: NDArray[np.intp], bins: int) -> NDArray[np.float32]:
    table = np.zeros((len(places), bins), dtype=np.float32)
    table[np.arange(len(places)), places] = 1.0
    return table
