"""The blocking client."""

from __future__ import annotations

import concurrent.futures
import json
import math
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, Self

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
    chunk_text,
    envelope_headers,
    headers_of,
    headers_of_many,
    in_doubt,
    job_path,
    stopped,
    submission,
    unanswered,
)
from bitladder.client.polls import PAUSE_S, SLOTS, Poll, Polls, is_passing
from bitladder.entries import Body, Completed, Entry, checked_many, collected, in_place, not_ended, outcomes_of
from bitladder.errors import BitladderError, JobError


class Client:
    """A blocking client of one intake."""

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout_s: float = 60) -> None:
        self._http = httpx2.Client(base_url=base_url(url), timeout=timeout_s, headers=authorization(api_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, body: Body | Entry, **options: Any) -> Job:  # noqa: ANN401  (the envelope's fields)
        """Submit one OpenAI completion or chat body. Options: priority, max_latency_ms, deadline_ms, min_tier,
        max_tier, max_cost, allow_below_floor, cascade, webhook_url and webhook_secret, and idempotency_key (made here
        unless given: a call whose answer is lost is repeated with it).

        Raises:
            JobError: it was refused, or it is not known whether it was: code acceptance_unknown, no_answer or timeout.
            RequestError: the body or a header cannot be sent.

        """  # noqa: D205
        return self._submit(body, headers_of(options))

    def submit_many(self, bodies: Iterable[Body | Entry], **options: Any) -> list[Answer]:  # noqa: ANN401
        """Submit bodies one after the other over one connection; return for each, in its place, its job or its error.

        An error has an `index` (of its body), a `status`, a `code` and a `message`. Options hold for all bodies; an
        Entry has headers or an idempotency key of its own. AsyncClient submits many at a time, and Producer, beside
        Redis, many with one command.

        Raises:
            PartlySubmittedError: no intake answers, or the iterable raised; `answers` are those of all bodies that were
                sent. No more are taken.
            RequestError: the options for all bodies are wrong; nothing was sent.

        """
        return collected(self.submit_each(bodies, **options))

    def submit_each(self, bodies: Iterable[Body | Entry], **options: Any) -> Iterator[Answer]:  # noqa: ANN401
        """Submit bodies as they come, and yield what submit_many returns: for iterables of any length.

        Raises:
            JobError: no intake answers; the last answer says what became of the last body that was taken.
            RequestError: the options for all bodies are wrong; nothing was sent.

        """
        return self._submit_each(checked_many(bodies), headers_of_many(options))

    def result(self, job_id: str, *, wait_s: float = 0) -> Job:
        """Return a job as it is now, or as it is after waiting up to `wait_s`.

        Raises:
            JobError: 404 not_found or 410 result_expired where it is not stored (see outcome of Producer), or else.

        """
        return self._call("GET", job_path(job_id), params={"wait": wait_s} if wait_s else None)

    def outcome(self, job_id: str) -> Job | None:
        """Return a job that has ended; None while it has not. Errors as of `result`."""
        job = self.result(job_id)
        return job if job["status"] in TERMINAL else None

    def wait(self, job_id: str, *, timeout_s: float | None = 600) -> Job:
        """Return a job when it has ended; None: wait without a limit.

        Raises:
            NotEndedError: it has not ended in time; it goes on.
            JobError: at once, see `result`.

        """
        end = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        while True:
            left = max(0.0, end - time.monotonic())
            job = self.result(job_id, wait_s=min(WAIT_S, left))
            if job["status"] in TERMINAL:
                return job
            if left <= 0:
                raise not_ended([job_id], timeout_s)

    def as_completed(self, ids: Iterable[str | Answer], *, timeout_s: float | None = 600) -> Iterator[Completed[Job]]:
        """Yield each job when it ends: (index, job_id, outcome). `ids` may be what submit_many or submit_each returned.

        In the place of an outcome stands the error of an id: 404 or 410 at once, or the error that submit_many had put
        in its place. At most 16 connections are used, and few hundred ids are held at a time. An error that an iterator
        of ids raises is raised when the jobs before it have ended.

        Raises:
            NotEndedError: its `job_ids` have not ended in time. They go on.
            JobError: no intake answers now, or none has for half a minute.

        """
        return self._as_completed(checked_many(ids), timeout_s)

    def gather(self, ids: Iterable[str | Answer], *, timeout_s: float | None = 600) -> list[Answer]:
        """Return each job in its place when all have ended, or its error as in `as_completed`; NotEndedError where it
        has not ended in time.

        Raises:
            JobError: no intake answers, and nothing is known.

        """  # noqa: D205
        jobs = list(checked_many(ids))
        return outcomes_of(jobs, self._as_completed(jobs, timeout_s))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job."""
        return self._call("DELETE", job_path(job_id))

    def stream(self, body: Job, **options: Any) -> Iterator[str]:  # noqa: ANN401
        """Yield the text of one completion or chat answer as it comes."""
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        try:
            with self._http.stream(
                "POST", path, json=body | {"stream": True}, headers=envelope_headers(options)
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    checked(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield chunk_text(json.loads(line[6:]))
        except httpx2.HTTPError as error:
            raise unanswered(self._http.base_url, error) from error

    def _submit(self, body: Body | Entry, shared: dict[str, str], query: Mapping[str, str] | None = None) -> Job:
        request = submission(body, shared) | {"params": query or None}
        doubt: JobError | None = None
        for pause_s in PAUSES_S:
            time.sleep(pause_s)
            try:
                return self._call("POST", "/v1/jobs", **request)
            except JobError as error:
                doubt = in_doubt(error, doubt)
        raise doubt or AssertionError

    def _submit_each(self, bodies: Iterable[Body | Entry], shared: dict[str, str]) -> Generator[Answer]:
        for index, body in enumerate(bodies):
            answer: Answer
            try:
                answer = self._submit(body, shared)
            except BitladderError as error:
                answer = in_place(error, index)
            yield answer
            if end := stopped(index + 1, answer):
                raise end

    def _as_completed(self, ids: Iterable[str | Answer], timeout_s: float | None) -> Generator[Completed[Job]]:
        polls, numbered = Polls(timeout_s, is_bounded=isinstance(ids, Collection)), enumerate(ids)
        requests: dict[concurrent.futures.Future[Answer], Poll] = {}
        pool = concurrent.futures.ThreadPoolExecutor(SLOTS, thread_name_prefix="bitladder-poll")
        try:
            while True:
                yield from polls.take(numbered)
                requests |= {pool.submit(self._ask, poll): poll for poll in polls.due()}
                if not requests:
                    break
                ended, _ = concurrent.futures.wait(
                    requests, polls.request_timeout_s, concurrent.futures.FIRST_COMPLETED
                )
                if not ended:
                    break
                for request in ended:
                    if completed := polls.answered(requests.pop(request), request.result()):
                        yield completed
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        polls.close()

    def _ask(self, poll: Poll) -> Answer:
        try:
            return self.result(poll.job_id, wait_s=poll.wait_s)
        except BitladderError as error:
            if is_passing(error):
                time.sleep(PAUSE_S)
            return error

    def _call(self, method: str, path: str, **arguments: Any) -> Job:  # noqa: ANN401  (httpx2's own)
        try:
            return checked(self._http.request(method, path, **arguments))
        except httpx2.HTTPError as error:
            raise unanswered(self._http.base_url, error) from error
