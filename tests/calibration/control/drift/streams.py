"""Reference labels, streams and a policy with a known truth: what is lost depends on one feature alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.control.promise import share_in_words

NAMES = ("entropy", "digits", "punctuation", "tokens")
WORDS = share_in_words(0.05, 0.2, "answer.kl")


def features(random: np.random.Generator, count: int, digits: float = 0.2) -> NDArray[np.float64]:
    """Draw prompts; `digits`: the mean share of digits, whose standard deviation is 0.1 or so."""
    share = np.clip(random.normal(digits, 0.1, count), 0, 1)
    return np.column_stack(
        [random.normal(4.5, 0.3, count), share, random.beta(2, 30, count), np.exp(random.normal(5, 1, count))]
    )


def label(row: Iterable[float], random: np.random.Generator, *, at: str = "", limit: float = 0.3) -> dict[str, Any]:
    """Return the label of a prompt, as the policy below serves it: int4 loses too much as often as it has digits."""
    values = dict(zip(NAMES, map(float, row), strict=True))
    is_low = values["digits"] <= limit
    loss = 0.5 if random.random() < 0.25 * values["digits"] else 0.01
    tiers = {"int4": {"answer": {"kl": loss}}, "bf16": {"answer": {"kl": 0.0}}}
    return {
        "features": values,
        "reference": "bf16",
        "served_by": "int4" if is_low else "bf16",
        "tiers": tiers,
        "at": at,
    }


def policy(folder: Path, limit: float = 0.3, words: str = WORDS) -> Path:
    """Write a policy that predicts the share of digits as the loss of int4."""
    path = folder / "policy.json"
    tier = {"form": "linear", "high": 1, "intercept": 0, "weights": [1.0]}
    form = {
        "kind": "learned",
        "measure": words,
        "limit": limit,
        "inputs": [{"name": "digits"}],
        "tiers": {"int4": tier},
    }
    path.write_text(json.dumps(form), encoding="utf-8")
    return path


def write_lines(path: Path, lines: Iterable[object]) -> Path:
    """Append lines to a file of JSONL."""
    with path.open("a", encoding="utf-8") as file:
        for line in lines:
            file.write(line if isinstance(line, str) else json.dumps(line) + "\n")
    return path


def requests(table: NDArray[np.float64]) -> list[dict[str, Any]]:
    return [{"features": dict(zip(NAMES, map(float, row), strict=True))} for row in table]
