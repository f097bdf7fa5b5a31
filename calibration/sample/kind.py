"""What kind of text a prompt is, and in which language: small rules, in the order in which they are asked. Pure."""

from __future__ import annotations

import re
from collections import Counter

from bitladder.routing.code_lines import code_lines

# Kind and language show early, and a log has millions of lines.
_LOOKED_AT = 2000
KINDS = ("json", "chat", "markup", "log", "code", "prose")
# Nothing to say: data has no language, and some texts are too short to tell.
NO_LANGUAGE = "-"

_CLOSED_BY = {"{": "}", "[": "]"}
_CHAT = re.compile(r"^(?:user|assistant|human|system|ai) ?:|<\|im_start\|>", re.IGNORECASE | re.MULTILINE)
_MARKUP = re.compile(r"\s*<(?:!doctype|\?xml|[a-z][\w:-]*(?:\s[^<>]*)?/?>)", re.IGNORECASE)
_LOG = re.compile(
    r"^\S{0,40} ?(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\w{3} +\d+ \d\d:\d\d:\d\d|\[?\d\d:\d\d:\d\d|"
    r"\[?(?:DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL)\b)",
    re.MULTILINE,
)
# A first line that only a program has.
_CODE_START = re.compile(
    r"\s*(?:#!/|#include\b|<\?php|package \w+\n"
    r"|(?:SELECT|WITH|INSERT INTO|CREATE TABLE|UPDATE)\b [^.?]*\b(?:FROM|AS|VALUES|SET)\b)"
)

_PROGRAMMING = (
    (
        "python",
        re.compile(r"^\s*(?:def \w+\(.*|class \w+.*:$|from [\w.]+ import |import \w+(?:\.\w+)*$|elif |>>> )", re.M),
    ),
    ("c", re.compile(r"#include|\b(?:int|void|char) \*?\w+\(|std::|->\w+", re.M)),
    ("java", re.compile(r"\bpublic (?:static |final )*(?:class|void|int|String)\b|System\.out|^import java", re.M)),
    ("javascript", re.compile(r"\b(?:const|let|var) \w+ ?=|=> ?[{(]|\bfunction\b ?\w*\(|console\.log", re.M)),
    ("go", re.compile(r"^package \w+$|\bfunc (?:\(\w+ \*?\w+\) )?\w+\(|:= ", re.M)),
    ("rust", re.compile(r"\bfn \w+[(<]|\blet mut |\bimpl\b|println!\(", re.M)),
    ("sql", re.compile(r"^\s*(?:SELECT\b[^;]*\bFROM\b|INSERT INTO|CREATE TABLE|UPDATE \w+ SET)", re.M | re.IGNORECASE)),
    ("shell", re.compile(r"^#!.*\b(?:ba)?sh\b|^\s*(?:sudo|apt-get|echo|export|cd|grep) |\$\{?\w+|^\s*fi$", re.M)),
)

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),  # before zh: Japanese uses Chinese characters too
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
# Words that one of these languages uses all the time and the others seldom.
_STOP_WORDS = {
    word: language
    for language, words in {
        "en": "the and of is are that this with for you it was have not what how can write explain",
        "de": "der und das ist nicht ein eine mit den dem für auf sich auch wie wir ich sie zu",
        "fr": "le les des et est une dans pour que qui sur pas avec vous nous du au ce je",
        "es": "el los las y una por para con del como está qué más pero su lo yo",
        "it": "il gli che di non sono della con per questo anche più è nel perché",
        "pt": "o os uma não com para do da em que você mais são ao isso",
        "nl": "het een van niet zijn dat voor met ook wij naar aan deze wordt",
        "pl": "się nie jest że na do jak przez oraz dla czy",
        "tr": "ve bir bu için ile ne gibi değil olarak çok",
        "sv": "och att det som en är inte på för med av jag",
    }.items()
    for word in words.split()
}
_WORD = re.compile(r"[^\W\d_]+")


def kind_and_language(text: str, turns: int = 1) -> tuple[str, str]:
    """Return one of KINDS, and a language code, the name of a programming language, or NO_LANGUAGE."""
    head = text[:_LOOKED_AT]
    kind = _kind(text, head, turns)
    if kind == "code":
        return kind, next((name for name, pattern in _PROGRAMMING if pattern.search(head)), NO_LANGUAGE)
    return kind, _language(head) if kind in ("chat", "prose") else NO_LANGUAGE


def _kind(text: str, head: str, turns: int) -> str:
    first = head.lstrip()[:1]
    if first in _CLOSED_BY and '"' in head and 2 * text.rfind(_CLOSED_BY[first]) > len(text):
        return "json"
    if turns > 1 or len(_CHAT.findall(head)) > 1:
        return "chat"
    if first == "<" and _MARKUP.match(head):
        return "markup"
    code, lines = code_lines(head)
    if lines <= 2 * len(_LOG.findall(head)):
        return "log"
    # Prose about code is prose, until code takes two fifths of it or is fenced.
    if "```" in head or _CODE_START.match(head) or 2 * lines <= 5 * code:
        return "code"
    return "prose"


def _language(head: str) -> str:
    if not head.isascii():
        for language, script in _SCRIPTS:
            if 5 * len(script.findall(head)) >= len(head):
                return language
    votes = Counter(_STOP_WORDS.get(word) for word in _WORD.findall(head.lower()))
    votes.pop(None, None)
    return votes.most_common(1)[0][0] or NO_LANGUAGE if votes else NO_LANGUAGE
