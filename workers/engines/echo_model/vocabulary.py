"""Tokens of the echo engine: a token is a word with the white space before it, and its id is a hash.

A hash does not tell its word, so this process remembers the words whose ids it gave away, but for very long ones. The
id of any other word reads as `<id>`, and `<id>` has that id again.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

SIZE = 2**31
_MAX_WORDS, _MAX_CHARS = 100_000, 200  # that are remembered, and of each: 20 MB at most
_TOKEN = re.compile(r"\s*\S+(?:\s+\Z)?")
_UNKNOWN = re.compile(r" <(\d{1,10})>")
_words: dict[int, str] = {}


def split(text: str) -> list[str]:
    """Return the tokens of a text: as many as it has words, and together the text."""
    return _TOKEN.findall(text) if text.strip() else [text] if text else []


def count(text: str) -> int:
    """Return the number of a text's tokens."""
    return len(text.split()) or int(bool(text))


def id_of(token: str) -> int:
    """Return a token's id."""
    if (unknown := _UNKNOWN.fullmatch(token)) and int(unknown[1]) < SIZE:
        return int(unknown[1])
    number = zlib.crc32(token.encode()) % SIZE
    if number not in _words and len(token) <= _MAX_CHARS:
        if len(_words) >= _MAX_WORDS:
            del _words[next(iter(_words))]
        _words[number] = token
    return number


def text_of(ids: Iterable[int]) -> str:
    """Return the text that ids stand for."""
    return "".join(_words.get(number) or f" <{number}>" for number in ids)
