"""Answers: the reference's are followed, a tier is compared token by token, and chat is asked as chat."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from calibration.artifacts.digest import text_id
from calibration.artifacts.prompt_losses import AnswerLoss
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.engine import Asker
from calibration.evaluate.measures.greedy_answers import PROMPT_TOKENS, Answered, Answers, answer_figures
from calibration.evaluate.measures.own_tasks import OwnTasks
from tests.calibration.evaluate.chain import END, LIKELY, OTHER, Chain
from tests.calibration.evaluate.test_engines import RIGHT, candidate, evaluation

FOLLOWED = Answers("letters", ["a", "k"], 8, 2, chat=False)


async def taken(measure: Any, engine: Chain) -> Answered:  # noqa: ANN401  (any measure)
    result: Answered = measure.decode(measure.encode(await measure.take(Asker(engine, ""), lambda done, total: None)))
    return result


def text(tokens: list[int]) -> str:
    return bytes(tokens).decode()


async def test_a_tier_is_asked_along_the_reference_s_answers_and_not_along_its_own() -> None:
    reference = await taken(FOLLOWED, Chain())
    tier = Chain({"e": "z"})

    result = await taken(FOLLOWED.following(reference), tier)

    assert [text(item.answer) for item in reference.exchanges] == ["bcdefghi", "lmnopqrs"]
    assert result.exchanges == reference.exchanges
    assert [text(request["prompt"]) for request in tier.asked] == ["abcdefghi", "klmnopqrs"]


async def test_divergence_flips_and_the_first_difference_are_those_of_the_definitions() -> None:
    reference = await taken(FOLLOWED, Chain())

    # The tier's first choice after e and after g is the reference's second.
    result = await taken(FOLLOWED.following(reference), Chain({"e": "g", "g": "i"}))
    figures = answer_figures("letters", result, reference)
    rows = FOLLOWED.per_prompt(result, reference)

    apart = 2 * (LIKELY - OTHER) * math.log(LIKELY / OTHER)  # the same on the token that both know and on the rest
    assert figures.metrics["answer_kl.letters"].value == pytest.approx(apart / 16, rel=1e-3)
    assert figures.metrics["answer_top1.letters"].value == 14 / 16
    assert figures.recovery["answer_top1.letters"].value == 14 / 16
    assert figures.metrics["answer_prefix.letters"].value == (4 + 8) / 16
    assert figures.metrics["answer_prefix.letters"].n == 16
    assert rows[text_id("a")].kl == pytest.approx(apart / 8, rel=1e-3)
    assert (rows[text_id("a")].flips, rows[text_id("a")].prefix) == (0.25, 4)
    assert rows[text_id("k")] == AnswerLoss(form="text", tokens=8, kl=0, flips=0, prefix=8)


async def test_two_tiers_are_compared_along_the_same_answers_of_the_reference() -> None:
    reference = await taken(FOLLOWED, Chain())
    along = FOLLOWED.following(reference)
    served, new = await taken(along, Chain({"e": "g"})), await taken(along, Chain({"e": "g", "g": "i"}))

    compared = along.compare(new, served, reference)

    assert {name: round(figure.difference * 16, 6) for name, figure in compared.items() if "kl" not in name} == {
        "answer_top1.letters": -1,  # one token more on which the new one would not go on as the reference did
        "answer_prefix.letters": 0,  # behind the first one on which both would not
    }
    assert compared["answer_kl.letters"].difference > 0
    assert all(figure.low <= figure.difference <= figure.high for figure in compared.values())
    assert along.compare(new, served, None) == {}


@pytest.mark.parametrize(
    ("chat", "has_template", "asked"),
    [(None, True, "<hello>"), (True, True, "<hello>"), (None, False, "hello"), (False, True, "hello")],
)
async def test_a_prompt_is_asked_through_the_chat_template_where_there_is_one(
    chat: bool | None, has_template: bool, asked: str
) -> None:
    result = await taken(Answers("prose", ["hello"], 4, 2, chat), Chain(has_template=has_template))

    assert text(result.exchanges[0].prompt) == asked
    assert result.exchanges[0].form == ("chat" if asked.startswith("<") else "text")


async def test_a_text_in_a_template_is_not_put_into_it_again() -> None:
    rendered = "<|im_start|>user"

    result = await taken(Answers("prompts", [rendered], 4, 2, None), Chain())

    assert text(result.exchanges[0].prompt) == rendered


async def test_chat_that_is_asked_for_needs_a_template() -> None:
    with pytest.raises(InputError, match="--chat: the reference has no chat template"):
        await taken(Answers("prose", ["hello"], 4, 2, chat=True), Chain(has_template=False))


async def test_of_a_long_prompt_the_beginning_is_asked_in_a_whole_template() -> None:
    result = await taken(Answers("prose", ["ab" * PROMPT_TOKENS], 4, 2, None), Chain())

    prompt = text(result.exchanges[0].prompt)
    assert (prompt[:2], prompt[-1:]) == ("<a", ">")
    assert PROMPT_TOKENS - 8 <= len(prompt) <= PROMPT_TOKENS


async def test_a_prompt_and_its_answer_fit_into_a_short_context() -> None:
    result = await taken(Answers("prose", ["ab" * PROMPT_TOKENS], 64, 2, None), Chain(context_tokens=256))

    (exchange,) = result.exchanges
    assert 256 - 64 - 8 <= len(exchange.prompt) <= 256 - 64 - 1
    assert text(exchange.prompt)[-1:] == ">"


async def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="--answer-tokens must leave room for a prompt, got 64, 1 too many"):
        await taken(Answers("prose", ["hello"], 64, 2, None), Chain(context_tokens=65))


async def test_an_answer_that_ends_is_compared_to_its_end() -> None:
    ends = Chain({"c": chr(END)})
    reference = await taken(FOLLOWED, ends)

    assert [len(item.answer) for item in reference.exchanges] == [3, 8]
    figures = answer_figures("letters", await taken(FOLLOWED.following(reference), ends), reference)
    assert figures.metrics["answer_prefix.letters"].n == 11
    assert figures.metrics["answer_prefix.letters"].value == 1


async def test_an_engine_that_answers_nothing_has_failed() -> None:
    with pytest.raises(EngineFailedError, match="answered none of 2 texts of kind 'letters'"):
        await taken(Answers("letters", ["a", "k"], 0, 2, chat=False), Chain())


async def test_what_was_measured_along_other_answers_is_measured_anew(tmp_path: Path) -> None:
    evaluator, tier = evaluation(tmp_path, FOLLOWED, RIGHT), candidate(tmp_path, "d")
    reference = await taken(FOLLOWED, Chain())
    along = evaluator.following({"answers.letters": reference})
    measure = along.measures[0]
    inputs = tier.inputs(along.vllm, "fake") | {"inputs": measure.inputs}
    along.store.save(measure.name, inputs, measure.encode(await taken(measure, Chain())))

    assert set(along.stored(tier)) == {"answers.letters"}
    other = await taken(FOLLOWED, Chain({"b": "k"}))
    assert set(evaluator.following({"answers.letters": other}).stored(tier)) == set()


async def test_without_the_reference_nothing_is_measured_along_its_answers(tmp_path: Path) -> None:
    (left,) = evaluation(tmp_path, FOLLOWED, RIGHT).following(None).measures

    assert isinstance(left, OwnTasks)
