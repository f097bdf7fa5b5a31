"""How far forecasts of waits were off, and what that says of the next one. Pure."""

from __future__ import annotations

from collections import deque
from statistics import median

from bitladder.contract import ExpectedWait

# So many of the last forecasts count.
_KEPT = 200
# Below so many nothing is known of the error, and a wait may be half or twice of what is expected.
_ENOUGH = 8
_UNKNOWN = (0.5, 1.0, 2.0)
# Real waits below and above the interval: one of ten each.
_TAIL = 0.1
# Waits this short are the same: a forecast of none for a job that waited for 5 ms was no error.
_SAME_S = 0.05


class WaitErrors:
    """The last forecasts of one tier and lane beside what came of them."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[float, float]] = deque(maxlen=_KEPT)  # forecast, real

    def add(self, forecast_s: float, real_s: float) -> None:
        self._pairs.append((forecast_s, real_s))

    @property
    def median_error(self) -> float | None:
        """The median of |forecast - real| by the real wait; None: not known."""
        if len(self._pairs) < _ENOUGH:
            return None
        return median(abs(forecast_s - real_s) / (real_s + _SAME_S) for forecast_s, real_s in self._pairs)

    def expect(self, forecast_s: float) -> ExpectedWait:
        """Return what a forecast means, by what came of the former ones: they may all have been too short."""
        low, usual, high = self._ratios()
        wait_s = forecast_s + _SAME_S
        values = (max(0.0, ratio * wait_s - _SAME_S) for ratio in (low, usual, high))
        low_ms, wait_ms, high_ms = (round(value * 1000) for value in values)
        return ExpectedWait(wait_ms=wait_ms, low_ms=low_ms, high_ms=high_ms)

    def _ratios(self) -> tuple[float, float, float]:
        if len(self._pairs) < _ENOUGH:
            return _UNKNOWN
        ratios = sorted((real_s + _SAME_S) / (forecast_s + _SAME_S) for forecast_s, real_s in self._pairs)
        last = len(ratios) - 1
        return ratios[int(last * _TAIL)], median(ratios), ratios[-int(last * _TAIL) - 1]
