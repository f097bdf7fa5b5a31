"""The article's audit of 1,000 prompts, as a command: figures, plots and a page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calibration.audit.take import from_source
from calibration.sample.source import LocalFiles
from tests.calibration.audit.corpus import write
from tests.conftest import ROOT

Report = tuple[Path, dict[str, Any]]


def run(*options: str, entropy_bits: str = "4.5") -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),  # matplotlib keeps its list of fonts there
        "PYTHONPATH": str(ROOT),
        "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
        "BITLADDER_POLICY__ENTROPY_BITS": entropy_bits,
    }
    command = [sys.executable, "-m", "calibration", "audit", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("corpus") / "thousand.jsonl")


@pytest.fixture(scope="module")
def report(thousand: Path) -> Report:
    folder = thousand.parent / "report"
    done = run("--source", str(thousand), "--out", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_shares_of_the_floors_are_the_policys(report: Report) -> None:
    _, figures = report

    shares = figures["floors_by_kind"]["all"]
    assert figures["prompts"] == 1000
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["int8"] == pytest.approx(figures["above_entropy_bits"])
    assert shares["fp8"] == 0  # nobody's priority or patience is known
    for kind, its in figures["floors_by_kind"].items():
        assert sum(its.values()) == pytest.approx(1), kind
    weighted = sum(count * figures["floors_by_kind"][kind]["int4"] for kind, count in figures["kinds"].items())
    assert weighted / 1000 == pytest.approx(shares["int4"])


def test_the_thousand_prompts_are_spread_as_the_docs_say(report: Report) -> None:
    """docs/calibration.md shows these figures; Python's own texts differ a little from version to version."""
    _, figures = report

    assert 0.73 < figures["floors_by_kind"]["all"]["int4"] < 0.82
    assert 4.3 < figures["features_by_kind"]["entropy"]["all"]["p50"] < 4.42
    assert set(figures["kinds"]) == {"prose", "code", "json", "chat", "log", "markup"}
    assert abs(figures["correlation_with_entropy"]["zlib_ratio"]) < 0.25


def test_the_threshold_of_the_configuration_counts(thousand: Path, tmp_path: Path) -> None:
    done = run("--source", str(thousand), "--out", str(tmp_path / "audit"), "--json", entropy_bits="4.2")

    figures = json.loads(done.stdout)
    assert figures["policy"]["entropy_bits"] == 4.2
    assert 0.65 < figures["floors_by_kind"]["all"]["int8"] < 0.9


def test_a_fixed_policy_sends_all_to_its_tier(thousand: Path, tmp_path: Path) -> None:
    done = run("--source", str(thousand), "--out", str(tmp_path / "audit"), "--policy", "fixed:fp8", "--json")

    assert json.loads(done.stdout)["floors_by_kind"]["all"] == {"int4": 0, "int8": 0, "fp8": 1}


def test_prompts_with_an_envelope_are_routed_by_it(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    envelopes = [{}, {"priority": 8}, {"max_latency_ms": 900}, {"priority": 7, "max_latency_ms": 800}]
    path.write_text("".join(json.dumps({"prompt": "Why is the sky blue?", **asked}) + "\n" for asked in envelopes))

    done = run("--source", str(path), "--out", str(tmp_path / "audit"), "--json")

    figures = json.loads(done.stdout)
    assert figures["floors_by_kind"]["all"] == {"int4": 0.5, "int8": 0, "fp8": 0.5}
    assert figures["with_an_envelope"] == 3


@pytest.mark.parametrize("policy", ["fixed:int2", "fixed", "article:int4", "nonsense"])
def test_a_policy_that_does_not_exist_is_refused(thousand: Path, tmp_path: Path, policy: str) -> None:
    done = run("--source", str(thousand), "--out", str(tmp_path / "audit"), "--policy", policy)

    assert done.returncode == 2
    assert f"--policy must be article or fixed: and one of int4, int8, fp8, got '{policy}'" in done.stderr
    assert not (tmp_path / "audit").exists()


def test_every_plot_is_a_picture_and_in_the_page_which_loads_nothing(report: Report) -> None:
    folder, figures = report

    page = (folder / "audit.html").read_text(encoding="utf-8")
    plots = sorted(folder.glob("*.png"))
    assert [plot.stem for plot in plots] == ["entropy", "entropy_and_length", "features", "floors"]
    for plot in plots:
        with Image.open(plot) as image:
            colours = image.convert("RGB").getcolors(2**20) or []
        assert image.size[0] > 800
        assert len(colours) > 50
    assert page.count("data:image/png;base64,") == 4
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert f"{figures['floors_by_kind']['all']['int4']:.1%}" in page


def test_the_manifest_names_source_policy_and_files(report: Report, thousand: Path) -> None:
    folder, _ = report

    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["source"], manifest["prompts"], manifest["ladder"]) == (
        str(thousand),
        1000,
        ["int4", "int8", "fp8"],
    )
    assert manifest["policy"]["entropy_bits"] == 4.5
    assert {its["name"] for its in manifest["files"]} == {path.name for path in folder.iterdir()} - {"manifest.json"}


def test_a_sampled_set_can_be_audited_and_the_table_is_for_people(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    sample = [sys.executable, "-m", "calibration", "sample", "--out", str(tmp_path / "set")]
    subprocess.run(sample, env=environment, check=True, capture_output=True, timeout=60)

    done = run("--source", str(tmp_path / "set"), "--out", str(tmp_path / "audit"))

    assert done.returncode == 0, done.stderr
    assert "32 prompts read" in done.stderr
    assert "│ entropy " in done.stdout
    assert done.stdout.endswith(f"{tmp_path}/audit/audit.html\n")


def test_of_a_large_source_a_fair_part_is_taken_with_its_repeats(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    path.write_text('{"prompt": "often"}\n' * 8000 + '{"prompt": "seldom"}\n' * 2000)

    taken = [one.text for one in from_source(LocalFiles(path), 1000, seed=1)]

    assert len(taken) == 1000
    assert 150 < taken.count("seldom") < 250
