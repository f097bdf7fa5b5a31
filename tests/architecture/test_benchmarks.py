"""The published tables are what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.report import RESULTS, page_of, replaced, section
from tests.conftest import ROOT

FILES = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_shows_the_figures_of_the_results(path: Path) -> None:
    page, figures = page_of(path.stem).read_text(encoding="utf-8"), json.loads(path.read_text(encoding="utf-8"))

    assert replaced(page, path.stem, section(figures)) == page
    assert figures["short"] is False


def test_every_benchmark_that_make_runs_is_published() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^BENCHES := (.+)$", makefile, re.MULTILINE)
    alone = re.findall(r"-m benchmarks\.(\w+) --out benchmarks/results$", makefile, re.MULTILINE)

    assert listed
    assert alone
    names = [name.rpartition(".")[2] for name in listed[1].split()]
    assert sorted([*names, *alone]) == [path.stem for path in FILES]
