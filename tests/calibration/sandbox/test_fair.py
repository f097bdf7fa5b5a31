"""What is right passes: HumanEval's own solutions, and plain data that crosses between the two interpreters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from calibration.evaluate.human_eval import load_problems, spread
from calibration.sandbox import choose
from calibration.sandbox.bubblewrap import Bubblewrap, find_bubblewrap
from calibration.sandbox.inside import decode, encode
from calibration.sandbox.monty import MontySandbox
from calibration.sandbox.seccomp import seccomp_filter

# What Monty 1.4 does not run: setting a slice with a step, and the module `string`.
NOT_IN_MONTY = {"HumanEval/33", "HumanEval/38", "HumanEval/50"}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(LEAVES, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=4) | st.sets(HASHABLE),
    max_leaves=12,
)


def test_humaneval_s_own_solutions_pass_in_bubblewrap() -> None:
    if find_bubblewrap() is None:
        pytest.skip("there is no bwrap: apt-get install bubblewrap")
    helped = [
        problem for problem in load_problems() if problem.name in ("HumanEval/32", "HumanEval/38", "HumanEval/50")
    ]

    for problem in [*spread(load_problems(), 20), *helped]:
        assert Bubblewrap().judge(problem.program(problem.solution)).passed, problem.name


def test_humaneval_s_own_solutions_pass_in_monty_but_for_three() -> None:
    tried = [problem for problem in load_problems() if problem.name in NOT_IN_MONTY] + spread(load_problems(), 40)

    failed = {problem.name for problem in tried if not MontySandbox().judge(problem.program(problem.solution)).passed}

    assert failed == NOT_IN_MONTY


@settings(max_examples=50)
@given(VALUES)
def test_plain_data_cross_as_they_are(value: Any) -> None:  # noqa: ANN401  (any plain data)
    assert decode(encode(value)) == value
    assert type(decode(encode(value))) is type(value)


def test_what_is_no_plain_data_does_not_cross() -> None:
    assert math.isnan(decode(encode(math.nan)))
    for value in (object(), range(3), map(str, [1]), {"x": print}):
        with pytest.raises(TypeError, match="no plain data"):
            encode(value)


def test_bubblewrap_comes_first_and_monty_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_bubblewrap() is not None:
        assert choose.choose_sandbox().name == "bubblewrap"
    monkeypatch.setenv("PATH", str(tmp_path))

    assert choose.choose_sandbox().name == "monty"


def test_without_a_sandbox_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MONTY_BIN", str(tmp_path / "none"))

    with pytest.raises(InputError, match=r"no sandbox works here .*bubblewrap: .*monty: .*is not run without one"):
        choose.choose_sandbox()


def test_a_sandbox_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="--sandbox must be auto, bubblewrap or monty, got 'none'"):
        choose.choose_sandbox("none")


def test_the_filter_is_made_for_known_processors_only() -> None:
    assert seccomp_filter("x86_64") != seccomp_filter("aarch64")
    assert seccomp_filter("riscv64") is None
