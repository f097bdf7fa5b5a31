"""What Python and the Lua scripts must agree on, each number and word once.

`run_script.source` writes before a script's text what that names. Both sides use the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

# A job runs alone from this crash count on: it was in an engine that was lost twice, or in workers that were.
ALONE_FROM = 2
# Of so many jobs that a worker claims of its own tier, one comes from each less urgent lane first, if that has any.
JOBS_PER_CYCLE = 16
# A tenant has so many jobs claimed before it is another one's turn, and a list before its siblings are looked at.
JOBS_PER_TURN = 8
# Lists of single tiers that are in use (bl:lists:<model>): so many of a model's are looked at by one claim.
MAX_LISTS = 64
# Bytes of a job's id. Longer ones are refused; RQ's and ours have 36.
MAX_ID = 512
# How the ids of batches begin, and of the jobs of their lines: `<batch>-<line>`. Their outcomes are kept as long as the
# batch may run, whatever becomes of its runner (scripts/parts/ending.lua).
BATCH_PREFIX = "batch_"
# Bytes of a job's field `trouble`: why it came back from its last execution. Its outcome says so if its deadline passes
# before the next one.
MAX_TROUBLE = 300
# What an expired job says, and, if it had run before, what stands before its `trouble`.
DEADLINE_PASSED, HAD_COME_BACK = "the deadline passed while the job waited", "; it had come back: "
# Every worker renews or reaps three times as often. Where none has for longer, or for this share of a lease, there was
# an outage, and all leases begin anew.
MAX_SILENT_MS, MAX_SILENT_SHARE = 3000, 1 / 3
# Bytes that an id has as %XX where it is one word of a line: they would end the word or the line, or begin an escape.
UNSAFE_IN_LINE = " \n%"
# How the ids of responses begin that are stored: their jobs keep their requests (scripts/parts/responses.lua).
RESPONSE_PREFIX = "resp_"
# Orders of operators that the audit log keeps (bl:audit); the oldest go.
MAX_AUDIT = 10_000
# RQ's words for the ends of a job. An expired job is a failed one to RQ's tools. A dead letter is a failed job that an
# operator should look at.
RQ_STATUS = MappingProxyType(
    {"finished": "finished", "failed": "failed", "expired": "failed", "cancelled": "canceled", "dead": "dead"}
)

_SHARED: Mapping[str, int | float | str | Mapping[str, str]] = {
    "ALONE_FROM": ALONE_FROM,
    "JOBS_PER_CYCLE": JOBS_PER_CYCLE,
    "JOBS_PER_TURN": JOBS_PER_TURN,
    "MAX_LISTS": MAX_LISTS,
    "MAX_ID": MAX_ID,
    "BATCH_PREFIX": BATCH_PREFIX,
    "MAX_TROUBLE": MAX_TROUBLE,
    "DEADLINE_PASSED": DEADLINE_PASSED,
    "HAD_COME_BACK": HAD_COME_BACK,
    "MAX_SILENT_MS": MAX_SILENT_MS,
    "MAX_SILENT_SHARE": MAX_SILENT_SHARE,
    "UNSAFE_IN_LINE": f"[{UNSAFE_IN_LINE.replace('%', '%%')}]",  # as a pattern
    "RESPONSE_PREFIX": RESPONSE_PREFIX,
    "MAX_AUDIT": MAX_AUDIT,
    "RQ_STATUS": RQ_STATUS,
}


def lua_constants(text: str) -> str:
    """Return, as Lua, those constants that a script's text names."""
    names = [name for name in _SHARED if re.search(rf"\b{name}\b", text)]
    return "".join(f"local {name} = {_in_lua(_SHARED[name])}\n" for name in names)


def quoted(text: str) -> str:
    """Return a text as a string of Lua."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _in_lua(value: float | str | Mapping[str, str]) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {quoted(word)}" for key, word in value.items()) + "}"
    return quoted(value) if isinstance(value, str) else repr(value)
