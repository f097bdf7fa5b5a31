"""What a batch is: its life cycle, and what is stored of it. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from bitladder.endpoints import Endpoint
from bitladder.routing.batch_input.scan_batch import BatchError
from bitladder.settings.access import Caller, KeyEnvelope, KeyRules


class Status(StrEnum):
    """Where a batch is, in OpenAI's words. Those without an arrow out of them in NEXT are its ends."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        return not NEXT[self]

    @property
    def may_be_cancelled(self) -> bool:
        return Status.CANCELLING in NEXT[self]


NEXT: Mapping[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset({Status.FAILED, Status.IN_PROGRESS, Status.CANCELLING, Status.EXPIRED}),
    Status.IN_PROGRESS: frozenset({Status.FINALIZING, Status.CANCELLING, Status.EXPIRED}),
    Status.FINALIZING: frozenset({Status.COMPLETED, Status.EXPIRED, Status.FAILED}),
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.FAILED}),
    Status.FAILED: frozenset(),
    Status.COMPLETED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class Owner(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who created a batch. Its lines run under the defaults and limits that the API key had then."""

    tenant: str
    key: str = ""
    max_queued: int = 0
    pays: bool = False
    weight: int = 1
    defaults: dict[str, Any] = {}
    limits: dict[str, Any] = {}

    @property
    def rules(self) -> KeyRules:
        return KeyRules(self.key, KeyEnvelope(**self.defaults), KeyEnvelope(**self.limits))

    @classmethod
    def of(cls, caller: Caller) -> Owner:
        return cls(
            tenant=caller.tenant,
            key=caller.key,
            max_queued=caller.max_queued or 0,
            pays=caller.has_budget,
            weight=caller.weight,
            defaults=caller.rules.defaults.model_dump(mode="json", exclude_none=True),
            limits=caller.rules.limits.model_dump(mode="json", exclude_none=True),
        )


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch was created with: it never changes."""

    owner: Owner
    input_file_id: str
    input_key: str  # of its content, in the store
    endpoint: Endpoint
    completion_window: str
    metadata: dict[str, str] | None = None
    output_kept_s: int | None = None  # None: as long as files are kept


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of all answers."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


Parts = list[tuple[int, int, int]]


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a batch is; its runner alone writes it. Times are in ms."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    model: str | None = None
    errors: list[BatchError] = []
    tokens: Tokens = Tokens()
    # Results are written in parts: the fence of each runner, and how many parts with answers and with errors it wrote.
    parts: Parts = []
    end: str = ""  # once it is decided
    output_file_id: str | None = None
    error_file_id: str | None = None
    times: dict[str, int] = {}  # status -> since when; OpenAI's names with _at
    expired: int = 0  # of those that failed: the window closed before they had run

    def at(self, status: Status, now_ms: int) -> Progress:
        """Return the progress with the time of a status; the first one stays."""
        return msgspec.structs.replace(self, times={status.value: now_ms} | self.times)


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it is stored."""

    id: str
    spec: Spec
    fingerprint: str = ""  # of the request that created it
    status: Status
    progress: Progress
    created_ms: int
    expires_ms: int
    cancelling_ms: int | None = None
    done: bytes = b""  # a bit for each line, in the order of the index: its result is in a part

    @property
    def tenant(self) -> str:
        return self.spec.owner.tenant
