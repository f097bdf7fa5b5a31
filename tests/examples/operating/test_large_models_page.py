"""docs/operating/guides/large-models.md: its arithmetic, and its settings."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from bitladder.settings.load import load_settings
from tests.page_examples import blocks

PAGE = "docs/operating/guides/large-models.md"


def test_the_arithmetic_is_right() -> None:
    (session,) = blocks(PAGE, "pycon")
    example = doctest.DocTestParser().get_doctest(session, {}, PAGE, PAGE, 0)
    said: list[str] = []

    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("number", [0, 1])
def test_the_settings_are_taken(number: int, tmp_path: Path) -> None:
    (tmp_path / "bitladder.toml").write_text(blocks(PAGE, "toml")[number], encoding="utf-8")

    (model,) = load_settings(str(tmp_path / "bitladder.toml"), environ={}).settings.models.values()

    assert model.tiers[0].price_per_hour > 10
