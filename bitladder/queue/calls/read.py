"""Reading jobs and queues: look.lua, heads.lua, records.lua, depths.lua and overview.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitladder.contract import Outcome
from bitladder.ids import id_bytes
from bitladder.queue.claim_plan import all_lists, is_served, lists_key
from bitladder.queue.job_record import LOST, Ended, Running, odd_status, read_end
from bitladder.queue.pauses import Pause, read_pauses, read_suspension
from bitladder.queue.run_script import Call
from bitladder.queue.signing import Signer
from bitladder.queue.untrusted import read_number
from bitladder.settings.sections import Settings

# Queues of RQ's list that one overview reads.
MAX_QUEUES = 1000
# Queues that no tier serves are shown with so many characters of their names.
MAX_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """One queue as /v1/queues shows it."""

    queue: str
    depth: int
    in_flight: int
    oldest_age_s: float | None  # None: nothing waits, or its time is unknown
    problem: str = ""  # what is wrong with the key in Redis, where it is no list


@dataclass(frozen=True, slots=True, kw_only=True)
class Depths:
    """All queues of one model, and the live workers of each tier."""

    now_ms: int  # server clock
    live: Mapping[str, int]
    queues: Sequence[Depth]
    shifted: frozenset[str] = (
        frozenset()
    )  # tiers whose traffic goes to higher ones, because too many of their jobs break
    paused: frozenset[str] = frozenset()  # tiers that claim nothing, because an operator paused them

    @property
    def serving(self) -> Mapping[str, int]:
        """The live workers of each tier that claims."""
        return {tier: 0 if tier in self.paused else live for tier, live in self.live.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unknown:
    """A queue of RQ's that no tier serves."""

    queue: str
    depth: int
    workers: int  # of RQ's own, or of tiers that there are no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The state that all models share."""

    is_suspended: bool  # all claims pause
    unknown: Sequence[_Unknown]  # the deepest first
    pauses: Sequence[Pause] = ()  # all that are in force, that of everything first


def look_call(job_ids: Sequence[str], *, channel: str = "", max_bytes: int = 0) -> Call:
    """Build the call of look.lua; `channel` hears of what comes, `max_bytes` (0: no limit) of outcomes are returned."""
    return Call("look", [], [channel, max_bytes, *map(id_bytes, job_ids)])


def read_looks(answer: list[bytes], job_ids: Sequence[str], signer: Signer) -> list[Outcome | Ended | Running | None]:
    """Read the answer of look.lua: for each job how it ended, or that it runs; None where it waits."""
    rows = zip(job_ids, answer[::2], answer[1::2], strict=True)
    return [_look(job_id, word, detail, signer) for job_id, word, detail in rows]


def read_late(answer: list[bytes], job_ids: Sequence[str]) -> list[str]:
    """Read of the answer of look.lua which jobs wait although their deadline has passed."""
    return [job_id for job_id, word in zip(job_ids, answer[::2], strict=True) if word == b"late"]


def _look(job_id: str, word: bytes, detail: bytes, signer: Signer) -> Outcome | Ended | Running | None:
    if word == b"over":
        return Ended()
    if word == b"gone":
        return LOST
    if word == b"runs":
        return Running(fence=read_number(detail) or 0)
    if word == b"odd":
        return odd_status(detail.decode(errors="replace"))
    return None if word in (b"waits", b"late") else read_end(job_id, word.decode(), detail, signer)


def heads_call(job_ids: Sequence[str], max_bytes: int) -> Call:
    """Build the call of heads.lua."""
    return Call("heads", [], [max_bytes, *job_ids])


def read_heads(answer: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """Read the answer of heads.lua: status, queue and outcome of the first jobs."""
    return list(zip(answer[::3], answer[1::3], answer[2::3], strict=True))


def records_call(job_ids: Sequence[str], fields: Sequence[str], max_bytes: int) -> Call:
    """Build the call of records.lua. It answers with the values of the first records, or an error in their place."""
    return Call("records", [], [max_bytes, len(fields), *fields, *job_ids])


def depths_call(settings: Settings, model: str) -> Call:
    """Build the call of depths.lua for all queues of a model."""
    model_settings = settings.model(model)
    keys = [f"bl:live:{model}:{tier}" for tier in model_settings.ladder]
    return Call("depths", keys, [lists_key(model), *all_lists(model, model_settings)])


def read_depths(settings: Settings, model: str, answer: list[Any]) -> Depths:
    """Read the answer of depths.lua."""
    now_ms, live, rows, shifted, others, paused = answer
    names, ladder = all_lists(model, settings.model(model)), settings.model(model).ladder
    for raw, *row in others:
        if is_served(settings, name := raw.decode(errors="replace")):
            names, rows = [*names, name], [*rows, row]
    return Depths(
        now_ms=int(now_ms),
        live=dict(zip(ladder, live, strict=True)),
        shifted=frozenset(tier for tier, is_shifted in zip(ladder, shifted, strict=True) if is_shifted),
        paused=frozenset(tier for tier, is_paused in zip(ladder, paused, strict=True) if is_paused),
        queues=[_depth(name, row, int(now_ms)) for name, row in zip(names, rows, strict=True)],
    )


def _depth(name: str, row: list[Any], now_ms: int) -> Depth:
    depth, in_flight, at, problem = row
    age_s = max(0.0, (now_ms - int(float(at))) / 1000) if float(at or 0) else None
    return Depth(
        queue=name,
        depth=int(depth),
        in_flight=int(in_flight),
        oldest_age_s=age_s if depth else None,
        problem=problem.decode(errors="replace"),
    )


def overview_call(settings: Settings) -> Call:
    """Build the call of overview.lua."""
    served = [name for model, section in settings.models.items() for name in all_lists(model, section)]
    return Call("overview", [], [MAX_QUEUES, *served])


def read_overview(answer: list[Any]) -> Overview:
    """Read the answer of overview.lua."""
    is_suspended, rows, value, left_ms, pauses, now_ms = answer
    everything = [read_suspension(value, int(left_ms), int(now_ms))] if is_suspended else []
    unknown = [
        _Unknown(queue=name.decode(errors="replace")[:MAX_NAME], depth=int(depth), workers=int(workers))
        for name, depth, workers in rows
    ]
    return Overview(
        is_suspended=bool(is_suspended),
        pauses=[*everything, *read_pauses(pauses)],
        unknown=sorted(unknown, key=lambda queue: (-queue.depth, queue.queue)),
    )
