"""Make untrusted text safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text in one line, with everything but visible characters escaped.

    Control characters steer a terminal, some others turn what stands beside them around, and the halves of a character
    that stand for bytes of a name that is no UTF-8 have no encoding at all.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
