"""From requests at a real intake to a sampled set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.errors import SourceError
from calibration.sample.captured import Capture
from calibration.sample.sets import load
from tests.calibration.sample.conftest import RunSample, prompts, skipped
from tests.conftest import Stack, wait_until


def test_what_the_intake_captured_is_sampled_with_the_tier_that_served_it(
    make_stack: Callable[..., Stack], tmp_path: Path, out: Path, run_sample: RunSample
) -> None:
    stack = make_stack(BITLADDER_CAPTURE__SHARE="1", BITLADDER_CAPTURE__FOLDER=str(tmp_path / "kept"))
    stack.intake()
    stack.worker("int8")  # int4 has no worker: the next tier up serves its jobs
    texts = [text.rpartition(" ")[0] for text in prompts(10)]  # without their numbers, which would go
    for number, text in enumerate(texts):
        body = {"model": "smollm2", "prompt": f"{text} ask me@example.org", "max_tokens": 2, "stream": number % 2 == 0}
        body["metadata"] = {"route": "tickets" if number < 7 else "letters"}
        answer = stack.http.post("/v1/completions", json=body, headers={"X-Max-Tier": "int8"})
        assert answer.status_code == 200, answer.text
    captured = 'bitladder_prompts_captured_total{what="written"} 10.0'
    wait_until(lambda: captured in stack.http.get("/metrics").text, "all prompts are written")
    stack.stop()

    made = run_sample(Capture(tmp_path / "kept", "metadata.route"), min_prompts=5, group="metadata.route")

    found = load(out).calibration + load(out).heldout
    assert {text.text for text in found} == {f"{text} ask name@example.com" for text in texts}
    assert {text.tier for text in found} == {"int8"}
    assert made.manifest["strata"]["group"] == {"letters": 3, "tickets": 7}


def test_the_served_tier_is_found_in_the_same_writers_next_file(
    tmp_path: Path, out: Path, run_sample: RunSample
) -> None:
    asked = [
        {"id": str(number), "prompt": text, "tier": "int4", "priority": 9} for number, text in enumerate(prompts(40))
    ]
    answered = [{"id": line["id"], "served": "fp8"} for line in asked]
    for name, lines in (("1-a", asked), ("2-b", [{"id": "x", "prompt": "Why?"}]), ("3-a", answered)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (tmp_path / "3-a.jsonl").open("a") as file:
        file.write('{"prompt": "nobody\'s"}\n{"id": "torn')

    made = run_sample(Capture(tmp_path))

    assert made.manifest["strata"]["tier"] == {"fp8": 40, "": 1}
    assert list(skipped(out).values()) == ["not a line of a capture", "cut off"]


def test_captured_prompts_are_grouped_by_tenant_and_those_of_before_are_a_group_too(
    tmp_path: Path, run_sample: RunSample
) -> None:
    lines = [{"id": str(number), "prompt": text, "tenant": "shop"} for number, text in enumerate(prompts(40))]
    del lines[0]["tenant"], lines[1]["tenant"]
    (tmp_path / "1-a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    made = run_sample(Capture(tmp_path, "tenant"), group="tenant")

    assert made.manifest["strata"]["group"] == {"shop": 38, "": 2}


def test_the_lowest_tier_allowed_is_not_taken_for_the_one_that_served(tmp_path: Path, run_sample: RunSample) -> None:
    """Nobody knows who serves a request that is not awaited."""
    lines = [{"id": str(number), "prompt": text, "tier": "int4"} for number, text in enumerate(prompts(40))]
    (tmp_path / "1-a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    made = run_sample(Capture(tmp_path))

    assert made.manifest["strata"]["tier"] == {"": 40}


def test_nothing_captured_yet_says_how_to_begin(tmp_path: Path, run_sample: RunSample) -> None:
    with pytest.raises(SourceError, match=r"set capture\.share, and wait for requests"):
        run_sample(Capture(tmp_path))
