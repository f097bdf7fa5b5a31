"""The queue as its users call it: submit, claim, emit, finish, requeue, cancel, view, depths."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from bitladder.contract import Chunk, Claimed, Emitted, JobView, Outcome, Submission
from bitladder.errors import BitladderError
from bitladder.queue.calls import read_word
from bitladder.queue.calls.claim import Claims, claim_call, read_claimed, wake_key
from bitladder.queue.calls.end import (
    Doubtful,
    Finished,
    Requeued,
    RequeueReason,
    cancel_call,
    expire_call,
    finish_call,
    read_finished,
    requeue_call,
)
from bitladder.queue.calls.read import (
    Depths,
    Overview,
    depths_call,
    look_call,
    overview_call,
    read_depths,
    read_late,
    read_looks,
    read_overview,
)
from bitladder.queue.calls.streams import chunks_call, emit_call, read_chunks, read_emitted
from bitladder.queue.claim_plan import ClaimPlan
from bitladder.queue.job_record import (
    VIEWED,
    Ended,
    Running,
    is_odd_type,
    odd_view,
    read_view,
    read_wait,
    waits_in_tenants_list,
)
from bitladder.queue.run_script import Call, may_go_again, run
from bitladder.queue.sending.budget import ByteBudget
from bitladder.queue.sending.exchange import call_each, exchange
from bitladder.queue.sending.submitting import Submitter
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.queue.untrusted import read_number
from bitladder.queue_name import list_of
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings

_RESERVE_POLL_S = 0.1


class JobQueue:
    """Typed access to the scripts over one asyncio client."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings | LiveSettings) -> None:
        self.client = client
        self._live = LiveSettings.of(settings)
        self.signer = Signer(self.settings.queue.secrets)
        self._submitter = Submitter(client, self._live, self.signer)
        self._budget = ByteBudget()  # of what one claim brings
        self.service_ms = 0  # how long a job takes at this worker: by that a claim judges deadlines; 0: not known

    @property
    def settings(self) -> Settings:
        return self._live.current

    async def aclose(self) -> None:
        await self._submitter.aclose()
        await self.client.aclose()

    async def submit(self, jobs: Sequence[Submission]) -> list[str | BitladderError]:
        """Store and push jobs in one round trip; return for each its id, or why it was not accepted.

        AcceptanceUnknownError: it may have been. Submitting the same jobs again is safe: an id is stored once.
        """
        return await self._submitter.submit(jobs)

    async def claim(self, worker: str, model: str, tier: str, plan: ClaimPlan, slots: int) -> Claims:
        """Take up to `slots` jobs, and no more of them than an answer may hold."""
        with self._budget.tried():
            call = claim_call(self.settings, worker, model, tier, plan, (slots, self._budget.bytes, self.service_ms))
            return read_claimed(await self.run(call))

    async def claim_when_pushed(
        self, waiter: redis.asyncio.Redis, worker: str, model: str, tier: str, plan: ClaimPlan, slots: int
    ) -> Claims:
        """Take up to `slots` jobs as soon as something is pushed, or after `worker.block_s` at the latest.

        Both commands go out together: when the first one stops blocking, the server runs the claim at once, and the
        job does not wait for another round trip.
        """
        with self._budget.tried():
            call = claim_call(self.settings, worker, model, tier, plan, (slots, self._budget.bytes, self.service_ms))
            keys = [wake_key(model, tier)]
            if self.settings.queue.prefix_bytes:
                keys.insert(0, f"bl:wake:{worker}")
            # A worker that keeps a reserve always has free slots: no push says that others became free.
            has_reserve = self.settings.model(model).tier(tier).reserve > 0
            block_s = min(self.settings.worker.block_s, _RESERVE_POLL_S if has_reserve else math.inf)
            answer = await _run_when_pushed(waiter, keys, block_s, call)
            return read_claimed(await self.run(call) if may_go_again(answer) else answer)

    async def finish(self, worker: str, jobs: Sequence[Finished]) -> list[bool]:
        """Store outcomes; False for a job that is no longer this worker's."""
        return read_finished(await self.run(finish_call(self.settings, self.signer, worker, jobs)))

    async def emit(self, worker: str, chunks: Sequence[tuple[str, Chunk]]) -> list[Emitted]:
        """Store and publish chunks of streams by job id."""
        return read_emitted(await self.run(emit_call(self.settings, worker, chunks)))

    async def mark_begun(self, worker: str, job_ids: Sequence[str], *, has_begun: bool = True) -> None:
        """Note that the engine has begun these jobs of a worker, or has refused them without having begun.

        The loss of the worker costs those that its engine has not begun no attempt.
        """
        if not job_ids:
            return
        command = "SREM" if has_begun else "SADD"
        try:
            await self.client.execute_command(command, f"bl:unbegun:{worker}", *job_ids)  # type: ignore[no-untyped-call]  # redis-py
        except (RedisError, OSError) as error:
            raise unreachable("Redis does not answer", error) from error

    async def look(
        self, job_ids: Sequence[str], *, channel: str = "", max_bytes: int = 0
    ) -> list[Outcome | Ended | Running | None]:
        """Say how jobs ended, or that they run; None where they wait. What comes is published to `channel`.

        Of outcomes that have no room in `max_bytes` (0: no limit) it says only that they are there. Jobs that wait past
        their deadline end here: where no worker claims any, nobody else would notice.
        """
        call = look_call(job_ids, channel=channel, max_bytes=max_bytes)
        answer = await self.run(call)
        if late := read_late(answer, job_ids):
            for job_id in late:
                await self.expire(job_id)
            answer = await self.run(call)
        return read_looks(answer, job_ids, self.signer)

    async def chunks(self, job_id: str, fence: int, number: int) -> list[Chunk]:
        """Return the stored chunks of a stream behind this one, as many as one read brings: at least one."""
        return read_chunks(await self.run(chunks_call(job_id, fence, number)))

    async def requeue(
        self,
        worker: str,
        job: Claimed,
        target: str,
        *,
        reason: RequeueReason,
        last: Outcome,
        kept: Outcome | None = None,
    ) -> str:
        """Put a job back to the front of `target`, or end it with `last`: returned, ended or lost.

        With a `kept` answer it ends with that, whatever else would be its end but another answer or a cancellation.
        """
        item = Requeued(job=job, target=target, reason=reason, last=last, kept=kept)
        return read_word(await self.run(requeue_call(self.settings, self.signer, worker, item)))

    async def cancel(self, job_id: str) -> str:
        """Cancel a job: missing, cancelled (it waited), requested (its worker was notified) or over."""
        return read_word(await self.run(cancel_call(self.settings, self.signer, job_id)))

    async def forget(self, job_id: str) -> str:
        """Delete a stored response: missing, forgotten, or requested (it runs, and its worker was notified)."""
        return read_word(await self.run(cancel_call(self.settings, self.signer, job_id, forgets=True)))

    async def withdraw(self, jobs: Sequence[Doubtful]) -> list[bool]:
        """Cancel jobs that may have been submitted, or may yet be: in any case they will not run (any more).

        Return for each whether Redis has answered.
        """
        calls = [cancel_call(self.settings, self.signer, job.job_id, withdrawn=job) for job in jobs]
        answers = await call_each(partial(exchange, self.client.connection_pool), calls)
        return [isinstance(answer, bytes) for answer in answers]

    async def expire(self, job_id: str) -> bool:
        """End a job that still waits although its deadline has passed; False where it runs, is over or has time."""
        call = expire_call(self.settings, self.signer, job_id, await _trouble(self, job_id))
        return bool(await self.run(call))

    async def view(self, job_id: str) -> JobView | None:
        """Read one job; None when there is no such record."""
        try:
            values: list[Any] = await self.client.hmget(f"rq:job:{job_id}", list(VIEWED))
            fields = dict(zip(VIEWED, values, strict=True))
            left, tenants = await self._left(fields)
        except ResponseError as error:
            if is_odd_type(error):
                return odd_view(job_id)
            raise unreachable("Redis refused", error) from error
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        return read_view(job_id, fields, left, self.signer, tenants) if fields["status"] else None

    async def _left(self, fields: Mapping[str, bytes | None]) -> tuple[int | None, int]:
        """Return how many ids before a waiting job wait no longer, and how many tenants wait in its queue.

        None for a job that has no number in its list.
        """
        queue, number = fields["origin"], read_wait(fields["wait"])[2]
        tenant = fields["tenant"] if waits_in_tenants_list(fields["wait"]) else None
        if fields["status"] != b"queued" or not queue or number is None:
            return None, 1
        name = list_of(queue.decode(errors="surrogateescape"), (tenant or b"").decode(errors="surrogateescape"))
        waits_in = name.encode(errors="surrogateescape")
        try:
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.hget(b"bl:counts:" + waits_in, "popped")
                # Over already, and still in the list before it.
                pipe.zcount(b"bl:gone:" + waits_in, "-inf", f"({number}")
                pipe.zcard(b"bl:shares:" + queue)
                pipe.exists(b"rq:queue:" + queue)
                popped, gone, named, default = await pipe.execute()
        except ResponseError:  # a key of another type, which is not ours
            return None, 1
        return (read_number(popped) or 0) + int(gone), max(1, int(named) + int(default))

    async def depths(self, model: str) -> Depths:
        """Read the depth of every queue of a model."""
        return read_depths(self.settings, model, await self.run(depths_call(self.settings, model)))

    async def overview(self) -> Overview:
        """Read what all models share, and the queues that no tier serves."""
        return read_overview(await self.run(overview_call(self.settings)))

    async def make_safe(self) -> None:
        """Wait until all that was written before is as safe as `queue.durability` and `queue.wait_replicas` say.

        Raises:
            QueueUnreachableError: it may not be.

        """
        await self._submitter.make_safe()

    async def run(self, call: Call) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        """Call one script.

        Raises:
            QueueUnreachableError: Redis is unreachable or refuses.

        """
        try:
            return await run(self.client, call)
        except ResponseError as error:
            raise unreachable("Redis refused", error) from error
        except (RedisError, OSError) as error:
            raise unreachable("Redis does not answer", error) from error


async def _trouble(queue: JobQueue, job_id: str) -> bytes:
    """Return why a job came back from its last execution; b'' where that is not known, or cannot be trusted."""
    raw: Any = b""
    if not queue.settings.queue.secrets:  # with them the outcome is signed, and this is not
        with contextlib.suppress(RedisError, OSError):
            raw = await queue.client.hget(f"rq:job:{job_id}", "trouble")
    return bytes(raw or b"")


async def _run_when_pushed(waiter: redis.asyncio.Redis, keys: list[str], block_s: float, call: Call) -> Any:  # noqa: ANN401
    try:
        async with waiter.pipeline(transaction=False) as pipe:
            pipe.blpop(keys, timeout=block_s)
            pipe.execute_command(*call.words())
            _, answer = await pipe.execute(raise_on_error=False)
    except (RedisError, OSError) as error:
        raise unreachable("Redis does not answer", error) from error
    if isinstance(answer, Exception) and not may_go_again(answer):
        raise unreachable("Redis refused", answer) from answer
    return answer
