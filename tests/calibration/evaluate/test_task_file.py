"""Own tasks: what is right, what is refused, and that no pattern can hang the evaluation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from calibration.errors import InputError
from calibration.evaluate.task_file import Task, is_right, is_same, read_tasks
from tests.conftest import ROOT

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def task(**fields: Any) -> Task:  # noqa: ANN401  (JSON)
    return Task.model_validate({"prompt": "?"} | fields)


@pytest.mark.parametrize(
    ("fields", "answer", "right"),
    [
        ({"exact": "Paris"}, " Paris\n", True),
        ({"exact": "Paris"}, "Paris.", False),
        ({"regex": r"\b4\d\b"}, "It is 42.", True),
        ({"regex": r"^4\d$"}, "It is 42.", False),
        ({"json": True}, '{"a": [1, null]}', True),
        ({"json": True}, '{"a": 1', False),
        ({"json": True}, "NaN", False),
        ({"json": True}, "[" * 50_000, False),
        ({"json": PERSON}, '{"age": 3}', True),
        ({"json": PERSON}, '{"age": "3"}', False),
        ({"contains": "Paris"}, "It is Paris.", True),
        ({"contains": "Paris"}, "paris", False),
        ({"number": 19.8, "tolerance": 0.01}, " 19.805 euros, not 3", True),
        ({"number": 19.8}, "19.81", False),
        ({"number": -1e3}, "about -1e3", True),
        ({"number": 1}, "none", False),
        ({"number": 3, "extract": r"not (\d+)"}, " 19.805 euros, not 3", True),
        ({"equals": {"a": [1, None], "b": "x"}}, '{"b": "x", "a": [1.0, null]}', True),
        ({"equals": {"a": 1}}, '{"a": 1, "b": 2}', False),
        ({"equals": {"a": 1}}, '{"a": true}', False),
        ({"equals": [True]}, "[1]", False),
        ({"equals": [1, 2]}, "[2, 1]", False),
        ({"equals": {"a": 0.3}, "tolerance": 1e-9}, f'{{"a": {0.1 + 0.2}}}', True),
        ({"equals": 1}, "[" * 50_000, False),
        ({"equals": 1}, "9" * 50_000, False),
        ({"equals": 1.5, "tolerance": 1}, "9" * 400, False),
        ({"number": 1}, "9" * 50_000, False),
        ({"equals": {"a": 1}, "extract": "(?s)```json(.*?)```"}, 'Here:\n```json\n{"a": 1}\n```', True),
        ({"equals": {"a": 1}, "extract": "(?s)```json(.*?)```"}, '{"a": 1}', False),
    ],
)
def test_an_answer_is_right_or_not(fields: dict[str, Any], answer: str, right: bool) -> None:
    assert is_right(task(**fields), answer) is right


@pytest.mark.parametrize(
    ("fields", "answer", "reference", "same"),
    [
        ({"same": "exact"}, " a\n", "a", True),
        ({"same": "exact"}, "a", "b", False),
        ({"same": "number"}, "it is 4", "4.0", True),
        ({"same": "number", "tolerance": 0.5}, "4", "4.4", True),
        ({"same": "number"}, "none", "4", False),
        ({"same": "number"}, "no idea", "no idea ", True),
        ({"same": "json"}, '{"a": 1, "b": 2}', '{"b": 2, "a": 1.0}', True),
        ({"same": "json"}, '{"a": 1', '{"a": 1}', False),
        ({"same": "json"}, "no JSON", "no JSON", True),
        ({"same": "exact", "extract": "from (\\w+)"}, "select a from t", "select b from t", True),
        ({"same": "exact", "extract": "from (\\w+)"}, "select a", "select b from t", False),
    ],
)
def test_answers_are_compared_with_the_reference_s_by_the_rule_of_the_task(
    fields: dict[str, Any], answer: str, reference: str, same: bool
) -> None:
    assert is_same(task(**fields), answer, reference) is same


@pytest.mark.parametrize(
    "fields",
    [
        {"regex": "^(a+)+$"},
        {"regex": "(x+x+)+y"},
        {"exact": "b", "extract": "^(a+)+$"},
        {"json": {"type": "string", "pattern": "^(a+)+$"}},
    ],
)
@pytest.mark.parametrize("letter", ["a", "x"])
def test_a_pattern_that_backtracks_for_years_elsewhere_answers_at_once(fields: dict[str, Any], letter: str) -> None:
    text = letter * 50_000 + "!"
    started_s = time.monotonic()

    assert not is_right(task(**fields), json.dumps(text) if "json" in fields else text)

    assert time.monotonic() - started_s < 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "?"}', "must have exactly one of exact, contains, regex, number, equals, json, same"),
        (
            '{"prompt": "?", "exact": "a", "regex": "a"}',
            "must have exactly one of exact, contains, regex, number, equals, json, same",
        ),
        ('{"prompt": "", "exact": "a"}', "prompt: String should have at least 1 character"),
        ('{"prompt": "?", "exact": "a", "colour": 1}', "colour: Extra inputs are not permitted"),
        ('{"prompt": "?", "regex": "(?=a)"}', "is not a regular expression of RE2"),
        ('{"prompt": "?", "json": {"type": "strin"}}', "not a JSON schema"),
        ('{"prompt": "?", "json": {"$ref": "http://127.0.0.1:9/x"}}', "not a JSON schema"),
        ('{"prompt": "?", "json": false}', '"json" must be true or a JSON schema'),
        ('{"prompt": "?", "exact": "a", "name": "A B"}', "name: String should match pattern"),
        ('{"prompt": "?", "same": "code"}', "same: Input should be 'exact', 'number' or 'json'"),
        ('{"prompt": "?", "exact": "a", "extract": "a"}', "'a' must have one group"),
        ('{"prompt": "?", "exact": "a", "extract": "(a)(b)"}', "'(a)(b)' must have one group"),
        ('{"prompt": "?", "number": 1, "tolerance": -1}', "tolerance: Input should be greater than or equal to 0"),
        ("prompt", "Invalid JSON"),
    ],
)
def test_a_line_that_is_no_task_is_named_with_what_is_wrong(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "1+1=", "exact": "2"}\n\n' + line + "\n")

    with pytest.raises(InputError) as caught:
        read_tasks(path)

    assert str(caught.value).startswith(f"{path}:3: ")
    assert said in str(caught.value)


def test_a_file_without_tasks_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")

    with pytest.raises(InputError, match="there is no task in"):
        read_tasks(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot read tasks"):
        read_tasks(tmp_path / "none.jsonl")


def test_the_example_in_the_documentation_is_a_file_of_tasks(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "calibration" / "evaluate.md").read_text(encoding="utf-8")
    example = next(part for part in page.split("```jsonl\n")[1:] if '"exact"' in part).partition("```")[0]
    (tmp_path / "tasks.jsonl").write_text(example)

    tasks = read_tasks(tmp_path / "tasks.jsonl")

    rules = ("exact", "regex", "json_schema", "number", "equals", "same", "extract")
    assert {name for task in tasks for name in rules if getattr(task, name) is not None} == set(rules)
