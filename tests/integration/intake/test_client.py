"""bitladder/client.py: the asyncio client; the blocking one is used by every other test here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

import pytest
import redis

from bitladder.client import AsyncClient, Client, JobError
from tests.conftest import Stack

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")
    return stack


async def test_many_jobs_are_submitted_and_awaited_at_once(stack: Stack) -> None:
    async with AsyncClient(stack.url) as client:
        jobs = await asyncio.gather(*(client.submit(BODY | {"prompt": f"p{number}"}) for number in range(50)))
        done = await asyncio.gather(*(client.wait(job["id"], timeout_s=20) for job in jobs))

    assert [job["result"]["choices"][0]["text"].split()[0] for job in done] == [f"p{number}" for number in range(50)]


async def test_a_job_is_cancelled_and_a_refusal_is_an_error_with_its_status(stack: Stack) -> None:
    async with AsyncClient(stack.url) as client:
        job = await client.submit(BODY | {"max_tokens": 50_000})
        await client.cancel(job["id"])
        over = await client.wait(job["id"], timeout_s=10)
        with pytest.raises(JobError, match="X-Priority") as refused:
            await client.submit(BODY, priority=99)

    assert over["status"] == "cancelled"
    assert refused.value.status == 400


def test_submit_many_and_an_idempotency_key(stack: Stack) -> None:
    with Client(stack.url) as client:
        many = client.submit_many([BODY, BODY])
        once, again = (client.submit(BODY, idempotency_key="k") for _ in range(2))

    assert len({job["id"] for job in many if isinstance(job, dict)}) == 2
    assert once["id"] == again["id"]


def test_an_unknown_option_is_refused_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="prority"):
        client.submit(BODY, prority=3)


class Flaky:
    """A way to an intake on which the answers to some calls are lost, after the intake has had them."""

    def __init__(self, target: str, lost: int) -> None:
        host, _, port = target.rpartition("/")[2].partition(":")
        self._target, self._lost = (host, int(port)), lost
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                with client, socket.create_connection(self._target) as intake:
                    intake.sendall(_message(client))
                    answer = _message(intake)
                    self._lost -= 1
                    if self._lost < 0:
                        client.sendall(answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    def close(self) -> None:
        self._server.close()


def _message(end: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += end.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += end.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.mark.parametrize("is_async", [False, True])
def test_a_submission_whose_answer_is_lost_is_repeated_and_stored_once(
    stack: Stack, store: redis.Redis, is_async: bool
) -> None:
    way = Flaky(stack.url, lost=2)

    async def submit() -> dict[str, object]:
        async with AsyncClient(way.url) as client:
            return await client.submit(BODY)

    if is_async:
        job = asyncio.run(submit())
    else:
        with Client(way.url) as client:
            job = client.submit(BODY)
    way.close()

    assert store.keys("rq:job:*") == [f"rq:job:{job['id']}".encode()]


def test_a_submission_that_was_sent_once_is_in_doubt_though_no_later_try_arrives() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        end, _ = listener.accept()
        with end:
            _message(end)
        listener.close()

    taking = threading.Thread(target=take)
    taking.start()
    with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client, pytest.raises(JobError) as lost:
        client.submit(BODY)
    taking.join()

    assert (lost.value.status, lost.value.code) == (None, "no_answer")


def test_an_answer_that_comes_from_no_intake_is_an_error_with_its_text() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        end, _ = listener.accept()
        with end:
            _message(end)
            end.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\n<b>no</b>")

    answering = threading.Thread(target=answer)
    answering.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url) as client, pytest.raises(JobError, match="<b>no</b>") as said:
        client.submit(BODY)
    answering.join()
    listener.close()

    assert said.value.status == 413
