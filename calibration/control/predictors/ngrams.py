"""Ridge on hashed runs of characters. It needs the labels' texts, and takes milliseconds: for comparisons only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import Ridge

from calibration.control.losses import Labels
from calibration.control.predictors.exported import ranks, source_weights
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.errors import InputError

_HASHING = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**16, alternate_sign=False)


@lru_cache(maxsize=1)
def _hashed(texts: tuple[str, ...]) -> csr_matrix:
    """Return the rows of all texts, which do not depend on each other: the same labels are fitted for each fold."""
    return _HASHING.transform(texts)


@dataclass(frozen=True, slots=True)
class _Fitted:
    model: Any  # scikit-learn's Ridge

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        predicted = self.model.predict(_HASHING.transform([labels.texts[row] for row in rows]))
        return np.asarray(predicted).reshape(len(rows), -1)

    def export(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Ngrams:
    """The rank of each tier's loss, by which runs of two to four characters there are."""

    def fit(self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int) -> _Fitted:
        if not labels.texts:
            raise InputError("runs of characters need the texts: label with --keep-text")
        table = _hashed(labels.texts)[rows]
        target = np.array([ranks(added[tier][rows]) for tier in tiers]).T
        weights = source_weights([labels.sources[row] for row in rows])
        return _Fitted(Ridge(alpha=1.0, solver="sparse_cg", random_state=seed).fit(table, target, weights))
