"""Log probabilities in vLLM's shapes: made up, but the same for the same token. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from workers.engines.echo_model.vocabulary import SIZE, id_of, text_of

Fields = dict[str, Any]
_NEXT = 7919  # from the id of a token to that of its next best


def completion_logprobs(tokens: Sequence[str], top: int, offset: int, *, is_start: bool, by_id: bool) -> Fields:
    """Return those of a completion's tokens; a prompt's first one (`is_start`) has none.

    `by_id`: in place of tokens, what says their ids.
    """
    fields: dict[str, list[Any]] = {
        "text_offset": list(accumulate(map(len, tokens[:-1]), initial=offset)) if tokens else [],
        "token_logprobs": [_logprob(token) for token in tokens],
        "tokens": [f"token_id:{id_of(token)}" for token in tokens] if by_id else list(tokens),
        "top_logprobs": [
            {f"token_id:{number}": value for number, value in _alternative_ids(token, max(top, 1))}
            if by_id
            else dict(_alternatives(token, max(top, 1)))
            for token in tokens
        ],
    }
    if is_start:
        fields["token_logprobs"][0] = fields["top_logprobs"][0] = None
    return fields


def chat_logprobs(tokens: Sequence[str], top: int) -> Fields:
    """Return those of a chat completion's tokens."""
    return {
        "content": [
            _entry(token, _logprob(token)) | {"top_logprobs": [_entry(*pair) for pair in _alternatives(token, top)]}
            for token in tokens
        ]
    }


def prompt_logprobs(tokens: Sequence[str], top: int) -> list[Fields | None]:
    """Return those of a prompt's tokens, by their ids; the first one has none."""
    return [
        None,
        *(
            {
                str(number): {"logprob": value, "rank": rank, "decoded_token": text_of([number])}
                for rank, (number, value) in enumerate(_alternative_ids(token, max(top, 1)), 1)
            }
            for token in tokens[1:]
        ),
    ]


def _alternatives(token: str, top: int) -> list[tuple[str, float]]:
    """Return the token, and others that are less likely; hardly less likely than echo:unsure."""
    step = 0.01 if "echo:unsure" in token else 1
    return [(token + str(rank or ""), _logprob(token) - rank * step) for rank in range(top)]


def _alternative_ids(token: str, top: int) -> list[tuple[int, float]]:
    """Return the same by ids: an id's are the same in processes that know its word, and in others."""
    number = id_of(token)
    values = [value for _, value in _alternatives(token, top)]
    return [((number + rank * _NEXT) % SIZE, value) for rank, value in enumerate(values)]


def _logprob(token: str) -> float:
    return -(1 + id_of(token) % 64) / 128


def _entry(token: str, logprob: float) -> Fields:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
