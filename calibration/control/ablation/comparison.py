"""The figures of one policy: what its curve says beside random shares, the oracle and the article's rule. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.control.ablation.cost_curves import (
    Curves,
    Family,
    Numbers,
    Places,
    at_random,
    curves,
    first_within,
    means,
    oracle,
)
from calibration.control.ablation.resampling import Resamples
from calibration.control.ablation.within_kinds import KindPart, correlation, parts_of, share

Figures = dict[str, Any]  # JSON
# Policies are compared at the cost of a mixture by chance: so much on the lowest tier, the rest on the top.
LOWEST_SHARES = (0.7, 0.5, 0.3)
WITHIN = 0.995  # of the best tier's agreement
GRID = 51


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What labels say: a row for each label, a column for each tier, the lowest first."""

    ladder: tuple[str, ...]
    costs: Numbers
    losses: Numbers  # beyond the top's, which may be less than none
    others: Numbers | None  # another loss, between 0 and 1, as it was measured: 1 - agreement
    article: Places | None  # the place of the tier that the article's rule chooses
    kinds: tuple[str, ...]


FILE = "policy"  # what a policy's file is called among the policies


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy at all of its settings, and what it predicts of the lowest tier's loss, where it does."""

    name: str
    family: Family
    scores: Numbers | None = None
    differs_within_kinds: bool = True
    after: int | None = None  # tokens of an answer, where it decides after these


class Comparison:
    """Compares policies on the same labels, under the same weights."""

    def __init__(self, measured: Measured, resamples: Resamples) -> None:
        self._measured, self._resamples, self._weights = measured, resamples, resamples.weights
        costs, losses = measured.costs, measured.losses
        self.random = Policy(name="random", family=at_random(costs, losses))
        self.oracle = Policy(name="oracle", family=oracle(costs, losses), scores=losses[:, 0])
        others = measured.others
        self._agrees_most = self.oracle.family if others is None else oracle(costs, others - others[:, -1:])
        self._lowest = means(self._weights, losses[:, :1])[:, 0]
        self._article = None if measured.article is None else self._point(measured.article)
        by_chance, least_area = (curves(policy.family, self._weights).area() for policy in (self.random, self.oracle))
        self._by_chance, self._possible = by_chance, by_chance - least_area
        self._kinds = [
            KindPart(kind, rows, self._weights, (self.random.family, self.oracle.family), losses[:, 0])
            for kind, rows in parts_of(measured.kinds)
        ]

    def gain(self, policy: Policy) -> float:
        """Return the area between random shares and this policy, as a share of the oracle's; nan where it has none."""
        return float(self._area_share(curves(policy.family, self._weights[:1]))[0])

    def figures(self, policy: Policy, best: Policy | None = None) -> Figures:
        """Return all figures of a policy; `best`: the router that it is held against."""
        estimate, shown = self._resamples.estimate, curves(policy.family, self._weights)
        rival = None if best is None else curves(best.family, self._weights)
        return {
            "after_tokens": policy.after,
            "area_share": estimate(self._area_share(shown)),
            "spearman": self._spearman(policy),
            "at_article_cost": None if self._article is None else self._beside_article(policy, shown, rival),
            "at_lowest_share": {f"{part:g}": self._at(shown, rival, self._mixed(part)) for part in LOWEST_SHARES},
            "cost_at_article_loss": None
            if self._article is None
            else estimate(shown.cost_at(self._article.losses[:, 0])),
            "cost_at_half_loss": estimate(shown.cost_at(self._lowest / 2)),
            "equal_agreement": self._equal_agreement(self._agrees_most if policy is self.oracle else policy.family),
            "within_kinds": self._within_kinds(policy) if policy.differs_within_kinds else None,
            "curve": self._curve(shown),
        }

    def singles(self) -> dict[str, Figures]:
        """Return what each single tier costs and loses."""
        losses = means(self._weights, self._measured.losses)
        return {
            tier: {"cost": float(self._measured.costs[at]), "loss": self._resamples.estimate(losses[:, at])}
            for at, tier in enumerate(self._measured.ladder)
        }

    def point(self, chosen: Places | None) -> Figures | None:
        """Return what one choice for each label costs and loses: a point, and no curve."""
        if chosen is None:
            return None
        point, estimate = self._point(chosen), self._resamples.estimate
        return {
            "cost": estimate(point.costs[:, 0]),
            "loss": estimate(point.losses[:, 0]),
            "remaining": estimate(share(point.losses[:, 0], self._lowest)),
            "shares": {tier: float((chosen == at).mean()) for at, tier in enumerate(self._measured.ladder)},
        }

    def _point(self, chosen: Places) -> Curves:
        losses = np.take_along_axis(self._measured.losses, chosen[:, None].astype(np.intp), axis=1)
        return Curves(means(self._weights, self._measured.costs[chosen][:, None]), means(self._weights, losses))

    def _area_share(self, shown: Curves) -> Numbers:
        count = len(shown.costs)
        return share(self._by_chance[:count] - shown.area(), self._possible[:count])

    def _mixed(self, lowest: float) -> Numbers:
        costs = self._measured.costs
        return np.full(len(self._weights), lowest * costs[0] + (1 - lowest) * costs[-1])

    def _at(self, shown: Curves, rival: Curves | None, costs: Numbers) -> Figures:
        losses, estimate = shown.at_cost(costs), self._resamples.estimate
        figures: Figures = {"remaining": estimate(share(losses, self._lowest))}
        if rival is not None:
            figures["of_best_router"] = estimate(share(losses, rival.at_cost(costs)))
        return figures

    def _beside_article(self, policy: Policy, shown: Curves, rival: Curves | None) -> Figures:
        assert self._article is not None  # noqa: S101  (the caller has looked)
        costs = self._article.costs[:, 0]
        by_tier = {
            tier: Curves(shown.costs[:1], means(self._weights[:1], (policy.family.choices == at).astype(float)))
            for at, tier in enumerate(self._measured.ladder)
        }
        return {
            **self._at(shown, rival, costs),
            "of_article": self._resamples.estimate(share(shown.at_cost(costs), self._article.losses[:, 0])),
            "shares": {tier: float(part.at_cost(costs[:1])[0]) for tier, part in by_tier.items()},
        }

    def _equal_agreement(self, family: Family) -> Figures | None:
        """Return the largest share on the lowest tier at which agreement is as good as the best single tier's."""
        others = self._measured.others
        if others is None:
            return None
        limits = 1 - WITHIN * (1 - means(self._weights, others).min(axis=1))
        chosen = np.take_along_axis(others, family.choices.astype(np.intp), axis=1)
        lowest = means(self._weights, (family.choices == 0).astype(float))
        return self._resamples.estimate(first_within(means(self._weights, chosen), limits, lowest))

    def _spearman(self, policy: Policy) -> Figures | None:
        if policy.scores is None:
            return None
        against = {"loss": self._measured.losses[:, 0]}
        if self._measured.others is not None:
            against["other"] = self._measured.others[:, 0]
        return {
            name: self._resamples.estimate(correlation(policy.scores, values, self._weights))
            for name, values in against.items()
        }

    def _within_kinds(self, policy: Policy) -> Figures | None:
        """Return what a policy gains where kinds cannot help it: each kind alone, and all weighted by their labels."""
        if not self._kinds:
            return None
        estimate = self._resamples.estimate
        kinds = {part.kind: part.figures(policy.family, policy.scores, self._article_of(part)) for part in self._kinds}
        counts = np.array([part.counts for part in self._kinds])
        gained = np.array([figures.gain for figures in kinds.values()])
        possible = np.array([part.possible for part in self._kinds])
        weighted = {"area_share": estimate(share(_sum(counts, gained), _sum(counts, possible)))}
        if policy.scores is not None:
            correlations = np.array([figures.spearman for figures in kinds.values()])
            known = counts * np.isfinite(correlations)
            weighted["spearman"] = estimate(share(_sum(known, correlations), known.sum(axis=0)))
        return {**weighted, "kinds": {kind: figures.as_json(estimate) for kind, figures in kinds.items()}}

    def _article_of(self, part: KindPart) -> Curves | None:
        chosen = self._measured.article
        if chosen is None:
            return None
        losses = np.take_along_axis(self._measured.losses[part.rows], chosen[part.rows, None].astype(np.intp), axis=1)
        costs = self._measured.costs[chosen[part.rows]]
        return Curves(means(part.weights, costs[:, None]), means(part.weights, losses))

    def _curve(self, shown: Curves) -> Figures:
        """Return the curve on a grid of costs, with its bands: what remains of the loss of all on the lowest tier."""
        costs = np.linspace(self._measured.costs[0], self._measured.costs[-1], GRID)
        points = [self._at(shown, None, np.full(len(self._weights), cost))["remaining"] for cost in costs]
        return {"costs": costs.tolist(), "remaining": points}


def _sum(counts: Numbers, values: Numbers) -> Numbers:
    return np.asarray((counts * np.nan_to_num(values)).sum(axis=0))
