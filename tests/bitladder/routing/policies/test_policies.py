"""What holds for every policy: it stays within the constraints, and says what it looked at; each has an example."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitladder.endpoints import Endpoint
from bitladder.routing.accept import Incoming, accept, policy_for
from bitladder.routing.constraints import constraints_of
from bitladder.routing.envelope import Envelope
from bitladder.routing.features import FEATURES, score_prompt
from bitladder.routing.policies import POLICIES, SPLITS
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings
from tests.conftest import ROOT, make_settings

LADDER = ("int4", "int8", "fp8")
TABLES: dict[str, Any] = {
    "rules": {
        "kind": "threshold",
        "rules": [
            {"when": ["priority >= 9"], "floor": "fp8"},
            {"when": ["non_ascii > 0.2", "tokens > 5"], "floor": "int8"},
            {"when": ["deadline_ms < 500"], "floor": "int4"},
        ],
        "otherwise": "int8",
    },
    "loss": {"kind": "learned", "file": str(ROOT / "examples" / "learned_policy.json")},
    "canary": {"kind": "split", "shares": {"loss": 0.5, "article": 0.25, "fixed:fp8": 0.25}, "drawn_by": "request"},
}
NAMES = {
    "article": "article",
    "fixed": "fixed:fp8",
    "threshold": "rules",
    "learned": "loss",
    "random": "random:int4=0.7,fp8=0.3",
    "split": "canary",
}
SETTINGS = {
    kind: make_settings("redis://127.0.0.1:1/0", policies=TABLES, policy__name=name) for kind, name in NAMES.items()
}
EXTREMES: list[Callable[[Any], Any]] = [
    example(text=b"", high=0, low=0, priority=5),
    example(text=b"a" * 2_000_000, high=2, low=0, priority=1),
    example(text=b"\xff\xfe\x00" * 1000, high=1, low=1, priority=10),
]


def incoming(text: str = "Why?", *, request_id: str = "r1", key: str = "", tenant: str = "default") -> Incoming:
    body = f'{{"model": "smollm2", "prompt": "{text}"}}'.encode()
    endpoint = Endpoint.COMPLETIONS
    return Incoming(endpoint=endpoint, body=body, headers={}, request_id=request_id, key_name=key, tenant=tenant)


def test_every_policy_is_tried_here() -> None:
    assert set(NAMES) == set(POLICIES) | set(SPLITS)


@pytest.mark.parametrize("kind", NAMES)
@given(text=st.binary(max_size=300), low=st.integers(0, 2), high=st.integers(0, 2), priority=st.integers(1, 10))
@EXTREMES[0]
@EXTREMES[1]
@EXTREMES[2]
def test_no_policy_leaves_the_constraints_and_its_explanation_is_its_decision(
    kind: str, text: bytes, low: int, high: int, priority: int
) -> None:
    low, high = min(low, high), max(low, high)
    envelope = Envelope(min_tier=LADDER[low], max_tier=LADDER[high], priority=priority)
    constraints = constraints_of(envelope, LADDER)
    policy = policy_for(incoming(), "smollm2", SETTINGS[kind])
    score = score_prompt(text, Endpoint.CHAT, policy.features)

    decision, rules = policy.decide(score, constraints), policy.explain(score, constraints)

    assert low <= LADDER.index(decision.floor) <= high
    assert decision == policy.decide(score, constraints)
    *passed_over, chosen = rules
    assert chosen.holds
    assert not any(rule.holds for rule in passed_over if not rule.rule.startswith("draw"))
    assert decision.reason.partition(", raised")[0].partition(", held")[0] == chosen.rule
    assert LADDER[min(max(LADDER.index(chosen.floor), low), high)] == decision.floor


@pytest.mark.parametrize("kind", NAMES)
def test_a_policy_reads_the_features_that_it_names_and_its_decisions_name_it(kind: str) -> None:
    policy = policy_for(incoming(), "smollm2", SETTINGS[kind])
    decision = accept(incoming(), SETTINGS[kind]).submission.request.decision

    assert set(policy.features) <= set(FEATURES)
    assert set(decision.score.values) == set(policy.features)
    assert (decision.policy, decision.version) == (policy.name, policy.version)
    assert decision.policy.startswith(NAMES[kind])
    assert decision.floor in LADDER


def test_the_key_s_policy_comes_before_the_model_s_and_that_before_the_configuration_s() -> None:
    def floor(key: str, **flags: Any) -> str:  # noqa: ANN401
        keys = {
            "acme": {"hash": "1" * 64, "tenant": "t", "policy": "fixed:fp8"},
            "other": {"hash": "2" * 64, "tenant": "t"},
        }
        settings = make_settings("redis://127.0.0.1:1/0", auth__keys=keys, policy__name="fixed:int4", **flags)
        return accept(incoming(key=key), settings).submission.request.decision.floor

    assert [floor("acme"), floor("other"), floor("gone"), floor("")] == ["fp8", "int4", "int4", "int4"]
    assert [floor(key, models__smollm2__policy="fixed:int8") for key in ("acme", "other")] == ["fp8", "int8"]


def _blocks() -> list[str]:
    section = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8").partition("\n## Policies\n")[2]
    return re.findall(r"^```toml\n(.*?)^```", section.partition("\n## Cost\n")[0], re.DOTALL | re.MULTILINE)


def documented(block: str, folder: Path) -> Settings:
    """Return the settings of a page's example, with the example's ladder."""
    ladder = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    if "policy = " in block.partition("[models.smollm2]")[2]:
        ladder = ladder.replace("[models.smollm2]\n", "[models.smollm2]\n" + block.partition("[models.smollm2]\n")[2])
        block = block.partition("[models.smollm2]")[0]
    example_file = ROOT / "examples" / "learned_policy.json"
    (folder / example_file.name).write_bytes(example_file.read_bytes())
    (folder / "bitladder.toml").write_text(f"{ladder}\n{block}", encoding="utf-8")
    return load_settings(str(folder / "bitladder.toml"), environ={}).settings


@pytest.mark.parametrize("block", _blocks())
def test_every_example_of_the_page_loads_and_decides(block: str, tmp_path: Path) -> None:
    settings = documented(block, tmp_path)
    decision = accept(incoming(), settings).submission.request.decision

    assert decision.floor in LADDER
    assert decision.policy.partition(":")[0].partition("/")[0] in f"{settings.policy.name} fixed"


def test_the_page_has_an_example_of_every_policy() -> None:
    examples = "\n".join(_blocks())

    assert [name for name in {*POLICIES, *SPLITS} if not re.search(rf'"{name}[":]', examples)] == []
