"""GPUs: whether they compute with the tiers' numbers, and whether their memory holds weights and cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitladder.cli.ops.doctor.checkpoint_checks import config_here, folder_of, weight_bytes
from bitladder.cli.ops.doctor.finding import Examined, Finding, fail, in_bytes, ok, skipped, warn
from bitladder.settings.load import foreign_environment
from bitladder.settings.models_section import TierSettings
from workers.engines.hardware.arguments import value_of
from workers.engines.hardware.gpu_fit import Arithmetic, capability_of, misfit, misfit_of, numbers_of
from workers.engines.hardware.memory import DEFAULT_UTILIZATION, read_length
from workers.engines.hardware.nvidia import Gpu, seen_gpus

# Activations, CUDA graphs and the libraries themselves, about.
_OVERHEAD_BYTES = 2 * 2**30
# Where requests are a quarter of the longest context on average, all slots find room in this share of full ones.
_USUAL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Room:
    """A GPU's memory by arithmetic, before anything is loaded."""

    budget: int  # of all GPUs that the server uses
    weights: int
    token_bytes: int  # of the cache, per token; 0: the configuration does not say

    @property
    def tokens(self) -> int:
        """How many tokens the cache holds; 0: none, or not known."""
        left = self.budget - self.weights - _OVERHEAD_BYTES
        return max(0, left) // self.token_bytes if self.token_bytes else 0


def check_gpu(examined: Examined) -> Iterator[Finding]:
    """Yield what is to be said of the GPUs seen here, and of those that the configuration names."""
    if examined.settings.worker.engine != "vllm":
        yield skipped("gpu.seen", "this machine", f"worker.engine is {examined.settings.worker.engine!r}")
        return
    gpus = seen_gpus(foreign_environment() | examined.settings.vllm.environment)
    if not gpus:
        yield skipped("gpu.seen", "this machine", "no GPU seen (nvidia-smi is missing, names none, or none is visible)")
    for gpu in gpus:
        shown = f"compute capability {gpu.capability / 10:.1f}, {in_bytes(gpu.memory_bytes)}, driver {gpu.driver}"
        yield ok("gpu.seen", f"{gpu.index} {gpu.name}", f"{shown}, {in_bytes(gpu.used_bytes)} used now")
    for name, tier in examined.tiers():
        config = config_here(examined, tier)
        numbers = numbers_of(config) if config is not None else _promised(tier.name)
        yield from _named_hardware(name, tier, numbers)
        if gpus and config is not None:
            args = (*examined.settings.vllm.args, *tier.vllm_args)
            yield _capability(name, numbers, gpus, args, is_checked=examined.settings.vllm.check_gpu)
            yield _memory(examined, name, tier, config, gpus)
    yield from _shared(examined, gpus)


def _promised(tier: str) -> frozenset[Arithmetic]:
    kinds = {"fp8": Arithmetic.FP8, "int8": Arithmetic.INT8, "int4": Arithmetic.W4A16}
    return frozenset(kind for start, kind in kinds.items() if tier.lower().startswith(start))


def _named_hardware(name: str, tier: TierSettings, numbers: frozenset[Arithmetic]) -> Iterator[Finding]:
    """Hold the tier's numbers against the GPU that its settings name: that needs no GPU here."""
    capability = capability_of(tier.hardware)
    if capability is None or not numbers:
        return
    if problem := misfit(numbers, capability, tier.hardware):
        yield fail("gpu.hardware", name, problem, _cure(numbers))
    else:
        yield ok("gpu.hardware", name, f"{tier.hardware} computes with {', '.join(sorted(numbers))}")


def _capability(
    name: str, numbers: frozenset[Arithmetic], gpus: Sequence[Gpu], args: Sequence[str], *, is_checked: bool
) -> Finding:
    if problem := misfit_of(numbers, gpus, args):
        effect = "a worker refuses it" if is_checked else "vllm.check_gpu is false, so a worker serves it all the same"
        return fail("gpu.capability", name, f"{problem}; {effect}", _cure(numbers))
    shown, oldest = ", ".join(sorted(numbers)) or "not quantized", min(gpu.capability for gpu in gpus)
    if oldest < 80 and numbers & {Arithmetic.W4A16, Arithmetic.W8A16}:
        text = f"{shown} on compute capability {oldest / 10:.1f}: Marlin computes there in fp16 only"
        return warn("gpu.capability", name, text, "--dtype half in vllm_args, and measure the tier on this GPU")
    return ok("gpu.capability", name, f"{shown}: the GPU has the units for it")


def _cure(numbers: frozenset[Arithmetic]) -> str:
    if Arithmetic.FP8 in numbers:
        return "serve the tier on L4, L40S, H100 or newer, or an INT8 checkpoint on this GPU"
    if Arithmetic.INT8 in numbers:
        return "serve an FP8 checkpoint on Blackwell, or the tier on T4 to H200"
    return "serve the tier on a GPU of compute capability 7.5 or newer"


def read_room(config: Mapping[str, Any], weights: int, gpus: Sequence[Gpu], args: Sequence[str]) -> Room:
    """Return the arithmetic of one server."""
    text = config.get("text_config")
    shape: Mapping[str, Any] = {**config, **text} if isinstance(text, dict) else config
    spread = int(value) if (value := value_of(args, "--tensor-parallel-size", "-tp") or "1").isdigit() else 1
    share = _number(value_of(args, "--gpu-memory-utilization"), DEFAULT_UTILIZATION)
    budget = int(sum(gpu.memory_bytes for gpu in gpus[:spread]) * share)
    heads = _whole(shape, "num_attention_heads")
    size = _whole(shape, "head_dim") or (_whole(shape, "hidden_size") // heads if heads else 0)
    key_heads, layers = _whole(shape, "num_key_value_heads") or heads, _whole(shape, "num_hidden_layers")
    number_bytes = 1 if (value_of(args, "--kv-cache-dtype") or "").startswith("fp8") else 2
    is_latent = "kv_lora_rank" in shape  # compressed keys: other arithmetic
    return Room(budget, weights, 0 if is_latent else 2 * layers * key_heads * size * number_bytes)


def _memory(
    examined: Examined, name: str, tier: TierSettings, config: Mapping[str, Any], gpus: Sequence[Gpu]
) -> Finding:
    args = (*examined.settings.vllm.args, *tier.vllm_args)
    room = read_room(config, weight_bytes(folder_of(examined, tier)), gpus, args)
    length = read_length(value_of(args, "--max-model-len")) or _whole(config, "max_position_embeddings") or 8192
    return judge_room(name, room, length, tier.slots)


def judge_room(name: str, room: Room, length: int, slots: int) -> Finding:
    """Say whether weights and cache find room, for so many slots and the longest context."""
    shown = f"{in_bytes(room.weights)} of weights in {in_bytes(room.budget)}"
    if room.weights + _OVERHEAD_BYTES > room.budget:
        text = f"{shown}: no room for the cache beside about {in_bytes(_OVERHEAD_BYTES)} for the engine itself"
        cure = "a higher --gpu-memory-utilization, --tensor-parallel-size, a larger GPU, or a smaller checkpoint"
        return fail("gpu.memory", name, text, cure)
    if not room.token_bytes:
        return skipped("gpu.memory", name, f"{shown}; the configuration does not say how large the cache of a token is")
    shown += f" leave about {room.tokens} tokens of cache ({in_bytes(room.token_bytes)} each)"
    if room.tokens < length:
        text = f"{shown}, less than one request of {length} tokens (--max-model-len)"
        return fail("gpu.memory", name, text, f"--max-model-len {room.tokens}, or more memory")
    if room.tokens < slots * length * _USUAL_SHARE:
        text = f"{shown}; {slots} slots of a quarter of {length} tokens need {int(slots * length * _USUAL_SHARE)}"
        cure = (
            f"slots = {max(1, int(room.tokens / (length * _USUAL_SHARE)))}, a shorter --max-model-len, or more memory"
        )
        return warn("gpu.memory", name, text, cure)
    return ok("gpu.memory", name, f"{shown}, for {slots} slots")


def _shared(examined: Examined, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Warn where all tiers that are here would ask for more than the only GPU has."""
    here = [(name, tier) for name, tier in examined.tiers() if config_here(examined, tier) is not None]
    if len(gpus) != 1 or len(here) < 2:
        return
    common = examined.settings.vllm.args
    share = sum(
        _number(value_of((*common, *tier.vllm_args), "--gpu-memory-utilization"), DEFAULT_UTILIZATION)
        for _, tier in here
    )
    if share > 1:
        text = f"{len(here)} tiers on one GPU ask for {share:.2f} of its memory together"
        cure = f"--gpu-memory-utilization {0.9 / len(here):.2f} in vllm.args, or a GPU for each (CUDA_VISIBLE_DEVICES)"
        yield warn("gpu.shared", gpus[0].name, text, cure)


def _number(text: str | None, otherwise: float) -> float:
    try:
        return float(text) if text else otherwise
    except ValueError:
        return otherwise


def _whole(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else 0
