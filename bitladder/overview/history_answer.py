"""GET /v1/overview/history: series as a chart takes them, a value for each moment of `at`, null where none is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bitladder.overview.history import Point, TierPoint, slot_of

_Amounts = list[float | None]
_Counts = list[int | None]
_FIELDS = TierPoint.__struct_fields__
_GAP = (None,) * len(_FIELDS)


class TierSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One tier; its fields mean what those of a sample do."""

    tier: str
    depth: Annotated[_Amounts, Meta(description="The mean.")]
    depth_max: Annotated[_Counts, Meta(description="The maximum.")]
    oldest_age_s: Annotated[_Amounts, Meta(description="The maximum.")]
    expected_wait_s: Annotated[_Amounts, Meta(description="The maximum.")]
    in_flight: Annotated[_Amounts, Meta(description="The mean.")]
    workers: Annotated[_Counts, Meta(description="The minimum.")]
    slots: Annotated[_Amounts, Meta(description="The mean.")]
    cost_per_hour: Annotated[_Amounts, Meta(description="The mean.")]
    jobs: Annotated[_Counts, Meta(description="The sum: jobs that ended at its workers.")]
    tokens: Annotated[_Counts, Meta(description="The sum: written by those.")]
    overflow_in: Annotated[dict[str, _Counts], Meta(description="The sum, by the tier that the jobs came from.")]


class ModelSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    model: str
    tiers: list[TierSeries]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The history of a range of time."""

    object: Literal["overview.history"] = "overview.history"
    range_s: int
    resolution_s: Annotated[int, Meta(description="A point stands for so many seconds from its moment on.")]
    at: Annotated[list[int], Meta(description="Seconds since 1970, evenly spaced, the latest last.")]
    models: list[ModelSeries]
    dead_letters: Annotated[_Counts, Meta(description="The maximum.")]
    memory_share: Annotated[_Amounts, Meta(description="The maximum, of Redis' maxmemory.")]


def describe_history(
    points: Sequence[Point], now_s: float, range_s: int, step_s: int, ladders: Mapping[str, Sequence[str]]
) -> History:
    """Return the history until now. Tiers that the settings do not know any more stand behind the others."""
    moments = list(range(slot_of(now_s - range_s, step_s) + step_s, slot_of(now_s, step_s) + 1, step_s))
    by_moment = {point.at: point for point in points}
    rows = [by_moment.get(at) for at in moments]
    tiers = {model: dict.fromkeys(ladder) for model, ladder in ladders.items()}
    for point in points:
        for model, seen in point.tiers.items():
            tiers.setdefault(model, {}).update(dict.fromkeys(seen))
    return History(
        range_s=range_s,
        resolution_s=step_s,
        at=moments,
        models=[
            ModelSeries(model=model, tiers=[_series(tier, _column(rows, model, tier)) for tier in names])
            for model, names in tiers.items()
        ],
        dead_letters=[row.dead_letters if row else None for row in rows],
        memory_share=[row.memory_share if row else None for row in rows],
    )


def _column(rows: Sequence[Point | None], model: str, tier: str) -> list[TierPoint | None]:
    return [row.tiers.get(model, {}).get(tier) if row else None for row in rows]


def _series(tier: str, column: Sequence[TierPoint | None]) -> TierSeries:
    # By tuples, because there are thousands of cells.
    by_field = zip(*(msgspec.structs.astuple(cell) if cell else _GAP for cell in column), strict=True)
    fields: dict[str, Any] = {name: list(values) for name, values in zip(_FIELDS, by_field, strict=True)}
    came = fields.pop("overflow_in")
    origins = dict.fromkeys(origin for cell in came if cell for origin in cell)
    # Where jobs are not known, nor is where they came from.
    known = [cell if jobs is not None else None for cell, jobs in zip(came, fields["jobs"], strict=True)]
    overflow = {origin: [cell.get(origin, 0) if cell is not None else None for cell in known] for origin in origins}
    return TierSeries(tier=tier, **fields, overflow_in=overflow)
