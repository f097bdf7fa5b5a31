"""workers/engines/hardware/cpu.py: float32 where bf16 would be emulated, and prompts that are read whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.engines.hardware.cpu import dtype_args, prefill_args


@pytest.mark.parametrize(
    ("flags", "given", "added"),
    [
        ("avx2", (), ["--dtype", "float32"]),
        ("avx2", ("--dtype", "bfloat16"), []),
        ("avx2", ("--dtype=auto",), []),
        ("avx2 avx512f amx_tile", (), []),
    ],
)
def test_float32_is_asked_for_only_where_bf16_is_emulated(
    tmp_path: Path, flags: str, given: tuple[str, ...], added: list[str]
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n", encoding="utf-8")

    assert dtype_args(given, cpuinfo=cpuinfo, gpus=[tmp_path / "none"]) == added


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ((), ["--no-enable-chunked-prefill"]),
        (("--enable-chunked-prefill",), []),
        (("--no-enable-chunked-prefill",), []),
        (("--enable_chunked_prefill",), []),  # as vLLM takes it, too
        (("--max-num-batched-tokens=2048",), []),  # fewer than the longest prompt: vLLM would not start
    ],
)
def test_a_processor_reads_prompts_whole_unless_it_is_said_otherwise(
    tmp_path: Path, given: tuple[str, ...], added: list[str]
) -> None:
    assert prefill_args(given, gpus=[tmp_path / "none"]) == added


def test_a_gpu_chooses_for_itself(tmp_path: Path) -> None:
    assert prefill_args((), gpus=[tmp_path / "none", tmp_path]) == []
    assert dtype_args((), cpuinfo=tmp_path / "none", gpus=[tmp_path]) == []
