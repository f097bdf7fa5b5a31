"""What a score costs: the entropy alone, the six features that predict a loss, and all; from 64 B to 2 MB.

And what score and decision cost together: of the article's rule, and of a learned policy of those six features.
`python -m benchmarks.score`. No server and no network: the intake's own functions, on prose, on code, and on prose of
which every third letter is not ASCII. The 99th percentile is over different prompts of 2 KB, each the least of several
calls: how often a busy machine interrupts a call is not ours to measure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks.harness import ROOT, Figures, arguments, percentile, save, say, spread_of, target
from bitladder.endpoints import Endpoint
from bitladder.policy_forms import read_form
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.features import FEATURES, score_prompt
from bitladder.routing.policies import policy_of
from bitladder.routing.policies.interface import Policy
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings

SIX = ("punctuation", "repeated_4grams", "chat", "digits", "non_ascii", "tokens")
SETS: Mapping[str, tuple[str, ...]] = {"entropy_us": ("entropy",), "six_us": SIX, "all_us": tuple(FEATURES)}
LADDER = ("int4", "int8", "fp8")
_CALLS = 7
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
                taken = {name: _median_us(_scoring(data, features), batches) for name, features in SETS.items()}
                for name, policy in policies().items():
                    taken[f"{name}_us"] = _median_us(_deciding(data, policy), batches)
                samples.setdefault(f"{size}, {kind}", []).append(taken)
        say(f"{number + 1}/{rounds}")
    rows = {name: spread_of(its) for name, its in samples.items()}
    p99_us = {name: slowest_us(policy, 50 if options.short else 500) for name, policy in policies().items()}
    save("score", {"rows": rows, "p99_us": p99_us, "targets": targets(rows, p99_us)}, options)


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


def policies() -> dict[str, Policy]:
    """Return the policies that are timed: the shipped one, and the example of a learned one, which reads the six."""
    form = read_form((ROOT / "examples" / "learned_policy.json").read_bytes(), "learned_policy.json")
    table = NamedPolicySettings(kind="learned", file="learned_policy.json", form=form)
    return {
        "article": policy_of(PolicySettings()),
        "learned": policy_of(PolicySettings(name="learned-example"), {"learned-example": table}),
    }


def _scoring(data: bytes, features: tuple[str, ...]) -> Callable[[], object]:
    return lambda: score_prompt(data, Endpoint.CHAT, features)


def _deciding(data: bytes, policy: Policy) -> Callable[[], object]:
    constraints = constraints_of(Envelope(), LADDER)
    return lambda: policy.decide(score_prompt(data, Endpoint.CHAT, policy.features), constraints)


def _median_us(call: Callable[[], object], batches: int) -> float:
    """Return the processor's time for one call: the median of batches of a millisecond or more."""

    def cpu_us(count: int) -> float:
        start = time.process_time_ns()
        for _ in range(count):
            call()
        return (time.process_time_ns() - start) / 1000

    count = max(1, round(1000 / max(1.0, cpu_us(3) / 3)))
    return statistics.median(cpu_us(count) / count for _ in range(batches))


def slowest_us(policy: Policy, count: int) -> float:
    """Return the 99th percentile of score and decision over `count` prompts of 2 KB of each kind of text."""
    times = []
    for text in texts().values():
        data = text.encode()
        for number in range(count):
            start = number * (len(data) - SIZES["2 KB"]) // count
            call = _deciding(data[start : start + SIZES["2 KB"]], policy)
            times.append(min(_cpu_us(call) for _ in range(_CALLS)))
    return percentile(times, 0.99)


def _cpu_us(call: Callable[[], object]) -> float:
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1000


def targets(rows: Mapping[str, Figures], p99_us: Mapping[str, float]) -> list[Figures]:
    """Hold the slowest kind of text against what was asked for."""

    def slowest(size: str, features: str) -> float:
        return max(float(row[features]["median"]) for name, row in rows.items() if name.startswith(f"{size},"))

    return [
        target("entropy alone, 2 KB, us", slowest("2 KB", "entropy_us"), 9, at_most=True),
        target("six features, 2 KB, us", slowest("2 KB", "six_us"), 60, at_most=True),
        target("all features, 2 KB, us", slowest("2 KB", "all_us"), 150, at_most=True),
        target("article: score and decision, 2 KB, p99 us", p99_us["article"], 12, at_most=True),
        target(
            "learned, six features: score and decision, 2 KB, p99 us",
            p99_us["learned"],
            100,
            at_most=True,
        ),
        target("all features, 2 MB, us", slowest("2 MB", "all_us"), 10_000, at_most=True),
    ]


if __name__ == "__main__":
    main()
