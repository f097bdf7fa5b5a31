"""workers/output_check.py: what is a token loop or gibberish, and what only resembles one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.conftest import ROOT
from workers.output_check import fault_in

PROMPT = {"model": "m", "prompt": "Tell me about Berlin."}
PROSE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def judged(text: str, *, finish: str = "length", request: object = PROMPT, chat: bool = False) -> str | None:
    choice: dict[str, object] = {"index": 0, "finish_reason": finish}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return fault_in(msgspec.json.encode({"choices": [choice]}), msgspec.json.encode(request))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (PROSE + " and the city of the city" * 40, "loop"),
        ("Berlin is a city. " * 40, "loop"),
        ("!" * 500, "loop"),  # what NaN in all logits samples from several vocabularies
        ("very " * 100, "loop"),
        ("Stra\N{REPLACEMENT CHARACTER}e " * 30, "gibberish"),
    ],
)
@pytest.mark.parametrize("chat", [False, True])
def test_a_degenerate_answer_is_seen(text: str, kind: str, chat: bool) -> None:
    assert judged(text, chat=chat) == kind


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "no, " * 20,  # short
        "-" * 2000,
        "| 0 | 0 |\n" * 200,
        "0" * 1000,
        " " * 1000,
        "".join(f"{number}. a step\n" for number in range(200)),
        "Berlin is a city. " * 40 + "And so it went.",  # the loop has ended
        "cut within a character \N{REPLACEMENT CHARACTER}",
        "",
    ],
)
def test_what_an_answer_may_look_like_is_let_through(text: str) -> None:
    assert judged(text) is None


def test_a_repetition_that_ends_by_itself_was_meant() -> None:
    assert judged("    x.append(None)\n" * 100, finish="stop") is None


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Say the word hello a hundred times", "hello " * 100),
        ("aa bb cc", "aa bb cc " * 100),
        ("aa bb cc", "b cc aa b" + "b cc aa b" * 100),
        ("Write banana", "banana" * 100),
    ],
)
def test_a_repetition_of_the_prompt_s_words_was_asked_for(prompt: str, text: str) -> None:
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]}

    assert judged(text, request={"prompt": prompt}) is None
    assert judged(text, request=chat) is None


def test_a_word_of_the_prompt_does_not_excuse_a_loop_of_other_words() -> None:
    assert judged("the city the town " * 100, request={"prompt": "the city, the town"}) == "loop"


@pytest.mark.parametrize("answer", [b"", b"no JSON", b'{"choices": 3}', b'{"object": "list"}'])
def test_an_answer_of_another_shape_is_not_judged(answer: bytes) -> None:
    assert fault_in(answer, b"{}") is None


def test_a_request_that_cannot_be_read_excuses_nothing() -> None:
    answer = msgspec.json.encode({"choices": [{"text": "very " * 100, "finish_reason": "length"}]})

    assert fault_in(answer, b"{") == "loop"


CUT: dict[str, object] = {"index": 0, "finish_reason": "length"}
EMPTY = CUT | {"text": ""}
THOUGHT = {"completion_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 16}}


def kind_of(
    *choices: dict[str, object], usage: object = {"completion_tokens": 16}, request: object = PROMPT
) -> str | None:
    answer = {"choices": choices, "usage": usage}
    return fault_in(msgspec.json.encode(answer), msgspec.json.encode(request))


@pytest.mark.parametrize(
    "choices",
    [
        [EMPTY],
        [CUT | {"message": {"role": "assistant", "content": ""}}],
        [CUT | {"message": {"role": "assistant", "content": None, "reasoning": None, "tool_calls": []}}],
        [CUT | {"text": "Berlin is a city."}, EMPTY | {"index": 1}],
    ],
)
def test_tokens_that_ran_out_without_a_text_are_none(choices: list[dict[str, object]]) -> None:
    assert kind_of(*choices) == "empty"


@pytest.mark.parametrize(
    ("choice", "usage"),
    [
        (EMPTY, {"completion_tokens": 3}),  # a character may take so many, and is held back until it is whole
        (EMPTY, {"completion_tokens": 0}),
        (EMPTY, None),
        (EMPTY | {"finish_reason": "stop"}, {"completion_tokens": 16}),
        (CUT | {"message": {"content": None, "reasoning": "hm, let me"}}, {"completion_tokens": 16}),
        (CUT | {"message": {"content": None, "reasoning_content": "hm"}}, {"completion_tokens": 16}),
        (CUT | {"message": {"content": None, "tool_calls": [{"id": "t"}]}}, {"completion_tokens": 16}),
        (CUT | {"message": {"content": ""}}, THOUGHT),
    ],
)
def test_an_empty_text_may_be_all_there_is(choice: dict[str, object], usage: object) -> None:
    assert kind_of(choice, usage=usage) is None


@pytest.mark.parametrize("field", [{"include_reasoning": False}, {"tools": []}])
def test_an_answer_whose_tokens_are_hidden_by_wish_is_not_empty(field: dict[str, object]) -> None:
    assert kind_of(EMPTY, request=PROMPT | field) is None


def response(text: str, *, is_cut: bool) -> dict[str, object]:
    content = [{"type": "output_text", "text": text}] if text else []
    reason = {"incomplete_details": {"reason": "max_output_tokens"}} if is_cut else {}
    return {"output": [{"type": "message", "content": content}], "usage": {"output_tokens": 99}, **reason}


def message(text: str, *, is_cut: bool) -> dict[str, object]:
    reason = "max_tokens" if is_cut else "end_turn"
    return {"content": [{"type": "text", "text": text}], "stop_reason": reason, "usage": {"output_tokens": 99}}


@pytest.mark.parametrize("answer_of", [response, message])
@pytest.mark.parametrize(
    ("text", "is_cut", "kind"),
    [
        ("Berlin is a city. " * 40, True, "loop"),
        ("Berlin is a city. " * 40, False, None),
        (PROSE, True, None),
        ("", True, "empty"),
        ("", False, None),
    ],
)
def test_responses_and_messages_are_looked_at_too(
    answer_of: Callable[..., dict[str, object]], text: str, is_cut: bool, kind: str | None
) -> None:
    assert fault_in(msgspec.json.encode(answer_of(text, is_cut=is_cut)), msgspec.json.encode(PROMPT)) == kind


def test_a_call_of_a_tool_is_not_empty() -> None:
    call = {"output": [{"type": "function_call", "arguments": ""}], "usage": {"output_tokens": 99}}
    cut = {"incomplete_details": {"reason": "max_output_tokens"}}

    assert fault_in(msgspec.json.encode(call | cut), msgspec.json.encode(PROMPT)) is None
