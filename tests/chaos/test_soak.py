"""tests/chaos/soak.py: what finds nothing must be shown to find what is planted."""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.samples import FILES, KEYS, MEMORY, THREADS, Samples, running
from tests.chaos.slopes import HOUR_S, Verdict, slope
from tests.chaos.soak import Soak, soak
from tests.chaos.system.services import Service
from tests.conftest import ROOT, wait_until

TIMES_S = [3.0 * number for number in range(500)]  # 25 minutes
LIMIT = 16.0


def judged(series: Callable[[float, random.Random], float], seed: int) -> Verdict:
    rng = random.Random(seed)
    return slope(TIMES_S, [series(at_s, rng) for at_s in TIMES_S], LIMIT).verdict


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_of_twice_the_limit_is_found_through_noise_and_spikes(seed: int) -> None:
    def leaking(at_s: float, rng: random.Random) -> float:
        return 90 + 2 * LIMIT * at_s / HOUR_S + rng.gauss(0, 2) + (40 if rng.random() < 0.05 else 0)

    assert judged(leaking, seed) is Verdict.GROWS


@pytest.mark.parametrize("seed", range(20))
def test_noise_spikes_and_one_step_are_no_leak(seed: int) -> None:
    def steady(at_s: float, rng: random.Random) -> float:
        return 90 + (1.5 if at_s > 1000 else 0) + rng.gauss(0, 2) + (40 if rng.random() < 0.05 else 0)

    assert judged(steady, seed) is Verdict.FLAT


def test_more_noise_than_a_limit_is_called_unclear() -> None:
    assert judged(lambda _, rng: rng.gauss(90, 60), 7) is Verdict.UNCLEAR


def test_a_slope_is_per_hour_and_its_interval_holds_it() -> None:
    rng = random.Random(7)

    its = slope(TIMES_S, [5 + 30 * at_s / HOUR_S + rng.gauss(0, 1) for at_s in TIMES_S], LIMIT)

    assert its.low < 30 < its.high
    assert its.per_h == pytest.approx(30, abs=2)


@pytest.mark.parametrize(("leaked", "verdict"), [(0, Verdict.FLAT), (1, Verdict.GROWS)])
def test_keys_that_go_with_the_load_are_told_from_keys_that_stay(leaked: int, verdict: Verdict) -> None:
    samples, accepted = Samples(), 0
    for at_s in TIMES_S:
        jobs = round(60 + 30 * math.sin(at_s / 400))  # in three seconds, of a machine with other work
        accepted += jobs
        samples.times_s.append(at_s)
        samples.accepted.append(accepted)
        gone = accepted - (samples.accepted[-21] if len(samples.accepted) > 20 else 0)  # 60 s
        samples.rows.append({KEYS.named("rq:job"): gone + leaked * accepted / 100})

    (its,) = samples.slopes(300, 60).values()

    assert its.verdict is verdict


# A module that Python loads before anything else: every process that finds it leaks, in each way there is.
LEAK = """
import os, threading, time
kept = []
def leak():
    import redis
    for number in range(10**6):
        client = redis.Redis.from_url(os.environ["BITLADDER_REDIS__URL"])
        client.set(f"bl:planted:{os.getpid()}-{number}", b"x" * 2000)
        kept.extend((client, b"x" * 300_000, open("/dev/null")))
        threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
        time.sleep(1)
if "BITLADDER_REDIS__URL" in os.environ:
    threading.Thread(target=leak, daemon=True).start()
"""


def test_what_the_system_says_of_a_process_is_read(tmp_path: Path) -> None:
    grown = "import threading, time; kept = [open('/dev/null') for _ in range(50)], b'x' * 50_000_000; "
    grown += "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(5)]; time.sleep(60)"
    plain, large = (
        Service(name, [sys.executable, "-c", code], {}, tmp_path)
        for name, code in (("plain", "import time; time.sleep(60)"), ("large", grown))
    )
    for service in (plain, large):
        service.look()
    try:
        wait_until(lambda: running(large).get(THREADS.named("large.0"), 0) == 6, "all threads run")
        small, big = running(plain), running(large)
    finally:
        for service in (plain, large):
            service.stop()

    assert big[FILES.named("large.0")] - small[FILES.named("plain.0")] == 50
    assert big[MEMORY.named("large.0")] - small[MEMORY.named("plain.0")] > 48
    assert running(large) == {}


@pytest.mark.long
def test_a_leak_that_is_planted_in_every_process_is_found_by_a_short_soak(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(LEAK, encoding="utf-8")
    short = Soak(
        minutes=1.5,
        settings={"queue.result_ttl_s": 5, "queue.max_wait_s": 30},
        environment={"PYTHONPATH": f"{planted}:{ROOT}"},
    )

    report = asyncio.run(soak(short, 7, tmp_path))

    grown = {line for line in report.found if line.startswith("GROWS")}
    assert {
        f"GROWS: {measure} of {service}.0"
        for measure in ("RSS", "file descriptors", "threads")
        for service in report.starts
        if service not in ("valkey", "fp8-3")  # which is killed again and again
    } <= grown
    assert {"GROWS: Redis connections of all", "GROWS: keys of bl:planted"} <= grown
