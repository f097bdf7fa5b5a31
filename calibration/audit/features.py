"""The features of many texts as numbers: bitladder/routing/features.py computes them, as the intake does. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.routing.features import FEATURES as ROUTING_FEATURES
from bitladder.routing.features import score_prompt

Numbers = NDArray[np.float64]

# A log does not say which endpoint a text came to, so features of the endpoint are left out.
FEATURES = tuple(feature for feature in ROUTING_FEATURES.values() if feature.is_of_text)
NAMES = tuple(feature.name for feature in FEATURES)


def score(text: str) -> Score:
    """Return all features of a text, as the intake would compute and round them."""
    return score_prompt(text.encode("utf-8", "replace"), Endpoint.COMPLETIONS, NAMES)


def table_of(scores: Sequence[Score]) -> Numbers:
    """Return a row for every score and a column for every feature."""
    if not scores:
        return np.empty((0, len(FEATURES)))
    return np.array([[features[name] for name in NAMES] for features in scores])


def rank_correlation(feature: Numbers, other: Numbers) -> float | None:
    """Return Spearman's correlation, or None where one of the two is always the same."""
    first, second = _ranks(feature), _ranks(other)
    if len(feature) < 3 or first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Numbers) -> Numbers:
    """Return ranks; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
