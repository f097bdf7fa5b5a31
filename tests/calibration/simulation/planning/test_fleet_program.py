"""The integer program against enumeration, and what must hold for any of its answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from calibration.simulation.planning import fleet_program
from calibration.simulation.planning.fleet_program import FleetProgram, balanced, cheapest, fractional_price

MAX_WORKERS = 4


def program_of(
    loads: list[list[float]],
    prices: list[float],
    *,
    ranks: list[int] | None = None,
    may_be_below: list[float] | None = None,
    stock: list[float] | None = None,
    kv: list[list[float]] | None = None,
) -> FleetProgram:
    """Return a program of workers with one slot, each a device of its own; a load of 0 or less: not allowed."""
    table = np.array(loads, dtype=float)
    kinds = len(prices)
    return FleetProgram(
        slot_load=np.maximum(table, 0.0),
        kv_load=np.array(kv, dtype=float) if kv else np.zeros_like(table),
        allowed=table > 0,
        slots=np.ones(kinds),
        kv_tokens=np.ones(kinds),
        prices=np.array(prices, dtype=float),
        gpus=np.ones(kinds),
        ranks=np.array(ranks or [0] * kinds),
        devices=np.arange(kinds),
        stock=np.array(stock or [np.inf] * kinds),
        may_be_below=np.array(may_be_below or [1.0]),
    )


def cheapest_by_enumeration(program: FleetProgram) -> float | None:
    limits = [int(min(MAX_WORKERS, stock)) for stock in program.stock]
    prices = [
        float(program.prices @ np.array(counts))
        for counts in product(*(range(limit + 1) for limit in limits))
        if balanced(program, np.array(counts)) is not None
    ]
    return min(prices, default=None)


@st.composite
def programs(draw: st.DrawFn) -> FleetProgram:
    kinds, buckets = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    # No bucket needs more than MAX_WORKERS of a kind, together with the others.
    load = st.sampled_from([-1.0, 0.1, 0.3, 0.55, 0.9, 1.2])
    loads = draw(st.lists(st.lists(load, min_size=kinds, max_size=kinds), min_size=buckets, max_size=buckets))
    ranks = sorted(draw(st.lists(st.integers(0, 1), min_size=kinds, max_size=kinds)))
    kv = [[abs(value) * draw(st.sampled_from([0.0, 0.5, 1.1])) for value in row] for row in loads]
    return program_of(
        loads,
        draw(st.lists(st.sampled_from([0.5, 0.7, 1.0, 2.5]), min_size=kinds, max_size=kinds)),
        ranks=ranks,
        may_be_below=[draw(st.sampled_from([0.0, 0.4, 1.0])), 1.0],
        stock=[draw(st.sampled_from([0.0, 1.0, 4.0])) for _ in range(kinds)],
        kv=kv,
    )


@settings(max_examples=20, deadline=None)
@given(programs())
def test_no_fleet_of_any_numbers_of_workers_is_cheaper(program: FleetProgram) -> None:
    fleet = cheapest(program)
    expected = cheapest_by_enumeration(program)

    assert (fleet and fleet.price_per_hour) == (expected and pytest.approx(expected))
    if fleet is not None:
        low = fleet.shares[:, program.ranks == 0].sum(axis=1)
        assert (low <= program.may_be_below[0] + 1e-6).all()
        assert fleet.shares.sum(axis=1) == pytest.approx(np.ones(len(program.allowed)))
        assert ((program.slot_load * fleet.shares).sum(axis=0) <= fleet.workers * (1 + 1e-6)).all()
        assert ((program.kv_load * fleet.shares).sum(axis=0) <= fleet.workers * (1 + 1e-6)).all()
        assert not fleet.shares[~program.allowed].any()
        assert (fractional_price(program) or 0) <= fleet.price_per_hour + 1e-6


@settings(max_examples=12, deadline=None)
@given(programs(), st.lists(st.floats(0.2, 3), min_size=2, max_size=4))
def test_more_load_is_never_cheaper_and_a_higher_price_neither(program: FleetProgram, factors: list[float]) -> None:
    endless = replace(program, stock=np.full(len(program.stock), np.inf))
    by_load = [fleet and fleet.price_per_hour for fleet in (cheapest(endless.scaled(load)) for load in sorted(factors))]
    by_price = [
        fleet and fleet.price_per_hour
        for fleet in (
            cheapest(endless.priced(endless.prices * [factor, *[1.0] * (len(endless.prices) - 1)]))
            for factor in sorted(factors)
        )
    ]

    for prices in (by_load, by_price):
        assert all(price is None for price in prices) or prices == sorted(prices)  # type: ignore[type-var]


def test_a_worked_example_mixes_a_large_worker_with_a_small_one() -> None:
    # 4.2 requests a second: a large worker takes 2 of them for 3.67, a small one 0.37 for 1.01.
    program = program_of([[4.2 / 2.0, 4.2 / 0.37]], [3.67, 1.01])

    fleet = cheapest(program)

    assert fleet is not None
    assert fleet.workers.tolist() == [2, 1]
    assert fleet.price_per_hour == pytest.approx(2 * 3.67 + 1.01)
    assert fractional_price(program) == pytest.approx(2.1 * 3.67)


def test_the_least_load_needs_a_worker_of_each_kind_that_it_needs() -> None:
    # The cheap one can take almost everything, and the dear one alone the rest.
    fleet = cheapest(program_of([[0.6, 0.6], [-1.0, 1e-8]], [1.0, 5.0], stock=[9.0, 9.0]))
    idle = cheapest(program_of([[1e-9, 1e-8]], [2.0, 1.0]))

    assert fleet is not None
    assert idle is not None
    assert (fleet.workers.tolist(), idle.workers.tolist()) == ([0, 1], [0, 1])


def test_of_equally_cheap_fleets_it_is_the_one_of_higher_quality() -> None:
    fleet = cheapest(program_of([[0.5, 0.5]], [1.0, 1.0], ranks=[0, 1], may_be_below=[1.0, 1.0]))

    assert fleet is not None
    assert fleet.workers.tolist() == [0, 1]


def test_without_division_by_size_a_worker_must_take_all_sizes() -> None:
    program = program_of([[0.5, 0.5], [0.5, -1.0]], [3.0, 1.0])

    divided, blind = cheapest(program), cheapest(program.blind())

    assert divided is not None
    assert blind is not None
    assert blind.workers.tolist() == [1, 0]
    assert divided.price_per_hour <= blind.price_per_hour


def test_a_solver_whose_time_ends_without_a_fleet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_program, "TIME_LIMIT_S", 0.0)

    with pytest.raises(InputError, match="found no fleet within 0 s"):
        cheapest(program_of([[2.1, 11.3, 0.7]] * 3, [3.67, 1.01, 0.9]))
