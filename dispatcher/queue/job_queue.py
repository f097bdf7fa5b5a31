"""The queue as its users call it: submit, claim, emit, finish, give_back, cancel, view, depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError, ResponseError

from dispatcher.contract import (
    Claimed,
    JobView,
    Outcome,
    Piece,
    State,
    Submission,
)
from dispatcher.errors import BitladderError, QueueUnreachableError
from dispatcher.queue.commands import (
    Argument,
    Call,
    Claims,
    Emitted,
    Finished,
    by_group,
    claim_call,
    demoted,
    finish_call,
    keep,
    read_claimed,
    read_submitted,
    submit_call,
)
from dispatcher.queue.connection import connect
from dispatcher.queue.durability import WAIT_MS, Commands, barrier, check_passed
from dispatcher.queue.plan import all_lists
from dispatcher.queue.reading import Ended, Running
from dispatcher.queue.records import (
    VIEWED,
    Depths,
    Overview,
    is_odd_type,
    odd_view,
    read_depth,
    read_look,
    read_number,
    read_overview,
    read_piece,
    read_view,
    read_wait,
)
from dispatcher.queue.scripts import digest, source
from dispatcher.queue.seal import Seal
from dispatcher.sections import Settings

# What is told of a job's last execution, should its deadline pass before the next one: printable ASCII, so many bytes.
MOST_TROUBLE = 300
# Bytes of a stream per read: what a slow reader has before it, beside its inbox.
MOST_READ = 128 * 1024
# Queues in RQ's list that one look takes in.
MOST_QUEUES = 1000


class JobQueue:
    """Typed access to the scripts over one asyncio client."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.seal = Seal(settings.queue.secrets)
        self._keep = keep(settings)
        self._barrier = barrier(settings)
        self._patient: redis.asyncio.Redis | None = None  # waits for disks and replicas

    async def aclose(self) -> None:
        await self.client.aclose()
        if self._patient is not None:
            await self._patient.aclose()

    async def submit(self, jobs: Sequence[Submission]) -> list[str | BitladderError]:
        """Store and push jobs in one round trip; for each its id, or why it was refused.

        Raises:
            QueueUnreachableError: none is known to be accepted. Submitting them again is safe: an id is stored once.

        """
        placed = dict(enumerate(jobs))
        answers = await self._submit(placed)
        if excess := dict(demoted(answers, placed)):
            answers |= await self._submit(excess)
        return [read_submitted(answers[place], job) for place, job in placed.items()]

    async def _submit(self, placed: Mapping[int, Submission]) -> dict[int, list[Any]]:
        groups = by_group(self.settings, placed.items())
        calls = [submit_call(self.settings, self.seal, group, [job for _, job in its]) for group, its in groups.items()]
        answers: dict[int, list[Any]] = {}
        for its, rows in zip(groups.values(), await self._run_many(calls, self._barrier), strict=True):
            answers |= {place: row for (place, _), row in zip(its, rows, strict=True)}
        return answers

    async def claim(self, worker: str, model: str, tier: str, plan: str, slots: int) -> Claims:
        """Take up to `slots` jobs."""
        return read_claimed(await self.run(claim_call(self.settings, worker, model, tier, plan, slots)))

    async def claim_when_pushed(
        self, waiter: redis.asyncio.Redis, worker: str, model: str, tier: str, plan: str, slots: int
    ) -> Claims:
        """Take up to `slots` jobs as soon as something is pushed, or after `worker.block_s` at the latest.

        Both commands go out together: when the first one stops blocking, the server runs the claim at once, and the
        job is spared the way to the worker and back.
        """
        call = claim_call(self.settings, worker, model, tier, plan, slots)
        try:
            async with waiter.pipeline(transaction=False) as pipe:
                pipe.blpop([f"bl:wake:{model}:{tier}"], timeout=self.settings.worker.block_s)
                pipe.evalsha(digest(call.script), len(call.keys), *call.keys, *call.args)
                _, answer = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise QueueUnreachableError(f"Redis does not answer: {error}") from error
        if isinstance(answer, NoScriptError):
            return read_claimed(await self.run(call))
        if isinstance(answer, Exception):
            raise QueueUnreachableError(f"Redis refused: {answer}") from answer
        return read_claimed(answer)

    async def finish(self, worker: str, jobs: Sequence[Finished]) -> list[bool]:
        """Store outcomes; False for a job that is no longer this worker's."""
        return [bool(ok) for ok in await self.run(finish_call(self.settings, self.seal, worker, jobs))]

    async def emit(self, worker: str, pieces: Sequence[tuple[str, Piece]]) -> list[Emitted]:
        """Store and publish pieces of streams by job id."""
        flat = [field for job_id, piece in pieces for field in (job_id, piece.fence, piece.number, piece.data)]
        answers = await self.run(Call("emit", [], [worker, self.settings.queue.result_ttl_s * 1000, *flat]))
        return [Emitted(answer) for answer in answers]

    async def look(
        self, job_ids: Sequence[str], *, hear: str = "", most: int = 0
    ) -> list[Outcome | Ended | Running | None]:
        """Say how jobs ended, or that they run; None where they wait. The channel `hear` is told of what comes.

        Of outcomes that have no room in `most` bytes (0: no bound) it says only that they are there.
        """
        answers: list[bytes] = await self.run(Call("look", [], [hear, most, *job_ids]))
        rows = zip(job_ids, answers[::2], answers[1::2], strict=True)
        return [read_look(job_id, word, detail, self.seal) for job_id, word, detail in rows]

    async def pieces(self, job_id: str, fence: int, number: int) -> list[Piece]:
        """Return the stored pieces of a stream behind this one, as many as one read brings: at least one."""
        answers: list[bytes] = await self.run(Call("pieces", [], [job_id, f"{fence}-{number}", MOST_READ]))
        return [read_piece(entry, data) for entry, data in zip(answers[::2], answers[1::2], strict=True)]

    async def give_back(self, worker: str, job: Claimed, target: str, *, word: str, last: Outcome) -> str:
        """Put a job back to the front of `target`, or end it with `last`.

        Words, as in prelude.lua's put_back: back go free (no attempt counted), charged, suspect (not counted, but it
        may have taken the engine with it) and unbegun (not counted the first times), where an attempt is left. Expired,
        cancelled and refused end a job that no engine has begun.
        """
        args: list[Argument] = [
            worker,
            job.job_id,
            job.fence,
            job.queue,
            target,
            word,
            self.settings.queue.max_attempts,
            self.seal.encode(job.job_id, last),
            self._keep,
            _in_ascii(f"{last.code}: {last.error}"),
        ]
        return str((await self.run(Call("give_back", [f"bl:inflight:{worker}"], args))).decode())

    async def cancel(self, job_id: str) -> str:
        """Cancel a job: missing, cancelled (it waited), requested (its worker was told) or over."""
        outcome = Outcome(state=State.CANCELLED, status=409, code="cancelled", error="the job was cancelled")
        call = Call("cancel", [f"rq:job:{job_id}"], [job_id, self.seal.encode(job_id, outcome), self._keep])
        return str((await self.run(call)).decode())

    async def expire(self, job_id: str) -> bool:
        """End a job that still waits although its deadline has passed; False where it runs, is over or has time."""
        error = "the deadline passed while the job waited"
        if trouble := await self._trouble(job_id):
            error = f"{error}; it had come back: {trouble}"
        outcome = Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error=error)
        args: list[Argument] = [job_id, self.seal.encode(job_id, outcome), self._keep]
        return bool(await self.run(Call("expire", [f"rq:job:{job_id}"], args)))

    async def _trouble(self, job_id: str) -> str:
        """Return why a job came back from its last execution; '' where nothing is known that can be trusted."""
        if self.settings.queue.secrets:  # the outcome is signed, and this is not
            return ""
        try:
            raw: Any = await self.client.hget(f"rq:job:{job_id}", "trouble")
        except (RedisError, OSError):
            return ""
        return _in_ascii((raw or b"")[:MOST_TROUBLE].decode(errors="replace"))

    async def view(self, job_id: str) -> JobView | None:
        """Read one job; None when there is no such record."""
        try:
            values: list[Any] = await self.client.hmget(f"rq:job:{job_id}", list(VIEWED))
            fields = dict(zip(VIEWED, values, strict=True))
            left = await self._left(fields)
        except ResponseError as error:
            if is_odd_type(error):
                return odd_view(job_id)
            raise QueueUnreachableError(f"Redis refused: {error}") from error
        except (RedisError, OSError) as error:
            raise QueueUnreachableError(f"cannot read from Redis: {error}") from error
        return read_view(job_id, fields, left, self.seal) if fields["status"] else None

    async def _left(self, fields: Mapping[str, bytes | None]) -> int | None:
        """Return how many before a waiting job wait no longer; None for a job that has no number in one."""
        queue, number = fields["origin"], read_wait(fields["wait"])[2]
        if fields["status"] != b"queued" or not queue or number is None:
            return None
        try:
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.hget(b"bl:counts:" + queue, "popped")
                pipe.zcount(b"bl:gone:" + queue, "-inf", f"({number}")  # over already, and still in the list before it
                popped, gone = await pipe.execute()
        except ResponseError:  # somebody else's key
            return None
        return (read_number(popped) or 0) + int(gone)

    async def depths(self, model: str) -> Depths:
        """Look at every queue of a model."""
        ladder = self.settings.model(model).ladder
        names = all_lists(model, self.settings.model(model))
        now, live, rows = await self.run(Call("depths", [f"bl:live:{model}:{tier}" for tier in ladder], names))
        return Depths(
            live=dict(zip(ladder, live, strict=True)),
            queues=[read_depth(name, row, int(now)) for name, row in zip(names, rows, strict=True)],
        )

    async def overview(self) -> Overview:
        """Look at what holds for all models, and at queues that are nobody's."""
        served = [name for model, its in self.settings.models.items() for name in all_lists(model, its)]
        call = Call("overview", [], [MOST_QUEUES, *served])
        return read_overview(await self.run(call))

    async def run(self, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        """Call one script."""
        return (await self._run_many([call]))[0]

    async def _run_many(self, calls: Sequence[Call], behind: Commands = ()) -> list[Any]:
        try:
            answers = await self._pipeline(calls, behind)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                await self._load({call.script for call in calls})
                # Only those that did not run: the others have done their work.
                missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                again = await self._pipeline([calls[index] for index in missing], behind)
                for index, answer in zip(missing, again, strict=True):
                    answers[index] = answer
        except (RedisError, OSError) as error:
            raise QueueUnreachableError(f"Redis does not answer: {error}") from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise QueueUnreachableError(f"Redis refused: {answer}") from answer
        return answers

    async def _pipeline(self, calls: Sequence[Call], behind: Commands) -> list[Any]:
        if len(calls) == 1 and not behind:  # a pipeline of one costs a third more than a command
            return [await self._alone(calls[0])]
        client = self._waiting_client() if behind else self.client
        async with client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(digest(call.script), len(call.keys), *call.keys, *call.args)
            for command in behind:
                pipe.execute_command(*command)
            answers = list(await pipe.execute(raise_on_error=False))
        if behind:
            check_passed(self.settings, answers[len(calls) :])
        return answers[: len(calls)]

    def _waiting_client(self) -> redis.asyncio.Redis:
        if self._patient is None:
            self._patient = connect(self.settings.redis, wait_s=WAIT_MS / 1000)
        return self._patient

    async def _alone(self, call: Call) -> Any:  # noqa: ANN401
        try:
            arguments: Any = (*call.keys, *call.args)
            return await self.client.evalsha(digest(call.script), len(call.keys), *arguments)
        except ResponseError as error:
            return error

    async def _load(self, names: set[str]) -> None:
        for name in names:
            await self.client.script_load(source(name))


def _in_ascii(text: str) -> str:
    """Return the start of a text in characters that break nothing."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:MOST_TROUBLE])
