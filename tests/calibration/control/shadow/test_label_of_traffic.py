"""The label of one request that a low tier served."""

from __future__ import annotations

import pytest

from calibration.control.shadow import label_of_traffic
from calibration.control.shadow.label_of_traffic import Labeller
from calibration.control.shadow.selection import CapturedPrompt
from calibration.evaluate.engine import Asker
from tests.calibration.evaluate.chain import Chain


async def no_checkpoints() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
async def test_answers_are_drawn_as_for_the_labels_of_a_promise_each_request_with_a_seed_of_its_own(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_of_traffic, "_TOP", 2)  # of the likeliest tokens, of which a chain has two
    top = Chain()
    askers = {"low": Asker(Chain({"h": "j"}), ""), "top": Asker(top, "")}
    label = Labeller(askers, no_checkpoints, 4, temperature)

    labels = [await label(CapturedPrompt(name, endpoint="/v1/completions", prompt="abcdef"), "low") for name in "aba"]

    asked = [request for request in top.asked if request.get("max_tokens") == 4]
    assert [request["temperature"] for request in asked] == [temperature] * 3
    first, second, again = (request.get("seed") for request in asked)
    assert (first == again, first == second) == (True, temperature == 0)
    assert [line["tiers"]["low"]["answer"]["flips"] for line in labels] == [0.25] * 3
