"""The article's fleet, 3 L4 at INT4, 2 A10G at INT8 and 1 H100 at FP8, against 4 H100 at bf16: by load and by price.

`python -m benchmarks.control.plan_article --out benchmarks/results/control`. Needs ../shared/data. What it writes,
plan_article.json and plan_article.png, is shown in docs/calibration/article-fleet.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.control.public_curves import (
    LADDER,
    LLAMA_70B,
    PRICES,
    SETTINGS,
    accelmark_tokens_per_s,
    curves,
    measured_scales,
    offers,
)
from benchmarks.harness import arguments, save, say
from calibration.errors import InputError
from calibration.simulation.arrivals import Lengths, generate
from calibration.simulation.outcome import Targets
from calibration.simulation.planning.fleet_program import balanced, cheapest
from calibration.simulation.planning.frontiers import follow, read_frontier
from calibration.simulation.planning.make_plan import Aims, Market, Question, make_plan, market_of
from calibration.simulation.planning.offers_file import options_of
from calibration.simulation.planning.size_buckets import Bucket, Demand
from calibration.simulation.planning.verify_plan import verify_plan

Figures = dict[str, Any]
TOKENS_IN, TOKENS_OUT = 512, 256
TARGETS = Targets(ttft_s=1.0, per_token_s=0.1)
PROMISE = {"int4": 0.7, "int8": 0.2, "fp8": 0.1}
ARTICLE = {"int4-l4": 3, "int8-a10g": 2, "fp8-h100": 1}
BEFORE = {"bf16-h100": 4}
LOADS = (0.5, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
PRICE_LOADS = (2, 8, 32, 128)
CLAIM = 0.76
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def market(setting: str, promise: Mapping[str, float], only: Sequence[str] = ()) -> Market:
    """Return the market at 1 request a second; `only`: with these devices at these tiers alone."""
    known = curves()
    options = options_of(offers(setting, known), known)
    options = [option for option in options if not only or option.name in only]
    bucket = Bucket(
        input_tokens=TOKENS_IN, output_tokens=TOKENS_OUT, longest_input=TOKENS_IN, longest_output=TOKENS_OUT, share=1.0
    )
    demand = Demand(
        buckets=(bucket,), of_request=np.zeros(1, dtype=np.intp), per_s=1.0, mean_per_s=1.0, rate="mean", window_s=1.0
    )
    aims = Aims(targets=TARGETS, shares=promise)
    return market_of(Question(offers=offers(setting, known), options=options, demand=demand, aims=aims))


def fixed_fleet(setting: str, workers: Mapping[str, int]) -> Figures:
    """Return what a fleet costs, and how many requests it serves within the targets.

    As the article's router sends them (70, 20 and 10 %), and with overflow upwards (what may go low may go high).
    """
    rented = market(setting, {}, list(workers))
    kinds = [kind.option.name for kind in rented.kinds]
    counts = np.array([workers[name] for name in kinds])
    each = {name: float(kind.slots / kind.seconds[0]) for name, kind in zip(kinds, rented.kinds, strict=True)}
    price = float(rented.program.prices @ counts)
    whole = sum(each[name] * workers[name] for name in kinds)
    split = (
        min(each[name] * workers[name] / PROMISE[name.partition("-")[0]] for name in kinds) if len(kinds) > 1 else whole
    )
    assert balanced(rented.program.scaled(whole * 0.999), counts) is not None  # noqa: S101
    return {
        "price_per_hour": price,
        "requests_per_s_of_one": each,
        "requests_per_s": whole,
        "requests_per_s_without_overflow": split,
        "per_million_output_tokens": price / 3600 / whole / TOKENS_OUT * 1e6,
    }


def over_load(setting: str) -> Figures:
    """Return the cheapest fleet over the load: under the promise, with H100 alone, and with bf16 on H100 alone."""
    spec = read_frontier("load=" + ",".join(map(str, LOADS)), list(PRICES))
    mixed = follow(market(setting, PROMISE), spec, lambda *_: None)
    return {
        "cheapest": mixed["points"],
        "bf16_h100": follow(market(setting, {}, ["bf16-h100"]), spec, lambda *_: None)["points"],
        "as_good_at": mixed["as_good_at"],
    }


def break_evens(setting: str) -> Figures:
    """Return up to which price of an H100 it alone is as cheap as any mix, by load; and at saturation."""
    at_load = {}
    for load in PRICE_LOADS:
        scaled = market(setting, PROMISE)
        scaled = replace(scaled, program=scaled.program.scaled(load))
        found = follow(scaled, read_frontier("price:h100=0.5..12/2", list(PRICES)), lambda *_: None)
        at_load[str(load)] = found["break_even"]
    article, before = fixed_fleet(setting, ARTICLE), fixed_fleet(setting, BEFORE)
    small = article["price_per_hour"] - PRICES["h100"]
    # (small + price) / requests of the article's fleet = price x 4 / requests of the other one
    share = article["requests_per_s"] / before["requests_per_s"]
    return {"by_load": at_load, "article_at_saturation": small / (4 * share - 1) if 4 * share > 1 else None}


def claim_holds_up_to(setting: str) -> float:
    """Return up to which load the cheapest fleet costs 76 % less than 4 H100."""
    planned, limit = market(setting, PROMISE), (1 - CLAIM) * 4 * PRICES["h100"]
    low, high = 0.5, 256.0
    while high - low > 0.05:
        middle = (low + high) / 2
        fleet = cheapest(planned.program.scaled(middle))
        low, high = (middle, high) if fleet and fleet.price_per_hour <= limit else (low, middle)
    return low


def confirmed(setting: str, load: float) -> Figures:
    """Return what the simulation says of a plan for Poisson arrivals."""
    planned = market(setting, PROMISE)
    requests = generate(
        f"poisson:rate={load}", 8000, Lengths(kind="constant", input_tokens=TOKENS_IN, output_tokens=TOKENS_OUT), 0
    )
    demand = replace(planned.question.demand, of_request=np.zeros(len(requests), dtype=np.intp), per_s=load)
    question = replace(planned.question, demand=demand)
    scaled = market_of(question)
    fleet = make_plan(scaled)
    verified = verify_plan(scaled, fleet, requests, seed=0)
    return {
        "planned_per_hour": fleet.price_per_hour,
        "per_hour": verified.fleet.price_per_hour,
        "attainment": verified.attainment,
        "changes": list(verified.changes),
        "ttft_p99_s": verified.figures["ttft_s"]["p99"],
        "total_p50_s": verified.figures["total_s"]["p50"],
    }


def of_70b() -> str:
    """Return why the article's fleet cannot serve a 70B model."""
    known = curves()
    try:
        options = [option for option in options_of(offers("ideal", known, LLAMA_70B), known) if option.name in ARTICLE]
        planned = market("ideal", {})
        market_of(replace(planned.question, offers=offers("ideal", known, LLAMA_70B), options=options))
    except InputError as error:
        return str(error)
    raise AssertionError("a 70B model fits")


def measure(setting: str) -> Figures:
    say(f"{setting}: {SETTINGS[setting]}")
    article, before = fixed_fleet(setting, ARTICLE), fixed_fleet(setting, BEFORE)
    return {
        "what": SETTINGS[setting],
        "article_fleet": article,
        "four_h100": before,
        "per_token_at_saturation": article["per_million_output_tokens"] / before["per_million_output_tokens"] - 1,
        "claim_holds_up_to_requests_per_s": claim_holds_up_to(setting),
        "over_load": over_load(setting),
        "break_even_h100": break_evens(setting),
        "simulated": {str(load): confirmed(setting, load) for load in (8, 64)},
    }


def draw(figures: Mapping[str, Figures]) -> Figure:
    """Draw cost, saving and INT4's share over the load for each setting."""
    canvas = Figure(figsize=(11, 8.5), layout="constrained")
    panels = canvas.subplots(3, len(figures), sharex=True, sharey="row", height_ratios=(3, 3, 2))
    for column, (name, setting) in enumerate(figures.items()):
        cost, saved, shares = (panels[row][column] for row in range(3))
        cost.set_title(name, fontsize=10)
        _costs(cost, setting)
        _savings(saved, setting)
        points = setting["over_load"]["cheapest"]
        for index, tier in enumerate(LADDER):
            shares.plot(LOADS, [point["tier_shares"][tier] for point in points], ".-", color=COLOURS[index], label=tier)
        shares.set_xlabel("requests a second (log)")
    for row, label in zip(
        panels, ("$ per 1M output tokens (log)", "saving against 4 H100 bf16", "share served by"), strict=True
    ):
        row[0].set_ylabel(label)
        row[0].legend(fontsize=7)
        for axes in row:
            axes.grid(alpha=0.3)
    panels[0][0].set_xscale("log")
    panels[0][0].set_yscale("log")
    panels[1][0].set_ylim(-0.6, 1)
    return canvas


def _per_million(price: float, load: float) -> float:
    return price / 3600 / load / TOKENS_OUT * 1e6


def _costs(axes: Axes, setting: Figures) -> None:
    for index, (label, fleet) in enumerate((("the article's fleet", "article_fleet"), ("4 H100 bf16", "four_h100"))):
        loads = [load for load in LOADS if load <= setting[fleet]["requests_per_s"]]
        loads.append(setting[fleet]["requests_per_s"])
        values = [_per_million(setting[fleet]["price_per_hour"], load) for load in loads]
        axes.plot(loads, values, "o-", markersize=3, color=COLOURS[index], label=label)
    for index, (label, name) in enumerate(
        (("as many H100 bf16 as needed", "bf16_h100"), ("cheapest, 70/20/10 promised", "cheapest")), 2
    ):
        points = setting["over_load"][name]
        values = [_per_million(point["price_per_hour"], load) for load, point in zip(LOADS, points, strict=True)]
        axes.plot(LOADS, values, ".-", color="black" if name == "cheapest" else COLOURS[index], label=label)


def _savings(axes: Axes, setting: Figures) -> None:
    """Draw what fleets save against 4 H100, of which more are rented where four are too few."""
    four = setting["four_h100"]
    before = [max(four["price_per_hour"], point["price_per_hour"]) for point in setting["over_load"]["bf16_h100"]]
    article = setting["article_fleet"]
    units = [int(np.ceil(load / article["requests_per_s"])) for load in LOADS]
    lines = {
        "the article's fleet, as many as needed": [article["price_per_hour"] * count for count in units],
        "as many H100 bf16 as needed": [point["price_per_hour"] for point in setting["over_load"]["bf16_h100"]],
        "cheapest, 70/20/10 promised": [point["price_per_hour"] for point in setting["over_load"]["cheapest"]],
    }
    for (label, prices), colour in zip(lines.items(), (COLOURS[0], COLOURS[2], "black"), strict=True):
        axes.plot(
            LOADS,
            [1 - price / other for price, other in zip(prices, before, strict=True)],
            ".-",
            color=colour,
            label=label,
        )
    axes.axhline(CLAIM, color="#B00020", linestyle="--", label="the article's claim: 76 %")
    axes.axhline(0, color="grey", linewidth=0.8)


def main() -> None:
    options = arguments(__doc__)
    settings = {name: measure(name) for name in SETTINGS}
    figures = {
        "versions": {"scipy": scipy.__version__, "numpy": np.__version__},
        "seed": 0,
        "sources": "AIConfigurator-core 0.12.0; AccelMark 5797fc4 (both Apache-2.0)",
        "request": {"input_tokens": TOKENS_IN, "output_tokens": TOKENS_OUT},
        "slo": {"ttft_s": TARGETS.ttft_s, "per_token_s": TARGETS.per_token_s},
        "of_70b": of_70b().split("\n"),
        "accelmark_tokens_per_s": accelmark_tokens_per_s(),
        "scales_of_measured": measured_scales(),
        "settings": settings,
    }
    save("plan_article", figures, options)
    draw(settings).savefig(options.out / "plan_article.png", dpi=75, metadata={"Software": None})


if __name__ == "__main__":
    main()
