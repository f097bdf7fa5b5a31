"""Folds of whole sources, and weights that resample labels: by chance, and by the source they are from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.statistics import percentiles

Numbers = NDArray[np.float64]
Rows = NDArray[np.intp]
FOLDS = 5
# As many sources as possible are fitted on, as all are in what serves.
SOURCE_FOLDS = 20
# Rows of weights and labels together: what is held in memory at once is some hundred MB.
_MAX_WEIGHTS = 12_000_000


def source_folds(sources: Sequence[str], seed: int) -> Rows | None:
    """Return the fold of each label, a source being in one fold alone; None of a single source.

    The largest sources are placed first, each into the fold that has fewest labels, so that folds are of like size.
    """
    _, numbers, counts = np.unique(np.array(sources), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    folds, sizes = np.zeros(len(counts), np.intp), np.zeros(min(SOURCE_FOLDS, len(counts)))
    for source in order:
        folds[source] = sizes.argmin()
        sizes[folds[source]] += counts[source]
    placed: Rows = folds[numbers]
    return placed


class Resamples:
    """Weights of labels: as they are, then resampled as prompts, then as whole sources.

    Labels of the same group have the same text, and are resampled together; without groups there are none of these.
    """

    def __init__(self, sources: Sequence[str], resamples: int, seed: int, groups: Sequence[str] | None = None) -> None:
        count = len(sources)
        texts = {group: place for place, group in enumerate(dict.fromkeys(groups or range(count)))}
        of_text = [texts[group] for group in groups or range(count)]
        self.count = max(20, min(resamples, _MAX_WEIGHTS // (2 * count)))
        _, numbers, sizes = np.unique(np.array(sources), return_inverse=True, return_counts=True)
        self._units = (len(texts), len(sizes))
        chance = np.random.default_rng(seed)
        prompts, drawn = (
            chance.multinomial(units, np.full(units, 1 / units), self.count).astype(float) for units in self._units
        )
        self.weights: Numbers = np.vstack([np.ones(count), prompts[:, of_text], drawn[:, numbers]])

    def estimate(self, values: Numbers) -> dict[str, Any] | None:  # Any: JSON
        """Return a figure of every row of weights as a value with its two 95 % intervals; None where there is none.

        An interval by sources needs two of them.
        """
        if not np.isfinite(values[0]):
            return None
        parts = {"by_prompt": values[1 : 1 + self.count], "by_source": values[1 + self.count :]}
        intervals = {
            name: None if units < 2 else [_rounded(end) for end in percentiles(part[np.isfinite(part)], units)]
            for (name, part), units in zip(parts.items(), self._units, strict=True)
        }
        return {"value": _rounded(float(values[0])), **intervals}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
