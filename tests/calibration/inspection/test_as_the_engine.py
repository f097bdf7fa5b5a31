"""Which layer is stored how is what vLLM itself says, on hundreds of configurations drawn from a seed."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calibration.inspection.model import FAMILIES, ModelConfig, Module, layers_of
from calibration.inspection.patterns import Patterns
from calibration.inspection.quantization import Awq, CompressedTensors, names_of, read_quantization
from calibration.inspection.scheme import SchemeError
from calibration.inspection.verdict import Findings, Verdict
from tests.calibration.inspection.tiny import config as tiny_config
from tests.conftest import ROOT

pytestmark = pytest.mark.vllm  # it needs the engine's environment, not its weights
ENGINE = ROOT / ".venv-engine" / "bin" / "python"
DRAWN = 600

TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
FP8_TOKEN = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
FP8_TENSOR = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
INT8, FP8 = {"num_bits": 8, "type": "int", "strategy": "channel"}, {"num_bits": 8, "type": "float"}
# (format, weights, input_activations): sound ones, and the last ones as nobody serves them.
NUMBERS: list[tuple[str, Any, Any]] = [
    ("pack-quantized", INT4, None),
    ("pack-quantized", INT4 | {"symmetric": False}, None),
    ("pack-quantized", INT4 | {"strategy": None, "actorder": "static", "observer": "mse"}, None),
    ("pack-quantized", INT8 | {"group_size": -1, "strategy": None}, None),
    ("int-quantized", INT8, TOKEN),
    ("int-quantized", INT8 | {"strategy": "Tensor"}, {"num_bits": 8, "strategy": "tensor"}),
    ("naive-quantized", FP8 | {"strategy": "channel"}, FP8_TOKEN),
    ("float-quantized", FP8 | {"strategy": "tensor"}, FP8_TENSOR),
    ("float-quantized", FP8 | {"strategy": "block", "block_structure": [128, 128]}, FP8_TOKEN),
    ("float-quantized", FP8 | {"strategy": "channel"}, None),
    ("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "tensor"}, None),
    ("int-quantized", INT8, None),
    ("int-quantized", INT4 | {"num_bits": 8}, TOKEN),
    ("int-quantized", INT8, {"num_bits": 8, "strategy": "group", "group_size": 32, "dynamic": True}),
    ("float-quantized", FP8 | {"strategy": "group", "group_size": 128}, FP8_TOKEN),
    ("float-quantized", FP8 | {"strategy": "block", "block_structure": "128x128"}, FP8_TENSOR),
    ("pack-quantized", INT4 | {"actorder": "group"}, None),
    ("pack-quantized", INT4 | {"dynamic": True}, None),
    ("pack-quantized", INT4 | {"of_tomorrow": 1}, None),
    ("pack-quantized", INT4 | {"group_size": None}, None),
    ("pack-quantized", None, None),
]
SOUND = 10
NAMES = [
    "Linear", "linear", "RowParallelLinear", "Parallel", "QKV", "LMHead", "Embedding", "LlamaAttention", "",
    "lm_head", "model.embed_tokens", "down_proj", "mlp.down_proj", "self_attn", "q_proj", "v_proj", "up_proj",
    "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj", "model.layers.0.mlp.up_proj",
    "model.layers.0.mlp.gate_proj", "model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj",
    "re:.*", "re:.*down_proj", "re:.*down_proj$", "re:.*_proj", "re:.*[qk]_proj$", "re:.*(q|k|v)_proj", "re:.*qkv_proj",
    "re:.*gate_proj", "re:.*gate_up_proj$", "re:.*layers.0.*", "re:model.layers.1.", "re:.*self_attn.*", "re:.*mlp",
    "re:^(?!.*mlp).*", "re:lm_head", "re:.*head", "re:.*Linear", "re:.*embed.*", "re:down_proj", "re:", "re:layers",
]  # fmt: skip


def drawn(chance: random.Random) -> dict[str, Any]:
    """Return a configuration; of three in four every group is sound, so that what counts is who it is for."""
    if chance.random() < 0.15:
        listed = chance.choices([name for name in NAMES if ":" not in name], k=chance.randrange(3))
        own = {
            "quant_method": "awq",
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": [*listed, "norm"],
        }
        names = {"w_bit": 4, "q_group_size": 64} if chance.random() < 0.3 else {"bits": 4, "group_size": 32}
        return own | names | ({"lm_head": True} if chance.random() < 0.3 else {})
    groups = {}
    for number in range(chance.choice((1, 1, 2, 3))):
        most = SOUND if chance.random() < 0.75 else len(NUMBERS)
        layout, weights, inputs = chance.choice(NUMBERS[:most])
        targets = ["Linear"] if chance.random() < 0.4 else chance.choices(NAMES, k=chance.choice((1, 1, 2)))
        groups[f"group_{number}"] = {"targets": targets, "weights": weights, "input_activations": inputs}
        groups[f"group_{number}"] |= {"format": layout} if chance.random() < 0.8 else {}
    ignore = chance.choices(NAMES, k=chance.randrange(3)) + (["lm_head"] if chance.random() < 0.5 else [])
    ignore += [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"] if chance.random() < 0.15 else []
    found = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ignore}
    found["format"] = chance.choice(("pack-quantized", "int-quantized", "float-quantized", "naive-quantized"))
    if chance.random() < 0.1:
        found["kv_cache_scheme"] = chance.choice([FP8_TENSOR | {"symmetric": True}, FP8_TENSOR, INT8])
    if chance.random() < 0.05:
        found["sparsity_config"] = {"format": "dense", "targets": chance.choice(([], ["Linear"]))}
    return found


def modules_of(architecture: str) -> tuple[Module, ...]:
    layers = layers_of(msgspec.convert(tiny_config() | {"architectures": [architecture]}, ModelConfig))
    assert layers
    return layers.modules


def ours(config: dict[str, Any], modules: tuple[Module, ...]) -> Any:  # noqa: ANN401  (JSON)
    """Say what we make of it in the engine's words."""
    try:
        quantization = read_quantization(config, {})
    except SchemeError:
        return "refused"
    assert isinstance(quantization, CompressedTensors | Awq)
    patterns = None
    if isinstance(quantization, CompressedTensors):
        names = {name for module in modules for name in names_of(module)}
        patterns = Patterns([*quantization.ignored, *quantization.targets], names)
    return [answer(quantization, module, patterns) for module in modules]


def answer(quantization: CompressedTensors | Awq, module: Module, patterns: Patterns | None) -> Any:  # noqa: ANN401
    findings = Findings()
    if isinstance(quantization, CompressedTensors):
        assert patterns
        schemes = quantization.schemes_in(module, patterns, findings)
    else:
        schemes = quantization.schemes([module], findings)
    if findings.worst() is Verdict.FAIL:
        return "refused"
    found = {schemes.get(layer) for layer in module.layers}
    assert len(found) == 1, module
    scheme = found.pop()
    return scheme and [scheme.bits, scheme.strategy, scheme.symmetric, scheme.group_size, scheme.layout == "awq"]


def in_our_words(answers: Any) -> Any:  # noqa: ANN401  (JSON)
    if answers == "refused":
        return answers
    return [
        [its[1], its[2], its[3], its[4] if its[2] == "group" else 0, its[0] == "awq"] if isinstance(its, list) else its
        for its in answers
    ]


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    chance, families = random.Random(20), sorted(FAMILIES)
    found = []
    for number in range(DRAWN):
        architecture = families[number % len(families)]
        modules = [[module.name, module.kind] for module in modules_of(architecture)]
        found.append({"config": drawn(chance), "architecture": architecture, "modules": modules})
    return found


@pytest.fixture(scope="module")
def engine(cases: list[dict[str, Any]]) -> list[Any]:
    if not ENGINE.exists():
        message = "there is no .venv-engine: `make engine-env` makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    command = [str(ENGINE), str(Path(__file__).with_name("engine_side.py"))]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[Any] = json.loads(done.stdout)
    return found


def test_every_layer_is_read_as_the_engine_reads_it(cases: list[dict[str, Any]], engine: list[Any]) -> None:
    differing = []
    for case, said in zip(cases, engine, strict=True):
        mine = ours(case["config"], modules_of(case["architecture"]))
        if mine != in_our_words(said):
            differing.append((case["config"], mine, in_our_words(said)))

    assert differing[:1] == []
    assert len(differing) == 0


def test_the_configurations_are_of_all_kinds(engine: list[Any]) -> None:
    """Or the test above would agree about nothing."""
    whole = [said for said in engine if said == "refused"]
    modules = [its for said in engine if said != "refused" for its in said]
    stored = {json.dumps(its) for its in modules if isinstance(its, list)}

    assert DRAWN / 20 < len(whole) < DRAWN / 2
    assert modules.count("refused") > 100
    assert modules.count(None) > 500
    assert len(modules) - modules.count(None) - modules.count("refused") > 1000
    assert len(stored) > 8
