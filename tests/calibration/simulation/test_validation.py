"""A simulation beside a run of the stack: the same requests, the same curves, the marks that ship."""

from __future__ import annotations

import pytest

from benchmarks.simulation.validate import LOADS, WITHIN, Load, compared


@pytest.mark.long
@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_the_stack_does_what_the_simulation_says(load: Load) -> None:
    row = compared(load)

    assert {name: off for name, off in row["off"].items() if abs(off) > WITHIN} == {}, row
    assert load.name == "low load" or row["measured"]["overflow"] > 0
