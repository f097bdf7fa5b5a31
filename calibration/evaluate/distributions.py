"""How far a tier's next-token distributions are from the reference's, from the most likely tokens of both. Pure.

An engine that wrote out all 49,152 probabilities of every position would send gigabytes. It sends the K most likely
ones, and the token that really followed. Both distributions are then coarsened in the same way: the tokens that both
have sent stay apart, all others become one. Coarsening never raises the divergence (data-processing inequality), so
what comes out is a lower bound of the exact one; docs/calibration/evaluate.md says how close it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What float32 probabilities cannot tell from nothing.
_MIN = 1e-7

# vLLM's shape: for every position but the first, token id -> {"logprob": ..., "rank": ...}.
_PromptLogprobs = Sequence[Mapping[str, Mapping[str, Any]] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """The predictions for one passage: a row per predicted token, the most likely first."""

    actual: NDArray[np.float32]  # log probability of the token that followed
    ids: NDArray[np.int32]  # [rows, K]
    logprobs: NDArray[np.float32]  # [rows, K]


def to_arrays(predictions: Sequence[Distributions]) -> dict[str, NDArray[Any]]:
    """Return the predictions of several passages as arrays for a file."""
    return {
        "ends": np.cumsum([len(passage.actual) for passage in predictions]),
        "actual": np.concatenate([passage.actual for passage in predictions]),
        "ids": np.concatenate([passage.ids for passage in predictions]),
        "logprobs": np.concatenate([passage.logprobs for passage in predictions]),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> tuple[Distributions, ...]:
    parts = (np.split(arrays[name], arrays["ends"][:-1]) for name in ("actual", "ids", "logprobs"))
    return tuple(Distributions(*rows) for rows in zip(*parts, strict=True))


def read_distributions(tokens: Sequence[int], answer: _PromptLogprobs, top: int) -> Distributions:
    """Read an engine's answer for the prompt `tokens`; the first token has no prediction and is left out."""
    if len(answer) != len(tokens) or answer[0] is not None:
        raise ValueError(f"expected log probabilities of {len(tokens)} tokens, got {len(answer)}")
    rows = len(tokens) - 1
    actual = np.empty(rows, np.float32)
    ids, logprobs = np.empty((rows, top), np.int32), np.empty((rows, top), np.float32)
    for row, (token, position) in enumerate(zip(tokens[1:], answer[1:], strict=True)):
        if not position:
            raise ValueError("only the first token is predicted from nothing, got none for another one")
        actual[row] = position[str(token)]["logprob"]
        # The token that followed stands among them if it is likely, and behind them if it is not.
        predictions = ((prediction["logprob"], int(token_id)) for token_id, prediction in position.items())
        likely = sorted(predictions, reverse=True)[:top]
        logprobs[row], ids[row] = zip(*likely, strict=True)
    if not (np.isfinite(actual).all() and np.isfinite(logprobs).all()):
        raise ValueError("a log probability is no number")
    return Distributions(actual, ids, logprobs)


def agreement(reference: Distributions, tier: Distributions) -> NDArray[np.bool_]:
    """Return for every row whether both find the same token most likely."""
    same: NDArray[np.bool_] = reference.ids[:, 0] == tier.ids[:, 0]
    return same


def divergence(reference: Distributions, tier: Distributions) -> NDArray[np.float64]:
    """Return a lower bound of KL(reference || tier) for every row, in nats."""
    rows = [
        _coarse_divergence(*row) for row in zip(reference.ids, reference.logprobs, tier.ids, tier.logprobs, strict=True)
    ]
    return np.array(rows)


def _coarse_divergence(
    reference_ids: NDArray[np.int32],
    reference_logprobs: NDArray[np.float32],
    tier_ids: NDArray[np.int32],
    tier_logprobs: NDArray[np.float32],
) -> float:
    _, in_reference, in_tier = np.intersect1d(reference_ids, tier_ids, assume_unique=True, return_indices=True)
    p_log, q_log = reference_logprobs[in_reference].astype(float), tier_logprobs[in_tier].astype(float)
    p = np.exp(p_log)
    p_rest, q_rest = max(1 - float(p.sum()), _MIN), max(1 - float(np.exp(q_log).sum()), _MIN)
    return max(0.0, float(p @ (p_log - q_log)) + p_rest * math.log(p_rest / q_rest))
