"""Webhooks as clients see them: real intakes, workers and receivers, and OpenAI's library, which verifies them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from openai.types.webhooks import ResponseCompletedWebhookEvent

from tests.conftest import OwnValkey, Stack, wait_until
from tests.integration.webhooks.receiver import SECRET, Received, Receiver, receiving

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
SHIPPED = {"BITLADDER_WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]'}  # beside this, the settings that ship
LOOPBACK = SHIPPED | {"BITLADDER_WEBHOOKS__RETRY_S": "[0.1, 0.1, 0.1]"}
# More than the time that a receiver has by default and the pause after it, for which `make long` waits.
LONGEST_S = 60


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def submit(stack: Stack, url: str, **headers: str) -> str:
    """Submit a job with a webhook; return its id."""
    answer = stack.http.post(
        "/v1/jobs", json=BODY, headers={"X-Webhook-Url": url, "X-Webhook-Secret": SECRET, **headers}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def cancelled(stack: Stack, url: str) -> str:
    """Submit a job with a webhook, and cancel it."""
    job_id = submit(stack, url)
    assert stack.http.delete(f"/v1/jobs/{job_id}").status_code == 200
    return job_id


def first(receiver: Receiver, path: str) -> Received:
    wait_until(lambda: bool(receiver.about(path)), f"a delivery to {path}")
    return receiver.about(path)[0]


def test_each_end_of_a_job_is_told_signed_and_read_by_openais_library(
    make_stack: Callable[..., Stack], receiver: Receiver, store: redis.Redis
) -> None:
    stack = make_stack(**LOOPBACK)
    stack.intake()
    cancelled = submit(stack, f"{receiver.url}/cancelled")
    expired = submit(stack, f"{receiver.url}/expired", **{"X-Deadline-Ms": "50"})  # no worker, and nobody asks for it
    assert stack.http.delete(f"/v1/jobs/{cancelled}").status_code == 200
    assert first(receiver, "/cancelled").unwrap().data.id == cancelled
    assert first(receiver, "/cancelled").unwrap().type == "job.cancelled"
    assert first(receiver, "/expired").unwrap().type == "job.expired"
    assert first(receiver, "/expired").unwrap().data.id == expired
    stack.worker("int4")
    finished = submit(stack, f"{receiver.url}/finished")
    event = first(receiver, "/finished").unwrap()

    assert (event.type, event.data.id, event.object) == ("job.finished", finished, "event")
    assert event.id == first(receiver, "/finished").event_id
    assert len(receiver.received) == 3
    wait_until(lambda: not store.exists("bl:webhooks:watched", "bl:webhooks:targets", "bl:webhooks:leases"), "all done")
    assert not store.exists("bl:webhooks:events")


def test_background_responses_are_told_of_by_openais_names(
    make_stack: Callable[..., Stack], receiver: Receiver
) -> None:
    stack = make_stack(**LOOPBACK)
    stack.intake()
    stack.worker("int4")
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="-") as client:
        whole, cut_off = (
            client.responses.create(
                model="smollm2",
                input=" ".join(f"w{number}" for number in range(40)),
                max_output_tokens=limit,
                background=True,
                extra_headers={"X-Webhook-Url": f"{receiver.url}/{limit}", "X-Webhook-Secret": SECRET},
            )
            for limit in (100, 16)
        )
        event = first(receiver, "/100").unwrap()
        ends = {client.responses.retrieve(answer.id).status for answer in (whole, cut_off)}

    assert isinstance(event, ResponseCompletedWebhookEvent)
    assert event.data.id == whole.id
    assert first(receiver, "/16").unwrap().data.id == cut_off.id
    assert first(receiver, "/16").unwrap().type == "response.incomplete"
    assert ends == {"completed", "incomplete"}


def attempts(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    """Return what the job's log says of its deliveries, the latest first."""
    return list(stack.http.get(f"/v1/jobs/{job_id}/deliveries").raise_for_status().json()["data"])


@pytest.mark.parametrize(
    ("settings", "time"),
    [
        (LOOPBACK | {"BITLADDER_WEBHOOKS__TIMEOUT_S": "1.5"}, "1.5 s"),
        pytest.param(SHIPPED, "15 s", marks=pytest.mark.long),
    ],
    ids=["1.5 s", "time that ships"],
)
def test_one_receiver_that_hangs_is_given_its_time_and_holds_up_no_other(
    settings: dict[str, str], time: str, make_stack: Callable[..., Stack], receiver: Receiver
) -> None:
    stack = make_stack(**settings)
    stack.intake()
    with receiving() as hanging:
        hanging.may_answer.clear()
        slow = [cancelled(stack, f"{hanging.url}/{number}") for number in range(20)]
        wait_until(lambda: len(hanging.received) == 8, "as many as one destination may have are on their way")
        cancelled(stack, f"{receiver.url}/other")
        first(receiver, "/other")
        assert len(hanging.received) == 8
        wait_until(lambda: bool(attempts(stack, slow[0])), "the first attempt is over", LONGEST_S)
        (attempt,) = attempts(stack, slow[0])
        assert (attempt["status_code"], attempt["result"]) == (None, "retrying")
        assert attempt["error"] == f"there was no answer within {time}"
        hanging.may_answer.set()
        wait_until(lambda: len({item.path for item in hanging.received}) == 20, "all are tried", LONGEST_S)
        wait_until(
            lambda: attempts(stack, slow[0])[0]["result"] == "delivered", "the first one is delivered", LONGEST_S
        )

    tries = hanging.about("/0")
    assert len({item.event_id for item in tries}) == 1
    assert len({item.headers["webhook-timestamp"] for item in tries}) == 2, "each attempt is signed anew"


@pytest.mark.parametrize(
    "settings",
    [LOOPBACK | {"BITLADDER_WEBHOOKS__TIMEOUT_S": "0.5"}, pytest.param(SHIPPED, marks=pytest.mark.long)],
    ids=["0.5 s", "time that ships"],
)
def test_what_a_killed_intake_was_sending_another_sends(
    settings: dict[str, str], make_stack: Callable[..., Stack], receiver: Receiver
) -> None:
    first_intake, second_intake = make_stack(**settings), make_stack(**settings)
    first_intake.intake()
    receiver.may_answer.clear()
    job_id = cancelled(first_intake, f"{receiver.url}/job")
    first(receiver, "/job")  # it is on its way, and nobody has noted that
    first_intake.processes[0].kill()
    receiver.may_answer.set()
    second_intake.intake()
    wait_until(lambda: len(receiver.about("/job")) == 2, "the second one sends it", LONGEST_S)
    wait_until(lambda: bool(attempts(second_intake, job_id)), "it is noted")

    assert {item.event_id for item in receiver.received} == {receiver.received[0].event_id}
    assert [attempt["result"] for attempt in attempts(second_intake, job_id)] == ["delivered"]


@pytest.mark.parametrize(
    "settings",
    [LOOPBACK | {"BITLADDER_WEBHOOKS__RETRY_S": "[3]"}, pytest.param(SHIPPED, marks=pytest.mark.long)],
    ids=["3 s", "pauses that ship"],
)
def test_deliveries_that_wait_are_there_after_a_restart_of_redis(
    settings: dict[str, str], own_valkey: OwnValkey, receiver: Receiver
) -> None:
    stack = Stack(own_valkey.url, **settings)
    try:
        stack.intake()
        receiver.status = lambda _: 503
        job_id = cancelled(stack, f"{receiver.url}/job")
        wait_until(lambda: bool(attempts(stack, job_id)), "the first attempt has failed")
        receiver.status = lambda _: 200
        own_valkey.kill()
        own_valkey.start()
        wait_until(lambda: len(receiver.about("/job")) == 2, "it is tried again")
    finally:
        stack.kill()
        stack.http.close()

    assert receiver.received[1].unwrap().data.id == job_id


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    make_stack: Callable[..., Stack], receiver: Receiver
) -> None:
    stack = make_stack(**LOOPBACK | {"BITLADDER_WEBHOOKS__ALLOWED_NETWORKS": '["10.0.0.0/8"]'})
    stack.intake()
    job_id = cancelled(stack, receiver.url.replace("127.0.0.1", "localhost"))
    wait_until(lambda: len(attempts(stack, job_id)) == 4, "all attempts were made")

    assert "is a private or reserved address" in attempts(stack, job_id)[0]["error"]
    assert attempts(stack, job_id)[0]["result"] == "failed"
    assert receiver.received == []


def test_over_tls_the_name_of_the_url_is_asked_for_and_verified(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    file = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    certificate = (tmp_path / "cert.pem").read_text(encoding="ascii")
    file.write_text(file.read_text(encoding="ascii") + certificate, encoding="ascii")
    stack = make_stack(**LOOPBACK, SSL_CERT_FILE=str(tmp_path / "cert.pem"))
    stack.intake()
    with receiving(file) as receiver:
        port = receiver.url.rpartition(":")[2]
        named = cancelled(stack, f"https://localhost:{port}/named")
        by_address = cancelled(stack, f"https://127.0.0.1:{port}/address")
        assert first(receiver, "/named").headers["host"] == f"localhost:{port}"
        wait_until(lambda: bool(attempts(stack, by_address)), "the other attempt is over")

    assert first(receiver, "/named").unwrap().data.id == named
    assert "localhost" in receiver.names
    assert "certificate" in attempts(stack, by_address)[-1]["error"]
    assert receiver.about("/address") == []


def test_a_redirect_is_a_failure_and_not_followed(make_stack: Callable[..., Stack], receiver: Receiver) -> None:
    stack = make_stack(**LOOPBACK | {"BITLADDER_WEBHOOKS__RETRY_S": "[]"})
    stack.intake()
    receiver.status, receiver.location = lambda _: 302, f"{receiver.url}/elsewhere"
    job_id = cancelled(stack, f"{receiver.url}/job")
    wait_until(lambda: bool(attempts(stack, job_id)), "the attempt is over")

    assert attempts(stack, job_id)[0]["error"] == "the receiver answered with status 302: redirects are not followed"
    assert attempts(stack, job_id)[0]["result"] == "failed"
    assert [item.path for item in receiver.received] == ["/job"]


WRONG: list[dict[str, str]] = [
    {"X-Webhook-Secret": SECRET},
    {"X-Webhook-Url": "https://x.example/"},
    {"X-Webhook-Url": "https://x.example/", "X-Webhook-Secret": "secret"},
    {"X-Webhook-Url": "ftp://x.example/", "X-Webhook-Secret": SECRET},
    {"X-Webhook-Url": "http://127.0.0.1/", "X-Webhook-Secret": SECRET},
]


def test_a_wrong_webhook_is_refused_and_nothing_is_queued(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack()
    stack.intake()
    for headers in WRONG:
        answer = stack.http.post("/v1/jobs", json=BODY, headers=headers)
        assert answer.status_code == 400, headers
        assert answer.json()["error"]["param"] in ("X-Webhook-Url", "X-Webhook-Secret"), headers
        assert SECRET not in answer.text

    assert store.keys("rq:job:*") == []
