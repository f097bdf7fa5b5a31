"""What can be told of a prompt from its text alone, cheaply: one number per feature. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitladder.routing.features import byte_entropy
from calibration.sample.kind import code_share

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """How a feature is shown."""

    name: str
    meaning: str
    is_long: bool = False  # its values span orders of magnitude


FEATURES = (
    Feature(name="entropy", meaning="Shannon entropy of the bytes, bits per byte: what the article's rule looks at"),
    Feature(name="characters", meaning="length in characters", is_long=True),
    Feature(name="words", meaning="length in words", is_long=True),
    Feature(name="zlib_ratio", meaning="size after compression by size before"),
    Feature(name="unique_words", meaning="different words by all words"),
    Feature(name="word_length", meaning="mean characters of a word"),
    Feature(name="digits", meaning="share of digits in the bytes"),
    Feature(name="punctuation", meaning="share of punctuation in the bytes"),
    Feature(name="non_ascii", meaning="share of bytes above 127"),
    Feature(name="code_likeness", meaning="share of lines that look like code"),
)
NAMES = tuple(feature.name for feature in FEATURES)

_WORD = re.compile(r"\w+")
_DIGITS = np.isin(np.arange(256), list(b"0123456789"))
_PUNCTUATION = np.isin(np.arange(256), list(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))
_NON_ASCII = np.arange(256) > 127
# The three shares of one text are one product with its byte counts.
_CLASSES = np.stack([_DIGITS, _PUNCTUATION, _NON_ASCII], axis=1).astype(np.float64)


def measure(texts: Sequence[str]) -> Numbers:
    """Return a row for every text and a column for every feature."""
    if not texts:
        return np.empty((0, len(FEATURES)))
    return np.array([_row(text) for text in texts])


def _row(text: str) -> list[float]:
    data = text.encode("utf-8", "replace")
    size = max(1, len(data))
    words = _WORD.findall(text.lower())
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    digits, punctuation, non_ascii = (counts @ _CLASSES / size).tolist()
    return [
        byte_entropy(data),
        float(len(text)),
        float(len(words)),
        len(zlib.compress(data)) / size,
        len(set(words)) / max(1, len(words)),
        sum(map(len, words)) / max(1, len(words)),
        digits,
        punctuation,
        non_ascii,
        code_share(text),
    ]


def rank_correlation(one: Numbers, other: Numbers) -> float | None:
    """Return Spearman's correlation, or None where one of the two is always the same."""
    first, second = _ranks(one), _ranks(other)
    if len(one) < 3 or first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Numbers) -> Numbers:
    """Return ranks; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
