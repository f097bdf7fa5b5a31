"""What a shadow asks of an intake beside its requests: how busy the tiers are, and what became of a job."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

import httpx2
import msgspec

from bitladder.client.answers import TERMINAL, job_path
from calibration.control.shadow.idleness import Queue, TierLoad, Workers
from calibration.errors import EngineFailedError, InputError

T = TypeVar("T")
SCOPES = "submit, read and ops:read"
_GONE, _FINISHED = (404, 410), "finished"
# An intake samples its workers once a second.
_WORKERS_S = 0.5


class JobFacts(msgspec.Struct, frozen=True):
    """What an explanation says of a job (docs/routing.md)."""

    status: str
    tier: str | None = None
    cost: float | None = None
    costs_elsewhere: dict[str, float | None] = {}

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def was_served(self) -> bool:
        return self.status == _FINISHED and bool(self.tier)


class _Tiers(msgspec.Struct, Generic[T], frozen=True):
    model: str
    tiers: list[T]


class _Overview(msgspec.Struct, frozen=True):
    models: list[_Tiers[Workers]]


class _TierQueues(msgspec.Struct, frozen=True):
    tier: str
    queues: list[Queue]


class _Queues(msgspec.Struct, frozen=True):
    suspended: bool
    data: list[_Tiers[_TierQueues]]


class IntakeView:
    """Reads what one model's tiers do."""

    def __init__(self, http: httpx2.AsyncClient, model: str) -> None:
        self._http, self._model = http, model
        self._workers: dict[str, Workers] = {}
        self._read_s = -_WORKERS_S

    async def load(self) -> dict[str, TierLoad]:
        """Return how busy the tiers are now; none where all claims pause."""
        if time.monotonic() - self._read_s >= _WORKERS_S:
            overview = _read(await self._get("/v1/overview"), _Overview)
            self._workers = {workers.tier: workers for workers in self._of_model(overview.models)}
            self._read_s = time.monotonic()
        queues = _read(await self._get("/v1/queues"), _Queues)
        return {
            tier.tier: TierLoad(tier.queues, self._workers[tier.tier])
            for tier in self._of_model(queues.data)
            if tier.tier in self._workers and not queues.suspended
        }

    def _of_model(self, models: list[_Tiers[T]]) -> list[T]:
        return [tier for model in models if model.model == self._model for tier in model.tiers]

    async def explain(self, job_id: str) -> JobFacts | None:
        """Return what became of a job; None: it is not known any more."""
        answer = await self._get(f"{job_path(job_id)}/explain")
        return None if answer.status_code in _GONE else _read(answer, JobFacts)

    async def _get(self, path: str) -> httpx2.Response:
        try:
            answer = await self._http.get(path)
        except httpx2.HTTPError as error:
            raise EngineFailedError(
                f"no intake answers at {self._http.base_url.host}: {error or type(error).__name__}"
            ) from error
        if answer.status_code in (401, 403):
            raise InputError(f"the intake refuses {path}: it wants an API key with the scopes {SCOPES}")
        return answer


def _read(answer: httpx2.Response, kind: type[T]) -> T:
    try:
        if answer.status_code == 200:
            return msgspec.json.decode(answer.content, type=kind)
    except msgspec.MsgspecError as error:
        raise EngineFailedError(f"no answer of an intake to {answer.url.path}: {error}") from error
    raise EngineFailedError(f"the intake answered {answer.url.path} with {answer.status_code}: {answer.text[:200]}")
