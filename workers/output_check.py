"""The output check: find answers that are token loops, gibberish or empty. Pure; microseconds for an answer of 4 KB.

An answer is degenerate only where no prompt could have meant it. A loop must go on until max_tokens, with words that
are not a phrase of the prompt: a model that is asked to repeat something, to fill a table or to list equal lines ends
by itself, or repeats the prompt. An answer is empty where max_tokens was reached and no token is visible, in a text, a
tool call or a reasoning.
"""

from __future__ import annotations

from typing import Any

import msgspec

# A longer unit is a paragraph that comes again; low-precision models loop in words and sentences.
_MAX_UNIT = 128
# At least so many characters, and so many units, at the end of the answer. 400 characters are about 100 tokens: fewer
# may be a refrain, and cost little.
_MIN_CHARS = 400
_MIN_REPEATS = 8
# Replacement characters stand for bytes that are not UTF-8. An answer that is cut within a character has one; one in
# twenty characters means that the tokens are noise.
_MAX_REPLACED = 0.05
_MIN_REPLACED = 8
# So many tokens make a visible character: one takes four tokens at most, and is held back until it is complete.
_MIN_UNSEEN = 4
# Fields of requests whose answer may be invisible: reasoning that is left out, tool calls that were cut.
_MAY_HIDE = (b'"include_reasoning"', b'"tools"')
# What an engine samples when all logits are NaN: the first entry of several vocabularies.
_NAN_SAMPLE = "!"


class _Choice(msgspec.Struct):
    text: str | None = None
    message: dict[str, Any] | None = None  # the content is a text, or a list of parts
    finish_reason: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it ended because max_tokens was reached."""
        return self.finish_reason == "length"

    @property
    def is_empty(self) -> bool:
        if self.message is None:
            return not self.text
        return not any(value for name, value in self.message.items() if name != "role")


class _Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    output_tokens: int | None = None  # the name of newer APIs, and of Anthropic's
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Part(msgspec.Struct):
    """A part of a message's content: of a response's message, or of one of /v1/messages."""

    text: str | None = None


class _Item(msgspec.Struct):
    """An item of a response's output: a message has content."""

    content: list[_Part] | None = None

    @property
    def parts(self) -> list[_Part]:
        return [_Part()] if self.content is None else self.content


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Answer(msgspec.Struct):
    """An answer of a route that generates: each has one of the first three."""

    choices: list[_Choice] = []
    output: list[_Item] = []
    content: list[_Part] = []
    incomplete_details: _Incomplete | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None

    def all_choices(self) -> list[_Choice]:
        """Return the choices; a response, or a message, is one."""
        reason = self.incomplete_details.reason if self.incomplete_details else self.stop_reason
        if self.choices or not (self.output or self.content or reason):
            return self.choices
        parts = self.content or [part for item in self.output for part in item.parts]
        is_cut = reason in ("max_output_tokens", "max_tokens")
        message = {"content": "".join(part.text or "" for part in parts), "more": [p for p in parts if p.text is None]}
        return [_Choice(message=message, finish_reason="length" if is_cut else "stop")]


_decode = msgspec.json.Decoder(_Answer).decode


def fault_in(answer: bytes, request: bytes) -> str | None:
    """Return what is wrong with an answer to a request: loop, gibberish, empty, or None."""
    try:
        decoded = _decode(answer)
    except msgspec.DecodeError:
        return None  # an answer in another format is not checked
    choices = decoded.all_choices()
    is_empty = any(choice.is_cut and choice.is_empty for choice in choices)
    if is_empty and _are_tokens_missing(decoded.usage, len(choices), request):
        return "empty"
    kinds = (_degeneration(_text(choice), request, is_cut=choice.is_cut) for choice in choices)
    return next((kind for kind in kinds if kind), None)


def _degeneration(text: str, request: bytes, *, is_cut: bool) -> str | None:
    """Return what is wrong with a text that answers a request; `is_cut`: it ended because max_tokens was reached."""
    replaced = text.count("\N{REPLACEMENT CHARACTER}")
    if replaced >= _MIN_REPLACED and replaced > _MAX_REPLACED * len(text) and not _has_replacement(request):
        return "gibberish"
    unit = _loop_unit(text) if is_cut else None
    return "loop" if unit and _is_unusual(unit) and not _is_phrase_of(unit, request) else None


def _loop_unit(text: str) -> str | None:
    """Return the unit that the end of a text repeats; None when it repeats none.

    The last characters occur again one period earlier: one search finds the period, one comparison proves it.
    """
    if len(text) < _MIN_CHARS:
        return None
    probe = text[-_MAX_UNIT:]
    before = text.rfind(probe, 0, len(text) - 1)
    period = len(text) - len(probe) - before
    if before < 0 or period > _MAX_UNIT:
        return None
    length = max(_MIN_CHARS, _MIN_REPEATS * period)
    end = text[-length:]
    return text[-period:] if len(end) == length and end[period:] == end[:-period] else None


def _are_tokens_missing(usage: _Usage | None, choices: int, request: bytes) -> bool:
    """Return whether tokens were generated that should be visible."""
    if usage is None or (usage.completion_tokens or usage.output_tokens or 0) < _MIN_UNSEEN * choices:
        return False
    details = usage.completion_tokens_details or usage.output_tokens_details
    has_reasoning = bool(details and details.reasoning_tokens)
    return not has_reasoning and not any(field in request for field in _MAY_HIDE)


def _is_unusual(unit: str) -> bool:
    """Return whether no table, number or line of code repeats that: it has letters, or comes from NaN."""
    return unit.strip() == _NAN_SAMPLE or any(map(str.isalpha, unit))


def _is_phrase_of(unit: str, request: bytes) -> bool:
    """Return whether the request contains the unit, wherever in it the loop was cut off."""
    try:
        prompt = f" {' '.join(_joined(msgspec.json.decode(request)).split())} "
    except msgspec.DecodeError:
        return False
    count = len((unit + unit).split()) - len(unit.split())  # words in a unit, which may begin within a word
    if count == 0:
        rotations = (unit[at:] + unit[:at] for at in range(len(unit)))
        return any(f" {rotation} " in prompt or rotation * 4 in prompt for rotation in rotations)
    words = (unit * 3).split()[1:-1]
    return any(f" {' '.join(words[at : at + count])} " in prompt for at in range(count))


def _joined(value: object) -> str:
    """Return all texts of a request, one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [inner for key, inner in value.items() if key not in ("role", "type", "model")]
    return " ".join(map(_joined, value)) if isinstance(value, list) else ""


def _has_replacement(request: bytes) -> bool:
    return "\N{REPLACEMENT CHARACTER}".encode() in request or rb"\ufffd" in request.lower()


def _text(choice: _Choice) -> str:
    content = choice.message.get("content") if choice.message else choice.text
    return content if isinstance(content, str) else ""
