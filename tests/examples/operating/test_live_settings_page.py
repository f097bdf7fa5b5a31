"""docs/operating/live-settings.md: every example on the page does what the page says, and its table is the code's."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bitladder.settings.live_values import places
from bitladder.settings.sections import Settings
from tests.conftest import ROOT, Stack
from tests.page_examples import run_shell

PAGE = "docs/operating/live-settings.md"


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack()
    stack.intake()
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{stack.environment['PATH']}")

    (printed,) = run_shell(PAGE, stack)

    assert "models.smollm2.tiers.int4.high\t64\t32" in printed
    answer, _ = json.JSONDecoder().raw_decode(printed, printed.index('{"object":"list"'))
    assert [row["key"].rpartition(".")[2] for row in answer["data"]] == ["slots", "high"]
    assert 'policy.name\t"article"\t"fixed:int8"\tint4 is ill' in printed
    assert stack.http.get("/v1/settings").json()["revision"] == 4


def test_the_page_lists_exactly_the_settings_that_may_be_changed(settings: Settings) -> None:
    tree = settings.model_dump() | {"policies": {"NAME": {}}}
    tree["auth"]["keys"] = {"NAME": {}}
    keys = {key.replace("smollm2", "MODEL") for key in places(tree)}
    keys = {re.sub(r"tiers\.\w+\.", "tiers.TIER.", key) for key in keys}
    listed = set()
    for cell in re.findall(r"^\| (`.*`.*) \| .* \|$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE):
        start = ""
        for word in re.findall(r"`([^`]+)`", cell):
            if word.endswith("."):
                start = word
            elif "." in word:
                listed.add(word)
            elif word != "file":
                listed.add(f"{start}{word}")

    assert listed == keys
