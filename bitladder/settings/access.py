"""Who may do what at the intake: scopes, callers, and the settings of API keys."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

import msgspec
from pydantic import Field, SecretStr, field_validator, model_validator

from bitladder.queue_name import DEFAULT_TENANT, Lane
from bitladder.settings.base import Name, Section
from bitladder.settings.policy_section import PolicyName

# Every key begins so: people and secret scanners tell it from other secrets.
_KEY_PREFIX = "bl-"
_HASH = re.compile(r"[0-9a-f]{64}")
_WEBHOOK_SECRET = re.compile(r"whsec_(?=.{32,88}$)([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class Scope(StrEnum):
    """What a key may do."""

    SUBMIT = "submit"  # complete, chat, submit jobs and cancel its tenant's
    READ = "read"  # see its tenant's jobs
    OPS_READ = "ops:read"  # see queues, metrics, dead letters, and every tenant's jobs
    OPS_WRITE = "ops:write"  # change what all of them share; with submit also every tenant's jobs
    OPS = "ops"  # both of them


_PARTS_OF_OPS = (Scope.OPS_READ, Scope.OPS_WRITE)


class KeyEnvelope(Section):
    """A part of the envelope, as an API key has it."""

    floor: Name | None = Field(None, description="the lowest tier")
    ceiling: Name | None = Field(None, description="the highest tier")
    lane: Lane | None = Field(None, description="the lane; as a limit: the most urgent one")
    allow_below_floor: bool | None = Field(
        None, description="whether its requests may be served below their floor where all tiers allowed are full"
    )


class KeyWebhook(Section):
    """Where the ends of a key's jobs are told."""

    url: str = Field(max_length=2048, pattern=r"^https?://[^\s\"\\]+$", description="where to post")
    secret: SecretStr = Field(description="signs it: whsec_ and the base64 of 24 to 64 random bytes")

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: SecretStr) -> SecretStr:
        if not _WEBHOOK_SECRET.fullmatch(value.get_secret_value()):
            raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
        return value


class KeyRules(msgspec.Struct, frozen=True, gc=False):
    """What an API key says of its requests' envelopes."""

    name: str = ""
    defaults: KeyEnvelope = KeyEnvelope()  # where the request does not say otherwise
    limits: KeyEnvelope = KeyEnvelope()  # whatever the request says


NO_RULES = KeyRules()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The client that sent a request, and what it may do."""

    key: str  # the key's name in the settings; '' where no key is required
    tenant: str
    scopes: frozenset[Scope]
    requests_per_minute: int | None = None  # None: no limit, here and below
    max_in_flight: int | None = None
    max_queued: int | None = None
    has_budget: bool = False  # that its jobs are charged to
    weight: int = 1  # of the tenant: the highest of its keys
    expires: datetime | None = None
    rules: KeyRules = NO_RULES

    @property
    def sees_all(self) -> bool:
        """Whether it may read the jobs of every tenant."""
        return self.has(Scope.OPS_READ)

    def has(self, scope: str) -> bool:
        return scope in self.scopes or (scope in _PARTS_OF_OPS and Scope.OPS in self.scopes)

    def sees(self, tenant: str) -> bool:
        return self.sees_all or tenant == self.tenant

    def changes(self, tenant: str) -> bool:
        """Return whether it may change what is a tenant's, where it has the scope for its own tenant's."""
        return tenant == self.tenant or self.has(Scope.OPS_WRITE)


# The caller of every request where no key is required.
ANYBODY = Caller(key="", tenant=DEFAULT_TENANT, scopes=frozenset(Scope))


class KeySettings(Section):
    """One API key; `bitladder keys new` makes one."""

    hash: SecretStr = Field(description="SHA-256 of the key, as 64 hex digits")
    tenant: Name = Field(description="whose jobs it submits, reads and cancels")
    scopes: tuple[Scope, ...] = Field(
        (Scope.SUBMIT, Scope.READ), description="some of submit, read, ops:read, ops:write, and ops, which means both"
    )
    requests_per_minute: int | None = Field(None, ge=1, description="requests, polls included; unset: no limit")
    max_in_flight: int | None = Field(
        None, ge=1, description="requests open at once at one intake; unset: auth.max_in_flight"
    )
    max_queued: int | None = Field(
        None, ge=1, description="jobs of its tenant waiting or running; unset: queue.max_per_tenant"
    )
    budget_per_day: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="what its jobs may cost in a day (UTC), in the currency of the tiers' prices; unset: no limit",
    )
    policy: PolicyName | None = Field(
        None, description="how its requests' floors are chosen; unset: the model's policy"
    )
    weight: int = Field(
        1, ge=1, le=1000, description="its tenant's share of a lane beside other tenants'; of several keys the highest"
    )
    created: datetime | None = Field(None, description="when it was made")
    expires: datetime | None = Field(None, description="from then on it is refused; unset: never")
    defaults: KeyEnvelope | None = Field(None, description="of its requests' envelopes, where they say nothing else")
    limits: KeyEnvelope | None = Field(None, description="of its requests' envelopes, whatever they say")
    webhook: KeyWebhook | None = Field(None, description="where the ends of its jobs are told; unset: nowhere")

    def within(self, tiers: Collection[str]) -> Self:
        """Return the key for models that have these tiers alone: what it says of others is left out."""
        parts = {name: part for name in ("defaults", "limits") if (part := getattr(self, name))}
        cut = {
            name: part.model_copy(update={end: None for end in ("floor", "ceiling") if getattr(part, end) not in tiers})
            for name, part in parts.items()
        }
        return self.model_copy(update=cut)

    @field_validator("created", "expires")
    @classmethod
    def _has_a_zone(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value

    @field_validator("hash")
    @classmethod
    def _is_sha256(cls, value: SecretStr) -> SecretStr:
        if not _HASH.fullmatch(value.get_secret_value()):
            raise ValueError("must be the SHA-256 of the key, 64 of 0-9 and a-f, not the key: see `bitladder keys new`")
        return value


class AuthSettings(Section):
    """API keys of the intake."""

    required: bool | None = Field(
        None, description="require a key; unset: where keys are configured or intake.host is not loopback"
    )
    max_in_flight: int = Field(
        500,
        ge=1,
        description="requests that a key may have open at once at one intake, unless its own setting says otherwise",
    )
    keys_file: str = Field(
        "keys.toml", description="more of them, written by `bitladder keys`, beside the configuration; empty: none"
    )
    keys: dict[Name, KeySettings] = Field({}, description="the keys, by name: tables [auth.keys.NAME]")

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        names: dict[str, str] = {}
        for name, key in self.keys.items():
            other = names.setdefault(key.hash.get_secret_value(), name)
            if other != name:
                raise ValueError(f"keys {other} and {name} have the same hash")
        return self


def new_key() -> str:
    """Return a new key with 256 bits of randomness."""
    return _KEY_PREFIX + secrets.token_urlsafe(32)


def key_hash(key: bytes) -> str:
    """Return what the settings keep of a key.

    One round of SHA-256 is right for random keys: no list of likely ones can be tried against it. Slow hashes are for
    passwords that people choose; here they would let any client keep the intake busy.
    """
    return hashlib.sha256(key).hexdigest()
