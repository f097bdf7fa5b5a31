"""bitladder dead-letters list, show, release and drop: the dead letters, straight from Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bitladder.cli.common_options import AsJson, Config
from bitladder.errors import ConfigError
from bitladder.ids import readable
from bitladder.queue.dead_letters import Choice, DeadLetter, DeadLetterHead, DeadLetters, choose, only
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.json_views.dead_letter import (
    DeadLetterEntry,
    DeadLetterWithHistory,
    count_by_code,
    describe_dead_letter,
    describe_history,
)
from bitladder.queue.server.connection import connect
from bitladder.settings.load import load_settings

T = TypeVar("T")
app = typer.Typer(help="List dead letters, release them or drop them.", no_args_is_help=True)

Code = Annotated[str | None, typer.Option(help="Only jobs that ended with this error code.")]
Queue = Annotated[str | None, typer.Option(help="Only jobs of a model, model:tier or model:tier:lane.")]
_Age = Annotated[float | None, typer.Option(help="Only jobs that became dead letters at least so many seconds ago.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Job ids.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Only count the jobs.")]


@app.command("list")
def list_dead_letters(
    code: Code = None,
    queue: Queue = None,
    older_than_s: _Age = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many; 0: all.")] = 100,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """List dead letters, the latest first, and how many ended with each error.

    Example: bitladder dead-letters list --code poison
    """
    choice = choose(code=code, queue=queue, older_than_s=older_than_s)

    async def read(dead_letters: DeadLetters) -> tuple[list[DeadLetterHead], list[DeadLetter]]:
        heads = await dead_letters.heads(choice)
        return heads, await dead_letters.look(heads[: limit or None])

    heads, jobs = _run(config, read)
    if as_json:
        typer.echo(json.dumps([_plain(describe_dead_letter(job)) for job in jobs], indent=2))
        return
    Console().print(_table(jobs))
    if len(jobs) < len(heads):
        typer.echo(f"the latest {len(jobs)} of them; --limit 0 lists all")
    typer.echo(_summary(heads))


@app.command()
def show(job_id: Annotated[str, typer.Argument(help="The job.")], config: Config = None) -> None:
    """Show one dead letter and its lost executions, as JSON.

    Example: bitladder dead-letters show 0199…
    """

    async def read(dead_letters: DeadLetters) -> DeadLetterWithHistory:
        job = only(await dead_letters.jobs(Choice(ids=[job_id])), job_id)
        return describe_history(job, await dead_letters.history(job_id))

    typer.echo(json.dumps(_plain(_run(config, read)), indent=2))


@app.command()
def release(
    ids: Ids = None,
    code: Code = None,
    queue: Queue = None,
    older_than_s: _Age = None,
    everything: All = False,
    dry_run: _Dry = False,
    config: Config = None,
) -> None:
    """Queue jobs again, with all their attempts and a new deadline.

    Example: bitladder dead-letters release --code engine_fault --dry-run
    """
    choice = _choice(ids, code, queue, older_than_s, everything=everything)
    _carry_out(config, choice, "released", DeadLetters.release, dry_run=dry_run)


@app.command()
def drop(
    ids: Ids = None,
    code: Code = None,
    queue: Queue = None,
    older_than_s: _Age = None,
    everything: All = False,
    dry_run: _Dry = False,
    config: Config = None,
) -> None:
    """Drop jobs for good; their prompts are deleted at once.

    Example: bitladder dead-letters drop --code poison --older-than-s 86400
    """
    choice = _choice(ids, code, queue, older_than_s, everything=everything)
    _carry_out(config, choice, "dropped", DeadLetters.drop, dry_run=dry_run)


def _choice(
    ids: list[str] | None, code: str | None, queue: str | None, older_than_s: float | None, *, everything: bool
) -> Choice:
    ids = ids or None
    if everything == any(value is not None for value in (ids, code, queue, older_than_s)):
        raise ConfigError("name the jobs by ids, --code, --queue or --older-than-s, or pass --all, and not both")
    return choose(ids=ids, code=code, queue=queue, older_than_s=older_than_s)


def _carry_out(
    config: str | None,
    choice: Choice,
    word: str,
    act: Callable[[DeadLetters, list[DeadLetterHead]], Awaitable[list[str]]],
    *,
    dry_run: bool,
) -> None:
    async def work(dead_letters: DeadLetters) -> tuple[list[DeadLetterHead], list[str]]:
        jobs = await dead_letters.heads(choice)
        return jobs, [] if dry_run else await act(dead_letters, jobs)

    jobs, done = _run(config, work)
    if dry_run:
        typer.echo(f"would be {word}: {_summary(jobs)}")
        return
    typer.echo(f"{len(done)} of {len(jobs)} {word}")
    raise typer.Exit(0 if len(done) == len(jobs) else 1)


def _run(config: str | None, work: Callable[[DeadLetters], Awaitable[T]]) -> T:
    async def run() -> T:
        settings = load_settings(config).settings
        client = connect(settings.redis)
        try:
            return await work(DeadLetters(JobQueue(client, settings)))
        finally:
            await client.aclose()

    return asyncio.run(run())


def _table(jobs: list[DeadLetter]) -> Table:
    table = Table("job", "code", "queue", "attempts", "age", "error")
    for job in jobs:
        view = job.view
        error = (view.outcome.error if view and view.outcome else None) or ""
        age = f"{(time.time() * 1000 - job.at_ms) / 1000:.0f} s"
        queue, attempts = (view.queue, str(view.attempts)) if view else ("", "")
        table.add_row(escape(readable(job.job_id)), job.code, escape(queue), attempts, age, escape(error[:80]))
    return table


def _summary(jobs: list[DeadLetterHead]) -> str:
    return f"{len(jobs)} jobs" + "".join(f", {count} {code}" for code, count in count_by_code(jobs).items())


def _plain(entry: DeadLetterEntry) -> dict[str, Any]:
    """Return the fields of an entry without the engine's answer."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(entry))
    return {name: value for name, value in fields.items() if name not in ("result", "usage")}
