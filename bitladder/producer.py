"""For producers beside Redis: score, route and queue prompts without HTTP, and await outcomes.

with Producer(settings) as producer:
    print(producer.run({"model": "smollm2", "prompt": "Hello"}).answer)
    ids = producer.submit_many({"model": "smollm2", "prompt": line} for line in lines)
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Self

import msgspec
from redis.exceptions import RedisError

from bitladder.contract import Endpoint, Lane, Outcome, Submission
from bitladder.errors import BitladderError, PartlySubmittedError, QueueUnreachableError
from bitladder.ids import id_bytes
from bitladder.queue.calls.submit import Placed, by_group, read_submitted, spread, submit_call, submitted_bytes
from bitladder.queue.checks.rights import PRODUCER
from bitladder.queue.checks.server_check import check_server_sync
from bitladder.queue.job_record import LOST, read_end
from bitladder.queue.run_script import Call, LostError, NotSentError
from bitladder.queue.sending.blocking import BlockingScripts
from bitladder.queue.sending.budget import bundled
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.queue.waiting.outcomes import POLL_INTERVAL_S, unpack_message
from bitladder.routing.accept import Incoming, accept
from bitladder.settings.sections import Settings

# Jobs per round trip: enough that the trip costs little per job, few enough to keep the server responsive to others.
BUNDLE = 256
# Two bundles are on their way at once; both are there within the time limit at a few Mbit/s.
_BUNDLE_BYTES = 1024 * 1024

Body = dict[str, Any]
# Headers of an envelope, as they would come by HTTP: {"X-Priority": "9"}.
Headers = dict[str, str]


class Producer:
    """Queues jobs and awaits them, blocking; for one thread."""

    def __init__(self, settings: Settings) -> None:
        """Look at Redis once; one that does not answer is left to the calls.

        Raises:
            ConfigError: it can never serve.

        """
        self._settings = settings
        self._signer = Signer(settings.queue.secrets)
        self._scripts = BlockingScripts(settings)
        self._client = connect_sync(settings.redis)
        with contextlib.suppress(QueueUnreachableError):  # each call says so again
            check_server_sync(self._client, settings.redis, PRODUCER)
        self._replies = f"bl:reply:{secrets.token_hex(8)}"  # outcomes of what `run` submits
        self._messages: Any = None  # redis-py's pub/sub, mostly untyped; opened by the first wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def submit(self, body: Body, *, lane: Lane | None = None, headers: Headers | None = None) -> str:
        """Queue one body as it would come by HTTP; return its job id.

        Raises:
            AcceptanceUnknownError: Redis did not answer; its `job_id` may be accepted. With an Idempotency-Key among
                the headers, calling again is safe: the job is stored once.
            BitladderError: the job is not queued, as the body or a header is wrong, the queue is full, or Redis is
                unreachable.

        """
        return self._submit(self._submission(body, lane, headers))

    def run(
        self, body: Body, *, lane: Lane | None = None, headers: Headers | None = None, timeout_s: float = 600
    ) -> Outcome | None:
        """Queue one body and return its outcome; None when there is none in time: the job goes on.

        Raises:
            BitladderError: see `submit`.

        """
        self._listen()  # before anything is submitted: no outcome can fall between
        job = msgspec.structs.replace(self._submission(body, lane, headers), reply_to=self._replies)
        job_id = self._submit(job)
        if job_id != job.job_id:  # the idempotency key's first job, whose outcome is published to its own submitter
            return self.wait(job_id, timeout_s=timeout_s)
        return self._await(job_id, self._replies, timeout_s)

    def submit_many(
        self, bodies: Iterable[Body], *, lane: Lane | None = Lane.BATCH, headers: Headers | None = None
    ) -> list[str | BitladderError]:
        """Queue many bodies; for each its job id, or why it was refused.

        Raises:
            RequestError: a body or header is wrong; bundles before it are queued.
            PartlySubmittedError: Redis is unreachable; `answers` are those of all bodies so far. No more are taken.

        """
        answers: dict[int, str | BitladderError] = {}
        sent: deque[Placed] = deque()
        lost: LostError | None = None
        jobs = (self._submission(body, lane, headers) for body in bodies)
        for rows in self._scripts.call_each(self._calls(jobs, sent)):
            lost = lost or (rows if isinstance(rows, LostError) else None)
            answers |= {place: read_submitted(row, job) for place, job, row in spread(rows, sent.popleft())}
        if lost is not None:  # what is left in `sent` was taken, and not sent any more
            unsent = [row for group in sent for row in spread(NotSentError(lost.reason), group)]
            answers |= {place: read_submitted(row, job) for place, job, row in unsent}
        in_order = [answers[place] for place in range(len(answers))]
        if lost is not None:
            raise PartlySubmittedError(f"Redis is unreachable after {len(in_order)} bodies: {lost}", answers=in_order)
        return in_order

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how a job ended; None while it has not, or when it is not stored."""
        outcome = self._read(job_id)
        return None if outcome is LOST else outcome

    def wait(self, job_id: str, *, timeout_s: float = 600) -> Outcome | None:
        """Return the outcome when there is one; None when there is none in time. A job that is gone has failed.

        Raises:
            QueueUnreachableError: Redis is unreachable.

        """
        channel = f"bl:done:{job_id}"
        self._listen(channel)
        try:
            return self._read(job_id) or self._await(job_id, channel, timeout_s)
        finally:
            with contextlib.suppress(RedisError, OSError):
                self._messages.unsubscribe(channel)

    def close(self) -> None:
        if self._messages is not None:
            self._messages.close()
        self._scripts.close()
        self._client.close()

    def _read(self, job_id: str) -> Outcome | None:
        """Return how a job ended; LOST where it is not stored."""
        try:
            fields: Any = self._client.hmget(f"rq:job:{job_id}", "status", "outcome")
        except (RedisError, OSError) as error:
            raise unreachable("cannot read from Redis", error) from error
        status, stored = fields
        return read_end(job_id, status.decode(errors="replace"), stored, self._signer) if status else LOST

    def _submit(self, job: Submission) -> str:
        calls = self._calls([job], deque())
        rows = self._scripts.call(next(calls))
        answer = read_submitted(rows if isinstance(rows, Exception) else rows[0], job)
        if isinstance(answer, BitladderError):
            raise answer
        return answer

    def _listen(self, *channels: str) -> None:
        """Subscribe to this producer's replies and to `channels`, and return when that holds."""
        try:
            if self._messages is None:
                self._messages = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis-py
                channels = (self._replies, *channels)
            for channel in channels:
                self._messages.subscribe(channel)
                self._next_message("subscribe", channel, self._settings.redis.timeout_s * 5)
        except (RedisError, OSError) as error:
            raise unreachable("cannot wait for outcomes", error) from error

    def _await(self, job_id: str, channel: str, timeout_s: float) -> Outcome | None:
        """Return the outcome from a message, or what is stored where messages may have been lost."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            try:
                message = self._next_message("message", channel, min(left, POLL_INTERVAL_S))
            except (RedisError, OSError) as error:
                raise unreachable("cannot wait for an outcome", error) from error
            outcome = self._in_message(job_id, channel, message) if message else self._read(job_id)
            if outcome:
                return outcome
        return None

    def _in_message(self, job_id: str, channel: str, message: bytes) -> Outcome | None:
        if channel != self._replies:
            return self._signer.decode(job_id, message)
        try:
            contents = [content for _, owner, _, _, content in unpack_message(message) if owner == job_id]
        except ValueError:  # in another form than ours: what is stored says the same
            return None
        if contents and not contents[-1]:  # an outcome too large for a message
            return self._read(job_id)
        return next((outcome for content in contents if (outcome := self._signer.decode(job_id, content))), None)

    def _next_message(self, kind: str, channel: str, wait_s: float) -> bytes | None:
        end = time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0:
            message = self._messages.get_message(timeout=left)
            if message and message["type"] == kind and message["channel"] == id_bytes(channel):
                data: bytes = message["data"]
                return data
        return None

    def _calls(self, jobs: Iterable[Submission], sent: deque[Placed]) -> Iterator[Call]:
        """Yield the calls that queue `jobs`. Before a call is yielded, the jobs that it carries are added to `sent`."""
        for bundle in bundled(enumerate(jobs), BUNDLE, lambda item: submitted_bytes(item[1]), _BUNDLE_BYTES):
            groups = by_group(self._settings, bundle)
            sent.extend(groups.values())
            for group, numbered in groups.items():
                yield submit_call(self._settings, self._signer, group, [job for _, job in numbered])

    def _submission(self, body: Body, lane: Lane | None, headers: Headers | None) -> Submission:
        endpoint = Endpoint.CHAT if "messages" in body else Endpoint.COMPLETIONS
        lower = {name.lower(): value for name, value in headers.items()} if headers else {}
        raw = msgspec.json.encode(body)
        incoming = Incoming(endpoint=endpoint, body=raw, headers=lower, request_id="", lane=lane)
        return accept(incoming, self._settings).submission
