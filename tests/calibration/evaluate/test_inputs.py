"""Held-out texts and HumanEval's problems: what is taken and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.errors import InputError
from calibration.evaluate.choose_measures import choose_measures
from calibration.evaluate.heldout import (
    HeldoutText,
    by_kind,
    heldout_digest,
    packaged_texts,
    read_heldout,
    read_texts,
)
from calibration.evaluate.human_eval import cut, load_problems, spread
from calibration.evaluate.measures.code_problems import prepare
from calibration.sample.run_sampling import SampleOptions, sample
from calibration.sample.source import LocalFiles
from calibration.texts.packaged import KINDS
from tests.calibration.evaluate.test_new_measure import OPTIONS
from tests.calibration.sample.conftest import prompts, write_jsonl


def test_the_packaged_texts_are_of_every_kind_and_many() -> None:
    kinds = by_kind(packaged_texts())

    assert set(kinds) == {"prompts", *KINDS} - {"chat"}
    assert min(sum(map(len, texts)) for texts in kinds.values()) > 1_500
    assert kinds["code"][0].startswith("def merge_sort")
    assert kinds["prose"][0].startswith("Water covers")
    assert kinds["prompts"][0].startswith("<|im_start|>user")
    assert min(len(kinds[kind]) for kind in ("code", "prose", "prompts")) > 40


def test_own_texts_are_read_with_their_kinds(tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text('{"text": "x = 1", "kind": "code", "language": "python"}\n\n{"prompt": "Hello"}\n')

    assert read_texts(path) == [HeldoutText("code", "x = 1", "python"), HeldoutText("text", "Hello")]


def test_what_a_sampled_set_knows_of_a_text_goes_on_to_the_evaluation(tmp_path: Path) -> None:
    logs = write_jsonl(tmp_path / "logs" / "a.jsonl", prompts(60), route="tickets")
    plan = SampleOptions(count=40, heldout=10, min_prompts=30, max_chars=400, memory_mb=64, seed=0, group="route")
    sample(LocalFiles(logs, "route"), plan, tmp_path / "set", force=False, on_progress=lambda progress: None)

    texts = read_heldout(tmp_path / "set" / "heldout.jsonl")

    lines = (tmp_path / "set" / "heldout.jsonl").read_text().splitlines()
    assert [text.id for text in texts] == [json.loads(line)["id"] for line in lines]
    assert {(text.kind, text.language, text.group) for text in texts} == {("prose", "en", "tickets")}


def test_a_plan_names_its_sources_by_path_and_by_digest(tmp_path: Path) -> None:
    heldout, tasks = tmp_path / "heldout.jsonl", tmp_path / "tasks.jsonl"
    heldout.write_text('{"text": "Hello there"}\n')
    tasks.write_text('{"prompt": "1+1=", "exact": "2"}\n')

    plan = choose_measures(replace(OPTIONS, heldout=heldout, tasks=tasks, answers=1))

    assert plan.source_names == {"heldout": str(heldout), "tasks": str(tasks)}
    assert plan.sources.keys() == {"heldout", "tasks"}
    assert [measure.name for measure in plan.measures] == ["text.text", "answers.text", "tasks", "pace"]
    assert choose_measures(OPTIONS).source_names == {"heldout": "packaged"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n{', ":2: not JSON"),
        ('{"body": "a"}', ':1: expected an object with a "text"'),
        ('{"text": " "}', ':1: expected an object with a "text"'),
        ("[1]", ':1: expected an object with a "text"'),
        ("[" * 100_000, ":1: not JSON"),
        ('{"text": "a", "kind": "My Kind"}', ':1: "kind" must be of a-z'),
        ('{"text": "a", "group": 7}', ':1: "group" must be a text without control characters, got 7'),
        (
            '{"text": "a", "language": "\\ud800"}',
            ":1: \"language\" must be a text without control characters, got '\\ud800'",
        ),
        ("\n", "there is no held-out text in"),
    ],
)
def test_a_file_that_is_no_held_out_set_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text(content)

    with pytest.raises(InputError) as caught:
        read_texts(path)

    assert said in str(caught.value)


def test_the_digest_knows_text_kind_and_order() -> None:
    one, other = HeldoutText("a", "x"), HeldoutText("b", "x")

    assert (
        len(
            {heldout_digest([one]), heldout_digest([other]), heldout_digest([one, other]), heldout_digest([other, one])}
        )
        == 4
    )


def test_there_are_164_problems_whose_prompts_are_programs() -> None:
    problems = load_problems()

    assert len({problem.name for problem in problems}) == 164
    for problem in problems:
        compile(problem.prompt, problem.name, "exec")


@pytest.mark.parametrize(
    ("kinds", "asked", "count"),
    [
        ([("prose", "de")] * 9 + [("code", "python")], None, 164),
        ([("prose", "de")] * 10 + [("code", "python")], None, 0),
        ([("code", "sql")] * 10, None, 0),
        ([("prose", "de")], 4, 4),
        ([("code", "python")], 0, 0),
    ],
)
def test_human_eval_is_asked_where_programs_are_served_or_where_it_is_asked_for(
    kinds: list[tuple[str, str]], asked: int | None, count: int
) -> None:
    texts = [HeldoutText(kind, f"text {number}", language) for number, (kind, language) in enumerate(kinds)]
    options = replace(OPTIONS, problems=asked)

    prepared = prepare(options, texts)

    assert sum(len(measure.inputs["problems"]) for measure in prepared.measures) == count
    left_out = f"HumanEval is left out: {int(kinds[-1][1] == 'python')} of {len(kinds)} held-out texts are programs"
    assert prepared.note.startswith(left_out) if asked is None and not count else not prepared.note


def test_human_eval_is_asked_with_the_packaged_texts() -> None:
    assert prepare(replace(OPTIONS, problems=None), packaged_texts()).measures


def test_a_question_ends_where_the_model_is_to_go_on_with_a_token_of_its_own() -> None:
    for problem in load_problems():
        assert problem.question.startswith("```python\n")
        assert problem.question == problem.question.rstrip()
        assert problem.prompt.startswith(problem.question.removeprefix("```python\n"))


def test_a_subset_is_spread_over_all_and_always_the_same() -> None:
    problems = load_problems()

    names = [problem.name for problem in spread(problems, 4)]

    assert names == ["HumanEval/0", "HumanEval/41", "HumanEval/82", "HumanEval/123"]
    assert spread(problems, 164) == problems


@pytest.mark.parametrize("problem", spread(load_problems(), 30), ids=lambda problem: problem.name)
def test_a_solution_ends_where_the_function_does(problem: object) -> None:
    assert isinstance(problem, type(load_problems()[0]))
    body = problem.solution.rstrip()

    assert cut(f"{body}\n\nprint('more')\n").rstrip() == body
    assert cut(f"{body}\n\n\ndef other():\n    pass\n").rstrip() == body
    assert cut(body) == body
