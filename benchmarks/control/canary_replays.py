"""What a canary says of two real checkpoints that differ a little: replays on labels of the same prompts.

`python -m benchmarks.control.canary_replays [--labels FILE] [--out FOLDER]`

The labels (../shared/data/README.md) have what two int4 checkpoints of one model lose on the same 321 prompts: GPTQ,
and round-to-nearest. A replay draws prompts with replacement and looks at the test after every pair, as a canary does.
Smaller differences than theirs are made by exchanging both by chance, a share of the prompts: so the true mean is
known, and the differences keep their spread. Beside each stands what canary/power.py says before anything is asked.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, save, target
from calibration.control.canary.eprocess import first_pairs
from calibration.control.canary.power import Assumed, simulate_power

Numbers = NDArray[np.float64]
SEED, ALPHA, REPLAYS, MAX_PAIRS = 20261130, 0.05, 2000, 1000
_AT_ONCE = 100  # replays, in memory
LABELS = ROOT.parent / "shared" / "data" / "smollm2-losses.jsonl.gz"
NOW, CANDIDATE = "int4gptq", "int4rtn"
# The label's name of each measure, and the margins that it is looked at with.
MEASURES = {"kl": ("kl_cont", (0.02, 0.05)), "flips": ("dis_cont", (0.02, 0.05))}
# True differences: the two checkpoints, exchanged, as good, and in parts of the margin.
MARGINS = (0.5, 1.0, 1.5, 2.0)


def main() -> None:
    """Replay and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "control")
    options = parser.parse_args()
    options.short = False
    generator = np.random.default_rng(SEED)
    differences = {name: _differences(options.labels, label) for name, (label, _) in MEASURES.items()}
    rows = [
        _row(measure, drawn, margin, true, generator)
        for measure, drawn in differences.items()
        for margin in MEASURES[measure][1]
        for true in _truths(float(drawn.mean()), margin).items()
    ]
    wrong = max(row["wrong"] for row in rows)
    figures: dict[str, Any] = {
        "seed": SEED,
        "alpha": ALPHA,
        "replays": REPLAYS,
        "max_pairs": MAX_PAIRS,
        "labels": {"file": options.labels.name, "prompts": len(differences["kl"]), "now": NOW, "candidate": CANDIDATE},
        "differences": {
            name: {"mean": drawn.mean(), "sd": drawn.std(), "not_zero": (drawn != 0).mean()}
            for name, drawn in differences.items()
        },
        "rows": rows,
        "targets": [target("worst rate of a wrong decision, looked at after every pair", wrong, ALPHA, at_most=True)],
    }
    save("canary_replays", figures, options)


def _differences(labels: Path, label: str) -> Numbers:
    with gzip.open(labels) as file:
        rows = [json.loads(line) for line in file]
    pairs = [(row[NOW][label], row[CANDIDATE][label]) for row in rows if NOW in row and CANDIDATE in row]
    losses: Numbers = np.minimum(np.array(pairs, dtype=float), 1.0)  # a canary's limit, in nats
    return losses[:, 1] - losses[:, 0]


def _truths(mean: float, margin: float) -> dict[str, float]:
    parts = {f"{part:g} margins": part * margin for part in MARGINS if part * margin < mean}
    return {"round-to-nearest for GPTQ": mean, "GPTQ for round-to-nearest": -mean, "as good": 0.0, **parts}


def _row(
    measure: str, differences: Numbers, margin: float, true: tuple[str, float], generator: np.random.Generator
) -> dict[str, Any]:
    name, difference = true
    ends = [_ends(differences, difference, margin, generator) for _ in range(REPLAYS // _AT_ONCE)]
    worse, fine = (np.concatenate(counts) for counts in zip(*ends, strict=True))
    pairs = np.minimum(worse, fine)
    shares = {"worse": float((worse < np.inf).mean()), "fine": float((fine < np.inf).mean())}
    wrong = (difference <= margin) * shares["worse"], (difference >= margin) * shares["fine"]
    return {
        "measure": measure,
        "margin": margin,
        "candidate": name,
        "difference": difference,
        **shares,
        "undecided": float((pairs == np.inf).mean()),
        "wrong": max(wrong),
        "decided_by": {str(count): float((pairs <= count).mean()) for count in (50, 100, 200, 500)},
        "pairs": {str(share): _count(float(np.quantile(pairs, share, method="higher"))) for share in (0.5, 0.9)},
        "said_before": _said_before(differences, margin, difference),
    }


def _ends(differences: Numbers, true: float, margin: float, generator: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Return after how many pairs each of some replays is found worse, and fine: inf where it is not, or not first."""
    drawn = generator.choice(differences, (_AT_ONCE, MAX_PAIRS))
    kept = generator.random(drawn.shape) < (1 + true / differences.mean()) / 2
    drawn, left = np.where(kept, drawn, -drawn), np.arange(_AT_ONCE)
    worse, fine = np.full(_AT_ONCE, np.inf), np.full(_AT_ONCE, np.inf)
    for count in (100, 400, MAX_PAIRS):  # most need no more than a part
        worse[left], fine[left] = first_pairs(drawn[left, :count], margin, ALPHA)
        left = np.flatnonzero(np.minimum(worse, fine) == np.inf)
        if not left.size:
            break
    is_worse = worse <= fine
    return np.where(is_worse, worse, np.inf), np.where(is_worse, np.inf, fine)


def _said_before(differences: Numbers, margin: float, difference: float) -> dict[str, Any]:
    """Return what canary/power.py says, where as many pairs differ, by their root mean square each."""
    discordance = float((differences != 0).mean())
    size = float(np.sqrt((differences**2).sum() / (differences != 0).sum()))
    assumed = Assumed(difference=difference, discordance=discordance, size=size)
    power = simulate_power(assumed, margin=margin, alpha=ALPHA, max_pairs=MAX_PAIRS, replays=100, seed=SEED)
    return {"discordance": discordance, "size": size, **power.shares, "median_pairs": power.median_pairs}


def _count(pairs: float) -> int | None:
    return int(pairs) if np.isfinite(pairs) else None


if __name__ == "__main__":
    main()
