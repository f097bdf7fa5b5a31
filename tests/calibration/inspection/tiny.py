"""A small real checkpoint made with numpy in every layout that is inspected, to be spoiled before it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HIDDEN, INNER, HEADS, KEYS, LAYERS, VOCABULARY = 64, 128, 4, 2, 2, 96
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NAMES = {"<f4": "F32", "<u4": "I32", "<i4": "I32", "<i8": "I64", "|i1": "I8", "<f2": "F16"}
Array = npt.NDArray[Any]


def bf16(values: Array) -> tuple[str, Array]:
    return "BF16", (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def fp8(values: Array) -> tuple[str, Array]:
    """Round to the nearest of the codes of e4m3."""
    codes = np.arange(127, dtype=np.uint8)
    exponent, mantissa = codes >> 3, codes & 7
    numbers = (mantissa / 8 + (exponent > 0)) * 2.0 ** (np.maximum(exponent, 1) - 7.0)
    nearest = np.abs(np.abs(values)[..., None] - numbers).argmin(axis=-1).astype(np.uint8)
    return "F8_E4M3", nearest | (np.signbit(values).astype(np.uint8) << 7)


class Tiny:
    """Files of a checkpoint as they will be written; a test changes them first."""

    def __init__(self, layout: str = "bf16") -> None:
        random = np.random.default_rng(5)
        self.weights: dict[str, Array] = {}  # what the layers really are
        self.tensors: dict[str, tuple[str, Array]] = {}
        self.config = config()
        self.tokenizer, self.tokenizer_config = tokenizer(), {"eos_token": "<e>", "chat_template": "{{ messages }}"}
        self.index: dict[str, str] | None = None
        keys = KEYS * HIDDEN // HEADS
        shapes = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (keys, HIDDEN)}
        shapes |= {"self_attn.v_proj": (keys, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN)}
        shapes |= {"mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
        quantize, its_config = LAYOUTS[layout]
        if its_config:
            self.config["quantization_config"] = json.loads(json.dumps(its_config))
        for number in range(LAYERS):
            for name, shape in shapes.items():
                module = f"model.layers.{number}.{name}"
                self.weights[module] = random.normal(0, 0.05, shape).astype("<f4")
                self.tensors |= {f"{module}.{suffix}": own for suffix, own in quantize(self.weights[module]).items()}
            for name in ("input_layernorm", "post_attention_layernorm"):
                self.tensors[f"model.layers.{number}.{name}.weight"] = bf16(random.normal(1, 0.1, HIDDEN))
        self.tensors["model.norm.weight"] = bf16(random.normal(1, 0.1, HIDDEN))
        self.tensors["model.embed_tokens.weight"] = bf16(random.normal(0, 0.1, (VOCABULARY, HIDDEN)))

    def array(self, name: str) -> Array:
        """Return the stored numbers of a tensor, to be changed in place."""
        return self.tensors[name][1]

    def write(self, folder: Path, shards: int = 1) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        names = list(self.tensors)
        files = [f"model-{one + 1:05}-of-{shards:05}.safetensors" for one in range(shards)]
        for one, file in enumerate(["model.safetensors"] if shards == 1 else files):
            write_tensors(folder / file, {name: self.tensors[name] for name in names[one::shards]})
        if shards > 1:
            where = {name: files[number % shards] for number, name in enumerate(names)}
            write_json(
                folder / "model.safetensors.index.json", {"weight_map": where if self.index is None else self.index}
            )
        write_json(folder / "config.json", self.config)
        write_json(folder / "tokenizer.json", self.tokenizer)
        write_json(folder / "tokenizer_config.json", self.tokenizer_config)
        return folder


def write_tensors(path: Path, tensors: dict[str, tuple[str, Array]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    head = json.dumps(header).encode()
    parts = [np.ascontiguousarray(values).tobytes() for _, values in tensors.values()]
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts))


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEYS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "dtype": "bfloat16",
    }


def tokenizer() -> dict[str, Any]:
    special = [{"id": number, "content": text, "special": True} for number, text in enumerate(("<b>", "<e>"))]
    vocabulary = {f"t{number}": number for number in range(2, VOCABULARY)}
    return {
        "version": "1.0",
        "truncation": None,
        "added_tokens": special,
        "model": {"type": "BPE", "vocab": vocabulary},
    }


def stored(values: Array) -> tuple[str, Array]:
    return NAMES[values.dtype.str], values


def words(values: Array, order: tuple[int, ...] = tuple(range(8))) -> tuple[str, Array]:
    """Pack eight 4-bit values of the last axis into one word."""
    parts = values.astype("<u4").reshape(*values.shape[:-1], -1, 8)
    packed = np.zeros(parts.shape[:-1], "<u4")
    for position, column in enumerate(order):
        packed |= parts[..., column] << np.uint32(4 * position)
    return "I32", packed


def rounded(values: Array, size: int) -> tuple[Array, Array, Array]:
    """Round groups of a row to 16 levels from their smallest to their largest value: levels, scales, zero points."""
    groups = values.reshape(len(values), -1, size)
    low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
    scales = (high - low) / 15
    zeros = np.round(-low / scales)
    levels = np.clip(np.round(groups / scales[..., None]) + zeros[..., None], 0, 15)
    return levels.reshape(values.shape), scales, zeros


def int4(values: Array) -> dict[str, tuple[str, Array]]:
    levels, scales, zeros = rounded(values, 32)
    zero_words = words(zeros.T)[1].T
    shape = stored(np.array(values.shape, "<i8"))
    own = {"weight_packed": words(levels), "weight_scale": bf16(scales), "weight_shape": shape}
    return own | {"weight_zero_point": ("I32", zero_words)}


def int4_symmetric(values: Array) -> dict[str, tuple[str, Array]]:
    groups = values.reshape(len(values), -1, 32)
    scales = np.abs(groups).max(-1) / 7
    levels = np.clip(np.round(groups / scales[..., None]), -8, 7).reshape(values.shape) + 8
    return {
        "weight_packed": words(levels),
        "weight_scale": bf16(scales),
        "weight_shape": stored(np.array(values.shape, "<i8")),
    }


def awq(values: Array) -> dict[str, tuple[str, Array]]:
    levels, scales, zeros = rounded(values, 32)
    return {
        "qweight": words(np.ascontiguousarray(levels.T), AWQ_ORDER),
        "qzeros": words(np.ascontiguousarray(zeros.T), AWQ_ORDER),
        "scales": stored(np.ascontiguousarray(scales.T).astype("<f2")),
    }


def int8(values: Array) -> dict[str, tuple[str, Array]]:
    scales = np.abs(values).max(axis=1, keepdims=True) / 127
    return {"weight": stored(np.round(values / scales).astype("i1")), "weight_scale": bf16(scales)}


def fp8_channel(values: Array) -> dict[str, tuple[str, Array]]:
    scales = np.abs(values).max(axis=1, keepdims=True) / 448
    return {"weight": fp8(values / scales), "weight_scale": bf16(scales)}


def fp8_tensor(values: Array) -> dict[str, tuple[str, Array]]:
    scale = np.abs(values).max() / 448
    one = stored(np.array([1.0], "<f4"))
    return {"weight": fp8(values / scale), "weight_scale": stored(np.array([scale], "<f4")), "input_scale": one}


def fp8_block(values: Array) -> dict[str, tuple[str, Array]]:
    rows, columns = -(-values.shape[0] // 32), -(-values.shape[1] // 128)
    scales = np.array([[np.abs(values[r * 32 : r * 32 + 32]).max() / 448 for _ in range(columns)] for r in range(rows)])
    spread = scales.repeat(32, axis=0)[: values.shape[0]].repeat(128, axis=1)[:, : values.shape[1]]
    return {"weight": fp8(values / spread), "weight_scale": bf16(scales)}


def compressed(layout: str, **weights: object) -> dict[str, Any]:
    numbers = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, **weights}
    inputs: dict[str, Any] | None = None
    if layout == "int-quantized":
        inputs = {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"}
    elif weights.get("strategy") == "tensor":
        inputs = {"num_bits": 8, "type": "float", "dynamic": False, "strategy": "tensor"}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": numbers, "input_activations": inputs}},
    }


LAYOUTS: dict[str, tuple[Callable[[Array], dict[str, tuple[str, Array]]], dict[str, Any] | None]] = {
    "bf16": (lambda values: {"weight": bf16(values)}, None),
    "int4": (int4, compressed("pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False)),
    "int4-symmetric": (int4_symmetric, compressed("pack-quantized", num_bits=4, strategy="group", group_size=32)),
    "int8": (int8, compressed("int-quantized", strategy="channel")),
    "fp8-channel": (fp8_channel, compressed("float-quantized", type="float", strategy="channel")),
    "fp8-tensor": (fp8_tensor, compressed("float-quantized", type="float", strategy="tensor")),
    "fp8-block": (fp8_block, compressed("float-quantized", type="float", strategy="block", block_structure=[32, 128])),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}),
}
