"""The features of a prompt: what can be told from its bytes alone, one number each. Pure.

A policy names the features that it reads, and only those are computed, each once; what several of them need is computed
once too (prompt_parts.py). docs/routing.md lists them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.routing.code_lines import LOOKED_AT_CHARS
from bitladder.routing.prompt_parts import HEAD_BYTES, Prompt, byte_entropy, entropy_of

# Decimal places of every feature in a score: what is stored and shown is what was decided on.
_PLACES = 4
_QUESTION_MARKS = (b"?", "\uff1f".encode())  # the second one is Chinese and Japanese

# What a feature is taken from.
_HEAD = f"the first {HEAD_BYTES // 1024} KiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature: what it says, how it is computed, and how it is shown."""

    name: str
    meaning: str
    measure: Callable[[Prompt], float]
    unit: str = "0 to 1"
    source: str = "the whole prompt"
    is_long: bool = False  # its values span orders of magnitude
    is_of_text: bool = True  # the text alone gives it


def _words(prompt: Prompt) -> float:
    return prompt.words[0] * prompt.size / max(1, len(prompt.head))


def _zlib_ratio(prompt: Prompt) -> float:
    return len(zlib.compress(prompt.head)) / max(1, len(prompt.head))


def _repeated_4grams(prompt: Prompt) -> float:
    head = prompt.head
    total = len(head) - 3
    if total < 2:
        return 0.0
    grams = np.concatenate([np.frombuffer(head, "<u4", (len(head) - shift) // 4, shift) for shift in range(4)])
    grams.sort()  # of 32-bit numbers: vectorised, four times as fast as a set
    return 1 - (1 + int(np.count_nonzero(grams[1:] != grams[:-1]))) / total


def _repeated_lines(prompt: Prompt) -> float:
    lines = prompt.head.split(b"\n")
    return 1 - len(set(lines)) / len(lines)


def _share(name: str, what: str) -> Feature:
    return Feature(name=name, meaning=f"share of {what} in the bytes", measure=lambda prompt: prompt.share(name))


_ALL = (
    Feature(
        name="entropy",
        meaning="Shannon entropy of the bytes, bits per byte: what the policy `article` looks at",
        measure=lambda prompt: entropy_of(prompt.counts, prompt.size),
        unit="bits per byte, 0 to 8",
    ),
    Feature(
        name="bytes", meaning="length in bytes of UTF-8", measure=lambda prompt: prompt.size, is_long=True, unit="bytes"
    ),
    Feature(
        name="characters",
        meaning="length in characters",
        measure=lambda prompt: prompt.characters,
        is_long=True,
        unit="characters",
    ),
    Feature(name="words", meaning="length in words", measure=_words, is_long=True, unit="words", source=_HEAD),
    Feature(
        name="tokens",
        meaning="length in tokens, estimated from the bytes",
        measure=lambda prompt: prompt.count("tokens"),
        is_long=True,
        unit="tokens",
    ),
    Feature(
        name="tokens_per_byte",
        meaning="estimated tokens by bytes",
        measure=lambda prompt: prompt.share("tokens"),
        unit="tokens per byte, 0 to 1.2",
    ),
    Feature(
        name="bytes_per_character",
        meaning="mean bytes of a character",
        measure=lambda prompt: prompt.size / max(1.0, prompt.characters),
        unit="bytes per character",
    ),
    Feature(
        name="word_length",
        meaning="mean characters of a word",
        measure=lambda prompt: prompt.words[2] / max(1, prompt.words[0]),
        unit="characters per word",
        source=_HEAD,
    ),
    Feature(
        name="line_length",
        meaning="mean bytes of a line",
        measure=lambda prompt: prompt.size / (1 + prompt.count("newlines")),
        is_long=True,
        unit="bytes per line",
    ),
    Feature(
        name="unique_words",
        meaning="different words by all words",
        measure=lambda prompt: prompt.words[1] / max(1, prompt.words[0]),
        source=_HEAD,
    ),
    Feature(
        name="zlib_ratio",
        meaning="size after compression by size before",
        measure=_zlib_ratio,
        unit="above 1 where nothing is gained",
        source=_HEAD,
    ),
    Feature(
        name="repeated_4grams",
        meaning="share of runs of four bytes that came before",
        measure=_repeated_4grams,
        source=_HEAD,
    ),
    Feature(name="repeated_lines", meaning="share of lines that came before", measure=_repeated_lines, source=_HEAD),
    _share("digits", "digits"),
    _share("punctuation", "punctuation"),
    _share("brackets", "brackets"),
    _share("uppercase", "capital letters"),
    _share("spaces", "spaces"),
    _share("newlines", "line ends"),
    Feature(
        name="non_ascii",
        meaning="share of bytes above 127",
        measure=lambda prompt: prompt.share("non_ascii"),
    ),
    Feature(
        name="code_likeness",
        meaning="share of lines that look like code",
        measure=lambda prompt: prompt.code[0] / max(1, prompt.code[1]),
        source=f"the first {LOOKED_AT_CHARS} characters",
    ),
    Feature(
        name="question",
        meaning="1 if it ends with a question mark",
        measure=lambda prompt: float(prompt.text[-64:].rstrip().endswith(_QUESTION_MARKS)),
        unit="0 or 1",
        source="the last 64 bytes",
    ),
    Feature(
        name="chat",
        meaning="1 if it is a conversation, by its route",
        measure=lambda prompt: float(prompt.endpoint.row.is_chat),
        is_of_text=False,
        unit="0 or 1",
        source="the route",
    ),
)
FEATURES = {feature.name: feature for feature in _ALL}
_ENTROPY_ALONE = ("entropy",)


def score_prompt(text: bytes, endpoint: Endpoint, names: Iterable[str]) -> Score:
    """Return the score of a prompt, with the named features and no others.

    Raises:
        KeyError: there is no feature of that name.

    """
    if names == _ENTROPY_ALONE:  # what the shipped policy reads: every request comes by here
        return Score(entropy=round(byte_entropy(text), _PLACES))
    prompt = Prompt(text, endpoint)
    return Score(**{name: round(FEATURES[name].measure(prompt), _PLACES) for name in names})
