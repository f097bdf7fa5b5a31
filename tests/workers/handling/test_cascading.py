"""workers/handling/cascading.py: answers that a tier was not sure of, with real workers on a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import redis

from bitladder.contract import Outcome
from bitladder.entries import Body
from bitladder.errors import ConfigError, RequestError
from bitladder.producer import Producer
from bitladder.settings.sections import Settings
from tests.conftest import make_settings
from tests.workers.test_pump import until
from workers.engines.echo import EchoEngine
from workers.pump import Pump

CURVE = {"margins": [0.1, 0.9], "confidences": [0.1, 0.95]}
SURE: Body = {"model": "smollm2", "messages": [{"role": "user", "content": "word"}]}
UNSURE: Body = {"model": "smollm2", "messages": [{"role": "user", "content": "echo:unsure"}]}
CASCADE = {"x-min-tier": "int4", "x-cascade": "true"}


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    file = tmp_path / "calibration.json"
    file.write_bytes(msgspec.json.encode({"format": 1, "statistic": "mean", "models": {"smollm2": {"int4": CURVE}}}))
    return str(file)


@contextlib.asynccontextmanager
async def running(**tiers: Settings) -> AsyncIterator[None]:
    pumps = [Pump(settings, "smollm2", tier, EchoEngine(settings.echo, tier)) for tier, settings in tiers.items()]
    tasks = [asyncio.create_task(pump.run()) for pump in pumps]
    await until(lambda: all(pump.leases.is_ready for pump in pumps))
    for pump in pumps:  # Redis knows of each, too: a tier without a worker would be another's
        await pump._renew()
    try:
        yield
    finally:
        for pump in pumps:
            pump.drain()
            pump.drain()
        await asyncio.gather(*tasks)


async def outcome_of(producer: Producer, body: Body, **headers: str) -> Outcome:
    job_id = producer.submit(body, headers=CASCADE | {name.replace("_", "-"): text for name, text in headers.items()})
    return await asyncio.to_thread(producer.wait, job_id, timeout_s=20)


def logprobs_in(outcome: Outcome) -> object:
    return msgspec.json.decode(outcome.answer or b"null")["choices"][0]["logprobs"]


async def test_an_answer_that_its_tier_was_not_sure_of_is_a_higher_tier_s(
    redis_url: str, store: redis.Redis, calibration: str
) -> None:
    settings = make_settings(redis_url, cascade__calibration=calibration, queue__secrets=["s" * 16])
    with Producer(settings) as producer:
        async with running(int4=settings, int8=settings):
            sure, escalated = await outcome_of(producer, SURE), await outcome_of(producer, UNSURE)
            bound = await outcome_of(producer, UNSURE, x_max_tier="int4")
            shown = await outcome_of(producer, SURE | {"logprobs": True, "top_logprobs": 3})
            plain = await outcome_of(producer, UNSURE, x_cascade="false")

    seen = [(outcome.tier, outcome.attempts, outcome.confidence) for outcome in (sure, escalated, bound, shown, plain)]
    assert seen == [
        ("int4", 1, 0.95),
        ("int8", 2, None),  # judged by no curve
        ("int4", 1, None),  # its ceiling leaves nothing to judge
        ("int4", 1, 0.95),
        ("int4", 1, None),
    ]
    assert {outcome.state for outcome in (sure, escalated, bound, shown, plain)} == {"finished"}
    assert [logprobs_in(outcome) is None for outcome in (sure, escalated, shown)] == [True, True, False]


@pytest.mark.parametrize(
    ("higher", "headers"),
    [
        ({"echo__fault_ratio": 1, "worker__fault_ratio": 1}, {}),
        ({"echo__ttft_ms": 60_000}, {"x_deadline_ms": "2000"}),
    ],
    ids=["its engine breaks", "it is too slow"],
)
async def test_the_first_answer_is_kept_where_the_higher_tier_brings_none(
    redis_url: str, store: redis.Redis, calibration: str, higher: dict[str, float], headers: dict[str, str]
) -> None:
    flags = {"cascade__calibration": calibration, "queue__secrets": ["s" * 16]}
    lower, upper = make_settings(redis_url, **flags), make_settings(redis_url, **flags, **higher)
    with Producer(lower) as producer:
        async with running(int4=lower, int8=upper):
            outcome = await outcome_of(producer, UNSURE, **headers)

    assert (outcome.state, outcome.status, outcome.tier, outcome.attempts) == ("finished", 200, "int4", 1)
    assert outcome.confidence == 0.1
    assert b"echo:unsure" in (outcome.answer or b"")
    assert logprobs_in(outcome) is None


def test_a_cascade_that_cannot_be_is_refused_by_name(redis_url: str, calibration: str) -> None:
    with Producer(make_settings(redis_url)) as without, pytest.raises(RequestError, match="no calibration"):
        without.submit(SURE, headers=CASCADE)
    with Producer(make_settings(redis_url, cascade__calibration=calibration)) as producer:
        with pytest.raises(RequestError, match="streamed"):
            producer.submit(SURE | {"stream": True}, headers=CASCADE)
        with pytest.raises(RequestError, match="X-Cascade must be true or false, got 'yes'"):
            producer.submit(SURE, headers={"x-cascade": "yes"})


async def test_a_worker_does_not_start_with_a_calibration_that_is_none(redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(redis_url, cascade__calibration=str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="cannot read"):
        Pump(settings, "smollm2", "int4", EchoEngine(settings.echo))
