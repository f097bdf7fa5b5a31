"""Client and AsyncClient with many jobs: errors in their places, outcomes as they come, an intake that leaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
import redis

from bitladder.client import AsyncClient, Client, JobError
from bitladder.entries import Completed, Entry
from bitladder.errors import BitladderError, GoneError, NotEndedError, NotFoundError, PartlySubmittedError, RequestError
from tests.conftest import Stack

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 2}
ENDLESS = BODY | {"max_tokens": 50_000}


class Items:
    """What an AsyncClient yields, as an iterator; it may be handed to another method of the client."""

    def __init__(self, items: AsyncIterator[Any], run: Callable[..., Any]) -> None:
        self.source, self._run = items, run

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> Any:  # noqa: ANN401  (whatever they are)
        try:
            return self._run(_next(self.source))
        except StopAsyncIteration:
            raise StopIteration from None


class Driven:
    """An AsyncClient that is called as a Client is, so that one test reads for both."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(url)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  (any method's)
            answer = method(*(item.source if isinstance(item, Items) else item for item in arguments), **options)
            run = self._loop.run_until_complete
            return Items(answer, run) if isinstance(answer, AsyncIterator) else run(answer)

        return call

    def close(self) -> None:
        self._loop.run_until_complete(self._client.__aexit__())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _next(items: AsyncIterator[Any]) -> Any:  # noqa: ANN401  (whatever they are)
    return await anext(items)


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    stack = Stack(redis_url)
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


def opened(kind: str, url: str) -> Iterator[Client]:
    """Yield a client of either kind."""
    if kind == "sync":
        with Client(url) as client:
            yield client
        return
    driven: Any = Driven(url)
    yield driven
    driven.close()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Client]:
    yield from opened(request.param, stack.url)


def bodies(count: int) -> Iterator[dict[str, Any]]:
    return (BODY | {"prompt": f"p{number}"} for number in range(count))


def id_of(answer: Any) -> str:  # noqa: ANN401  (a job, or what should be one)
    return str(answer["id"])


def words_of(outcomes: Iterable[Any]) -> list[str]:
    return [outcome["result"]["choices"][0]["text"].split()[0] for outcome in outcomes]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"model": "smollm2"}, 400),
        ({"model": "gone", "prompt": "x"}, 404),
        ("text", 400),
        (BODY | {"prompt": object()}, 400),
        (BODY | {"prompt": b"bytes"}, 400),
        (BODY | {"prompt": "\ud800"}, 400),
        (Entry(BODY, headers={"X-Priority": 99}), 400),
        (Entry(BODY, headers={"X-Min-Tier": "é"}), 400),
        (Entry(BODY, idempotency_key=""), 400),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wrong_body_is_an_error_in_its_place(client: Client, wrong: Any, status: int) -> None:  # noqa: ANN401
    answers = client.submit_many([*bodies(20), wrong, *bodies(20)])

    error = answers.pop(20)
    assert isinstance(error, BitladderError)
    assert (error.index, error.status) == (20, status)
    assert error.code
    assert error.message
    assert len({id_of(answer) for answer in answers}) == 40


def test_outcomes_are_gathered_in_order_with_errors_in_their_places(client: Client) -> None:
    answers = client.submit_many([*bodies(50), {}])
    old = str(uuid.UUID(int=(int((time.time() - 10**6) * 1000) << 80) | (7 << 76) | (2 << 62)))

    *done, refused, unknown, expired, empty = client.gather([*answers, "unknown", old, ""], timeout_s=30)

    assert words_of(done) == [f"p{number}" for number in range(50)]
    assert isinstance(refused, RequestError)
    assert isinstance(unknown, NotFoundError)
    assert isinstance(expired, GoneError)
    assert [
        (error.index, error.status, error.code)
        for error in (unknown, expired, empty)
        if isinstance(error, BitladderError)
    ] == [
        (51, 404, "not_found"),
        (52, 410, "result_expired"),
        (53, 404, "not_found"),
    ]


@pytest.mark.parametrize("call", ["wait", "outcome", "result"])
def test_an_unknown_id_is_an_error_at_once(client: Client, call: str) -> None:
    with pytest.raises(JobError) as unknown:
        getattr(client, call)("unknown")
    with pytest.raises(NotFoundError):
        getattr(client, call)("unknown")
    with pytest.raises(RequestError, match="must be text"):
        getattr(client, call)(5)

    assert (unknown.value.status, unknown.value.code) == (404, "not_found")


def test_a_job_that_has_not_ended_is_named(client: Client) -> None:
    job_id = id_of(client.submit(ENDLESS))

    assert client.outcome(job_id) is None
    with pytest.raises(NotEndedError, match="has not ended") as late:
        client.wait(job_id, timeout_s=0.1)
    (lacking,) = client.gather([job_id], timeout_s=0)
    client.cancel(job_id)

    assert list(late.value.job_ids) == [job_id]
    assert isinstance(lacking, NotEndedError)
    assert (lacking.index, lacking.status, lacking.code) == (0, 504, "not_ended")
    assert client.wait(job_id)["status"] == "cancelled"
    assert (client.outcome(job_id) or {})["status"] == "cancelled"


def test_jobs_come_as_they_complete_whichever_do_not(client: Client) -> None:
    slow = [id_of(client.submit(ENDLESS)) for _ in range(3)]
    quick = [id_of(answer) for answer in client.submit_many(bodies(300))]

    completed = client.as_completed([*slow, *quick], timeout_s=60)
    ended = list(itertools.islice(completed, 300))
    for job_id in slow:
        client.cancel(job_id)
    last = list(completed)

    assert {done.job_id for done in ended} == set(quick)
    assert all(done.job_id == [*slow, *quick][done.index] for done in [*ended, *last])
    assert {done.job_id for done in last} == set(slow)


def test_bodies_of_any_number_are_submitted_and_awaited_together(client: Client) -> None:
    def some() -> Iterator[dict[str, Any]]:
        for number, body in enumerate(bodies(300)):
            yield {} if number == 7 else body
        yield json.loads("{")

    completed: list[Completed[Any]] = []
    with pytest.raises(json.JSONDecodeError):
        completed.extend(client.as_completed(client.submit_each(some()), timeout_s=60))

    refused = [done for done in completed if isinstance(done.outcome, BitladderError)]
    assert [done.index for done in refused] == [7]
    assert {done.index for done in completed} == set(range(300))


def test_each_body_has_its_own_key_and_one_for_all_is_refused(client: Client) -> None:
    run = uuid.uuid4().hex
    entries = [Entry(body, idempotency_key=f"{run}-{number}") for number, body in enumerate(bodies(20))]

    first, again = client.submit_many(entries), client.submit_many(entries, min_tier="int4")

    assert [id_of(answer) for answer in first] == [id_of(answer) for answer in again]
    with pytest.raises(RequestError, match="Entry"):
        client.submit_many(bodies(3), idempotency_key="k")
    with pytest.raises(TypeError, match="prority"):
        client.submit_many(bodies(3), prority=3)


def test_an_iterable_that_raises_loses_no_job(client: Client) -> None:
    def some() -> Iterator[dict[str, Any]]:
        yield from bodies(30)
        raise OSError("the file ends here")

    with pytest.raises(PartlySubmittedError, match="after 30 bodies: the file ends here") as partly:
        client.submit_many(some())

    assert len({id_of(answer) for answer in partly.value.answers}) == 30


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_intake_that_is_killed_in_the_middle_leaves_every_body_answered(
    make_stack: Callable[..., Stack], store: redis.Redis, kind: str
) -> None:
    own = make_stack()
    own.intake()
    taken = 0

    def some() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for body in bodies(10_000):
            taken += 1
            if taken == 41:
                own.processes[0].kill()
                own.processes[0].wait()
            yield body

    for client in opened(kind, own.url):
        with pytest.raises(PartlySubmittedError, match="no intake answers") as partly:
            client.submit_many(some())

    answers = partly.value.answers
    accepted = [id_of(answer) for answer in answers if not isinstance(answer, JobError)]
    stored = {str(key, "ascii").removeprefix("rq:job:") for key in store.keys("rq:job:*")}  # type: ignore[arg-type]  # bytes
    assert len(answers) == taken < 100
    assert all(
        answer.status is None and answer.index == place
        for place, answer in enumerate(answers)
        if isinstance(answer, JobError)
    )
    assert set(accepted) <= stored
    unknown = [answer for answer in answers if isinstance(answer, JobError) and answer.code]
    assert len(stored) - len(accepted) <= len(unknown)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_intake_that_is_replaced_costs_a_waiting_client_nothing(
    make_stack: Callable[..., Stack], redis_url: str, kind: str
) -> None:
    own = make_stack()
    own.intake()
    for client in opened(kind, own.url):
        jobs = client.submit_many(bodies(10))
        completed = client.as_completed(jobs, timeout_s=60)
        own.worker("int4")
        first = next(completed)
        own.processes[0].kill()
        own.processes[0].wait()
        replacing = threading.Timer(1, own.start, ("serve",))
        replacing.start()
        others = list(completed)
        replacing.join()

    assert sorted(words_of(done.outcome for done in [first, *others])) == [f"p{number}" for number in range(10)]
