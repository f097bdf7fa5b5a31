"""The report of an evaluation as a file, and the digest of what was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bitladder.settings.checkpoint_digest import checkpoint_digest
from calibration.artifacts.evaluation_report import Estimate, Report, TierReport, encode_report, read_report
from calibration.artifacts.metrics import recovery
from calibration.errors import BadReportError

DIGEST = "0" * 64


def figure(value: float) -> Estimate:
    return Estimate(value=value, low=value * 0.9, high=value * 1.1, n=100)


def report() -> Report:
    reference = TierReport(
        tier="bf16", checkpoint="/models/bf16", digest=DIGEST, metrics={"perplexity.code": figure(5.0)}
    )
    int4 = TierReport(
        tier="int4",
        checkpoint="/models/int4",
        digest=DIGEST,
        metrics={"perplexity.code": figure(5.5), "kl_mean.code": figure(0.1), "top1": figure(0.9)},
        recovery={"perplexity.code": figure(0.91)},
    )
    return Report(
        model="smollm2",
        reference="bf16",
        tiers=(reference, int4),
        sources={"heldout": DIGEST},
        versions={"vllm": "0.32"},
        machine={"cpu": "any"},
        made_at="2026-11-24T12:00:00+00:00",
        seconds=1.0,
    )


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"

    path.write_bytes(encode_report(report()))

    assert read_report(path) == report()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failed": {"int4": "no memory"}}, "tiers must differ, got bf16, int4, int4"),
        ({"reference": "fp32"}, "reference must be one of bf16, int4, got 'fp32'"),
        ({"schema": 2}, "schema must be 1, got 2"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_a_wrong_report_is_refused_with_what_is_wrong(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(json.loads(encode_report(report())) | change))

    with pytest.raises(BadReportError, match=said):
        read_report(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpoint": "models/int4"}, "checkpoint must be an absolute path"),
        ({"digest": "abc"}, "digest must be 64 hexadecimal digits"),
        ({"metrics": {"perplexty": {"value": 1, "low": 1, "high": 1, "n": 1}}}, "metric must be one of perplexity"),
        ({"metrics": {"top1": {"value": 2, "low": 0, "high": 1, "n": 1}}}, "value must lie between low and high"),
        ({"metrics": {"top1": {"value": 1, "low": 1, "high": 1, "n": 0}}}, "n must be 1 or more"),
    ],
)
def test_a_wrong_tier_is_refused_with_what_is_wrong(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    fields = json.loads(encode_report(report()))
    fields["tiers"][1] |= change
    path.write_text(json.dumps(fields))

    with pytest.raises(BadReportError, match=said):
        read_report(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadReportError, match=r"none\.json.*No such file"):
        read_report(tmp_path / "none.json")


def test_recovery_is_one_where_nothing_is_lost_and_below_where_something_is() -> None:
    assert recovery("perplexity.code", 5.5, 5.0) == pytest.approx(0.909, abs=0.001)
    assert recovery("pass_at_1", 0.09, 0.10) == pytest.approx(0.9)
    assert recovery("top1", 0.93, 1.0) == 0.93
    assert recovery("kl_mean.code", 0.1, 0.0) is None
    assert recovery("pass_at_1", 0.0, 0.0) is None


def test_the_digest_of_a_checkpoint_changes_with_a_byte_or_a_name_but_not_with_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_bytes(b"{}")
    before = checkpoint_digest(tmp_path)

    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / ".lock").touch()
    with_manifest = checkpoint_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    with_other_weights = checkpoint_digest(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    renamed = checkpoint_digest(tmp_path)

    assert before == with_manifest
    assert len({before, with_other_weights, renamed}) == 3


def test_a_name_that_is_no_utf_8_is_part_of_the_digest_too(tmp_path: Path) -> None:
    without = checkpoint_digest(tmp_path)
    (tmp_path / os.fsdecode(b"bad \xff")).touch()

    assert checkpoint_digest(tmp_path) != without


@pytest.mark.parametrize(
    "content", [b"", b'{"model": "\xff"}', b'{"x\xff": 1}', "{}".encode("utf-16"), b"[" * 200_000, b'{"seconds": NaN}']
)
def test_bytes_that_are_no_report_are_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)

    with pytest.raises(BadReportError, match=r"report\.json. is not one of `bitladder calibrate evaluate`"):
        read_report(tmp_path / "report.json")
