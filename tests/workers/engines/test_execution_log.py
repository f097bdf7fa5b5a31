"""workers/engines/execution_log.py: what the echo engine writes down of what it ran."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from pathlib import Path

import msgspec
import pytest

from bitladder.contract import Claimed
from bitladder.errors import BitladderError, ConfigError
from bitladder.settings.worker_section import EchoSettings
from workers.engines.base import CLAIM
from workers.engines.echo import EchoEngine
from workers.engines.execution_log import Event, ExecutionLog, How, Line

ROUTE = "/v1/completions"
MARK = "secretword"
JOB = Claimed(
    job_id="a",
    queue="smollm2:int4:urgent",
    data=b"",
    attempt=2,
    fence=3,
    enqueued_ms=0,
    deadline_ms=None,
    claimed_ms=0,
)


def lines_of(path: Path) -> list[Line]:
    return msgspec.json.Decoder(Line).decode_lines(path.read_bytes())


def make_engine(path: Path) -> EchoEngine:
    return EchoEngine(EchoSettings(ttft_ms=1, tokens_per_s=1000, execution_log=str(path)), "int8")


async def run(engine: EchoEngine, prompt: str, tokens: int = 3) -> None:
    CLAIM.set(JOB)
    body = {"model": "m", "prompt": f"{MARK} {prompt}", "max_tokens": tokens}
    await engine.generate(ROUTE, msgspec.json.encode(body), None)


async def test_an_execution_is_written_down_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    engine, before_ms = make_engine(tmp_path / "log"), int(time.time() * 1000)

    await run(engine, "aa")

    begin, end = lines_of(tmp_path / "log")
    assert (begin.event, begin.how) == (Event.BEGIN, None)
    assert (end.event, end.how) == (Event.END, How.ANSWERED)
    assert before_ms <= begin.at_ms <= end.at_ms <= time.time() * 1000
    for line in (begin, end):
        assert (line.job_id, line.fence, line.attempt, line.queue) == ("a", 3, 2, "smollm2:int4:urgent")
        assert (line.tier, line.pid) == ("int8", os.getpid())


@pytest.mark.parametrize(
    ("word", "how"), [("echo:fault", How.FAULT), ("echo:nan", How.FAULT), ("echo:crash", How.LOST)]
)
async def test_an_end_says_what_the_engine_did(word: str, how: How, tmp_path: Path) -> None:
    with pytest.raises(BitladderError):
        await run(make_engine(tmp_path / "log"), word)

    assert [line.how for line in lines_of(tmp_path / "log")] == [None, how]


async def test_what_the_worker_stops_is_aborted(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(make_engine(tmp_path / "log"), "aa", tokens=50_000), 0.05)

    assert [line.how for line in lines_of(tmp_path / "log")] == [None, How.ABORTED]


@pytest.mark.parametrize(("word", "tokens"), [("echo:busy", 3), ("aa", -1)])
async def test_what_the_engine_refuses_is_no_execution(word: str, tokens: int, tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "log")

    await asyncio.gather(run(engine, word, tokens), return_exceptions=True)

    assert lines_of(tmp_path / "log") == []


async def test_no_word_of_a_prompt_is_written_down(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "log")

    await asyncio.gather(*(run(engine, word) for word in ("aa", "echo:fault", "echo:crash")), return_exceptions=True)

    assert len(lines_of(tmp_path / "log")) == 6
    assert MARK.encode() not in (tmp_path / "log").read_bytes()


def write(path: str, count: int) -> None:
    log = ExecutionLog(path, "int4")
    for _ in range(count):
        with log.execution():
            pass


def test_the_lines_of_several_workers_in_one_file_do_not_mix(tmp_path: Path) -> None:
    workers = [
        multiprocessing.get_context("spawn").Process(target=write, args=(str(tmp_path / "log"), 500)) for _ in "ab"
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    lines = lines_of(tmp_path / "log")

    assert len(lines) == 2000
    assert {line.pid for line in lines} == {worker.pid for worker in workers}


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"echo\.execution_log must be a file that can be written, got '.*/none/log'"):
        make_engine(tmp_path / "none" / "log")


def test_without_the_setting_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    asyncio.run(run(EchoEngine(EchoSettings(ttft_ms=0), "int4"), "aa"))

    assert list(tmp_path.iterdir()) == []
