"""Which patterns match which names, as vLLM 0.32 matches them: `re:` and a regular expression, or the whole name.

Expressions come from a checkpoint, so that one may be made to take for ever: they are tried in a process of their own,
which is ended when its time is up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

# Thousands of expressions on the names of the deepest model take a second.
_LIMIT_S = 20.0
_MAX_TRIED = 4_000_000
_PREFIX = "re:"
# A warning says that an expression means one thing to Python and another to the library that engines use.
_CHILD = """
import json, re, sys, warnings
warnings.simplefilter("error")
patterns, names = json.load(sys.stdin)
found = []
for number, pattern in enumerate(patterns):
    try:
        match = re.compile(pattern).match
        found.append([at for at, name in enumerate(names) if match(name)])
    except (re.error, FutureWarning, DeprecationWarning, RecursionError, OverflowError) as error:
        json.dump({"number": number, "error": str(error)}, sys.stdout)
        break
else:
    json.dump(found, sys.stdout)
"""


class PatternError(Exception):
    """An expression that is none, that may mean something else to an engine, or that takes too long."""


class Patterns:
    """The patterns of one configuration, already tried on all names that will be asked about."""

    def __init__(self, patterns: Iterable[str], names: Iterable[str]) -> None:
        """Raise PatternError, which names the pattern."""
        expressions = sorted({pattern for pattern in patterns if pattern.startswith(_PREFIX)})
        self._found = _tried(expressions, sorted(set(names))) if expressions else {}

    def match(self, pattern: str, name: str) -> bool:
        return name in self._found[pattern] if pattern.startswith(_PREFIX) else pattern == name

    def match_class(self, pattern: str, kind: str) -> bool:
        """Tell whether a target means a class of modules; one that is no expression may be any part of its name."""
        return kind in self._found[pattern] if pattern.startswith(_PREFIX) else pattern.lower() in kind.lower()


def _tried(expressions: list[str], names: list[str]) -> dict[str, frozenset[str]]:
    if len(expressions) * len(names) > _MAX_TRIED:
        raise PatternError(f"{len(expressions)} expressions for {len(names)} names are too many to be tried")
    request = json.dumps([[pattern.removeprefix(_PREFIX) for pattern in expressions], names])
    # -I and -S: nothing of this program or its environment is loaded.
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=_LIMIT_S, check=True)  # noqa: S603  (our own code)
    except subprocess.TimeoutExpired as error:
        raise PatternError(f"its expressions take longer than {_LIMIT_S:g} s, in an engine as well") from error
    except subprocess.CalledProcessError as error:  # it ran out of memory
        raise PatternError(f"its expressions cannot be tried: exit status {error.returncode}") from error
    answer = json.loads(done.stdout)
    if isinstance(answer, dict):
        raise PatternError(f"{expressions[answer['number']]!r:.80} cannot be tried: {answer['error']}")
    return {pattern: frozenset(names[at] for at in places) for pattern, places in zip(expressions, answer, strict=True)}
