"""What a canary found: figures as JSON, and one page with the two capitals over the pairs. Imports matplotlib late."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from calibration.artifacts.folder import replace_file, writing
from calibration.artifacts.html_report import Section, html_page
from calibration.artifacts.png import png_of
from calibration.control.canary.canary_words import now_in_words, times_in_words
from calibration.control.canary.comparing import Pair
from calibration.control.canary.eprocess import Numbers, interval, log_capitals
from calibration.control.canary.pair_journal import CanaryState
from calibration.control.canary.power import PASS_AT_1, Power, fixed_sample_pairs
from calibration.terminal.progress import duration

_WORST = 20


def figures(folder: Path, state: CanaryState, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return all figures of a canary, as far as it is."""
    spec = state.spec
    counted, late = _divided(state, pairs)
    differences = np.array([pair.difference for pair in counted], dtype=float)
    capitals = log_capitals(differences, spec.margin)
    means = np.array([pair.losses or () for pair in counted]).mean(axis=0) if counted else (math.nan, math.nan)
    e_values = [math.exp(min(700.0, float(capital.max(initial=0)))) for capital in capitals]
    return {
        "model": spec.model,
        "candidate": spec.what,
        "phase": state.phase,
        "why": state.why,
        "now": now_in_words(state, str(folder)),
        "times": times_in_words(state),
        "decision": state.decision,
        "share": spec.share,
        "measure": str(spec.measure),
        "margin": spec.margin,
        "alpha": spec.alpha,
        "reference": spec.reference,
        "pairs": len(counted),
        "skipped": dict(Counter(pair.skipped for pair in pairs if pair.skipped).most_common(10)),
        "failed": _failed(counted),
        "mean_loss": {"now": _number(means[0]), "candidate": _number(means[1])},
        "mean_difference": _mean(counted),
        "interval": list(interval(differences, spec.alpha)) if counted else [-1.0, 1.0],
        "e_value": {"worse": e_values[0], "fine": e_values[1], "needed": 1 / spec.alpha},
        "waiting": {"pairs": len(late), "mean_difference": _mean(late), "failed": _failed(late)},
        "places": dict(Counter(" / ".join(pair.places) for pair in counted)),
        "touched": state.touched,
        "seconds": None if state.decided_at is None else state.decided_at - state.started_at,
        "seed": spec.seed,
    }


def _divided(state: CanaryState, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of the test, and those that were made while it waited for its promotion."""
    counted = [pair for pair in pairs if pair.losses]
    count = len(counted) if state.fine_after is None else state.fine_after
    return counted[:count], counted[count:]


def _failed(pairs: Sequence[Pair]) -> dict[str, int]:
    return {side: sum(bool(pair.failed[at]) for pair in pairs) for at, side in enumerate(("now", "candidate"))}


def _mean(pairs: Sequence[Pair]) -> float | None:
    return _number(sum(pair.difference for pair in pairs) / len(pairs)) if pairs else None


def write_report(folder: Path, state: CanaryState, pairs: Sequence[Pair], powers: Sequence[Power]) -> dict[str, Any]:
    """Write report.json and report.html into the canary's folder; return the figures."""
    made = figures(folder, state, pairs)
    png = _plot(np.array([pair.difference for pair in _divided(state, pairs)[0]]), state)
    with writing(folder):
        replace_file(folder / "report.json", json.dumps(made, indent=2).encode() + b"\n")
        replace_file(folder / "report.html", _page(made, state, pairs, png, powers).encode())
    return made


def power_rows(powers: Sequence[Power]) -> list[list[str]]:
    """Return a row for each assumed difference: what becomes of canaries, and after how many pairs."""
    return [
        [
            f"{power.assumed.difference:+.4g}",
            *(f"{share:.0%}" for share in power.shares.values()),
            *("more" if pairs is None else str(pairs) for pairs in (power.median_pairs, power.p90_pairs)),
        ]
        for power in powers
    ]


POWER_HEADER = ("true difference", "worse", "fine", "undecided", "median pairs", "90 % by")


def pass_at_1_note() -> str:
    difference, discordance = PASS_AT_1
    pairs = fixed_sample_pairs(difference, discordance)
    return (
        f"right or wrong decides little: to see one point of pass@1 where {discordance:.0%} of the problems end "
        f"differently, a test of fixed size takes {pairs:,} pairs (5 % two-sided, 80 % power)"
    )


def _page(made: dict[str, Any], state: CanaryState, pairs: Sequence[Pair], png: bytes, powers: Sequence[Power]) -> str:
    spec = state.spec
    touched = "" if made["touched"] is None else f" It was given {made['touched']:,} requests of others."
    why = f": {state.why}" if state.why else ""
    summary = f"{spec.what} for {spec.model}: {state.phase}{why}.{touched} Now: {made['now']}"
    low, high = made["interval"]
    rows = [
        *([name, at] for name, at in made["times"].items()),
        *([["time to the decision", duration(made["seconds"])]] if made["seconds"] is not None else []),
        ["pairs", str(made["pairs"])],
        ["loss now", _shown(made["mean_loss"]["now"])],
        ["loss of the candidate", _shown(made["mean_loss"]["candidate"])],
        ["mean difference", _shown(made["mean_difference"])],
        [f"interval, {1 - spec.alpha:.0%}, at any time", f"{low:+.4f} to {high:+.4f}"],
        ["margin", f"{spec.margin:g}"],
        *([f"failed, {side}", str(count)] for side, count in made["failed"].items()),
        *([f"skipped: {why}", str(count)] for why, count in made["skipped"].items()),
        ["pairs while it waited for its promotion", str(made["waiting"]["pairs"])],
        ["their mean difference", _shown(made["waiting"]["mean_difference"])],
        ["of these failed, candidate", str(made["waiting"]["failed"]["candidate"])],
    ]
    worst = sorted((pair for pair in pairs if pair.losses), key=lambda pair: -pair.difference)[:_WORST]
    sections = [
        Section(heading="The test", png=png),
        Section(heading="What was compared", rows=rows),
        Section(
            heading="Where", header=("now / candidate", "pairs"), rows=[[k, str(n)] for k, n in made["places"].items()]
        ),
        Section(heading="Power, stated before it began", header=POWER_HEADER, rows=power_rows(powers)),
        Section(
            heading="The largest differences",
            header=("prompt", "now", "candidate", "failed"),
            rows=[[pair.id, *(f"{loss:.4f}" for loss in pair.losses or ()), pair.failed[1][:80]] for pair in worst],
        ),
        Section(heading="What was asked", text=msgspec.json.format(msgspec.json.encode(spec)).decode()),
    ]
    notes = [
        f"The loss is `{spec.measure}` against {spec.model}:{spec.reference}; a side that fails loses 1.",
        "A capital that reaches the line decides. Whoever looks at any time is wrong with a chance of alpha at most.",
        f"Note: {pass_at_1_note()}.",
    ]
    return html_page(f"Canary of {spec.model}", summary, sections, notes)


def _plot(differences: Numbers, state: CanaryState) -> bytes:
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(8, 5.5), layout="constrained")
    upper, lower = canvas.subplots(2, 1, sharex=True)
    worse, fine = (capital / math.log(10) for capital in log_capitals(differences, state.spec.margin))
    counts = np.arange(1, len(differences) + 1)
    upper.plot(counts, worse, color="#D55E00", label="worse than the margin")
    upper.plot(counts, fine, color="#0072B2", label="not worse than the margin")
    upper.axhline(-math.log10(state.spec.alpha), color="#000000", linestyle="--", label=f"1 / {state.spec.alpha:g}")
    upper.set_ylabel("capital (log10)")
    upper.legend(fontsize=8)
    lower.plot(counts, np.cumsum(differences) / np.maximum(counts, 1), color="#009E73", label="mean difference")
    lower.axhline(state.spec.margin, color="#000000", linestyle=":", label="margin")
    lower.set_xlabel("pairs")
    lower.legend(fontsize=8)
    return png_of(canvas)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"
