"""Own tasks as JSONL: a prompt, and what a right answer is. Pure but for reading the file.

A rule is data and no code: it is bounded by the length of the answer, whoever wrote the file and the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import jsonschema_rs
import re2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calibration.errors import InputError
from calibration.texts.jsonl import read_lines

_MAX_ANSWER_CHARS = 100_000
# Where a number is compared and `extract` does not say which: the first one.
_NUMBER = r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_RULES = ("exact", "contains", "regex", "number", "equals", "json", "same")


class Task(BaseModel):
    """One line of the file; exactly one of _RULES says what is right."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    prompt: str = Field(min_length=1)
    name: str = Field("own", pattern=r"^[a-z0-9][a-z0-9_-]*$")  # tasks of a name are one figure
    max_tokens: int = Field(64, ge=1, le=4096)
    stop: tuple[str, ...] = Field((), max_length=4)
    exact: str | None = None  # the answer without the space around it
    contains: str | None = Field(None, min_length=1)
    regex: str | None = None  # found anywhere in the answer
    number: float | None = Field(None, allow_inf_nan=False)
    equals: Any = None  # JSON: the answer is this value, however it is written
    json_schema: dict[str, Any] | bool | None = Field(None, alias="json")  # true: any JSON; else a JSON schema
    same: Literal["exact", "number", "json"] | None = None  # as the reference's answer; nothing is right by itself
    extract: str | None = None  # what of the answer is looked at: the group of this expression
    tolerance: float = Field(0, ge=0, allow_inf_nan=False)  # between numbers, also those in JSON

    @model_validator(mode="after")
    def _says_what_is_right(self) -> Self:
        rules = (self.exact, self.contains, self.regex, self.number, self.equals, self.json_schema, self.same)
        if sum(rule is not None for rule in rules) != 1:
            raise ValueError(f"must have exactly one of {', '.join(_RULES)}")
        if self.extract is not None and _compiled(self.extract).groups != 1:
            raise ValueError(f"{self.extract!r} must have one group: what of the answer is looked at")
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
    text = _looked_at(task, answer)
    if text is None:
        return False
    if task.exact is not None:
        return text.strip() == task.exact.strip()
    if task.contains is not None:
        return task.contains in text
    if task.regex is not None:
        return _compiled(task.regex).search(text) is not None
    if task.number is not None:
        return _is_same_value(task.number, _number(text), task.tolerance)
    if task.equals is not None:
        return _read_json(text, lambda value: _is_same_value(task.equals, value, task.tolerance))
    schema = task.json_schema
    return _read_json(
        text, lambda value: not isinstance(schema, dict) or _validator(json.dumps(schema)).is_valid(value)
    )


def is_same(task: Task, answer: str, reference: str) -> bool:
    """Compare two answers by the task's rule `same`; as texts where the reference's has no such value."""
    text, expected = _looked_at(task, answer), _looked_at(task, reference)
    if text is not None and expected is not None:
        if task.same == "number" and (number := _number(expected)) is not None:
            return _is_same_value(number, _number(text), task.tolerance)
        if task.same == "json" and _read_json(expected, lambda value: True):
            return _read_json(text, lambda value: _is_same_value(json.loads(expected), value, task.tolerance))
    return (answer if text is None else text).strip() == (reference if expected is None else expected).strip()


def _looked_at(task: Task, answer: str) -> str | None:
    """Return what of an answer is compared; None where `extract` finds nothing."""
    answer = answer[:_MAX_ANSWER_CHARS]
    return answer if task.extract is None else _group(task.extract, answer)


def _group(pattern: str, text: str) -> str | None:
    match = _compiled(pattern).search(text)
    return match.group(1) if match else None


def _number(text: str) -> float | None:
    digits = _group(_NUMBER, text)
    return None if digits is None else float(digits)


def _read_json(text: str, check: Callable[[Any], bool]) -> bool:
    """Tell whether a text is JSON that passes a check."""
    try:
        return check(json.loads(text, parse_constant=_refuse))
    except (ValueError, OverflowError, RecursionError):
        return False


def _is_same_value(expected: Any, value: Any, tolerance: float) -> bool:  # noqa: ANN401  (JSON)
    """Compare JSON: members in any order, 1 as 1.0, numbers within the tolerance; true is no number."""
    if isinstance(expected, dict) and isinstance(value, dict):
        return expected.keys() == value.keys() and all(
            _is_same_value(expected[name], value[name], tolerance) for name in expected
        )
    if isinstance(expected, list) and isinstance(value, list):
        return len(expected) == len(value) and all(
            _is_same_value(*pair, tolerance) for pair in zip(expected, value, strict=True)
        )
    if _is_number(expected) and _is_number(value):
        return expected == value or math.isclose(expected, value, rel_tol=0, abs_tol=tolerance)
    return type(expected) is type(value) and bool(expected == value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
