"""The figures of a pass, for people."""

from __future__ import annotations

from typing import Any

from calibration.control.shadow.shadow_figures import VERDICTS
from calibration.terminal.tabular import table


def as_text(figures: dict[str, Any]) -> str:  # Any: JSON
    prompts, usage, estimate = figures["prompts"], figures["usage"], figures["estimate"]
    rows = [
        (
            tier,
            f"{sums['labels']:,}",
            f"{sums['mean_loss']['value']:.4g} {_interval(sums['mean_loss'], '.4g')}",
            f"{sums['over']['share']:.1%} {_interval(sums['over'], '.1%')}",
            *(f"{sums[verdict]['share']:.0%}" if verdict in sums else "" for verdict in VERDICTS),
        )
        for tier, sums in [*figures["tiers"].items(), ("all traffic", figures["all_traffic"])]
        if sums["labels"]
    ]
    skipped = ", ".join(f"{reason} {count:,}" for reason, count in prompts["skipped"].items())
    lines = [
        table(
            ("served by", "labels", figures["measure"], f"over {figures['threshold']:g}", *VERDICTS),
            rows,
            title=f"against {figures['reference']}, with intervals of 95 %",
        )
        if rows
        else f"none of {prompts['labelled']:,} labels has {figures['measure']!r}"
        if prompts["labelled"]
        else "no label yet",
        f"this pass: {figures['pass']['labelled']:,} labels; ended: {figures['pass']['ended']}",
        f"prompts: {prompts['seen']:,} captured, {prompts['chosen']:,} chosen, {prompts['labelled']:,} labelled, "
        f"{prompts['waiting']:,} waiting" + (f"; not run again: {skipped}" if skipped else ""),
        f"today: {_usage(usage['today'])}; budget: "
        + ", ".join(f"{name} {limit:,.6g}" for name, limit in usage["budget_per_day"].items()),
        f"a label takes {_usage(estimate['of_a_label'])}; what waits would take {_usage(estimate['of_what_waits'])}",
    ]
    if (saved := figures["savings"])["requests"]:
        lines.append(
            f"saved per request: {saved['per_request']:.3g} ({saved['share'] or 0:.1%} of all on "
            f"{figures['reference']}), by {saved['requests']:,} requests of low tiers"
        )
    return "\n".join(lines)


def _interval(estimate: dict[str, Any], form: str) -> str:  # Any: JSON
    low, high = estimate["interval"]
    return f"[{low:{form}}, {high:{form}}]"


def _usage(usage: dict[str, Any]) -> str:  # Any: JSON
    return f"{usage['requests']:,} requests, {usage['tokens']:,} tokens, cost {usage['cost']:.4g}"
