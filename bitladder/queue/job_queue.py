"""The queue as its users call it: submit, claim, emit, finish, requeue, cancel, view, depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError, ResponseError

from bitladder.contract import Chunk, Claimed, Emitted, JobView, Outcome, State, Submission
from bitladder.errors import BitladderError
from bitladder.queue.budget import ByteBudget
from bitladder.queue.calls import (
    Call,
    Claims,
    Doubtful,
    Finished,
    cancel_call,
    claim_call,
    finish_call,
    keep,
    read_claimed,
)
from bitladder.queue.ends import Ended, Running
from bitladder.queue.exchange import call_each, exchange
from bitladder.queue.plan import all_lists
from bitladder.queue.run_script import Argument, digest, source
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.queue.submitting import Submitter
from bitladder.queue.views import (
    VIEWED,
    Depths,
    Overview,
    is_odd_type,
    odd_view,
    read_chunk,
    read_depth,
    read_look,
    read_number,
    read_overview,
    read_view,
    read_wait,
)
from bitladder.settings.sections import Settings

# What is told of a job's last execution, should its deadline pass before the next one: printable ASCII, so many bytes.
MAX_TROUBLE = 300
# Bytes of a stream per read: what a slow reader has before it, beside its inbox.
MAX_READ = 128 * 1024
# Queues in RQ's list that one look takes in.
MAX_QUEUES = 1000


class JobQueue:
    """Typed access to the scripts over one asyncio client."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.signer = Signer(settings.queue.secrets)
        self._keep = keep(settings)
        self._submitter = Submitter(client, settings, self.signer)
        self._room = ByteBudget()  # of what one claim brings

    async def aclose(self) -> None:
        await self._submitter.aclose()
        await self.client.aclose()

    async def submit(self, jobs: Sequence[Submission]) -> list[str | BitladderError]:
        """Store and push jobs in one round trip; return for each its id, or why it was not accepted.

        AcceptanceUnknownError: it may have been. Submitting the same jobs again is safe: an id is stored once.
        """
        return await self._submitter.submit(jobs)

    async def claim(self, worker: str, model: str, tier: str, plan: str, slots: int) -> Claims:
        """Take up to `slots` jobs, and no more of them than an answer may hold."""
        with self._room.tried():
            call = claim_call(self.settings, worker, model, tier, plan, (slots, self._room.bytes))
            return read_claimed(await self.run(call))

    async def claim_when_pushed(
        self, waiter: redis.asyncio.Redis, worker: str, model: str, tier: str, plan: str, slots: int
    ) -> Claims:
        """Take up to `slots` jobs as soon as something is pushed, or after `worker.block_s` at the latest.

        Both commands go out together: when the first one stops blocking, the server runs the claim at once, and the
        job is spared the way to the worker and back.
        """
        with self._room.tried():
            call = claim_call(self.settings, worker, model, tier, plan, (slots, self._room.bytes))
            answer = await self._run_when_pushed(waiter, f"bl:wake:{model}:{tier}", call)
            return read_claimed(await self.run(call) if isinstance(answer, NoScriptError) else answer)

    async def _run_when_pushed(self, waiter: redis.asyncio.Redis, wake: str, call: Call) -> Any:  # noqa: ANN401
        try:
            async with waiter.pipeline(transaction=False) as pipe:
                pipe.blpop([wake], timeout=self.settings.worker.block_s)
                pipe.evalsha(digest(call.script), len(call.keys), *call.keys, *call.args)
                _, answer = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise unreachable("Redis does not answer", error) from error
        if isinstance(answer, Exception) and not isinstance(answer, NoScriptError):
            raise unreachable("Redis refused", answer) from answer
        return answer

    async def finish(self, worker: str, jobs: Sequence[Finished]) -> list[bool]:
        """Store outcomes; False for a job that is no longer this worker's."""
        return [bool(ok) for ok in await self.run(finish_call(self.settings, self.signer, worker, jobs))]

    async def emit(self, worker: str, chunks: Sequence[tuple[str, Chunk]]) -> list[Emitted]:
        """Store and publish chunks of streams by job id."""
        flat = [field for job_id, chunk in chunks for field in (job_id, chunk.fence, chunk.number, chunk.data)]
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
        return [read_look(job_id, word, detail, self.signer) for job_id, word, detail in rows]

    async def chunks(self, job_id: str, fence: int, number: int) -> list[Chunk]:
        """Return the stored chunks of a stream behind this one, as many as one read brings: at least one."""
        answers: list[bytes] = await self.run(Call("chunks", [], [job_id, f"{fence}-{number}", MAX_READ]))
        return [read_chunk(entry, data) for entry, data in zip(answers[::2], answers[1::2], strict=True)]

    async def requeue(self, worker: str, job: Claimed, target: str, *, word: str, last: Outcome) -> str:
        """Put a job back to the front of `target`, or end it with `last`.

        Words, as in prelude.lua's requeue_job: back go free (no attempt counted), charged, suspect (not counted, but it
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
            self.signer.encode(job.job_id, last),
            self._keep,
            _in_ascii(f"{last.code}: {last.error}"),
        ]
        return str((await self.run(Call("requeue", [f"bl:inflight:{worker}"], args))).decode())

    async def cancel(self, job_id: str) -> str:
        """Cancel a job: missing, cancelled (it waited), requested (its worker was told) or over."""
        return str((await self.run(cancel_call(self.settings, self.signer, job_id))).decode())

    async def withdraw(self, jobs: Sequence[Doubtful]) -> list[bool]:
        """Cancel jobs that may have been submitted, or may yet be: whatever happened, they will not run (any more).

        Return for each whether Redis has heard of it.
        """
        calls = [cancel_call(self.settings, self.signer, job.job_id, withdrawn=job) for job in jobs]
        answers = await call_each(partial(exchange, self.client.connection_pool), calls)
        return [isinstance(answer, bytes) for answer in answers]

    async def expire(self, job_id: str) -> bool:
        """End a job that still waits although its deadline has passed; False where it runs, is over or has time."""
        error = "the deadline passed while the job waited"
        if trouble := await self._trouble(job_id):
            error = f"{error}; it had come back: {trouble}"
        outcome = Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error=error)
        args: list[Argument] = [job_id, self.signer.encode(job_id, outcome), self._keep]
        return bool(await self.run(Call("expire", [f"rq:job:{job_id}"], args)))

    async def _trouble(self, job_id: str) -> str:
        """Return why a job came back from its last execution; '' where nothing is known that can be trusted."""
        if self.settings.queue.secrets:  # the outcome is signed, and this is not
            return ""
        try:
            raw: Any = await self.client.hget(f"rq:job:{job_id}", "trouble")
        except (RedisError, OSError):
            return ""
        return _in_ascii((raw or b"")[:MAX_TROUBLE].decode(errors="replace"))

    async def view(self, job_id: str) -> JobView | None:
        """Read one job; None when there is no such record."""
        try:
            values: list[Any] = await self.client.hmget(f"rq:job:{job_id}", list(VIEWED))
            fields = dict(zip(VIEWED, values, strict=True))
            left = await self._left(fields)
        except ResponseError as error:
            if is_odd_type(error):
                return odd_view(job_id)
            raise unreachable("Redis refused", error) from error
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        return read_view(job_id, fields, left, self.signer) if fields["status"] else None

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
        call = Call("overview", [], [MAX_QUEUES, *served])
        return read_overview(await self.run(call))

    async def run(self, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        """Call one script.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        try:
            try:
                return await self._evalsha(call)
            except NoScriptError:
                await self.client.script_load(source(call.script))
                return await self._evalsha(call)
        except ResponseError as error:
            raise unreachable("Redis refused", error) from error
        except (RedisError, OSError) as error:
            raise unreachable("Redis does not answer", error) from error

    async def _evalsha(self, call: Call) -> Any:  # noqa: ANN401
        arguments: Any = (*call.keys, *call.args)
        return await self.client.evalsha(digest(call.script), len(call.keys), *arguments)


def _in_ascii(text: str) -> str:
    """Return the start of a text in characters that break nothing."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:MAX_TROUBLE])
