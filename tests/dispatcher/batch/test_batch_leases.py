"""Who runs a batch, and who may write how far it is: the scripts, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis

from bitladder.endpoints import Endpoint
from bitladder.errors import ConflictError, NotFoundError, QuotaError
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from dispatcher.batch.batch_records import Batches, LeaseLostError
from dispatcher.batch.batch_state import Owner, Progress, Spec, Status
from tests.conftest import make_settings

LEASE_MS, SHORT_MS = 60_000, 30


@pytest_asyncio.fixture
async def batches(redis_url: str, store: redis.Redis) -> AsyncIterator[Batches]:
    del store
    settings = make_settings(redis_url, batch__max_open=3, batch__max_kept=4)
    queue = JobQueue(connect(settings.redis), settings)
    yield Batches(queue)
    await queue.aclose()


def spec(tenant: str = "acme", window: str = "24h") -> Spec:
    return Spec(
        owner=Owner(tenant=tenant),
        input_file_id="file-a",
        input_key="s/file-a",
        endpoint=Endpoint.CHAT,
        completion_window=window,
    )


async def test_a_batch_is_run_by_one_process_at_a_time(batches: Batches) -> None:
    batch = await batches.create(spec(), "", b"{}")

    _, ((batch_id, fence, status),) = await batches.lease(LEASE_MS, 8, {})
    _, of_another = await batches.lease(LEASE_MS, 8, {})

    assert (batch_id, fence, status, of_another) == (batch.id, 1, "validating", [])


async def test_who_does_not_renew_loses_the_batch_and_writes_nothing_any_more(batches: Batches) -> None:
    batch = await batches.create(spec(), "", b"{}")
    _, ((_, first, _),) = await batches.lease(SHORT_MS, 8, {})
    await asyncio.sleep(SHORT_MS / 1000)
    _, ((_, second, _),) = await batches.lease(LEASE_MS, 8, {})

    with pytest.raises(LeaseLostError):
        await batches.write(batch, first, Status.FAILED, Progress())
    _, ((_, fence, _),) = await batches.lease(LEASE_MS, 0, {batch.id: first})

    assert (second, fence) == (2, 0)
    assert (await batches.read(batch.id)).status is Status.VALIDATING
    assert await batches.write(batch, second, Status.IN_PROGRESS, Progress(total=3), b"\0") is Status.IN_PROGRESS
    assert (await batches.read(batch.id)).progress.total == 3


async def test_a_cancellation_stays_until_the_runner_ends_the_batch(batches: Batches) -> None:
    batch = await batches.create(spec(), "", b"{}")
    _, ((_, fence, _),) = await batches.lease(LEASE_MS, 8, {})

    before = await batches.cancel(batch.id)

    assert before is Status.VALIDATING
    assert await batches.write(batch, fence, Status.IN_PROGRESS, Progress(total=1)) is Status.CANCELLING
    assert await batches.cancel(batch.id) is Status.CANCELLING
    assert await batches.write(batch, fence, Status.CANCELLED, Progress(total=1)) is Status.CANCELLED
    ended = await batches.read(batch.id)
    assert ended.cancelling_ms
    assert await batches.cancel(batch.id) is Status.CANCELLED
    with pytest.raises(LeaseLostError):  # it is over
        await batches.write(batch, fence, Status.COMPLETED, Progress())
    now_ms, leased = await batches.lease(LEASE_MS, 8, {})
    assert now_ms == pytest.approx(ended.cancelling_ms, abs=10_000)
    assert leased == []


async def test_a_batch_whose_files_are_being_written_is_not_cancelled(batches: Batches) -> None:
    batch = await batches.create(spec(), "", b"{}")
    _, ((_, fence, _),) = await batches.lease(LEASE_MS, 8, {})
    await batches.write(batch, fence, Status.FINALIZING, Progress())

    assert await batches.cancel(batch.id) is Status.FINALIZING
    assert (await batches.read(batch.id)).status is Status.FINALIZING


async def test_an_idempotency_key_creates_one_batch(batches: Batches) -> None:
    first = await batches.create(spec(), "k", b"{}")

    assert (await batches.create(spec(), "k", b"{}")).id == first.id
    with pytest.raises(ConflictError):
        await batches.create(spec(), "k", b'{"other": 1}')
    assert (await batches.create(spec("globex"), "k", b"{}")).id != first.id


async def test_a_tenant_has_so_many_open_batches_and_no_more(batches: Batches) -> None:
    for _ in range(3):
        await batches.create(spec(), "", b"{}")

    with pytest.raises(QuotaError, match=r"acme has 3 batches that have not ended.*batch.*max_open"):
        await batches.create(spec(), "", b"{}")
    await batches.create(spec("globex"), "", b"{}")
    _, leased = await batches.lease(LEASE_MS, 1, {})
    oldest = await batches.read(leased[0].id)
    await batches.write(oldest, leased[0].fence, Status.COMPLETED, Progress())
    assert (await batches.create(spec(), "", b"{}")).status is Status.VALIDATING


async def test_the_oldest_ended_batches_make_room_and_pages_follow_each_other(
    batches: Batches, store: redis.Redis
) -> None:
    ids: list[str] = []
    for _ in range(6):
        batch = await batches.create(spec(), "", b"{}")
        ids.insert(0, batch.id)
        _, ((_, fence, _),) = await batches.lease(LEASE_MS, 8, {})
        await batches.write(batch, fence, Status.COMPLETED, Progress())
        await asyncio.sleep(0.002)  # they differ in their time

    first, has_more = await batches.page("acme", None, 3)
    second, has_more_still = await batches.page("acme", first[-1].id, 3)

    assert [record.id for record in (*first, *second)] == ids[:4]
    assert (has_more, has_more_still) == (True, False)
    assert len(store.keys("bl:batch:*")) == 4
    assert await batches.page("globex", None, 3) == ([], False)
    with pytest.raises(NotFoundError):
        await batches.page("globex", ids[0], 3)


async def test_everything_that_is_kept_of_batches_is_forgotten_in_time(batches: Batches, store: redis.Redis) -> None:
    batch = await batches.create(spec(window="1h"), "", b"{}")

    keys = [key for key in store.keys("bl:batch*") + store.keys("bl:open_batches*") if key != b"bl:batch_leases"]

    assert len(keys) == 3
    assert all(store.pttl(key) > 0 for key in keys)
    store.delete(f"bl:batch:{batch.id}")
    assert (await batches.lease(LEASE_MS, 8, {}))[1] == []
    assert store.zcard("bl:batch_leases") == 0
