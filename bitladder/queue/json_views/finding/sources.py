"""Where jobs lie: the lists of those that wait, and RQ's registries of those that run or have ended.

A registry of ended jobs is sorted by when they are forgotten, and not all are kept equally long. So it is walked once
for each of these times, and each job is taken by the walk of its own. One with a time that no other has, as a producer
of RQ's may choose it, is taken by that of the next longer one, and placed as if it were kept so long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, combinations

import msgspec

from bitladder.contract import State
from bitladder.queue.calls.find import Kind, ListSize, QueueSizes, Sizes, read_sizes, sizes_call
from bitladder.queue.claim_plan import all_lists
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.finding.found_job import Lying
from bitladder.queue.json_views.finding.job_filter import JobFilter
from bitladder.queue_name import DEFAULT_TENANT, Lane, QueueName, list_of
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.sections import Settings

# Lists that one listing goes through: those of the most jobs. A cursor names each.
MAX_LISTS = 500
# Names of RQ's list of queues that are read: tenants' lists stand in it.
_MAX_NAMES = 4000
# Queues and lists whose sizes one call reads.
_BUNDLE = 256
# Tiers of a model of which every list of single tiers is looked at; of more there are too many.
_MAX_TIERS = 5
# How far ahead the registry of running jobs is scored (claiming/pop.lua), in seconds that are rounded.
_RUNNING_FOR_MS = 365 * 86_400_000 + 500
_WAITING = frozenset((b"queued", b"created", b"deferred", b"scheduled", b"rate_limited", b"ready_to_enqueue"))
_ENDS = {"finished": (State.FINISHED,), "failed": (State.FAILED, State.EXPIRED), "canceled": (State.CANCELLED,)}
# Later than every time, above every score, and behind every number of a list.
TOP = 2**53


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One list, or one walk through a registry."""

    name: str  # no other source's
    kind: Kind
    key: str  # of the registry, or the list's name
    lying: Lying
    prefix: str = ""  # how ids begin of which the records are read
    ttls_ms: Sequence[int] = (0,)  # of a registry: how long its jobs are kept, the shortest first
    ttl_ms: int = 0  # and those that this walk takes

    @property
    def is_longest(self) -> bool:
        """Whether no walk through the same registry takes jobs that are kept longer."""
        return self.ttl_ms >= self.ttls_ms[-1]

    def time_of(self, score: int) -> int:
        """Return from when on a registry's jobs of a score came into it (ms): within a second."""
        return score * 1000 - self.ttl_ms

    def score_of(self, at_ms: int) -> int:
        """Return the highest score of jobs that came into a registry then or earlier."""
        return min(TOP, (at_ms + self.ttl_ms) // 1000)

    def takes(self, score: int, ended_ms: int | None) -> bool:
        """Return whether this walk takes a job: others through the same registry pass over it."""
        if self.kind == "running":
            return True
        kept_ms = TOP if ended_ms is None else score * 1000 - ended_ms
        return self.ttl_ms == next((ttl for ttl in self.ttls_ms if kept_ms <= ttl), self.ttls_ms[-1])


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing goes through."""

    sizes: Sizes
    sources: Sequence[Source]  # that are not empty
    left_out: int  # lists that there are too many of


async def plan_listing(queue: JobQueue, selection: JobFilter) -> Plan:
    """Look which sources hold jobs that a filter may take."""
    first = await queue.run(sizes_call([], [], _MAX_NAMES if selection.has_state(State.QUEUED) else 0))
    names = read_sizes(first, [], []).names
    queues = {str(name): name for name in _queues(queue.settings, names) if selection.has_queue(name)}
    lists = _lists(queues, names, selection) if selection.has_state(State.QUEUED) else {}
    sizes = await _sizes(queue, list(lists), list(queues))
    full = [name for name, size in sizes.lists.items() if size.length]
    taken = set(sorted(full, key=lambda name: (-sizes.lists[name].length, name))[:MAX_LISTS])
    sources = [_list_source(name, lists[name], selection) for name in full if name in taken]
    for name, parsed in queues.items():
        size = sizes.queues[name]
        if size.running and selection.has_state(State.RUNNING):
            lying = Lying(queue=parsed, name=name, statuses=frozenset((b"started",)))
            key = f"rq:wip:{name}"
            sources.append(
                Source(
                    name=key, kind="running", key=key, lying=lying, prefix=_prefix(selection), ttl_ms=_RUNNING_FOR_MS
                )
            )
        for status, states in _ENDS.items():
            if getattr(size, status) and selection.has_state(*states):
                sources += _walks(queue.settings, parsed, status, selection)
    return Plan(sizes=sizes, sources=sources, left_out=len(full) - len(taken))


async def _sizes(queue: JobQueue, lists: Sequence[str], queues: Sequence[str]) -> Sizes:
    now_ms = 0
    by_list: dict[str, ListSize] = {}
    by_queue: dict[str, QueueSizes] = {}
    bundles: list[tuple[Sequence[str], Sequence[str]]] = [
        *((lists[start : start + _BUNDLE], ()) for start in range(0, len(lists), _BUNDLE)),
        *(((), queues[start : start + _BUNDLE]) for start in range(0, len(queues), _BUNDLE)),
    ]
    for bundle in bundles or [((), ())]:
        read = read_sizes(await queue.run(sizes_call(*bundle)), *bundle)
        now_ms = now_ms or read.now_ms
        by_list |= read.lists
        by_queue |= read.queues
    return Sizes(now_ms=now_ms, names=(), lists=by_list, queues=by_queue)


def _queues(settings: Settings, names: Iterable[str]) -> Iterable[QueueName]:
    """Yield the queues of every model, and those of former ones that stand in RQ's list."""
    served = chain.from_iterable(
        chain(map(QueueName.parse, all_lists(model, section)), _single_tiers(model, section))
        for model, section in settings.models.items()
    )
    return dict.fromkeys(chain(served, filter(None, (_queue_of(name)[0] for name in names))))


def _single_tiers(model: str, settings: ModelSettings) -> Iterable[QueueName]:
    ladder = settings.ladder
    for count in range(1, len(ladder) + 1 if len(ladder) <= _MAX_TIERS else 1):
        for serving in combinations(ladder, count):
            for tier, lane in ((tier, lane) for tier in serving for lane in Lane):
                name = QueueName.of(model, tier, lane, serving, ladder)
                if name.only:
                    yield name


def _queue_of(name: str) -> tuple[QueueName | None, str]:
    """Return the queue of a list, and its tenant; None where it is none of ours."""
    queue, mark, tenant = name.rpartition(":tenant-")
    try:
        return QueueName.parse(queue if mark else name), tenant if mark else DEFAULT_TENANT
    except ValueError:
        return None, ""


def tenant_of(name: str) -> str:
    """Return whose jobs wait in a list."""
    return _queue_of(name)[1]


def _lists(queues: dict[str, QueueName], names: Iterable[str], selection: JobFilter) -> dict[str, QueueName]:
    """Return the lists in which jobs of these queues wait."""
    chosen = {name: parsed for name, parsed in queues.items() if selection.tier in (None, parsed.tier)}
    if selection.tenant is not None:
        return chosen | {list_of(name, selection.tenant): parsed for name, parsed in chosen.items()}
    lists = dict(chosen)
    for name in names:
        parsed, _ = _queue_of(name)
        if parsed and str(parsed) in chosen:
            lists[name] = parsed
    return lists


def _prefix(selection: JobFilter) -> str:
    return f"{selection.batch}-" if selection.batch else ""


def _list_source(name: str, queue: QueueName, selection: JobFilter) -> Source:
    lying = Lying(queue=queue, name=name, is_list=True, statuses=_WAITING)
    return Source(name=f"rq:queue:{name}", kind="list", key=name, lying=lying, prefix=_prefix(selection))


def _walks(settings: Settings, queue: QueueName, status: str, selection: JobFilter) -> Iterable[Source]:
    """Yield the walks through one registry of ended jobs: one for each time that its jobs are kept."""
    limits = settings.queue
    usual = limits.result_ttl_s * 1000
    ttls = {usual, max(usual, limits.response_ttl_s * 1000)}
    if status == "failed":
        ttls.add(max(usual, limits.dead_letter_ttl_s * 1000))
    key = f"rq:{status}:{queue}"
    lying = Lying(queue=queue, name=str(queue), statuses=frozenset((status.encode(),)))
    for ttl_ms in sorted(ttls):
        yield Source(
            name=f"{key} {ttl_ms}",
            kind="ended",
            key=key,
            lying=lying,
            ttls_ms=sorted(ttls),
            ttl_ms=ttl_ms,
            prefix=_prefix(selection),
        )
