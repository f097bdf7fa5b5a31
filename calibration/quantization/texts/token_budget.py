"""Which tokens a recipe calibrates on: as many as it says, of samples and a share of general text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from calibration.quantization.recipe import CalibrationMix

# The tokens of a text, at most so many.
Tokenize = Callable[[str, int], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTokens:
    """What is calibrated on."""

    # One text each: packed into rows of 512 tokens, short texts made INT4 a third worse (docs/calibration/figures.md).
    rows: list[list[int]] = field(repr=False)
    budget: int
    samples: int  # how many of the samples were read
    sample_tokens: int
    general_tokens: int  # of packaged text and packages

    def counts(self) -> dict[str, int]:
        """Return the figures, as a manifest has them."""
        return {name: getattr(self, name) for name in ("budget", "samples", "sample_tokens", "general_tokens")}


def samples_used(available: int, counts: Mapping[str, int]) -> str:
    """Say what was calibrated on, and why not on all samples; counts are those of a manifest."""
    read, from_samples, general, budget = (
        counts[name] for name in ("samples", "sample_tokens", "general_tokens", "budget")
    )
    share = 100 * general / max(1, from_samples + general)
    mixed = f"{general:,} of general text ({share:.0f} %)"
    line = f"calibrated on {read:,} of {available:,} samples, {from_samples:,} tokens, and {mixed}"
    if read < available:
        return f"{line}; the other {available - read:,} are not needed: the recipe reads {budget:,} tokens"
    short = budget - from_samples - general
    return f"{line}; more samples would help: the recipe reads {budget:,} tokens" if short > budget // 20 else line


def fill(
    mix: CalibrationMix, tokenize: Tokenize, *, samples: Sequence[str], general: Sequence[str]
) -> CalibrationTokens:
    """Return the beginnings of samples and general texts, one after the other, until the budget of each is spent.

    With samples, general texts get the mix's share of all tokens; without, all. If samples are fewer than their part,
    general texts are fewer too: the share stays.
    """
    own_budget = round(mix.most_tokens * (1 - mix.general_share)) if samples else 0
    beginnings, taken = _take(samples, mix, tokenize, own_budget)
    own_tokens = sum(map(len, beginnings))
    rest = mix.most_tokens if not samples else round(own_tokens * mix.general_share / (1 - mix.general_share))
    others, _ = _take(general, mix, tokenize, rest)
    return CalibrationTokens(
        rows=[ids for ids in beginnings + others if ids],
        budget=mix.most_tokens,
        samples=taken,
        sample_tokens=own_tokens,
        general_tokens=sum(map(len, others)),
    )


def _take(texts: Sequence[str], mix: CalibrationMix, tokenize: Tokenize, budget: int) -> tuple[list[list[int]], int]:
    """Return the tokens of the first texts up to the budget, and of how many texts they are."""
    taken: list[list[int]] = []
    for text in texts:
        if budget <= 0:
            break
        taken.append(tokenize(text, min(mix.tokens, budget)))
        budget -= len(taken[-1])
    return taken, len(taken)
