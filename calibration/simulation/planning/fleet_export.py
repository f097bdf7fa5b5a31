"""A planned fleet as the files that `calibrate simulate` reads. Pure."""

from __future__ import annotations

import json

import msgspec
import numpy as np

from calibration.simulation.planning.fleet_program import Fleet
from calibration.simulation.planning.make_plan import Market
from calibration.simulation.planning.verify_plan import MODEL, tiers_of

FILES = ("fleet.toml", "bitladder.toml", "curves.json")


def fleet_files(market: Market, fleet: Fleet) -> dict[str, str]:
    """Return texts by file: a tier for each kind of worker, with its slots, price and scaled curve."""
    rented = [int(index) for index in np.flatnonzero(fleet.workers)]
    kinds = [market.kinds[index] for index in rented]
    shares = ",".join(
        f"{kind.name}={share:.6f}" for kind, share in zip(kinds, market.share_by_kind(fleet)[rented], strict=True)
    )
    # No [model]: memory was checked by the requests of each kind, and not by the average of all.
    parts = [f"# Of the requests, by floor: --shares {shares}\n"]
    parts += [
        _table(f"[tiers.{json.dumps(kind.name)}]", {"workers": int(fleet.workers[index]), "curve": kind.name})
        for index, kind in zip(rented, kinds, strict=True)
    ]
    tiers = [_table(f"[[models.{MODEL}.tiers]]", tier) for tier in tiers_of(market, fleet, rented)]
    curves = [msgspec.structs.replace(kind.option.curve, name=kind.name) for kind in kinds]
    texts = ("\n".join(parts), "\n".join(tiers), json.dumps({"curves": msgspec.to_builtins(curves)}, indent=1) + "\n")
    return dict(zip(FILES, texts, strict=True))


def _table(head: str, values: dict[str, object]) -> str:
    return "\n".join([head, *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""])
