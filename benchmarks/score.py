"""What a score costs: the entropy alone, the six features that predict a loss, and all; from 64 B to 2 MB.

`python -m benchmarks.score`. No server and no network: the intake's own function, on prose, on code, and on prose of
which every third letter is not ASCII.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from benchmarks.harness import ROOT, Figures, arguments, save, say, spread_of, target
from bitladder.contract import Endpoint
from bitladder.routing.features import FEATURES, score_prompt

SIX = ("punctuation", "repeated_4grams", "chat", "digits", "non_ascii", "tokens")
SETS: Mapping[str, tuple[str, ...]] = {"entropy_us": ("entropy",), "six_us": SIX, "all_us": tuple(FEATURES)}
SIZES = {"64 B": 64, "2 KB": 2048, "64 KB": 65_536, "2 MB": 2_097_152}
_ACCENTED = str.maketrans("aeou", "äéøû")


def main() -> None:
    """Measure and write the figures."""
    options = arguments(__doc__)
    rounds, batches = (1, 7) if options.short else (7, 31)
    samples: dict[str, list[Figures]] = {}
    for number in range(rounds):
        for kind, text in texts().items():
            for size, count in SIZES.items():
                data = cut(text, count)
                taken = {name: _median_us(data, features, batches) for name, features in SETS.items()}
                samples.setdefault(f"{size}, {kind}", []).append(taken)
        say(f"{number + 1}/{rounds}")
    rows = {name: spread_of(its) for name, its in samples.items()}
    save("score", {"rows": rows, "targets": targets(rows)}, options)


def texts() -> dict[str, str]:
    """Return a long text of each kind."""
    prose = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "decisions").glob("*.md")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "bitladder").rglob("*.py")))
    return {"prose": prose, "code": code, "not ASCII": prose.translate(_ACCENTED)}


def cut(text: str, size: int) -> bytes:
    """Return `size` bytes of a text, repeated where it is shorter."""
    data = text.encode()
    data = (data * (size // len(data) + 1))[:size]
    return data.decode("utf-8", "ignore").encode()


def _median_us(data: bytes, features: tuple[str, ...], batches: int) -> float:
    """Return the processor's time for one score: the median of batches of a millisecond or more."""

    def cpu_us(count: int) -> float:
        start = time.process_time_ns()
        for _ in range(count):
            score_prompt(data, Endpoint.CHAT, features)
        return (time.process_time_ns() - start) / 1000

    count = max(1, round(1000 / max(1.0, cpu_us(3) / 3)))
    return statistics.median(cpu_us(count) / count for _ in range(batches))


def targets(rows: Mapping[str, Figures]) -> list[Figures]:
    """Hold the slowest kind of text against what was asked for."""

    def slowest(size: str, features: str) -> float:
        return max(float(row[features]["median"]) for name, row in rows.items() if name.startswith(f"{size},"))

    return [
        target("entropy alone, 2 KB, us", slowest("2 KB", "entropy_us"), 9, at_most=True),
        target("six features, 2 KB, us", slowest("2 KB", "six_us"), 60, at_most=True),
        target("all features, 2 KB, us", slowest("2 KB", "all_us"), 150, at_most=True),
        target("all features, 2 MB, us", slowest("2 MB", "all_us"), 10_000, at_most=True),
    ]


if __name__ == "__main__":
    main()
