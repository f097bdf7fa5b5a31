"""What a labelling run will take, from its first prompts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.control.labelling.label_prompts import LabelPrompt
from calibration.control.labelling.run_labelling import Labeller, Probe

_MIB = 2**20
_REFERENCE_REQUESTS = 3  # tokens, answer and predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of all prompts that are to be labelled."""

    prompts: int
    requests: int
    prompt_tokens: int  # that engines read
    answer_tokens: int  # that engines write
    seconds: float
    cost: float | None  # None: a local engine, or a stack without prices
    redis_mib: float | None  # that all outcomes take together


def estimate(probe: Probe, waiting: Sequence[LabelPrompt], labeller: Labeller) -> Estimate:
    """Return what these take, those of the probe included. A tier writes an answer of its own once for a prompt."""
    answers, prompts = len(waiting), sum(not turn.turn for turn in waiting)
    tiers = len(labeller.tiers)
    checks = [turn.check for turn in waiting if turn.check] if labeller.options.temperature else []
    records = [record for record in labeller.journal.references.values() if record.prompt]
    read = sum(len(record.prompt) for record in records) / max(1, len(records))
    written = sum(record.tokens for record in records) / max(1, len(records))
    # Answers beside those that the reference draws: each tier's own, and those that are checked.
    others = prompts * tiers + len(checks) * (1 + tiers)
    checked = sum(check.max_tokens or labeller.options.answer_tokens for check in checks)
    share, spent = answers / probe.prompts, labeller.askers.spent()
    seconds = probe.seconds * share
    if not labeller.askers.side_by_side:
        seconds = (seconds + probe.start_s) * (1 + tiers)
    return Estimate(
        prompts=len({turn.id for turn in waiting}),
        requests=answers * (_REFERENCE_REQUESTS + tiers) + others,
        # A prompt for its answer, and once more with the answer for what is predicted along both.
        prompt_tokens=round(answers * (2 * read + written + tiers * (read + written)) + others * read),
        # An answer that is checked is the likeliest one, written beside a drawn one.
        answer_tokens=round(answers * (written + 1 + tiers) + prompts * tiers * written) + checked * (1 + tiers),
        seconds=round(seconds, 1),
        cost=spent.cost * share if spent and spent.cost else None,
        redis_mib=round(spent.bytes * share / _MIB, 1) if spent else None,
    )
