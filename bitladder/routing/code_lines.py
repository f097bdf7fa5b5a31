"""Which lines of a text look like code. Pure; calibration's kinds of text and the feature code_likeness go by it."""

from __future__ import annotations

import re

# A text shows early what it is.
LOOKED_AT_CHARS = 2000

_CODE_LINE = re.compile(
    r"\s*(?:def |class \w+[(:{]|import [\w.{*]+|from \w[\w.]* import |return\b.*[^.\s]$|(?:el)?if .*[:{]$|else[:{ ]*$"
    r"|for .*[:{]$|while .*[:{]$|try[:{ ]*$|except\b.*:$|with .*:$|function\b.*[({]|(?:const|let|var) \w+ ?="
    r"|(?:public|private|static) |#include|package \w+;?$|func \w*\(|fn \w+[(<]|use \w+::|SELECT\b.*|#!/|@\w+[(.\w]*$"
    r"|assert |raise |\w[\w.]*(?:\[[^\]]*\])? ?[-+*/]?= ?\S.*[^.\s]$|\w[\w.]*\(.*\)[;:]?$|[)}\]]+[;,]?$"
    r"|#.*$|//.*$)"
)
# Asked for apart, because an expression would go through every line for it.
_LAST = "{;"


def code_lines(text: str) -> tuple[int, int]:
    """Return how many lines at the beginning of a text look like code, and how many there are that are not empty."""
    lines = [line for line in text[:LOOKED_AT_CHARS].split("\n") if line and not line.isspace()]
    return len([line for line in lines if line[-1] in _LAST or _CODE_LINE.match(line)]), len(lines)
