"""Waiting for the outcomes of many jobs, blocking: two connections, whatever their number, and no outcome is kept.

As in outcomes.py, a job's record names the channel to which its outcome is published, messages are hints, and what is
stored counts: after a lost connection all jobs are looked up again, and some of them every now and then.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import RedisError

from bitladder.contract import Outcome
from bitladder.entries import Numbered, OutageWait, not_ended
from bitladder.errors import BitladderError, NotEndedError, QueueUnreachableError
from bitladder.queue.calls.read import look_call, read_looks
from bitladder.queue.job_record import Ended
from bitladder.queue.run_script import run_sync
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.queue.waiting.outcomes import POLL_INTERVAL_S, unpack_message
from bitladder.settings.sections import Settings

# Jobs and bytes of outcomes per call, as in outcomes.py.
_MAX_LOOKED_UP, _MAX_LOOK_BYTES = 250, 1024 * 1024
# So many jobs are looked up every POLL_INTERVAL_S, the one after the other: a thousand cost Redis some milliseconds.
_POLLED = 4 * _MAX_LOOKED_UP
# Ids that come one by one are looked up together, but none waits longer than this for others.
_GATHER_S = 0.1
# Between two tries while Redis does not answer.
_RETRY_S = 0.5

# What may be in the memory of one call whose ids come from an iterator: jobs run about in the order of their ids.
MAX_PENDING = 10_000

Ending = tuple[int, str, Outcome | BitladderError]
_End = tuple[str, Outcome]


class _Pending:
    """The jobs of one call that have not ended yet, and those that are still to come."""

    def __init__(self, ids: Iterator[Numbered[str] | None], timeout_s: float, *, is_bounded: bool) -> None:
        self._ids: Iterator[Numbered[str] | None] | None = ids
        self._timeout_s, self._is_bounded = timeout_s, is_bounded
        self._end_s, self._poll_s = time.monotonic() + timeout_s, time.monotonic() + POLL_INTERVAL_S
        self.jobs: dict[str, list[int]] = {}  # an id may be there several times, as idempotency keys have it
        self.refused: list[tuple[int, BitladderError]] = []  # has no id
        self.error: Exception | None = None  # that the ids raised

    @property
    def is_open(self) -> bool:
        return bool(self.jobs) or self._ids is not None

    @property
    def left_s(self) -> float:
        return max(0.0, self._end_s - time.monotonic())

    @property
    def pause_s(self) -> float:
        """How long to wait for a message."""
        return min(self.left_s, max(0.0, self._poll_s - time.monotonic()))

    def take(self) -> list[str]:
        """Take more ids, as far as there is room and time, and return them."""
        taken: list[str] = []
        may_take = self._is_bounded or (len(self.jobs) < MAX_PENDING and self.left_s > 0)
        if self._ids is None or not may_take:
            return taken
        end_s = time.monotonic() + _GATHER_S
        try:
            for numbered in self._ids:
                if numbered is None:
                    return taken
                index, job_id = numbered
                if isinstance(job_id, str):
                    self.jobs.setdefault(job_id, []).append(index)
                    taken.append(job_id)
                else:
                    self.refused.append((index, job_id))
                if len(taken) + len(self.refused) >= _MAX_LOOKED_UP or time.monotonic() > end_s:
                    return taken
        except Exception as error:
            self.error = error
        self._ids = None
        return taken

    def to_poll(self) -> list[str]:
        """Return the jobs that are to be looked up again now, the longest unseen first: none most of the time."""
        if time.monotonic() < self._poll_s:
            return []
        self._poll_s = time.monotonic() + POLL_INTERVAL_S
        polled = list(islice(self.jobs, _POLLED))
        for job_id in polled:
            self.jobs[job_id] = self.jobs.pop(job_id)
        return polled

    def not_ended(self) -> NotEndedError:
        return not_ended(list(self.jobs), self._timeout_s)


class JobWatch:
    """Hears how jobs end. For one thread, and for one call at a time."""

    def __init__(self, settings: Settings) -> None:
        self.channel = f"bl:reply:{secrets.token_hex(8)}"
        self._signer = Signer(settings.queue.secrets)
        self._client = connect_sync(settings.redis)
        self._messages: Any = None  # redis-py's pub/sub, mostly untyped; None: not subscribed
        self._answer_s = settings.redis.timeout_s * 5
        self._outage_wait = OutageWait()  # of the call under way

    def close(self) -> None:
        self._unsubscribe()
        self._client.close()

    def subscribe(self) -> bool:
        """Hear what is published from now on; return whether something may have been missed before.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        if self._messages is not None:
            return False
        try:
            self._messages = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis-py
            self._messages.subscribe(self.channel)
            if not self._messages.get_message(timeout=self._answer_s):
                raise RedisError(f"no answer to a subscription in {self._answer_s:g} s")
        except (RedisError, OSError) as error:
            self._unsubscribe()
            raise unreachable("cannot wait for outcomes", error) from error
        return True

    def read(self, job_id: str) -> Outcome | None:
        """Return how a job ended, LOST where it is not stored; None while it has not.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        ((_, item),) = self._looked([job_id], "", 0)
        return item if isinstance(item, Outcome) else None

    def reply(self, job_id: str, timeout_s: float) -> Outcome:
        """Return the outcome of a job that was submitted with this channel; errors as of `ends`."""
        pending = _Pending(iter([(0, job_id)]), timeout_s, is_bounded=True)
        pending.take()
        for _, _, outcome in self._ends(pending):
            if isinstance(outcome, Outcome):
                return outcome
        raise pending.not_ended()

    def ends(self, ids: Iterable[Numbered[str] | None], timeout_s: float, *, is_bounded: bool) -> Iterator[Ending]:
        """Yield each numbered job when it ends, with its outcome, or LOST where it is not stored.

        None among the ids: there are no more now, and they are asked again when something has ended. An error in the
        place of an id is yielded as it is; one that `ids` raises is raised when the jobs before it have ended.
        `is_bounded`: the ids are in memory, and each is looked up at least once, however short the time.

        Raises:
            NotEndedError: some have not ended in time.
            QueueUnreachableError: Redis is unreachable now, or was later, for half a minute.

        """
        yield from self._ends(_Pending(iter(ids), timeout_s, is_bounded=is_bounded))

    def _ends(self, pending: _Pending) -> Iterator[Ending]:
        self._outage_wait = OutageWait()
        self.subscribe()
        while pending.is_open:
            try:
                for job_id, outcome in self._step(pending):
                    for index in pending.jobs.pop(job_id, ()):
                        yield index, job_id, outcome
            except QueueUnreachableError:
                self._unsubscribe()
                if self._outage_wait.is_over() or pending.left_s <= 0:
                    raise
                time.sleep(min(_RETRY_S, pending.left_s))
            while pending.refused:
                index, error = pending.refused.pop(0)
                yield index, "", error
        if pending.error is not None:
            raise pending.error

    def _step(self, pending: _Pending) -> Iterator[_End]:
        """Look up more jobs, and hear messages; yield what has ended."""
        if self.subscribe():
            yield from self._look(list(pending.jobs))
        taken = pending.take()
        yield from self._look(taken)
        yield from self._look(pending.to_poll())
        if pending.refused or not pending.is_open:
            return
        if not taken and pending.left_s <= 0:
            raise pending.not_ended()
        if pending.jobs:
            yield from self._heard(pending, 0 if taken else pending.pause_s)

    def _heard(self, pending: _Pending, wait_s: float) -> Iterator[_End]:
        """Yield what messages say, after waiting for the first; a new subscription means that some were missed."""
        while message := self._message(wait_s):
            wait_s = 0
            if message["type"] == "message":
                yield from self._in_message(pending, message["data"])
            elif message["type"] == "subscribe":  # redis-py has connected again
                yield from self._look(list(pending.jobs))

    def _message(self, wait_s: float) -> Any:  # noqa: ANN401  (redis-py's)
        try:
            return self._messages.get_message(timeout=wait_s)
        except (RedisError, OSError) as error:
            raise unreachable("cannot wait for outcomes", error) from error

    def _in_message(self, pending: _Pending, message: bytes) -> Iterator[_End]:
        with contextlib.suppress(ValueError):  # in another form than ours: what is stored says the same
            for kind, job_id, _, _, content in unpack_message(message):
                if kind == b"d" and job_id in pending.jobs:
                    outcome = self._signer.decode(job_id, content) if content else self.read(job_id)
                    if outcome is not None:
                        yield job_id, outcome

    def _look(self, job_ids: Sequence[str]) -> Iterator[_End]:
        """Yield those of the jobs that have ended; what becomes of the others is published to this channel."""
        for start in range(0, len(job_ids), _MAX_LOOKED_UP):
            asked = job_ids[start : start + _MAX_LOOKED_UP]
            for job_id, item in self._looked(asked, self.channel, _MAX_LOOK_BYTES):
                outcome = self.read(job_id) if isinstance(item, Ended) else item
                if isinstance(outcome, Outcome):
                    yield job_id, outcome

    def _looked(self, job_ids: Sequence[str], channel: str, max_bytes: int) -> Iterator[tuple[str, Any]]:
        try:
            answer = run_sync(self._client, look_call(job_ids, channel=channel, max_bytes=max_bytes))
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        self._outage_wait.answered()
        return zip(job_ids, read_looks(answer, job_ids, self._signer), strict=True)

    def _unsubscribe(self) -> None:
        if self._messages is not None:
            with contextlib.suppress(RedisError, OSError):
                self._messages.close()
            self._messages = None
