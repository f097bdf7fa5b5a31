"""Prompts that both sides answer: of a file, or what intakes capture while the canary runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bitladder.endpoints import Endpoint
from calibration.artifacts.digest import text_digest, text_id
from calibration.errors import InputError
from calibration.evaluate.task_file import Task
from calibration.texts.jsonl import read_line, read_lines


@dataclass(frozen=True, slots=True)
class CanaryPrompt:
    """One prompt."""

    text: str
    chat: bool | None = None  # in the chat template; None: where the engine has one
    check: Task | None = None  # what a right answer is

    @property
    def id(self) -> str:
        return text_id(self.text)


class PromptSource:
    """The prompts of a file, or of a folder of captured ones that grows."""

    def __init__(self, path: Path, models: Collection[str], seed: int) -> None:
        self._path, self._models, self._seed = path, models, seed
        if not path.exists():
            raise InputError(f"--prompts must be a file of prompts or a folder of captured ones, got {str(path)!r}")

    @property
    def grows(self) -> bool:
        return self._path.is_dir()

    def new(self, known: Collection[str]) -> list[CanaryPrompt]:
        """Return those that are not known, in an order by chance: every beginning of it is a sample."""
        read = self._captured() if self.grows else read_lines(self._path, "prompt", _of_file)
        fresh = {prompt.id: prompt for prompt in read if prompt.id not in known}
        return sorted(fresh.values(), key=lambda prompt: text_digest(f"{self._seed} {prompt.id}"))

    def count(self, *, checked: bool) -> int | None:
        """Return how many prompts there are, of those with a check where only these count; None: it grows.

        Raises:
            InputError: a line is wrong, or there are none.

        """
        if self.grows:
            return None
        count = sum(prompt.check is not None or not checked for prompt in self.new(()))
        if not count:
            raise InputError(f"--prompts {str(self._path)!r} has no prompt{' with a check' if checked else ''}")
        return count

    def _captured(self) -> Iterator[CanaryPrompt]:
        for file in sorted(self._path.glob("*.jsonl")):
            try:
                content = file.read_bytes()
            except FileNotFoundError:  # the capture has removed it since it was listed
                continue
            for line in content.split(b"\n")[:-1]:  # one that is being written is read the next time
                if (prompt := self._of_capture(line)) is not None:
                    yield prompt

    def _of_capture(self, line: bytes) -> CanaryPrompt | None:
        try:
            fields = json.loads(line)
        except ValueError:  # cut off when an intake was killed
            return None
        if not isinstance(fields, dict) or fields.get("model") not in self._models:
            return None
        text, endpoint = fields.get("prompt"), fields.get("endpoint")
        is_prompt = isinstance(text, str) and text and endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS)
        return CanaryPrompt(str(text), endpoint == Endpoint.CHAT) if is_prompt else None


def _of_file(line: str, where: str) -> CanaryPrompt:
    text, fields = read_line(line, where)
    chat = fields.get("chat")
    if chat is not None and not isinstance(chat, bool):
        raise InputError(f'{where}: "chat" must be true or false, got {chat!r:.80}')
    return CanaryPrompt(text, chat, _check(fields.get("check"), text, where))


def _check(value: Any, text: str, where: str) -> Task | None:  # noqa: ANN401  (JSON)
    if value is None or (isinstance(value, dict) and "code" in value):  # of `label`, which has a sandbox for it
        return None
    try:
        return Task.model_validate_json(json.dumps({**value, "prompt": text}))
    except (TypeError, ValidationError) as error:
        raise InputError(
            f'{where}: "check" must be a rule of own tasks (docs/calibration/evaluate.md): {error}'
        ) from error
