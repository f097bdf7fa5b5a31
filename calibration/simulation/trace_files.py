"""Traces as requests of a simulation."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from bitladder.errors import ConfigError
from bitladder.workload.traces import read_trace
from calibration.errors import InputError
from calibration.simulation.arrivals import MAX_REQUESTS, Arrivals

# Fields of a trace's request -> columns.
_COLUMNS = {
    "lane": "lanes",
    "floor": "floors",
    "score": "scores",
    "tenant": "tenants",
    "ceiling": "ceilings",
    "only": "only",
    "below_floor": "below_floor",
}


def read_arrivals(file: Path, speed: float = 1.0, limit: int = MAX_REQUESTS, *, sort: bool = False) -> Arrivals:
    """Return a trace's first requests, `speed` times as fast as they came.

    Raises:
        InputError: it has none of the forms, or a line is wrong, which is named.

    """
    times, inputs, outputs, deadlines = (array("d") for _ in range(4))
    plain: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    try:
        for request in read_trace(file, speed=speed, limit=limit, sort=sort):
            times.append(request.at_s)
            inputs.append(request.input_tokens)
            outputs.append(request.output_tokens)
            deadlines.append(request.deadline_s or 0.0)
            for name, column in plain.items():
                column.append(getattr(request, name))
    except ConfigError as error:
        raise InputError(str(error)) from error
    # A column that says nothing is left out: what nobody asks for costs no time.
    columns = {_COLUMNS[name]: column for name, column in plain.items() if any(column)}
    return Arrivals(
        at_s=np.frombuffer(times),
        input_tokens=np.frombuffer(inputs),
        output_tokens=np.frombuffer(outputs),
        deadlines_s=deadlines if any(deadlines) else (),
        **columns,
    )
