"""How many pairs a decision takes, before the first one is made. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from calibration.control.canary.eprocess import Decision, first_pairs

# The example that everybody has in mind: pass@1 one point lower, where 8 % of the problems end differently.
PASS_AT_1 = (0.01, 0.08)


@dataclass(frozen=True, slots=True)
class Assumed:
    """What pairs are assumed to be: so many differ, by so much, and in the mean by `difference`."""

    difference: float
    discordance: float = 0.3  # share of the pairs that differ
    size: float = 0.2  # of a difference

    def draw(self, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
        worse = (self.discordance + self.difference / self.size) / 2
        if not 0 <= worse <= self.discordance <= 1:
            raise ValueError(
                f"a mean difference of {self.difference:g} needs more than {self.discordance:.0%} of the pairs to "
                f"differ by {self.size:g}"
            )
        drawn = generator.random(shape)
        return self.size * ((drawn < worse).astype(float) - (drawn > 1 - (self.discordance - worse)))


@dataclass(frozen=True, slots=True)
class Power:
    """What becomes of many canaries that all have such pairs."""

    assumed: Assumed
    shares: dict[str, float]  # by decision, up to `max_pairs`
    median_pairs: int | None  # until a decision; None: most have none
    p90_pairs: int | None
    max_pairs: int


def simulate_power(
    assumed: Assumed, *, margin: float, alpha: float, max_pairs: int, replays: int = 200, seed: int = 0
) -> Power:
    """Replay canaries, each looked at after every pair."""
    drawn = assumed.draw((replays, max_pairs), np.random.default_rng(seed))
    worse, fine = first_pairs(drawn, margin, alpha)
    pairs = np.minimum(worse, fine)
    shares = {Decision.WORSE: worse <= fine, Decision.FINE: fine < worse, Decision.UNDECIDED: pairs == np.inf}
    shares[Decision.WORSE] &= pairs < np.inf
    median, p90 = np.quantile(pairs, [0.5, 0.9], method="higher")
    return Power(
        assumed=assumed,
        shares={str(decision): float(is_so.mean()) for decision, is_so in shares.items()},
        median_pairs=int(median) if np.isfinite(median) else None,
        p90_pairs=int(p90) if np.isfinite(p90) else None,
        max_pairs=max_pairs,
    )


def fixed_sample_pairs(difference: float, discordance: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many pairs of right and wrong a test of a fixed size takes: two-sided, normal approximation."""
    variance = discordance - difference**2
    if variance <= 0 or difference == 0:
        raise ValueError(f"difference {difference:g} must be above 0, and below a discordance of {discordance:g}")
    quantiles = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return int(quantiles**2 * variance / difference**2)
