"""The prompts to label: lines of JSONL, and what a right answer is where a line has a check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitladder.endpoints import Endpoint
from bitladder.routing.features import FEATURES, score_prompt
from calibration.artifacts.digest import text_digest, text_id
from calibration.errors import InputError
from calibration.evaluate.human_eval import ENGINE_STOPS, MAX_TOKENS, cut
from calibration.evaluate.task_file import Task, is_right, is_same
from calibration.sandbox.program import Program, Sandbox
from calibration.texts.jsonl import read_line, read_lines

MAX_PROMPTS = 200_000
_MAX_NAME = 120


class CodeCheck(BaseModel):
    """A function in Python that the answer goes on with; its checks run in a sandbox."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str  # helpers, signature and docstring: valid by itself
    test: str = Field(min_length=1)  # defines check(candidate)
    entry_point: str = Field(min_length=1)
    max_tokens: int = Field(MAX_TOKENS, ge=1, le=4096)


@dataclass(frozen=True, slots=True)
class Check:
    """What a right answer is: a rule of own tasks (docs/calibration/evaluate.md), or code that must run."""

    task: Task | None = None
    code: CodeCheck | None = None

    @property
    def rule(self) -> str:
        if self.task is None:
            return "code"
        rules = ("exact", "contains", "regex", "number", "equals", "same")
        return next((rule for rule in rules if getattr(self.task, rule) is not None), "json")

    @property
    def max_tokens(self) -> int:
        return self.task.max_tokens if self.task else self.code.max_tokens if self.code else 0

    @property
    def stops(self) -> tuple[str, ...]:
        return self.task.stop if self.task else ENGINE_STOPS

    @property
    def digest(self) -> str:
        content = self.task or self.code
        return text_digest(content.model_dump_json(by_alias=True))[:16] if content else ""

    def is_wrong(self, answer: str, reference: str | None, sandbox: Sandbox | None) -> bool:
        """Judge an answer; `reference`: what the reference has answered, None for the reference itself. May block."""
        if self.task is not None:
            if self.task.same:
                return reference is not None and not is_same(self.task, answer, reference)
            return not is_right(self.task, answer)
        assert self.code is not None and sandbox is not None  # noqa: S101, PT018  (made so)
        code = self.code
        program = Program(prompt=code.prompt, completion=cut(answer), test=code.test, entry_point=code.entry_point)
        return not sandbox.judge(program).passed


@dataclass(frozen=True, slots=True)
class LabelPrompt:
    """One prompt."""

    text: str
    source: str
    kind: str
    chat: bool | None = None  # in the chat template, as it is, or as the reference has it
    check: Check | None = None
    turn: int = 0  # which of several answers

    @property
    def id(self) -> str:
        return text_id(self.text)

    @property
    def key(self) -> str:
        """Return what one answer of it is called in the journal."""
        return f"{self.id}.{self.turn}" if self.turn else self.id

    @property
    def seed(self) -> int:
        """Return a seed of this answer's own: the same command draws the same answers."""
        return int(self.id[:8], 16) + self.turn

    def turns(self, answers: int) -> list[LabelPrompt]:
        """Return the prompt once for each answer. The first one has all measurements, the others the loss alone."""
        return [self, *(replace(self, turn=turn, check=None) for turn in range(1, answers))]

    @property
    def conditions(self) -> str:
        """Return what its label depends on beside its text."""
        chat = "" if self.chat is None else f"chat {self.chat} "
        return chat + (self.check.digest if self.check else "")

    def features(self, form: str) -> dict[str, float]:
        """Return all features, as an intake computes them for this prompt at its endpoint."""
        endpoint = Endpoint.CHAT if form == "chat" else Endpoint.COMPLETIONS
        score = score_prompt(self.text.encode("utf-8", "replace"), endpoint, tuple(FEATURES))
        return {name: score[name] for name in FEATURES}


def read_prompts(path: Path) -> tuple[list[LabelPrompt], int]:
    """Return the prompts of a file, each text once, and how many lines had a text again.

    Raises:
        InputError: a line is wrong; the message names it.

    """
    read = read_lines(path, "prompt", _read_prompt)
    prompts = {prompt.id: prompt for prompt in reversed(read)}
    if len(prompts) > MAX_PROMPTS:
        raise InputError(f"{path}: {len(prompts):,} prompts, expected at most {MAX_PROMPTS:,}: `calibrate sample` them")
    return list(prompts.values())[::-1], len(read) - len(prompts)


def draw(prompts: Sequence[LabelPrompt], count: int | None, seed: int) -> list[LabelPrompt]:
    """Return so many of the prompts in an order by chance, the same for a seed: every beginning of it is a sample."""
    drawn = sorted(prompts, key=lambda prompt: text_digest(f"{seed} {prompt.id}"))
    return drawn if count is None else drawn[:count]


def _read_prompt(line: str, where: str) -> LabelPrompt:
    text, fields = read_line(line, where)
    kind = _name(fields, ("kind",), where) or "text"
    source = _name(fields, ("source", "group", "task", "kind"), where) or "unknown"
    chat = fields.get("chat")
    if chat is not None and not isinstance(chat, bool):
        raise InputError(f'{where}: "chat" must be true or false, got {chat!r:.80}')
    return LabelPrompt(text, source, kind, chat, _check(fields.get("check"), text, where))


def _name(fields: Mapping[str, Any], names: Sequence[str], where: str) -> str:  # Any: JSON
    for name in names:
        value = fields.get(name) or ""
        if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_NAME:
            raise InputError(f'{where}: "{name}" must be a text of up to {_MAX_NAME} characters, got {value!r:.80}')
        if value:
            return value
    return ""


def _check(value: object, text: str, where: str) -> Check | None:
    if value is None:
        return None
    if not isinstance(value, dict) or {"prompt", "name"} & value.keys():
        raise InputError(f'{where}: "check" must be an object with a rule of own tasks, or "code", got {value!r:.80}')
    try:
        if "code" in value:
            return Check(code=CodeCheck.model_validate(value["code"]))
        return Check(task=Task.model_validate_json(json.dumps(value | {"prompt": text})))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: check: {key + ': ' if key else ''}{message}") from error
