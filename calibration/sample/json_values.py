"""Read JSON values from text, in any framing; never more than one value in memory.

Lines, values with blanks or nothing between them, over many lines, in a list of any length, with commas too many, with
NaN: log shippers write all of these. A value that is none costs itself, and one that is torn its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import msgspec

from calibration.sample.prompt import BadEntry
from calibration.sample.understood import Extent
from calibration.sample.window import MAX_INDENT, Window
from calibration.texts.decoding import DecodedText

# Characters of one value: far above any prompt that an intake accepts.
MAX_CHARS = 16 * 2**20
_TOO_LARGE = f"a value of more than {MAX_CHARS:,} characters"
# What may stand between two values; some writers end each with a record separator (RFC 7464) or a NUL.
_BETWEEN = re.compile(r"[\s\x00\x1e\ufeff]*")
_END = re.compile(r"[\s\x00\x1e,\]]|$")
# Where two objects meet: within one, there is a comma, unless it is in a text.
_MEETING = re.compile(r'\}[ \t]*(?=\{")')
# Characters of something torn that are kept, in case that the next value begins in them.
_KEPT = MAX_INDENT + 10
_BRACKET = re.compile(r'"(?:[^"\\\r\n]|\\.)*"|[\[{]|[\]}]|[\r\n]')
_DEPTH = {"[": 1, "{": 1, "]": -1, "}": -1}
_COMMA = re.compile(r",\s*[\]}]")
_TOO_MANY = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
# Characters that are tried at first; the library counts lines up to where it fails.
_FIRST = 2**12
# What is wrong this close to the end of what was read so far, is not wrong yet.
_SLACK = 64

_decode = msgspec.json.decode
_scan = json.JSONDecoder().raw_decode


class Value(msgspec.Struct, frozen=True):
    """An object or a list."""

    content: Any  # JSON


class _Torn(Exception):  # noqa: N818  (internal to this file)
    """There is no value here: what was found instead, and where."""

    def __init__(self, at: int, what: str, reason: str = "not JSON", read: int | None = None) -> None:
        self.at = at
        self.what = what
        self.reason = reason
        self.read = at if read is None else read  # so far, in vain


def read_values(stream: BinaryIO, extent: Extent) -> Iterator[Value | BadEntry]:
    """Yield every value, and a BadEntry for everything else; count the bytes of both."""
    text = DecodedText(stream)
    window = Window(text)
    last: Value | BadEntry | None = None
    for last in _Values(window, extent):
        yield last
    if text.foreign:
        extent.lose(text.lost, 0, text.foreign)
        yield BadEntry(f"{text.foreign}, which is not read")
    elif text.fault:
        if text.lost:
            extent.lose(text.lost, window.offset, f"the end of what can be inflated ({text.fault})")
        yield BadEntry(text.fault)
    elif last is None:
        yield BadEntry("empty file")


class _Values:
    def __init__(self, window: Window, extent: Extent) -> None:
        self._window = window
        self._extent = extent
        self._is_in_list = False
        self._may_take_comma = False
        self._tried = 0  # the end of a line that is more, or less, than one value

    def __iter__(self) -> Iterator[Value | BadEntry]:
        window = self._window
        last: Value | BadEntry | None = None
        while window.skip(_BETWEEN):
            if window.place >= self._tried:
                yield from self._lines()
                if not window.skip(_BETWEEN):
                    break
            if self._mark():
                continue
            last = self._next()
            self._may_take_comma = True
            yield last
        if self._is_in_list and not window.text.fault and last != BadEntry("cut off"):
            yield BadEntry("list is cut off")

    def _lines(self) -> Iterator[Value]:
        """Yield objects as long as each has a line for itself; most logs are nothing else, so that this is short."""
        window = self._window
        while (end := window.line_end()) >= 0 and window.chars.startswith("{", window.at):
            line = window.chars[window.at : end]
            try:
                content = _decode(line if line.endswith("}") else line.rstrip(", \r\t"))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._tried = window.place + len(line)
                return
            if len(line) > MAX_CHARS:
                return
            self._extent.understood += window.use(end)
            window.use(end + 1)
            self._may_take_comma = True
            yield Value(content)

    def _next(self) -> Value | BadEntry:
        try:
            return self._value()
        except _Torn as torn:
            return self._lose(torn)

    def _mark(self) -> bool:
        """Take a mark that is no value, if there is one: the brackets of one list, and a comma behind each value."""
        mark = self._window.char
        if mark == "," and self._may_take_comma:
            self._may_take_comma = False
        elif mark == "[" and not self._is_in_list:
            self._is_in_list = True
        elif mark == "]" and self._is_in_list:
            self._is_in_list, self._may_take_comma = False, True
        else:
            return False
        self._window.use(self._window.at + 1)
        return True

    def _value(self) -> Value | BadEntry:
        window, size = self._window, _FIRST
        while True:
            part = window.chars[window.at : window.at + size]
            is_whole = window.is_last and len(part) == window.left
            try:
                content, end = _scan(part)
            except json.JSONDecodeError as error:
                if is_whole or not _is_unfinished(part, error):
                    return self._lenient(part, error)
            except (RecursionError, ValueError) as error:
                raise self._endless(size, "a value that is too deep, or a number that is too long") from error
            else:
                # A number may go on.
                if is_whole or end < len(part) or isinstance(content, dict | list | str):
                    return self._judged(content, window.at + end)
            if size > MAX_CHARS:
                raise self._endless(size, _TOO_LARGE, "too large")
            size = min(4 * size, MAX_CHARS + 1)
            window.grow(size)

    def _endless(self, size: int, what: str, reason: str = "not JSON") -> _Torn:
        window = self._window
        return _Torn(window.at, what, reason, min(len(window.chars), window.at + size))

    def _judged(self, content: Any, end: int) -> Value | BadEntry:  # noqa: ANN401  (JSON)
        """Return a value that was read up to there, unless it is none that could hold a prompt."""
        window = self._window
        if not isinstance(content, dict | list):
            if not _END.match(window.chars, end):
                raise _Torn(window.at, repr(window.char))  # as in 2026-11-24 12:00:00 INFO
            return self._bad(end, "a text" if isinstance(content, str) else "a number or a constant", "not an object")
        if end - window.at > MAX_CHARS:
            return self._bad(end, _TOO_LARGE, "too large")
        if not _is_text(window, end, content):
            return self._bad(end, "bytes that are no UTF-8, or half a surrogate pair", "not UTF-8")
        self._extent.understood += window.use(end)
        return Value(content)

    def _lenient(self, part: str, error: json.JSONDecodeError) -> Value | BadEntry:
        """Return a value that is one but for commas too many; one that is closed costs itself alone."""
        window, what, place = self._window, _describe(part, error), error.pos
        if _has_comma(part, place) and (end := self._closing(is_on_one_line=False)):
            try:
                content = json.loads(_TOO_MANY.sub(lambda comma: comma[1] or " ", window.chars[window.at : end]))
            except (ValueError, RecursionError):
                return self._bad(end, what, "not JSON", window.at + place)
            return self._judged(content, end)
        end = self._closing(is_on_one_line=True)
        if end and not _MEETING.search(window.chars, window.at + place, end):
            return self._bad(end, what, "not JSON", window.at + place)
        is_cut = error.msg.startswith("Unterminated string") or not part[place:].strip()
        raise _Torn(window.at + place, what, "cut off" if is_cut else "not JSON")

    def _closing(self, *, is_on_one_line: bool) -> int:
        """Return where the value is closed by its brackets, or 0 where it is not, or that is too much to be read."""
        window = self._window
        while True:
            limit = min(window.credit, MAX_CHARS)
            end, read = _closed(window.chars, window.at, window.at + limit, is_on_one_line=is_on_one_line)
            if end or is_on_one_line or window.is_last or window.left > limit:
                break
            window.grow(2 * window.left)
        window.may_read_again(read - window.at)
        return end

    def _bad(self, end: int, what: str, reason: str, at: int | None = None) -> BadEntry:
        window = self._window
        offset = window.offset_of(window.at if at is None else at) if self._extent.first is None else 0
        self._extent.lose(window.use(end), offset, what)
        return BadEntry(reason)

    def _lose(self, torn: _Torn) -> BadEntry:
        """Go to where the next value may begin, or, where too much was read again already, to one behind the damage."""
        window = self._window
        after = _after(window.indent if window.char in "{[" else MAX_INDENT)
        bad = self._bad(window.at, torn.what, torn.reason, torn.at)
        begin = window.at + 1 if window.may_read_again(torn.read - window.at) else max(torn.read, window.at + 1)
        meeting = max(begin, torn.at)
        while not (match := _earlier(after.search(window.chars, begin), _MEETING.search(window.chars, meeting))):
            end = len(window.chars) if window.is_last else max(window.at, len(window.chars) - _KEPT)
            self._extent.lost += window.use(end)
            if window.is_last:
                return bad
            window.grow(window.left + 1)
            begin = meeting = window.at
        self._extent.lost += window.use(match.end())
        return bad


def _earlier(first: re.Match[str] | None, second: re.Match[str] | None) -> re.Match[str] | None:
    return min(filter(None, (first, second)), key=lambda match: match.start(), default=None)


@cache
def _after(indent: int) -> re.Pattern[str]:
    """Return where the next value may begin behind one with so many blanks before it; those with more are within it."""
    return re.compile(rf"[\r\n][ \t]{{0,{indent}}}(?=[{{\[])")


def _is_unfinished(part: str, error: json.JSONDecodeError) -> bool:
    """Tell whether what is wrong may be that only the beginning of a value was read."""
    return error.msg.startswith("Unterminated string") or error.pos > len(part) - _SLACK


def _has_comma(part: str, at: int) -> bool:
    """Tell whether it is a comma before a bracket that is wrong there."""
    comma = part.rfind(",", 0, at + 1)
    return comma >= 0 and _COMMA.match(part, comma) is not None


def _closed(chars: str, begin: int, limit: int, *, is_on_one_line: bool) -> tuple[int, int]:
    """Return where the brackets that are opened here are closed, or 0, and how far that was looked for."""
    depth = 0
    for match in _BRACKET.finditer(chars, begin, limit):
        char = chars[match.start()]
        depth += _DEPTH.get(char, 0)
        if depth <= 0 and char in _DEPTH:
            return (match.end() if char in "]}" and depth == 0 else 0), match.end()
        if is_on_one_line and char in "\r\n":
            return 0, match.end()
    return 0, min(limit, len(chars))


def _is_text(window: Window, end: int, content: Any) -> bool:  # noqa: ANN401  (JSON)
    """Tell whether all texts in a value are characters: half of a surrogate pair stands for a byte, or for nothing."""
    if window.is_ascii and window.chars.find("\\u", window.at, end) < 0:
        return True
    if not _HALF_PAIR.search(window.chars, window.at, end):
        return True
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _describe(part: str, error: json.JSONDecodeError) -> str:
    """Say what is there in one character, because more may be of a prompt, and what JSON has there."""
    what = repr(part[error.pos]) if error.pos < len(part) else "the end"
    return f"{what} ({error.msg[0].lower()}{error.msg[1:].removesuffix(' at').removesuffix(' starting')})"
