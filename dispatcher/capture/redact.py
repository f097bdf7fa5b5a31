"""Remove personal data and secrets from a prompt before it is kept. Pure.

By rules: e-mail addresses, keys and tokens, passwords, and long numbers are removed; names and street addresses stay.
In doubt a word is removed: calibration needs the shape of a text, not its facts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

EMAIL, KEY = "name@example.com", "<key>"

# The pattern begins at a word and does not backtrack: every character is read once.
_EMAIL = re.compile(r"(?<![\w.+'%-])[\w.+'%-]++@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
)
_KNOWN_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk|bl|hf|gh[oprsu]|glpat|github_pat|xox[abeoprs]|npm|pypi|dop_v1|shpat)[-_][\w.-]{8,}"
    r"|(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)"
)
_NAMED_SECRET = re.compile(
    r"(?i)((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)[\"']?"
    r"\s{0,3}(?:[:=]|\bis\b)\s{0,3}(?:bearer |basic )?[\"']?)([^\s\"',;]{6,})"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) ([\w.+/=-]{12,})")
_URL_LOGIN = re.compile(r"(://)[^\s/@:]{0,128}:[^\s/@]{1,128}@")
_LONG_WORD = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{20,}+")
# Cards, phones, accounts, IP addresses, in any of the usual groupings; dates and times stay.
_NUMBER = re.compile(r"\d(?<![\d.].)(?!\d{3}-\d\d-\d\d)(?:[ ()./-]{0,2}\d){6,}")
_DIGIT = re.compile(r"\d")
_CHANGE = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Z])(?=[a-z])")
# A random word of 20 characters changes between small, capital and digit about twelve times; a name made of words
# changes twice a word.
_RANDOM_CHANGES = 6

_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_PRIVATE_KEY, KEY),
    (_URL_LOGIN, rf"\1{KEY}@"),
    (_EMAIL, EMAIL),
    (_KNOWN_KEY, KEY),
    (_NAMED_SECRET, rf"\1{KEY}"),
    (_BEARER, rf"\1 {KEY}"),
    (_LONG_WORD, lambda match: KEY if _is_random(match[0]) else match[0]),
    (_NUMBER, lambda match: _DIGIT.sub("0", match[0])),
)


def redact(text: str) -> str:
    """Return the text without e-mail addresses, keys, passwords and long numbers, in linear time."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _is_random(word: str) -> bool:
    return any(map(str.isdigit, word)) and len(_CHANGE.findall(word)) >= _RANDOM_CHANGES
