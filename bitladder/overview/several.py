"""One sample of those of several Redis: what one of them does not say is a note."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from bitladder.errors import BitladderError
from bitladder.overview.overview_reader import Sample
from bitladder.overview.shape import MAX_KEYS, Note, Overview, Severity
from bitladder.queue.json_views.merging import merged

_ORDER = list(Severity)
Take = Callable[[], Awaitable[Sample]]


async def sample_of_all(takes: Mapping[str, Take]) -> Sample:
    """Return one sample; `takes` by the names of the Redis.

    Raises:
        QueueUnreachableError: none of them answers.

    """
    if len(takes) == 1:
        return await next(iter(takes.values()))()
    samples: list[Sample] = []
    lost: dict[str, BitladderError] = {}
    taken = await asyncio.gather(*(take() for take in takes.values()), return_exceptions=True)
    for name, answer in zip(takes, taken, strict=True):
        if isinstance(answer, BitladderError):
            lost[name] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            samples.append(answer)
    if not samples:
        raise next(iter(lost.values()))
    notes = [_missing(name, error) for name, error in lost.items()]
    fleet = {place: seen for sample in samples for place, seen in sample.fleet.items()}
    return Sample(overview=_one([sample.overview for sample in samples], notes), fleet=fleet)


def _missing(name: str, error: BitladderError) -> Note:
    text = f"the Redis of {name} does not answer, and nothing of it is shown here: {error}"
    return Note(severity=Severity.CRITICAL, text=text, runbook="redis")


def _one(overviews: Sequence[Overview], notes: Sequence[Note]) -> Overview:
    whole: dict[str, Any] = merged([msgspec.to_builtins(overview) for overview in overviews])
    costs = whole["costs_today"]
    costs["budgets_used_up"] = list(dict.fromkeys(costs["budgets_used_up"]))[:MAX_KEYS]
    fullest = max(overviews, key=lambda overview: overview.redis.memory_share or 0)
    overview = msgspec.convert(whole, Overview)
    return msgspec.structs.replace(
        overview,
        suspended=all(overview.suspended for overview in overviews),
        redis=fullest.redis,
        notes=sorted([*notes, *overview.notes], key=lambda note: _ORDER.index(note.severity)),
    )
