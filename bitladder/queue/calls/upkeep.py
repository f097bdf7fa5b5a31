"""Upkeep: release.lua, drop.lua (dead letters), sweep.lua (RQ's jobs), rate.lua, budget.lua (API keys), check.lua."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bitladder.ids import read_id
from bitladder.queue.calls.retention import retention
from bitladder.queue.claim_plan import all_lists
from bitladder.queue.run_script import Argument, Call
from bitladder.queue.server import protocol
from bitladder.settings.sections import Settings

DEAD_LETTERS = "bl:dead_letters"
SWEEP_EVERY_S = 1.0
# Ids per sweep: a third of a millisecond of the server. 200,000 waiting jobs are gone through in a quarter of an hour.
_MAX_SWEPT = 256


class _Swept(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one sweep."""

    met: int  # jobs that were given a deadline
    ended: list[tuple[str, str]]  # job id and error code


def release_call(settings: Settings, job_ids: Sequence[str]) -> Call:
    """Build the call of release.lua."""
    queue = settings.queue
    return Call("release", [DEAD_LETTERS], [queue.max_wait_s * 1000, queue.result_ttl_s * 1000, *job_ids])


def drop_call(settings: Settings, job_ids: Sequence[str]) -> Call:
    """Build the call of drop.lua."""
    return Call("drop", [DEAD_LETTERS], [settings.queue.result_ttl_s * 1000, *job_ids])


def read_moved(answer: list[int], job_ids: Sequence[str]) -> list[str]:
    """Read the answer of release.lua or drop.lua: the ids of those jobs that were among the dead letters."""
    return [job_id for job_id, was_moved in zip(job_ids, answer, strict=True) if was_moved]


def sweep_call(settings: Settings, model: str) -> Call:
    """Build the call of sweep.lua."""
    queues = all_lists(model, settings.model(model))
    # A little less than the pause between two calls of a process: else its next one would come too early.
    args: list[Argument] = [int(SWEEP_EVERY_S * 900), _MAX_SWEPT, retention(settings), *queues]
    return Call("sweep", [f"bl:sweep:{model}"], args)


def read_swept(answer: list[Any]) -> _Swept:
    """Read the answer of sweep.lua."""
    met, ended = answer
    return _Swept(met=int(met), ended=[(read_id(job_id), code.decode()) for job_id, code in ended])


def rate_call(key: str, per_minute: int) -> Call:
    """Build the call of rate.lua. It answers in how many milliseconds the key's next request may pass, 0: this one; and
    in how many its bucket is full again.
    """  # noqa: D205
    return Call("rate", [f"bl:rate:{key}"], [per_minute])


def budget_call(key: str, expected: float, budget: float | None) -> Call:
    """Build the call of budget.lua. It answers in how many milliseconds the budget opens again, 0: it is charged."""
    return Call("budget", [], [key, expected, "" if budget is None else budget])


def check_call(commands: Sequence[str]) -> Call:
    """Build the call of check.lua, which asks whether this user may give these commands."""
    return Call("check", [protocol.KEY, "rq:queues"], [protocol.own(), *commands])


def write_settings_call(
    keys: tuple[str, str], documents: tuple[bytes, bytes], max_bytes: int, entry: bytes, max_entries: int
) -> Call:
    """Build the call of write_settings.lua, with the document before and the next. It answers 1 where it is written."""
    return Call("write_settings", keys, [documents[0], max_bytes + 1, documents[1], entry, max_entries])
