"""Own tasks as JSONL: a prompt, and what a right answer is. Pure but for reading the file."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import jsonschema_rs
import re2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calibration.errors import InputError
from calibration.texts.jsonl import read_lines

_MAX_ANSWER_CHARS = 100_000


class Task(BaseModel):
    """One line of the file; exactly one of `exact`, `regex` and `json` says what is right."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    prompt: str = Field(min_length=1)
    name: str = Field("own", pattern=r"^[a-z0-9][a-z0-9_-]*$")  # tasks of a name are one figure
    max_tokens: int = Field(64, ge=1, le=4096)
    stop: tuple[str, ...] = Field((), max_length=4)
    exact: str | None = None  # the answer without the space around it
    regex: str | None = None  # found anywhere in the answer
    json_schema: dict[str, Any] | bool | None = Field(None, alias="json")  # true: any JSON; else a JSON schema

    @model_validator(mode="after")
    def _says_what_is_right(self) -> Self:
        if sum(value is not None for value in (self.exact, self.regex, self.json_schema)) != 1:
            raise ValueError('must have exactly one of "exact", "regex" and "json"')
        if self.json_schema is False:
            raise ValueError('"json" must be true or a JSON schema')
        if self.regex is not None:
            _compiled(self.regex)
        if isinstance(self.json_schema, dict):
            _validator(json.dumps(self.json_schema))
        return self


def read_tasks(path: Path) -> list[Task]:
    """Read a file of tasks.

    Raises:
        InputError: a line is not a task; names the line and what is expected.

    """
    return read_lines(path, "task", _task)


def is_right(task: Task, answer: str) -> bool:
    """Score one answer; time is bounded by its length, whatever the task and the answer are."""
    answer = answer[:_MAX_ANSWER_CHARS]
    if task.exact is not None:
        return answer.strip() == task.exact.strip()
    if task.regex is not None:
        return _compiled(task.regex).search(answer) is not None
    return _is_json(answer, task.json_schema)


def _is_json(answer: str, schema: dict[str, Any] | bool | None) -> bool:
    try:
        value = json.loads(answer, parse_constant=_refuse)
        return not isinstance(schema, dict) or _validator(json.dumps(schema)).is_valid(value)
    except (ValueError, RecursionError):
        return False


def _refuse(what: str) -> None:
    raise ValueError(f"{what} is neither JSON nor part of the schema")


def _compiled(pattern: str) -> Any:  # noqa: ANN401  (re2 ships no types)
    """Compile with RE2, whose time is linear in the answer: no pattern can hang the evaluation."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression of RE2: {_text(error)}") from error


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


@lru_cache(maxsize=64)
def _validator(schema: str) -> jsonschema_rs.Validator:
    """Build the validator of a schema: patterns in linear time, and nothing is fetched from anywhere."""
    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"not a JSON schema: {error.message}") from error


def _task(line: str, where: str) -> Task:
    try:
        return Task.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {key + ': ' if key else ''}{message}") from error
