"""The model of the echo engine: it answers with the words of the prompt. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from workers.engines.echo_model.answer_json import Drafted
from workers.engines.echo_model.checks import allowed_tokens, check, check_size
from workers.engines.echo_model.draft import Draft, Stops, draft
from workers.engines.echo_model.media import MEDIA
from workers.engines.echo_model.refusal import RefusedError
from workers.engines.echo_model.request import Chat, Completion, Prompt
from workers.engines.echo_model.structured import structured_text, tool_call
from workers.engines.echo_model.vocabulary import SIZE, count, split, text_of

_LOOP = "again"  # the word of echo:loop; a word of the prompt would be a repetition that the client asked for
_DEFAULT_TOKENS = 16  # of a completion; a chat completion ends where its words do
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}


def prompts_of(request: Completion | Chat) -> list[str]:
    """Return the text of each prompt of a completion, or of each message of a chat.

    Raises:
        RefusedError: one of them is something else than text.

    """
    if isinstance(request, Chat):
        return [_message_text(message.content, request.model) for message in request.messages]
    assert request.prompt  # noqa: S101  (checked before)
    return texts_of(request.prompt)


def texts_of(prompt: Prompt) -> list[str]:
    """Return the text of each prompt."""
    return [item if isinstance(item, str) else _decoded(item) for item in _listed(prompt)]


def _listed(prompt: Prompt) -> list[Any]:
    return [prompt] if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)) else list(prompt)


def tokens_of(prompt: Prompt) -> list[list[str]]:
    """Return the tokens of each prompt; those that came as ids are what their ids stand for, one by one."""
    prompts = _listed(prompt)
    return [split(item) if isinstance(item, str) else [text_of([number]) for number in item] for item in prompts]


def drafted(request: Completion | Chat, context: int) -> Drafted:
    """Return all choices of a model with so many tokens of context.

    Raises:
        RefusedError: vLLM would refuse the request, or no answer has the form that it asks for.

    """
    check(request)
    texts = prompts_of(request)
    prompts = ["\n".join(texts)] if isinstance(request, Chat) else texts
    asked, choices_each = _max_tokens(request), request.n or 1
    is_prompt_alone = isinstance(request, Completion) and bool(request.echo) and asked == 0
    tokens = [] if isinstance(request, Chat) else tokens_of(request.prompt or "")
    counts = [*map(len, tokens)] or [count(prompt) for prompt in prompts]
    limits = [allowed_tokens(request, 1 if is_prompt_alone else asked, number, context) for number in counts]
    check_size(len(prompts) * choices_each, max(limits))
    last = next(filter(None, reversed(texts)), "") if isinstance(request, Chat) else prompts[0]
    call = tool_call(request, last)
    form = call.arguments if call else structured_text(request, last)
    stops = Stops(
        [request.stop] if isinstance(request.stop, str) else request.stop or [],
        request.min_tokens,
        request.include_stop_str_in_output,
    )
    choices = [
        Draft([""], [""], "length")
        if is_prompt_alone
        else draft(_tokens(request, last if isinstance(request, Chat) else prompt, form, nth), limit, stops)
        for prompt, limit in zip(prompts, limits, strict=True)
        for nth in range(choices_each)
    ]
    return Drafted(prompts, counts, choices, call, tokens)


def _max_tokens(request: Completion | Chat) -> int | None:
    if isinstance(request, Completion):
        return _DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
    return request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens


def _tokens(request: Completion | Chat, text: str, form: str | None, nth: int) -> Iterable[str]:
    """Return all tokens that a choice may have. Each choice begins with another word."""
    if form is not None:
        return split(form) or [""]
    words = [_LOOP] if "echo:loop" in text else text.split() or ["…"]
    start = nth % len(words)
    turned = itertools.cycle(words[start:] + words[:start])
    is_endless = isinstance(request, Completion) or request.ignore_eos or words == [_LOOP]
    taken = turned if is_endless else itertools.islice(turned, max(len(words), request.min_tokens))
    first = " " if isinstance(request, Completion) and request.echo else ""
    return (space + word for space, word in zip(itertools.chain([first], itertools.repeat(" ")), taken, strict=False))


def _message_text(content: str | list[Any] | None, model: str | None) -> str:
    return "\n".join(_part_text(part, model) for part in content) if isinstance(content, list) else content or ""


def _part_text(part: object, model: str | None) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind in _TEXTS and isinstance(text := part.get(_TEXTS[kind]), str):
        return text
    if kind in MEDIA:
        raise RefusedError(f"{model} is not a multimodal model")
    raise RefusedError("A part of a message's content must have the type 'text', and a text.")


def _decoded(ids: list[int]) -> str:
    if unknown := [number for number in ids if number >= SIZE]:
        raise RefusedError(f"Token id {unknown[0]} is out of vocabulary")
    return text_of(ids)
