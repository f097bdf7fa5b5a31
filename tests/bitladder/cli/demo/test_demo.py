"""bitladder/cli/demo/demo_tables.py and demo_remarks.py: what the demo says of what it saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from bitladder.cli.demo.demo import WIDTH
from bitladder.cli.demo.demo_remarks import (
    burst_remark,
    checkpoint_remark,
    sharing_remark,
    speed_remark,
    waiting_remark,
)
from bitladder.cli.demo.demo_requests import Served, ServedBatch
from bitladder.cli.demo.demo_tables import burst_table, request_table, speed_table, tier_table
from bitladder.settings.load import load_settings
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.sections import Settings
from tests.conftest import ROOT

LONGEST_REASON = "entropy 4.20 <= 4.5, raised to a minimum"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(str(ROOT / "bitladder.toml"), flags={"vllm.cache_dir": str(tmp_path)}).settings


@pytest.fixture
def model(settings: Settings) -> ModelSettings:
    return settings.models["smollm2"]


def served(tier: str = "int4", *, total_s: float = 1.0, tokens: int = 32, **job: Any) -> Served:  # noqa: ANN401
    """Return an answered request."""
    fields = {"status": "finished", "text": "Because of [Rayleigh] scattering. " * 9, "tier": tier, "floor": "int4"}
    usage = {"completion_tokens": tokens}
    story = fields | {"usage": usage, "reason": LONGEST_REASON, "queue_ms": 12345.6, "cost": 0.001234} | job
    return Served(prompt="[x for x in xs] " * 9, is_plain=True, job=story, ttft_s=12.3456, total_s=total_s)


def batch(*requests: Served, wall_s: float = 1.0) -> ServedBatch:
    return ServedBatch(served=requests, wall_s=wall_s)


def shown(table: Table) -> list[str]:
    console = Console(width=WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def test_no_table_is_wider_than_a_hundred_columns_and_none_cuts_or_folds_a_reason(model: ModelSettings) -> None:
    many = batch(*(served(tier, total_s=99.9) for tier in model.ladder * 50), wall_s=99.9)
    tables = [
        request_table([served(overflowed_from="int4", total_s=99.9)]),
        tier_table(many, model),
        burst_table(many, many, model),
        speed_table([batch(served(tier)) for tier in model.ladder], model),
    ]

    lines = [line for table in tables for line in shown(table)]

    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    assert sum(LONGEST_REASON in line for line in lines) == 1
    assert any("[x for x in" in line for line in lines)


def test_an_escalation_says_what_it_brought_and_what_it_cost(model: ModelSettings) -> None:
    escalating = batch(served(), served("fp8", overflowed_from="int4", cost=0.004), wall_s=2.0)
    kept = batch(served(), served(), wall_s=5.0)

    said = burst_remark(escalating, kept, "smollm2", model)

    assert "higher tiers took 1, until 16 waited" in said
    assert "after 2.0 s instead of 5.0 s, for 2.1 times the cost" in said
    assert "models.smollm2.tiers.int4.high" in said


def test_a_burst_that_did_not_escalate_is_not_said_to_have(model: ModelSettings) -> None:
    said = burst_remark(batch(served()), batch(served()), "smollm2", model)

    assert "Nothing escalated" in said
    assert "never more than 64 waited for int4" in said
    assert "instead of" not in said


@pytest.mark.parametrize(("device", "what"), [("there", "GPU"), ("missing", "cores")])
def test_tiers_that_share_a_machine_are_said_to(model: ModelSettings, tmp_path: Path, device: str, what: str) -> None:
    (tmp_path / "there").touch()

    assert f"{what} of this machine" in sharing_remark(model, tmp_path / device)


def test_a_lower_tier_that_is_slower_here_is_named_with_what_decides_elsewhere(model: ModelSettings) -> None:
    int4, int8, fp8 = (batch(served(tier, total_s=s)) for tier, s in (("int4", 1.0), ("int8", 0.5), ("fp8", 0.98)))

    said = speed_remark([int4, int8, fp8], model)

    assert said.startswith("int4 is slower than int8 on this machine (32.0 tokens/s against 64.0).")
    assert "L4, A10G, H100" in said
    assert "memory bandwidth decides" in said


def test_a_ladder_whose_speeds_are_as_they_should_be_is_not_remarked_on(model: ModelSettings) -> None:
    assert speed_remark([batch(served(tier)) for tier in model.ladder], model) == ""


def test_waiting_below_the_high_mark_is_explained(model: ModelSettings) -> None:
    said = waiting_remark(batch(served(queue_ms=5700.0), served(queue_ms=10.0)), "smollm2", model)

    assert said.startswith("1 requests waited for their tier, up to 5.7 s, and none escalated")
    assert "int4.high = 64" in said
    assert waiting_remark(batch(served(queue_ms=10.0)), "smollm2", model) == ""
    assert waiting_remark(batch(served(queue_ms=5700.0, overflowed_from="int4")), "smollm2", model) == ""


def test_quick_checkpoints_are_named_and_good_ones_are_not(settings: Settings, tmp_path: Path) -> None:
    model = settings.models["smollm2"]
    for tier, is_quick in (("int4", True), ("int8", False)):  # there is none of fp8
        folder = tmp_path / "smollm2" / tier
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"recipe_hash": "0", "quick": is_quick}))

    said = checkpoint_remark(model, settings.vllm)

    assert said.startswith("int4: quick checkpoints")
    assert "`make checkpoints`" in said
    (tmp_path / "smollm2" / "int4" / "manifest.json").unlink()
    assert checkpoint_remark(model, settings.vllm) == ""
