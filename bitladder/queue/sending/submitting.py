"""Submits many jobs in one round trip, with a result for each: a lost answer or a bad record affects no other job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio

from bitladder.contract import Submission
from bitladder.errors import BitladderError, QueueUnreachableError
from bitladder.queue.calls.submit import by_group, demoted, read_submitted, spread, submit_call, submitted_bytes, unsafe
from bitladder.queue.run_script import Command, NotSentError, Rows
from bitladder.queue.sending.exchange import TRIES, call_each, exchange
from bitladder.queue.sending.server_time import ASK, EarliestServerTime
from bitladder.queue.server.connection import connect
from bitladder.queue.server.durability import WAIT_MS, barrier, check_passed
from bitladder.queue.server.sockets import extra_s
from bitladder.queue.signing import Signer
from bitladder.settings.live import LiveSettings


class Submitter:
    """Stores and pushes jobs, and waits until they are as safe as `queue.durability` says."""

    def __init__(self, client: redis.asyncio.Redis, live: LiveSettings, signer: Signer) -> None:
        self._live, self._signer, settings = live, signer, live.current
        self._barrier = barrier(settings)
        # Disks and replicas take longer to answer.
        wait_s = WAIT_MS / 1000 if self._barrier else 0
        self._own = connect(settings.redis, wait_s=wait_s) if self._barrier else None
        self._pool = (self._own or client).connection_pool
        # A call that was given up must not be carried out later: its client was told that it was not.
        self._clock, self._within_s = EarliestServerTime(), TRIES * (settings.redis.timeout_s + wait_s)

    async def aclose(self) -> None:
        if self._own is not None:
            await self._own.aclose()

    async def submit(self, jobs: Sequence[Submission]) -> list[str | BitladderError]:
        """Return for each job its id, or why it was refused, or that this is unknown (see JobQueue.submit)."""
        placed = dict(enumerate(jobs))
        answers = await self._submit(placed)
        if excess := dict(demoted(answers, placed)):
            answers |= await self._submit(excess)
        return [read_submitted(answers[place], job) for place, job in placed.items()]

    async def make_safe(self) -> None:
        """Wait until all that was written before is as safe as a job that is accepted.

        Raises:
            QueueUnreachableError: it may not be.

        """
        if self._barrier:
            check_passed(self._live.current, await exchange(self._pool, self._barrier))

    async def _submit(self, placed: Mapping[int, Submission]) -> dict[int, Rows]:
        if self._clock.is_stale:
            (answer,) = await exchange(self._pool, [ASK])
            if isinstance(answer, Exception):
                return dict.fromkeys(placed, NotSentError(answer))
            self._clock.read(answer)
        settings = self._live.current
        groups = by_group(settings, placed.items())
        calls = [
            submit_call(settings, self._signer, group, [job for _, job in numbered])
            for group, numbered in groups.items()
        ]
        answers: dict[int, Rows] = {}
        within_s = self._within_s + TRIES * 2 * extra_s(sum(map(submitted_bytes, placed.values())))
        for numbered, rows in zip(
            groups.values(), await call_each(self._send, calls, self._clock, within_s), strict=True
        ):
            answers |= {place: row for place, _, row in spread(rows, numbered)}
        return answers

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        answers = await exchange(self._pool, [*commands, *self._barrier])
        answers, behind = answers[: len(commands)], answers[len(commands) :]
        if behind:
            try:
                check_passed(self._live.current, behind)
            except QueueUnreachableError as error:
                answers = [unsafe(rows, error) for rows in answers]
        return answers
