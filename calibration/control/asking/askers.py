"""Where tiers are asked: at a running stack, or with engines that are started here, one after another.

Whatever measures tiers is written once for both: it goes from tier to tier, with an Asker for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
import msgspec

from bitladder.client.answers import authorization, base_url
from bitladder.errors import BitladderError
from bitladder.settings.worker_section import VllmSettings
from calibration.control.asking.batch_requests import KeptBytes, Spent, TierRequests
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.candidates import Candidate
from calibration.evaluate.engine import Asker, serving

# A request of the batch lane may wait for a night.
_ANSWER_S = 86_400.0
_HTTP_S = 60.0
_MIB = 2**20


class Askers(Protocol):
    """Tiers that can be asked."""

    @property
    def tiers(self) -> tuple[str, ...]:
        """The names, lowest quality first."""

    @property
    def side_by_side(self) -> bool:
        """Whether several tiers can be asked at once, and each at no cost; else each costs the start of an engine."""

    def checkpoint(self, tier: str) -> str:
        """Return the digest of what a tier serves; '' where it is not known."""

    def engine(self, tier: str) -> dict[str, Any]:
        """Return what results depend on beside the checkpoint, as JSON."""

    def asking(self, tier: str) -> AbstractAsyncContextManager[Asker]:
        """Ask a tier while the block runs."""

    def spent(self) -> Spent | None:
        """Return what all requests have taken so far, where that is known."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How a stack is asked."""

    url: str
    api_key: str | None = None
    model: str = ""  # '': the only one
    tag: str = "calibrate"  # by which operators find the jobs
    at_once: int = 8  # jobs of a tier
    kept_mib: int = 512  # of outcomes in Redis within an hour
    grace_s: float = 3600.0

    @property
    def is_here(self) -> bool:
        """Whether the intake is of this machine."""
        return base_url(self.url).host in ("127.0.0.1", "localhost", "::1")


class RunningStack:
    """The tiers of a model that an intake serves."""

    side_by_side = True

    def __init__(self, http: httpx2.AsyncClient, options: StackOptions, model: _Model) -> None:
        self.model, self.tiers = model.root, model.tiers
        self._http, self._options = http, options
        self.checkpoints = {tier: published.digest for tier, published in model.published.items()}
        self._kept = KeptBytes(options.kept_mib * _MIB)
        self.spent_by_tier = {tier: Spent() for tier in model.tiers}

    def checkpoint(self, tier: str) -> str:
        return self.checkpoints.get(tier, "")

    def engine(self, tier: str) -> dict[str, Any]:
        return {"stack": self.model, "tier": tier}

    def spent(self) -> Spent:
        parts = self.spent_by_tier.values()
        return Spent(
            jobs=sum(part.jobs for part in parts),
            cost=sum(part.cost for part in parts),
            run_s=sum(part.run_s for part in parts),
            bytes=sum(part.bytes for part in parts),
        )

    async def checkpoints_now(self) -> dict[str, str]:
        """Return the digests as the intake has them now: a release may have been published meanwhile."""
        model = await _find_model(self._http, self.model)
        return {tier: published.digest for tier, published in model.published.items()}

    @asynccontextmanager
    async def asking(self, tier: str) -> AsyncIterator[Asker]:
        options = self._options
        requests = TierRequests(self._http, tier, self._kept, options.tag, options.grace_s, self.spent_by_tier[tier])
        yield Asker(requests, "", model=self.model, at_once=options.at_once, answer_s=_ANSWER_S)


@asynccontextmanager
async def running_stack(options: StackOptions) -> AsyncIterator[RunningStack]:
    """Connect to an intake.

    Raises:
        InputError: the URL, the key or the model is wrong.
        EngineFailedError: no intake answers.

    """
    try:
        url, headers = base_url(options.url), authorization(options.api_key)
    except BitladderError as error:
        raise InputError(str(error)) from error
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_HTTP_S, follow_redirects=False) as http:
        yield RunningStack(http, options, await _find_model(http, options.model))


class LocalEngines:
    """Checkpoints, each served by an engine of its own while it is asked."""

    side_by_side = False

    def __init__(self, candidates: Mapping[str, Candidate], vllm: VllmSettings, engine_version: str, top: int) -> None:
        self.tiers = tuple(candidates)
        self._candidates, self._vllm, self._version, self._top = candidates, vllm, engine_version, top

    def checkpoint(self, tier: str) -> str:
        return self._candidates[tier].digest

    def engine(self, tier: str) -> dict[str, Any]:
        engine: dict[str, Any] = self._candidates[tier].inputs(self._vllm, self._version)["engine"]
        return engine

    def spent(self) -> None:
        return None

    @asynccontextmanager
    async def asking(self, tier: str) -> AsyncIterator[Asker]:
        candidate = self._candidates[tier]
        async with serving(candidate.path, candidate.tier, self._vllm, self._top) as asker:
            yield asker


class _Published(msgspec.Struct, frozen=True):
    digest: str = ""


class _Model(msgspec.Struct, frozen=True):
    """What is read of a model."""

    id: str
    root: str
    tiers: tuple[str, ...]
    published: dict[str, _Published] = {}


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


async def _find_model(http: httpx2.AsyncClient, name: str) -> _Model:
    try:
        answer = await http.get("/v1/models")
    except httpx2.HTTPError as error:
        raise EngineFailedError(
            f"no intake answers at {http.base_url.netloc.decode()} (--url, BITLADDER_URL): "
            f"{error or type(error).__name__}"
        ) from error
    if answer.status_code in (401, 403):
        raise InputError("the intake wants an API key with the scopes submit and read: --api-key, BITLADDER_API_KEY")
    try:
        models = {model.id: model for model in msgspec.json.decode(answer.content, type=_Models).data}
    except msgspec.MsgspecError as error:
        raise EngineFailedError(f"{http.base_url.host} does not answer as an intake: {answer.text[:200]!r}") from error
    whole = [model for model in models.values() if model.id == model.root]
    if not name and len(whole) == 1:
        return whole[0]
    if name not in models or models[name] not in whole:
        names = ", ".join(model.id for model in whole)
        raise InputError(f"--model must be one of {names}, got {name!r}")
    return models[name]
