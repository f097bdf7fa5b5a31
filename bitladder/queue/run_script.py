"""The Lua scripts, loaded from their files, and how one is run.

A script's head says which parts it needs, its keys, their types, and what it returns. A script makes its functions anew
at every call, so it gets the parts that it needs (scripts/parts/) and no more.

A server that has lost its scripts answers NOSCRIPT, and has not run the call: `attempts` loads the script and sends the
call again, for asyncio clients (`run`), blocking ones (`run_sync`) and bundles of calls (`drive`) alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import redis
import redis.asyncio
from redis.exceptions import NoScriptError, ResponseError

from bitladder.queue.scripted_ends import lua_ends
from bitladder.script_constants import lua_constants

# What a command is written with.
Argument = str | bytes | int | float
Command = Sequence[Argument]
# Sends commands and returns for each its answer, or the exception that stands for it.
Send = Callable[[Sequence[Command]], Awaitable[list[Any]]]

_STEERING = ("drain", "move", "pause", "resume", "write_settings")
NAMES = (
    "submit",
    "claim",
    "extend",
    "emit",
    "finish",
    "requeue",
    "reap",
    "cancel",
    "expire",
    "depths",
    "look",
    "chunks",
    "heads",
    "records",
    "job_sizes",
    "job_slices",
    "overview",
    "retire",
    "sweep",
    "release",
    "drop",
    "rate",
    "check",
    "spend",
    "health",
    "budget",
    "add_deliveries",
    "take_deliveries",
    "note_attempt",
    "save_endpoint",
    "remove_endpoint",
    "watch_jobs",
    "add_file",
    "drop_file",
    "create_batch",
    "lease_batches",
    "write_batch",
    "cancel_batch",
    *_STEERING,
)

# A full Redis refuses what may grow. These must go on: they end jobs and free their prompts, give them an end, keep
# leases alive, count the requests of a key, some of which read outcomes, wait for them, deliver webhooks, or steer.
ALLOW_OOM = (
    "claim",
    "extend",
    "finish",
    "requeue",
    "reap",
    "cancel",
    "expire",
    "sweep",
    "retire",
    "drop",
    "rate",
    "look",
    "check",
    "spend",
    "health",
    "budget",
    "take_deliveries",
    "note_attempt",
    "remove_endpoint",
    "watch_jobs",
    "drop_file",
    "lease_batches",
    "write_batch",
    "cancel_batch",
    *_STEERING,
)

# Scripts in folders of their own.
_FOLDERS = {
    **dict.fromkeys(("check", "chunks", "depths", "heads", "look", "overview", "records"), "reading/"),
    **dict.fromkeys(("job_sizes", "job_slices"), "reading/"),
    **dict.fromkeys(("budget", "rate", "spend"), "spending/"),
    **dict.fromkeys(("add_deliveries", "take_deliveries", "note_attempt"), "webhooks/"),
    **dict.fromkeys(("save_endpoint", "remove_endpoint", "watch_jobs"), "webhooks/"),
    **dict.fromkeys(("drop", "release", "sweep"), "upkeep/"),
    **dict.fromkeys(("add_file", "drop_file"), "files/"),
    **dict.fromkeys(_STEERING, "steering/"),
    **dict.fromkeys(("cancel_batch", "create_batch", "lease_batches", "write_batch"), "batching/"),
}
_CLAIMING = ("below_floor", "facts", "fairness", "hold", "inspection", "pauses", "pop")  # parts of the claim
_NEEDS = re.compile(r"^-- Needs: (.+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Return the text of a script, with the parts that it needs before it."""
    text = _read(_FOLDERS.get(name, "") + name)
    flags = "#!lua flags=allow-oom\n" if name in ALLOW_OOM else ""
    parts: dict[str, str] = {}
    _add_parts(text, parts)
    body = "\n".join((*parts.values(), text))
    return flags + lua_constants(body) + lua_ends(body) + body


def part(name: str) -> str:
    """Return the text of one part."""
    return _read(f"claiming/{name}" if name in _CLAIMING else f"parts/{name}")


def needs(text: str) -> list[str]:
    """Return the parts that a script or a part needs itself, as its head lists them."""
    line = _NEEDS.search(text)
    if line is None:
        raise ValueError("a Lua script must have a line '-- Needs: ' with parts, or 'nothing', in its head")
    return [] if line[1] == "nothing" else line[1].split(", ")


def _add_parts(text: str, parts: dict[str, str]) -> None:
    """Add the parts that a text needs, each once and behind those that it needs itself."""
    for name in needs(text):
        if name not in parts:
            _add_parts(part(name), parts)
            parts[name] = part(name)


@cache
def _read(name: str) -> str:
    return (files("bitladder.queue") / "scripts" / f"{name}.lua").read_text(encoding="utf-8")


@cache
def digest(name: str) -> str:
    """Return the name EVALSHA knows the script by."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


# The answer of submit.lua to a call that arrives too late.
_LATE = re.compile(r"LATE (\d{1,15})")


class Call(msgspec.Struct, frozen=True):
    """One EVALSHA."""

    script: str
    keys: Sequence[str]
    args: Sequence[Argument]
    is_timely: bool = False  # its first argument, before `args`, says until when it may run

    def words(self, until_ms: int = 0) -> Command:
        """Return the call as a command; `until_ms`: on the server's clock."""
        limit = (until_ms,) if self.is_timely else ()
        return ("EVALSHA", digest(self.script), len(self.keys), *self.keys, *limit, *self.args)


class LostError(Exception):
    """A command has no answer, for this reason."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason: Exception = reason.reason if isinstance(reason, LostError) else reason


class NotSentError(LostError):
    """The command has not reached a server that would carry it out."""


class UnansweredError(LostError):
    """The command was sent. Whether it was carried out, or will be, is not known."""


# What stands for an answer: ResponseError (Redis refused), or one of the two above.
Rows = list[Any] | Exception


def late(answer: Any) -> int | None:  # noqa: ANN401  (whatever Redis answers)
    """Return what the server's clock showed, where the answer is that a call arrived too late."""
    match = _LATE.fullmatch(str(answer)) if isinstance(answer, ResponseError) else None
    return int(match[1]) if match else None


def may_go_again(answer: Any) -> bool:  # noqa: ANN401
    """Return whether a call has not run and another try may succeed."""
    return isinstance(answer, NoScriptError) or late(answer) is not None


def loads(calls: Sequence[Call], answers: Sequence[Any]) -> list[Command]:
    """Return the commands that load the scripts of those calls that were answered with NOSCRIPT."""
    names = {call.script for call, answer in zip(calls, answers, strict=True) if isinstance(answer, NoScriptError)}
    return [("SCRIPT", "LOAD", source(name)) for name in sorted(names)]


def attempts(
    calls: Sequence[Call], until_ms: Callable[[], int] = lambda: 0
) -> Generator[list[Command], Sequence[Any], list[Any]]:
    """Yield what is to be sent together, take the answers, and return one answer for each call.

    Calls that have not run go once more, behind the scripts that were missing: the others have done their work.
    """
    answers = list((yield [call.words(until_ms()) for call in calls]))
    missing = [index for index, answer in enumerate(answers) if may_go_again(answer)]
    if not missing:
        return answers
    commands = loads(calls, answers)
    again = yield [*commands, *(calls[index].words(until_ms()) for index in missing)]
    refusal = next((answer for answer in again[: len(commands)] if isinstance(answer, ResponseError)), None)
    for index, answer in zip(missing, again[len(commands) :], strict=True):
        answers[index] = refusal if refusal and isinstance(answer, NoScriptError) else answer
        if late(answer) or isinstance(answer, NotSentError):  # an earlier try may have arrived unanswered
            answers[index] = UnansweredError(answer)
    return answers


async def drive(steps: Generator[list[Command], Sequence[Any], list[Any]], send: Send) -> list[Any]:
    """Send what `attempts` yields, and return what it returns."""
    commands = next(steps)
    while True:
        answers = await send(commands)
        try:
            commands = steps.send(answers)
        except StopIteration as end:
            return list(end.value)


async def run(client: redis.asyncio.Redis, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
    """Run one script and return its answer.

    Raises:
        ResponseError: Redis refuses.
        RedisError, OSError: there is no answer.

    """

    async def send(commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = []
        for command in commands:
            try:
                answers.append(await client.execute_command(*command))  # type: ignore[no-untyped-call]  # redis-py
            except ResponseError as error:
                answers.append(error)
        return answers

    return _only(await drive(attempts([call]), send))


def run_sync(client: redis.Redis, call: Call) -> Any:  # noqa: ANN401
    """Run one script with a blocking client, as `run` does."""
    steps = attempts([call])
    commands = next(steps)
    while True:
        answers: list[Any] = []
        for command in commands:
            try:
                answers.append(client.execute_command(*command))  # type: ignore[no-untyped-call]  # redis-py
            except ResponseError as error:
                answers.append(error)
        try:
            commands = steps.send(answers)
        except StopIteration as end:
            return _only(end.value)


def _only(answers: Sequence[Any]) -> Any:  # noqa: ANN401
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer
