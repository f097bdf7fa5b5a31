"""From config.json to the layers that a model must have: names, widths, and what engines stack on one another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

# The deepest models have some two hundred; a damaged number must not fill the memory with names.
_MAX_LAYERS = 1000
# Nor must it make products that are too large to print.
_MAX_WIDTH = 1 << 32
# vLLM's classes; the first two are no linear layers to it.
EMBEDDING, HEAD = "VocabParallelEmbedding", "ParallelLMHead"
EMBEDDING_LAYER, HEAD_LAYER = "model.embed_tokens", "lm_head"
_QKV, _GATE_UP, _ROW = "QKVParallelLinear", "MergedColumnParallelLinear", "RowParallelLinear"


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of config.json; the rest is not looked at."""

    architectures: tuple[str, ...]
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None  # None: as many as there are heads
    head_dim: int | None = None
    vocab_size: int
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    max_position_embeddings: int | None = None
    auto_map: dict[str, Any] | None = None  # Any: JSON
    # Where engines look for what is quantized (quantization.py).
    quantization_config: Any = None
    compression_config: Any = None
    text_config: Any = None

    def __post_init__(self) -> None:
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
            if not 1 <= getattr(self, name) <= _MAX_WIDTH:
                raise ValueError(f"{name} must be from 1 to {_MAX_WIDTH}, got {getattr(self, name)}")
        if self.head_dim is not None and not 1 <= self.head_dim <= _MAX_WIDTH:
            raise ValueError(f"head_dim must be from 1 to {_MAX_WIDTH}, got {self.head_dim}")
        if not 0 <= (self.num_key_value_heads or 0) <= self.num_attention_heads:
            raise ValueError(
                f"num_key_value_heads must be at most {self.num_attention_heads}, got {self.num_key_value_heads}"
            )
        if self.num_hidden_layers > _MAX_LAYERS:
            raise ValueError(f"num_hidden_layers must be at most {_MAX_LAYERS}, got {self.num_hidden_layers}")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """How an architecture differs from Llama's."""

    qkv_bias: bool = False
    qk_norm: bool = False
    embedding: str = ""  # what the embedding is called where vLLM asks how it is stored


FAMILIES = {
    "LlamaForCausalLM": _Family(),
    "MistralForCausalLM": _Family(),
    "Qwen2ForCausalLM": _Family(qkv_bias=True, embedding=EMBEDDING_LAYER),
    "Qwen3ForCausalLM": _Family(qk_norm=True, embedding=EMBEDDING_LAYER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module as an engine builds it: of one layer of the checkpoint, or of several, on top of one another."""

    name: str
    kind: str  # its class in vLLM
    layers: tuple[str, ...]

    @property
    def is_stack(self) -> bool:
        return len(self.layers) > 1

    @property
    def shown(self) -> str:
        head, *rest = self.layers
        return "+".join([head, *(layer.rpartition(".")[2] for layer in rest)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What a model of a known family consists of."""

    linears: dict[str, tuple[int, int]]  # layer -> (outputs, inputs); may be quantized
    plain: dict[str, tuple[int, ...]]  # tensor -> shape; never quantized
    modules: tuple[Module, ...]  # of linears, and of the head where it shares the embedding's weights


def layers_of(config: ModelConfig) -> Layers | None:
    """Return what the model must consist of, or None where its architecture is not known here."""
    family = FAMILIES.get(config.architectures[0] if config.architectures else "")
    if family is None:
        return None
    linears = {EMBEDDING_LAYER: (config.vocab_size, config.hidden_size)}
    plain: dict[str, tuple[int, ...]] = {"model.norm.weight": (config.hidden_size,)}
    modules = [Module(name=family.embedding, kind=EMBEDDING, layers=(EMBEDDING_LAYER,)), _alone(HEAD_LAYER, HEAD)]
    for number in range(config.num_hidden_layers):
        prefix = f"model.layers.{number}"
        linears |= (own_linears := _linears(config, prefix))
        plain |= _plain(config, family, prefix, own_linears)
        modules += _modules(f"{prefix}.self_attn", f"{prefix}.mlp")
    if not config.tie_word_embeddings:
        linears[HEAD_LAYER] = (config.vocab_size, config.hidden_size)
    return Layers(linears=linears, plain=plain, modules=tuple(modules))


def _modules(attention: str, mlp: str) -> list[Module]:
    queries = tuple(f"{attention}.{name}_proj" for name in "qkv")
    gates = tuple(f"{mlp}.{name}_proj" for name in ("gate", "up"))
    return [
        Module(name=f"{attention}.qkv_proj", kind=_QKV, layers=queries),
        _alone(f"{attention}.o_proj", _ROW),
        Module(name=f"{mlp}.gate_up_proj", kind=_GATE_UP, layers=gates),
        _alone(f"{mlp}.down_proj", _ROW),
    ]


def _alone(name: str, kind: str) -> Module:
    return Module(name=name, kind=kind, layers=(name,))


def parameters(layers: Layers) -> int:
    """Return how many numbers the model has."""
    return sum(math.prod(shape) for shape in (*layers.linears.values(), *layers.plain.values()))


def head_dim(config: ModelConfig) -> int:
    return config.head_dim or config.hidden_size // config.num_attention_heads


def _linears(config: ModelConfig, prefix: str) -> dict[str, tuple[int, int]]:
    queries = config.num_attention_heads * head_dim(config)
    keys = (config.num_key_value_heads or config.num_attention_heads) * head_dim(config)
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        f"{prefix}.self_attn.q_proj": (queries, hidden),
        f"{prefix}.self_attn.k_proj": (keys, hidden),
        f"{prefix}.self_attn.v_proj": (keys, hidden),
        f"{prefix}.self_attn.o_proj": (hidden, queries),
        f"{prefix}.mlp.gate_proj": (inner, hidden),
        f"{prefix}.mlp.up_proj": (inner, hidden),
        f"{prefix}.mlp.down_proj": (hidden, inner),
    }


def _plain(
    config: ModelConfig, family: _Family, prefix: str, linears: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, ...]]:
    plain: dict[str, tuple[int, ...]] = {
        f"{prefix}.{name}.weight": (config.hidden_size,) for name in ("input_layernorm", "post_attention_layernorm")
    }
    if family.qk_norm:
        plain |= {f"{prefix}.self_attn.{name}_norm.weight": (head_dim(config),) for name in "qk"}
    for module, (outputs, _) in linears.items():
        kind = module.rpartition(".")[2]
        is_biased = config.mlp_bias if ".mlp." in module else config.attention_bias
        if is_biased or (family.qkv_bias and kind in ("q_proj", "k_proj", "v_proj")):
            plain[f"{module}.bias"] = (outputs,)
    return plain
