"""What is spent after some tokens of an answer, by hand; and labels that do not say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from calibration.control.ablation.early_answers import seen_answers
from calibration.control.ablation.label_extras import Beside
from calibration.control.losses import Labels

LONG = {"margin": 2.0, "tokens": 64, "beginnings": {"8": {"margin": 1.0}, "32": {"margin": 3.0}}}
SHORT = {"margin": 5.0, "tokens": 10, "beginnings": {"8": {"margin": 4.0}}}


def said_of(*answers: dict[str, Any], names: tuple[str, ...] = ("tokens",)) -> tuple[Beside, Labels]:
    """Return labels whose prompts have 40 tokens, with these answers of the lowest tier."""
    entries = tuple({"own": answer} for answer in answers)
    sure = {"own.margin": np.array([answer["margin"] for answer in answers])}
    kinds = ("a",) * len(answers)
    features = np.full((len(answers), 1), 40.0)
    return Beside(kinds, None, sure, entries), Labels(names, features, {}, kinds)


def test_a_whole_prompt_and_the_first_tokens_of_the_answer_are_spent() -> None:
    seen = seen_answers(*said_of(LONG, SHORT), prompt_weight=0.25)

    assert [part.tokens for part in seen.early] == [8, 32]
    assert seen.early[0].spent == pytest.approx([(10 + 8) / (10 + 64), (10 + 8) / (10 + 10)])
    assert seen.early[0].sure["own.margin"].tolist() == [1.0, 4.0]


def test_an_answer_that_is_shorter_is_judged_when_it_is_whole() -> None:
    seen = seen_answers(*said_of(LONG, SHORT), prompt_weight=0.25)

    assert seen.early[1].spent == pytest.approx([(10 + 32) / (10 + 64), 1.0])
    assert seen.early[1].sure["own.margin"].tolist() == [3.0, 5.0]


def test_without_a_weight_prompts_cost_nothing_and_need_no_tokens() -> None:
    seen = seen_answers(*said_of(LONG, names=("digits",)), prompt_weight=0.0)

    assert seen.early[0].spent == pytest.approx([8 / 64])


@pytest.mark.parametrize(
    ("answer", "names", "reason"),
    [
        (LONG | {"tokens": 0}, ("tokens",),
         {"cascades after some tokens": "own.tokens must be 1 or more in every label"}),
        (LONG | {"beginnings": {"8": {"margin": float("nan")}}}, ("tokens",),
         {f"cascades after {count} tokens": "own.beginnings lacks it in some longer answers" for count in (8, 32)}),
        (LONG, ("digits",), {"cascades after some tokens": "labels lack the feature tokens, by which the prompt's part "
                             "of a cost is counted (--prompt-weight 0: none)"}),
    ],
)  # fmt: skip
def test_labels_that_do_not_say_it_have_no_early_answers_and_the_reason_is_told(
    answer: dict[str, Any], names: tuple[str, ...], reason: dict[str, str]
) -> None:
    seen = seen_answers(*said_of(LONG, answer, names=names), prompt_weight=0.25)

    assert (seen.early, seen.left_out) == ([], reason)


@pytest.mark.parametrize("beginnings", [{}, [], 7, {"first": {}, "0": {}, "-4": {}, "1e3": {}}])
def test_labels_without_beginnings_have_nothing_to_say(beginnings: object) -> None:
    seen = seen_answers(*said_of(LONG | {"beginnings": beginnings}), prompt_weight=0.25)

    assert (seen.early, seen.left_out) == ([], {})
