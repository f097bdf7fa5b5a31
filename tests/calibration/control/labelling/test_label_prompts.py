"""Prompts are read with their checks; what is wrong is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calibration.control.labelling.label_prompts import LabelPrompt, draw, read_prompts
from calibration.errors import InputError


def read(folder: Path, *lines: Any) -> list[LabelPrompt]:  # noqa: ANN401  (JSON)
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_prompts(path)[0]


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"exact": "Paris"}, " Paris ", "Paris, of course"),
        ({"contains": "42"}, "It is 42.", "It is 41."),
        ({"json": True, "extract": r"(?s)(\{.*\})"}, 'Here: {"a": 1}', "Here: {a: 1}"),
        ({"number": 12}, "12 apples", "13 apples"),
    ],
)
def test_an_answer_is_wrong_where_the_check_says_so(tmp_path: Path, check: Any, right: str, wrong: str) -> None:  # noqa: ANN401
    (prompt,) = read(tmp_path, {"prompt": "?", "check": check})

    assert prompt.check is not None
    assert not prompt.check.is_wrong(right, None, None)
    assert prompt.check.is_wrong(wrong, None, None)


def test_a_task_without_a_right_answer_is_wrong_where_the_reference_says_something_else(tmp_path: Path) -> None:
    (prompt,) = read(tmp_path, {"prompt": "?", "check": {"same": "number"}})

    assert prompt.check is not None
    assert not prompt.check.is_wrong("7", None, None)  # the reference itself
    assert not prompt.check.is_wrong("about 7.0", "7", None)
    assert prompt.check.is_wrong("8", "7", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"kind": "x"}, r"jsonl:1: expected an object with a \"text\""),
        ({"prompt": "?", "check": []}, 'jsonl:1: "check" must be an object with a rule of own tasks'),
        ({"prompt": "?", "check": {}}, "jsonl:1: check: must have exactly one of exact"),
        ({"prompt": "?", "check": {"regex": "(?=a)"}}, "jsonl:1: check: .* is not a regular expression of RE2"),
        ({"prompt": "?", "check": {"code": {"prompt": ""}}}, "jsonl:1: check: test: Field required"),
        ({"prompt": "?", "chat": 1}, 'jsonl:1: "chat" must be true or false, got 1'),
        ({"prompt": "?", "source": "a\nb"}, 'jsonl:1: "source" must be a text of up to 120 characters'),
    ],
)
def test_a_wrong_line_is_named_with_what_is_expected(tmp_path: Path, line: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=message):
        read(tmp_path, line)


def test_each_text_is_asked_once_and_every_beginning_of_the_draw_is_a_sample(tmp_path: Path) -> None:
    lines = [{"text": f"text {number}", "group": "g"} for number in range(50)]
    prompts = read(tmp_path, *lines, lines[3])
    few, many = draw(prompts, 10, seed=4), draw(prompts, None, seed=4)

    assert len(prompts) == len({prompt.id for prompt in prompts}) == 50
    assert {prompt.source for prompt in prompts} == {"g"}
    assert many[:10] == few != prompts[:10]
    assert draw(prompts, 10, seed=5) != few


def test_features_are_those_of_the_endpoint_that_the_prompt_came_to(tmp_path: Path) -> None:
    (prompt,) = read(tmp_path, {"prompt": "Why?"})

    assert prompt.features("chat")["chat"] == 1
    assert prompt.features("text")["chat"] == 0
    assert prompt.features("text")["question"] == 1
