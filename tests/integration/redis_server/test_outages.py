"""Valkey away for longer than the lease, or its clock set: nobody has died, so nothing is begun anew."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from bitladder.client import Client
from bitladder.producer import Producer
from tests.conftest import OwnValkey, Stack, make_settings, wait_until

WORKERS, JOBS = 4, 24
LEASE_S, UNREACHABLE_S = 15, 18.5  # the default, and longer
# A third of them, which is waited for in a third of the time; `make long` has the lease that ships.
SHORT_LEASE_S, SHORT_UNREACHABLE_S = 5, 7
HOUR_MS = 3_600_000
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
SLOTS = {f"BITLADDER_MODELS__SMOLLM2__TIERS__{tier}__SLOTS": str(JOBS // WORKERS) for tier in ("INT4", "INT8")}
# A process that this is loaded into reads the time of day moved by the seconds in the file $CLOCK.
MOVED_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile int64_t *moved;
__attribute__((constructor)) static void open_clock(void) {
  moved = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("CLOCK"), O_RDONLY), 0);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += *moved;
  return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec read;
  clock_gettime(CLOCK_REALTIME, &read);
  now->tv_sec = read.tv_sec;
  now->tv_usec = read.tv_nsec / 1000;
  return 0;
}
"""


class Clock:
    """The clock of a server that is started while it is in the environment."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file, source, library = folder / "clock", folder / "clock.c", folder / "clock.so"
        self.move(0)
        source.write_text(MOVED_CLOCK, encoding="utf-8")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        monkeypatch.setenv("CLOCK", str(self._file))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def move(self, seconds: int) -> None:
        if not self._file.exists():
            self._file.touch()
        with self._file.open("r+b") as written:  # in place: the server has it mapped
            written.write(struct.pack("q", seconds))


def claims_of(store: redis.Redis, ids: list[str]) -> list[Any]:
    """Return of each job who holds it, under which claim and since when."""
    return [store.hmget(f"rq:job:{job_id}", "status", "worker_name", "fence", "started_at") for job_id in ids]


def all_run(store: redis.Redis, ids: list[str]) -> bool:
    return {row[0] for row in claims_of(store, ids)} == {b"started"}


def have_renewed(store: redis.Redis, count: int, after_ms: int, lease_s: int) -> bool:
    """Return whether so many workers have renewed their lease since then."""
    return store.zcount("bl:workers", after_ms + lease_s * 1000, after_ms + HOUR_MS) == count


def has_moved(store: redis.Redis, was_ms: int) -> bool:
    return abs(now_ms(store) - was_ms) > HOUR_MS / 2


def now_ms(store: redis.Redis) -> int:
    seconds, micros = store.time()
    return int(seconds * 1000 + micros // 1000)


@pytest.mark.parametrize(
    ("lease_s", "unreachable_s", "times"),
    [
        pytest.param(SHORT_LEASE_S, SHORT_UNREACHABLE_S, 1, id="once, with a short lease"),
        pytest.param(LEASE_S, UNREACHABLE_S, 1, id="once", marks=pytest.mark.long),
        pytest.param(LEASE_S, UNREACHABLE_S, 3, id="three times in a row", marks=pytest.mark.long),
    ],
)
def test_an_outage_longer_than_a_lease_costs_no_job_an_attempt(
    make_stack: Callable[..., Stack], own_valkey: OwnValkey, lease_s: int, unreachable_s: float, times: int
) -> None:
    # They run through every outage, and for more than a lease behind the last one.
    runs_s = times * (unreachable_s + 3) + lease_s + 2
    stack = make_stack(
        **SLOTS,
        BITLADDER_REDIS__URL=own_valkey.url,
        BITLADDER_ECHO__TTFT_MS=str(runs_s * 1000),
        BITLADDER_QUEUE__LEASE_S=str(lease_s),
    )
    stack.intake()
    for _ in range(WORKERS):
        stack.start("worker", "--tier", "int4")
    wait_until(lambda: stack.live("int4") == WORKERS, "all workers are live")
    with Producer(make_settings(own_valkey.url)) as producer:
        ids = [str(job_id) for job_id in producer.submit_many([BODY] * JOBS, headers={"X-Max-Tier": "int4"})]
    store = redis.Redis.from_url(own_valkey.url)
    wait_until(lambda: all_run(store, ids), "all of them run")
    before = claims_of(store, ids)

    for number in range(times):
        own_valkey.kill()
        if number == 0:
            stack.start("worker", "--tier", "int8")  # knows nothing of what was before the server came back
        time.sleep(unreachable_s)  # how long it is unreachable is what this is about
        own_valkey.start()
        back_ms = now_ms(store)
        wait_until(partial(have_renewed, store, WORKERS + 1, back_ms, lease_s), "all have renewed")
        assert claims_of(store, ids) == before
    with Client(stack.url) as client:
        jobs = [client.wait(job_id, timeout_s=runs_s) for job_id in ids]
    after, dead = claims_of(store, ids), store.exists("bl:dead_letters")
    store.close()

    assert Counter(row[1] for row in before) == {row[1]: JOBS // WORKERS for row in before}
    assert Counter((job["status"], job["attempts"]) for job in jobs) == {("finished", 1): JOBS}
    assert [row[1:] for row in after] == [row[1:] for row in before]
    assert dead == 0


@pytest.mark.skipif(not shutil.which("cc"), reason="the server's clock is moved by a library that a C compiler makes")
def test_a_server_s_clock_that_is_set_costs_no_job_an_attempt(
    make_stack: Callable[..., Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, valkey = Clock(tmp_path, monkeypatch), OwnValkey(tmp_path / "valkey")
    valkey.start()
    monkeypatch.delenv("LD_PRELOAD")
    stack = make_stack(
        **SLOTS,
        BITLADDER_REDIS__URL=valkey.url,
        BITLADDER_ECHO__TTFT_MS="9000",
        BITLADDER_QUEUE__LEASE_S=str(SHORT_LEASE_S),
    )
    stack.intake()
    for _ in range(2):
        stack.start("worker", "--tier", "int4")
    wait_until(lambda: stack.live("int4") == 2, "all workers are live")
    with Producer(make_settings(valkey.url)) as producer:
        ids = [str(job_id) for job_id in producer.submit_many([BODY] * 12, headers={"X-Max-Tier": "int4"})]
    store = redis.Redis.from_url(valkey.url)
    wait_until(lambda: all_run(store, ids), "all of them run")
    before = claims_of(store, ids)

    for hours in (1, -1):
        was_ms = now_ms(store)
        clock.move(hours * 3600)
        wait_until(partial(has_moved, store, was_ms), "the server sees it")
        wait_until(partial(have_renewed, store, 2, now_ms(store), SHORT_LEASE_S), "both have renewed")
        assert claims_of(store, ids) == before
    with Client(stack.url) as client:
        jobs = [client.wait(job_id, timeout_s=30) for job_id in ids]
    after = claims_of(store, ids)
    store.close()
    stack.stop()
    valkey.kill()

    assert Counter((job["status"], job["attempts"]) for job in jobs) == {("finished", 1): 12}
    assert [row[1:] for row in after] == [row[1:] for row in before]
