"""Metrics of a scheduled command, as a file: node_exporter's textfile collector reads it (docs/metrics.md).

A file and no port: a command that runs for a minute and ends has nothing to ask, and its last figures must stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from bitladder.process.metric_table import OTHERS, Row
from calibration.artifacts.folder import write_output, writing
from calibration.errors import InputError

# Of one metric: a number, or a number for each combination of its labels' values; None: not known, and not written.
Value = float | None | Mapping[tuple[str, ...], float | None]
_END = ".prom"


class _Values(Collector):
    """Shows values as they are: a counter of prometheus_client's own would begin at 0 with every run."""

    def __init__(self, rows: Sequence[Row], values: Mapping[str, Value]) -> None:
        self._rows, self._values = rows, values

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for row in self._rows:
            build = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            family = build(row.name, row.answers, labels=tuple(row.labels))
            for labels, value in _children(row, self._values.get(row.name)).items():
                family.add_metric(labels, value)
            yield family


def check_metrics_path(path: Path) -> None:
    """Raise InputError where node_exporter would not read the file, or it cannot be written; make its folder."""
    if path.suffix != _END:
        raise InputError(f"--metrics must end in {_END}: node_exporter reads no other, got {str(path)!r}")
    if path.is_dir():
        raise InputError(f"--metrics must be a file, got {str(path)!r}")
    with writing(path.parent, "--metrics"):
        path.parent.mkdir(parents=True, exist_ok=True)


def write_metrics(path: Path, rows: Sequence[Row], values: Mapping[str, Value]) -> None:
    """Write the values of these rows in Prometheus' text format."""
    write_output(path, generate_latest(_Values(rows, values)), "--metrics", mode=0o644)


def _children(row: Row, value: Value) -> dict[tuple[str, ...], float]:
    """Return the values by labels; of a label beyond its maximum, the sum under OTHERS."""
    by_labels = value if isinstance(value, Mapping) else {(): value}
    seen: list[set[str]] = [set() for _ in row.labels]
    children: dict[tuple[str, ...], float] = {}
    for labels, number in by_labels.items():
        if number is None:
            continue
        bounded = []
        for name, limit, known in zip(labels, row.labels.values(), seen, strict=True):
            bounded.append(name if limit is None or name in known or len(known) < limit else OTHERS)
            known.add(bounded[-1])
        children[tuple(bounded)] = children.get(tuple(bounded), 0.0) + number
    return children
