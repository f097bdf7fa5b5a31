"""Requests to one tier of a running stack: jobs of the batch lane, which no other tier may serve.

The batch lane yields: a job in it is put back where a more urgent one waits. So a measurement may take longer beside
traffic, and delays nobody. What an intake cannot take now is sent again after the pause that it asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import msgspec

from bitladder.client.answers import TERMINAL, WAIT_S, job_path
from bitladder.contract import NO_CAPTURE
from calibration.terminal.progress import duration
from workers.engines.base import Answer, OnChunk
from workers.engines.errors import EngineBusyError, EngineError, EngineFaultError, EngineUnreachableError

# The intake takes nothing now; 404 and 410: it has forgotten the outcome.
_LATER, _FORGOTTEN = (429, 502, 503, 504), (404, 410)
# How a job ended that the engine has answered; the code of one that it has refused as wrong.
_FINISHED, _REFUSED = "finished", "refused_by_engine"
T = TypeVar("T")
# Between tries where nobody says how long.
_PAUSES_S = (0.5, 1, 2, 5, 10)
# How often a job whose outcome was forgotten is run again.
_RUNS = 3
# How long an intake keeps an outcome by default ([queue].result_ttl_s).
_KEPT_S = 3600.0


class _Failure(msgspec.Struct, frozen=True):
    message: str
    code: str | None = None


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a job."""

    id: str
    status: str
    tier: str | None = None
    cost: float | None = None
    run_ms: float = 0.0
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Failure | None = None


@dataclass(slots=True)
class Spent:
    """What the jobs of a tier have taken."""

    jobs: int = 0
    cost: float = 0.0
    run_s: float = 0.0
    bytes: int = 0


class KeptBytes:
    """Bounds what outcomes hold in Redis: an answer with log probabilities is large, and is kept for an hour."""

    def __init__(self, limit: int, seconds: float = _KEPT_S) -> None:
        self._limit, self._seconds = limit, seconds
        self._kept: deque[tuple[float, int]] = deque()
        self._sum = self._largest = self._open = 0

    async def room(self) -> None:
        """Wait until one more answer of the largest size so far fits."""
        while (left_s := self._left_s(time.monotonic())) > 0:  # noqa: ASYNC110  (time passes, and nothing else)
            await asyncio.sleep(min(10.0, left_s))
        self._open += 1

    def add(self, size: int) -> None:
        """Note an answer for which there was room; 0: there is none."""
        self._open -= 1
        if size:
            self._kept.append((time.monotonic(), size))
            self._sum, self._largest = self._sum + size, max(self._largest, size)

    def _left_s(self, now_s: float) -> float:
        while self._kept and self._kept[0][0] + self._seconds <= now_s:
            self._sum -= self._kept.popleft()[1]
        if not self._kept or self._sum + (self._open + 1) * self._largest <= self._limit:
            return 0.0
        return self._kept[0][0] + self._seconds - now_s


@dataclass(frozen=True, slots=True)
class TierRequests:
    """Answers the requests of an Asker at one tier of a stack."""

    http: httpx2.AsyncClient
    tier: str
    kept: KeptBytes
    tag: str  # by which operators find these jobs
    grace_s: float  # how long an intake may refuse, or be unreachable
    spent: Spent = field(default_factory=Spent)

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        """Run one job, and return its answer; an engine's refusal is an answer with status 400.

        Raises:
            EngineFaultError: the job failed.
            EngineUnreachableError: no intake has taken it.

        """
        if on_chunk is not None:
            raise EngineFaultError("a job of the batch lane has no stream that could be timed")
        await self.kept.room()
        size = 0
        try:
            job = await self._run(endpoint, body)
            size = len(bytes(job.result))
        finally:
            self.kept.add(size)
        self.spent.jobs += 1
        self.spent.cost += job.cost or 0.0
        self.spent.run_s += job.run_ms / 1000
        self.spent.bytes += size
        if job.status == _FINISHED and job.tier != self.tier:
            raise EngineFaultError(f"tier {self.tier} was asked for, and {job.tier} has answered")
        if job.status != _FINISHED and (job.error is None or job.error.code != _REFUSED):
            raise EngineFaultError(f"a job of tier {self.tier} has {job.status}: {job.error and job.error.message}")
        return Answer(status=200 if job.status == _FINISHED else 400, body=bytes(job.result))

    async def _run(self, endpoint: str, body: bytes) -> _Job:
        for _ in range(_RUNS):
            submitting = asyncio.create_task(self._submit(endpoint, body))
            try:
                job = await self._outcome(await asyncio.shield(submitting))
            except asyncio.CancelledError:
                await self._withdraw(submitting)
                raise
            if job is not None:
                return job
        raise EngineFaultError(f"the outcomes of {_RUNS} jobs were forgotten before they were read")

    async def _submit(self, endpoint: str, body: bytes) -> str:
        # With a key, so that a repeat after a lost answer is the same job.
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": secrets.token_hex(16),
            "X-Min-Tier": self.tier,
            "X-Max-Tier": self.tier,
            "X-Allow-Below-Floor": "false",  # a key may consent by default
            "X-Canary": "false",  # the model is asked, never its candidate
            "X-Tags": f"{self.tag},{NO_CAPTURE}",
        }
        params = {"endpoint": endpoint, "lane": "batch"}
        answer = await self._patiently("POST", "/v1/jobs", params=params, content=body, headers=headers)
        if answer.status_code >= 400:
            raise EngineBusyError(f"the intake refused the request: {_message(answer)}")
        return _read(answer, _Accepted).id

    async def _outcome(self, job_id: str) -> _Job | None:
        """Return a job once it has ended; None where its outcome is gone."""
        while True:
            answer = await self._patiently("GET", job_path(job_id), params={"wait": WAIT_S})
            if answer.status_code in _FORGOTTEN:
                return None
            if answer.status_code >= 400:
                raise EngineFaultError(f"the intake does not show job {job_id}: {_message(answer)}")
            job = _read(answer, _Job)
            if job.status in TERMINAL:
                return job

    async def _withdraw(self, submitting: asyncio.Task[str]) -> None:
        """Cancel a job that nobody waits for any more, if that takes no time: also one that is being submitted."""
        with contextlib.suppress(httpx2.HTTPError, EngineError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(1):
                await self.http.delete(job_path(await submitting))

    async def _patiently(self, method: str, path: str, **arguments: Any) -> httpx2.Response:  # noqa: ANN401
        """Ask until the intake says yes or no; `grace_s` after the first refusal, give up."""
        end_s, tries = time.monotonic() + self.grace_s, 0
        while True:
            pause_s: float = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            try:
                answer = await self.http.request(method, path, **arguments)
            except httpx2.HTTPError as error:
                refusal = f"no intake answers at {self.http.base_url.netloc.decode()}: {error or type(error).__name__}"
            else:
                if answer.status_code not in _LATER:
                    return answer
                refusal = _message(answer)
                pause_s = max(pause_s, _retry_after_s(answer.headers))
            if time.monotonic() + pause_s > end_s:
                raise EngineUnreachableError(f"{refusal} (for more than {duration(self.grace_s)})")
            tries += 1
            await asyncio.sleep(pause_s)


class _Accepted(msgspec.Struct, frozen=True):
    id: str


def _read(answer: httpx2.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.MsgspecError as error:
        raise EngineFaultError(f"no answer of an intake: {answer.text[:200]!r}") from error


def _message(answer: httpx2.Response) -> str:
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(answer.json()["error"]["message"])
    return f"{answer.status_code} {answer.text[:200]!r}"


def _retry_after_s(headers: Mapping[str, str]) -> float:
    return float(text) if (text := headers.get("Retry-After", "")).isdecimal() else 0.0
