"""Numbers that are none in an engine's answer: NaN and infinity have no JSON, so they come as null or as bare words."""

from __future__ import annotations

import json

import msgspec


class _Token(msgspec.Struct):
    logprob: float | None = 0.0


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float | None] | None = None  # of a completion
    content: list[_Token] | None = None  # of a chat completion


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_answer = msgspec.json.Decoder(_Answer).decode


def is_corrupted(body: bytes) -> bool:
    """Return whether a log probability of an answer is no number."""
    if b'"logprobs":{' not in body and b'"logprobs": {' not in body:
        return False
    try:
        return any(_is_bad(choice.logprobs) for choice in _answer(body).choices)
    except msgspec.DecodeError:
        return False


def has_bare_nan(body: bytes) -> bool:
    """Return whether bytes that are no JSON would be, if NaN and Infinity were numbers (Python writes them so)."""
    if b"NaN" not in body and b"Infinity" not in body:
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _is_bad(logprobs: _Logprobs | None) -> bool:
    if logprobs is None:
        return False
    # The first token of a prompt that is echoed has no probability: null is right there.
    given = (logprobs.token_logprobs or [])[1:]
    return None in given or any(token.logprob is None for token in logprobs.content or ())
