"""What vLLM refuses in a request whose fields have the right types, in its own words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from workers.engines.echo_model.refusal import RefusedError
from workers.engines.echo_model.request import Chat, Completion, Request
from workers.engines.echo_model.vocabulary import SIZE

_MAX_LOGPROBS, _MAX_PROMPTS, _MAX_N = 20, 1024, 16_384  # vLLM's
_MIN_TEMPERATURE = 1e-5  # below, all choices would be the same
_MAX_ALL_TOKENS = 1_000_000  # of all choices: they are made up before the first is sent
_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("n", lambda value: value >= 1, "at least 1"),
    ("n", lambda value: value <= _MAX_N, f"at most {_MAX_N}"),
    ("presence_penalty", lambda value: -2 <= value <= 2, "in [-2, 2]"),
    ("frequency_penalty", lambda value: -2 <= value <= 2, "in [-2, 2]"),
    ("repetition_penalty", lambda value: value > 0, "greater than zero"),
    ("temperature", lambda value: value >= 0, "non-negative"),
    ("temperature", lambda value: value <= 2, "in [0, 2]"),
    ("top_p", lambda value: 0 < value <= 1, "in (0, 1]"),
    ("top_k", lambda value: value >= -1, "0 (disable), or at least 1"),
    ("min_p", lambda value: 0 <= value <= 1, "in [0, 1]"),
    ("min_tokens", lambda value: value >= 0, "greater than or equal to 0"),
)
_NAMED_TWICE = ("temperature", "top_p")
# Whether it is broken, the message, the field.
_Rule = tuple[object, str, str | None]


def check(request: Completion | Chat) -> None:
    """Check all that does not depend on the length of the prompt.

    Raises:
        RefusedError: a value is wrong.

    """
    rules = _chat_rules(request) if isinstance(request, Chat) else _completion_rules(request)
    for is_broken, message, param in rules:
        if is_broken:
            raise RefusedError(message, param)
    for name, is_right, expected in _RANGES:
        value = getattr(request, name)
        if value is not None and not is_right(value):
            param = name if name in _NAMED_TWICE else None
            raise RefusedError(f"{name} must be {expected}, got {value}.", param, value)
    if (request.n or 1) > 1 and request.temperature is not None and request.temperature < _MIN_TEMPERATURE:
        raise RefusedError(f"n must be 1 when using greedy sampling, got {request.n}.")


def allowed_tokens(request: Request, asked: int | None, prompt_tokens: int, context: int) -> int:
    """Return how many tokens one choice may have, of `asked` ones.

    Raises:
        RefusedError: prompt or answer are too long for the context, or the number is none.

    """
    if asked is not None and asked > context:
        message = f"max_tokens={asked} cannot be greater than max_model_len={context}."
        raise RefusedError(f"{message} Please request fewer output tokens.", "max_tokens", asked)
    if prompt_tokens >= context:
        message = (
            f"This model's maximum context length is {context} tokens. However, your prompt contains at least "
            f"{context + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce the "
            "length of the input prompt."
        )
        raise RefusedError(message, "input_tokens", context + 1)
    if asked is not None and asked < 1:
        raise RefusedError(f"max_tokens must be at least 1, got {asked}.", "max_tokens", asked)
    if asked is not None and request.min_tokens > asked:
        message = f"min_tokens must be less than or equal to max_tokens={asked}, got {request.min_tokens}."
        raise RefusedError(message)
    return min(context - prompt_tokens, context if asked is None else asked)


def check_size(choices: int, tokens: int) -> None:
    """Refuse what would take too much memory; vLLM, which makes its tokens up one by one, has no such limit."""
    if choices > 1 and choices * tokens > _MAX_ALL_TOKENS:
        message = f"The echo engine writes at most {_MAX_ALL_TOKENS} tokens for one request, got {choices} choices of"
        raise RefusedError(f"{message} up to {tokens}.")


def _shared_rules(request: Request, logprobs: int | None, name: str) -> Iterator[_Rule]:
    asked = request.stream_options and not request.stream
    yield asked, "Stream options can only be defined when `stream=True`.", "stream_options"
    _check_count(logprobs or 0, name, "sample")
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    yield "" in stops, "stop cannot contain an empty string.", None


def _check_count(asked: int, name: str, whose: str) -> None:
    count = SIZE if asked == -1 else asked  # -1: of every token there is
    if count < 0:
        raise RefusedError(f"`{name}` must be a positive value or -1.", name, count)
    if count > _MAX_LOGPROBS:
        message = f"Requested {whose} logprobs of {count}, which is greater than max allowed: {_MAX_LOGPROBS}"
        raise RefusedError(message, "prompt_logprobs" if whose == "prompt" else "logprobs", count)


def _completion_rules(request: Completion) -> Iterator[_Rule]:
    prompt = request.prompt
    yield prompt is None or prompt == "", "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"
    yield not prompt, "You must pass at least one prompt", None
    prompts: list[Any] = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    message = f"prompt list length {len(prompts)} exceeds the maximum allowed count of {_MAX_PROMPTS}."
    yield len(prompts) > _MAX_PROMPTS, message, "prompt"
    yield not all(prompts), "The decoder prompt cannot be empty", None
    if request.suffix:
        raise RefusedError("suffix is only supported for models with FIM completion rendering", "suffix", end=False)
    of_prompt, name = request.prompt_logprobs or 0, "prompt_logprobs"
    yield of_prompt and request.stream, f"`{name}` are not available when `stream=True`.", name
    _check_count(of_prompt, name, "prompt")
    yield from _shared_rules(request, request.logprobs, "logprobs")


def _chat_rules(request: Chat) -> Iterator[_Rule]:
    message = "Cannot apply chat template to an empty conversation. Provide at least one message."
    yield not request.messages, message, None
    has_none = any(message.content is None and message.role != "assistant" for message in request.messages)
    yield has_none, "A message must have a content.", "messages"
    message = "when using `top_logprobs`, `logprobs` must be set to true."
    yield request.top_logprobs and not request.logprobs, message, "top_logprobs"
    message = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
    yield request.tools == [], message, "tools"
    yield from _shared_rules(request, request.top_logprobs, "top_logprobs")
    choice, names = request.tool_choice, [tool.function.name for tool in request.tools or ()]
    if choice in (None, "none"):
        return
    yield not names, "When using `tool_choice`, `tools` must be set.", "tool_choice"
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        yield name not in names, message, "tool_choice"
    else:
        message = f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are'
        yield choice not in ("auto", "required"), f"{message} supported.", "tool_choice"
