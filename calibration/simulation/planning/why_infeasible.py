"""Why no fleet can serve a demand: which constraint it is, with the arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.simulation.fleet_file import fit
from calibration.simulation.outcome import Targets
from calibration.simulation.planning.fleet_program import FleetProgram, cheapest
from calibration.simulation.planning.offers_file import Offers
from calibration.simulation.planning.size_buckets import Bucket
from calibration.simulation.planning.worker_kinds import Speeds, WorkerKind


def unserved_fault(
    buckets: Sequence[Bucket], speeds: Sequence[Speeds], needed: int, offers: Offers, targets: Targets
) -> str:
    """Say why nobody serves the largest of these buckets: no such tier, no memory, or times that no device reaches."""
    bucket = max(buckets, key=lambda item: item.longest_input + item.longest_output)
    share = sum(item.share for item in buckets)
    tier = offers.ladder[needed]
    high = [speed for speed in speeds if speed.option.rank >= needed]
    if not high:
        return f"no device offers {tier} or a tier above, and the quality promise needs it for some requests"
    fitting = [speed for speed in high if speed.fits(bucket)]
    if not fitting:
        tokens = bucket.longest_input + bucket.longest_output
        lines = [
            f"{speed.option.name}: "
            + fit(offers.model, speed.option.part, 1, tokens).arithmetic(offers.model, speed.option.part, 1, tokens)
            for speed in high
        ]
        return "\n".join(
            [f"no worker at {tier} or above can hold the model and one request of {tokens:.0f} tokens:", *lines]
        )
    return (
        f"no device keeps the targets for {share:.1%} of the requests (the longest: {bucket.longest_input:.0f} tokens "
        f"in and {bucket.longest_output:.0f} out) at {tier} or above, even one at a time:\n"
        + "\n".join(_best(bucket, fitting, targets))
    )


def _best(bucket: Bucket, speeds: Sequence[Speeds], targets: Targets) -> list[str]:
    """Return for each target the best that any worker reaches alone with one request."""
    alone = [(speed.option.name, speed.times(1, bucket)) for speed in speeds]
    lines = []
    for field, words in (
        ("ttft_s", "time to the first token"),
        ("per_token_s", "time per token"),
        ("total_s", "total time"),
    ):
        limit = getattr(targets, field)
        if limit is not None:
            name, best = min(((name, getattr(times, field)) for name, times in alone), key=lambda pair: pair[1])
            verdict = "kept" if best <= limit else "missed"
            lines.append(f"{words}: best {best:.4g} s ({name}), target {limit:g} s: {verdict}")
    return lines


def stock_fault(program: FleetProgram, kinds: Sequence[WorkerKind], devices: Sequence[str]) -> str:
    """Say which GPUs are too few, or that no worker can take requests of all sizes."""
    endless = cheapest(replace(program, stock=np.full(len(program.stock), np.inf)))
    if endless is None:
        return (
            "no fleet serves this: where requests are not divided by size, every worker must take all sizes within the "
            "targets, and the tiers that the promise needs have none that can"
        )
    used = [
        int(program.gpus[program.devices == index] @ endless.workers[program.devices == index])
        for index in range(len(devices))
    ]
    gpus = ", ".join(
        f"{count} {name} (there are {'enough' if np.isinf(limit) else int(limit)})"
        for name, count, limit in zip(devices, used, program.stock, strict=True)
        if count
    )
    workers = ", ".join(f"{count} x {kind.name}" for kind, count in zip(kinds, endless.workers, strict=True) if count)
    return (
        f"the stock is too small: the cheapest fleet without limits has {gpus}: {workers}; "
        "raise `count`, or take other devices in"
    )
