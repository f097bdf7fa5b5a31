"""The integer program of a plan: how many workers of each kind, and which share of each bucket goes to which. Pure.

Requests in a worker's slots at once are rate times the time that each holds one (Little's law), and so are their tokens
in its memory: both must be within what all workers of the kind have. Solved by HiGHS through scipy (Huangfu and Hall
2018).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.statistics import Floats
from calibration.terminal.native_output import native_output_dropped

TIME_LIMIT_S = 20.0
_GAP = 1e-7  # how much cheaper an unseen fleet might be, as a share
_QUALITY = 1e-5  # share of the price by which a lower tier counts as dearer: of equal fleets, the better one
_TIME_IS_OVER = 1  # as milp says it
_Scipy = Any  # it ships no types
_Places = NDArray[np.intp]
_ROUNDING = 1e-7
_LEAST_LOAD = 1e-4  # of a worker: well above HiGHS' tolerance of 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProgram:
    """What is to be solved: rows are buckets, columns are kinds of workers."""

    slot_load: Floats  # slots in use were the whole bucket served there
    kv_load: Floats  # and tokens in memory
    allowed: NDArray[np.bool_]
    slots: Floats
    kv_tokens: Floats
    prices: Floats  # of a worker, per hour
    gpus: Floats
    ranks: NDArray[np.intp]  # of the kind's tier
    devices: NDArray[np.intp]
    stock: Floats  # GPUs by device
    may_be_below: Floats  # share of each bucket that this tier and lower ones may serve, by rank

    def scaled(self, load: float) -> FleetProgram:
        return replace(self, slot_load=self.slot_load * load, kv_load=self.kv_load * load)

    def priced(self, prices: Floats) -> FleetProgram:
        return replace(self, prices=prices)

    def only(self, kinds: NDArray[np.bool_]) -> FleetProgram:
        """Return the program with these kinds of workers alone."""
        return replace(self, allowed=self.allowed & kinds)

    def blind(self) -> FleetProgram:
        """Return the program of requests that are not divided by size: one bucket with the loads of all."""
        return replace(
            self,
            slot_load=self.slot_load.sum(axis=0, keepdims=True),
            kv_load=self.kv_load.sum(axis=0, keepdims=True),
            allowed=np.asarray(self.allowed.all(axis=0, keepdims=True)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A solution."""

    workers: NDArray[np.intp]  # by kind
    shares: Floats  # of each bucket, by kind
    price_per_hour: float
    gap: float  # a cheaper one could save at most this share: 0 where it is proven that there is none


def cheapest(program: FleetProgram) -> Fleet | None:
    """Return the cheapest fleet that serves everything, or None where there is none.

    Raises:
        InputError: the solver's time ended before it had any.

    """
    # A load that is nearly none would count as none, and its only worker as no worker.
    seen = replace(program, slot_load=np.maximum(program.slot_load, _LEAST_LOAD * program.slots))
    solved = _solve(seen, integral=True)
    if solved is None:
        return None
    workers = np.round(solved.x[solved.x.size - program.prices.size :]).astype(np.intp)
    fleet = balanced(program, workers)
    return fleet if fleet is None else replace(fleet, gap=max(0.0, float(solved.mip_gap or 0.0)))


def fractional_price(program: FleetProgram) -> float | None:
    """Return what the cheapest fleet would cost could parts of workers be rented: without what rounding up costs."""
    solved = _solve(program, integral=False)
    return None if solved is None else float(program.prices @ solved.x[solved.x.size - program.prices.size :])


def balanced(program: FleetProgram, workers: NDArray[np.intp]) -> Fleet | None:
    """Return how these workers share the requests with the busiest kind as little busy as can be; None: too few."""
    solved = _balance(program, workers)
    if solved is None or solved.fun > 1 + _ROUNDING:
        return None
    shares = np.zeros(program.allowed.shape)
    shares[program.allowed & (workers > 0)] = solved.x[:-1]
    shares = np.clip(shares, 0.0, 1.0)
    return Fleet(
        workers=workers,
        shares=shares / shares.sum(axis=1, keepdims=True),
        price_per_hour=float(program.prices @ workers),
        gap=0.0,
    )


def _solve(program: FleetProgram, *, integral: bool) -> _Scipy:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, vstack

    rows, columns = np.nonzero(program.allowed)
    count, kinds = len(rows), len(program.prices)
    if not program.allowed.any(axis=1).all():
        return None
    whole, below = _shares(program, rows, columns)
    loads = _loads(program, rows, columns)
    capacity = vstack([csr_array(np.diag(program.slots)), csr_array(np.diag(np.maximum(program.kv_tokens, 0.0)))])
    stocked = [index for index, limit in enumerate(program.stock) if np.isfinite(limit)]
    of_device = np.array([np.where(program.devices == index, program.gpus, 0.0) for index in stocked])
    constraints = [
        LinearConstraint(hstack([whole, csr_array((whole.shape[0], kinds))]), 1, 1),
        LinearConstraint(hstack([loads, -capacity]), -np.inf, 0),
    ]
    if below is not None:
        matrix, limits = below
        constraints.append(LinearConstraint(hstack([matrix, csr_array((matrix.shape[0], kinds))]), -np.inf, limits))
    if stocked:
        empty = csr_array((len(stocked), count))
        constraints.append(LinearConstraint(hstack([empty, csr_array(of_device)]), -np.inf, program.stock[stocked]))
    with native_output_dropped():  # HiGHS prints a line of its own now and then
        solved = milp(
            np.concatenate([np.zeros(count), program.prices * (1 + _QUALITY * (1 - program.ranks / 64))]),
            integrality=np.concatenate([np.zeros(count), np.full(kinds, 1 if integral else 0)]),
            bounds=Bounds(0, np.concatenate([np.ones(count), np.full(kinds, np.inf)])),
            constraints=constraints,
            options={"time_limit": TIME_LIMIT_S, "mip_rel_gap": _GAP},
        )
    if solved.x is None and solved.status == _TIME_IS_OVER:
        raise InputError(f"the solver found no fleet within {TIME_LIMIT_S:g} s: offer fewer devices and tiers")
    return None if solved.x is None else solved


def _shares(program: FleetProgram, rows: _Places, columns: _Places) -> tuple[_Scipy, tuple[_Scipy, Floats] | None]:
    """Return the sums of each bucket's shares, and those at or below each tier that has a limit, with the limits."""
    from scipy.sparse import csr_array

    count, buckets = len(rows), len(program.allowed)
    whole = csr_array((np.ones(count), (rows, np.arange(count))), shape=(buckets, count))
    limited = [rank for rank, limit in enumerate(program.may_be_below) if limit < 1 - _ROUNDING]
    if not limited:
        return whole, None
    places, lines = [], []
    for number, rank in enumerate(limited):
        low = np.flatnonzero(program.ranks[columns] <= rank)
        places.append(low)
        lines.append(rows[low] + number * buckets)
    where = np.concatenate(places)
    matrix = csr_array((np.ones(len(where)), (np.concatenate(lines), where)), shape=(buckets * len(limited), count))
    return whole, (matrix, np.repeat(program.may_be_below[limited], buckets))


def _loads(program: FleetProgram, rows: _Places, columns: _Places) -> _Scipy:
    """Return what each share adds to the slots in use of its kind, and below to the tokens in memory."""
    from scipy.sparse import csr_array

    count, kinds = len(rows), len(program.prices)
    values = np.concatenate([program.slot_load[rows, columns], program.kv_load[rows, columns]])
    places = np.tile(np.arange(count), 2)
    return csr_array((values, (np.concatenate([columns, columns + kinds]), places)), shape=(2 * kinds, count))


def _balance(program: FleetProgram, workers: NDArray[np.intp]) -> _Scipy:
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, hstack, vstack

    program = program.only(workers > 0)
    rows, columns = np.nonzero(program.allowed)
    if not program.allowed.any(axis=1).all():
        return None
    whole, below = _shares(program, rows, columns)
    capacity = np.concatenate([program.slots * workers, np.maximum(program.kv_tokens, 0.0) * workers])
    used = np.flatnonzero(capacity)
    matrix = hstack([_loads(program, rows, columns)[used], csr_array(-capacity[used, None])])
    limits = np.zeros(len(used))
    if below is not None:
        matrix = vstack([matrix, hstack([below[0], csr_array((below[0].shape[0], 1))])])
        limits = np.concatenate([limits, below[1]])
    solved = linprog(
        np.concatenate([np.zeros(len(rows)), [1.0]]),
        A_ub=matrix.tocsr(),
        b_ub=limits,
        A_eq=hstack([whole, csr_array((whole.shape[0], 1))]).tocsr(),
        b_eq=np.ones(whole.shape[0]),
        bounds=[(0, 1)] * len(rows) + [(0, None)],
    )
    return solved if solved.success else None
