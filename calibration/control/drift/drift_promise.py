"""What a policy promises of its losses, as drift holds labels against it. Pure."""

from __future__ import annotations

import re

import msgspec

from calibration.control.promise import share_of_words

_MEAN = re.compile(r"the mean of (?P<measure>.+) added, each clipped at (?P<threshold>\S+), is at most (?P<alpha>\S+)")


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """At most `alpha` of all requests lose more than `threshold` under `measure`, with confidence 1 - delta."""

    measure: str
    threshold: float
    alpha: float
    delta: float
    low_share: float = 1.0  # the share of all requests that the labels are drawn from; the rest lose nothing

    @property
    def unit(self) -> float:
        """What a label of 1 has lost, as `alpha` counts it."""
        return 1.0

    @property
    def among_labels(self) -> float:
        """What labels, from 0 to 1, may lose on average."""
        return min(1.0, self.alpha / self.unit / self.low_share)

    def loss(self, added: float) -> float:
        """Return a label, from 0 to 1, of what a request has lost beyond the reference."""
        return float(added > self.threshold)

    def risk(self, mean: float) -> float:
        """Return the risk over all requests, as `alpha` counts it, of the mean of labels."""
        return mean * self.low_share * self.unit

    @property
    def in_words(self) -> str:
        return f"at most {self.alpha:.3g} of all requests lose more than {self.threshold:g} ({self.measure})"

    def risk_in_words(self, risk: float) -> str:
        return f"{risk:.2%}"

    def broken_in_words(self, risk: float) -> str:
        return f"{risk:.1%} of the last requests lose more than {self.threshold:g}, promised were {self.alpha:.1%}"


class MeanPromise(Promise, frozen=True, kw_only=True, tag_field="risk", tag="mean"):
    """The mean loss of all requests, each clipped at `threshold`, is at most `alpha`, with confidence 1 - delta."""

    @property
    def unit(self) -> float:
        return self.threshold

    def loss(self, added: float) -> float:
        return min(max(added, 0.0), self.threshold) / self.threshold

    @property
    def in_words(self) -> str:
        return f"all requests lose at most {self.alpha:.3g} on average, each up to {self.threshold:g} ({self.measure})"

    def risk_in_words(self, risk: float) -> str:
        return f"{risk:.3g}"

    def broken_in_words(self, risk: float) -> str:
        lost = f"the last requests lose {risk:.3g} on average, each up to {self.threshold:g}"
        return f"{lost}, promised were {self.alpha:.3g}"


def promise_of_words(words: str, delta: float) -> Promise | None:
    """Return the promise that a tuned policy's file says it makes; None where it says none."""
    if (share := share_of_words(words)) is not None:
        alpha, threshold, measure = share
        return Promise(measure=measure, threshold=threshold, alpha=alpha, delta=delta)
    match = _MEAN.fullmatch(words)
    try:
        return match and MeanPromise(
            measure=match["measure"], threshold=float(match["threshold"]), alpha=float(match["alpha"]), delta=delta
        )
    except ValueError:
        return None
