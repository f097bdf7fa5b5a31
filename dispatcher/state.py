"""What all endpoints share: settings, queue, inbox, metrics, and the way from a request to a queued job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from bitladder.batching import Batcher
from bitladder.contract import Endpoint, JobView, Lane, Outcome, QueueName, Submission
from bitladder.errors import (
    AcceptanceUnknownError,
    BitladderError,
    ClientGoneError,
    QueueFullError,
    SlowBodyError,
    TooLargeError,
)
from bitladder.ids import in_url
from bitladder.queue.calls.submit import submitted_bytes
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import ByteBudget
from bitladder.queue.server.durability import barrier
from bitladder.queue.sweeping import sweep_for_ever
from bitladder.queue.waiting.outcomes import OutcomeInbox
from bitladder.routing.accept import Accepted, Incoming, accept
from bitladder.settings.access import Caller
from bitladder.settings.live import LiveSettings, ReleaseWatch, follow, release_version
from bitladder.settings.sections import Settings
from bitladder.supervision import Background, in_thread
from dispatcher.admission import Admission
from dispatcher.auth import Gate
from dispatcher.capture.capture import Capture
from dispatcher.closing import Closing
from dispatcher.metrics import AdmissionMetrics, IntakeMetrics, withdrawals_gauge
from dispatcher.withdrawals import Withdrawals

# Submissions that go together: enough to make the round trip vanish. Where a bundle may wait a second for the disk, all
# that come meanwhile go in the next one.
BUNDLE, BUNDLE_WAITING = 64, 1024
# Job records read at once, a connection each.
MAX_READING = 64


class Gateway:
    """The state of one intake process."""

    def __init__(self, live: LiveSettings, queue: JobQueue, closing: Closing, *, is_key_required: bool) -> None:
        self.live = live
        settings = live.current
        self.queue = queue
        self.closing = closing
        self.gate = Gate(live, queue.client, is_required=is_key_required)
        self.background = Background()
        self._reading = asyncio.Semaphore(MAX_READING)
        self.inbox = OutcomeInbox(settings.redis, queue)
        self.metrics = IntakeMetrics()
        metrics = AdmissionMetrics(self.metrics.registry)
        self.admission = Admission(live, queue.client, metrics, lambda: self.inbox.is_connected)
        self.capture = Capture(lambda: live.current.capture, self.metrics)
        self._capturing: asyncio.Task[None] | None = None
        self.withdrawals = Withdrawals(queue, withdrawals_gauge(self.metrics.registry))
        self._room = ByteBudget()  # of what one call submits
        self._submit: Batcher[Submission, str | BitladderError] = Batcher(
            self._submit_many, most=BUNDLE_WAITING if barrier(settings) else BUNDLE
        )

    async def start(self, watch: ReleaseWatch | None) -> None:
        """Begin all that runs beside requests, and wait for Redis for a moment; `watch` brings published ladders."""
        self.inbox.start(self.background)
        await self.inbox.ready(self.settings.redis.timeout_s)
        self.background.start("admission", self.admission.look_for_ever)
        self.background.start("withdrawals", self.withdrawals.work_for_ever)
        self.live.subscribe(lambda _: self._after_change)
        self._after_change()
        self.background.start("sweep", lambda: sweep_for_ever(self.queue, list(self.settings.models)))
        if watch:
            self.background.start("release", lambda: follow(watch, self.live, self.metrics.refused_releases.set))

    async def aclose(self) -> None:
        await self.withdrawals.drain()
        await self.background.stop()
        self.capture.stop()
        await self.inbox.aclose()
        await self.queue.aclose()

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.live.current

    def _after_change(self) -> None:
        self.metrics.ladder.set(release_version(self.settings))
        if self.capture.is_needed and self._capturing is None:
            self._capturing = self.background.start("capture", lambda: in_thread("capture", self.capture.run))

    async def body(self, request: HttpRequest) -> bytes:
        """Read a body up to the limit, in the time there is for it.

        Raises:
            TooLargeError: it is larger; the rest is not read.
            SlowBodyError: it takes too long.
            ClientGoneError: it ends in the middle.
            IntakeClosingError: the intake does.

        """
        limit_s = self.settings.intake.body_timeout_s
        try:
            with self.closing.interrupts():
                async with asyncio.timeout(limit_s):
                    return await self._read(request)
        except TimeoutError:
            raise SlowBodyError(f"the body must arrive within {limit_s:g} s ([intake].body_timeout_s)") from None
        except ClientDisconnect:
            raise ClientGoneError("the client closed the connection") from None

    async def _read(self, request: HttpRequest) -> bytes:
        limit = self.settings.intake.max_body_bytes
        declared = request.headers.get("content-length", "")
        chunks, size = [], int(declared) if declared.isdigit() else 0
        if size <= limit:
            size = 0
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    break
        if size > limit:
            raise TooLargeError(f"the body must be at most {limit} bytes ([intake].max_body_bytes), got {size} or more")
        return b"".join(chunks)

    def route(
        self,
        request: HttpRequest,
        endpoint: Endpoint,
        body: bytes,
        *,
        lane: Lane | None = None,
        reply: bool = False,
    ) -> Accepted:
        """Score and route one body."""
        start = time.perf_counter()
        caller: Caller = request.state.caller
        incoming = Incoming(
            endpoint=endpoint,
            body=body,
            headers=request.headers,
            request_id=request.state.request_id,
            lane=lane,
            tenant=caller.tenant,
            max_of_tenant=caller.max_queued or 0,
        )
        accepted = accept(incoming, self.settings, reply_to=self.inbox.channel if reply else "")
        self.metrics.routing.observe(time.perf_counter() - start)
        routed = accepted.submission
        self.capture.offer(accepted)
        decision = routed.request.decision
        if decision.score.entropy is not None:
            self.metrics.entropy.observe(decision.score.entropy)
        self.metrics.routed(routed.model, decision.floor, QueueName.parse(routed.queue).lane).inc()
        return accepted

    async def submit(self, accepted: Accepted) -> str:
        """Queue one job, in one pipeline with those of other requests; return the id it is stored under.

        Raises:
            RefusedError: there is more work than can be done in this client's time, or than may wait.
            QueueUnreachableError: Redis is unreachable: nothing was accepted.
            AcceptanceUnknownError: it may have been. Sending the request again is safe: with a key it is stored once,
                without one it is withdrawn.

        """
        job = accepted.submission
        entry = await self.admission.enter(job, accepted.envelope.latency_budget)
        try:
            answer = await self._submit.call(job)
        finally:
            self.admission.arrived(entry)
        if isinstance(answer, QueueFullError):
            answer.retry_after_s = self.admission.room_after_s(job.queue, self.settings.queue.max_depth)
        if isinstance(answer, AcceptanceUnknownError):
            raise self._in_doubt(job, answer)
        if isinstance(answer, BitladderError):
            raise answer
        return answer

    def _in_doubt(self, job: Submission, error: AcceptanceUnknownError) -> AcceptanceUnknownError:
        where = f"GET {self.link(job.job_id)} says whether it was"
        if job.idempotency_key:
            advice = f"{where}, and repeating the request with the same Idempotency-Key is safe"
        else:
            self.withdrawals.add(job)
            advice = f"without an Idempotency-Key it is withdrawn, so that repeating the request is safe; {where}"
        public = (
            f"it is not known whether the job {job.job_id} was accepted: the queue did not answer in time; {advice}"
        )
        return AcceptanceUnknownError(f"{error}; {advice}", job_id=job.job_id, public=public)

    def link(self, job_id: str) -> str:
        """Return where clients find a job, as they see this intake from before a proxy."""
        return f"{self.settings.intake.root_path}/v1/jobs/{in_url(job_id)}"

    def tier_of(self, job: Submission, outcome: Outcome) -> str:
        """Return the tier that served a job; '' where none of the job's model did, whatever the outcome says."""
        tier = outcome.tier or ""
        return tier if tier in self.settings.model(job.model).ladder else ""

    async def view(self, job_id: str) -> JobView | None:
        """Read one job; of very many at once, each in its turn."""
        async with self._reading:
            return await self.queue.view(job_id)

    def abandon(self, job: Submission) -> None:
        """Cancel a job that nobody awaits any more, in the background: the request's own task may be ending.

        A job with an idempotency key is kept: its client may come back for it. So are those that are awaited when the
        intake ends: it is not the clients who leave.
        """
        if not job.idempotency_key and not self.closing.has_come:
            self.withdrawals.add(job)

    async def _submit_many(self, jobs: Sequence[Submission]) -> Sequence[str | BitladderError]:
        """Submit the first jobs, as many as one call may carry."""
        answers = await self.queue.submit(self._room.first(jobs, submitted_bytes))
        self._room.learn(is_answered=not any(isinstance(answer, AcceptanceUnknownError) for answer in answers))
        return answers
