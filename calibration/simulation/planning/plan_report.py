"""A plan as JSON, as tables and as a page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibration.artifacts.html_report import Section, html_page
from calibration.simulation.planning.fleet_program import Fleet
from calibration.simulation.planning.frontiers import named_workers, tier_shares
from calibration.simulation.planning.make_plan import Market
from calibration.simulation.planning.verify_plan import Verified, slots_of

Figures = dict[str, Any]  # Any: JSON


def figures_of_plan(
    market: Market, fleet: Fleet, others: Mapping[str, Fleet | str], saved: Figures | None, seed: int
) -> Figures:
    """Return what was asked and planned, ready for JSON."""
    question, demand = market.question, market.question.demand
    targets = {name: getattr(question.aims.targets, name) for name in ("ttft_s", "per_token_s", "total_s")}
    return {
        "seed": seed,
        "demand": {
            "requests": len(demand.of_request),
            "mean_per_s": demand.mean_per_s,
            "planned_per_s": demand.per_s,
            "rate": demand.rate,
            "window_s": demand.window_s,
            "buckets": len(demand.buckets),
            "divided_by_size": not question.aims.is_blind,
        },
        "slo": {**targets, "attainment": question.aims.attainment},
        "may_be_served_at_or_below": dict(zip(question.offers.ladder, map(float, question.may_be_below), strict=True)),
        "may_miss": [{"bucket": bucket.text, "share": bucket.share} for bucket in market.late],
        "plan": fleet_figures(market, fleet),
        "alternatives": {
            name: {"not_possible": other} if isinstance(other, str) else fleet_figures(market, other)
            for name, other in others.items()
        },
        "saving": saved,
    }


def fleet_figures(market: Market, fleet: Fleet) -> Figures:
    shares, program = market.share_by_kind(fleet), market.program
    return {
        "price_per_hour": fleet.price_per_hour,
        "per_1000_requests": fleet.price_per_hour / (3.6 * market.question.demand.per_s),
        "gap": fleet.gap,
        "tier_shares": tier_shares(market, fleet),
        "workers": [
            {
                "name": kind.name,
                "device": kind.option.device,
                "tier": kind.option.tier,
                "workers": int(fleet.workers[index]),
                "gpus": int(fleet.workers[index] * program.gpus[index]),
                "slots": slots_of(market, fleet, index),
                "price_per_hour": float(fleet.workers[index] * program.prices[index]),
                "share": float(shares[index]),
                "in_use": _in_use(market, fleet, index),
                "curve": {name: getattr(kind.option.curve, name) for name in ("name", "source", "version", "mode")},
            }
            for index, kind in enumerate(market.kinds)
            if fleet.workers[index]
        ],
    }


def _in_use(market: Market, fleet: Fleet, index: int) -> float:
    """Return the share of a kind's slots or of its memory that is in use at the planned rate, whichever is larger."""
    program, count = market.program, fleet.workers[index]
    loads = [(program.slot_load, program.slots[index]), (program.kv_load, program.kv_tokens[index])]
    return max(float(load[:, index] @ fleet.shares[:, index] / (count * room)) for load, room in loads)


def verification_figures(market: Market, verified: Verified) -> Figures:
    names = ("requests", "span_s", "ttft_s", "time_per_token_s", "total_s", "cost", "overflow")
    return {
        "attainment": verified.attainment,
        "is_met": verified.keeps(market.question.aims.attainment),
        "changes": list(verified.changes),
        "price_per_hour": verified.fleet.price_per_hour,
        "workers": named_workers(market, verified.fleet),
        "simulated": {name: verified.figures[name] for name in names},
    }


WORKER_COLUMNS = ("worker", "workers", "slots", "rent per hour", "share of requests", "in use")
OTHER_COLUMNS = ("fleet", "rent per hour", "against the plan", "workers")
FRONTIER_COLUMNS = ("value", "requests a second", "rent per hour", "of 1,000 requests", "workers", "tiers", "alone")


def worker_rows(fleet: Figures) -> list[list[str]]:
    return [
        [
            worker["name"],
            f"{worker['workers']}",
            f"{worker['slots']}",
            f"{worker['price_per_hour']:.2f}",
            f"{worker['share']:.1%}",
            f"{worker['in_use']:.0%}",
        ]
        for worker in fleet["workers"]
    ]


def other_rows(figures: Figures) -> list[list[str]]:
    planned = figures["plan"]["price_per_hour"]
    rows = []
    for name, fleet in figures["alternatives"].items():
        if "not_possible" in fleet:
            rows.append([name, "-", "-", f"none: {fleet['not_possible']}"])
            continue
        workers = ", ".join(f"{worker['workers']} x {worker['name']}" for worker in fleet["workers"])
        rows.append([name, f"{fleet['price_per_hour']:.2f}", f"{fleet['price_per_hour'] / planned - 1:+.0%}", workers])
    return rows


def sentences(figures: Figures) -> list[str]:
    """Return what there is to say beside the tables."""
    demand, plan = figures["demand"], figures["plan"]
    rate = demand["rate"] + ("" if demand["rate"] == "mean" else f" of {demand['window_s']:g} s windows")
    verified = figures.get("verification")
    headline = [_verified(figures, verified)] if verified else []
    lines = [
        *headline,
        f"planned for {demand['planned_per_s']:.3g} requests a second ({rate}; mean {demand['mean_per_s']:.3g}), "
        f"{demand['buckets']} sizes: {plan['price_per_hour']:.2f} per hour, "
        f"{plan['per_1000_requests']:.4f} for 1,000 requests",
    ]
    if plan["gap"] > 1e-6:
        lines.append(f"the solver's time ended: a fleet up to {plan['gap']:.2%} cheaper may exist")
    for bucket in figures["may_miss"]:
        lines.append(f"may miss the targets: {bucket['share']:.2%} of the requests, {bucket['bucket']}")
    if (saved := figures["saving"]) and saved["share"] < 1e-6:
        lines.append(f"no mix is cheaper than {saved['against']}")
    elif saved:
        was = "the plan before its simulation: " if verified and verified["changes"] else ""
        lines.append(
            f"{was}{saved['share']:.1%} cheaper than {saved['against']} ({saved['price_per_hour']:.2f}): "
            f"{saved['by_cheaper_work']:.1%} because some sizes or tiers cost less elsewhere, "
            f"{saved['by_smaller_units']:.1%} because smaller units are wasted less"
        )
    return lines + [line for frontier in figures.get("frontiers", ()) for line in frontier_sentences(frontier)]


def _verified(figures: Figures, verified: Figures) -> str:
    workers = ", ".join(f"{count} x {name}" for name, count in verified["workers"].items())
    missed = "" if verified["is_met"] else "the SLO is missed: "
    changes = f"; changed after the first simulation: {', '.join(verified['changes'])}" if verified["changes"] else ""
    return (
        f"{missed}{verified['price_per_hour']:.2f} per hour: {workers}; simulated: {verified['attainment']:.2%} of the "
        f"requests within the targets (wanted: {figures['slo']['attainment']:.2%}){changes}"
    )


def frontier_sentences(frontier: Figures) -> list[str]:
    if frontier["varied"] != "load":
        return [f"price of {frontier['varied']}: {frontier['break_even']['reason']}"]
    lines = []
    for name, values in frontier["as_good_at"].items():
        if all(point["alone"][name] is None for point in frontier["points"]):
            lines.append(f"over load: only {name} cannot serve it")
        else:
            at = f"at {', '.join(f'{value:g}' for value in values)} times the rate" if values else "at none of these"
            lines.append(f"over load: only {name} is as cheap as any mix {at}")
    return lines


def frontier_rows(frontier: Figures) -> list[list[str]]:
    rows = []
    for point in frontier["points"]:
        cost, per_1000 = point["price_per_hour"], point["per_1000_requests"]
        shares = point["tier_shares"] or {}
        rows.append(
            [
                f"{point['value']:g}",
                f"{point['requests_per_s']:.3g}",
                "-" if cost is None else f"{cost:.2f}",
                "-" if per_1000 is None else f"{per_1000:.4f}",
                ", ".join(f"{count} x {name}" for name, count in (point["workers"] or {}).items()) or "none can",
                ", ".join(f"{tier} {share:.0%}" for tier, share in shares.items() if share > 0.005),
                ", ".join(f"{name} {price:.2f}" for name, price in point["alone"].items() if price is not None),
            ]
        )
    return rows


def plan_page(figures: Figures, pngs: Sequence[bytes]) -> str:
    """Return the plan as one page."""
    frontiers = figures.get("frontiers", [])
    sections = [
        Section(heading="The cheapest fleet", header=WORKER_COLUMNS, rows=worker_rows(figures["plan"])),
        Section(heading="What else there is", header=OTHER_COLUMNS, rows=other_rows(figures)),
    ]
    for frontier, png in zip(frontiers, pngs, strict=True):
        sections.append(Section(heading=f"Over {frontier['spec']}", png=png))
        sections.append(Section(header=FRONTIER_COLUMNS, rows=frontier_rows(frontier)))
    curves = {worker["name"]: worker["curve"] for worker in figures["plan"]["workers"]}
    rows = [[name, curve["name"], curve["source"], curve["version"], curve["mode"]] for name, curve in curves.items()]
    sections.append(
        Section(heading="Where the speeds are from", header=("worker", "curve", "source", "version", "mode"), rows=rows)
    )
    return html_page(
        "Plan of a fleet", sentences(figures)[0] + ".", sections, [line + "." for line in sentences(figures)[1:]]
    )
