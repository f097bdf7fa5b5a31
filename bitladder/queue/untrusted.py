"""Fields in Redis, read with care: another program may have written them."""

from __future__ import annotations

# What JSON's readers can hold in a number.
MAX_NUMBER = 2**53
# Of a tier, code, reason or id.
MAX_WORD_CHARS = 200
# Of the name of a queue: those of a model (128) and of two tiers (63 each) stand in it.
MAX_QUEUE_CHARS = 400


def read_number(raw: bytes | float | None) -> int | None:
    """Read a whole number; None for everything else."""
    try:
        number = int(float(raw or b""))
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= MAX_NUMBER else None


def read_amount(raw: bytes | None) -> float | None:
    """Read an amount of money, 0 or more; None for everything else."""
    try:
        amount = float(raw or b"")
    except ValueError:
        return None
    return amount if 0 <= amount < MAX_NUMBER else None


def short(text: str, max_chars: int = MAX_WORD_CHARS) -> str:
    """Return a text, or its beginning."""
    return text if len(text) <= max_chars else f"{text[:max_chars]}…"
