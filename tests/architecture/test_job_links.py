"""Where an intake is found from before a proxy is known in one place."""

from __future__ import annotations

import re

from tests.conftest import ROOT

LINK = re.compile(r'f"[^"]*/v1/jobs/\{')


def test_links_to_jobs_are_made_in_one_place_which_knows_the_prefix() -> None:
    paths = sorted((ROOT / "dispatcher").rglob("*.py"))

    assert [path.name for path in paths if LINK.search(path.read_text(encoding="utf-8"))] == ["state.py"]
