"""How operators' commands ask: an intake over HTTP, or each Redis itself, and how the answers of several are one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import typer

from bitladder.errors import BitladderError, ConfigError, QueueUnreachableError
from calibration.terminal.tabular import plain

if TYPE_CHECKING:
    from bitladder.queue.job_queue import JobQueue
    from bitladder.queue.upkeep.live_settings import LiveStore
    from bitladder.settings.load import Loaded
    from bitladder.settings.sections import Settings

# An answer of the HTTP interface (docs/api.md).
Answer = dict[str, Any]
Merge = Callable[["Sequence[Answer]"], "Answer"]
_T = TypeVar("_T")


def ask_intake(url: str, api_key: str | None, method: str, path: str, **arguments: Any) -> Answer:  # noqa: ANN401  (of the client's call)
    from bitladder.cli.job_commands import intake_client

    with intake_client(url, api_key) as client:
        return client.call(method, path, **arguments)


def ask_queues(parts: Sequence[Settings], work: Callable[[Mapping[str, JobQueue]], Awaitable[object]]) -> Answer:
    """Return what is made of the queues at these Redis, by the names of their models."""
    from bitladder.queue.job_queue import JobQueue
    from bitladder.queue.server.connection import connect

    async def ask() -> object:
        queues = {",".join(part.models): JobQueue(connect(part.redis), part) for part in parts}
        try:
            return await work(queues)
        finally:
            for queue in queues.values():
                await queue.client.aclose()

    return as_answer(asyncio.run(ask()))


def ask_each(
    parts: Sequence[Settings], work: Callable[[JobQueue], Awaitable[object]], merge: Merge | None = None
) -> Answer:
    """Return what all Redis say, and in `unreachable` those that say nothing; only where none does, its error."""
    from bitladder.queue.json_views.merging import merged

    def ask(part: Settings) -> Answer:
        return ask_queues([part], lambda queues: work(next(iter(queues.values()))))

    if len(parts) == 1:
        return ask(parts[0])
    answers, errors = [], {}
    for part in parts:
        try:
            answers.append(ask(part))
        except BitladderError as error:  # that of a Redis without this job or model, where another has it
            errors[",".join(part.models)] = error
    silent = {name: error for name, error in errors.items() if isinstance(error, QueueUnreachableError)}
    if not answers:
        raise next(iter((silent or errors).values()))
    lost = {name: str(error) for name, error in silent.items()}
    return (merge or merged)(answers) | ({"unreachable": lost} if lost else {})


def say_unreachable(answer: Answer) -> None:
    """Say on stderr which of several Redis an answer has nothing of."""
    for models, reason in (answer.get("unreachable") or {}).items():
        typer.echo(plain(f"without what is at the Redis of {models}: {reason}"), err=True)


def as_answer(value: object) -> Answer:
    """Return a value as it would come over HTTP."""
    answer: Answer = json.loads(msgspec.json.encode(value))
    return answer


async def at_live_store(files: Loaded, work: Callable[[LiveStore], Awaitable[_T]]) -> _T:
    """Ask the Redis that has the live settings."""
    from bitladder.queue.job_queue import JobQueue
    from bitladder.queue.server.connection import connect
    from bitladder.queue.upkeep.live_settings import LiveStore

    first = files.settings.at_each_redis[0]
    client = connect(first.redis)
    try:
        return await work(LiveStore(JobQueue(client, first)))
    finally:
        await client.aclose()


def in_force(files: Loaded, *, says_why: bool = False) -> Loaded:
    """Return the settings as running processes have them: what stands over them in Redis, where that can be read.

    `says_why`: also where Redis cannot be asked, which other commands meet themselves.
    """
    from bitladder.settings.live_values import with_live

    try:
        return with_live(files, asyncio.run(at_live_store(files, lambda store: store.read())))
    except QueueUnreachableError as error:
        if says_why:
            typer.secho(f"without the live settings: {error}", err=True, fg="yellow")
    except ConfigError as error:
        typer.secho(str(error), err=True, fg="red")
    return files
