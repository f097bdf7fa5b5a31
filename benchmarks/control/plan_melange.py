"""Mélange's setting (Griggs et al. 2024, arXiv 2404.14527) through the integer program of `calibrate plan`.

`python -m benchmarks.control.plan_melange --out benchmarks/results/control`: writes plan_melange.json and .png, which
docs/calibration/plan.md shows. Its profiles of GPUs are not published; its plots are
(github.com/tyler-griggs/melange-release, d46ab43). They tell the prices, how many GPUs of one type each load takes, and
what its mix costs beside them.

- `one_size`: the plot of A10G and A100 at one size of request, from the two capacities that it shows.
- `chat`: L4, A10G, A100 and H100 at 120 and 40 ms a token. How fast each is on which size follows from its bandwidth
  and arithmetic (roofline of Llama-2-7B at 16 bits); one factor for each device and SLO is fitted to the plot's count
  at 32 requests a second. All other counts and the mixes' costs are predicted. Lengths: exponential, with the means
  of LMSYS-Chat-1M.
- `mixed`: 80 % of these, and 20 % long documents, with the same factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.harness import arguments, save
from calibration.simulation.arrivals import Arrivals, Lengths, generate
from calibration.simulation.planning.fleet_program import FleetProgram, cheapest
from calibration.simulation.planning.size_buckets import Bucket, demand_of
from calibration.statistics import Floats

Figures = dict[str, Any]
RATES = (1, 2, 4, 8, 16, 32)
DEVICES = ("L4", "A10G", "A100", "H100")
PRICES = {"L4": 0.70, "A10G": 1.01, "A100": 3.67, "H100": 7.516}
MEMORY_GB = {"L4": 24, "A10G": 24, "A100": 80, "H100": 80}
BYTES_PER_S = {"L4": 300e9, "A10G": 600e9, "A100": 1935e9, "H100": 3350e9}  # vendors' figures
FLOPS = {"L4": 121e12, "A10G": 70e12, "A100": 312e12, "H100": 989e12}  # dense, at 16 bits
WEIGHTS, KV_BYTES, PARAMETERS = 13.5e9, 524_288.0, 6.74e9  # Llama-2-7B: 32 layers, 32 heads of 128
CHAT = Lengths(kind="exponential", input_tokens=70, output_tokens=215)  # LMSYS-Chat-1M, arXiv 2309.11998
DOCUMENTS = Lengths(kind="exponential", input_tokens=4000, output_tokens=250)  # about PubMed's articles and abstracts
SLOS = {"120 ms": 0.12, "40 ms": 0.04}
# GPUs of one type by rate, and what the mix costs (per hour): read from the bars of Arena_120-1.png and Arena_40-1.png,
# whose ratios are those of whole GPUs at these prices.
PLOTTED = {
    "120 ms": {
        "L4": (3, 5, 9, 17, 33, 65),
        "A10G": (2, 3, 6, 11, 20, 39),
        "A100": (1, 1, 2, 3, 6, 9),
        "H100": (1, 1, 1, 2, 4, 8),
        "mix": (1.71, 2.41, 4.37, 7.40, 14.4, 25.8),
    },
    "40 ms": {
        "L4": (5, 9, 17, 34, 68, 134),
        "A10G": (3, 5, 10, 16, 40, 80),
        "A100": (1, 1, 2, 3, 6, 9),
        "H100": (1, 1, 1, 2, 4, 7),
        "mix": (2.41, 3.67, 5.38, 9.0, 17.0, 29.9),
    },
}
# Costs of one type as multiples of the mix's, from Mixed_80_20_120-1.png and Mixed_80_20_40-1.png.
PLOTTED_MIXED = {
    "120 ms": {"A100": (1.0, 1.68, 1.16, 1.32, 1.28, 1.27), "H100": (2.05, 1.72, 1.58, 1.62, 1.57, 1.56)},
    "40 ms": {"A100": (1.0, 1.36, 1.04, 1.18, 1.15, 1.18), "H100": (2.04, 1.39, 1.42, 1.62, 1.37, 1.31)},
}
COLOURS = {"L4": "#E69F00", "A10G": "#D55E00", "A100": "#0072B2", "H100": "#009E73", "mix": "black"}


def capacity(device: str, bucket: Bucket, slo_s: float) -> float:
    """Return the requests of a size that a GPU serves in a second by its roofline; 0: it does not hold one.

    A step reads the weights and the cache of all requests; between steps the prompts of those that come are computed.
    Where not even one at a time keeps the SLO (an L4 reads these weights in 45 ms), it is left out: the factor has it.
    """
    room = MEMORY_GB[device] * 0.9e9 - WEIGHTS
    most = int(room / (KV_BYTES * bucket.tokens))
    best = fallback = 0.0
    for count in range(1, min(most, 256) + 1):
        reading_s = (WEIGHTS + count * KV_BYTES * (bucket.input_tokens + bucket.output_tokens / 2)) / BYTES_PER_S[
            device
        ]
        prompts_s = count / bucket.output_tokens * 2 * PARAMETERS * bucket.input_tokens / FLOPS[device]
        step_s = max(reading_s, count * 2 * PARAMETERS / FLOPS[device]) + prompts_s
        served = count / (bucket.output_tokens * step_s)
        fallback = max(fallback, served)
        if step_s <= slo_s:
            best = max(best, served)
    return best or fallback


def buckets_of(*requests: Arrivals) -> tuple[Bucket, ...]:
    """Return the sizes of requests that come side by side."""
    together = Arrivals(
        at_s=np.arange(float(sum(map(len, requests)))),
        input_tokens=np.concatenate([part.input_tokens for part in requests]),
        output_tokens=np.concatenate([part.output_tokens for part in requests]),
    )
    return demand_of(together, "mean", 60.0).buckets


def program(buckets: Sequence[Bucket], slo_s: float, factors: Mapping[str, float]) -> FleetProgram:
    """Return the program of a request a second."""
    shares = np.array([bucket.share for bucket in buckets])
    capacities = np.array(
        [[capacity(device, bucket, slo_s) * factors[device] for device in DEVICES] for bucket in buckets]
    )
    return of_loads(shares[:, None] / np.maximum(capacities, 1e-12), capacities > 0, DEVICES)


def of_loads(loads: Floats, allowed: NDArray[np.bool_], devices: Sequence[str]) -> FleetProgram:
    """Return a program of GPUs of which each load takes a share, as Mélange states it."""
    kinds = len(devices)
    return FleetProgram(
        slot_load=np.where(allowed, loads, 0.0),
        kv_load=np.zeros_like(loads),
        allowed=allowed,
        slots=np.ones(kinds),
        kv_tokens=np.ones(kinds),
        prices=np.array([PRICES[device] for device in devices]),
        gpus=np.ones(kinds),
        ranks=np.zeros(kinds, dtype=np.intp),
        devices=np.arange(kinds),
        stock=np.full(kinds, np.inf),
        may_be_below=np.ones(1),
    )


def one_size() -> Figures:
    """Return the cost of A10G, A100 and both over the rate: the plot says 2 and 0.37 requests a second."""
    devices = ("A10G", "A100")
    unit = of_loads(np.array([[1 / 0.37, 1 / 2.0]]), np.ones((1, 2), dtype=bool), devices)
    rows = []
    for rate in np.arange(0.25, 8.01, 0.25):
        loaded = unit.scaled(float(rate) - 1e-6)
        prices = [cheapest(loaded.only(np.array([index == place for index in range(2)]))) for place in range(2)]
        both = cheapest(loaded)
        assert both is not None  # noqa: S101
        alone = {name: fleet.price_per_hour for name, fleet in zip(devices, prices, strict=True) if fleet}
        rows.append({"rate": float(rate), "mix": both.price_per_hour, "workers": both.workers.tolist(), **alone})
    at = next(row for row in rows if row["rate"] == 4.25)
    return {
        "rows": rows,
        "saving_at_4.25": 1 - at["mix"] / min(at["A10G"], at["A100"]),
        "workers_at_4.25": at["workers"],
    }


def fitted(buckets: Sequence[Bucket], slo: str) -> dict[str, float]:
    """Return for each device the factor that makes it need half a GPU less than the plot's count at 32 a second."""
    plain = program(buckets, SLOS[slo], dict.fromkeys(DEVICES, 1.0))
    return {
        device: float(32 * plain.slot_load[:, index].sum() / (PLOTTED[slo][device][-1] - 0.5))
        for index, device in enumerate(DEVICES)
    }


def over_rates(unit: FleetProgram) -> Figures:
    """Return by rate the counts of each device alone, and the mix with its cost."""
    columns: Figures = {device: [] for device in DEVICES} | {"mix": [], "workers": []}
    for rate in RATES:
        loaded = unit.scaled(rate)
        for index, device in enumerate(DEVICES):
            fleet = cheapest(loaded.only(np.arange(len(DEVICES)) == index))
            columns[device].append(None if fleet is None else int(fleet.workers[index]))
        both = cheapest(loaded)
        assert both is not None  # noqa: S101
        columns["mix"].append(both.price_per_hour)
        columns["workers"].append(dict(zip(DEVICES, both.workers.tolist(), strict=True)))
    return columns


def savings(columns: Mapping[str, Sequence[Any]]) -> list[float]:
    """Return what the mix saves against each device alone at each rate."""
    return [
        1 - mix / (count * PRICES[device])
        for device in DEVICES
        for count, mix in zip(columns[device], columns["mix"], strict=True)
        if count
    ]


def chat(slo: str, buckets: Sequence[Bucket], factors: Mapping[str, float]) -> Figures:
    found = over_rates(program(buckets, SLOS[slo], factors))
    theirs = PLOTTED[slo]
    misses = [abs(found[device][at] / theirs[device][at] - 1) for device in DEVICES for at in range(5)]
    return {
        "factors": dict(factors),
        "found": found,
        "plotted": theirs,
        "saving": {
            "found": [min(savings(found)), max(savings(found))],
            "plotted": [min(savings(theirs)), max(savings(theirs))],
        },
        "mix_found_by_plotted": [ours / plot for ours, plot in zip(found["mix"], theirs["mix"], strict=True)],
        "counts_within_20_percent": float(np.mean([miss <= 0.2 for miss in misses])),
    }


def mixed(slo: str, buckets: Sequence[Bucket], factors: Mapping[str, float]) -> Figures:
    found = over_rates(program(buckets, SLOS[slo], factors))
    plotted = [1 - 1 / ratio for ratios in PLOTTED_MIXED[slo].values() for ratio in ratios]
    return {
        "found": found,
        "saving": {"found": [min(savings(found)), max(savings(found))], "plotted": [min(plotted), max(plotted)]},
    }


def draw(figures: Figures) -> Figure:
    """Draw the costs of each device alone as multiples of the mix's: bars are the plots', points ours."""
    canvas = Figure(figsize=(10, 3.6), layout="constrained")
    panels = canvas.subplots(1, 3)
    canvas.suptitle("Bars: Mélange's plots; marks, and the left panel: this program", fontsize=9)
    rows = figures["one_size"]["rows"]
    for name in ("A10G", "A100", "mix"):
        costs = [row[name] for row in rows]
        panels[0].step([row["rate"] for row in rows], costs, where="pre", color=COLOURS[name], label=name)
    panels[0].set_title("one size: rent per hour", fontsize=9)
    panels[0].set_xlabel("requests a second")
    for axes, slo in zip(panels[1:], SLOS, strict=True):
        part = figures["chat"][slo]
        for index, device in enumerate(DEVICES):
            places = np.arange(len(RATES)) + 0.2 * index - 0.3
            axes.bar(places, _ratios(part["plotted"], device), 0.2, color=COLOURS[device], alpha=0.5, label=device)
            axes.plot(places, _ratios(part["found"], device), "k_", markersize=7)
        axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(RATES)), [str(rate) for rate in RATES])
        axes.set_title(f"chat, {slo} a token: cost / mix", fontsize=9)
        axes.set_xlabel("requests a second")
    for axes in panels:
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    return canvas


def _ratios(columns: Mapping[str, Sequence[Any]], device: str) -> list[float]:
    """Return what a device alone costs, as multiples of the mix's cost."""
    return [count * PRICES[device] / mix for count, mix in zip(columns[device], columns["mix"], strict=True)]


def main() -> None:
    options = arguments(__doc__)
    short, long = (generate("poisson:rate=1", 20_000, lengths, 0) for lengths in (CHAT, DOCUMENTS))
    few = Arrivals(
        at_s=long.at_s[:5000], input_tokens=long.input_tokens[:5000], output_tokens=long.output_tokens[:5000]
    )
    chats, both = buckets_of(short), buckets_of(short, few)
    factors = {slo: fitted(chats, slo) for slo in SLOS}
    figures = {
        "seed": 0,
        "sources": "arXiv 2404.14527; plots of github.com/tyler-griggs/melange-release d46ab43; arXiv 2309.11998",
        "one_size": one_size(),
        "chat": {slo: chat(slo, chats, factors[slo]) for slo in SLOS},
        "mixed": {slo: mixed(slo, both, factors[slo]) for slo in SLOS},
    }
    save("plan_melange", figures, options)
    draw(figures).savefig(options.out / "plan_melange.png", dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
