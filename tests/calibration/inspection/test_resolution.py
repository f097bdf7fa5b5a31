"""Who is quantized how is told by the engine's rules: whole names or expressions, all groups' names before classes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from calibration.inspection import patterns
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import CheckName, Inspection, Verdict
from tests.calibration.inspection.tiny import LAYERS, LAYOUTS, Tiny, bf16, compressed, fp8

EVERY_DOWN = [f"model.layers.{number}.mlp.down_proj" for number in range(LAYERS)]
QKV = [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"]
Q, T, A = CheckName.QUANTIZATION, CheckName.TENSORS, CheckName.ALIGNMENT


def store(tiny: Tiny, layout: str, modules: Iterable[str]) -> Tiny:
    """Store some layers as another layout does."""
    for module in modules:
        tiny.tensors = {name: its for name, its in tiny.tensors.items() if name.rpartition(".")[0] != module}
        own = LAYOUTS[layout][0](tiny.weights[module])
        tiny.tensors |= {f"{module}.{suffix}": its for suffix, its in own.items()}
    return tiny


def group_of(layout: str, *targets: str) -> dict[str, Any]:
    config = LAYOUTS[layout][1] or {}
    return {**config["config_groups"]["group_0"], "targets": list(targets), "format": config["format"]}


def said(inspection: Inspection, name: CheckName) -> str:
    return "\n".join(text for check in inspection.checks if check.name is name for text in check.texts)


def verdict(inspection: Inspection, name: CheckName) -> Verdict:
    return next(check.verdict for check in inspection.checks if check.name is name)


def test_a_part_of_a_name_ignores_nothing(tmp_path: Path) -> None:
    """An engine reads such a layer's bfloat16 into integers, and says nothing."""
    tiny = store(Tiny("int8"), "bf16", EVERY_DOWN)
    tiny.config["quantization_config"]["ignore"] = ["lm_head", "down_proj"]

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert verdict(found, T) is Verdict.FAIL
    assert "model.layers.0.mlp.down_proj.weight has dtype BF16, expected I8" in said(found, T)
    assert "ignore 'down_proj' is no layer's whole name" in said(found, Q)
    assert "'re:.*down_proj$' is meant" in said(found, Q)


@pytest.mark.parametrize("ignored", [["re:.*down_proj"], EVERY_DOWN, ["re:.*down_proj$", "down_proj"]])
def test_expressions_and_whole_names_ignore_layers(tmp_path: Path, ignored: list[str]) -> None:
    tiny = store(Tiny("int8"), "bf16", EVERY_DOWN)
    tiny.config["quantization_config"]["ignore"] = ignored

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert found.verdict is (Verdict.WARNING if "down_proj" in ignored else Verdict.OK)
    assert f"unquantized ({LAYERS})" in said(found, Q) or found.verdict is Verdict.WARNING


@pytest.mark.parametrize("ignored", [QKV, ["re:.*0.self_attn.[qkv]_proj"]])
def test_all_layers_of_a_stack_may_be_ignored(tmp_path: Path, ignored: list[str]) -> None:
    tiny = store(Tiny("int4"), "bf16", QKV)
    tiny.config["quantization_config"]["ignore"] = ignored

    assert inspect_checkpoint(tiny.write(tmp_path)).verdict is Verdict.OK


@pytest.mark.parametrize("target", ["re:.*down_proj", "re:.*mlp.down_proj$"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_layer_s_name_counts_before_its_class_whatever_the_order_of_the_groups(
    tmp_path: Path, target: str, is_first: bool
) -> None:
    tiny = store(Tiny("int8"), "int4", EVERY_DOWN)
    groups = [group_of("int4", target), group_of("int8", "Linear")]
    named = zip(("group_0", "group_1"), groups if is_first else reversed(groups), strict=True)
    tiny.config["quantization_config"]["config_groups"] = dict(named)

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert found.verdict is Verdict.OK, found
    assert f"pack-quantized 4 bit, per group of 32, asymmetric ({LAYERS})" in said(found, Q)
    assert f"int-quantized 8 bit, per channel, symmetric ({6 * LAYERS})" in said(found, Q)


def test_a_target_for_a_part_of_a_stack_is_none_for_the_stack(tmp_path: Path) -> None:
    """The engine sees qkv_proj: not all of its layers are named, so that the class counts for all three."""
    tiny = store(Tiny("int8"), "int4", QKV[:1])
    groups = {"group_0": group_of("int4", QKV[0]), "group_1": group_of("int8", "Linear")}
    tiny.config["quantization_config"]["config_groups"] = groups

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert "model.layers.0.self_attn.q_proj.weight is missing" in said(found, T)


@pytest.mark.parametrize(
    ("architecture", "target", "is_meant"),
    [
        ("LlamaForCausalLM", "re:.*", True),
        ("LlamaForCausalLM", "re:model.*", False),  # vLLM gives it no name there
        ("Qwen3ForCausalLM", "re:model.*", True),
        ("MistralForCausalLM", "VocabParallel", True),
        ("Qwen2ForCausalLM", "model.embed_tokens", True),
    ],
)
def test_a_target_that_takes_in_the_embedding_is_told(
    tmp_path: Path, architecture: str, target: str, is_meant: bool
) -> None:
    tiny = Tiny("fp8-channel")
    tiny.config["architectures"] = [architecture]
    tiny.config["quantization_config"]["config_groups"]["group_0"]["targets"] = [target]

    found = said(inspect_checkpoint(tiny.write(tmp_path)), Q)

    assert (
        "model.embed_tokens: group_0: embeddings are read as integers per channel or group only" in found
    ) == is_meant


def test_a_head_that_shares_the_embedding_must_not_be_a_target(tmp_path: Path) -> None:
    tiny = Tiny("int8")
    tiny.config["quantization_config"]["ignore"] = []
    tiny.config["quantization_config"]["config_groups"]["group_0"]["targets"] = ["Linear", "lm_head"]

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert "lm_head shares the embedding's weights: quantization_config must ignore it" in said(found, Q)


@pytest.mark.parametrize("where", ["compression_config", "hf_quant_config.json", "text_config"])
def test_a_configuration_is_found_wherever_engines_look_for_it(tmp_path: Path, where: str) -> None:
    tiny = Tiny("int4")
    config = tiny.config.pop("quantization_config") | {"quant_method": "Compressed_Tensors"}
    if where == "hf_quant_config.json":
        (tmp_path / where).write_text(json.dumps(config))
    else:
        tiny.config[where] = {"quantization_config": config} if where == "text_config" else config

    sound = inspect_checkpoint(tiny.write(tmp_path))
    config["config_groups"]["group_0"]["weights"]["num_bits"] = 3
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(config))
    broken = inspect_checkpoint(tiny.write(tmp_path))

    assert sound.verdict is Verdict.OK, sound
    assert "pack-quantized 4 bit" in said(sound, Q)
    assert "holds int of 4 or 8 bits, not int of 3" in said(broken, Q)
    assert broken.verdict is Verdict.FAIL


def test_what_the_configuration_has_no_key_for_is_no_plain_layer(tmp_path: Path) -> None:
    """Engines take 8-bit floats for wide ones where no scheme says otherwise, and say nothing."""
    tiny = Tiny()
    tiny.tensors[f"{EVERY_DOWN[0]}.weight"] = fp8(tiny.weights[EVERY_DOWN[0]])

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert f"{EVERY_DOWN[0]}.weight has dtype F8_E4M3, expected float" in said(found, T)


CACHE = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
ATTENTION = {"targets": ["LlamaAttention"], "weights": None, "input_activations": CACHE}


@pytest.mark.parametrize("groups", [{}, {"group_0": ATTENTION}])
def test_a_checkpoint_of_which_only_the_cache_is_quantized_is_sound(tmp_path: Path, groups: dict[str, Any]) -> None:
    tiny = Tiny()
    tiny.config["quantization_config"] = compressed("float-quantized") | {
        "config_groups": groups,
        "kv_cache_scheme": CACHE,
    }

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert found.verdict is Verdict.OK, found
    assert said(found, Q) == "none"


@pytest.mark.parametrize(
    ("layout", "fields", "text"),
    [
        ("int8", {"kv_cache_scheme": CACHE | {"type": "int"}}, "kv_cache_scheme: type must be float, got 'int'"),
        ("int8", {"kv_cache_scheme": CACHE | {"symmetric": False}}, "kv_cache_scheme: symmetric must be True"),
        ("int8", {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "strategy must be tensor or attn_head"),
        ("int4", {"sparsity_config": {"format": "sparse-24-bitmask", "targets": ["Linear"]}}, "sparsity_config"),
        ("int4", {"quantization_status": "frozen"}, "must be compressed, got 'frozen'"),
    ],
)  # fmt: skip
def test_what_ends_the_engine_is_found(tmp_path: Path, layout: str, fields: dict[str, Any], text: str) -> None:
    tiny = Tiny(layout)
    tiny.config["quantization_config"] |= fields

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert verdict(found, Q) is Verdict.FAIL
    assert text in said(found, Q)


@pytest.mark.parametrize(
    ("layout", "fields", "text"),
    [
        ("int8", {"input_activations": None}, "int-quantized integers need input_activations"),
        ("int8", {"weights": None}, "Expected `object`, got `null` - at `$.weights`"),
        ("int8", {"input_activations": {"num_bits": 8, "dynamic": True, "strategy": "group", "group_size": 32}},
         "no scheme for int-quantized int of 8 bits per channel with input_activations int of 8 bits per group, dyn"),
    ],
)  # fmt: skip
def test_a_group_that_no_scheme_of_the_engine_takes_is_found(
    tmp_path: Path, layout: str, fields: dict[str, Any], text: str
) -> None:
    tiny = Tiny(layout)
    tiny.config["quantization_config"]["config_groups"]["group_0"] |= fields

    assert text in said(inspect_checkpoint(tiny.write(tmp_path)), Q)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"actorder": "group"}, "actorder must be static or weight"),
        ({"actorder": True}, "actorder must be static or weight"),
        ({"dynamic": True}, "weights must not be dynamic"),
        ({"strategy": "tensor", "group_size": None}, "no scheme for pack-quantized int of 4 bits per tensor"),
        ({"strategy": "channel"}, "group_size is for strategy group, got 32 with strategy channel"),
        ({"of_tomorrow": 1}, "unknown field `of_tomorrow`"),
    ],
)
def test_numbers_that_the_engine_does_not_take_are_found(tmp_path: Path, weights: dict[str, Any], text: str) -> None:
    tiny = Tiny("int4")
    tiny.config["quantization_config"]["config_groups"]["group_0"]["weights"] |= weights

    assert text in said(inspect_checkpoint(tiny.write(tmp_path)), Q)


def test_a_group_for_layers_that_there_are_not_costs_nothing(tmp_path: Path) -> None:
    tiny = Tiny("int4")
    experts = group_of("int4", "re:.*experts.*")
    experts["weights"] = experts["weights"] | {"num_bits": 3}
    tiny.config["quantization_config"]["config_groups"]["group_1"] = experts

    assert inspect_checkpoint(tiny.write(tmp_path)).verdict is Verdict.OK


def test_what_autoawq_left_alone_without_a_list_is_told_by_the_tensors(tmp_path: Path) -> None:
    tiny = store(Tiny("awq"), "bf16", EVERY_DOWN[:1])

    assert inspect_checkpoint(tiny.write(tmp_path)).verdict is Verdict.OK


def test_autoawq_s_own_names_of_its_numbers_are_known(tmp_path: Path) -> None:
    tiny = Tiny("awq")
    config = tiny.config["quantization_config"]
    config |= {"w_bit": config.pop("bits"), "q_group_size": config.pop("group_size")}

    assert inspect_checkpoint(tiny.write(tmp_path)).verdict is Verdict.OK


def test_a_part_of_the_name_of_a_stack_keeps_all_of_it_from_autoawq_s_reader(tmp_path: Path) -> None:
    tiny = store(Tiny("awq"), "bf16", [name for name in Tiny().weights if name.endswith("v_proj")])
    tiny.config["quantization_config"]["modules_to_not_convert"] = ["v_proj"]

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert "q_proj.weight is missing" in said(found, T)


@pytest.mark.parametrize("pattern", ["re:(.+)+!", "re:(?=(a|.)*$)(.*)*!"])
def test_an_expression_that_takes_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(patterns, "_LIMIT_S", 1.5)
    tiny = Tiny("int4")
    tiny.config["quantization_config"]["ignore"] = [pattern]

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert "its expressions take longer than 1.5 s, in an engine as well" in said(found, Q)


@pytest.mark.parametrize("pattern", ["re:[[:alpha:]]*", "re:[", "re:\\p{L}"])
def test_an_expression_that_means_another_thing_to_the_engine_is_told(tmp_path: Path, pattern: str) -> None:
    tiny = Tiny("int4")
    tiny.config["quantization_config"]["ignore"] = [pattern]

    assert "cannot be tried" in said(inspect_checkpoint(tiny.write(tmp_path)), Q)


def test_weights_of_another_layout_are_found_beside_a_sound_configuration(tmp_path: Path) -> None:
    tiny = Tiny("int4")
    tiny.tensors[f"{EVERY_DOWN[0]}.weight"] = bf16(tiny.weights[EVERY_DOWN[0]])

    found = inspect_checkpoint(tiny.write(tmp_path))

    assert verdict(found, T) is Verdict.FAIL
    assert verdict(found, A) is Verdict.OK
