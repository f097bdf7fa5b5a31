"""What a labelling run will take, from its first prompts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.control.labelling.run_labelling import Labeller, Probe

_MIB = 2**20
# Of each prompt: tokens, answer and predictions of the reference; predictions and own answer of a tier.
_REFERENCE_REQUESTS, _TIER_REQUESTS = 3, 2


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


def estimate(probe: Probe, prompts: int, labeller: Labeller) -> Estimate:
    """Return what so many prompts take, those of the probe included."""
    records = [record for record in labeller.journal.references.values() if record.prompt]
    read = sum(len(record.prompt) for record in records) / max(1, len(records))
    written = sum(record.tokens for record in records) / max(1, len(records))
    tiers, share, spent = len(labeller.tiers), prompts / probe.prompts, labeller.askers.spent()
    seconds = probe.seconds * share
    if not labeller.askers.side_by_side:
        seconds = (seconds + probe.start_s) * (1 + tiers)
    return Estimate(
        prompts=prompts,
        requests=prompts * (_REFERENCE_REQUESTS + _TIER_REQUESTS * tiers),
        # Twice each prompt, and the answer along with it.
        prompt_tokens=round(prompts * (1 + tiers) * (2 * read + written)),
        answer_tokens=round(prompts * (1 + tiers) * (written + 1)),
        seconds=round(seconds, 1),
        cost=spent.cost * share if spent and spent.cost else None,
        redis_mib=round(spent.bytes * share / _MIB, 1) if spent else None,
    )
