"""What an engine should not have said: token loops and gibberish. Pure; microseconds for an answer of 4 KB.

An answer is degenerate only where no prompt could have meant it: a loop that went on until the tokens ran out, of words
that are not a phrase of the prompt. A model that is asked to repeat something, fills a table or lists equal lines ends
by itself, or repeats what it was given.
"""

from __future__ import annotations

from typing import Any

import msgspec

# A unit longer than this is a paragraph that comes again; the models of small tiers loop in words and sentences.
MOST_UNIT = 128
# The end of the answer must be at least so many characters of one unit, and so many units. 400 characters are about
# 100 tokens: fewer may be a refrain, and cost little.
LEAST_CHARS = 400
LEAST_REPEATS = 8
# Replacement characters stand for bytes that are no UTF-8. An answer cut within a character has one; one in twenty
# means that the tokens are noise.
MOST_REPLACED = 0.05
LEAST_REPLACED = 8
# The first entry of several vocabularies: what an engine samples when all logits are NaN.
_ZEROTH = "!"


class _Message(msgspec.Struct):
    content: Any = None  # text, or a list of parts


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_answer = msgspec.json.Decoder(_Answer).decode


def fault_in(answer: bytes, request: bytes) -> str | None:
    """Return what is wrong with an OpenAI answer to a request: loop, gibberish, or None."""
    try:
        choices = _answer(answer).choices
    except msgspec.DecodeError:
        return None  # an answer in some other shape is for its reader to judge
    found = (degeneration(_text(choice), request, is_cut=choice.finish_reason == "length") for choice in choices)
    return next((kind for kind in found if kind), None)


def degeneration(text: str, request: bytes, *, is_cut: bool) -> str | None:
    """Return what is wrong with a text that answers a request; `is_cut`: it ended because its tokens ran out."""
    replaced = text.count("\N{REPLACEMENT CHARACTER}")
    if replaced >= LEAST_REPLACED and replaced > MOST_REPLACED * len(text) and not _has_replacement(request):
        return "gibberish"
    unit = loop_unit(text) if is_cut else None
    return "loop" if unit and _means_nothing(unit) and not _is_phrase_of(unit, request) else None


def loop_unit(text: str) -> str | None:
    """Return the unit that the end of a text repeats; None when it does not.

    The last characters come again one period earlier: one search finds the period, one comparison proves it.
    """
    if len(text) < LEAST_CHARS:
        return None
    probe = text[-MOST_UNIT:]
    before = text.rfind(probe, 0, len(text) - 1)
    period = len(text) - len(probe) - before
    if before < 0 or period > MOST_UNIT:
        return None
    need = max(LEAST_CHARS, LEAST_REPEATS * period)
    end = text[-need:]
    return text[-period:] if len(end) == need and end[period:] == end[:-period] else None


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
    content = choice.message.content if choice.message else choice.text
    return content if isinstance(content, str) else ""
