"""What operators have paused: scopes, and what stands in Redis for each. Pure; claiming/pauses.lua has the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from bitladder.errors import NotFoundError, RequestError
from bitladder.queue.untrusted import short
from bitladder.queue_name import Lane, QueueName
from bitladder.settings.sections import Settings

# The scope of everything: what `rq suspend` does.
EVERYTHING = "all"
# Scopes that may be paused at once: each claim reads them all.
MAX_PAUSES = 100
MAX_REASON_CHARS = 300
_MAX_TENANT_CHARS = 128
_MAX_SCOPE_CHARS = 500
_WHOLE = re.compile(r"(model|tenant):(.+)", re.DOTALL)
_PART = re.compile(r"(tier|lane):(.*?):?([^:]*)", re.DOTALL)
_SCOPE = re.compile(r"(model|tier|lane|tenant):.+", re.DOTALL)


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """One pause that is in force."""

    scope: str
    until_ms: int  # 0: until it is resumed
    since_ms: int  # 0: not known
    operator: str  # '': not known
    reason: str


class _Stored(msgspec.Struct, frozen=True, kw_only=True, rename={"operator": "by"}):
    """What stands in Redis for a scope."""

    until: int = 0
    since: int = 0
    operator: str = ""
    reason: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be paused or resumed."""

    everything: bool = False
    model: str | None = None
    tier: str | None = None
    lane: str | None = None
    tenant: str | None = None
    scope: str | None = None  # as an answer names it


def scope_of(settings: Settings, target: Target) -> str:
    """Return the scope that a target means.

    Raises:
        RequestError: it names nothing, more than one thing, or a lane that there is not.
        NotFoundError: there is no such model or tier.

    """
    named = [name for name in ("tier", "lane", "tenant", "scope") if getattr(target, name) is not None]
    named += ["everything"] if target.everything else []
    if not named and target.model is not None:
        return f"model:{only_model(settings, target.model)}"
    if len(named) != 1:
        some = f", got {' and '.join(named)}" if named else ""
        raise RequestError(f"name one of tier, lane, tenant, model, scope or everything{some}", param="scope")
    if target.everything:
        return EVERYTHING
    if target.scope is not None:
        return _checked_scope(target.scope)
    if target.tenant is not None:
        return f"tenant:{_checked_tenant(target.tenant)}"
    model = only_model(settings, target.model)
    if target.lane is not None:
        return f"lane:{model}:{_checked_lane(target.lane)}"
    return f"tier:{model}:{known_tier(settings, model, target.tier or '')}"


def _checked_tenant(tenant: str) -> str:
    if not 0 < len(tenant) <= _MAX_TENANT_CHARS:
        raise RequestError(f"tenant must have 1 to {_MAX_TENANT_CHARS} characters", param="tenant")
    return tenant


def _checked_lane(lane: str) -> str:
    if lane not in list(Lane):
        raise RequestError(f"lane must be one of {', '.join(Lane)}, got {short(lane)!r}", param="lane")
    return lane


def only_model(settings: Settings, name: str | None) -> str:
    """Return the model that is meant: the only one, where none is named."""
    known = ", ".join(settings.model_names)
    if name is None and len(settings.model_names) > 1:
        raise RequestError(f"name the model: one of {known}", param="model")
    if name is not None and name not in settings.models:
        raise NotFoundError(f"there is no model {short(name)!r}; there is {known}", param="model")
    return name or next(iter(settings.models))


def known_tier(settings: Settings, model: str, tier: str) -> str:
    """Return the tier, where the model has it."""
    ladder = settings.model(model).ladder
    if tier not in ladder:
        raise NotFoundError(f"model {model} has no tier {short(tier)!r}; it has {', '.join(ladder)}", param="tier")
    return tier


def _checked_scope(scope: str) -> str:
    if scope == EVERYTHING or (_SCOPE.fullmatch(scope) and len(scope) <= _MAX_SCOPE_CHARS):
        return scope
    raise RequestError(
        "scope must be all, model:<model>, tier:<model>:<tier>, lane:<model>:<lane> or tenant:<tenant>, "
        f"got {short(scope)!r}",
        param="scope",
    )


def known_scope(settings: Settings, scope: str) -> str:
    """Return a scope as an answer names it, where there is such a thing: what is not there cannot be paused.

    Raises:
        RequestError: there is no such lane, or its tenant is too long.
        NotFoundError: there is no such model or tier.

    """
    if whole := _WHOLE.fullmatch(scope):
        _checked_tenant(whole[2]) if whole[1] == "tenant" else only_model(settings, whole[2])
    elif part := _PART.fullmatch(scope):
        model = only_model(settings, part[2])
        known_tier(settings, model, part[3]) if part[1] == "tier" else _checked_lane(part[3])
    return scope


def members(operator: str, reason: str) -> str:
    """Return who and why as scripts/steering/pause.lua takes them: the members of a JSON object."""
    return msgspec.json.encode({"by": operator, "reason": reason}).decode()[1:-1]


def read_pauses(rows: Iterable[Sequence[bytes]]) -> list[Pause]:
    """Read scopes and their values, which another program may have written, the longest paused first."""
    pauses = [_read(scope.decode(errors="replace"), value) for scope, value in rows]
    return sorted(pauses, key=lambda pause: (pause.since_ms, pause.scope))


def read_suspension(value: bytes, left_ms: int, now_ms: int) -> Pause:
    """Read what stands in rq:suspended: our own value, or RQ's."""
    pause = _read(EVERYTHING, value)
    until_ms = now_ms + left_ms if left_ms > 0 else 0
    return msgspec.structs.replace(pause, until_ms=until_ms, operator=pause.operator or "rq suspend")


def _read(scope: str, value: bytes) -> Pause:
    try:
        stored = msgspec.json.decode(value, type=_Stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        stored = _Stored()
    return Pause(
        scope=short(scope, _MAX_SCOPE_CHARS),
        until_ms=stored.until,
        since_ms=stored.since,
        operator=short(stored.operator),
        reason=short(stored.reason, MAX_REASON_CHARS),
    )


def pause_of_tier(pauses: Iterable[Pause], model: str, tier: str) -> Pause | None:
    """Return why a tier claims nothing; None: it does."""
    return _first(pauses, {EVERYTHING, f"model:{model}", f"tier:{model}:{tier}"})


def pause_of_queue(pauses: Iterable[Pause], queue: str) -> Pause | None:
    """Return why nothing is taken out of a queue by its own tier; None: something is."""
    name = QueueName.parse(queue)
    scopes = {EVERYTHING, f"model:{name.model}", f"tier:{name.model}:{name.tier}", f"lane:{name.model}:{name.lane}"}
    return _first(pauses, scopes)


def _first(pauses: Iterable[Pause], scopes: set[str]) -> Pause | None:
    return next((pause for pause in pauses if pause.scope in scopes), None)
