"""Metrics as rows of a table: a process makes its metrics of them, and docs/metrics.md is written from them.

A label whose values come from outside has a maximum: what comes beyond it is counted as OTHERS, so that no client,
tenant or broken record can fill Prometheus with series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Child = TypeVar("Child", Counter, Histogram)
Metric = TypeVar("Metric", Counter, Gauge, Histogram)
_Kind = Literal["counter", "gauge", "histogram"]
OTHERS = "(others)"
# The most values of a label. None: what the configuration names.
MODEL, TIER, MODEL_TIER = {"model": None}, {"tier": None}, {"model": None, "tier": None}


@dataclass(frozen=True, slots=True)
class Row:
    """One metric, under the name that Prometheus shows."""

    name: str
    kind: _Kind
    unit: str
    answers: str  # the question that it answers
    labels: Mapping[str, int | None] = field(
        default_factory=dict
    )  # beside its process's: how many values each may have
    buckets: Sequence[float] = ()
    first: Sequence[str] = ()  # values of its label that are there from the start: a rate must see 0


class Children(Generic[Child]):
    """The children of one metric by the values of their labels, each looked up once: `labels()` takes a lock."""

    __slots__ = ("_before", "_known", "_labels", "_limits", "_remove", "_seen")

    def __init__(
        self,
        labels: Callable[..., Child],
        limits: Sequence[int | None],
        before: Sequence[str] = (),
        remove: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._labels: Callable[..., Child] = labels
        self._remove = remove
        self._limits, self._before = limits, before
        self._known: dict[tuple[str, ...], Child] = {}
        self._seen: list[set[str]] = [set() for _ in limits]

    def __call__(self, *values: str) -> Child:
        """Return the child of these values."""
        return self._known.get(values) or self._new(values)

    def forget(self, value: str) -> None:
        """End the series whose first label has this value, and leave its place to another."""
        for values in [values for values in self._known if values[0] == value]:
            del self._known[values]
            self._remove(*self._before, *values)
        self._seen[0].discard(value)

    def _new(self, values: tuple[str, ...]) -> Child:
        bounded = tuple(map(self._bounded, values, self._limits, self._seen))
        child = self._known.get(bounded)
        if child is None:
            child = self._known[bounded] = self._labels(*self._before, *bounded)
        return child

    @staticmethod
    def _bounded(value: str, limit: int | None, seen: set[str]) -> str:
        if limit is None or value in seen or value == OTHERS:
            return value
        if len(seen) >= limit:
            return OTHERS
        seen.add(value)
        return value


class Metrics:
    """Makes the metrics of one process of their rows; `common`: labels that all of them have."""

    def __init__(
        self, rows: Sequence[Row], registry: CollectorRegistry, common: Mapping[str, str] | None = None
    ) -> None:
        self._rows: dict[str, Row] = {row.name: row for row in rows}
        self._registry, self._common = registry, common or {}

    def counters(self, name: str) -> Children[Counter]:
        return self._children(name, self._make(Counter, name))

    def histograms(self, name: str) -> Children[Histogram]:
        return self._children(name, self._make(Histogram, name))

    def counter(self, name: str) -> Counter:
        return self._one(self._make(Counter, name))

    def histogram(self, name: str) -> Histogram:
        return self._one(self._make(Histogram, name))

    def gauge(self, name: str) -> Gauge:
        """Return a gauge; one with labels of its own has its children made by `labels`."""
        gauge = self._make(Gauge, name)
        return gauge if self._rows[name].labels else self._one(gauge)

    def _one(self, metric: Metric) -> Metric:
        return metric.labels(*self._common.values()) if self._common else metric

    def _children(self, name: str, metric: Child) -> Children[Child]:
        row: Row = self._rows[name]
        limits, before = tuple(row.labels.values()), tuple(self._common.values())
        children = Children(metric.labels, limits, before, metric.remove)
        for value in row.first:
            children(value)
        return children

    def _make(self, build: Callable[..., Metric], name: str) -> Metric:
        row: Row = self._rows[name]
        more = {"buckets": row.buckets} if row.buckets else {}
        return build(name, row.answers, (*self._common, *row.labels), registry=self._registry, **more)
