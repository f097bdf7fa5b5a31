"""Any number of jobs over one connection, a bundle at a time: each is answered in its place, whatever happens."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from bitladder.contract import Submission
from bitladder.entries import Numbered, in_place
from bitladder.errors import BitladderError
from bitladder.queue.calls.submit import Placed, by_group, read_submitted, spread, submit_call
from bitladder.queue.run_script import Call, LostError, NotSentError, Rows
from bitladder.queue.sending.blocking import BlockingScripts
from bitladder.queue.sending.budget import bundled
from bitladder.queue.server.protocol import unreachable
from bitladder.queue.signing import Signer
from bitladder.settings.sections import Settings

Body = TypeVar("Body")
# Jobs per round trip: enough that the trip costs little per job, few enough to keep the server responsive to others.
BUNDLE = 256
# Two bundles are on their way at once; both are there within the time limit at a few Mbit/s.
_BUNDLE_BYTES = 1024 * 1024


class _Bundle:
    """Jobs that were taken together, and what became of them so far: errors are there from the start."""

    def __init__(self, items: list[Numbered[Submission]]) -> None:
        self.items = items
        self.jobs: Placed = [(place, item) for place, item in items if isinstance(item, Submission)]
        self.answers: dict[int, str | BitladderError] = {}
        if len(self.jobs) < len(items):
            self.answers = {place: item for place, item in items if isinstance(item, BitladderError)}

    @property
    def is_answered(self) -> bool:
        return len(self.answers) == len(self.items)

    def in_order(self) -> Iterator[str | BitladderError]:
        return (self.answers[place] for place, _ in self.items)


class Bulk:
    """One submission of many jobs."""

    def __init__(self, settings: Settings, signer: Signer) -> None:
        self._settings, self._signer = settings, signer
        self._bundles: deque[_Bundle] = deque()  # not answered, or not yielded
        self._groups: deque[tuple[_Bundle, Placed]] = deque()  # one call each, without an answer yet
        self._lost: LostError | None = None
        self._raised: Exception | None = None  # by the bodies

    def submit(
        self, scripts: BlockingScripts, bodies: Iterable[Body], read: Callable[[Body], Submission]
    ) -> Iterator[str | BitladderError]:
        """Yield in order the id of each body's job, or why it was refused; `read` may raise a BitladderError for one.

        All bodies that were taken are answered, and no more are taken, when it raises what `bodies` raised, or

        Raises:
            QueueUnreachableError: Redis does not answer.

        """
        calls = self._calls(self._taken(bodies, read))
        answered = 0
        with contextlib.closing(scripts.call_each(calls)) as answers:
            for rows in answers:
                if rows is not None:
                    self._take(rows)
                while self._bundles and self._bundles[0].is_answered:
                    answered += len(self._bundles[0].items)
                    yield from self._bundles.popleft().in_order()
        if self._lost is not None:
            deque(calls, maxlen=0)  # what was taken, and has not become a call yet
            while self._groups:
                self._take(NotSentError(self._lost.reason))
            for bundle in self._bundles:
                answered += len(bundle.items)
                yield from bundle.in_order()
            raise unreachable(f"Redis is unreachable after {answered} bodies", self._lost.reason)
        if self._raised is not None:
            raise self._raised

    def _taken(self, bodies: Iterable[Body], read: Callable[[Body], Submission]) -> Iterator[Numbered[Submission]]:
        try:
            for index, body in enumerate(bodies):
                try:
                    job: Submission | BitladderError = read(body)
                except BitladderError as error:
                    job = in_place(error, index)
                yield index, job
                if self._lost is not None:
                    return
        except Exception as error:  # whatever a program's own iterator raises: those before it are to be answered
            self._raised = error

    def _calls(self, jobs: Iterator[Numbered[Submission]]) -> Iterator[Call | None]:
        """Yield the calls that queue `jobs`; None: a bundle has none, as nothing in it can be queued."""
        for items in bundled(jobs, BUNDLE, _bytes_of, _BUNDLE_BYTES):
            self._bundles.append(bundle := _Bundle(items))
            groups = by_group(self._settings, bundle.jobs)
            self._groups.extend((bundle, numbered) for numbered in groups.values())
            for group, numbered in groups.items():
                yield submit_call(self._settings, self._signer, group, [job for _, job in numbered])
            if not groups:
                yield None

    def _take(self, rows: Rows) -> None:
        if isinstance(rows, LostError) and self._lost is None:
            self._lost = rows
        bundle, group = self._groups.popleft()
        for place, job, row in spread(rows, group):
            answer = read_submitted(row, job)
            bundle.answers[place] = answer if isinstance(answer, str) else in_place(answer, place)


def _bytes_of(numbered: Numbered[Submission]) -> int:
    job = numbered[1]
    return len(job.request.body) if isinstance(job, Submission) else 0
