"""Where an intake is found from before a proxy is known in one place."""

from __future__ import annotations

from tests.conftest import ROOT


def test_links_to_jobs_are_made_in_one_place_which_knows_the_prefix() -> None:
    intake = ROOT / "dispatcher" / "intake"
    files = [path.name for path in sorted(intake.glob("*.py")) if "/v1/jobs/{" in _without_docstrings(path.read_text())]

    assert files == ["gateway.py"]


def _without_docstrings(source: str) -> str:
    return "\n".join(part for number, part in enumerate(source.split('"""')) if number % 2 == 0)
