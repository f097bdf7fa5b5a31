"""Batches from their file to their results, on a real queue and a real store: whatever happens, one result a line."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis

from bitladder.contract import Outcome, State, Usage
from bitladder.endpoints import Endpoint
from bitladder.queue.calls.end import Finished
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.server.connection import connect
from bitladder.rq_call import decode_call
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from dispatcher.batch import batch_run
from dispatcher.batch.batch_records import Batches, LeaseLostError
from dispatcher.batch.batch_run import BatchRun, BatchTools
from dispatcher.batch.batch_state import BatchRecord, Owner, Progress, Spec, Status
from dispatcher.batch.file_service import Files
from dispatcher.batch.folder_store import FolderStore
from dispatcher.batch.object_store import StoreError
from dispatcher.http.closing import Closing
from dispatcher.metrics.intake_metrics import BatchMetrics
from dispatcher.state import IntakeState
from tests.conftest import make_settings

LEASE_MS = 60_000
MODEL, URL = "smollm2:int4", "/v1/completions"


class Killed(BaseException):
    """The process is gone: no code of it runs any more, no handler of errors either."""


class MortalStore(FolderStore):
    """A folder whose user dies before or behind its nth write."""

    writes_left = 10**9
    dies_behind = False

    async def write(self, key: str, parts: AsyncIterator[bytes]) -> int:
        self.writes_left -= 1
        if self.writes_left == 0 and not self.dies_behind:
            raise Killed
        size = await super().write(key, parts)
        if self.writes_left == 0:
            raise Killed
        return size


class Worker:
    """Claims jobs and answers them, as a worker does; counts how often each was run."""

    def __init__(self, queue: JobQueue) -> None:
        self.runs: Counter[str] = Counter()
        self.limit = 10**9  # jobs that it runs
        self._queue, self._changed = queue, asyncio.Condition()

    async def has_run(self, jobs: int) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.runs.total() >= jobs)

    async def run(self) -> None:
        plan = claim_plan(self._queue.settings, "smollm2", "int4")
        while True:
            slots = min(16, self.limit - self.runs.total())
            jobs = (await self._queue.claim("w", "smollm2", "int4", plan, slots)).jobs if slots > 0 else []
            for job in jobs:
                self.runs[job.job_id] += 1
            done = [Finished(job=job, outcome=answer(decode_call(job.data).body)) for job in jobs]
            await self._queue.finish("w", done)
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(0 if jobs else 0.01)


def answer(body: msgspec.Raw) -> Outcome:
    prompt = msgspec.json.decode(body)["prompt"]
    if prompt == "refused":
        return Outcome(state=State.FAILED, status=400, body=msgspec.Raw(b'{"error":{"message":"no"}}'))
    text = prompt * 70_000 if prompt == "long" else prompt
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
    reply = msgspec.json.encode({"choices": [{"text": text}], "usage": usage})
    return Outcome(
        state=State.FINISHED,
        status=200,
        body=msgspec.Raw(reply),
        usage=Usage(prompt_tokens=2, completion_tokens=3),
    )


class Bench:
    """One intake's state, without HTTP, a worker, and what runs batches."""

    def __init__(self, state: IntakeState, store: MortalStore) -> None:
        self.state, self.store, self.files = state, store, Files(state.queue, store)
        self.batches = Batches(state.queue)
        self.worker = Worker(state.queue)
        self.tools = BatchTools(state, self.files, self.batches, BatchMetrics(state.metrics.registry, lambda: 0))

    async def create(self, prompts: list[str], max_queued: int = 0) -> BatchRecord:
        lines = [
            {"custom_id": f"c{n}", "method": "POST", "url": URL, "body": {"model": MODEL, "prompt": prompt}}
            for n, prompt in enumerate(prompts)
        ]
        return await self.create_from(b"".join(msgspec.json.encode(line) + b"\n" for line in lines), max_queued)

    async def create_from(self, content: bytes, max_queued: int = 0) -> BatchRecord:
        file = await self.files.create("acme", _one(content), purpose="batch", filename="in.jsonl")
        spec = Spec(
            owner=Owner(tenant="acme", max_queued=max_queued),
            input_file_id=file.id,
            input_key=file.key,
            endpoint=Endpoint.COMPLETIONS,
            completion_window="24h",
        )
        return await self.batches.create(spec, "", b"{}")

    async def take(self, batch: BatchRecord, window_s: float = 3600, lease_ms: int = LEASE_MS) -> BatchRun:
        _, leased = await self.batches.lease(lease_ms, 8, {})
        (fence,) = [held.fence for held in leased if held.id == batch.id]
        record = await self.batches.read(batch.id)
        return BatchRun(self.tools, record, fence, asyncio.get_running_loop().time() + window_s)

    async def abandon(self, batch: BatchRecord) -> None:
        """Let the lease of a runner that was killed run out."""
        fence = int(await self.state.queue.client.hget(f"bl:batch:{batch.id}", "fence") or 0)
        await self.batches.lease(0, 0, {batch.id: fence})

    async def results(self, batch: BatchRecord) -> tuple[dict[str, Any], dict[str, Any], Progress]:
        """Return the lines of the output file and of the error file by custom_id, each of which is there once."""
        record = await self.batches.read(batch.id)
        files = []
        for file_id in (record.progress.output_file_id, record.progress.error_file_id):
            lines: list[dict[str, Any]] = []
            if file_id:
                key = (await self.files.get("acme", file_id)).key
                content = b"".join([part async for part in self.store.stream(key)])
                lines = [msgspec.json.decode(line) for line in content.splitlines()]
            files.append({line["custom_id"]: line for line in lines})
            assert len(files[-1]) == len(lines)
        assert not files[0].keys() & files[1].keys()
        return files[0], files[1], record.progress


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


@contextlib.asynccontextmanager
async def opened(settings: Settings, folder: Path) -> AsyncIterator[Bench]:
    live = LiveSettings(settings)
    state = IntakeState(live, JobQueue(connect(settings.redis), live), Closing(), is_key_required=False)
    await state.start(None)
    bench = Bench(state, MortalStore(folder / "files"))
    state.background.start("worker", bench.worker.run)
    yield bench
    await state.aclose()
    await bench.store.aclose()


@pytest_asyncio.fixture
async def bench(redis_url: str, store: redis.Redis, tmp_path: Path) -> AsyncIterator[Bench]:
    del store
    async with opened(make_settings(redis_url, batch__max_queued=16), tmp_path) as bench:
        yield bench


async def test_each_line_has_its_result_by_its_custom_id(bench: Bench) -> None:
    prompts = [f"prompt {n}" for n in range(62)] + ["refused", "long"]
    batch = await bench.create(prompts)

    status = await (await bench.take(batch)).run()

    answers, errors, progress = await bench.results(batch)
    assert status is Status.COMPLETED
    assert {name: line["response"]["body"]["choices"][0]["text"] for name, line in answers.items()} == {
        f"c{n}": prompt for n, prompt in enumerate(prompts[:62])
    } | {"c63": "long" * 70_000}
    assert list(errors) == ["c62"]
    assert errors["c62"]["response"]["status_code"] == 400
    assert errors["c62"]["error"] is None
    assert (progress.total, progress.completed, progress.failed) == (64, 63, 1)
    assert (progress.tokens.prompt, progress.tokens.completion, progress.tokens.cached) == (126, 189, 63)
    assert progress.model == MODEL
    assert set(bench.worker.runs.values()) == {1}
    assert [stored.key async for stored in bench.store.objects(await bench.files.key_of(batch.id))] == []


@pytest.mark.parametrize("dies_behind", [False, True])
@pytest.mark.parametrize("write", [1, 2, 3, 4, 5, 6])
async def test_killed_at_any_write_another_runner_goes_on(
    bench: Bench, write: int, dies_behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "_MIN_PART_S", 0.1)
    batch = await bench.create([f"prompt {n}" for n in range(63)] + ["refused"])
    bench.worker.limit = (
        40  # the index and a part of answers are written by then; later one more, errors, and two files
    )
    bench.store.writes_left, bench.store.dies_behind = write, dies_behind
    killed = asyncio.create_task((await bench.take(batch)).run())
    await asyncio.wait([killed], timeout=0.4)
    bench.worker.limit = 10**9
    with pytest.raises(Killed):
        await killed
    bench.store.writes_left = 10**9

    await bench.abandon(batch)
    assert await (await bench.take(batch)).run() is Status.COMPLETED

    answers, errors, progress = await bench.results(batch)
    assert sorted([*answers, *errors]) == sorted(f"c{n}" for n in range(64))
    assert (progress.completed, progress.failed) == (63, 1)
    assert bench.worker.runs.total() == 64
    assert set(bench.worker.runs.values()) == {1}


async def test_a_runner_that_has_lost_its_lease_and_does_not_know_it_changes_nothing(bench: Bench) -> None:
    batch = await bench.create([f"prompt {n}" for n in range(64)])
    bench.worker.limit = 10
    stale = asyncio.create_task((await bench.take(batch)).run())
    await bench.worker.has_run(10)
    await bench.abandon(batch)
    owner = asyncio.create_task((await bench.take(batch)).run())
    bench.worker.limit = 10**9

    assert await owner is Status.COMPLETED
    with pytest.raises(LeaseLostError):
        await stale

    answers, errors, progress = await bench.results(batch)
    assert (len(answers), len(errors), progress.completed) == (64, 0, 64)
    assert set(bench.worker.runs.values()) == {1}


async def test_a_runner_whose_lease_was_not_renewed_in_time_stops_and_ends_nothing(bench: Bench) -> None:
    batch = await bench.create([f"prompt {n}" for n in range(64)])
    bench.worker.limit = 10
    run = await bench.take(batch)
    late = asyncio.create_task(run.run())
    await bench.worker.has_run(10)

    run.leased_until_s = 0
    bench.worker.limit = 16  # all that was submitted: there is room for more, and the rest must not be left out
    with pytest.raises(LeaseLostError):
        await late

    assert (await bench.batches.read(batch.id)).status is Status.IN_PROGRESS
    await bench.abandon(batch)
    bench.worker.limit = 10**9
    assert await (await bench.take(batch)).run() is Status.COMPLETED
    answers, _, _ = await bench.results(batch)
    assert len(answers) == 64
    assert set(bench.worker.runs.values()) == {1}


@pytest.mark.parametrize("early", ["cancelled", "expired"])
async def test_a_batch_that_ends_early_keeps_what_is_done(bench: Bench, early: str) -> None:
    batch = await bench.create([f"prompt {n}" for n in range(64)])
    bench.worker.limit = 10
    run = await bench.take(batch, window_s=1.0 if early == "expired" else 3600)
    running = asyncio.create_task(run.run())
    await bench.worker.has_run(10)
    if early == "cancelled":
        await bench.batches.cancel(batch.id)
        run.cancel()  # the lease says so

    status = await running

    answers, errors, progress = await bench.results(batch)
    assert status == early
    assert (progress.total, progress.completed, progress.failed) == (64, 10, 54)
    assert len(answers) == 10
    assert sorted([*answers, *errors]) == sorted(f"c{n}" for n in range(64))
    assert {(line["response"], line["error"]["code"]) for line in errors.values()} == {(None, f"batch_{early}")}
    depths = await bench.state.queue.depths("smollm2")
    assert sum(queue.depth for queue in depths.queues) == 0


async def test_a_batch_whose_lines_all_waited_until_its_window_closed_has_expired(bench: Bench) -> None:
    batch = await bench.create([f"prompt {n}" for n in range(8)])  # none is left in the file: there is room for them
    bench.worker.limit = 2

    status = await (await bench.take(batch, window_s=1.0)).run()

    answers, errors, progress = await bench.results(batch)
    assert status is Status.EXPIRED
    assert (len(answers), progress.completed, progress.failed) == (2, 2, 6)
    assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}


async def test_a_cancelled_batch_goes_to_its_end_with_another_runner(bench: Bench) -> None:
    batch = await bench.create([f"prompt {n}" for n in range(64)])
    bench.worker.limit = 10
    killed = asyncio.create_task((await bench.take(batch)).run())
    await bench.worker.has_run(10)
    killed.cancel()
    await asyncio.wait([killed])
    await bench.batches.cancel(batch.id)
    await bench.abandon(batch)

    assert await (await bench.take(batch)).run() is Status.CANCELLED

    answers, errors, progress = await bench.results(batch)
    assert (len(answers), progress.completed) == (10, 10)
    assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
    depths = await bench.state.queue.depths("smollm2")
    assert sum(queue.depth for queue in depths.queues) == 0


async def test_a_line_that_is_refused_has_its_own_error_and_the_others_go_on(bench: Bench) -> None:
    lines = [
        {"custom_id": "ok", "method": "POST", "url": URL, "body": {"model": MODEL, "prompt": "p"}},
        {"custom_id": "bad", "method": "POST", "url": URL, "body": {"model": MODEL, "prompt": 7}},
    ]
    batch = await bench.create_from(b"\n".join(map(msgspec.json.encode, lines)))

    assert await (await bench.take(batch)).run() is Status.COMPLETED

    answers, errors, _ = await bench.results(batch)
    assert list(answers) == ["ok"]
    assert errors["bad"]["response"]["status_code"] == 400
    assert errors["bad"]["response"]["body"]["error"]["param"] == "prompt"


async def test_a_wrong_line_ends_the_batch_before_anything_runs(bench: Bench) -> None:
    line = b'{"custom_id":"c%d","method":"POST","url":"/v1/completions","body":{"model":"smollm2:int4","prompt":"p"}}'
    batch = await bench.create_from(b"\n".join([*(line % n for n in range(16)), b"{", line % 3]))

    assert await (await bench.take(batch)).run() is Status.FAILED

    _, _, progress = await bench.results(batch)
    assert [(error.line, error.code) for error in progress.errors] == [
        (17, "invalid_json_line"),
        (18, "duplicate_custom_id"),
    ]
    assert progress.total == bench.worker.runs.total() == 0


async def test_an_outcome_is_kept_until_its_batch_is_over_and_its_job_forgotten_once_it_is_written(
    bench: Bench, store: redis.Redis
) -> None:
    batch = await bench.create(["a", "b", "c"])
    bench.worker.limit = 2  # so that results are not written at once
    killed = asyncio.create_task((await bench.take(batch, window_s=7200)).run())
    await bench.worker.has_run(2)
    killed.cancel()
    await asyncio.wait([killed])

    result_ttl_s = bench.state.settings.queue.result_ttl_s
    kept_s = [store.ttl(f"rq:job:{job_id}") for job_id in bench.worker.runs]

    assert kept_s == pytest.approx([7200 + result_ttl_s] * 2, abs=60)
    scores: Any = [store.zscore("rq:finished:smollm2:int4:batch:max-int4", job_id) for job_id in bench.worker.runs]
    assert [score - time.time() for score in scores] == pytest.approx([result_ttl_s] * 2, abs=60)
    bench.worker.limit = 10**9
    await bench.abandon(batch)
    await (await bench.take(batch)).run()
    assert 0 < store.ttl(f"rq:job:{batch.id}-1") <= 60


async def test_lines_wait_for_room_in_the_queue_and_leave_some_to_the_tenants_other_requests(bench: Bench) -> None:
    batch = await bench.create([f"prompt {n}" for n in range(64)], max_queued=8)
    bench.worker.limit = 0
    running = asyncio.create_task((await bench.take(batch)).run())
    await asyncio.sleep(0.3)

    depths = await bench.state.queue.depths("smollm2")
    assert [(queue.queue, queue.depth) for queue in depths.queues if queue.depth] == [
        ("smollm2:int4:batch:max-int4", 4)
    ]
    bench.worker.limit = 10**9
    assert await running is Status.COMPLETED
    assert bench.worker.runs.total() == 64


async def test_a_full_queue_and_a_broken_store_delay_a_batch_and_do_not_fail_it(
    redis_url: str, store: redis.Redis, tmp_path: Path
) -> None:
    del store
    async with opened(make_settings(redis_url, queue__max_depth=5, batch__max_queued=64), tmp_path) as bench:
        batch = await bench.create([f"prompt {n}" for n in range(64)])
        folder = tmp_path / "files"
        folder.rename(tmp_path / "gone")
        folder.touch()
        with pytest.raises(StoreError):
            await (await bench.take(batch)).run()
        folder.unlink()
        (tmp_path / "gone").rename(folder)
        await bench.abandon(batch)

        assert await (await bench.take(batch)).run() is Status.COMPLETED

        answers, errors, _ = await bench.results(batch)
        assert (len(answers), len(errors)) == (64, 0)
        assert set(bench.worker.runs.values()) == {1}


async def test_a_batch_whose_file_was_deleted_fails_and_says_so(bench: Bench) -> None:
    batch = await bench.create(["p"])
    await bench.files.delete(await bench.files.get("acme", batch.spec.input_file_id))

    assert await (await bench.take(batch)).run() is Status.FAILED

    _, _, progress = await bench.results(batch)
    assert [error.code for error in progress.errors] == ["input_file_missing"]


async def test_a_batch_whose_file_is_deleted_as_it_runs_keeps_its_answers_and_leaves_no_jobs(
    redis_url: str, store: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    monkeypatch.setattr(batch_run, "_MIN_PART_S", 20.0)  # no answer is in the store by then
    async with opened(make_settings(redis_url, batch__max_queued=100), tmp_path) as bench:
        batch = await bench.create([f"prompt {n}" for n in range(200)])
        bench.worker.limit = 10
        running = asyncio.create_task((await bench.take(batch)).run())
        await bench.worker.has_run(10)
        await bench.files.delete(await bench.files.get("acme", batch.spec.input_file_id))
        bench.worker.limit = 30  # with 28 answers there is room for more lines, and the others wait

        assert await running is Status.FAILED

        answers, errors, progress = await bench.results(batch)
        assert len(answers) == progress.completed >= 28
        assert not errors
        assert [error.code for error in progress.errors] == ["input_file_missing"]
        depths = await bench.state.queue.depths("smollm2")
        assert sum(queue.depth for queue in depths.queues) == 0


async def test_a_batch_waits_for_a_store_that_has_nothing_for_a_while(bench: Bench, tmp_path: Path) -> None:
    batch = await bench.create(["p"])
    (tmp_path / "files").rename(tmp_path / "elsewhere")  # as a folder that is not mounted
    with pytest.raises(StoreError, match=batch.spec.input_file_id):
        await (await bench.take(batch)).run()
    (tmp_path / "elsewhere").rename(tmp_path / "files")
    await bench.abandon(batch)

    assert await (await bench.take(batch)).run() is Status.COMPLETED
