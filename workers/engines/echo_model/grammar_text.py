"""Write a text that a grammar allows, byte by byte, as vLLM lets a model write it: llguidance says which byte may come.

The text is short, and the same for the same grammar: what may end, ends. Strings hold words of the prompt.
"""

from __future__ import annotations

import re
from collections import Counter

from llguidance import LLMatcher, LLTokenizer

from workers.engines.echo_model.refusal import RefusedError

_BYTES = LLTokenizer("byte")
_MAX_BYTES = 10_000  # a grammar may ask for a text without an end
_MAX_WORDS = 60  # characters of the prompt in a string
_NOT_PLAIN = re.compile(r"[^\w .,:;!?-]")
_INSIDE = 60  # when so many bytes may come, they are the inside of a string
_ENDS = b'}],:"'
_QUOTE, _POINT = ord('"'), ord(".")
_LAST = b"[{-"  # a schema may have itself in its arrays and objects


def text_of(grammar: str, prompt: str) -> str:
    """Return a text that the grammar allows.

    Raises:
        RefusedError: the grammar cannot be read, or none of its texts is short enough.

    """
    matcher = LLMatcher(_BYTES, grammar, log_level=0)
    words = _NOT_PLAIN.sub("", prompt)[:_MAX_WORDS].strip() or "echo"
    text, written, strings = b"", Counter[int](), 0
    is_filled = False
    while not (matcher.is_error() or matcher.is_accepting()) and len(text) < _MAX_BYTES:
        new = matcher.compute_ff_bytes()
        if not new:
            allowed = [byte for byte, bias in enumerate(matcher.compute_logit_bias()[:256]) if bias]
            is_inside = len(allowed) >= _INSIDE
            if is_inside and not (is_filled and _QUOTE in allowed):
                strings += 1
                filling = (words if strings == 1 else f"{words} {strings}").encode()  # keys of one object differ
                text += filling[: matcher.try_consume_tokens(list(filling))]
                is_filled = True
                continue
            new = bytes([_QUOTE if is_inside else _next(allowed, written, text)])
            is_filled = False
        written.update(new)
        matcher.consume_tokens(list(new))
        text += new
    if matcher.is_error():
        raise RefusedError(f"Grammar error: {matcher.get_error().partition('<state>')[0].strip()[:500]}")
    if not matcher.is_accepting():
        raise RefusedError(f"The echo engine found no text of up to {_MAX_BYTES} bytes that the grammar allows.")
    return text.decode()


def _next(allowed: list[int], written: Counter[int], text: bytes) -> int:
    """Return one of the bytes that may come: what ends something, or else the rarest, so that no loop goes on."""
    if _POINT in allowed and _QUOTE not in allowed and text[-1:].isdigit():
        return _POINT  # a number may have to be more than 0, and less than 1
    ends = [byte for byte in _ENDS if byte in allowed]
    return ends[0] if ends else min(allowed, key=lambda byte: (byte in _LAST, written[byte], byte), default=0)
