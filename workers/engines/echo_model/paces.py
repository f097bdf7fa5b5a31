"""How fast the echo engine writes: at a set speed, or by a service curve, whose speed its requests share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bitladder.errors import ConfigError
from bitladder.settings.worker_section import EchoSettings
from bitladder.workload.speed_curves import Curve, read_curves
from workers.engines.echo_model.in_flight import InFlight


class Pace(Protocol):
    """One request's speed."""

    async def token(self, at: int) -> None:
        """Wait until its token of this number is due, from 0."""


class Paces(Protocol):
    """The speed of an engine."""

    def begin(self, machine: InFlight, prompt_tokens: int, slowness: float) -> contextlib.AbstractContextManager[Pace]:
        """Return the pace of a request that is in the engine while the block runs."""


def paces_of(settings: EchoSettings, tier: str) -> Paces:
    """Return the speed that the settings ask for.

    Raises:
        ConfigError: the curves cannot be read, or there is none of the tier's name.

    """
    if not settings.curves:
        return SetSpeed(settings)
    curves = read_curves(Path(settings.curves))
    if tier not in curves:
        raise ConfigError(f"echo.curves ({settings.curves}) must have a curve named {tier!r}, got {', '.join(curves)}")
    return SharedSpeed(curves[tier])


class SetSpeed:
    """Each request has the speed of the settings, whatever runs beside it."""

    def __init__(self, settings: EchoSettings) -> None:
        self._ttft_s, self._step_s = settings.ttft_ms / 1000, 1 / settings.tokens_per_s

    @contextlib.contextmanager
    def begin(self, machine: InFlight, prompt_tokens: int, slowness: float) -> Iterator[Pace]:
        """Begin a request."""
        del prompt_tokens
        yield _SetPace(machine, time.perf_counter() + self._ttft_s * slowness, self._step_s * slowness)


class _SetPace:
    def __init__(self, machine: InFlight, first_s: float, step_s: float) -> None:
        self._machine, self._first_s, self._step_s = machine, first_s, step_s

    async def token(self, at: int) -> None:
        # By the clock, like an engine's steps: a reader that is slow to take a token does not delay the next one.
        await self._machine.wait(self._first_s + at * self._step_s - time.perf_counter())


class SharedSpeed:
    """At every moment each request has its curve's rate for so many at once.

    `_progress` is what each request was given since the engine began, in tokens; a token is due when that has grown by
    what it takes. It is the same arithmetic as a simulation's (calibration/simulation/event_loop.py).
    """

    def __init__(self, curve: Curve) -> None:
        self._rates, self._first_s = curve.job_rates(curve.max_concurrency), curve.first_token_s(curve.max_concurrency)
        self._input_tokens = curve.input_tokens
        self._running, self._progress, self._clock_s = 0, 0.0, time.perf_counter()

    @property
    def rate(self) -> float:
        """The tokens that each request gets in a second now; beyond the curve's end, its last value."""
        return self._rates[min(self._running, len(self._rates) - 1)]

    def advance(self) -> float:
        """Return the progress up to now."""
        now_s = time.perf_counter()
        if self._running:
            self._progress += (now_s - self._clock_s) * self.rate
        self._clock_s = now_s
        return self._progress

    @contextlib.contextmanager
    def begin(self, machine: InFlight, prompt_tokens: int, slowness: float) -> Iterator[Pace]:
        """Begin a request: it takes its part of the speed from the others until it has ended."""
        begun = self.advance()
        self._running += 1
        first_s = self._first_s[min(self._running, len(self._first_s) - 1)] * slowness
        if self._input_tokens:
            first_s *= prompt_tokens / self._input_tokens
        try:
            yield _SharedPace(self, machine, begun + first_s * self.rate, first_s, slowness)
        finally:
            self.advance()
            self._running -= 1
            machine.wake_all()  # those that are left are faster now


class _SharedPace:
    def __init__(self, speed: SharedSpeed, machine: InFlight, first: float, first_s: float, slowness: float) -> None:
        self._speed, self._machine, self._first, self._slowness = speed, machine, first, slowness
        self._first_s = time.perf_counter() + first_s

    async def token(self, at: int) -> None:
        # Reading the prompt takes its time, as measured at that concurrency; writing shares the speed.
        while at == 0 and (left_s := self._first_s - time.perf_counter()) > 0:
            await self._machine.wait(left_s)
        while at > 0 and (left := self._first + at * self._slowness - self._speed.advance()) > 0:
            await self._machine.wait(left / self._speed.rate)
        await self._machine.wait(0)
