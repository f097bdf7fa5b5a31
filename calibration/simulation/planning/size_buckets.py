"""Requests by size: buckets of input and output lengths, and the rate that a fleet must be able to serve. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals

# Upper edges in tokens, as Mélange has them (Griggs et al. 2024); longer requests are in a last bucket.
INPUT_EDGES = (25, 100, 250, 500, 1000, 2000, 4000, 8000, 16_000)
OUTPUT_EDGES = (25, 100, 250, 500, 1000, 2000)
RATES = ("mean", "p95", "peak")
_MAX_WINDOWS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Requests of about one size."""

    input_tokens: float  # on average
    output_tokens: float
    longest_input: float
    longest_output: float
    share: float  # of all requests

    @property
    def text(self) -> str:
        return f"{self.input_tokens:.0f} tokens in and {self.output_tokens:.0f} out"

    @property
    def tokens(self) -> float:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What must be served."""

    buckets: tuple[Bucket, ...]
    of_request: NDArray[np.intp]  # the bucket of each request
    per_s: float  # the rate that the fleet is made for
    mean_per_s: float
    rate: str  # which of the rates that is
    window_s: float


def demand_of(arrivals: Arrivals, rate: str, window_s: float) -> Demand:
    """Return the demand of requests: their sizes, and their mean, 95th percentile or highest rate by windows."""
    cells = np.searchsorted(INPUT_EDGES, arrivals.input_tokens) * (len(OUTPUT_EDGES) + 1)
    cells += np.searchsorted(OUTPUT_EDGES, arrivals.output_tokens)
    _, of_request = np.unique(cells, return_inverse=True)
    buckets = []
    for index in range(int(of_request.max()) + 1):
        inputs, outputs = (tokens[of_request == index] for tokens in (arrivals.input_tokens, arrivals.output_tokens))
        buckets.append(
            Bucket(
                input_tokens=float(inputs.mean()),
                output_tokens=float(outputs.mean()),
                longest_input=float(inputs.max()),
                longest_output=float(outputs.max()),
                share=len(inputs) / len(arrivals),
            )
        )
    if rate != "mean" and arrivals.at_s[-1] - arrivals.at_s[0] < window_s:
        rate = "mean"  # there is no whole window
    mean, chosen = _rates(arrivals, rate, window_s)
    return Demand(
        buckets=tuple(buckets), of_request=of_request, per_s=chosen, mean_per_s=mean, rate=rate, window_s=window_s
    )


def _rates(arrivals: Arrivals, rate: str, window_s: float) -> tuple[float, float]:
    """Return the mean rate, and the chosen one over whole windows."""
    span_s = float(arrivals.at_s[-1] - arrivals.at_s[0])
    if len(arrivals) < 2 or span_s <= 0:
        raise InputError("the requests must come at different times: their rate is unknown otherwise")
    mean = len(arrivals) / span_s
    windows = int(span_s / window_s)
    if windows > _MAX_WINDOWS:
        raise InputError(f"--window: {windows:,} windows, expected at most {_MAX_WINDOWS:,}; take longer ones")
    if rate == "mean":
        return mean, mean
    since = arrivals.at_s - arrivals.at_s[0]
    counts = np.histogram(since, bins=windows, range=(0, windows * window_s))[0] / window_s
    return mean, float(counts.max() if rate == "peak" else np.quantile(counts, 0.95))
