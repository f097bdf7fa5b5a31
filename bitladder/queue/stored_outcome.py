"""Stored outcomes, read with care: another program may have written them.

An outcome is answered as a status, as headers and as JSON. So its status must belong to its state, its numbers must be
such that they can be written as JSON, and its texts are cut to the length of our own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bitladder.contract import Outcome, State, decode_outcome
from bitladder.queue.untrusted import MAX_NUMBER, MAX_WORD_CHARS, short

MAX_ERROR_CHARS = 2000

_WORDS = ("code", "tier", "overflowed_from", "request_id")


def read_outcome(content: bytes) -> Outcome:
    """Read the JSON of an outcome.

    Raises:
        ValueError: it is none, or no valid answer to a client.

    """
    if not content.isascii():
        content.decode()  # the answer in it is passed on as it is
    try:
        outcome = decode_outcome(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _check_numbers(outcome)
    if not _fits(outcome.state, outcome.status):
        raise ValueError(f"a job that is {outcome.state} cannot be answered with status {outcome.status}")
    return _shortened(outcome)


def _fits(state: State, status: int) -> bool:
    """Return whether an outcome may have this status. Others say that there is no body, or that an answer follows."""
    return state.is_terminal and (status == 200 if state is State.FINISHED else 400 <= status <= 599)


def _check_numbers(outcome: Outcome) -> None:
    usage = outcome.usage
    version = outcome.decision.version if outcome.decision else 0
    counts = (outcome.attempts, outcome.chunks, usage.prompt_tokens, usage.completion_tokens, version)
    if not all(0 <= count <= MAX_NUMBER for count in counts):
        raise ValueError("attempts, chunks, tokens and the policy's version must be counts")


def _shortened(outcome: Outcome) -> Outcome:
    words = {name: getattr(outcome, name) for name in _WORDS}
    cut: dict[str, Any] = {name: short(word) for name, word in words.items() if word and len(word) > MAX_WORD_CHARS}
    if outcome.decision and (decision := outcome.decision.shortened(MAX_WORD_CHARS)) is not outcome.decision:
        cut["decision"] = decision
    if outcome.error and len(outcome.error) > MAX_ERROR_CHARS:
        cut["error"] = short(outcome.error, MAX_ERROR_CHARS)
    return msgspec.structs.replace(outcome, **cut) if cut else outcome
