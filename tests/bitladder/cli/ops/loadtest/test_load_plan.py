"""Which requests bitladder loadtest sends, and when."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from bitladder.cli.ops.loadtest.load_plan import Arrivals, LoadRequest, Traffic, plan
from bitladder.cli.ops.loadtest.mixes import Burst, read_burst, read_mix, read_span
from bitladder.cli.ops.loadtest.prompts import BANDS, KINDS, band_of, entropy_of_text, make_prompt
from bitladder.errors import ConfigError
from bitladder.workload.traces import read_trace


def planned(**options: Any) -> list[LoadRequest]:  # noqa: ANN401  (fields of Traffic)
    usual = {
        "kinds": read_mix("--kinds", "prose,random"),
        "modes": read_mix("--modes", "chat"),
        "max_requests": 100_000,
    }
    return list(plan(Traffic(**{**usual, **options})))


def dues(requests: list[LoadRequest]) -> list[float]:
    return [request.due_s for request in requests if request.due_s is not None]


def test_the_same_seed_makes_the_same_plan_and_another_does_not() -> None:
    once, again, other = (planned(rate=10, duration_s=5, seed=seed) for seed in (1, 1, 2))

    assert once == again
    assert once != other
    assert len({request.prompt for request in once}) == len(once)


def test_poisson_arrivals_have_their_rate_and_vary_and_constant_ones_do_not() -> None:
    by_chance, even = (dues(planned(rate=50, duration_s=40, arrivals=way)) for way in Arrivals)

    assert 0.9 < len(by_chance) / 2000 < 1.1
    gaps = [later - sooner for sooner, later in pairwise(by_chance)]
    assert fmean(gap * gap for gap in gaps) / fmean(gaps) ** 2 > 1.6  # 2: exponential; 1: constant
    assert len(even) == 2000
    assert even[10] == pytest.approx(0.2)


def test_a_burst_is_silent_while_it_is_off() -> None:
    moments = dues(planned(rate=100, duration_s=30, burst=Burst(2, 8)))

    assert all(moment % 10 < 2 for moment in moments)
    assert Counter(int(moment // 10) for moment in moments).keys() == {0, 1, 2}


def test_a_closed_loop_has_no_times_and_the_bound_of_requests_holds() -> None:
    requests = planned(max_requests=7)

    assert [request.due_s for request in requests] == [None] * 7
    assert len(planned(rate=1000, duration_s=60, max_requests=12)) == 12


def test_mixes_have_their_weights_and_none_leaves_a_header_out() -> None:
    headers = {"X-Priority": read_mix("--priority", "none=3,9=1")}
    requests = planned(kinds=read_mix("--kinds", "json=9,numbers=1"), headers=headers, max_requests=2000)

    assert 0.87 < Counter(request.kind for request in requests)["json"] / 2000 < 0.93
    assert {tuple(request.headers.items()) for request in requests} == {(), (("X-Priority", "9"),)}
    assert 0.7 < sum(not request.headers for request in requests) / 2000 < 0.8


def test_kinds_of_prompts_reach_every_band_of_entropy_and_about_their_length() -> None:
    dice = random.Random(1)  # noqa: S311  (traffic)
    prompts = {kind: make_prompt(kind, 200, 5, dice) for kind in KINDS}

    assert {band_of(entropy_of_text(prompt)) for prompt in prompts.values()} == set(BANDS)
    assert {len(prompt) for prompt in prompts.values()} == {800}


AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05.9799600,30,8\n"
)
QUOTED = "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in AZURE.splitlines())
MOONCAKE = (
    '{"timestamp": 500, "input_length": 2000, "output_length": 50, "hash_ids": [1, 2, 3, 4]}\n'
    '{"timestamp": 2500, "input_length": 2000, "output_length": 5, "hash_ids": [1, 2, 9, 8]}\n'
)


@pytest.mark.parametrize("text", [AZURE, QUOTED, AZURE.replace("\n", "\r\n"), "\ufeff" + AZURE, MOONCAKE])
@pytest.mark.parametrize("is_packed", [False, True])
def test_traces_of_both_forms_are_read_and_run_faster(tmp_path: Path, text: str, is_packed: bool) -> None:
    file = tmp_path / "trace"
    content = text.encode()
    file.write_bytes(gzip.compress(content) if is_packed else content)

    arrivals = list(read_trace(file, speed=4, limit=100))
    requests = planned(trace=arrivals, max_input_tokens=2000)

    assert dues(requests) == [0.0, 0.5]
    assert [request.max_tokens for request in requests] == [arrival.output_tokens for arrival in arrivals]
    assert max(len(request.prompt) for request in requests) == 8000
    assert len(list(read_trace(file, limit=1))) == 1


def test_prompts_of_a_trace_share_the_beginnings_that_its_blocks_say(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(MOONCAKE, encoding="utf-8")

    first, second = (
        r.prompt
        for r in planned(
            trace=list(read_trace(tmp_path / "trace")), kinds=read_mix("k", "random"), max_input_tokens=2000
        )
    )

    assert first[:4096] == second[:4096]
    assert first[4096:5000] != second[4096:5000]


def test_what_a_recording_says_was_asked_for_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(
        '{"at_s": 0, "input_tokens": 9, "output_tokens": 5, "lane": "batch", "floor": "int8", "deadline_s": 2.5}\n'
        '{"at_s": 1, "input_tokens": 9, "output_tokens": 5, "ceiling": "int8", "below_floor": true}\n'
    )

    first, second = (request.headers for request in planned(trace=list(read_trace(tmp_path / "trace"))))

    assert first == {"X-Priority": "1", "X-Min-Tier": "int8", "X-Deadline-Ms": "2500"}
    assert second == {"X-Max-Tier": "int8", "X-Allow-Below-Floor": "true"}


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_mix, "a=x"),
        (read_mix, "a=-1"),
        (read_mix, "a=0"),
        (read_mix, ""),
        (read_mix, "a=nan"),
        (read_mix, "a=inf"),
        (read_span, "5 days"),
        (read_span, ""),
        (read_span, "-1s"),
    ],
)
def test_what_is_no_mix_and_no_span_is_refused(read: Any, text: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match="--it"):
        read("--it", text)


def test_spans_and_bursts_are_read() -> None:
    assert [read_span("x", text) for text in ("500ms", "20s", "5m", "1h", "7")] == [0.5, 20, 300, 3600, 7]
    assert read_burst("10s/500ms") == Burst(10, 0.5)
    for text in ("10s", "0s/5s", "a/b"):
        with pytest.raises(ConfigError):
            read_burst(text)
