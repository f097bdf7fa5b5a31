"""Log probabilities that are NaN or infinity: JSON has neither, so engines write null."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def is_corrupted(answer: Mapping[str, Any], *, is_echo: bool) -> bool:
    """Return whether a log probability of a whole answer is null; `is_echo`: the answer begins with its prompt."""
    return _are_bad(_list(answer, "prompt_logprobs")) or any(
        is_bad(choice, is_echo=is_echo) for choice in _list(answer, "choices") if isinstance(choice, dict)
    )


def is_bad(choice: Mapping[str, Any], *, is_echo: bool) -> bool:
    """Return whether a log probability of a choice, or of its part in a chunk, is null."""
    if _are_bad(_list(choice, "prompt_logprobs")):
        return True
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return False
    # The first token of an echoed prompt has no probability, so null is correct there.
    if None in _list(logprobs, "token_logprobs")[1 if is_echo else 0 :]:
        return True
    if any(isinstance(top, dict) and None in top.values() for top in _list(logprobs, "top_logprobs")):
        return True
    return any(map(_is_bad_token, [*_list(logprobs, "content"), *_list(logprobs, "refusal")]))


def has_bad_token(tokens: object) -> bool:
    """Return whether a log probability in a list of tokens is null."""
    return isinstance(tokens, list) and any(map(_is_bad_token, tokens))


def _is_bad_token(token: object) -> bool:
    """Check one token of a chat completion, and its alternatives."""
    if not isinstance(token, dict):
        return False
    return token.get("logprob", 0.0) is None or any(map(_is_bad_token, _list(token, "top_logprobs")))


def _are_bad(prompt: Iterable[object]) -> bool:
    """Check a prompt's tokens as vLLM shows them: by id, and null for the first one."""
    return any(isinstance(token, dict) and any(map(_is_bad_token, token.values())) for token in prompt)


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return value if isinstance(value, list) else []
