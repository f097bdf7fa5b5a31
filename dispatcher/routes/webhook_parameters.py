"""Parameters of webhooks: those of their own routes, and the headers that name one with a request."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from bitladder.routing.webhook_checks import MAX_URL_CHARS
from dispatcher.jobs.webhook_handlers import DEFAULT_LISTED, MAX_LISTED
from dispatcher.routes.parameter import Parameter

WEBHOOK_PARAMETERS = {
    "WebhookEndpointId": Parameter(
        "webhook_endpoint_id",
        "path",
        Annotated[str, Meta(min_length=1)],
        "The endpoint's id.",
        example="we_01890000000070008000000000000000",
    ),
    "EventId": Parameter(
        "event_id", "path", Annotated[str, Meta(min_length=1)], "The event's id: its webhook-id.", example="evt_0189"
    ),
    "EndpointsQuery": Parameter(
        "limit", "query", Annotated[int, Meta(ge=1, le=MAX_LISTED)], "The maximum of entries listed.", DEFAULT_LISTED
    ),
    "WebhookUrl": Parameter(
        "X-Webhook-Url", "header", Annotated[str, Meta(max_length=MAX_URL_CHARS)], "Where the job's end is posted to."
    ),
    "WebhookSecret": Parameter(
        "X-Webhook-Secret",
        "header",
        Annotated[str, Meta(max_length=100)],
        "What signs it: whsec_ and 24 to 64 bytes in base64.",
    ),
}
