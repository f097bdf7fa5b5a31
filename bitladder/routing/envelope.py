"""The envelope: what a request may cost, how long it may take and how good it must be. Read once.

A header wins over what the body says by another system's name (aliases.py), and that over the default of the API key.
The key's limits hold whatever the request says (constraints.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from bitladder.contract import DEFAULT_PRIORITY
from bitladder.errors import RequestError
from bitladder.queue_name import Lane
from bitladder.routing.aliases import TokenBudget, dynamo_priority
from bitladder.settings.access import NO_RULES, KeyRules

DEFAULT_LATENCY_MS = 500
# Header, field, minimum and maximum. No client waits longer than a day.
_NUMBERS = (
    ("x-priority", "priority", 1, 10),
    ("x-max-latency-ms", "max_latency_ms", 1, 86_400_000),
    ("x-deadline-ms", "deadline_ms", 1, 86_400_000),
)
_TIERS = (("x-min-tier", "min_tier"), ("x-max-tier", "max_tier"))
_SLOS = (("x-llm-d-slo-ttft-ms", "ttft_ms"), ("x-llm-d-slo-tpot-ms", "tpot_ms"))

# OpenAI's client libraries send one of these: Python's gives up after so many seconds without a byte, Node's if the
# headers of the answer have not come after so many.
_TIMEOUTS = ("x-stainless-read-timeout", "x-stainless-timeout")
# The part of that time which the request and the answer spend in the network.
_NETWORK_S = 0.5


class LatencyBudget(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How long the client waits. None: without a limit."""

    whole_s: float | None = None  # for the end of the answer
    first_s: float | None = None  # for the first byte of a stream; later pauses are the client's risk


_NO_LIMIT = LatencyBudget()


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The constraints of one request, as its client asked for them."""

    priority: int = DEFAULT_PRIORITY  # 1 (can wait) to 10 (now)
    max_latency_ms: int = DEFAULT_LATENCY_MS  # how long the client would wait for quality; the article's rule reads it
    min_tier: str | None = None
    max_tier: str | None = None
    deadline_ms: int | None = None  # from acceptance; a later answer is useless
    lane: Lane | None = None  # None: follows from the priority
    max_cost: float | None = None  # that is expected of it, in the currency of the tiers' prices
    cascade: bool | None = None  # None: as the settings say
    latency_budget: LatencyBudget = _NO_LIMIT  # admission refuses what cannot be answered within it
    quantizations: tuple[str, ...] | None = None  # the only tiers allowed, by OpenRouter's names; None: all
    below_floor: bool | None = None  # consents to a lower tier where all that are allowed are full; None: does not say
    canary: bool | None = None  # whether a candidate may answer; None: as it is drawn
    service_tier: str = ""  # as the body had it; the answer says which one was used
    key: KeyRules = NO_RULES  # the defaults and limits of the request's API key


class Aliases(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the body says of the envelope."""

    service_tier: str | None = None
    lane: Lane | None = None  # that the service tier means
    quantizations: tuple[str, ...] | None = None
    max_tokens: Callable[[], int | None] = lambda: None  # read only where a header makes it matter


_NO_ALIASES = Aliases()


def read_envelope(
    headers: Mapping[str, str],
    *,
    lane: Lane | None = None,
    stream: bool = False,
    await_timeout_s: float | None = None,
    aliases: Aliases = _NO_ALIASES,
    key: KeyRules = NO_RULES,
) -> Envelope:
    """Read the envelope. Whether its tiers exist is checked later, because that depends on the model.

    `headers` have lower-case names. `await_timeout_s` is how long the intake awaits the answer; None where the client
    does not wait for it.

    Raises:
        RequestError: a header is not a number in its range, or not true or false.

    """
    fields: dict[str, int | str | float] = {}
    for header, field, minimum, maximum in _NUMBERS:
        if (raw := headers.get(header)) is not None:
            fields[field] = _whole(header.title(), raw, minimum, maximum)
    for header, field in _TIERS:
        if (raw := headers.get(header)) is not None:
            fields[field] = raw.strip()
    for header, field, read in _OTHERS:
        if (raw := headers.get(header)) is not None:
            fields.setdefault(field, read(header.title(), raw))
    if lane is None and "priority" not in fields:
        lane = aliases.lane or key.defaults.lane
    silence_s = await_timeout_s and min(await_timeout_s, *(_timeout(headers.get(header, "")) for header in _TIMEOUTS))
    deadline_ms = fields.get("deadline_ms")
    deadline_s = None if deadline_ms is None else int(deadline_ms) / 1000
    return Envelope(
        **fields,  # type: ignore[arg-type]  # the tables above pair fields with their types
        lane=lane,
        latency_budget=_within(_latency_budget(deadline_s, silence_s, stream=stream), headers, aliases),
        quantizations=aliases.quantizations,
        service_tier=aliases.service_tier or "",
        key=key,
    )


def _within(budget: LatencyBudget, headers: Mapping[str, str], aliases: Aliases) -> LatencyBudget:
    """Return the budget within what llm-d's headers ask for: of two limits the shorter holds."""
    slos = {field: _whole(name.title(), headers[name], 1, 86_400_000) for name, field in _SLOS if name in headers}
    if not slos:
        return budget
    tokens = TokenBudget(**slos)
    first = [budget.first_s] if tokens.ttft_ms is None else [budget.first_s, tokens.ttft_ms / 1000]
    return LatencyBudget(
        whole_s=_shortest(budget.whole_s, tokens.whole_s(aliases.max_tokens() if tokens.tpot_ms else None)),
        first_s=_shortest(*first),
    )


def _shortest(*limits_s: float | None) -> float | None:
    return min((limit_s for limit_s in limits_s if limit_s is not None), default=None)


def _latency_budget(deadline_s: float | None, silence_s: float | None, *, stream: bool) -> LatencyBudget:
    """Return the budget of a client that gives up after `silence_s` without a byte; None: it does not wait."""
    if silence_s is None:
        return LatencyBudget(whole_s=deadline_s)
    if stream:
        return LatencyBudget(whole_s=deadline_s, first_s=silence_s)
    return LatencyBudget(whole_s=silence_s if deadline_s is None else min(deadline_s, silence_s))


def _timeout(raw: str) -> float:
    try:
        timeout_s = float(raw)
    except ValueError:
        return math.inf  # a header of the client's library: its form is not for us to refuse
    return max(0.0, timeout_s - _NETWORK_S) if timeout_s > 0 else math.inf


def _amount(header: str, raw: str) -> float:
    try:
        amount = float(raw) if raw.isascii() and "_" not in raw else math.nan
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise RequestError(f"{header} must be a number above 0, got {raw[:40]!r}", param=header)
    return amount


def _flag(header: str, raw: str) -> bool:
    if (text := raw.strip().lower()) not in ("true", "false"):
        raise RequestError(f"{header} must be true or false, got {raw[:40]!r}", param=header)
    return text == "true"


def _whole(header: str, raw: str, minimum: int, maximum: int) -> int:
    text = raw.strip()
    # str.isdigit also accepts digits of other scripts, so ASCII is required; ten digits are enough for every maximum.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and minimum <= int(text) <= maximum):
        raise RequestError(
            f"{header} must be a whole number from {minimum} to {maximum}, got {raw[:40]!r}", param=header
        )
    return int(text)


# Header, field, and what reads it. A field that was read before stays.
_OTHERS: tuple[tuple[str, str, Callable[[str, str], float | bool]], ...] = (
    ("x-max-cost", "max_cost", _amount),
    ("x-cascade", "cascade", _flag),
    ("x-canary", "canary", _flag),
    ("x-allow-below-floor", "below_floor", _flag),
    ("x-dynamo-request-priority", "priority", dynamo_priority),
)
