"""The part of a text that was read and not yet used: it grows at its end, and shrinks from its beginning."""

from __future__ import annotations

import re

from calibration.texts.decoding import CHUNK, DecodedText

# Characters may be read again behind something torn, but in all not much more often than so many times.
_AGAIN, _AGAIN_AT_FIRST = 4, 2**22
# Blanks at the beginning of a line are counted up to so many.
MAX_INDENT = 200


class Window:
    """Characters, the place where the next value begins among them, and which byte that is."""

    def __init__(self, text: DecodedText) -> None:
        self.text = text
        self.chars = ""
        self.at = 0
        self.is_last = False  # nothing more will come
        self._chunks = iter(text)
        self.indent = 0  # blanks before the first value on this line
        self._used = 0  # bytes
        self._before = 0  # characters that were used and are no longer here
        self.is_ascii = True
        self._line_end = 0  # of the first line that ends behind `at`; the length of the window where none does
        self.credit = _AGAIN_AT_FIRST

    @property
    def offset(self) -> int:
        """Return the place in bytes."""
        return self.text.start + self._used

    @property
    def place(self) -> int:
        """Return the place in characters."""
        return self._before + self.at

    @property
    def left(self) -> int:
        return len(self.chars) - self.at

    @property
    def char(self) -> str:
        return self.chars[self.at]

    def offset_of(self, place: int) -> int:
        return self.offset + self.text.size(self.chars[self.at : place])

    def skip(self, between: re.Pattern[str]) -> bool:
        """Go to the next character that is not between values; tell whether there is one."""
        while True:
            match = between.match(self.chars, self.at)
            if match and (gap := match[0]):
                self._note(gap)
                self.use(match.end())
            if self.at < len(self.chars):
                return True
            if self.is_last:
                return False
            self.grow(CHUNK)

    def _note(self, gap: str) -> None:
        """Remember how many blanks there are before the first value on this line."""
        line = max(gap.rfind("\n"), gap.rfind("\r"))
        if line >= 0:
            self.indent = min(len(gap) - line - 1, MAX_INDENT)

    def line_end(self) -> int:
        """Return where this line ends, or -1 where that is not known; looked for once for all values on it."""
        if self._line_end < self.at:
            self._line_end = self._find(self.at)
        if self._line_end == len(self.chars) and self.left < CHUNK and not self.is_last:
            self.grow(CHUNK)
        return self._line_end if self._line_end < len(self.chars) else -1

    def use(self, end: int) -> int:
        """Go there and return how many bytes that was."""
        taken = end - self.at
        size = taken if self.is_ascii and self.text.is_utf8 else self.text.size(self.chars[self.at : end])
        self.at = end
        self._used += size
        self.credit += _AGAIN * taken
        return size

    def may_read_again(self, chars: int) -> bool:
        """Tell whether so many characters may be read once more, and remember that they were."""
        if chars > self.credit:
            return False
        self.credit -= chars
        return True

    def grow(self, size: int) -> None:
        """Read until there are so many characters that are not used, or nothing more comes."""
        parts, length = [self.chars[self.at :]], self.left
        while length < size and not self.is_last:
            chunk = next(self._chunks, None)
            self.is_last = chunk is None
            parts.append(chunk or "")
            length += len(parts[-1])
        end = self._line_end - self.at
        self._before += self.at
        self.chars, self.at = "".join(parts), 0
        self.is_ascii = self.chars.isascii()
        is_known = 0 <= end < len(parts[0])
        self._line_end = end if is_known else self._find(max(0, min(end, len(parts[0]))))

    def _find(self, begin: int) -> int:
        end = self.chars.find("\n", begin)
        return len(self.chars) if end < 0 else end
