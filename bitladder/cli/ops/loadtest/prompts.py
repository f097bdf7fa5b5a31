"""Prompts of every kind of entropy: packaged texts, and what a seed makes.

No two are alike: each begins with a number of its own, or an engine's cache of prefixes would answer for it.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from functools import cache

from bitladder.routing.prompt_parts import byte_entropy
from calibration.texts.packaged import KINDS as TEXT_KINDS
from calibration.texts.packaged import packaged_calibration

# About, in English; an engine counts what it gets.
TOKEN_BYTES = 4
_SYMBOLS = string.ascii_letters + string.digits + string.punctuation
_BLOCK_TOKENS = 512  # of a trace's hash ids
KINDS = (*TEXT_KINDS, "numbers", "random", "repeated")
# Bits per byte; the policy `article` has its threshold at 4.5.
BANDS = ("below 3.5", "3.5 to 4.5", "4.5 to 5.5", "above 5.5")


def make_prompt(kind: str, tokens: int, number: int, dice: random.Random) -> str:
    """Return a prompt of about so many tokens."""
    size = max(16, tokens * TOKEN_BYTES)
    head = f"[{number}] "
    return head + _text(kind, size, dice)[: max(1, size - len(head))]


def shared_prompt(kind: str, tokens: int, blocks: Sequence[int], number: int) -> str:
    """Return a prompt whose beginning is that of all prompts with the same first blocks, as in a trace."""
    texts = [_block(kind, block) for block in blocks[: -(-tokens // _BLOCK_TOKENS)]]
    tail = f" [{number}]"
    return "".join(texts)[: max(1, tokens * TOKEN_BYTES - len(tail))] + tail


def entropy_of_text(text: str) -> float:
    """Return what the policy `article` sees of a prompt, bits per byte."""
    return round(byte_entropy(text.encode()), 4)


def band_of(entropy: float) -> str:
    """Return the class of entropy."""
    return BANDS[(entropy >= 3.5) + (entropy >= 4.5) + (entropy >= 5.5)]


def _block(kind: str, block: int) -> str:
    size = _BLOCK_TOKENS * TOKEN_BYTES
    return _text(kind, size, random.Random(block))[:size].ljust(size)  # noqa: S311  (traffic)


def _text(kind: str, size: int, dice: random.Random) -> str:
    if kind == "numbers":
        return " ".join(str(dice.randrange(10**6)) for _ in range(size // 4 + 1))
    if kind == "random":
        return "".join(dice.choices(_SYMBOLS, k=size))
    if kind == "repeated":
        return f"{dice.choice(('again', 'and on', 'test'))} " * (size // 4 + 1)
    texts = _texts()[kind]
    begin, length = dice.randrange(len(texts)), 0
    parts: list[str] = []
    while length < size:
        parts.append(texts[(begin + len(parts)) % len(texts)])
        length += len(parts[-1]) + 2
    return "\n\n".join(parts)


@cache
def _texts() -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for entry in packaged_calibration():
        texts.setdefault(entry.kind, []).append(entry.text)
    return texts
