"""Held-out text cut into passages: the same ones wherever a checkpoint is measured."""

from __future__ import annotations

# A passage is what is resampled for intervals: short enough that a few thousand tokens make many of them.
PASSAGE_TOKENS = 256


def cut_text(tokens: list[int], budget: int) -> list[list[int]]:
    """Return the passages of one text, each a prompt of its own, until the budget in tokens is spent.

    A passage of one token predicts nothing and is left out.
    """
    kept = tokens[: max(budget, 0)]
    passages = [kept[start : start + PASSAGE_TOKENS] for start in range(0, len(kept), PASSAGE_TOKENS)]
    return [passage for passage in passages if len(passage) > 1]
