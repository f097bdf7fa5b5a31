"""Which requests are sent, and when. The same options and seed make the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from bitladder.cli.ops.loadtest.mixes import NONE, Burst, WeightedValues
from bitladder.cli.ops.loadtest.prompts import entropy_of_text, make_prompt, shared_prompt
from bitladder.queue_name import Lane
from bitladder.workload.traces import TraceRequest

# Of a recording's lanes, with `lanes.urgent_from` and `lanes.batch_to` as they ship.
_PRIORITIES = {Lane.URGENT: 9, Lane.BATCH: 1}


class Arrivals(StrEnum):
    """How requests come at a rate."""

    POISSON = "poisson"
    CONSTANT = "constant"


class Mode(StrEnum):
    """What is called, and how the answer comes."""

    CHAT_STREAM = "chat-stream"
    CHAT = "chat"
    COMPLETIONS_STREAM = "completions-stream"
    COMPLETIONS = "completions"
    JOBS = "jobs"  # submitted, and its outcome asked for

    @property
    def is_stream(self) -> bool:
        return self.value.endswith("-stream")


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request."""

    number: int
    due_s: float | None  # since the beginning; None: as soon as one of the clients is free
    kind: str
    prompt: str
    entropy: float
    max_tokens: int
    mode: Mode
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the command line asks for."""

    kinds: WeightedValues
    modes: WeightedValues
    headers: dict[str, WeightedValues] = field(default_factory=dict)  # header -> its values; `none`: without it
    rate: float | None = None  # None: a closed loop
    arrivals: Arrivals = Arrivals.POISSON
    burst: Burst | None = None
    trace: Sequence[TraceRequest] = ()
    input_tokens: int = 100
    max_input_tokens: int = 1500
    output_tokens: int = 32
    duration_s: float = 30
    max_requests: int = 1000
    seed: int = 0


def plan(traffic: Traffic) -> Iterator[LoadRequest]:
    """Yield the requests in the order of their times."""
    dice = random.Random(traffic.seed)  # noqa: S311  (traffic)
    for number, arrival in enumerate(_times(traffic, random.Random(traffic.seed + 1))):  # noqa: S311
        if number >= traffic.max_requests:
            return
        yield _request(traffic, number, arrival, dice)


def _request(traffic: Traffic, number: int, arrival: TraceRequest, dice: random.Random) -> LoadRequest:
    kind, mode = traffic.kinds.choose(dice), Mode(traffic.modes.choose(dice))
    tokens = min(arrival.input_tokens, traffic.max_input_tokens)
    if arrival.blocks:
        prompt = shared_prompt(kind, tokens, arrival.blocks, number)
    else:
        prompt = make_prompt(kind, tokens, number, dice)
    chosen = {name: mix.choose(dice) for name, mix in traffic.headers.items()} | _asked_for(arrival)
    return LoadRequest(
        number=number,
        due_s=None if traffic.rate is None and not traffic.trace else arrival.at_s,
        kind=kind,
        prompt=prompt,
        entropy=entropy_of_text(prompt),
        max_tokens=max(1, arrival.output_tokens),
        mode=mode,
        headers={name: value for name, value in chosen.items() if value != NONE},
    )


def _asked_for(request: TraceRequest) -> dict[str, str]:
    """Return as headers what a recording says that a request asked for."""
    deadline_ms = None if request.deadline_s is None else max(1, round(request.deadline_s * 1000))
    values = {
        "X-Priority": _PRIORITIES.get(request.lane),
        "X-Min-Tier": request.floor,
        "X-Max-Tier": request.ceiling,
        "X-Allow-Below-Floor": "true" if request.below_floor else None,
        "X-Deadline-Ms": deadline_ms,
    }
    return {name: str(value) for name, value in values.items() if value}


def _times(traffic: Traffic, dice: random.Random) -> Iterator[TraceRequest]:
    """Yield when requests are due, within the duration; those of a closed loop all at once."""
    if traffic.trace:
        yield from (arrival for arrival in traffic.trace if arrival.at_s < traffic.duration_s)
        return
    busy_s = 0.0
    for number in count():
        due_s = 0.0
        if traffic.rate is not None:
            is_constant = traffic.arrivals is Arrivals.CONSTANT
            busy_s = number / traffic.rate if is_constant else busy_s + dice.expovariate(traffic.rate)
            due_s = traffic.burst.moment(busy_s) if traffic.burst else busy_s
            if due_s >= traffic.duration_s:
                return
        # Lengths as services have them: most are short, some are long.
        length = int(traffic.input_tokens * dice.lognormvariate(-0.125, 0.5))
        yield TraceRequest(due_s, max(4, length), traffic.output_tokens)
