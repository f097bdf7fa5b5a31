"""What an engine should not have said: token loops, gibberish, nothing. Pure; microseconds for an answer of 4 KB.

An answer is degenerate only where no prompt could have meant it: a loop that went on until the tokens ran out, of words
that are not a phrase of the prompt. A model that is asked to repeat something, fills a table or lists equal lines ends
by itself, or repeats what it was given. An answer is empty where its tokens ran out and none of them was seen, in a
text, a tool call or a thought.
"""

from __future__ import annotations

from typing import Any

import msgspec

# A unit longer than this is a paragraph that comes again; the models of small tiers loop in words and sentences.
MAX_UNIT = 128
# The end of the answer must be at least so many characters of one unit, and so many units. 400 characters are about
# 100 tokens: fewer may be a refrain, and cost little.
MIN_CHARS = 400
MIN_REPEATS = 8
# Replacement characters stand for bytes that are no UTF-8. An answer cut within a character has one; one in twenty
# means that the tokens are noise.
MAX_REPLACED = 0.05
MIN_REPLACED = 8
# So many tokens without a text are none: a character takes four at most, and is held back until it is whole.
MIN_UNSEEN = 4
# Fields of requests whose answer may be hidden: thoughts that nobody wants to see, tool calls that were cut.
_HIDING = (b'"include_reasoning"', b'"tools"')
# The first entry of several vocabularies: what an engine samples when all logits are NaN.
_ZEROTH = "!"


class _Choice(msgspec.Struct):
    text: str | None = None
    message: dict[str, Any] | None = None  # its content is a text, or a list of parts
    finish_reason: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it ended because its tokens ran out."""
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
    completion_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer).decode


def fault_in(answer: bytes, request: bytes) -> str | None:
    """Return what is wrong with an OpenAI answer to a request: loop, gibberish, empty, or None."""
    try:
        its = _answer(answer)
    except msgspec.DecodeError:
        return None  # an answer in some other shape is for its reader to judge
    if any(choice.is_cut and choice.is_empty for choice in its.choices) and _are_unseen(its, request):
        return "empty"
    found = (degeneration(_text(choice), request, is_cut=choice.is_cut) for choice in its.choices)
    return next((kind for kind in found if kind), None)


def degeneration(text: str, request: bytes, *, is_cut: bool) -> str | None:
    """Return what is wrong with a text that answers a request; `is_cut`: it ended because its tokens ran out."""
    replaced = text.count("\N{REPLACEMENT CHARACTER}")
    if replaced >= MIN_REPLACED and replaced > MAX_REPLACED * len(text) and not _has_replacement(request):
        return "gibberish"
    unit = loop_unit(text) if is_cut else None
    return "loop" if unit and _means_nothing(unit) and not _is_phrase_of(unit, request) else None


def loop_unit(text: str) -> str | None:
    """Return the unit that the end of a text repeats; None when it does not.

    The last characters come again one period earlier: one search finds the period, one comparison proves it.
    """
    if len(text) < MIN_CHARS:
        return None
    probe = text[-MAX_UNIT:]
    before = text.rfind(probe, 0, len(text) - 1)
    period = len(text) - len(probe) - before
    if before < 0 or period > MAX_UNIT:
        return None
    need = max(MIN_CHARS, MIN_REPEATS * period)
    end = text[-need:]
    return text[-period:] if len(end) == need and end[period:] == end[:-period] else None


def _are_unseen(answer: _Answer, request: bytes) -> bool:
    """Return whether tokens were written that should have been seen."""
    usage = answer.usage
    if usage is None or (usage.completion_tokens or 0) < MIN_UNSEEN * len(answer.choices):
        return False
    thought = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return not thought and not any(word in request for word in _HIDING)


def _means_nothing(unit: str) -> bool:
    """Return whether no table, number or line of code looks like that: it has letters, or is that of NaN."""
    return unit.strip() == _ZEROTH or any(map(str.isalpha, unit))


def _is_phrase_of(unit: str, request: bytes) -> bool:
    """Return whether the request contains the unit, wherever in it the loop was cut off."""
    try:
        given = f" {' '.join(_joined(msgspec.json.decode(request)).split())} "
    except msgspec.DecodeError:
        return False
    count = len((unit + unit).split()) - len(unit.split())  # words in a unit that may begin within one
    if count == 0:
        turns = (unit[at:] + unit[:at] for at in range(len(unit)))
        return any(f" {turn} " in given or turn * 4 in given for turn in turns)
    words = (unit * 3).split()[1:-1]
    return any(f" {' '.join(words[at : at + count])} " in given for at in range(count))


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
