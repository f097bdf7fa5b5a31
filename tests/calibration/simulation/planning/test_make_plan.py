"""Plans of small markets: by hand, and where there is none why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.simulation.arrivals import Arrivals, Lengths
from calibration.simulation.outcome import Targets
from calibration.simulation.planning.frontiers import named_workers, tier_shares
from calibration.simulation.planning.make_plan import alternatives, make_plan, market_of, saving
from tests.calibration.simulation.fleets import LLAMA_70B
from tests.calibration.simulation.planning.questions import DEVICES, question_of, requests_of


def test_a_plan_by_hand() -> None:
    # At 32 slots a small worker holds a request 0.1 + 99 x 0.1 = 10 s: 3.2 requests a second for 0.70. A large one at
    # 128 slots 0.1 + 99 x 0.03 = 3.07 s: 41.7 requests a second for 3.20. 9 requests a second need three small ones.
    requests = requests_of()
    market = market_of(question_of(requests))
    by_load = {
        rate: make_plan(replace(market, program=market.program.scaled(rate / market.question.demand.per_s)))
        for rate in (9.0, 13.0, 45.0)
    }

    assert named_workers(market, by_load[9.0]) == {"int4-small-32": 3}
    assert named_workers(market, by_load[13.0]) == {"fp8-large-128": 1}  # five small ones cost 3.50
    assert named_workers(market, by_load[45.0]) == {"int4-small-32": 2, "fp8-large-128": 1}


def test_the_promise_sends_the_rest_up_in_every_size() -> None:
    mixed = requests_of(lengths=Lengths(kind="exponential", input_tokens=300, output_tokens=100))
    market = market_of(question_of(mixed, shares={"int4": 0.25, "fp8": 0.75}, attainment=0.9))
    # So dear, and at such a load, that as little as may be goes to the large one.
    program = market.program.priced(np.where(market.program.ranks == 1, 1000.0, 0.001)).scaled(1000)

    fleet = make_plan(replace(market, program=program))

    assert tier_shares(market, fleet)["int4"] == pytest.approx(0.25, abs=1e-3)
    assert fleet.shares[:, market.program.ranks == 0].sum(axis=1).max() == pytest.approx(0.25, abs=1e-3)


def test_the_saving_is_divided_into_cheaper_work_and_smaller_units() -> None:
    market = market_of(question_of(requests_of()))
    market = replace(market, program=market.program.scaled(45 / market.question.demand.per_s))
    fleet = make_plan(market)

    saved = saving(market, fleet, alternatives(market))

    assert saved is not None
    assert saved["against"] == "only large"
    assert saved["saved_per_hour"] == pytest.approx(2 * 3.2 - (3.2 + 2 * 0.7))
    assert saved["by_cheaper_work"] == pytest.approx(0, abs=1e-6)  # the large one is cheaper per request
    assert saved["by_smaller_units"] == pytest.approx(saved["share"])


def test_what_no_device_serves_in_time_may_miss_where_it_is_rare_and_is_named() -> None:
    requests = requests_of(count=1000)
    outputs = requests.output_tokens.copy()
    outputs[:5] = 5000  # five in a thousand
    long = Arrivals(at_s=requests.at_s, input_tokens=requests.input_tokens, output_tokens=outputs)
    targets = Targets(total_s=10.0)

    market = market_of(question_of(long, targets=targets))

    assert [bucket.longest_output for bucket in market.late] == [5000]
    assert make_plan(market).price_per_hour > 0
    with pytest.raises(InputError, match=r"total time: best 40\.09 s \(fp8-large\), target 10 s: missed"):
        market_of(question_of(long, targets=targets, attainment=0.999))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"targets": Targets(ttft_s=0.05)}, r"time to the first token: best 0\.1 s .*target 0\.05 s: missed"),
        (
            {"targets": Targets(per_token_s=0.001)},
            r"time per token: best 0\.008 s \(fp8-large\), target 0\.001 s: missed",
        ),
        ({"shape": LLAMA_70B}, r"fp8-large: weights 70\.6 billion x 8\.2 bits / 8 = 72\.4 GB, .* 0\.5 GB too few"),
        ({"devices": {"small": DEVICES["small"]}, "shares": {"int4": 0.5, "fp8": 0.5}}, "no device offers fp8"),
        ({"shares": {"int3": 1.0}}, "--shares: tier must be one of int4, fp8, got 'int3'"),
    ],
)
def test_what_nobody_can_serve_is_refused_with_the_arithmetic(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        market_of(question_of(requests_of(), **asked))


def test_too_small_a_stock_is_said_with_what_would_be_needed() -> None:
    market = market_of(question_of(requests_of("poisson:rate=100"), counts={"small": 2, "large": 1}))

    with pytest.raises(InputError, match=r"stock is too small.* 3 large \(there are 1\): 3 x fp8-large-128"):
        make_plan(market)


def test_memory_limits_how_many_requests_a_worker_has_at_once() -> None:
    # The large one at fp8 keeps 72 - 8.2 = 63.8 GB for KV: 486,000 tokens, 60 requests of 8,000.
    lengths = Lengths(kind="constant", input_tokens=7900, output_tokens=100)
    question = question_of(requests_of(lengths=lengths), {"large": DEVICES["large"]})

    market = market_of(question)
    kind = market.kinds[0]

    assert kind.slots == int((80 * 0.9 - 8.03 * 8.2 / 8) * 1e9 / 131_072 / 8000)
    fleet = make_plan(market)
    seconds = float(kind.seconds[0])
    assert fleet.workers[0] == np.ceil(question.demand.per_s * seconds / kind.slots)


def test_what_one_device_or_tier_alone_cannot_do_is_said_with_its_reason() -> None:
    requests = requests_of("poisson:rate=100")
    market = market_of(question_of(requests, counts={"small": 2}, shares={"int4": 0.5, "fp8": 0.5}))
    stocked = market_of(question_of(requests, counts={"small": 2}))

    reasons, of_stocked = alternatives(market), alternatives(stocked)

    assert reasons["only int4"] == reasons["only small"] == "the quality promise needs higher tiers too"
    assert of_stocked["only small"] == "there are too few of it"
    assert not isinstance(of_stocked["only large"], str)
