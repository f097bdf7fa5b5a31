"""Which script moves a job from which state to which: the lines `-- Moves:` in the heads of the Lua scripts."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.conftest import ROOT

SCRIPTS = ROOT / "bitladder/queue/scripts"
# The order of a job's life.
STATES = ("(none)", "queued", "running", "finished", "failed", "expired", "cancelled")
_LINE = re.compile(r"^-- Moves: ([\w()]+) -> ([\w, ]+): (.+)$", re.MULTILINE)


class Move(NamedTuple):
    """One arrow."""

    before: str
    after: str
    script: str
    when: str


def moves() -> list[Move]:
    """Return all moves, in the order of a job's life."""
    found = [
        Move(before, after, str(path.relative_to(SCRIPTS)), when)
        for path in sorted(SCRIPTS.rglob("*.lua"))
        for before, ends, when in _LINE.findall(path.read_text(encoding="utf-8"))
        for after in ends.split(", ")
    ]
    return sorted(found, key=lambda move: (STATES.index(move.before), STATES.index(move.after), move.script))


def page() -> str:
    """Return the generated part of docs/picture/job-states.md."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for move in moves():
        scripts = arrows.setdefault((move.before, move.after), [])
        scripts += [name for name in [move.script.removesuffix(".lua")] if name not in scripts]
    drawn = [
        f"  {before.replace('(none)', '[*]')} --> {after}: {', '.join(scripts)}"
        for (before, after), scripts in arrows.items()
    ]
    rows = [
        f"| {move.before} | {move.after} | [{move.script}](../../bitladder/queue/scripts/{move.script}) | {move.when} |"
        for move in moves()
    ]
    return "\n".join(
        [
            "```mermaid",
            "stateDiagram-v2",
            *drawn,
            "```",
            "",
            "| from | to | script | when |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )
