"""The cascade: keep a lower tier's answer where the model was sure of its tokens, else let a higher tier answer. Pure.

At each token a model prefers one token to the second best by a margin, log p1 - log p2. Small margins are where a
checkpoint of low precision and its reference part. A calibration says for a statistic of an answer's margins how often
the lower tier's answer is as good as the reference's: a curve that never falls (isotonic), read between its points.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bitladder.endpoints import Endpoint
from bitladder.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
# In nats: a token that is a billion times likelier than the next one is no surer than this. Engines write -9999 for
# what cannot come.
_MAX_MARGIN = 20.0
# What is asked of the engine, and how many alternatives there must be.
_ALTERNATIVES = 2
# Of an answer whose request does not limit it: a completion's default, and a long chat.
_COMPLETION_TOKENS, _CHAT_TOKENS = 16, 1024
_MAY_NOT_BE_SET = ("tools", "functions", "echo", "stream", "stream_options", "use_beam_search", "prompt_logprobs")

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Curve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Confidence by the statistic of an answer's margins: of all its tokens, or of the first `after_tokens`."""

    after_tokens: Annotated[int, Meta(ge=1, le=10_000)] | None = None  # None: the whole answer
    margins: Annotated[list[float], Meta(min_length=1, max_length=10_000)]
    confidences: list[Annotated[float, Meta(ge=0, le=1)]]

    def __post_init__(self) -> None:
        if len(self.margins) != len(self.confidences):
            raise ValueError(f"as many confidences as margins are expected, got {len(self.confidences)}")
        if not all(map(math.isfinite, self.margins)) or any(a >= b for a, b in pairwise(self.margins)):
            raise ValueError("margins must be finite and rise")
        if any(a > b for a, b in pairwise(self.confidences)):
            raise ValueError("confidences must never fall")

    def at(self, statistic: float) -> float:
        """Return the confidence at a statistic: on the line between two points; beyond the ends, as there."""
        place = bisect_right(self.margins, statistic)
        if place == 0 or place == len(self.margins):
            return self.confidences[min(place, len(self.margins) - 1)]
        (x0, x1), (y0, y1) = self.margins[place - 1 : place + 1], self.confidences[place - 1 : place + 1]
        return y0 + (y1 - y0) * (statistic - x0) / (x1 - x0)


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a calibration file says."""

    format: Literal[1]
    statistic: Literal["mean", "quantile"]
    quantile: Annotated[float, Meta(ge=0, le=1)] = 0.1  # where the statistic is one: which
    models: dict[str, dict[str, Curve]]  # by model and tier

    def statistic_of(self, margins: Sequence[float]) -> float:
        if self.statistic == "mean":
            return math.fsum(margins) / len(margins)
        return sorted(margins)[int(self.quantile * (len(margins) - 1))]


def read_calibration(data: bytes, file: str, ladders: Mapping[str, Sequence[str]]) -> Calibration:
    """Read a calibration file.

    Raises:
        ConfigError: it is none, or names a model or a tier that there is not.

    """
    where = f"cascade.calibration: {file!r}"
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{where} must have at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    try:
        calibration = msgspec.json.decode(data, type=Calibration)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is no calibration: {_wrong_curve(data) or error}") from None
    for model, curves in calibration.models.items():
        if model not in ladders:
            raise ConfigError(f"{where} names the model {model!r}: expected one of {', '.join(ladders)}")
        if unknown := curves.keys() - set(ladders[model]):
            raise ConfigError(
                f"{where} names the tier {min(unknown)!r} of {model}: its are {', '.join(ladders[model])}"
            )
    return calibration


class _Curves(msgspec.Struct):
    models: dict[str, dict[str, msgspec.Raw]] = {}


def _wrong_curve(data: bytes) -> str:
    """Return what is wrong with the first curve that cannot be read, by its model and tier; '' where all can."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        for model, curves in msgspec.json.decode(data, type=_Curves).models.items():
            for tier, curve in curves.items():
                try:
                    msgspec.json.decode(curve, type=Curve)
                except msgspec.ValidationError as error:  # which names no key of a mapping
                    return f"models.{model}.{tier}: {error}"
    return ""


class Cascade:
    """What one tier needs to judge its answers."""

    def __init__(self, calibration: Calibration, curve: Curve, accept: float) -> None:
        self._calibration, self._curve, self.accept = calibration, curve, accept
        self.after_tokens = curve.after_tokens

    def asking(self, endpoint: Endpoint, body: bytes) -> bytes | None:
        """Return the body of a request that asks for log probabilities too; None where its answer cannot be judged.

        That is: of other routes, several choices or prompts, tools, an echoed prompt, a stream, or fewer alternatives
        asked for.
        """
        if endpoint not in (Endpoint.COMPLETIONS, Endpoint.CHAT):
            return None
        fields = _fields(body)
        values = {
            name: msgspec.json.decode(fields[name]) for name in (*_MAY_NOT_BE_SET, "n", "best_of") if name in fields
        }
        if any(map(values.get, _MAY_NOT_BE_SET)) or any((values.get(name) or 1) != 1 for name in ("n", "best_of")):
            return None
        if endpoint is Endpoint.COMPLETIONS and _has_prompts(fields.get("prompt")):
            return None
        if (asked := _asked(endpoint, fields)) is not None:
            return body if asked >= _ALTERNATIVES else None
        more: dict[str, Any] = {"logprobs": _ALTERNATIVES}
        if endpoint is Endpoint.CHAT:
            more = {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        return msgspec.json.encode({**fields, **more})

    def confidence(self, answer: bytes) -> float | None:
        """Return how sure an answer is, from 0 to 1; None where it does not say."""
        margins = margins_of(answer)
        return self.confidence_of(margins) if margins else None

    def confidence_of(self, margins: Sequence[float]) -> float:
        """Return how sure an answer with these margins is, of which only the beginning may count."""
        return round(self._curve.at(self._calibration.statistic_of(margins[: self.after_tokens])), 4)


def margins_of(answer: bytes) -> list[float]:
    """Return the margin of each token of an answer's first choice, or of a chunk, as far as it says it."""
    choice = _first_choice(answer)
    logprobs = choice.logprobs if choice else None
    if logprobs is None:
        return []
    tokens = [[top.logprob for top in token.top_logprobs] for token in logprobs.content or []]
    tokens += [[value for value in (top or {}).values() if value is not None] for top in logprobs.top_logprobs or []]
    best = [sorted(values)[-2:] for values in tokens if len(values) > 1]
    return [min(_MAX_MARGIN, first - second) for second, first in best]


def has_ended(chunk: bytes) -> bool:
    """Return whether no token follows a chunk, as far as it says it."""
    choice = _first_choice(chunk)
    return choice is None or choice.finish_reason is not None


def max_tokens_of(endpoint: Endpoint, body: bytes) -> int:
    """Return how many tokens the answer to a request has at most; where it does not say so, what is usual."""
    limits = _Limits()
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the engine says what is wrong
        limits = msgspec.json.decode(body, type=_Limits)
    if endpoint is Endpoint.COMPLETIONS:
        return limits.max_tokens or _COMPLETION_TOKENS
    return limits.max_completion_tokens or limits.max_tokens or _CHAT_TOKENS


def without_logprobs(answer: bytes) -> bytes:
    """Return an answer without log probabilities; the values of all other fields stay as the engine wrote them."""
    fields = _fields(answer)
    choices = msgspec.json.decode(fields["choices"], type=list[dict[str, msgspec.Raw]])
    plain = [choice | {"logprobs": msgspec.Raw(b"null")} for choice in choices]
    return msgspec.json.encode({**fields, "choices": plain})


class _Top(msgspec.Struct):
    logprob: float


class _Token(msgspec.Struct):
    top_logprobs: list[_Top] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None  # of a chat
    top_logprobs: list[dict[str, float | None] | None] | None = None  # of a completion


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


class _Limits(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


def _first_choice(answer: bytes) -> _Choice | None:
    try:
        return next(iter(msgspec.json.decode(answer, type=_Answer).choices), None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _asked(endpoint: Endpoint, fields: Mapping[str, msgspec.Raw]) -> int | None:
    """Return how many alternatives of each token the client asks for; None where it wants no log probabilities."""
    asked, top = (msgspec.json.decode(fields.get(name, b"null")) for name in ("logprobs", "top_logprobs"))
    if endpoint is Endpoint.CHAT:
        asked = (top or 0) if asked else 0 if top else None
    return asked if isinstance(asked, int) or asked is None else 0


def _has_prompts(raw: msgspec.Raw | None) -> bool:
    """Return whether a completion has several prompts; token ids are one."""
    prompt = msgspec.json.decode(raw or b"null")
    return isinstance(prompt, list) and any(not isinstance(item, int) for item in prompt)
