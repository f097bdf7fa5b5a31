"""bitladder/routing/policies/learned.py: bounds of losses from features, and the lowest tier within the limit."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.policy_forms import Form, Input, LearnedForm, Linear, Trees
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.features import FEATURES, score_prompt
from bitladder.routing.policies import policy_of
from bitladder.routing.policies.learned import bound, inputs_of
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from tests.conftest import ROOT

LADDER = ("int4", "int8", "fp8")
EXAMPLE = (ROOT / "examples" / "learned_policy.json").read_bytes()
FORM = msgspec.json.decode(EXAMPLE, type=LearnedForm)
STEPS = ((0.1, 0.2), (0.5, 0.6), (1.0, 5.0))


def predictor(kind: type[Any], **fields: Any) -> Any:  # noqa: ANN401
    return msgspec.convert({"form": kind.__struct_config__.tag, "high": 1.0, **fields}, kind)


@pytest.mark.parametrize(
    ("tree", "inputs", "expected"),
    [
        (predictor(Linear, intercept=0.1, weights=[0.2, -0.1]), (1, 2), 0.1),
        (predictor(Linear, intercept=0, weights=[0.1, 0], squares=[0.1, 0.2]), (2, 1), 0.8),
        (predictor(Linear, intercept=9, weights=[0]), (0,), 1.0),
        (predictor(Linear, intercept=-9, weights=[0], low=-0.5), (0,), -0.5),
        (predictor(Linear, intercept=0.1, weights=[0], bounds=STEPS), (0,), 0.2),
        (predictor(Linear, intercept=0.11, weights=[0], bounds=STEPS), (0,), 0.6),
        (predictor(Linear, intercept=7, weights=[0], bounds=STEPS), (0,), 5.0),
        (predictor(Trees, base=0.1, trees=[[[0, 3, 1, 2], [-1, 0.1], [-1, 0.3]], [[-1, 0.2]]]), (3,), 0.4),
        (predictor(Trees, base=0.1, trees=[[[0, 3, 1, 2], [-1, 0.1], [-1, 0.3]], [[-1, 0.2]]]), (3.1,), 0.6),
    ],
)
def test_a_bound_is_the_prediction_within_its_limits_and_what_is_promised_of_it(
    tree: Linear | Trees, inputs: tuple[float, ...], expected: float
) -> None:
    assert bound(tree, inputs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("entropy", "floor", "reason"),
    [
        (0.05, "int4", "loss at int4 0.05 <= 0.05"),
        (0.06, "int8", "loss at int8 0.03 <= 0.05"),
        (0.2, "fp8", "no tier below is within the limit"),
    ],
)
def test_the_floor_is_the_lowest_tier_within_the_limit(entropy: float, floor: str, reason: str) -> None:
    tiers = {
        "int4": predictor(Linear, intercept=0, weights=[1]),
        "int8": predictor(Linear, intercept=0, weights=[0.5]),
    }
    form = LearnedForm(limit=0.05, inputs=(Input(name="entropy"),), tiers=tiers)
    policy = policy_of(PolicySettings(name="l"), {"l": table(form)})

    decision = policy.decide(Score(entropy=entropy), constraints_of(Envelope(), LADDER))

    assert (decision.floor, decision.reason) == (floor, reason)


def test_a_tier_s_bound_is_computed_once_and_only_until_one_is_within(monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = {name: predictor(Linear, intercept=value, weights=[0]) for name, value in (("int4", 0.9), ("int8", 0.1))}
    form = LearnedForm(limit=0.5, inputs=(Input(name="entropy"),), tiers={**tiers, "fp8": tiers["int8"]})
    policy = policy_of(PolicySettings(name="l"), {"l": table(form)})
    computed: list[Linear | Trees] = []

    def counted(tree: Linear | Trees, inputs: Sequence[float]) -> float:
        computed.append(tree)
        return bound(tree, inputs)

    monkeypatch.setattr(sys.modules[bound.__module__], "bound", counted)
    decision = policy.decide(Score(entropy=4.0), constraints_of(Envelope(), (*LADDER, "bf16")))

    assert (decision.floor, decision.reason) == ("int8", "loss at int8 0.1 <= 0.5")
    assert computed == [tiers["int4"], tiers["int8"]]


def table(form: Form) -> NamedPolicySettings:
    return NamedPolicySettings(kind="learned", file="x.json", form=form)


@given(
    text=st.binary(max_size=400),
    names=st.lists(st.sampled_from(sorted(FEATURES)), min_size=1, max_size=6),
    weight=st.floats(-1e9, 1e9),
    is_log=st.booleans(),
)
@example(text=b"a" * 2_000_000, names=["bytes", "tokens"], weight=1e9, is_log=False)
@example(text=bytes(range(256)) * 8192, names=["bytes", "line_length"], weight=-1e9, is_log=False)
@example(text=b"", names=["zlib_ratio"], weight=1e9, is_log=True)
def test_whatever_the_prompt_and_the_weights_the_bound_is_finite_and_within_what_the_file_states(
    text: bytes, names: list[str], weight: float, is_log: bool
) -> None:
    items = [{"name": name, "log": is_log, "scale": 1e-9} for name in names]
    linear = {"form": "linear", "low": -1, "high": 2, "intercept": weight}
    linear |= {"weights": [weight] * len(names), "squares": [-weight] * len(names)}
    form = msgspec.convert({"kind": "learned", "limit": 0.1, "inputs": items, "tiers": {"int4": linear}}, LearnedForm)
    score = score_prompt(text, Endpoint.CHAT, dict.fromkeys(names))

    value = bound(form.tiers["int4"], inputs_of(form.inputs, score))

    assert math.isfinite(value)
    assert -1 <= value <= 2


def test_the_example_file_sends_each_kind_of_text_somewhere() -> None:
    policy = policy_of(PolicySettings(name="l"), {"l": table(FORM)})
    texts = ("1,2,3\n4,5,6\n" * 50, "Wie groß ist die Müßiggängerin? " * 4, "Why?")

    floors = {
        policy.decide(
            score_prompt(text.encode(), Endpoint.CHAT, policy.features), constraints_of(Envelope(), LADDER)
        ).floor
        for text in texts
    }

    assert floors == {"int4", "int8"}
