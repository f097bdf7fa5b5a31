"""Requests that come: when, and how long they and their answers are. Made from a rate and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitladder.decision import Score
from calibration.errors import InputError
from calibration.statistics import Floats

_GRID = 2000  # steps of one period of a rate that varies
MAX_REQUESTS = 10_000_000
LENGTH_KINDS = ("constant", "exponential", "zipf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Requests in the order of their coming."""

    at_s: Floats  # since the first one, or since the beginning
    input_tokens: Floats
    output_tokens: Floats
    lanes: Sequence[str] = ()  # empty: all are normal
    floors: Sequence[str] = ()  # '': the policy or the shares decide
    scores: Sequence[Score | None] = ()
    deadlines_s: Sequence[float] = ()  # from their coming; 0: none
    tenants: Sequence[str] = ()  # '': the default one
    ceilings: Sequence[str] = ()  # '': the top of the ladder
    only: Sequence[tuple[str, ...]] = ()  # the only tiers that may serve it; (): all
    below_floor: Sequence[bool] = ()  # whether a lower tier may serve it where all above are full

    @property
    def are_plain(self) -> bool:
        """Whether they ask for nothing but a floor and a lane."""
        columns = (self.deadlines_s, self.tenants, self.ceilings, self.only, self.below_floor)
        return not any(map(len, columns))

    def __len__(self) -> int:
        return len(self.at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long generated requests are."""

    kind: str  # constant, exponential, or zipf: many short ones, some eight times the average
    input_tokens: float
    output_tokens: float


def generate(spec: str, count: int, lengths: Lengths, seed: int) -> Arrivals:
    """Return requests by a rate such as poisson:rate=20. The same arguments make the same requests.

    Raises:
        InputError: the text names no generator, or a value is not one that it takes.

    """
    kind, _, rest = spec.partition(":")
    if kind not in _GENERATORS:
        raise InputError(f"arrivals must be one of {', '.join(_GENERATORS)}, got {kind!r}")
    make, defaults = _GENERATORS[kind]
    values = _values(spec, rest, defaults)
    random = np.random.default_rng(seed)
    times = make(random, count, values)
    return Arrivals(
        at_s=times,
        input_tokens=_lengths(random, lengths.kind, lengths.input_tokens, count),
        output_tokens=_lengths(random, lengths.kind, lengths.output_tokens, count),
    )


def with_defaults(arrivals: Arrivals, deadline_s: float | None, tenants: Mapping[str, float], seed: int) -> Arrivals:
    """Return requests with this deadline and tenants by these shares, where they have none of their own."""
    count, changes = len(arrivals), dict[str, Sequence[float] | Sequence[str]]()
    if deadline_s is not None:
        recorded = arrivals.deadlines_s or [0.0] * count
        changes["deadlines_s"] = [value or deadline_s for value in recorded]
    if tenants:
        shares = np.array(list(tenants.values())) / sum(tenants.values())
        drawn = np.random.default_rng((seed, 2)).choice(list(tenants), count, p=shares)
        changes["tenants"] = [
            name or str(other) for name, other in zip(arrivals.tenants or [""] * count, drawn, strict=True)
        ]
    return replace(arrivals, **changes)  # type: ignore[arg-type]  # as their names say


def _values(spec: str, text: str, defaults: Mapping[str, float]) -> dict[str, float]:
    values = dict(defaults)
    for part in filter(None, text.split(",")):
        name, _, raw = part.partition("=")
        try:
            value = float(raw)
        except ValueError:
            value = -1.0
        if name not in defaults:
            raise InputError(f"arrivals {spec!r}: {name!r} must be one of {', '.join(defaults)}")
        if not 0 < value < 1e9:
            raise InputError(f"arrivals {spec!r}: {name} must be a number above 0, got {raw!r}")
        values[name] = value
    return values


def _poisson(random: np.random.Generator, count: int, values: Mapping[str, float]) -> Floats:
    return np.cumsum(random.exponential(1 / values["rate"], count))


def _gamma(random: np.random.Generator, count: int, values: Mapping[str, float]) -> Floats:
    """Return intervals whose standard deviation is `cv` of their mean: above 1 in clusters (BurstGPT's shape)."""
    shape = values["cv"] ** -2
    return np.cumsum(random.gamma(shape, 1 / (shape * values["rate"]), count))


def _bursts(random: np.random.Generator, count: int, values: Mapping[str, float]) -> Floats:
    period = values["off_s"] + values["on_s"]
    grid = np.array([0.0, values["off_s"], period])
    expected = np.array([0.0, values["off_s"] * values["rate"], 0.0])
    expected[2] = expected[1] + values["on_s"] * values["burst_rate"]
    return _by_rate(random, count, grid, expected)


def _diurnal(random: np.random.Generator, count: int, values: Mapping[str, float]) -> Floats:
    """Return a rate that swings about its mean: lowest at the beginning, `peak` times the mean in mid-period."""
    swing = values["peak"] - 1
    if not 0 <= swing <= 1:
        raise InputError(f"diurnal: peak must be 1 to 2 times the mean rate, got {values['peak']:g}")
    turn = np.linspace(0, 2 * np.pi, _GRID)
    period = values["period_s"]
    expected = values["rate"] * period * (turn - swing * np.sin(turn)) / (2 * np.pi)
    return _by_rate(random, count, turn * period / (2 * np.pi), expected)


def _by_rate(random: np.random.Generator, count: int, grid: Floats, expected: Floats) -> Floats:
    """Return Poisson arrivals of a rate that varies with a period, from how many are expected up to each time of it."""
    whole, rest = np.divmod(np.cumsum(random.exponential(1, count)), expected[-1])
    return np.asarray(whole * grid[-1] + np.interp(rest, expected, grid))


_Generator = Callable[[np.random.Generator, int, Mapping[str, float]], Floats]
_GENERATORS: dict[str, tuple[_Generator, dict[str, float]]] = {
    "poisson": (_poisson, {"rate": 10}),
    "gamma": (_gamma, {"rate": 10, "cv": 2}),
    "bursts": (_bursts, {"rate": 5, "burst_rate": 50, "on_s": 10, "off_s": 50}),
    "diurnal": (_diurnal, {"rate": 10, "peak": 2, "period_s": 86_400}),
}


def _lengths(random: np.random.Generator, kind: str, mean: float, count: int) -> Floats:
    if kind == "constant":
        return np.full(count, mean)
    if kind == "exponential":
        return np.maximum(1, np.round(random.exponential(mean, count)))
    ranks = np.arange(1.0, max(2, int(8 * mean)) + 1)
    weights = _zipf_weights(ranks, mean)
    return np.asarray(random.choice(ranks, count, p=weights), dtype=float)


def _zipf_weights(ranks: Floats, mean: float) -> Floats:
    """Return the shares of lengths under Zipf's law, with the exponent that makes them as long on average."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = ranks**-middle
        low, high = (middle, high) if (weights @ ranks) / weights.sum() > mean else (low, middle)
    weights = ranks**-low
    return np.asarray(weights / weights.sum())
