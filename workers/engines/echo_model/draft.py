"""One choice of an answer, token by token: where it ends, and which text each token shows. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Draft(NamedTuple):
    """One choice: its tokens, and what each of them adds to the text that the client sees."""

    tokens: Sequence[str]
    texts: Sequence[str]
    finish_reason: str
    stop_reason: str | None = None


class Stops(NamedTuple):
    """The texts that end an answer, once it has more than `min_tokens` tokens."""

    texts: Sequence[str]
    min_tokens: int = 0
    is_shown: bool = False


def draft(tokens: Iterable[str], max_tokens: int, stops: Stops) -> Draft:
    """Take tokens until they end, a stop text comes, or there are enough."""
    source = iter(tokens)
    taken = list(itertools.islice(source, max_tokens))
    reason = "stop" if next(source, None) is None else "length"
    return _stopped(taken, reason, stops) if stops.texts else Draft(taken, taken, reason)


def _stopped(tokens: list[str], reason: str, stops: Stops) -> Draft:
    """Return the draft up to a stop text. What may be the start of one is held back, as it must not be seen."""
    held = 0 if stops.is_shown else max(map(len, stops.texts)) - 1
    text, shown, texts = "", 0, []
    for at, token in enumerate(tokens):
        text += token
        end, stop = _end(text, len(token), stops) if at >= stops.min_tokens else (None, None)
        is_last = stop is not None or at == len(tokens) - 1
        visible = len(text) if end is None else end
        until = max(shown, visible if is_last else visible - held)
        texts.append(text[shown:until])
        shown = until
        if stop is not None:
            return Draft(tokens[: at + 1], texts, "stop", stop)
    return Draft(tokens, texts, reason)


def _end(text: str, new: int, stops: Stops) -> tuple[int | None, str | None]:
    """Return where the text ends by a stop text that is in its newest characters, and which."""
    for stop in stops.texts:
        at = text.find(stop, max(0, len(text) - new - len(stop) + 1))
        if at >= 0:
            return at + (len(stop) if stops.is_shown else 0), stop
    return None, None
