"""Divergence from the most likely tokens: exact where all are sent, never above the exact one where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.evaluate.distributions import Distributions, agreement, divergence, read_distributions


def logits(seed: int, *, rows: int = 20, tokens: int = 300, noise: float = 0.5) -> tuple[Any, Any]:
    """Return log probabilities of a reference and of a noisy copy, peaked as a language model's are."""
    random = np.random.default_rng(seed)
    ours = random.normal(0, 3, (rows, tokens))
    theirs = ours + random.normal(0, noise, (rows, tokens))
    return tuple(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)) for scores in (ours, theirs))


def top_of(logprobs: NDArray[np.float64], top: int) -> Distributions:
    order = np.argsort(-logprobs, axis=1)[:, :top].astype(np.int32)
    return Distributions(
        actual=logprobs[:, 0].astype(np.float32),
        ids=order,
        logprobs=np.take_along_axis(logprobs, order, axis=1).astype(np.float32),
    )


def exact(p_log: NDArray[np.float64], q_log: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (np.exp(p_log) * (p_log - q_log)).sum(axis=1)
    return result


def test_with_the_whole_vocabulary_the_divergence_is_exact() -> None:
    ours, theirs = logits(1)

    found = divergence(top_of(ours, 300), top_of(theirs, 300))

    assert found == pytest.approx(exact(ours, theirs), abs=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 300), st.floats(0, 3))
def test_with_the_top_of_it_the_divergence_is_a_lower_bound(seed: int, top: int, noise: float) -> None:
    ours, theirs = logits(seed, noise=noise)

    found = divergence(top_of(ours, top), top_of(theirs, top))

    assert (found >= 0).all()
    assert (found <= exact(ours, theirs) + 1e-5).all()


def test_the_bound_gets_tighter_with_every_token_more() -> None:
    ours, theirs = logits(2)

    found = [divergence(top_of(ours, top), top_of(theirs, top)).mean() for top in (4, 16, 64, 300)]

    assert found == sorted(found)
    assert found[2] > 0.9 * exact(ours, theirs).mean()


def test_a_checkpoint_does_not_diverge_from_itself() -> None:
    ours, _ = logits(3)
    same = top_of(ours, 32)

    assert divergence(same, same) == pytest.approx(0, abs=1e-6)
    assert agreement(same, same).all()


def test_agreement_is_about_the_most_likely_token() -> None:
    ours, theirs = logits(4, noise=3)

    found = agreement(top_of(ours, 8), top_of(theirs, 8))

    assert found.tolist() == (ours.argmax(axis=1) == theirs.argmax(axis=1)).tolist()
    assert 0 < found.sum() < len(found)


def entry(logprob: float, rank: int) -> dict[str, Any]:
    return {"logprob": logprob, "rank": rank, "decoded_token": "x"}


def test_an_engine_s_answer_is_read_with_the_token_that_followed_and_the_likely_ones_in_order() -> None:
    answer = [
        None,
        {"7": entry(-0.5, 1), "3": entry(-1.5, 2)},
        {"9": entry(-8.0, 40), "7": entry(-2.0, 2), "3": entry(-0.1, 1)},
    ]

    read = read_distributions([5, 3, 9], answer, top=2)

    assert read.actual.tolist() == pytest.approx([-1.5, -8.0])
    assert read.ids.tolist() == [[7, 3], [3, 7]]
    assert read.logprobs[1].tolist() == pytest.approx([-0.1, -2.0])


def test_an_answer_without_numbers_is_refused() -> None:
    """NaN has no JSON: vLLM sends null."""
    with pytest.raises(ValueError, match="a log probability is no number"):
        read_distributions([5, 3], [None, {"3": {"logprob": None, "rank": 1}}], top=1)


def test_an_answer_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected log probabilities of 3 tokens, got 2"):
        read_distributions([5, 3, 9], [None, {"3": entry(-1, 1)}], top=1)
