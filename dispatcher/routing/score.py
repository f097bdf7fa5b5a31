"""Features of a prompt, from its bytes alone."""

from __future__ import annotations

import numpy as np


def byte_entropy(text: bytes) -> float:
    """Return the Shannon entropy of the bytes, in bits per byte: 0 (one value, or empty) to 8 (all 256 alike).

    C. E. Shannon, "A Mathematical Theory of Communication", 1948, section 6. The probabilities are those of the
    UTF-8 bytes and divide by their number, so that non-ASCII text is counted like any other.
    """
    if not text:
        return 0.0
    counts = np.bincount(np.frombuffer(text, dtype=np.uint8), minlength=256)
    shares = counts[counts > 0] / len(text)
    return max(0.0, float(-(shares * np.log2(shares)).sum()))
