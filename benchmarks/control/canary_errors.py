"""A canary's test against a known truth: how often it is wrong, looked at after every pair, and how soon right.

`python -m benchmarks.control.canary_errors [--out FOLDER]`

Differences have three values (a share of the pairs differs, by one size) or are uniform. At the margin itself either
decision is wrong; beside it stands what looking at mapie's empirical Bernstein bound after every pair would take.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mapie.exchangeability_testing.bounds import conjugate_mixture_empirical_bernstein_bound
from numpy.typing import NDArray

from benchmarks.harness import ROOT, save, target
from calibration.control.canary.eprocess import Decision, decide
from calibration.control.canary.power import PASS_AT_1, Assumed, fixed_sample_pairs

Numbers = NDArray[np.float64]
SEED, ALPHA, MARGIN = 20261130, 0.05, 0.02
NULLS, PAIRS = 2000, 1000
ALTERNATIVES, MAX_PAIRS, BESIDE = 200, 2000, 20


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "control")
    options = parser.parse_args()
    options.short = False
    generator = np.random.default_rng(SEED)
    nulls = {
        "three values": Assumed(difference=MARGIN).draw((NULLS, PAIRS), generator),
        "uniform": MARGIN + generator.uniform(-0.5, 0.5, (NULLS, PAIRS)),
    }
    rows = {name: _errors(drawn) for name, drawn in nulls.items()}
    soon = {
        f"{difference:g}": _soon(Assumed(difference=difference).draw((ALTERNATIVES, MAX_PAIRS), generator))
        for difference in (0.0, 0.03, 0.04, 0.05)
    }
    worst = max(rate for row in rows.values() for rate in row.values())
    figures: dict[str, Any] = {
        "seed": SEED,
        "alpha": ALPHA,
        "margin": MARGIN,
        "replays": NULLS,
        "pairs": PAIRS,
        "versions": {name: version(name) for name in ("numpy", "scipy", "mapie")},
        "errors_at_the_margin": rows,
        "pairs_to_a_decision": soon,
        "pass_at_1_pairs": fixed_sample_pairs(*PASS_AT_1),
        "targets": [target("worst rate of a wrong decision, looked at after every pair", worst, ALPHA, at_most=True)],
    }
    save("canary_errors", figures, options)


def _errors(drawn: Numbers) -> dict[str, float]:
    ends = [decide(row, MARGIN, ALPHA)[0] for row in drawn]
    return {str(end): sum(decision is end for decision in ends) / len(ends) for end in (Decision.WORSE, Decision.FINE)}


def _soon(drawn: Numbers) -> dict[str, Any]:
    ends = [decide(row, MARGIN, ALPHA) for row in drawn]
    counts = [count for end, count in ends if end is not Decision.UNDECIDED]
    beside = [_by_bernstein(row) for row in drawn[:BESIDE]]
    return {
        **{str(end): sum(decision is end for decision, _ in ends) / len(ends) for end in Decision},
        "median_pairs": float(np.median(counts)) if counts else None,
        "median_pairs_by_bernstein": float(np.median(beside)),
        "bernstein_undecided": sum(count == MAX_PAIRS for count in beside) / len(beside),
    }


def _by_bernstein(row: Numbers) -> int:
    """Return after how many pairs mapie's bounds, each at alpha, leave the margin out, at most all of them."""
    scaled, margin = (row + 1) / 2, (MARGIN + 1) / 2
    bounds = {
        side: conjugate_mixture_empirical_bernstein_bound(scaled, v_opt=10, alpha=2 * ALPHA, bound_side=side)
        for side in ("lower", "upper")
    }
    out = (bounds["lower"] > margin) | (bounds["upper"] < margin)
    return int(np.argmax(out)) + 1 if out.any() else len(row)


if __name__ == "__main__":
    main()
