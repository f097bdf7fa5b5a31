"""workers/engines/hardware: which GPUs are seen, and which of them compute with a checkpoint's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitladder.settings.models_section import TierSettings
from bitladder.settings.worker_section import VllmSettings
from tests.fake_vllm import install
from tests.workers.engines.gpus import A10G, A100_AND_L4, H200, install_nvidia_smi, quantized
from workers.engines.errors import EngineFaultError
from workers.engines.hardware.gpu_fit import Arithmetic, misfit, misfit_of, numbers_of, read_config
from workers.engines.hardware.nvidia import Gpu, read_gpus, seen_gpus, visible
from workers.engines.vllm_server import VllmServer

FP8 = quantized(("float", 8), ("float", 8))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (quantized(("int", 4), None), Arithmetic.W4A16),
        (quantized(("int", 8), None), Arithmetic.W8A16),
        (quantized(("int", 8), ("int", 8)), Arithmetic.INT8),
        (FP8, Arithmetic.FP8),
        (quantized(("float", 8), None), Arithmetic.W8A16),
        ({"text_config": FP8}, Arithmetic.FP8),
        ({"quantization_config": {"quant_method": "awq", "w_bit": 4}}, Arithmetic.W4A16),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, Arithmetic.W8A16),
        ({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}, Arithmetic.FP8),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}, Arithmetic.FP8),
        ({"hidden_size": 64}, None),
        ({"quantization_config": "nonsense"}, None),
        ({"quantization_config": {"config_groups": {"a": None, "b": {"weights": 3}}}}, None),
    ],
)
def test_a_configuration_says_what_its_layers_are_computed_with(
    config: dict[str, Any], expected: Arithmetic | None
) -> None:
    assert numbers_of(config) == ({expected} if expected else set())


@pytest.mark.parametrize(
    ("numbers", "fitting", "unfit"),
    [
        (Arithmetic.FP8, (89, 90, 100, 120), (70, 75, 80, 86)),
        (Arithmetic.INT8, (75, 80, 89, 90), (70, 100, 120)),
        (Arithmetic.W4A16, (75, 80, 90, 120), (70,)),
        (Arithmetic.W8A16, (75, 80, 90, 120), (70,)),
    ],
)
def test_each_kind_of_numbers_needs_its_units(
    numbers: Arithmetic, fitting: tuple[int, ...], unfit: tuple[int, ...]
) -> None:
    assert [capability for capability in fitting if misfit([numbers], capability, "it")] == []
    assert [capability for capability in unfit if not misfit([numbers], capability, "it")] == []


def test_a_reason_names_gpu_capability_and_need() -> None:
    reason = misfit([Arithmetic.FP8, Arithmetic.W4A16], 80, "NVIDIA A100")

    assert "NVIDIA A100 has compute capability 8.0, FP8 W8A8 needs at least 8.9" in reason
    assert "weights only (W8A16)" in reason


def test_the_gpus_that_cuda_would_use_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", install_nvidia_smi(tmp_path, A100_AND_L4))
    names = ["NVIDIA A100-SXM4-80GB", "NVIDIA L4"]

    assert [gpu.name for gpu in seen_gpus({})] == names
    assert [gpu.name for gpu in seen_gpus({"CUDA_VISIBLE_DEVICES": "1,0"})] == names[::-1]
    assert [gpu.name for gpu in seen_gpus({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"})] == names[1:]
    assert [gpu.name for gpu in seen_gpus({"CUDA_VISIBLE_DEVICES": "1,7,0"})] == names[1:]
    assert seen_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert len(seen_gpus({"CUDA_VISIBLE_DEVICES": "MIG-0"})) == 2


@pytest.mark.parametrize(
    "answer", ["", "No devices were found\n", "0, GPU-1, NVIDIA Thing, [N/A], 1, 1, 1\n", "a,b\n" * 3]
)
def test_lines_that_are_none_of_a_gpu_are_none(answer: str) -> None:
    assert visible(read_gpus(answer), None) == []


def test_a_machine_whose_driver_fails_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", install_nvidia_smi(tmp_path, "NVIDIA-SMI has failed", status=9))

    assert seen_gpus({}) == []


def test_all_gpus_that_a_tensor_is_spread_over_must_fit() -> None:
    gpus: list[Gpu] = read_gpus(A100_AND_L4)[::-1]  # the L4 first

    assert misfit_of([Arithmetic.FP8], gpus, ()) == ""
    for args in (("--tensor-parallel-size", "2"), ("--tensor-parallel-size=2",), ("-tp", "2")):
        assert "A100" in misfit_of([Arithmetic.FP8], gpus, args)


async def test_a_worker_refuses_fp8_on_a_gpu_without_its_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FP8 | {"max_position_embeddings": 4096}), encoding="utf-8")
    tier = TierSettings(name="fp8", checkpoint=str(tmp_path))

    async def start(answer: str, **settings: Any) -> None:  # noqa: ANN401  (any setting)
        monkeypatch.setenv("PATH", install_nvidia_smi(tmp_path / "bin", answer))
        server = VllmServer("m", tier, VllmSettings(python=install(tmp_path), start_timeout_s=30, **settings))
        try:
            await server.start()
        finally:
            await server.stop()

    with pytest.raises(EngineFaultError, match=r"tier fp8: NVIDIA A10G has compute capability 8\.6.*vllm\.check_gpu"):
        await start(A10G)
    await start(A10G, check_gpu=False)
    await start(H200)
    await start(A100_AND_L4, env={"CUDA_VISIBLE_DEVICES": "1"})


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", "\0"):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(EngineFaultError, match=r"config\.json"):
            read_config(tmp_path)
