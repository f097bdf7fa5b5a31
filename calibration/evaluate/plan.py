"""What an evaluation measures, from what the command was told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.evaluate import problems as human_eval
from calibration.evaluate.contamination import read_heldout
from calibration.evaluate.machine import machine
from calibration.evaluate.measures import CodeProblems, Likelihood, Measure, OwnTasks, Pace
from calibration.evaluate.tasks import read_tasks
from calibration.evaluate.texts import Text, by_kind, digest, packaged_texts
from calibration.sandbox.choose import choose_sandbox

# Of every kind of text, so many beginnings of so many characters are the prompts of the timed answers.
_PACE_TEXTS, _PACE_CHARS = 8, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command was told."""

    heldout: Path | None
    tokens: int
    top: int
    problems: int
    sandbox: str
    tasks: Path | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The measures, and what they are taken on: name -> sha256."""

    measures: list[Measure[Any]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    sandbox: str = ""
    own_texts: list[Text] = field(default_factory=list)  # held-out text that is not ours


def make_plan(wish: Wish) -> Plan:
    """Read everything and try the sandbox before an engine is started.

    Raises:
        InputError: a file is not what it should be, or there is no sandbox for code.

    """
    own = read_heldout(wish.heldout.expanduser()) if wish.heldout else []
    texts = own or packaged_texts()
    kinds = by_kind(texts)
    measures: list[Measure[Any]] = [Likelihood(kind, kinds[kind], wish.tokens, wish.top) for kind in kinds]
    sources, name = {"heldout": digest(texts)}, ""
    if wish.problems:
        sandbox = choose_sandbox(wish.sandbox)
        chosen = human_eval.spread(human_eval.load_problems(), wish.problems)
        measures.append(CodeProblems(chosen, sandbox))
        sources["human-eval"], name = human_eval.digest(), sandbox.name
    if wish.tasks:
        measures.append(OwnTasks(read_tasks(wish.tasks)))
        sources["tasks"] = hashlib.sha256(wish.tasks.read_bytes()).hexdigest()
    prompts = [text[:_PACE_CHARS] for texts in kinds.values() for text in texts[:_PACE_TEXTS]]
    measures.append(Pace(prompts, machine()))
    return Plan(measures, sources, name, own)
