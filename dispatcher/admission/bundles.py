"""Submissions of many requests go to Redis together, in bundles."""

from __future__ import annotations

from collections.abc import Sequence

from bitladder.contract import Submission
from bitladder.errors import AcceptanceUnknownError, BitladderError
from bitladder.process.batching import Batcher
from bitladder.queue.calls.submit import submitted_bytes
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.budget import ByteBudget
from bitladder.queue.server.durability import barrier

# Enough to make the round trip vanish. Where a bundle may wait a second for the disk, all submissions that come
# meanwhile go in the next one.
BUNDLE, _BUNDLE_WAITING = 64, 1024


class SubmissionBundles:
    """Submits each job together with those that other requests submit at the same time."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._budget = ByteBudget()  # of what one call submits
        self._batcher: Batcher[Submission, str | BitladderError] = Batcher(
            self._submit, max_items=_BUNDLE_WAITING if barrier(queue.settings) else BUNDLE
        )

    async def submit(self, job: Submission) -> str | BitladderError:
        """Return the id that the job is stored under, or why it is not."""
        return await self._batcher.call(job)

    async def _submit(self, jobs: Sequence[Submission]) -> Sequence[str | BitladderError]:
        """Submit the first jobs, as many as one call may carry."""
        answers = await self._queue.submit(self._budget.first(jobs, submitted_bytes))
        self._budget.learn(is_answered=not any(isinstance(answer, AcceptanceUnknownError) for answer in answers))
        return answers
