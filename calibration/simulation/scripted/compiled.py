"""Scripts as they are run here: the same lines, with what Redis would make at every call made once.

Redis makes a script's functions, and finds its commands by name, at every call. Here that would take most of the time.
"""

from __future__ import annotations

import re

# Commands by their names. No key has another type here than its own: nothing is to be guarded against.
_COMMAND = re.compile(r"\b(?:redis\.p?call|try_call|call_or_replace)\('([A-Z]+)'(?:, )?")
_FUNCTION, _VARIABLES = re.compile(r"local function (\w+)"), re.compile(r"local ([\w, ]*\w)")
# Functions of a text or a time alone: they answer again what they have answered.
_PURE = ("plain_name", "names_in", "tenants_key", "read_keep")


def compiled(text: str) -> str:
    """Return a script as a function of its keys and arguments.

    A statement begins at the margin. Up to the last function, variables are the script's own, and set at every call.
    """
    statements = _statements(_COMMAND.sub(r"commands.\1(", text))
    functions = [_FUNCTION.match(statement) for statement in statements]
    last = max(place for place, match in enumerate(functions) if match)
    once, always = ["local KEYS, ARGV"], ["KEYS, ARGV = keys, arguments"]
    for statement, function in zip(statements[: last + 1], functions, strict=False):
        variables = _VARIABLES.match(statement)
        if function or (variables and variables[1].isupper()):  # upper case: constants
            once.append(statement)
        elif variables:
            once.append(variables[0])
            value = statement[variables.end() :].strip()
            always.append(f"{variables[1]} {value or '= nil'}")
        else:
            always.append(statement)
        if function and function[1] in _PURE:
            once.append(f"{function[1]} = remembering({function[1]})")
    body = "\n".join((*always, *statements[last + 1 :]))
    return "\n".join(("local commands, remembering = ...", *once, f"return function(keys, arguments)\n{body}\nend"))


def _statements(text: str) -> list[str]:
    statements: list[str] = []
    for line in text.splitlines():
        if line.startswith("--"):
            continue
        if re.match(r"\w", line) and not re.match(r"(end|else|elseif)\b", line):
            statements.append(line)
        elif statements:
            statements[-1] += "\n" + line
    return statements
