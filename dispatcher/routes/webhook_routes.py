"""Routes of webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.auth import Requirement
from dispatcher.http.responses import Handler
from dispatcher.jobs import webhook_handlers as webhooks
from dispatcher.routes.operation import Content, Operation, answer
from dispatcher.webhooks import views

_PATH = "/v1/webhook_endpoints"
_ENDPOINT = _PATH + "/{webhook_endpoint_id}"
_NEW = {"name": "production", "url": "https://app.example.org/hooks", "event_types": ["response.completed"]}
_KEY_ERRORS = ("TooLarge", "ContentCoding", "Conflict", "KeyReused")


def _read(path: str, handler: Handler, name: str, summary: str, kind: type, **more: tuple[str, ...]) -> Operation:
    return Operation(
        method="GET",
        path=path,
        requires=Requirement.READ,
        handler=handler,
        name=name,
        tag="webhooks",
        summary=summary,
        answers={200: answer(kind, "What there is.")},
        errors=("NotFound", *more.get("errors", ())),
        parameters=more.get("parameters", ()),
    )


def _change(
    path: str, handler: Handler, names: tuple[str, str], kinds: tuple[type, type], example: Mapping[str, object]
) -> Operation:
    name, summary = names
    body, kind = kinds
    return Operation(
        method="POST",
        path=path,
        requires=Requirement.SUBMIT,
        handler=handler,
        name=name,
        tag="webhooks",
        summary=summary,
        body=Content(kinds=(body,), examples={"usual": example}),
        answers={200: answer(kind, "What it is now.")},
        errors=("NotFound", *_KEY_ERRORS),
        parameters=("IdempotencyKey",),
    )


OPERATIONS = (
    _change(
        _PATH,
        webhooks.create_endpoint,
        ("createWebhookEndpoint", "Make an endpoint. Its signing secret is shown now and never again."),
        (views.NewWebhookEndpoint, views.WebhookEndpointWithSecret),
        _NEW,
    ),
    _read(
        _PATH,
        webhooks.list_endpoints,
        "listWebhookEndpoints",
        "List the endpoints of the key's tenant, the latest first.",
        views.WebhookEndpointList,
        parameters=("AfterQuery", "EndpointsQuery"),
    ),
    _read(
        "/v1/webhook_event_types",
        webhooks.list_event_types,
        "listWebhookEventTypes",
        "List the event types that an endpoint may ask for.",
        views.WebhookEventTypes,
    ),
    _read(
        _ENDPOINT,
        webhooks.get_endpoint,
        "getWebhookEndpoint",
        "Show an endpoint and how it fares.",
        views.WebhookEndpoint,
    ),
    _change(
        _ENDPOINT,
        webhooks.update_endpoint,
        ("updateWebhookEndpoint", "Change an endpoint. Another URL, or `enabled`, enables it anew."),
        (views.WebhookEndpointChange, views.WebhookEndpoint),
        {"name": "staging"},
    ),
    Operation(
        method="DELETE",
        path=_ENDPOINT,
        requires=Requirement.SUBMIT,
        handler=webhooks.delete_endpoint,
        name="deleteWebhookEndpoint",
        tag="webhooks",
        summary="Delete an endpoint, its log, and what waits for it.",
        answers={200: answer(views.DeletedWebhookEndpoint, "It is gone.")},
        errors=("NotFound",),
    ),
    _change(
        f"{_ENDPOINT}/rotate_secret",
        webhooks.rotate_secret,
        ("rotateWebhookSecret", "Give an endpoint a new secret; the old one may sign beside it for 24 hours."),
        (views.SecretRotation, views.WebhookEndpointWithSecret),
        {"keep_old_secret_active_for_24_hours": True},
    ),
    _change(
        f"{_ENDPOINT}/test",
        webhooks.send_test,
        ("testWebhookEndpoint", "Send a sample event now, and say what the endpoint answered."),
        (views.WebhookTest, views.WebhookTestResult),
        {"event_type": "response.completed"},
    ),
    _read(
        f"{_ENDPOINT}/deliveries",
        webhooks.list_deliveries,
        "listWebhookDeliveries",
        "List the last hundred attempts at deliveries to an endpoint, the latest first.",
        views.WebhookAttempts,
    ),
    Operation(
        method="POST",
        path=f"{_ENDPOINT}/deliveries/{{event_id}}/redeliver",
        requires=Requirement.SUBMIT,
        handler=webhooks.redeliver,
        name="redeliverWebhook",
        tag="webhooks",
        summary="Deliver an event of the endpoint's log once more, with the same webhook-id.",
        answers={202: answer(views.Redelivery, "It is on its way.")},
        errors=("NotFound", *_KEY_ERRORS),
        parameters=("IdempotencyKey",),
    ),
    _read(
        "/v1/jobs/{job_id}/deliveries",
        webhooks.list_deliveries_about_job,
        "listJobDeliveries",
        "List the last attempts at deliveries about a job, whatever their destination.",
        views.WebhookAttempts,
        errors=("Gone",),
    ),
)
