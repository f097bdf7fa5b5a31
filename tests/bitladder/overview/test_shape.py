"""The shape that /v1/overview, `bitladder top` and the page share, and what its notes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitladder.overview.overview_notes import notes_of
from bitladder.overview.shape import Overview, Severity
from bitladder.queue.calls.read import Depth, Depths

SAMPLE = json.loads((Path(__file__).parent / "overview_sample.json").read_text(encoding="utf-8"))
NOTHING_WRONG = Depths(now_ms=0, live={}, queues=[])


def notes(
    change: dict[str, Any], tier: dict[str, Any] | None = None, place: int = 0, refused_change: str = ""
) -> list[Any]:
    """Return severity and text of the notes of the sample, changed so, and with nothing else wrong."""
    sample = json.loads(json.dumps(SAMPLE))
    sample["dead_letters"]["added"] = 0
    sample["costs_today"]["budgets_used_up"] = []
    for entry in sample["models"][0]["tiers"]:
        entry |= {"workers": 1, "workers_not_ready": 0, "breaker": "closed"}
    for name, fields in change.items():
        sample[name] = sample[name] | fields if isinstance(fields, dict) else fields
    sample["models"][0]["tiers"][place] |= tier or {}
    overview = msgspec.convert(sample, Overview)
    depths = {"smollm2": NOTHING_WRONG}
    found = notes_of(overview, depths, refused_change=refused_change, max_memory_share=0.85, max_depth=10_000)
    return [(note.severity, note.text) for note in found]


def test_the_sample_that_the_page_is_built_against_is_an_overview() -> None:
    overview = msgspec.convert(SAMPLE, Overview, strict=True)

    assert json.loads(msgspec.json.encode(overview)) == SAMPLE


def test_nothing_is_noted_where_nothing_is_wrong() -> None:
    assert notes({}) == []


PAUSE = {"scope": "all", "by": "ops", "reason": "odd", "since": 1.0, "until": None}
OLD = {"depth": 1, "in_flight": 0, "oldest_age_s": 61.0, "expected_wait_s": None}


@pytest.mark.parametrize(
    ("change", "tier", "severity", "text"),
    [
        ({"pauses": [PAUSE], "suspended": True}, {}, "critical", "paused by ops: everything: no job begins (odd)"),
        ({"pauses": [PAUSE | {"scope": "tenant:acme"}]}, {}, "warning", "paused by ops: tenant:acme (odd)"),
        ({"suspended": True}, {}, "critical", "suspended: no job begins until `rq resume`"),
        (
            {"redis": {"memory_share": 0.82}},
            {},
            "warning",
            "Redis uses 82% of its memory; above 85% new jobs are refused",
        ),
        ({"redis": {"memory_share": 0.86}}, {}, "critical", "Redis uses 86% of its memory; new jobs are refused"),
        (
            {"dead_letters": {"added": 1}},
            {},
            "warning",
            "1 dead letter more in the last 10 minutes (latest: engine_fault, worker_lost)",
        ),
        (
            {"costs_today": {"budgets_used_up": ["acme"]}},
            {},
            "warning",
            "the key acme has used up its budget of the day; its requests are refused until midnight UTC",
        ),
        (
            {},
            {"workers": 0},
            "warning",
            "smollm2 int4: no live worker; int8 serves its jobs, except those with a lower max_tier",
        ),
        (
            {},
            {"shifted": True},
            "warning",
            "smollm2 int4: too many of its jobs break; int8 serves those that may go up",
        ),
        ({}, {"breaker": "open"}, "warning", "smollm2 int4: the breaker of a worker is open: its engine fails"),
        (
            {},
            {"workers_not_ready": 2},
            "warning",
            "smollm2 int4: 2 workers claim nothing: starting, draining or broken",
        ),
        ({}, {"leases_lost": 3}, "warning", "smollm2 int4: leases of 3 jobs were lost in the last 10 minutes"),
        (
            {},
            {"by_lane": dict.fromkeys(("urgent", "batch"), OLD | {"oldest_age_s": None}) | {"normal": OLD}},
            "critical",
            "smollm2 int4: the oldest job of the lane normal waits since 61 s",
        ),
    ],
)
def test_what_is_wrong_is_noted_in_words(
    change: dict[str, Any], tier: dict[str, Any], severity: str, text: str
) -> None:
    assert notes(change, tier) == [(severity, text)]


def test_jobs_of_the_batch_lane_may_wait_for_long() -> None:
    assert notes({}, {"by_lane": SAMPLE["models"][0]["tiers"][0]["by_lane"]}) == []


def test_a_refused_change_of_the_settings_is_noted() -> None:
    (note,) = notes({}, refused_change="ladder.toml: version must be at least 1")

    assert note == (
        Severity.WARNING,
        "a change of the settings cannot be taken, what was before stays: ladder.toml: version must be at least 1",
    )


def test_a_top_tier_without_worker_is_worse_than_all_that_others_make_up_for() -> None:
    found = notes({"dead_letters": {"added": 1}}, {"workers": 0}, place=2)

    assert [severity for severity, _ in found] == ["critical", "warning"]
    assert found[0][1] == "smollm2 fp8: no live worker; jobs that need it will wait"


def test_a_queue_that_is_no_list_is_noted_with_its_name() -> None:
    broken = Depth(queue="smollm2:int4:normal", depth=0, in_flight=0, oldest_age_s=None, problem="WRONGTYPE")
    sample = msgspec.convert(SAMPLE, Overview)
    depths = {"smollm2": Depths(now_ms=0, live={}, queues=[broken])}

    texts = [note.text for note in notes_of(sample, depths, refused_change="", max_memory_share=1, max_depth=10)]

    assert "smollm2:int4:normal: takes and gives no jobs, WRONGTYPE" in texts


def test_a_queue_that_takes_no_more_jobs_is_named() -> None:
    queues = [
        Depth(queue=f"smollm2:int4:{lane}", depth=depth, in_flight=0, oldest_age_s=None)
        for lane, depth in (("normal", 100), ("batch", 99))
    ]
    depths = {"smollm2": Depths(now_ms=0, live={}, queues=queues)}
    sample = msgspec.convert(SAMPLE, Overview)

    notes = notes_of(sample, depths, refused_change="", max_memory_share=1, max_depth=100)

    (full,) = [note for note in notes if "new ones are refused" in note.text]
    assert full.text == "smollm2:int4:normal: full, 100 jobs wait; new ones are refused"
    assert (full.severity, full.runbook) == (Severity.CRITICAL, "requests-refused")


def test_dead_letters_whose_errors_are_not_read_yet_are_counted() -> None:
    added = notes({"dead_letters": {"total": 1, "added": 1, "by_error": {}}})

    assert (Severity.WARNING, "1 dead letter more in the last 10 minutes") in added
