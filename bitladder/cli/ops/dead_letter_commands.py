"""bitladder dead-letters list, show, release and drop: the dead letters, from an intake or straight from Redis."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from bitladder.cli.common_options import ApiKey, AsJson, Config, DryRun, OperatorUrl, Reason, Yes
from bitladder.cli.ops.asking import Answer
from bitladder.cli.ops.operations import Operations, Word, operations
from bitladder.cli.output import ExitCode
from bitladder.errors import ConfigError, NotFoundError
from bitladder.ids import readable
from calibration.terminal.tabular import Row, table

app = typer.Typer(help="List dead letters, release them or drop them.", no_args_is_help=True, rich_markup_mode=None)

Code = Annotated[str | None, typer.Option(help="Only jobs that ended with this error code.")]
Queue = Annotated[str | None, typer.Option(help="Only jobs of a model, model:tier or model:tier:lane.")]
_Age = Annotated[
    float | None, typer.Option(min=0, help="Only jobs that became dead letters at least so many seconds ago.")
]
Ids = Annotated[list[str] | None, typer.Argument(help="Job ids.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@app.command("list")
def list_dead_letters(
    code: Code = None,
    queue: Queue = None,
    older_than_s: _Age = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many; 0: as many as possible.")] = 100,
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """List dead letters, the latest first, and how many ended with each error.

    Example: bitladder dead-letters list --code poison
    """
    side = operations(url, api_key, config)
    answer = side.dead_letters(_criteria(code=code, queue=queue, older_than_s=older_than_s), limit)
    jobs = [_without_answer(job) for job in answer["data"]]
    if as_json:
        typer.echo(json.dumps(jobs, indent=2))
        return
    typer.echo(table(("job", "code", "queue", "attempts", "age s", "error"), [_row(job) for job in jobs]))
    if len(jobs) < answer["total"]:
        more = "--limit 0 lists all" if limit else "an intake lists no more; Redis itself does (--config)"
        typer.echo(f"the latest {len(jobs)} of them; {more}", err=True)
    typer.echo(_summary(answer["total"], answer["by_code"]), err=True)


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(help="The job.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON: it always is.")] = True,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Show one dead letter as JSON: its request, prompt included, how it ended, and its lost executions.

    Example: bitladder dead-letters show 0199…
    """
    del as_json
    typer.echo(json.dumps(operations(url, api_key, config).dead_letter(job_id), indent=2))


@app.command()
def release(
    ids: Ids = None,
    code: Code = None,
    queue: Queue = None,
    older_than_s: _Age = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Queue jobs again, with all their attempts and a new deadline. Asks first, unless the jobs are named by id.

    Example: bitladder dead-letters release --code engine_fault --dry-run
    """
    chosen = _selection(ids, code, queue, older_than_s, everything=everything) | ({"reason": reason} if reason else {})
    _Order(operations(url, api_key, config), "release", as_json=as_json).carry_out(chosen, dry_run=dry_run, yes=yes)


@app.command()
def drop(
    ids: Ids = None,
    code: Code = None,
    queue: Queue = None,
    older_than_s: _Age = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
    url: OperatorUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Drop jobs for good; their prompts are deleted at once. Asks first, unless the jobs are named by id.

    Example: bitladder dead-letters drop --code poison --older-than-s 86400 --yes
    """
    chosen = _selection(ids, code, queue, older_than_s, everything=everything) | ({"reason": reason} if reason else {})
    _Order(operations(url, api_key, config), "drop", as_json=as_json).carry_out(chosen, dry_run=dry_run, yes=yes)


class _Order:
    """A release or a drop of many jobs."""

    def __init__(self, side: Operations, word: Word, *, as_json: bool) -> None:
        self._side, self._word, self._as_json = side, word, as_json
        self._done = {"release": "released", "drop": "dropped"}[word]

    def carry_out(self, selection: dict[str, Any], *, dry_run: bool, yes: bool) -> None:
        """Ask where there is something to ask, carry it out, and end with what became of it."""
        asked = time.monotonic()
        if dry_run or not (yes or "ids" in selection):
            count = self._side.act(self._word, {**selection, "dry_run": True})
            if dry_run or not count["chosen"]:
                self._tell(count, f"would be {self._done}: {_summary(count['chosen'], count['by_code'])}")
                return
            self._ask(count)
            selection = _not_after(selection, time.monotonic() - asked)
        answer = self._side.act(self._word, selection)
        done, chosen = len(answer[self._done]), answer["chosen"]
        self._tell(answer, f"{done} of {chosen} {self._done}")
        if done != chosen:
            raise typer.Exit(ExitCode.FAILED)
        if unknown := [job_id for job_id in selection.get("ids", ()) if job_id not in answer[self._done]]:
            raise NotFoundError(f"no dead letter is {', '.join(map(readable, unknown))}")

    def _ask(self, count: Answer) -> None:
        what = _summary(count["chosen"], count["by_code"])
        if not sys.stdin.isatty():
            raise ConfigError(
                f"{self._word} {what}? There is no terminal to ask on: pass --yes, or name the jobs by id"
            )
        typer.confirm(f"{self._word} {what}{' for good' if self._word == 'drop' else ''}?", abort=True, err=True)

    def _tell(self, answer: Answer, words: str) -> None:
        typer.echo(json.dumps(answer, indent=2) if self._as_json else words)


def _not_after(selection: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return a selection without the jobs that became dead letters while somebody thought about the question."""
    before = {name: value for name, value in selection.items() if name != "all"}
    return before | {"older_than_s": selection.get("older_than_s", 0) + seconds}


def _selection(
    ids: list[str] | None, code: str | None, queue: str | None, older_than_s: float | None, *, everything: bool
) -> dict[str, Any]:
    criteria = _criteria(ids=ids or None, code=code, queue=queue, older_than_s=older_than_s)
    if everything == bool(criteria):
        raise ConfigError("name the jobs by ids, --code, --queue or --older-than-s, or pass --all, and not both")
    return criteria or {"all": True}


def _criteria(**criteria: object) -> dict[str, Any]:
    return {name: value for name, value in criteria.items() if value is not None}


def _row(job: dict[str, Any]) -> Row:
    age_s = round(time.time() - job["dead_lettered_at"])
    error = (job.get("error") or {}).get("message", "")
    return job["id"], job["code"], job.get("queue", ""), job.get("attempts", ""), age_s, error


def _summary(total: int, by_code: dict[str, int]) -> str:
    return f"{total} jobs" + "".join(f", {count} {code}" for code, count in by_code.items())


def _without_answer(job: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry without the engine's answer."""
    return {name: value for name, value in job.items() if name not in ("result", "usage")}
