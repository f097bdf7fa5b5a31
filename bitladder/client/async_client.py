"""The client for asyncio."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterable
from typing import Any, Self, TypeVar

import httpx2

from bitladder.client.answers import (
    DEFAULT_URL,
    PAUSES_S,
    TERMINAL,
    WAIT_S,
    Answer,
    Job,
    authorization,
    base_url,
    checked,
    headers_of,
    headers_of_many,
    in_doubt,
    job_path,
    stopped,
    submission,
    unanswered,
)
from bitladder.client.polls import PAUSE_S, SLOTS, Poll, Polls, is_passing
from bitladder.entries import Body, Completed, Entry, checked_many, fill, in_place, not_ended, partly
from bitladder.errors import BitladderError, JobError

Item = TypeVar("Item")
_FIRST = asyncio.FIRST_COMPLETED


class AsyncClient:
    """The same for asyncio; many submissions go side by side."""

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout_s: float = 60) -> None:
        self._http = httpx2.AsyncClient(base_url=base_url(url), timeout=timeout_s, headers=authorization(api_key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def submit(self, body: Body | Entry, **options: Any) -> Job:  # noqa: ANN401
        """See Client.submit."""
        return await self._submit(body, headers_of(options))

    async def submit_many(
        self,
        bodies: Iterable[Body | Entry] | AsyncIterable[Body | Entry],
        *,
        concurrency: int = SLOTS,
        **options: Any,  # noqa: ANN401
    ) -> list[Answer]:
        """See Client.submit_many; here `concurrency` bodies are submitted at a time, each over its own connection."""
        answers: list[Answer] = []
        submitted = self.submit_each(bodies, concurrency=concurrency, **options)
        try:
            async for answer in submitted:
                answers.append(answer)
        except Exception as error:
            raise partly(answers, error) from error
        return answers

    def submit_each(
        self,
        bodies: Iterable[Body | Entry] | AsyncIterable[Body | Entry],
        *,
        concurrency: int = SLOTS,
        **options: Any,  # noqa: ANN401
    ) -> AsyncIterator[Answer]:
        """See Client.submit_each; the answers come in order, and all that were begun are answered before an error."""
        if concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, got {concurrency}")
        return self._submit_each(checked_many(bodies), concurrency, headers_of_many(options))

    async def result(self, job_id: str, *, wait_s: float = 0) -> Job:
        """See Client.result."""
        return await self._call("GET", job_path(job_id), params={"wait": wait_s} if wait_s else None)

    async def outcome(self, job_id: str) -> Job | None:
        """See Client.outcome."""
        job = await self.result(job_id)
        return job if job["status"] in TERMINAL else None

    async def wait(self, job_id: str, *, timeout_s: float | None = 600) -> Job:
        """See Client.wait."""
        end = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        while True:
            left = max(0.0, end - time.monotonic())
            job = await self.result(job_id, wait_s=min(WAIT_S, left))
            if job["status"] in TERMINAL:
                return job
            if left <= 0:
                raise not_ended([job_id], timeout_s)

    def as_completed(
        self, ids: Iterable[str | Answer] | AsyncIterable[str | Answer], *, timeout_s: float | None = 600
    ) -> AsyncIterator[Completed[Job]]:
        """See Client.as_completed."""
        return self._as_completed(checked_many(ids), timeout_s)

    async def gather(self, ids: Iterable[str | Answer], *, timeout_s: float | None = 600) -> list[Answer]:
        """See Client.gather."""
        jobs = list(checked_many(ids))
        outcomes: dict[int, Answer] = {}
        try:
            async for index, _, outcome in self._as_completed(jobs, timeout_s):
                outcomes[index] = outcome
        except JobError as error:
            fill(outcomes, jobs, error)
        return [outcomes[index] for index in range(len(jobs))]

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job."""
        return await self._call("DELETE", job_path(job_id))

    async def _submit(self, body: Body | Entry, shared: dict[str, str]) -> Job:
        request = submission(body, shared)
        doubt: JobError | None = None
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                return await self._call("POST", "/v1/jobs", **request)
            except JobError as error:
                doubt = in_doubt(error, doubt)
        raise doubt or AssertionError

    async def _submit_or_error(self, index: int, body: Body | Entry, shared: dict[str, str]) -> Answer:
        try:
            return await self._submit(body, shared)
        except BitladderError as error:
            return in_place(error, index)

    async def _submit_each(
        self, bodies: Iterable[Body | Entry] | AsyncIterable[Body | Entry], concurrency: int, shared: dict[str, str]
    ) -> AsyncGenerator[Answer]:
        source, tasks = _numbered(bodies), deque[asyncio.Task[Answer]]()
        end: Exception | None = None  # why no more bodies are taken
        answered = 0
        try:
            while tasks or end is None:
                while end is None and len(tasks) < concurrency and not (tasks and tasks[0].done()):
                    body = await _next(source)
                    if isinstance(body, Exception):
                        end = body
                    else:
                        tasks.append(asyncio.create_task(self._submit_or_error(*body, shared)))
                if tasks:
                    answer, answered = await tasks.popleft(), answered + 1
                    end = stopped(answered, answer) or end
                    yield answer
        finally:
            _cancel(tasks)
        if end is not None and not isinstance(end, StopAsyncIteration):
            raise end

    async def _as_completed(
        self, ids: Iterable[str | Answer] | AsyncIterable[str | Answer], timeout_s: float | None
    ) -> AsyncGenerator[Completed[Job]]:
        polls, numbered = Polls(timeout_s, is_bounded=isinstance(ids, Collection)), _numbered(ids)
        requests: dict[asyncio.Task[Any], Poll | None] = {}  # None: takes the next id
        try:
            while True:
                if polls.has_room and None not in requests.values():
                    requests[asyncio.create_task(_next(numbered))] = None
                requests |= {asyncio.create_task(self._ask(poll)): poll for poll in polls.due()}
                if not requests:
                    break
                ended, _ = await asyncio.wait(requests, timeout=polls.request_timeout_s, return_when=_FIRST)
                if not ended:
                    break
                for request in ended:
                    poll = requests.pop(request)
                    if completed := polls.answered(poll, request.result()) if poll else polls.add(request.result()):
                        yield completed
        finally:
            _cancel(requests)
        polls.close()

    async def _ask(self, poll: Poll) -> Answer:
        try:
            return await self.result(poll.job_id, wait_s=poll.wait_s)
        except BitladderError as error:
            if is_passing(error):
                await asyncio.sleep(PAUSE_S)
            return error

    async def _call(self, method: str, path: str, **arguments: Any) -> Job:  # noqa: ANN401
        try:
            return checked(await self._http.request(method, path, **arguments))
        except httpx2.HTTPError as error:
            raise unanswered(self._http.base_url, error) from error


async def _numbered(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncGenerator[tuple[int, Item]]:
    index = 0
    if not isinstance(items, AsyncIterable):
        for item in items:
            yield index, item
            index += 1
        return
    async for item in items:
        yield index, item
        index += 1


async def _next(items: AsyncGenerator[Item]) -> Item | Exception:
    try:
        return await anext(items)
    except Exception as error:  # its end, or whatever a program's own iterator raises: what was taken before it counts
        return error


def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
