"""What routes of webhooks take and answer, in the forms that OpenAI's libraries know."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bitladder.queue.json_views.kinds import Timestamp
from bitladder.routing.webhook_checks import MAX_URL_CHARS
from dispatcher.webhooks.deliveries import EVENT_TYPES, LogEntry
from dispatcher.webhooks.endpoint_store import Endpoint
from dispatcher.webhooks.signatures import hint

_EventTypes = Annotated[
    list[str], Meta(min_length=1, max_length=len(EVENT_TYPES), description="The event types that are delivered.")
]
_Name = Annotated[str, Meta(min_length=1, max_length=256, description="For people.")]
_Url = Annotated[str, Meta(min_length=1, max_length=MAX_URL_CHARS, description="Where to post.")]


class NewWebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint to be made."""

    name: _Name
    url: _Url
    event_types: _EventTypes


class WebhookEndpointChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed of an endpoint."""

    name: _Name | UnsetType = UNSET
    url: _Url | UnsetType = UNSET
    event_types: _EventTypes | UnsetType = UNSET
    enabled: Annotated[Literal[True] | UnsetType, Meta(description="True: enable it anew; so does another URL.")] = (
        UNSET
    )


class SecretRotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the secret is changed."""

    keep_old_secret_active_for_24_hours: bool = False


class WebhookTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent."""

    event_type: str


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, as OpenAI's libraries read it, and how it fares."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    status: Literal["enabled", "disabled"]
    failing_since: int | None
    disabled_at: int | None
    disabled_reason: str | None


class WebhookEndpointWithSecret(WebhookEndpoint, frozen=True, kw_only=True):
    """The same with its secret, which no other answer shows."""

    signing_secret: str


class WebhookEndpointList(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's endpoints, the latest first."""

    object: Literal["list"] = "list"
    data: list[WebhookEndpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedWebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """It is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class WebhookTestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint answered."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    success: Literal[True] = True
    status_code: int


class WebhookEventTypes(msgspec.Struct, frozen=True, kw_only=True):
    """The event types that there are."""

    object: Literal["list"] = "list"
    data: list[str]


class WebhookAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a delivery."""

    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    event_id: str
    event_type: str
    about: str
    webhook_endpoint_id: str | None
    host: str
    attempt: int
    at: Timestamp
    duration_ms: int
    status_code: int | None
    error: str | None
    result: Literal["delivered", "retrying", "failed"]
    next_attempt_at: Timestamp | None


class WebhookAttempts(msgspec.Struct, frozen=True, kw_only=True):
    """The last attempts, the latest first."""

    object: Literal["list"] = "list"
    data: list[WebhookAttempt]


class Redelivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event is on its way again."""

    object: Literal["webhook_endpoint.redelivery"] = "webhook_endpoint.redelivery"
    event_id: str
    webhook_endpoint_id: str


def described(endpoint: Endpoint) -> WebhookEndpoint:
    return WebhookEndpoint(**_fields(endpoint))  # type: ignore[arg-type]  # see there


def with_secret(endpoint: Endpoint) -> WebhookEndpointWithSecret:
    return WebhookEndpointWithSecret(**_fields(endpoint), signing_secret=endpoint.secret)  # type: ignore[arg-type]


def _fields(endpoint: Endpoint) -> dict[str, object]:
    reasons = {"gone": "it answered with status 410", "failed": "every attempt failed for too long"}
    return {
        "id": endpoint.id,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "signing_secret_hint": hint(endpoint.secret),
        "status": "enabled" if endpoint.disabled_at is None else "disabled",
        "failing_since": endpoint.failing_since,
        "disabled_at": endpoint.disabled_at,
        "disabled_reason": reasons.get(endpoint.disabled_by),
    }


def attempts(entries: list[LogEntry]) -> WebhookAttempts:
    return WebhookAttempts(
        data=[
            WebhookAttempt(
                event_id=entry.event_id,
                event_type=entry.type,
                about=entry.about,
                webhook_endpoint_id=entry.endpoint,
                host=entry.host,
                attempt=entry.attempt,
                at=entry.at,
                duration_ms=entry.duration_ms,
                status_code=entry.status_code,
                error=entry.error,
                result=entry.result,
                next_attempt_at=entry.next_attempt_at,
            )
            for entry in entries
        ]
    )
