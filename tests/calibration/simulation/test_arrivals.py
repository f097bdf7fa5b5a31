"""Generated requests: their rates, their lengths and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.simulation.arrivals import Lengths, generate

CONSTANT = Lengths(kind="constant", input_tokens=10, output_tokens=5)


@pytest.mark.parametrize(
    ("spec", "rate", "variation"),
    [
        ("poisson:rate=5", 5, 1),
        ("gamma:rate=5,cv=3", 5, 3),
        ("bursts:rate=1,burst_rate=21,on_s=10,off_s=40", 5, None),
        ("diurnal:rate=5,peak=2,period_s=100", 5, None),
    ],
)
def test_requests_come_at_the_rate_that_is_asked_for(spec: str, rate: float, variation: float | None) -> None:
    times = generate(spec, 40_000, CONSTANT, seed=3).at_s
    gaps = np.diff(times)

    assert len(times) / times[-1] == pytest.approx(rate, rel=0.05)
    assert gaps.min() >= 0
    if variation is not None:
        assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.05)


def test_bursts_come_behind_the_quiet_time_and_the_day_has_its_peak_in_the_middle() -> None:
    bursts = generate("bursts:rate=1,burst_rate=21,on_s=10,off_s=40", 40_000, CONSTANT, seed=3).at_s % 50
    day = generate("diurnal:rate=5,peak=2,period_s=100", 40_000, CONSTANT, seed=3).at_s % 100

    assert (bursts >= 40).mean() == pytest.approx(210 / 250, abs=0.01)
    assert np.histogram(day, 10, (0, 100))[0].argmax() in {4, 5}


@pytest.mark.parametrize("kind", ["constant", "exponential", "zipf"])
def test_lengths_have_the_mean_that_is_asked_for(kind: str) -> None:
    made = generate("poisson:rate=1", 40_000, Lengths(kind=kind, input_tokens=200, output_tokens=80), seed=1)

    assert made.input_tokens.mean() == pytest.approx(200, rel=0.03)
    assert made.output_tokens.mean() == pytest.approx(80, rel=0.03)
    assert made.output_tokens.min() >= 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("weibull:rate=1", "must be one of poisson, gamma, bursts, diurnal, got 'weibull'"),
        ("poisson:rate=-1", "rate must be a number above 0, got '-1'"),
        ("poisson:rate=nan", "rate must be a number above 0, got 'nan'"),
        ("poisson:pace=1", "'pace' must be one of rate"),
        ("diurnal:peak=3", "peak must be 1 to 2 times the mean rate, got 3"),
    ],
)
def test_a_wrong_generator_is_refused(spec: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        generate(spec, 10, CONSTANT, seed=0)

    assert says in str(refused.value)
