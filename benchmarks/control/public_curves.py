"""Service curves of Llama-3.1-8B by AIConfigurator, as offers of L4, A10G and H100 with the article's prices.

The curves are for 512 tokens in and 256 out. Those of L4 and A10G are ideal, so there are three settings of scales.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping

from benchmarks.harness import ROOT
from calibration.simulation.fleet_file import ModelShape
from calibration.simulation.planning.offers_file import Device, Offers, Precision
from calibration.simulation.service_curves import Curve, Point

DATA = ROOT.parent / "shared" / "data"
LADDER = ("int4", "int8", "fp8", "bf16")
LLAMA_8B = ModelShape(parameters=8.03e9, layers=32, kv_heads=8, head_dim=128)
LLAMA_70B = ModelShape(parameters=70.6e9, layers=80, kv_heads=8, head_dim=128)
PRICES = {"l4": 0.70, "a10g": 1.00, "h100": 3.20}
MEMORY_GB = {"l4": 24, "a10g": 24, "h100": 80}
BITS = {"int4": 4.6, "int8": 8.2, "fp8": 8.2, "bf16": 16.0}
_SYSTEMS = {"l4": "l4", "a10g": "a10g", "h100_sxm": "h100"}
_TIERS = {"int4_wo": "int4", "sq": "int8", "fp8": "fp8", "bfloat16": "bf16"}
SETTINGS = {
    "ideal": "all curves as they are",
    "computed": "L4 and A10G times 0.66: what measured kernels of an L40S reach of its ideal curve (batch 32, fp8)",
    "measured": "times what AccelMark measured of bf16 and fp8 in a burst of ShareGPT requests, against the curve: "
    "H100 bf16 0.60, fp8 0.70, L4 bf16 0.72 (also taken for its int4 and for the A10G)",
}


def curves() -> dict[str, Curve]:
    """Return a curve for each device and tier of the ladder."""
    content = json.loads(gzip.decompress((DATA / "aiconfigurator-8b-curves.json.gz").read_bytes()))
    rows = defaultdict(list)
    for row in content["rows"]:
        if row["system"] in _SYSTEMS and (row["system"] != "h100_sxm" or row["mode"] == "SILICON"):
            rows[f"{_SYSTEMS[row['system']]}-{_TIERS[row['gemm']]}"].append(row)
    return {
        name: Curve(
            name=name,
            source="aiconfigurator-core 0.12.0, Llama-3.1-8B, 512 in, 256 out",
            device=name.partition("-")[0],
            version="vLLM 0.24",
            mode=points[0]["mode"],
            input_tokens=512,
            points=tuple(
                Point(row["batch"], row["ttft_ms"] / 1000, time_per_token_s=row["tpot_ms"] / 1000) for row in points
            ),
        )
        for name, points in rows.items()
    }


def accelmark_tokens_per_s() -> dict[str, float]:
    """Return the highest output rate that AccelMark measured of an 8B model offline, by device and precision."""
    content = json.loads(gzip.decompress((DATA / "accelmark-8b-by-precision.json.gz").read_bytes()))
    chips = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA L4": "l4"}
    best: dict[str, float] = {}
    for row in content["rows"]:
        if row["chip"] in chips and row["scenario"] == "offline":
            name = f"{chips[row['chip']]}-{row['precision'].lower()}"
            best[name] = max(best.get(name, 0.0), *(point["out_tok_s"] for point in row["points"]))
    return best


def measured_scales() -> dict[str, float]:
    """Return what AccelMark measured as a share of the curve's highest rate."""
    measured, computed = accelmark_tokens_per_s(), curves()

    def share(name: str) -> float:
        point = computed[name].points[-1]
        assert point.per_token_s is not None  # noqa: S101
        return measured[name] * point.per_token_s / point.concurrency

    scales = {"h100-bf16": share("h100-bf16"), "h100-fp8": share("h100-fp8")}
    return scales | {name: share("l4-bf16") for name in computed if not name.startswith("h100")}


def offers(setting: str, known: Mapping[str, Curve], shape: ModelShape = LLAMA_8B) -> Offers:
    """Return the offers of a setting."""
    scales = {"ideal": {}, "computed": {name: 0.66 for name in known if not name.startswith("h100")}}
    scale = scales[setting] if setting in scales else measured_scales()
    return Offers(
        ladder=LADDER,
        model=shape,
        devices={
            device: Device(
                price,
                MEMORY_GB[device],
                {
                    tier: Precision(name, BITS[tier], 1, scale.get(name, 1.0), SETTINGS[setting])
                    for tier in LADDER
                    if (name := f"{device}-{tier}") in known
                },
            )
            for device, price in PRICES.items()
        },
    )
