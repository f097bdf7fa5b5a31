"""Find texts that are nearly the same: MinHash signatures of byte 8-grams, looked up in bands. Pure numpy.

A. Broder, "On the resemblance and containment of documents", 1997. Ours hashes all 8-grams of a text at once:
datasketch hashes them one by one in Python, and brings scipy for the choice of its bands.
"""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Signature = NDArray[np.uint64]

# Texts whose 8-grams overlap by this much (Jaccard) say the same to a calibration: a word changed in twenty.
NEAR = 0.7
_GRAM = 8
# 16 bands of 4: two texts that overlap by NEAR meet in a band with probability 0.988, by 0.4 with 0.34.
_BANDS, _ROWS = 16, 4
_rng = np.random.default_rng(8)
_FACTORS = _rng.integers(1, 2**63, size=_BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
# So many 8-grams are hashed together: enough to be fast, few enough to stay in the cache.
_AT_ONCE = 512
_DIGITS = re.compile(r"\d+")


def folded(text: str) -> bytes:
    """Return the text without case, white space and the values of numbers, which do not matter to calibration."""
    return _DIGITS.sub("0", " ".join(text.split())).casefold().encode("utf-8")


def signature(fold: bytes) -> Signature:
    """Return 64 MinHash values: the lowest hash of the text's 8-grams under each of 64 hash functions."""
    padded = fold.ljust(_GRAM)
    # All 8-grams as numbers: those that begin at every eighth byte, once for each of eight beginnings.
    starts = [
        np.frombuffer(padded, np.uint64, (len(padded) - at) // _GRAM, at) for at in range(min(_GRAM, len(padded) - 7))
    ]
    grams = np.concatenate(starts)
    grams ^= grams >> np.uint64(29)
    grams *= _MIX
    grams ^= grams >> np.uint64(32)
    lowest = np.full(_BANDS * _ROWS, np.iinfo(np.uint64).max)
    for at in range(0, len(grams), _AT_ONCE):
        hashed = np.outer(
            _FACTORS, grams[at : at + _AT_ONCE]
        )  # the high bits of a product with an odd number hash well
        hashed ^= hashed >> np.uint64(31)
        np.minimum(lowest, hashed.min(axis=1), out=lowest)
    return lowest


def overlap(first: Signature, second: Signature) -> float:
    """Return the estimated Jaccard overlap of two texts: standard error 0.06."""
    return int((first == second).sum()) / len(first)


class NearIndex:
    """An index of signatures that finds those near a new one."""

    def __init__(self) -> None:
        self._signatures: dict[int, Signature] = {}
        self._buckets: defaultdict[tuple[int, bytes], set[int]] = defaultdict(set)

    def near(self, new: Signature) -> list[int]:
        """Return the numbers whose texts overlap by NEAR or more."""
        close = {number for key in _bands(new) for number in self._buckets.get(key, ())}
        return [number for number in sorted(close) if overlap(new, self._signatures[number]) >= NEAR]

    def add(self, number: int, new: Signature) -> None:
        self._signatures[number] = new
        for key in _bands(new):
            self._buckets[key].add(number)

    def remove(self, number: int) -> None:
        for key in _bands(self._signatures.pop(number)):
            bucket = self._buckets[key]
            bucket.discard(number)
            if not bucket:
                del self._buckets[key]


def _bands(hashes: Signature) -> list[tuple[int, bytes]]:
    return [(band, hashes[band * _ROWS : (band + 1) * _ROWS].tobytes()) for band in range(_BANDS)]
