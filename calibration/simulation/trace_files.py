"""Traces as requests of a simulation."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from bitladder.decision import Score
from bitladder.errors import ConfigError
from bitladder.workload.traces import read_trace
from calibration.errors import InputError
from calibration.simulation.arrivals import MAX_REQUESTS, Arrivals


def read_arrivals(file: Path, speed: float = 1.0, limit: int = MAX_REQUESTS, *, sort: bool = False) -> Arrivals:
    """Return a trace's first requests, `speed` times as fast as they came.

    Raises:
        InputError: it has none of the forms, or a line is wrong, which is named.

    """
    times, inputs, outputs = (array("d") for _ in range(3))
    lanes: list[str] = []
    floors: list[str] = []
    scores: list[Score | None] = []
    try:
        for request in read_trace(file, speed=speed, limit=limit, sort=sort):
            times.append(request.at_s)
            inputs.append(request.input_tokens)
            outputs.append(request.output_tokens)
            lanes.append(request.lane)
            floors.append(request.floor)
            scores.append(request.score)
    except ConfigError as error:
        raise InputError(str(error)) from error
    return Arrivals(
        at_s=np.frombuffer(times),
        input_tokens=np.frombuffer(inputs),
        output_tokens=np.frombuffer(outputs),
        lanes=lanes,
        floors=floors,
        scores=scores,
    )
