"""Runs inside bubblewrap, once with the model's code and once with the checks. Standard library only.

`candidate` reads a set-up line and then a line per call from stdin; it answers each on stdout. `judge` reads a set-up
line and then the answers from stdin; its calls go to stdout and its one-line verdict to stderr. Each one's stdout is
the other's stdin. Only plain data crosses: None, booleans, numbers, strings, bytes, lists, tuples, sets and dicts.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO

_MEMORY_BYTES = 512 * 2**20
_MAX_LINE_BYTES = 2**20
SEED = 0  # some checks draw their inputs: every checkpoint gets the same ones

_Json = Any  # what json reads and writes
Value = Any  # any value of a program


class _CandidateError(Exception):
    """The completion did not answer a call."""


def encode(value: Value) -> _Json:
    """Turn plain data into JSON that tells its types apart."""
    if value is None or isinstance(value, bool):
        return value
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    raise TypeError(f"{type(value).__name__} is no plain data")


def _items(value: Iterable[Value]) -> list[_Json]:
    return [encode(item) for item in value]


# A subclass is written as what it is a kind of: its own methods stay where they are.
_WRITERS: tuple[tuple[type, Callable[[Value], _Json]], ...] = (
    (int, int),
    (float, float),
    (str, str),
    (dict, lambda value: {"dict": [_items(pair) for pair in value.items()]}),
    (list, lambda value: {"list": _items(value)}),
    (tuple, lambda value: {"tuple": _items(value)}),
    (set, lambda value: {"set": _items(value)}),
    (frozenset, lambda value: {"frozenset": _items(value)}),
    (bytes, lambda value: {"bytes": value.hex()}),
    (complex, lambda value: {"complex": [value.real, value.imag]}),
)


def decode(value: _Json) -> Value:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "complex":
        return complex(*content)
    builders: dict[str, Callable[[Iterator[Value]], Value]] = {
        "list": list,
        "tuple": tuple,
        "set": set,
        "frozenset": frozenset,
    }
    return builders[kind](decode(item) for item in content)


def limit(cpu_s: int) -> None:
    """Bound memory, processor time, files, processes and signals; code in here cannot raise the limits again."""
    for what, limit in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def _take_channel(*numbers: int) -> list[int]:
    """Move these descriptors aside and put the null device in their place, so that print and input are harmless."""
    moved = [os.dup(number) for number in numbers]
    null = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(null, number)
    return moved


def candidate() -> None:
    """Define what the model wrote, then answer calls to it."""
    inputs, answers = _take_channel(0, 1)
    with os.fdopen(inputs, "rb") as lines, os.fdopen(answers, "wb") as out:
        setup = json.loads(lines.readline())
        space: dict[str, Value] = {"__name__": "candidate"}
        _say(out, _attempt(lambda: exec(compile(setup["code"], "candidate", "exec"), space)))  # noqa: S102  (the point)
        for line in lines:
            args, kwargs = decode(json.loads(line))
            _say(out, _attempt(partial(_call, space, setup["entry_point"], args, kwargs)))


def _call(space: dict[str, Value], name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    return space[name](*args, **kwargs)


def _attempt(compute: Callable[[], Value]) -> _Json:
    try:
        return {"value": encode(compute())}
    except BaseException as error:
        return {"error": type(error).__name__}


def _say(out: BinaryIO, what: _Json) -> None:
    out.write(json.dumps(what).encode() + b"\n")
    out.flush()


def judge() -> None:
    """Run the checks and write their result on stderr."""
    inputs, calls, verdict = _take_channel(0, 1, 2)
    with os.fdopen(inputs, "rb") as lines, os.fdopen(calls, "wb") as out, os.fdopen(verdict, "w") as last:
        last.write(json.dumps(_judged(lines, out)) + "\n")


def _judged(lines: BinaryIO, out: BinaryIO) -> _Json:
    setup = json.loads(lines.readline())
    random.seed(SEED)
    space: dict[str, Value] = {"__name__": "judge"}
    try:
        _hear(lines)
        exec(compile(setup["prompt"], "prompt", "exec"), space)  # noqa: S102  (ours: helpers that checks use)
        exec(compile(setup["test"], "test", "exec"), space)  # noqa: S102  (ours)

        def call(*args: Value, **kwargs: Value) -> Value:
            _say(out, encode((args, kwargs)))
            return _hear(lines)

        space["check"](call)
    except AssertionError:
        return {"passed": False, "reason": "a check failed"}
    except _CandidateError as error:
        return {"passed": False, "reason": str(error)}
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__} in the checks"}
    return {"passed": True, "reason": ""}


def _hear(lines: BinaryIO) -> Value:
    """Return the answer to a call; the completion may have written anything."""
    line = lines.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise _CandidateError("the answer was too long" if line else "the program ended or was ended")
    try:
        answer = json.loads(line)
        value = None if "error" in answer else decode(answer["value"])
        error = str(answer.get("error", ""))[:80]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        raise _CandidateError("the answer was not plain data") from None
    if error:
        raise _CandidateError(error)
    return value


if __name__ == "__main__":
    limit(int(sys.argv[2]))
    {"candidate": candidate, "judge": judge}[sys.argv[1]]()
