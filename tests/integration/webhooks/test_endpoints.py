"""Endpoints of webhooks with OpenAI's library: made, used, tested, rotated, disabled, and of other tenants unseen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
import redis
from openai.types.webhooks import BatchCompletedWebhookEvent

from bitladder.queue.calls.webhooks import Hook
from bitladder.settings.access import key_hash, new_key
from tests.conftest import Stack, wait_until
from tests.integration.webhooks.receiver import SECRET, Receiver, receiving
from tests.integration.webhooks.test_deliveries import BODY, LOOPBACK, first

KEYS = {name: new_key() for name in ("acme", "reader", "globex", "ops")}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def tell_of(store: redis.Redis, event_type: str) -> None:
    """Note, as the script that ends batches does, that one of acme's has ended."""
    store.rpush("bl:webhooks:events", f"1764400000000 {event_type} batch_1 {Hook(tenant='acme').text()}")


Clients = Callable[[str], openai.OpenAI]


@pytest.fixture
def client(stack: Stack) -> Iterator[Clients]:
    """Return what makes OpenAI's client with one of the keys."""
    with contextlib.ExitStack() as opened:
        yield lambda name: opened.enter_context(
            openai.OpenAI(base_url=f"{stack.url}/v1", api_key=KEYS[name], max_retries=0)
        )


def keys_in_toml(receiver: Receiver) -> str:
    webhook = f', webhook = {{url = "{receiver.url}/of-key", secret = "{SECRET}"}}'
    more = {"acme": "", "reader": ', scopes = ["read"]', "globex": webhook, "ops": ', scopes = ["ops"]'}
    tables = [
        f'{name} = {{hash = "{key_hash(key.encode())}", tenant = "{name.replace("reader", "acme")}"{more[name]}}}'
        for name, key in KEYS.items()
    ]
    return f"{{{', '.join(tables)}}}"


def deliveries(stack: Stack, endpoint_id: str) -> list[dict[str, Any]]:
    answer = stack.http.get(f"/v1/webhook_endpoints/{endpoint_id}/deliveries")
    return list(answer.raise_for_status().json()["data"])


@pytest.fixture
def stack(make_stack: Callable[..., Stack], receiver: Receiver) -> Stack:
    stack = make_stack(BITLADDER_AUTH__KEYS=keys_in_toml(receiver), **LOOPBACK)
    stack.http.headers["Authorization"] = f"Bearer {KEYS['acme']}"
    stack.intake()
    return stack


def test_openais_library_makes_changes_tests_and_deletes_endpoints(client: Clients, receiver: Receiver) -> None:
    acme = client("acme")
    made = acme.webhooks.create(name="one", url=f"{receiver.url}/one", event_types=["batch.completed"])
    newer = acme.webhooks.create(name="two", url=f"{receiver.url}/two", event_types=["response.completed"])
    shown = acme.webhooks.retrieve(made.id)
    page = acme.webhooks.list(limit=1)
    listed = list(page)  # the library asks for the next page

    assert page.data[0].id == newer.id
    assert [endpoint.id for endpoint in listed] == [newer.id, made.id]
    assert (shown.name, shown.url, shown.event_types) == ("one", f"{receiver.url}/one", ["batch.completed"])
    assert made.signing_secret.startswith("whsec_")
    for answer in (shown, *listed):
        assert made.signing_secret not in answer.model_dump_json()
        assert newer.signing_secret not in answer.model_dump_json()
    changed = acme.webhooks.update(made.id, name="renamed", event_types=["batch.completed", "batch.failed"])
    assert (changed.name, changed.event_types) == ("renamed", ["batch.completed", "batch.failed"])
    result = acme.webhooks.test(made.id, event_type="batch.completed")
    sample = first(receiver, "/one").unwrap(made.signing_secret)
    assert (result.status_code, result.success) == (204, True)
    assert isinstance(sample, BatchCompletedWebhookEvent)
    assert "job.expired" in acme.webhooks.event_types.list().data

    assert acme.webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        acme.webhooks.retrieve(made.id)


def test_a_secret_is_rotated_with_the_old_one_beside_it_or_at_once(client: Clients, receiver: Receiver) -> None:
    acme = client("acme")
    made = acme.webhooks.create(name="one", url=f"{receiver.url}/one", event_types=["batch.completed"])
    rotated = acme.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    acme.webhooks.test(made.id, event_type="batch.completed")
    for secret in (made.signing_secret, rotated.signing_secret):
        receiver.about("/one")[0].unwrap(secret)
    again = acme.webhooks.rotate_secret(made.id)
    acme.webhooks.test(made.id, event_type="batch.completed")
    receiver.about("/one")[1].unwrap(again.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        receiver.about("/one")[1].unwrap(rotated.signing_secret)


def test_a_tenants_endpoint_is_answered_to_others_like_an_unknown_id(client: Clients, receiver: Receiver) -> None:
    acme, globex, reader = (client(name) for name in ("acme", "globex", "reader"))
    made = acme.webhooks.create(name="one", url=f"{receiver.url}/one", event_types=["batch.completed"])
    for call in (
        lambda: globex.webhooks.retrieve(made.id),
        lambda: globex.webhooks.update(made.id, name="x"),
        lambda: globex.webhooks.rotate_secret(made.id),
        lambda: globex.webhooks.test(made.id, event_type="batch.completed"),
        lambda: globex.webhooks.delete(made.id),
        lambda: acme.webhooks.retrieve("we_unknown"),
    ):
        with pytest.raises(openai.NotFoundError, match="there is no webhook endpoint"):
            call()
    assert list(globex.webhooks.list()) == []
    assert reader.webhooks.retrieve(made.id).name == "one"
    with pytest.raises(openai.PermissionDeniedError):
        reader.webhooks.delete(made.id)


WRONG: list[tuple[dict[str, object], str | None]] = [
    ({"url": "https://10.0.0.1/"}, "url"),
    ({"url": "http://x.example/"}, "url"),
    ({"event_types": ["video.completed"]}, "event_types"),
    ({"event_types": []}, None),
    ({"name": ""}, None),
    ({"secret": "chosen"}, None),
]


def test_a_wrong_endpoint_is_refused_with_the_reason(stack: Stack) -> None:
    usual = {"name": "one", "url": "https://x.example/", "event_types": ["job.failed"]}
    for fields, param in WRONG:
        answer = stack.http.post("/v1/webhook_endpoints", json=usual | fields)
        assert answer.status_code == 400, fields
        assert answer.json()["error"]["param"] == param, fields

    assert stack.http.get("/v1/webhook_endpoints").json()["data"] == []


def test_an_endpoint_is_made_once_for_an_idempotency_key(stack: Stack) -> None:
    body, key = {"name": "one", "url": "https://x.example/", "event_types": ["job.failed"]}, {"Idempotency-Key": "once"}
    first_answer, repeat = (stack.http.post("/v1/webhook_endpoints", json=body, headers=key) for _ in range(2))
    other = stack.http.post("/v1/webhook_endpoints", json=body | {"name": "two"}, headers=key)

    assert first_answer.json() == repeat.json()
    assert other.status_code == 422
    assert len(stack.http.get("/v1/webhook_endpoints").json()["data"]) == 1


def test_endpoints_hear_of_what_they_asked_for_and_a_keys_jobs_go_to_its_webhook(
    stack: Stack, client: Clients, receiver: Receiver, store: redis.Redis
) -> None:
    acme = client("acme")
    body: Any = {"name": "one", "url": f"{receiver.url}/one", "event_types": ["job.cancelled", "batch.completed"]}
    endpoint = acme.webhooks.create(**body)

    def cancelled(name: str) -> str:
        answer = stack.http.post("/v1/jobs", json=BODY, headers={"Authorization": f"Bearer {KEYS[name]}"})
        job_id = str(answer.json()["id"])
        stack.http.delete(f"/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {KEYS[name]}"})
        return job_id

    of_acme, of_key = cancelled("acme"), cancelled("globex")
    assert first(receiver, "/of-key").unwrap().data.id == of_key
    assert first(receiver, "/one").unwrap(endpoint.signing_secret).data.id == of_acme
    tell_of(store, "batch.completed")
    wait_until(lambda: len(deliveries(stack, endpoint.id)) == 2, "both are in the log")
    told_of = [delivery.unwrap(endpoint.signing_secret) for delivery in receiver.received if delivery.path == "/one"]

    assert [event.type for event in told_of] == ["job.cancelled", "batch.completed"]
    last = deliveries(stack, endpoint.id)[0]
    assert (last["event_type"], last["result"], last["status_code"]) == ("batch.completed", "delivered", 204)


def test_an_endpoint_that_is_gone_is_disabled_and_its_events_can_be_delivered_again(
    stack: Stack, client: Clients, receiver: Receiver, store: redis.Redis
) -> None:
    receiver.status = lambda _: 410
    acme = client("acme")
    endpoint = acme.webhooks.create(name="one", url=f"{receiver.url}/one", event_types=["batch.failed"])
    tell_of(store, "batch.failed")

    def shown() -> dict[str, Any]:
        return dict(stack.http.get(f"/v1/webhook_endpoints/{endpoint.id}").json())

    wait_until(lambda: shown()["status"] == "disabled", "it is disabled")
    assert shown()["disabled_reason"] == "it answered with status 410"
    event_id = deliveries(stack, endpoint.id)[0]["event_id"]
    ops = {"Authorization": f"Bearer {KEYS['ops']}"}
    metric = "bitladder_webhook_endpoints_disabled 1.0"
    wait_until(lambda: metric in stack.http.get("/metrics", headers=ops).text, "the metric says so")
    again = f"/v1/webhook_endpoints/{endpoint.id}/deliveries/{event_id}/redeliver"
    assert stack.http.post(again).status_code == 400
    receiver.status = lambda _: 204
    acme.webhooks.update(endpoint.id, extra_body={"enabled": True})
    assert shown()["status"] == "enabled"
    assert stack.http.post(again).status_code == 202
    wait_until(lambda: len(receiver.about("/one")) == 2, "it is delivered again")
    assert receiver.about("/one")[1].event_id == event_id
    assert json.loads(receiver.about("/one")[1].body)["data"] == {"id": "batch_1"}
    assert stack.http.post(again.replace(event_id, "evt_unknown")).status_code == 404
