"""What a simulated run was like over time, and how latencies were spread: the lines of its plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.simulation.simulated_work import End, Work
from calibration.statistics import Floats

_MOMENTS, _BINS, _STEPS = 400, 60, 201


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The lines of one run."""

    ladder: Sequence[str]
    share: Floats  # of the requests that were served, for each latency: 0 to 1
    total_s: Floats
    ttft_s: Floats
    moments_s: Floats
    depth: Floats  # jobs that wait, by floor and moment
    bins_s: Floats
    served: Floats  # shares of what is begun, by tier and bin


def series_of(work: Work, ladder: Sequence[str]) -> Series:
    """Return the lines of a run."""
    ends, at = np.asarray(work.ends), np.asarray(work.at_s)
    begun, ended, first = (np.asarray(times) for times in (work.begun_s, work.ended_s, work.first_s))
    is_served, rank = ends == End.SERVED, np.asarray(work.rank)
    last_s = float(max(np.nan_to_num(ended).max(), at[-1], at[0] + 1e-9))
    moments = np.linspace(at[0], last_s, _MOMENTS)
    waits, until = ends != End.REFUSED, np.where(np.isnan(begun), ended, begun)
    depth = [
        _waiting(at[waits & (rank == floor)], until[waits & (rank == floor)], moments) for floor in range(len(ladder))
    ]
    share, edges = np.linspace(0, 1, _STEPS), np.linspace(at[0], last_s, _BINS + 1)
    tiers = np.asarray(work.served)
    counts = np.array([np.histogram(begun[tiers == tier], edges)[0] for tier in range(len(ladder))], dtype=float)
    return Series(
        ladder=ladder,
        share=share,
        total_s=_quantiles((ended - at)[is_served], share),
        ttft_s=_quantiles((first - at)[is_served], share),
        moments_s=moments - at[0],
        depth=np.array(depth),
        bins_s=(edges[:-1] + edges[1:]) / 2 - at[0],
        served=counts / np.maximum(1, counts.sum(axis=0)),
    )


def _waiting(came_s: Floats, left_s: Floats, moments: Floats) -> Floats:
    came = np.searchsorted(np.sort(came_s), moments, "right")
    return np.asarray(came - np.searchsorted(np.sort(left_s), moments, "right"), dtype=float)


def _quantiles(values: Floats, share: Floats) -> Floats:
    return np.quantile(values, share) if len(values) else np.full(len(share), np.nan)
