"""bitladder/process/supervision.py: what ends is started again, says why, and counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from bitladder.process import supervision as module
from bitladder.process.batching import Batcher
from bitladder.process.supervision import Background, in_thread


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "SETTLED_S", 0.05)


@pytest_asyncio.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (nothing tells)
            await asyncio.sleep(0.005)


class Work:
    """Ends in its own way the first times, and then runs."""

    def __init__(self, *ends: BaseException | None) -> None:
        self._ends = list(ends)
        self.starts = 0

    async def __call__(self) -> None:
        self.starts += 1
        if self._ends:
            end = self._ends.pop(0)
            if end is not None:
                raise end
            return
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "end", [ValueError("a defect"), asyncio.CancelledError(), None], ids=["raises", "leaks a cancellation", "returns"]
)
async def test_a_task_that_ends_is_started_again_and_the_log_says_why(
    background: Background, end: BaseException | None
) -> None:
    work = Work(end, end)
    with capture_logs() as logs:
        background.start("inbox", work)
        await until(lambda: work.starts == 3)

    assert [(entry["log_level"], entry["task"]) for entry in logs] == [("error", "inbox")] * 2
    assert logs[0]["error"] == (repr(end) if end else "it returned")
    assert logs[0]["exc_info"] is end
    assert logs[0]["after_s"] < logs[1]["after_s"]


async def test_a_task_that_ended_is_down_until_it_has_run_for_a_while() -> None:
    seen: list[list[str]] = []
    mine = Background(lambda: seen.append(mine.down))
    mine.start("well", Work())
    mine.start("inbox", Work(ValueError("a defect")))

    await until(lambda: len(seen) == 2)
    await mine.stop()

    assert seen == [["inbox"], []]


async def test_a_task_of_a_thread_is_started_again_as_well(background: Background) -> None:
    starts: list[str] = []
    is_over = threading.Event()

    def work() -> None:
        starts.append(threading.current_thread().name)
        if len(starts) == 1:
            raise ValueError("a defect")
        is_over.wait(5)

    with capture_logs() as logs:
        background.start("capture", lambda: in_thread("capture", work))
        await until(lambda: len(starts) == 2)
    is_over.set()

    assert starts == ["capture", "capture"]
    assert "a defect" in logs[0]["error"]


async def test_what_is_done_once_says_why_it_broke(background: Background) -> None:
    async def work() -> None:
        raise ValueError("a defect")

    with capture_logs() as logs:
        background.once("cancellation", work())
        await until(lambda: bool(logs))

    assert (logs[0]["task"], logs[0]["error"]) == ("cancellation", "ValueError('a defect')")


async def test_a_log_that_nobody_reads_ends_no_task(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object, **fields: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module.log, "error", broken)
    work = Work(ValueError("a defect"))
    background.start("inbox", work)

    await until(lambda: work.starts == 2)


async def test_a_task_that_is_stopped_stays_so(background: Background) -> None:
    work = Work()
    task = background.start("watch", work)
    await until(lambda: work.starts == 1)

    task.cancel()
    await asyncio.wait([task])

    assert work.starts == 1
    assert background.down == []


@pytest.mark.parametrize("answers", [[], [1, 2, 3]])  # fewer are allowed: tests/bitladder/queue/test_budget.py
async def test_a_bundle_with_a_wrong_number_of_answers_is_an_error_for_each_of_its_calls(answers: list[int]) -> None:
    async def flush(items: object) -> list[int]:
        del items
        return answers

    batcher: Batcher[str, int] = Batcher(flush)

    ends = await asyncio.wait_for(asyncio.gather(*map(batcher.call, "ab"), return_exceptions=True), 5)

    assert [type(end) for end in ends] == [ValueError, ValueError]


async def test_a_bundle_whose_task_is_cancelled_is_an_error_for_each_of_its_calls() -> None:
    async def flush(items: object) -> list[int]:
        raise asyncio.CancelledError

    batcher: Batcher[str, int] = Batcher(flush)

    ends = await asyncio.wait_for(asyncio.gather(*map(batcher.call, "ab"), return_exceptions=True), 5)

    assert [type(end) for end in ends] == [RuntimeError, RuntimeError]


async def test_a_task_that_loses_its_cancellation_is_cancelled_again() -> None:
    background, lost = Background(), asyncio.Event()

    async def lose_one() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.set()  # as asyncio.wait_for does in Python 3.11 when what it waits for ends at that moment
        await asyncio.sleep(60)

    background.start("losing", lose_one)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await background.stop()
    assert lost.is_set()
