"""Options that say which requests come, as `simulate` and `plan` have them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from calibration.commands.options import say
from calibration.errors import InputError
from calibration.simulation.arrivals import LENGTH_KINDS, MAX_REQUESTS, Arrivals, Lengths, generate
from calibration.simulation.outcome import Targets
from calibration.simulation.trace_files import read_arrivals

LENGTHS = "exponential:input=512,output=256"
MAX_MEAN_TOKENS = 100_000
_ROUNDED = 1e-3  # by which shares with few digits may miss 1


def numbers_of(option: str, text: str, known: Collection[str] = ()) -> dict[str, float]:
    """Return the values of name=number,..."""
    numbers: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, raw = part.partition("=")
        if known and name not in known:
            raise InputError(f"{option}: {name!r} must be one of {', '.join(known)}")
        if name in numbers:
            raise InputError(f"{option}: {name!r} stands twice in {text!r}")
        try:
            numbers[name] = float(raw)
        except ValueError:
            numbers[name] = -1.0
        if not 0 <= numbers[name] <= 1e9:
            raise InputError(f"{option}: {name!r} must be a number of 0 or more, got {raw!r}")
    if numbers and not sum(numbers.values()):
        raise InputError(f"{option}: at least one must be above 0, got {text!r}")
    return numbers


def shares_of(text: str, tiers: Collection[str] = ()) -> dict[str, float]:
    """Return the share of the requests by tier; {} for ''.

    Raises:
        InputError: it is wrong, or they are not all requests.

    """
    shares = numbers_of("--shares", text, tiers)
    if shares and abs(sum(shares.values()) - 1) > _ROUNDED:
        raise InputError(f"--shares must add up to 1, got {sum(shares.values()):g} in {text!r}")
    return shares


def targets_of(text: str) -> Targets:
    """Return the targets of an SLO."""
    values = numbers_of("--slo", text, ("ttft", "total", "per_token"))
    return Targets(**{f"{name}_s": value for name, value in values.items()})


def arrivals_of(text: str, count: int | None, speed: float, lengths: str, seed: int, *, sort: bool = False) -> Arrivals:
    """Return the requests of a trace's file, or of a generator."""
    if Path(text).is_file():
        read = read_arrivals(Path(text), speed, MAX_REQUESTS if count is None else count, sort=sort)
        if count is None and len(read) == MAX_REQUESTS:
            say(f"the trace's first {MAX_REQUESTS:,} requests are taken")
        return read
    if "/" in text or text.endswith((".gz", ".csv", ".jsonl")):
        raise InputError(f"--arrivals: there is no file {text!r}")
    return generate(text, 10_000 if count is None else count, _lengths(lengths), seed)


def _lengths(spec: str) -> Lengths:
    kind, _, rest = spec.partition(":")
    if kind not in LENGTH_KINDS:
        raise InputError(f"--lengths must be one of {', '.join(LENGTH_KINDS)}, got {kind!r}")
    means = {"input": 512.0, "output": 256.0} | numbers_of("--lengths", rest, ("input", "output"))
    for name, mean in means.items():
        if not 1 <= mean <= MAX_MEAN_TOKENS:
            raise InputError(f"--lengths: {name} must be 1 to {MAX_MEAN_TOKENS} tokens, got {mean:g}")
    return Lengths(kind=kind, input_tokens=means["input"], output_tokens=means["output"])
