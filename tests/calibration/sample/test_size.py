"""Many lines take no more memory than twenty thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calibration.sample.conftest import WORDS
from tests.conftest import ROOT

SCRIPT = """
import resource, sys
from calibration.commands.app import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(f"\\n{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


def write_lines(path: Path, count: int) -> Path:
    """Write prompts that all differ, of three tiers, a tenth of them code."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            mixed = number * 2_654_435_761 % 2**32
            first, second = WORDS[mixed % len(WORDS)], WORDS[mixed // 64 % len(WORDS)]
            kind = "import os\\nx = 1;" if number % 10 == 0 else "Please explain the"
            tier = "int4" if number % 3 else "int8"
            file.write(
                f'{{"prompt": "{kind} {first} {mixed:08x} {second} {mixed ^ 0xABCDEF01:08x}", "tier": "{tier}"}}\n'
            )
    return path


def peak_mb(source: Path, out: Path) -> float:
    options = [
        "--source",
        str(source),
        "--out",
        str(out),
        "--memory-mb",
        "16",
        "--count",
        "200",
        "--heldout",
        "50",
        "--json",
    ]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "sample", *options], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["seen"] == source.read_bytes().count(b"\n")
    return int(done.stderr.splitlines()[-1]) / 1024


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_lines_take_no_more_memory_than_twenty_thousand(count: int, tmp_path: Path) -> None:
    small = peak_mb(write_lines(tmp_path / "small.jsonl", 20_000), tmp_path / "small")

    large = peak_mb(write_lines(tmp_path / "large.jsonl", count), tmp_path / "large")

    manifest = json.loads((tmp_path / "large" / "manifest.json").read_text())
    assert large < small + 20
    assert manifest["strata"]["tier"] == {"int4": count * 2 // 3, "int8": count - count * 2 // 3}
    assert 0.8 * count < manifest["counts"]["different_about"] < 1.2 * count
