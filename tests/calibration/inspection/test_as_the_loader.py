"""What inspect passes, the engine builds and loads; what it fails, the engine refuses or reads wrongly."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Inspection, Verdict
from tests.calibration.inspection.test_as_the_engine import ENGINE
from tests.calibration.inspection.test_resolution import EVERY_DOWN, QKV, group_of, store
from tests.calibration.inspection.tiny import LAYOUTS, Array, Tiny, bf16, fp8, stored, words
from tests.conftest import free_port

pytestmark = pytest.mark.vllm  # it needs the engine's environment, not its weights
ATTENTION, DOWN = "model.layers.0.self_attn", EVERY_DOWN[0]
Tensors = dict[str, tuple[str, Array]]


def one(dtype: str = "<f4") -> tuple[str, Array]:
    return stored(np.ones(1, dtype))


def each(layout: str, suffix: str, make: Callable[[Array], tuple[str, Array]]) -> Tiny:
    """Give every layer one tensor more."""
    tiny = Tiny(layout)
    tiny.tensors |= {f"{module}.{suffix}": make(weights) for module, weights in tiny.weights.items()}
    return tiny


def more(layout: str, **tensors: tuple[str, Array]) -> Tiny:
    tiny = Tiny(layout)
    tiny.tensors |= {name.replace("__", "."): its for name, its in tensors.items()}
    return tiny


def less(layout: str, name: str) -> Tiny:
    tiny = Tiny(layout)
    del tiny.tensors[name]
    return tiny


def mixed(layout: str, modules: list[str], **config: Any) -> Tiny:  # noqa: ANN401  (JSON)
    """Store some layers of an int8 checkpoint in another way, and change its configuration."""
    tiny = store(Tiny("int8"), layout, modules)
    tiny.config["quantization_config"] |= config
    return tiny


def static(*, is_symmetric: bool, has_zero: bool) -> Tiny:
    tiny = each("int8", "input_scale", lambda _: one())
    tiny.tensors |= {f"{module}.input_zero_point": one("i1") for module in tiny.weights if has_zero}
    inputs = {"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": False, "symmetric": is_symmetric}
    tiny.config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = inputs
    return tiny


def under(key: str) -> Tiny:
    tiny = Tiny("int8")
    tiny.config[key] = tiny.config.pop("quantization_config")
    return tiny


CACHE = ("k_scale", "q_scale", "attn.k_scale", "k_zero_point", "k_proj.k_scale", "k_proj.v_scale", "qkv_proj.k_scale",
         "kv_scale", "output_scale", "k_proj.output_scale", "q_proj.q_scale", "v_proj.v_zero_point")  # fmt: skip
PART = group_of("int4", "down_proj")
WITHOUT_INPUTS = group_of("int8", "Linear") | {"input_activations": None}
TWO = {"group_0": group_of("int8", "Linear"), "group_1": group_of("int4", "re:.*down_proj")}
CASES: dict[str, Tiny] = {
    **{f"sound {layout}": Tiny(layout) for layout in LAYOUTS},
    **{f"bf16 with {name}": more("bf16", **{f"{ATTENTION}.{name}": one()}) for name in CACHE},
    **{f"int8 with {name}": more("int8", **{f"{ATTENTION}.{name}": one()}) for name in CACHE},
    "a part of a name ignored": mixed("bf16", EVERY_DOWN, ignore=["down_proj"]),
    "an expression ignored": mixed("bf16", EVERY_DOWN, ignore=["re:.*down_proj"]),
    "whole names ignored": mixed("bf16", EVERY_DOWN, ignore=EVERY_DOWN),
    "a stack ignored": mixed("bf16", QKV, ignore=QKV),
    "a part of a stack ignored": mixed("bf16", QKV[:1], ignore=QKV[:1]),
    "a class before an expression": mixed("int4", EVERY_DOWN, config_groups=TWO),
    "a class before a part of a name": mixed("int4", EVERY_DOWN, config_groups=TWO | {"group_1": PART}),
    "all names a target": mixed("int8", [], config_groups={"group_0": group_of("fp8-tensor", "re:.*")}),
    "all names of the model a target": mixed("int8", [], config_groups={"group_0": group_of("int8", "re:model.*")}),
    "compression_config": under("compression_config"),
    "no kernel's numbers": mixed("int8", [], config_groups={"group_0": WITHOUT_INPUTS}),
    "columns out of order": each("int4", "weight_g_idx", lambda its: stored(np.zeros(its.shape[1], "<i4"))),
    "symmetric with zero points": each("int4-symmetric", "weight_zero_point", lambda its: words(its[:, :8] * 0)),
    "int8 with zero points": each("int8", "weight_zero_point", lambda its: stored(np.zeros((len(its), 1), "i1"))),
    "static inputs": static(is_symmetric=True, has_zero=False),
    "static inputs with zero points": static(is_symmetric=False, has_zero=True),
    "static inputs with zero points too many": static(is_symmetric=True, has_zero=True),
    "dynamic inputs with a zero point": more("int8", **{f"{DOWN}.input_zero_point": one("i1")}),
    "awq with a layer left alone": store(Tiny("awq"), "bf16", EVERY_DOWN[:1]),
    "awq with a scale of the cache": more("awq", **{f"{ATTENTION}.k_scale": one()}),
    "a tensor too many": more("bf16", model__extra=one()),
    "a layer too many": more("bf16", **{"model.layers.7.mlp.down_proj.weight": bf16(np.ones((64, 128)))}),
    "rotary numbers": more("bf16", **{f"{ATTENTION}.rotary_emb.inv_freq": one()}),
}  # fmt: skip
# What the engine loads without a word, and then reads from memory that nobody wrote, or leaves out.
IN_SILENCE: dict[str, Tiny] = {
    "a layer missing": less("bf16", f"{DOWN}.weight"),
    "a scale missing": less("int8", f"{DOWN}.weight_scale"),
    "an 8-bit float for a wide one": more("bf16", **{f"{DOWN}.weight": fp8(Tiny().weights[DOWN])}),
    "a bias too many": more("bf16", **{f"{ATTENTION}.q_proj.bias": bf16(np.ones(64))}),
}
# Found by vLLM to be no more than a warning, and wrong: bfloat16 in integers.
IN_SILENCE["a part of a name ignored"] = CASES.pop("a part of a name ignored")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: tiny.write(root / name.replace(" ", "-")) for name, tiny in (CASES | IN_SILENCE).items()}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, str]:
    if not ENGINE.exists():
        message = "there is no .venv-engine: `make engine-env` makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    script = str(Path(__file__).with_name("engine_loads.py"))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    command = [str(ENGINE), script, str(free_port()), *map(str, folders.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[str(folder)] for name, folder in folders.items()}


def said(found: Inspection) -> list[str]:
    return [text for check in found.checks if check.verdict is Verdict.FAIL for text in check.texts]


@pytest.mark.parametrize("name", CASES)
def test_what_is_passed_loads_and_what_is_failed_does_not(
    folders: dict[str, Path], loaded: dict[str, str], name: str
) -> None:
    found = inspect_checkpoint(folders[name])

    if found.verdict is Verdict.FAIL:
        assert loaded[name] not in ("loaded", "no kernel"), said(found)
    else:
        assert loaded[name] in ("loaded", "no kernel")
    # Only 8-bit floats lack kernels on a CPU.
    assert loaded[name] != "no kernel" or "fp8" in name


@pytest.mark.parametrize("name", IN_SILENCE)
def test_what_the_engine_reads_wrongly_in_silence_is_failed(
    folders: dict[str, Path], loaded: dict[str, str], name: str
) -> None:
    assert inspect_checkpoint(folders[name]).verdict is Verdict.FAIL
    assert loaded[name] == "loaded"
