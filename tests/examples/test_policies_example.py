"""examples/policies.toml, in a file of its own: the stack of the other examples has workers without a cascade."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import ROOT, Stack


def test_rules_choose_the_floor_and_an_unsure_answer_escalates(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_CONFIG=str(ROOT / "examples" / "policies.toml"))
    stack.intake()
    for tier in ("int4", "int8"):
        stack.worker(tier)

    code, sure, unsure = (
        stack.http.post("/v1/completions", json={"model": "smollm2", "prompt": prompt}, headers={"X-Cascade": "true"})
        for prompt in ("def f(x):\n    return x\nprint(f(2))", "What a day", "What a day echo:unsure echo:unsure")
    )

    assert (code.headers["X-Floor"], code.headers["X-Route-Reason"]) == ("int8", "code_likeness 1 > 0.5")
    assert (sure.headers["X-Tier"], sure.headers["X-Confidence"]) == ("int4", "0.8581")
    assert (unsure.headers["X-Tier"], "X-Confidence" in unsure.headers) == ("int8", False)
