"""Endpoints of webhooks as OpenAI's libraries know them, and the logs of what was delivered to them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request as HttpRequest

from bitladder.errors import NotFoundError, RequestError
from bitladder.ids import readable
from bitladder.queue.calls.webhooks import deliver_call
from bitladder.routing.webhook_checks import check_url
from dispatcher.http.request_parts import path_job_id, query_count, read_bytes
from dispatcher.http.responses import Handler, Response, json_response
from dispatcher.idempotency import once
from dispatcher.jobs.existing_jobs import own_job
from dispatcher.state import IntakeState, intake_state
from dispatcher.webhooks.deliveries import EVENT_TYPES, Delivery, payload
from dispatcher.webhooks.endpoint_store import Endpoint
from dispatcher.webhooks.signatures import signed_headers
from dispatcher.webhooks.views import (
    DeletedWebhookEndpoint,
    NewWebhookEndpoint,
    Redelivery,
    SecretRotation,
    WebhookEndpointChange,
    WebhookEndpointList,
    WebhookEventTypes,
    WebhookTest,
    WebhookTestResult,
    attempts,
    described,
    with_secret,
)

DEFAULT_LISTED, MAX_LISTED = 20, 100
Body = TypeVar("Body", bound=msgspec.Struct)


def _once_for_a_key(handle: Callable[[HttpRequest, IntakeState, bytes], Awaitable[Response]]) -> Handler:
    """Return a handler that reads the body, and runs once for an Idempotency-Key."""

    async def handler(request: HttpRequest) -> Response:
        state = intake_state(request)
        body = await read_bytes(request, state.settings.intake, state.closing)
        return await once(request, state, body, lambda: handle(request, state, body))

    return handler


@_once_for_a_key
async def create_endpoint(request: HttpRequest, state: IntakeState, body: bytes) -> Response:
    """Make an endpoint; its secret is shown now and never again."""
    new = _read(body, NewWebhookEndpoint)
    _check_url(state, new.url)
    store, tenant = state.webhooks.endpoints, request.state.caller.tenant
    endpoint = await store.create(tenant, new.name, new.url, _checked_types(new.event_types))
    state.webhooks.know(tenant)
    return json_response(with_secret(endpoint))


async def list_endpoints(request: HttpRequest) -> Response:
    """List the caller's endpoints, the latest first; ?after= and ?limit= page."""
    state = intake_state(request)
    tenant, store = request.state.caller.tenant, state.webhooks.endpoints
    ids, after = await store.ids(tenant), request.query_params.get("after")
    if after is not None:
        if after not in ids:
            raise RequestError(f"after must be the id of one of your endpoints, got {after[:80]!r}", param="after")
        ids = ids[ids.index(after) + 1 :]
    count = query_count(request, "limit", minimum=1, maximum=MAX_LISTED) or DEFAULT_LISTED
    listed = [described(endpoint) for endpoint in await store.all(tenant, ids[:count])]
    first_id, last_id = (listed[0].id, listed[-1].id) if listed else (None, None)
    return json_response(
        WebhookEndpointList(data=listed, first_id=first_id, last_id=last_id, has_more=len(ids) > count)
    )


async def get_endpoint(request: HttpRequest) -> Response:
    """Show an endpoint."""
    return json_response(described(await _own_endpoint(request)))


@_once_for_a_key
async def update_endpoint(request: HttpRequest, state: IntakeState, body: bytes) -> Response:
    """Change an endpoint; another URL enables it anew."""
    endpoint, change = await _own_endpoint(request), _read(body, WebhookEndpointChange)
    fields: dict[str, str] = {}
    if change.name is not UNSET:
        fields["name"] = change.name
    if change.url is not UNSET:
        _check_url(state, change.url)
        fields["url"] = change.url
    if change.event_types is not UNSET:
        fields["event_types"] = " ".join(_checked_types(change.event_types))
    enables = change.enabled is not UNSET or fields.get("url", endpoint.url) != endpoint.url
    return json_response(described(await state.webhooks.endpoints.update(endpoint, fields, enables=enables)))


async def delete_endpoint(request: HttpRequest) -> Response:
    """Delete an endpoint; what waits for it is not sent."""
    endpoint = await _own_endpoint(request)
    await intake_state(request).webhooks.endpoints.delete(endpoint)
    return json_response(DeletedWebhookEndpoint(id=endpoint.id))


@_once_for_a_key
async def rotate_secret(request: HttpRequest, state: IntakeState, body: bytes) -> Response:
    """Give an endpoint a new secret."""
    endpoint, rotation = await _own_endpoint(request), _read(body, SecretRotation)
    keeps_old = rotation.keep_old_secret_active_for_24_hours
    return json_response(with_secret(await state.webhooks.endpoints.rotate(endpoint, keeps_old=keeps_old)))


@_once_for_a_key
async def send_test(request: HttpRequest, state: IntakeState, body: bytes) -> Response:
    """Send a sample event now, and say what the endpoint answered."""
    endpoint = await _own_endpoint(request)
    (event_type,) = _checked_types([_read(body, WebhookTest).event_type])
    event_id, at_s = f"evt_test_{secrets.token_hex(12)}", int(time.time())
    sample = payload(event_id, event_type, at_s, "test")
    answer = await state.webhooks.post(endpoint.url, signed_headers(event_id, at_s, sample, endpoint.secrets), sample)
    if answer.status_code is None:
        raise RequestError(f"the test was not delivered: {answer.error}", param="url")
    return json_response(
        WebhookTestResult(webhook_endpoint_id=endpoint.id, event_type=event_type, status_code=answer.status_code)
    )


async def list_event_types(_: HttpRequest) -> Response:
    """List the event types that there are."""
    return json_response(WebhookEventTypes(data=list(EVENT_TYPES)))


async def list_deliveries(request: HttpRequest) -> Response:
    """List the last attempts at deliveries to an endpoint."""
    endpoint = await _own_endpoint(request)
    return json_response(attempts(await intake_state(request).webhooks.endpoints.log(endpoint.id)))


async def list_deliveries_about_job(request: HttpRequest) -> Response:
    """List the last attempts at deliveries about a job, whatever their destination."""
    state, job_id = intake_state(request), path_job_id(request)
    await own_job(request, state, job_id)
    return json_response(attempts(await state.webhooks.endpoints.log_about(readable(job_id))))


@_once_for_a_key
async def redeliver(request: HttpRequest, state: IntakeState, _: bytes) -> Response:
    """Deliver an event of an endpoint's log once more, with the same webhook-id."""
    endpoint = await _own_endpoint(request)
    event_id = request.path_params["event_id"]
    entry = next(
        (entry for entry in await state.webhooks.endpoints.log(endpoint.id) if entry.event_id == event_id), None
    )
    if entry is None:
        raise NotFoundError(f"there is no event {event_id[:80]!r} in this endpoint's log", param="event_id")
    if endpoint.disabled_at is not None:
        raise RequestError("the endpoint is disabled: enable it first", param="webhook_endpoint_id")
    delivery = Delivery(type=entry.type, created_at=entry.created_at, about=entry.about, tenant=entry.tenant)
    made = [(endpoint.id, event_id, msgspec.json.encode(delivery))]
    await state.queue.run(deliver_call(b"", state.settings.webhooks.max_pending, made))
    return json_response(Redelivery(event_id=event_id, webhook_endpoint_id=endpoint.id), 202)


async def _own_endpoint(request: HttpRequest) -> Endpoint:
    """Return the endpoint in the path; one of another tenant is answered like an unknown id."""
    endpoint_id = request.path_params["webhook_endpoint_id"]
    endpoint = await intake_state(request).webhooks.endpoints.read(endpoint_id)
    if endpoint.tenant != request.state.caller.tenant:
        raise NotFoundError(f"there is no webhook endpoint {endpoint_id[:80]!r}", param="webhook_endpoint_id")
    return endpoint


def _read(body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is wrong: {error}") from error


def _check_url(state: IntakeState, url: str) -> None:
    check_url(url, state.settings.webhooks, param="url")


def _checked_types(event_types: list[str]) -> list[str]:
    for event_type in event_types:
        if event_type not in EVENT_TYPES:
            known = ", ".join(EVENT_TYPES)
            raise RequestError(f"event types must be some of {known}, got {event_type[:80]!r}", param="event_types")
    return list(dict.fromkeys(event_types))
