"""What every checkpoint loses on each held-out text: the lines of prompts.jsonl, the worst passages, and the strata."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bitladder.endpoints import Endpoint
from bitladder.routing.features import FEATURES, score_prompt
from calibration.artifacts.evaluation_report import Estimate
from calibration.artifacts.prompt_losses import CheckpointLosses, NamedSource, PromptLine, WorstPassage
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.figures import bootstrap_estimate
from calibration.evaluate.heldout import HeldoutText
from calibration.evaluate.measures.measure import Measure, PerPrompt

# The strata with most tokens are shown: a log may have a group for each request.
_MAX_STRATA = 20
_WORST = 10
_MAX_NAME = 40
_FEATURES = tuple(feature.name for feature in FEATURES.values() if feature.is_of_text)


class WorstText(NamedTuple):
    """A text with the passage on which a tier is furthest from the reference."""

    text: HeldoutText
    loss: WorstPassage


@dataclass(slots=True)
class PromptTable:
    """Held-out texts with the losses of the checkpoints that were measured so far."""

    texts: Mapping[str, HeldoutText] = field(default_factory=dict)  # by id
    losses: dict[str, dict[str, CheckpointLosses]] = field(default_factory=dict)  # by tier, then by id

    def add(
        self,
        candidate: Candidate,
        measures: Sequence[Measure[Any]],
        results: Mapping[str, Any],
        baseline: Mapping[str, Any] | None,
    ) -> None:
        """Take the losses of a checkpoint from its results; baseline is None for the reference."""
        fields: dict[str, dict[str, Any]] = defaultdict(dict)
        for measure in measures:
            if isinstance(measure, PerPrompt):
                reference = baseline[measure.name] if baseline else None
                for name, loss in measure.per_prompt(results[measure.name], reference).items():
                    fields[name][measure.field] = loss
        checkpoint = NamedSource(name=str(candidate.path), sha256=candidate.digest)
        known = {name: parts for name, parts in fields.items() if name in self.texts}
        self.losses[candidate.name] = {
            name: CheckpointLosses(checkpoint=checkpoint, **parts) for name, parts in known.items()
        }

    def lines(self, heldout: NamedSource, reference: str) -> list[PromptLine]:
        """Return a line for each text that was measured, in the order of the set."""
        measured = {name: tiers for name in self.texts if (tiers := self._tiers(name))}
        return [
            PromptLine(
                id=name,
                kind=self.texts[name].kind,
                language=self.texts[name].language,
                group=self.texts[name].group,
                set=heldout,
                reference=reference,
                features=_features(self.texts[name].text),
                tiers=tiers,
            )
            for name, tiers in measured.items()
        ]

    def worst(self, tier: str) -> list[WorstText]:
        """Return the texts with the passages on which this tier is furthest from the reference, the worst first."""
        losses = ((self.texts[name], loss.text) for name, loss in self.losses.get(tier, {}).items())
        compared = [WorstText(text, loss.worst) for text, loss in losses if loss and loss.worst]
        return sorted(compared, key=lambda item: -item.loss.kl)[:_WORST]

    def strata(self, tier: str) -> dict[str, Estimate]:
        """Return the divergence by language and by group, where there are several of them; texts are resampled."""
        figures: dict[str, Estimate] = {}
        for part in ("language", "group"):
            rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for name, losses in self.losses.get(tier, {}).items():
                if losses.text and losses.text.kl is not None:
                    tokens = losses.text.tokens
                    rows[_slug(getattr(self.texts[name], part))].append((tokens, tokens * losses.text.kl))
            largest = sorted(rows, key=lambda stratum: -sum(tokens for tokens, _ in rows[stratum]))[:_MAX_STRATA]
            for stratum in largest if len(rows) > 1 else ():
                counts = np.array(rows[stratum])
                kl = bootstrap_estimate(counts, lambda tokens, apart: apart / tokens, int(counts[:, 0].sum()))
                figures[f"kl_by_{part}.{stratum}"] = kl
        return figures

    def _tiers(self, name: str) -> dict[str, CheckpointLosses]:
        return {tier: losses[name] for tier, losses in self.losses.items() if name in losses}


def _features(text: str) -> dict[str, float]:
    scores = score_prompt(text.encode("utf-8", "replace"), Endpoint.COMPLETIONS, _FEATURES)
    return {name: scores[name] for name in _FEATURES}


def _slug(name: str) -> str:
    """Return a name as a part of a metric's; what has none is `none`."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:_MAX_NAME] or "none"
