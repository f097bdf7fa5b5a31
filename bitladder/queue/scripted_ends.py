"""The outcomes that scripts write by themselves: what such a job says stands here, for Lua and Python.

Scripts know no key, so their outcomes cannot be told from those of another program that writes to Redis. Where outcomes
are signed, these are the only ones that are taken without a signature, and their words come from here.
"""

from __future__ import annotations

import json
from types import MappingProxyType

import msgspec

from bitladder.contract import Outcome, State
from bitladder.script_constants import DEADLINE_PASSED, quoted

# A script may say more precisely what is wrong, in the place of `error`.
_ENDS = (
    Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error=DEADLINE_PASSED),
    Outcome(state=State.FAILED, status=500, code="corrupt_job", error="the job's record is not one that can be run"),
    Outcome(
        state=State.FAILED,
        status=422,
        code="unsupported",
        error="the job asks for something of RQ's that is not done here (docs/rq.md)",
    ),
    Outcome(state=State.FAILED, status=500, code="queue_broken", error="the list of its queue in Redis is no list"),
    Outcome(
        state=State.FAILED,
        status=500,
        code="undeliverable",
        error="the job was claimed again and again and never arrived at a worker: its record is too large for the way "
        "from Redis",
    ),
    Outcome(state=State.FAILED, status=500, code="worker_lost", error="the worker was lost"),
)
SCRIPTED = MappingProxyType({end.code: end for end in _ENDS})

_FUNCTION = """\
-- The outcome of a job that ends by a script (bitladder/queue/scripted_ends.py). Error: what is wrong, instead of the
-- usual words. More: JSON behind it.
local function scripted_end(code, error, more)
  local ends = {
%s  }
  local outcome = ends[code]
  return outcome[1] .. ',"error":' .. (error and cjson.encode(error) or outcome[2]) .. (more or '') .. '}'
end
"""


def lua_ends(text: str) -> str:
    """Return, as Lua, the function `scripted_end` where a script's text names it."""
    if "scripted_end(" not in text:
        return ""
    return _FUNCTION % "".join(f"    {code} = {{{_parts(outcome)}}},\n" for code, outcome in SCRIPTED.items())


def scripted(outcome: Outcome) -> Outcome | None:
    """Return what a script may have said without a signature, in our own words; None where it may not have."""
    end = SCRIPTED.get(outcome.code)
    if end is None or end.state is not outcome.state:
        return None
    return msgspec.structs.replace(end, attempts=outcome.attempts, queue_ms=outcome.queue_ms)


def _parts(outcome: Outcome) -> str:
    head = json.dumps({"state": outcome.state, "status": outcome.status, "code": outcome.code}, separators=(",", ":"))
    return f"{quoted(head.removesuffix('}'))}, {quoted(json.dumps(outcome.error))}"
